"""Check all that flags, files and sizes can tell, before a GPU is taken: for the real start and the dry run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from riskpo_openrlhf.data.golds import first_line
from riskpo_openrlhf.files import existing
from riskpo_openrlhf.integration import memory
from riskpo_openrlhf.integration.check_data import DataFiles, is_local, read_files, rendered
from riskpo_openrlhf.integration.check_flags import flag_notes, flag_problems, reward_names, value_problems
from riskpo_openrlhf.integration.check_models import (
    model_problems,
    named,
    read_tokenizer,
    read_tokens,
    token_notes,
    vocabulary_problems,
)
from riskpo_openrlhf.integration.check_sizes import size_notes, size_problems
from riskpo_openrlhf.integration.checkpoints import TAG
from riskpo_openrlhf.integration.faults import Problem, RunFault
from riskpo_openrlhf.integration.fingerprints import check_resume
from riskpo_openrlhf.integration.try_reward import find_fault
from riskpo_openrlhf.verifiers import built_in


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
    wrong_tokens, surprises = check_tokens(values, data)
    problems += wrong_tokens
    wrong_rewards, doubts = check_reward(values, data.first if call_reward else None)
    problems += wrong_rewards
    needs, too_much = memory.too_large(values, config)
    if too_much and memory.sees_card():
        ranks = values["actor.num_gpus_per_node"]
        problems.append(Problem("--actor.num_gpus_per_node", f" {ranks}: a card {too_much}"))
    elif too_much:  # the job's cards may be larger
        notes.append(f"a card {too_much}")
    problems += disk_problems(values, needs)
    return Checked(problems, [*notes, *surprises, *doubts, *flag_notes(values, data.evaluated)], needs)


def resume_problems(args: SimpleNamespace) -> Iterator[Problem]:
    """Find what makes `--ckpt.load_enable` meaningless: a checkpoint of other data, another model, other ranks."""
    try:
        check_resume(args)
    except RunFault as fault:
        yield Problem("--ckpt.load_enable", f": {fault}")


def check_tokens(values: dict, data: DataFiles) -> tuple[list[Problem], list[str]]:
    """Read prompts through the policy's tokenizer, as far as both are here. Return problems and notes."""
    try:
        return _tokens(values, data)
    except (AttributeError, NotImplementedError) as error:  # a tokenizer of the model's own code
        return [], [f"the tokenizer of {values['actor.model_name_or_path']} can't be checked: {first_line(error)}"]


def _tokens(values: dict, data: DataFiles) -> tuple[list[Problem], list[str]]:
    tokenizer, problems = read_tokenizer(values)
    if tokenizer is None or data.prompts is None:
        return problems, []
    flag, files = "--data.prompt_dataset", values["data.prompt_dataset"]
    try:
        prompts = rendered(values, data.prompts, tokenizer)
    except Exception as error:  # a chat template is a program of the model's author
        what = f"the model's chat template fails: {first_line(error)}. Look at the turns of the prompts"
        return [Problem(flag, f" {files}: {what}")], []
    tokens = read_tokens(tokenizer, prompts, values["data.max_len"] - (values["rollout.max_new_tokens"] or 1))
    if tokens.empty and not values["train.agent_func_path"]:  # an agent may write its own
        what = f"{tokens.empty} of {tokens.prompts} prompts have no token, and vLLM ends the run at them"
        problems.append(Problem(flag, f" {files}: {what}. Remove the rows"))
    problems += vocabulary_problems(values, tokenizer, tokens.highest)
    return problems, list(token_notes(values, tokenizer, tokens, len(data.prompts)))


def folder_problems(values: dict) -> Iterator[Problem]:
    """Find output folders in which nothing can be written, or that hold a model which the run would overwrite."""
    for flag in ("ckpt.path", "ckpt.output_dir", "logger.tensorboard_dir"):
        if not values[flag]:
            if flag != "logger.tensorboard_dir":
                yield Problem(f"--{flag}", " is empty: name a folder")
            continue
        folder = Path(values[flag]).absolute()
        there = existing(folder)
        if folder.is_symlink() and not folder.exists():
            yield Problem(f"--{flag}", f" {folder} is a link to {os.readlink(folder)}, which is not there: make it")
        elif not there.is_dir():
            yield Problem(f"--{flag}", f" {folder}: {there} is a file")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield Problem(f"--{flag}", f" {folder}: this user may not write into {there}")
    for model, of in named(values).items():
        for flag in ("ckpt.output_dir", "ckpt.path"):
            if values[flag] and is_local(model) and _overwrites(values, flag, Path(os.path.realpath(model))):
                yield Problem(
                    f"--{flag}",
                    f" {values[flag]}: the run would write over the model of {of}, {model}. Name another folder",
                )


def _overwrites(values: dict, flag: str, model: Path) -> bool:
    """Tell whether what the run writes by `flag` lies in a model's folder."""
    folder = Path(os.path.realpath(values[flag]))
    if flag == "ckpt.output_dir":
        critic = folder.with_name(f"{folder.name}_critic") if values["critic.save_value_network"] else folder
        return model in (folder, critic)
    saved = model.parent == folder and TAG.fullmatch(model.name.removesuffix("_hf"))  # by --ckpt.save_hf
    return model == folder or bool(values["ckpt.save_hf"] and saved)


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


def check_reward(values: dict, row: dict | None) -> tuple[list[Problem], list[str]]:
    """Import a reward or agent file, and call the reward function on `row`. Return problems and notes.

    The response is empty, because no model is loaded: an exception, or no answer in time, is a note.
    """
    problems, notes = [], []
    agent = values["train.agent_func_path"]
    flag, files = ("--train.agent_func_path", [agent]) if agent else ("--reward.remote_url", reward_names(values))
    for file in files:
        if file == str(built_in.PATH) or file.startswith("http"):
            continue
        if not agent and not file.endswith(".py"):
            problems.append(Problem(flag, f" {file} is not allowed: riskpo, a .py file, or an http address"))
        elif not Path(file).is_file():
            problems.append(Problem(flag, f" {file}: no such file"))
        else:
            fault, note = find_fault(file, "agent" if agent else "reward", row)
            problems += [Problem(flag, f" {file} {fault}")] if fault else []
            notes += [f"{flag} {file} {note}"] if note else []
    return problems, notes
