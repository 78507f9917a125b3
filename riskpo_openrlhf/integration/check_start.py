"""Check all that flags, files and sizes can tell, before a GPU is taken: for the real start and the dry run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from riskpo_openrlhf.files import existing
from riskpo_openrlhf.integration import memory
from riskpo_openrlhf.integration.check_data import is_local, read_files
from riskpo_openrlhf.integration.check_flags import flag_notes, flag_problems, reward_names, value_problems
from riskpo_openrlhf.integration.check_sizes import size_notes, size_problems
from riskpo_openrlhf.integration.faults import Problem, RunFault
from riskpo_openrlhf.integration.final_flags import names
from riskpo_openrlhf.integration.fingerprints import check_resume
from riskpo_openrlhf.integration.try_reward import find_fault
from riskpo_openrlhf.verifiers import built_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Checked(NamedTuple):
    """What is wrong, what may surprise, and the estimate of memory (None if the model's config is not here)."""

    problems: list[Problem]
    notes: list[str]
    memory: memory.Estimate | None


def check(values: dict, call_reward: bool = False) -> Checked:
    """Check the final flags. `values`: by dotted name. `call_reward`: call the reward function once on a row."""
    data = read_files(values)
    config = memory.read_config(values["actor.model_name_or_path"] or "")
    sizes = list(size_problems(values, data.rows))
    notes = [] if sizes else list(size_notes(values, data.rows))
    problems = [
        *sizes,
        *value_problems(values),
        *flag_problems(values),
        *folder_problems(values),
        *model_problems(values, config),
    ]
    problems += [Problem(f"--{found.flag}", f" {found.message}") for found in data.findings]
    problems += reward_problems(values, data.first if call_reward else None)
    needs, too_much = memory.too_large(values, config)
    if too_much and memory.sees_card():
        ranks = values["actor.num_gpus_per_node"]
        problems.append(Problem("--actor.num_gpus_per_node", f" {ranks}: a card {too_much}"))
    elif too_much:  # the job's cards may be larger
        notes.append(f"a card {too_much}")
    problems += disk_problems(values, needs)
    return Checked(problems, [*notes, *flag_notes(values, data.evaluated)], needs)


def resume_problems(args: SimpleNamespace) -> Iterator[Problem]:
    """Find what makes `--ckpt.load_enable` meaningless: a checkpoint of other data, another model, other ranks."""
    try:
        check_resume(args)
    except RunFault as fault:
        yield Problem("--ckpt.load_enable", f": {fault}")


def model_problems(values: dict, config: PretrainedConfig | None) -> Iterator[Problem]:
    """Find a local model that is not there, or a policy (`config`) that is too short for its sequences."""
    for flag in ("actor", "reward", "critic"):
        for model in names(values[f"{flag}.model_name_or_path"]):
            if is_local(model) and not (Path(model) / "config.json").is_file():
                yield Problem(f"--{flag}.model_name_or_path", f" {model}: no config.json there")
    model = values["actor.model_name_or_path"]
    if not model:
        yield Problem("--actor.model_name_or_path", " is missing: a model's folder or its name on the hub")
    elif config is not None:
        positions = _positions(config)
        if positions and values["data.max_len"] > positions:
            yield Problem(
                "--data.max_len",
                f" {values['data.max_len']} is more than the {positions} positions of {model}: the engines would "
                f"refuse it at their start. Take at most {positions}",
            )


def _positions(config: PretrainedConfig) -> int | None:
    text = config.get_text_config()
    scaled = getattr(text, "rope_scaling", None) or getattr(text, "rope_parameters", None) or {}
    # Some engines multiply the positions by the factor: leave the verdict to them.
    stretched = isinstance(scaled, dict) and scaled.get("rope_type", scaled.get("type", "default")) != "default"
    return None if stretched else getattr(text, "max_position_embeddings", None)


def folder_problems(values: dict) -> Iterator[Problem]:
    """Find output folders in which nothing can be written."""
    for flag in ("ckpt.path", "ckpt.output_dir", "logger.tensorboard_dir"):
        if not values[flag]:
            continue
        folder = Path(values[flag]).absolute()
        there = existing(folder)
        if not there.is_dir():
            yield Problem(f"--{flag}", f" {folder}: {there} is a file")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield Problem(f"--{flag}", f" {folder}: this user may not write into {there}")


def disk_problems(values: dict, needs: memory.Estimate | None) -> Iterator[Problem]:
    """Find a disk that is smaller than one checkpoint, as far as this machine sees it."""
    if not needs or values["ckpt.disable_ds"] or max(values["ckpt.save_steps"], values["eval.steps"]) <= 0:
        return
    folder = Path(values["ckpt.path"]).absolute()
    free = shutil.disk_usage(existing(folder)).free / 1e9
    if free < needs.checkpoint:
        yield Problem(
            "--ckpt.path",
            f" {folder} has {free:.3g} GB free, and a checkpoint takes {needs.checkpoint:.3g} GB (computed). Take a "
            "larger disk, or --ckpt.save_steps -1 and --eval.steps -1 to save none",
        )


def reward_problems(values: dict, row: dict | None) -> Iterator[Problem]:
    """Find a reward or agent file that is missing, can't be imported, or does not answer on `row`."""
    if agent := values["train.agent_func_path"]:
        if not Path(agent).is_file():
            yield Problem("--train.agent_func_path", f" {agent}: no such file")
        elif fault := find_fault(agent, "agent"):
            yield Problem("--train.agent_func_path", f" {agent} {fault}")
        return
    for url in reward_names(values):
        if url == str(built_in.PATH) or url.startswith("http"):
            continue
        if not url.endswith(".py"):
            yield Problem("--reward.remote_url", f" {url} is not allowed: riskpo, a .py file, or an http address")
        elif not Path(url).is_file():
            yield Problem("--reward.remote_url", f" {url}: no such file")
        elif fault := find_fault(url, "reward", row):
            yield Problem("--reward.remote_url", f" {url} {fault}")
