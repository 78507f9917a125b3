"""`--riskpo.dry_run`: every check of a command line that needs neither a GPU nor Ray, and its final settings.

OpenRLHF's parser and its own assertions have run by then; what is left are the mistakes that it would meet minutes
later, on the cluster: a missing model, data file or reward file, columns of another name, sizes that don't fit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

from riskpo_openrlhf.runtime.placement import gpus_needed


def report(args: SimpleNamespace) -> int:
    """Print the final settings (`args`, nested) and what is wrong with them. Returns the exit code, 0 or 2."""
    values = _flat(args)
    for name, value in sorted(values.items()):
        if not name.startswith("critic.") or values["algo.advantage.estimator"] == "gae":
            print(f"--{name} {_shown(value)}")
    print(f"[riskpo] dry run: {summary(values)}")
    problems = [*size_problems(values), *file_problems(values)]
    for problem in problems:
        print(f"[riskpo] dry run: {problem}")
    print(f"[riskpo] dry run: {f'{len(problems)} problems' if problems else 'ok'}", flush=True)
    return 2 if problems else 0


def summary(values: dict) -> str:
    """One line: responses and optimizer steps of a rollout, and the GPUs that the job asks for."""
    get = values.get
    prompts, group = get("rollout.batch_size"), get("rollout.n_samples_per_prompt")
    steps = max(1, prompts * group // get("train.batch_size")) * get("train.max_epochs")
    together = ", colocated" if get("train.colocate_all") and not get("train.async_enable") else ""
    return (
        f"{prompts} prompts x {group} responses = {prompts * group} a rollout, {steps} optimizer steps of "
        f"{min(prompts * group, get('train.batch_size'))}; {gpus_needed(values)} GPUs: {get('actor.num_nodes')} x "
        f"{get('actor.num_gpus_per_node')} for the actor, {get('vllm.num_engines')} engines of "
        f"{get('vllm.tensor_parallel_size')}{together}"
    )


def size_problems(values: dict) -> list[str]:
    """Sizes that OpenRLHF would refuse, or silently change, once it runs. `values`: flags by dotted name."""
    problems = []
    actor = values["actor.num_nodes"] * values["actor.num_gpus_per_node"]
    engines = (values["vllm.num_engines"] or 0) * values["vllm.tensor_parallel_size"]
    if values["train.colocate_all"] and not values["train.async_enable"] and actor != engines:
        problems.append(
            f"--train.colocate_all shares the actor's {actor} GPUs with the engines, which need {engines} "
            "(--vllm.num_engines x --vllm.tensor_parallel_size): make them equal"
        )
    ranks = actor // values["ds.ring_attn_size"] // values["ds.tensor_parallel_size"]
    if ranks < 1:
        problems.append(
            f"no rank is left of {actor} GPUs (--actor.num_nodes x --actor.num_gpus_per_node, divided by "
            "--ds.ring_attn_size and --ds.tensor_parallel_size)"
        )
    elif not values["train.dynamic_batch_enable"] and values["train.batch_size"] % (
        values["train.micro_batch_size"] * ranks
    ):
        problems.append(
            f"--train.batch_size {values['train.batch_size']} is not a multiple of --train.micro_batch_size "
            f"{values['train.micro_batch_size']} x {ranks} ranks"
        )
    responses = values["rollout.batch_size"] * values["rollout.n_samples_per_prompt"]
    if responses % values["train.batch_size"] and responses > values["train.batch_size"]:
        problems.append(
            f"a rollout of {responses} responses is not a multiple of --train.batch_size {values['train.batch_size']}"
        )
    zone, longest = values["reward.overlong_buffer_len"], values["rollout.max_new_tokens"]
    if zone and longest and zone > longest:
        problems.append(
            f"--reward.overlong_buffer_len {zone:g} is longer than a response, --rollout.max_new_tokens {longest}"
        )
    if longest and longest >= values["data.max_len"]:
        problems.append(
            f"--rollout.max_new_tokens {longest} leaves no room for a prompt in "
            f"--data.max_len {values['data.max_len']}: OpenRLHF would cut prompts from the left"
        )
    return problems


def file_problems(values: dict) -> list[str]:
    """Local files and folders that are named but not there, or whose first row lacks a column. Hub names pass."""
    problems = []
    model = values["actor.model_name_or_path"]
    if not model:
        problems.append("--actor.model_name_or_path is missing: a model's folder or its name on the hub")
    elif _is_local(model) and not (Path(model) / "config.json").is_file():
        problems.append(f"--actor.model_name_or_path {model}: no config.json there")
    for url in values["reward.remote_url"] or []:
        if url.endswith(".py") and not Path(url).is_file():
            problems.append(f"--reward.remote_url {url}: no such file")
    for flag in ("data.prompt_dataset", "eval.dataset"):
        for name in filter(None, map(str.strip, (values[flag] or "").split(","))):
            if _is_local(name) and "@" in name:
                problems.append(f"--{flag} {name}: OpenRLHF cuts the name at '@'; move the file")
            elif _is_local(name) and not Path(name).exists():
                problems.append(f"--{flag} {name}: no such file; python3 -m riskpo_openrlhf.cli.prepare_data makes it")
            elif _is_local(name):
                problems += [f"--{flag} {name}: {problem}" for problem in _column_problems(name, values)]
    if not values["data.prompt_dataset"]:
        problems.append("--data.prompt_dataset is missing: a prepared file, or a data set's name on the hub")
    return problems


def _column_problems(path: str, values: dict) -> list[str]:
    row = _first_row(path)
    if row is None:
        return []
    problems = [
        f"no column {values[f'data.{key}']!r} (--data.{key}); there are: {', '.join(row)}"
        for key in ("input_key", "label_key")
        if values[f"data.{key}"] and values[f"data.{key}"] not in row
    ]
    prompt = row.get(values["data.input_key"])
    if isinstance(prompt, list) and not values["data.apply_chat_template"]:
        problems.append("prompts are chat messages: add --data.apply_chat_template")
    if row.get(values["data.image_key"]) and not values["data.max_images_per_prompt"]:
        problems.append("rows have images: set --data.max_images_per_prompt")
    return problems


def _first_row(path: str) -> dict | None:
    """The first row of a JSON-lines or parquet file; None for other kinds, and for an empty file an empty row."""
    if path.endswith(".parquet"):
        import pyarrow.parquet

        rows = next(pyarrow.parquet.ParquetFile(path).iter_batches(1), None)
        return rows.to_pylist()[0] if rows else {}
    if path.endswith(".jsonl"):
        with open(path, encoding="utf-8") as file:
            return json.loads(file.readline() or "{}")
    return None


def _is_local(name: str) -> bool:
    return (
        name.startswith((".", "/", "~")) or os.path.exists(name) or os.path.splitext(name)[1] in (".jsonl", ".parquet")
    )


def _flat(args: SimpleNamespace, prefix: str = "") -> dict:
    """OpenRLHF's nested flags by dotted name."""
    values = {}
    for name, value in vars(args).items():
        if isinstance(value, SimpleNamespace):
            values.update(_flat(value, f"{prefix}{name}."))
        else:
            values[prefix + name] = value
    return values


def _shown(value) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return "''" if value == "" else str(value)
