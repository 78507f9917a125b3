"""Check all that flags, files and sizes can tell, before a GPU is taken: for the real start and the dry run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from riskpo_openrlhf.integration import memory
from riskpo_openrlhf.integration.check_data import is_local, read_files
from riskpo_openrlhf.integration.check_flags import value_problems
from riskpo_openrlhf.integration.check_sizes import size_notes, size_problems
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.fingerprints import check_resume
from riskpo_openrlhf.integration.problems import Problem
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


def flag_problems(values: dict) -> Iterator[Problem]:
    """Find flags that can't go together."""
    if not values["data.prompt_dataset"]:
        yield Problem("--data.prompt_dataset", " is missing: a prepared file, or a data set's name on the hub")
    if values["algo.kl.target"] and values["algo.kl.init_coef"] <= 0:
        yield Problem(
            "--algo.kl.target",
            f" {values['algo.kl.target']:g} adapts --algo.kl.init_coef, which is 0 (as in every preset) and stays 0: "
            "give a coefficient above 0, or leave the target out",
        )
    if values["train.enable_ema"] and values["riskpo.runtime"] == "cpu":
        yield Problem("--train.enable_ema", " needs a GPU: OpenRLHF copies the average to one. Leave it out")
    if values["algo.kl.target"] is not None and values["algo.kl.target"] <= 0:
        yield Problem("--algo.kl.target", f" {values['algo.kl.target']:g} divides the KL: above 0, or leave it out")
    if values["algo.kl.target"] and values["algo.kl.horizon"] <= 0:
        yield Problem("--algo.kl.horizon", f" {values['algo.kl.horizon']:g} divides the adaptation: above 0")
    if values["rollout.temperature"] <= 0:
        yield Problem(
            "--rollout.temperature",
            f" {values['rollout.temperature']:g}: log-probabilities are divided by it, and greedy responses of a "
            "prompt are all equal. Take a value above 0, such as 1",
        )
    if values["eval.dataset"] and values["eval.temperature"] == 0 and values["eval.n_samples_per_prompt"] > 1:
        yield Problem(
            "--eval.n_samples_per_prompt",
            f" {values['eval.n_samples_per_prompt']}: greedy responses (--eval.temperature 0) are all equal. Take 1",
        )
    # The built-in verifiers grade by the label; a reward function of one's own may do without.
    if str(built_in.PATH) in _rewards(values) and not values["data.label_key"]:
        yield Problem("--data.label_key", " is missing: the built-in verifiers compare with the label")
    if not values["reward.remote_url"] and not values["train.agent_func_path"]:
        if not values["reward.model_name_or_path"]:
            yield Problem(
                "--reward.remote_url",
                " is missing: nothing would give a reward. Take `riskpo`, a file with `reward_func`, the address of a "
                "verifier service, --train.agent_func_path or --reward.model_name_or_path",
            )


def flag_notes(values: dict, evaluated: int | None) -> Iterator[str]:
    """Say what is allowed, and may surprise."""
    if not values["data.label_key"] and str(built_in.PATH) not in _rewards(values):
        yield "without --data.label_key the reward function gets empty labels"
    if values["train.async_enable"] and values["algo.advantage.is_correction_level"] == "off":
        yield (
            "--train.async_enable trains on responses of older weights, and nothing corrects for it: consider "
            "--algo.advantage.is_correction_level token"
        )
    best = values["ckpt.best_metric_key"]
    if best and best != "none" and not (values["eval.dataset"] and values["eval.steps"] > 0):
        yield f"--ckpt.best_metric_key {best} has no effect without --eval.dataset and --eval.steps"
    if evaluated and evaluated > values["data.max_samples"]:
        yield (
            f"--data.max_samples {values['data.max_samples']} cuts the evaluation, too: {values['data.max_samples']} "
            f"of its {evaluated} rows are used, those of the first file first"
        )


def model_problems(values: dict, config: PretrainedConfig | None) -> Iterator[Problem]:
    """Find a local model that is not there, or a policy (`config`) that is too short for its sequences."""
    for flag in ("actor", "reward", "critic"):
        for model in (values[f"{flag}.model_name_or_path"] or "").split(","):
            if model and is_local(model) and not (Path(model) / "config.json").is_file():
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
        there = _existing(folder)
        if not there.is_dir():
            yield Problem(f"--{flag}", f" {folder}: {there} is a file")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield Problem(f"--{flag}", f" {folder}: this user may not write into {there}")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there. `folder`: absolute."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def disk_problems(values: dict, needs: memory.Estimate | None) -> Iterator[Problem]:
    """Find a disk that is smaller than one checkpoint, as far as this machine sees it."""
    if not needs or values["ckpt.disable_ds"] or max(values["ckpt.save_steps"], values["eval.steps"]) <= 0:
        return
    folder = Path(values["ckpt.path"]).absolute()
    free = shutil.disk_usage(_existing(folder)).free / 1e9
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
    for url in _rewards(values):
        if url == str(built_in.PATH) or url.startswith("http"):
            continue
        if not url.endswith(".py"):
            yield Problem("--reward.remote_url", f" {url} is not allowed: riskpo, a .py file, or an http address")
        elif not Path(url).is_file():
            yield Problem("--reward.remote_url", f" {url}: no such file")
        elif fault := find_fault(url, "reward", row):
            yield Problem("--reward.remote_url", f" {url} {fault}")


def _rewards(values: dict) -> list[str]:
    given = values["reward.remote_url"] or []
    return [] if values["train.agent_func_path"] else given.split(",") if isinstance(given, str) else list(given)
