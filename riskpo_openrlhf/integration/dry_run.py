"""`--riskpo.dry_run`: every check of a command line that needs neither a GPU nor Ray, and its final settings.

OpenRLHF's parser and its assertions have run by then. What is left are the mistakes that would show minutes later, on
the cluster: a missing model, data file or reward file, data that can't be read, sizes that don't fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from riskpo_openrlhf.console import say
from riskpo_openrlhf.integration import memory
from riskpo_openrlhf.integration.check_data import check_files, is_local
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.final_flags import flat
from riskpo_openrlhf.integration.fingerprints import check_resume
from riskpo_openrlhf.integration.placement import gpus_needed
from riskpo_openrlhf.tables import to_json


class Problem(NamedTuple):
    """What is wrong, and the flag that it belongs to, with its dashes."""

    flag: str
    message: str

    def __str__(self) -> str:
        return f"{self.flag}{self.message}"


def report(args: SimpleNamespace) -> int:
    """Print the final settings (`args`, nested) and their problems. Return the exit code: 0, or 2 with problems."""
    values = flat(args)
    problems = [*size_problems(values), *file_problems(values), *resume_problems(args)]
    needs, too_much = memory.too_large(values)
    if too_much:
        problems.append(
            Problem("--actor.num_gpus_per_node", f" {values['actor.num_gpus_per_node']}: a card {too_much}")
        )
    if args.riskpo.dry_run == "json":
        print(as_json(problems, values, needs), flush=True)
        return 2 if problems else 0
    for name, value in sorted(values.items()):
        if not name.startswith("critic.") or values["algo.advantage.estimator"] == "gae":
            print(f"--{name} {_shown(value)}")
    say(f"dry run: {summary(values)}")
    if needs:
        say(f"dry run: {needs}")
    for problem in problems:
        say(f"dry run: {problem}")
    say(f"dry run: {f'{len(problems)} problems' if problems else 'ok'}")
    return 2 if problems else 0


def resume_problems(args: SimpleNamespace) -> Iterator[Problem]:
    """Find what makes `--ckpt.load_enable` meaningless: a checkpoint of other data, another model, other ranks."""
    try:
        check_resume(args)
    except RunFault as fault:
        yield Problem("--ckpt.load_enable", f": {fault}")


def as_json(problems: list, values: dict | None = None, needs: memory.Estimate | None = None) -> str:
    """Return a dry run as one line of JSON. `values`: None if the flags were refused before they were final."""
    found = [{"flag": getattr(problem, "flag", None), "message": str(problem)} for problem in problems]
    result = {"ok": not problems, "problems": found}
    if values is not None:
        result |= {"gpus": gpus_needed(values), "rollout": rollout(values), "flags": values}
        result["memory"] = needs and needs._asdict()
    return to_json(result)


def rollout(values: dict) -> dict[str, int]:
    """Return what a rollout is made of, and how many optimizer steps follow it. `values`: flags by dotted name."""
    prompts, group = values["rollout.batch_size"], values["rollout.n_samples_per_prompt"]
    batch = min(prompts * group, values["train.batch_size"])
    return {
        "prompts": prompts,
        "group": group,
        "responses": prompts * group,
        "optimizer_steps": max(1, prompts * group // values["train.batch_size"]) * values["train.max_epochs"],
        "batch": batch,
    }


def summary(values: dict) -> str:
    """Say in one line what a rollout is made of and which GPUs the job asks for."""
    get, of = values.get, rollout(values)
    together = ", colocated" if get("train.colocate_all") and not get("train.async_enable") else ""
    return (
        f"{of['prompts']} prompts x {of['group']} responses = {of['responses']} a rollout, {of['optimizer_steps']} "
        f"optimizer steps of {of['batch']}; {gpus_needed(values)} GPUs: {get('actor.num_nodes')} x "
        f"{get('actor.num_gpus_per_node')} for the actor, {get('vllm.num_engines')} engines of "
        f"{get('vllm.tensor_parallel_size')}{together}"
    )


def size_problems(values: dict) -> Iterator[Problem]:
    """Find sizes that OpenRLHF would refuse, or silently change, once it runs. `values`: flags by dotted name."""
    actor = values["actor.num_nodes"] * values["actor.num_gpus_per_node"]
    engines = (values["vllm.num_engines"] or 0) * values["vllm.tensor_parallel_size"]
    if values["train.colocate_all"] and not values["train.async_enable"] and actor != engines:
        yield Problem(
            "--train.colocate_all",
            f" shares the actor's {actor} GPUs with the engines, which need {engines} (--vllm.num_engines x "
            "--vllm.tensor_parallel_size): make them equal",
        )
    batch, micro = values["train.batch_size"], values["train.micro_batch_size"]
    ranks = actor // values["ds.ring_attn_size"] // values["ds.tensor_parallel_size"]
    if ranks < 1:
        yield Problem(
            "--actor.num_gpus_per_node",
            f": no rank is left of {actor} GPUs (--actor.num_nodes x --actor.num_gpus_per_node, divided by "
            "--ds.ring_attn_size and --ds.tensor_parallel_size)",
        )
    elif not values["train.dynamic_batch_enable"] and batch % (micro * ranks):
        yield Problem(
            "--train.batch_size", f" {batch} is not a multiple of --train.micro_batch_size {micro} x {ranks} ranks"
        )
    responses = rollout(values)["responses"]
    if responses % batch and responses > batch:
        yield Problem(
            "--rollout.batch_size",
            f": a rollout of {responses} responses is not a multiple of --train.batch_size {batch}",
        )
    zone, longest = values["reward.overlong_buffer_len"], values["rollout.max_new_tokens"]
    if zone and longest and zone > longest:
        yield Problem(
            "--reward.overlong_buffer_len", f" {zone:g} is longer than a response, --rollout.max_new_tokens {longest}"
        )
    if longest and longest >= values["data.max_len"]:
        yield Problem(
            "--rollout.max_new_tokens",
            f" {longest} leaves no room for a prompt in --data.max_len {values['data.max_len']}: OpenRLHF would cut "
            "prompts from the left",
        )


def file_problems(values: dict) -> Iterator[Problem]:
    """Find a local model, reward file or data file that is not there, or that OpenRLHF can't read.

    Names on the hub pass. Data files are checked as by `prepare_data --check`.
    """
    model = values["actor.model_name_or_path"]
    if not model:
        yield Problem("--actor.model_name_or_path", " is missing: a model's folder or its name on the hub")
    elif is_local(model) and not (Path(model) / "config.json").is_file():
        yield Problem("--actor.model_name_or_path", f" {model}: no config.json there")
    for url in values["reward.remote_url"] or []:
        if url.endswith(".py") and not Path(url).is_file():
            yield Problem("--reward.remote_url", f" {url}: no such file")
    if not values["data.prompt_dataset"]:
        yield Problem("--data.prompt_dataset", " is missing: a prepared file, or a data set's name on the hub")
    for found in check_files(values):
        yield Problem(f"--{found.flag}", f" {found.message}")


def _shown(value) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return "''" if value == "" else str(value)
