"""Run an evaluation: choose how to sample and grade, sample what is missing, sum up.

OpenRLHF's engines are passed in (`integration.evaluation_engines`), so that this module imports no training framework.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from riskpo_openrlhf.console import SECONDS
from riskpo_openrlhf.evaluation import problems, summary
from riskpo_openrlhf.evaluation.problems import EvaluationError, InputError, Problem, Sampling
from riskpo_openrlhf.evaluation.samples import SUMMARY, SampleStore
from riskpo_openrlhf.files import write_json
from riskpo_openrlhf.settings import RunSettings, find_settings
from riskpo_openrlhf.tables import aligned
from riskpo_openrlhf.verifiers import built_in, labels

FEW = 20  # samples before a verifier that fails most of the time stops the evaluation


class Plan(NamedTuple):
    """What an evaluation asks for: problems, settings by data source, and the reward function with its reason."""

    problems: list[Problem]
    sampling: dict[str, Sampling]
    reward: str
    reason: str


def settings_of(model: str) -> RunSettings | None:
    """Read the settings of the run that trained a model; None for a hub name or a folder that is not in a run's.

    Raises `EvaluationError` if the run's settings.json can't be read.
    """
    try:
        return find_settings(Path(model)) if os.path.isdir(model) else None
    except ValueError as error:
        raise EvaluationError(str(error)) from error


def plan(args: argparse.Namespace, trained: RunSettings | None) -> Plan:
    """Read the data and choose settings and reward function. Loads no engine.

    Args:
        args: the flags of `cli.evaluate`.
        trained: `settings_of` the model.

    Raises:
        EvaluationError: the data can't be read, a setting is out of bounds, or no reward function fits the labels.
    """
    paths = [Path(path) for path in args.data.split(",") if path]
    rows = problems.read_problems(paths, args.input_key, args.label_key)
    overrides = {name: getattr(args, name) for name in ("temperature", "top_p", "n", "max_new_tokens")}
    sampling = problems.choose_sampling(rows, overrides, args.setting)
    return Plan(rows, sampling, *choose_reward(args.reward, trained, rows))


def choose_reward(given: str | None, run: RunSettings | None, rows: Sequence[Problem]) -> tuple[str, str]:
    """Choose the reward function, and say why.

    A given one wins. The model of a run is graded as its training graded it. Other models are graded by the verifier
    that each label names.

    Returns:
        `riskpo`, a file's path, or URLs; and the reason.

    Raises:
        InputError: a label names an unknown verifier, or it names none and no run tells how to grade it.
    """
    if given:
        return given, "--reward"
    trained = run.flags.get("reward.remote_url") if run else None
    if isinstance(trained, (list, tuple)):
        trained = ",".join(trained)
    if trained and (trained == built_in.NAME or trained.startswith("http") or os.path.isfile(trained)):
        return trained, f"as in training, {run.path}"
    plain = [row for row in rows if not _names_verifier(row)]
    if not plain:
        return built_in.NAME, "the verifier that each label names"
    row = plain[0]
    raise InputError(
        f"the label {row.label[:60]!r} of {row.datasource}/{row.id} names no verifier, as {len(plain)} of {len(rows)} "
        "labels: give training's reward function by --reward FILE, grade them as mathematics by --reward riskpo, or "
        'name the verifier in each label, as prepare_data does: {"verifier": "math", "gold": "…"}'
    )


def _names_verifier(row: Problem) -> bool:
    try:
        return labels.read_label(row.label)[1] != row.label
    except ValueError as error:
        raise InputError(f"the label of {row.datasource}/{row.id}: {error}") from error


def evaluate(args: argparse.Namespace, plan: Plan, engines) -> dict:
    """Sample and grade what `args.out` lacks, and write its `summary.json`.

    Args:
        args: the flags of `cli.evaluate`.
        engines: the module `integration.evaluation_engines`.

    Returns:
        The summary, as in `summary.json`, and under `failed` the errors of samples whose verifier failed.

    Raises:
        EvaluationError: the evaluation can't continue; finished samples stay in `args.out`.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    tokenizer = engines.load_tokenizer(args.model)
    texts, longest = [], Counter()
    for row in plan.problems:
        chat = isinstance(row.prompt, list) if args.apply_chat_template is None else args.apply_chat_template
        if isinstance(row.prompt, list) and not chat:
            raise InputError("--no-apply_chat_template: the prompts are lists of turns, which need a template")
        texts.append(engines.render(row, tokenizer, chat))
        tokens = engines.prompt_tokens(texts[-1], tokenizer, row.images)
        longest[row.datasource] = max(longest[row.datasource], tokens)
    sampling = _fit(plan.sampling, longest, args)
    max_len = args.max_len or max(longest[source] + s.max_new_tokens for source, s in sampling.items())
    print(_settings_table(sampling, Counter(row.datasource for row in plan.problems)))
    print(f"Graded by {plan.reward} ({plan.reason})")
    store = SampleStore(args.out, _settings(args, plan, sampling, max_len))
    try:
        wanted = []
        for row, text in zip(plan.problems, texts, strict=True):
            chosen = sampling[row.datasource]
            missing = [j for j in range(chosen.n) if not store.finished((row.datasource, row.id, j))]
            if missing:
                fixed = {"seed": args.seed, "max_len": max_len, "logprobs": args.logprobs}
                wanted.append(engines.requests_of(row, text, chosen, missing, **fixed))
        if wanted:
            total = sum(sampling[row.datasource].n for row in plan.problems)
            images = max(len(row.images) for row in plan.problems)
            reward = built_in.reward_path(plan.reward)
            with engines.running(args, tokenizer, max_len=max_len, reward=reward.split(","), images=images) as actors:
                _sample(engines.generate(actors, wanted), store, sum(map(len, wanted)), total, plan.reward)
    finally:
        store.close()
    stated = {source: chosen._asdict() for source, chosen in sampling.items()}
    result = {"model": args.model, "sampling": stated, **summary.summarise(store.rows.values())}
    write_json(args.out / SUMMARY, result)
    return {**result, "failed": [row["error"] for row in store.rows.values() if row["status"] == "error"]}


def _fit(sampling: dict, longest: Counter, args) -> dict:
    """Shorten responses to what the model's positions, and --max_len, leave beside the longest prompt."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(args.model, trust_remote_code=True).get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or sys.maxsize
    limit = min(positions, args.max_len or positions)
    fitted = {}
    for source, chosen in sampling.items():
        room = limit - longest[source]
        if chosen.max_new_tokens > room:
            what = f"{source}: the longest prompt has {longest[source]} tokens of {limit} (--max_len, or the model's)"
            if args.max_new_tokens or room < 1:
                raise InputError(f"{what}, which leaves {room} for --max_new_tokens {chosen.max_new_tokens}")
            print(f"{what}: responses get {room} tokens instead of {chosen.max_new_tokens}")
            chosen = chosen._replace(max_new_tokens=room)
        fitted[source] = chosen
    return fitted


def _settings(args, plan: Plan, sampling: dict, max_len: int) -> dict:
    """Collect all that the samples depend on. Other settings are another evaluation, see `SampleStore`."""
    reward = {"reward": plan.reward}
    if plan.reward.endswith(".py"):
        reward["reward_sha256"] = hashlib.sha256(Path(plan.reward).read_bytes()).hexdigest()[:16]
    return {
        "model": os.path.realpath(args.model) if os.path.isdir(args.model) else args.model,
        "model_files": _fingerprint(args.model),
        "problems": problems.digest(plan.problems),
        "counts": dict(Counter(row.datasource for row in plan.problems)),
        "sampling": {
            source: dict(zip(chosen._fields[:-1], chosen, strict=False)) for source, chosen in sampling.items()
        },
        "apply_chat_template": args.apply_chat_template,
        "max_len": max_len,
        "logprobs": args.logprobs,
        "seed": args.seed,
        **reward,
    }


def _fingerprint(model: str) -> str | None:
    """Hash names, sizes and times of a model folder's files, its card apart: other weights are another model."""
    if not os.path.isdir(model):
        return None
    found = (f for f in os.scandir(model) if f.is_file() and f.name != "README.md")
    files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in found)
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def _settings_table(sampling: dict, counts: Counter) -> str:
    rows = [["", "problems", "n", "temperature", "top_p", "max_new_tokens", "  as in"]]
    for source, s in sampling.items():
        values = (counts[source], s.n, s.temperature, s.top_p, s.max_new_tokens)
        rows.append([source, *(f"{value:g}" for value in values), "  " + s.source])
    return aligned(rows)


def _sample(batches, store: SampleStore, missing: int, total: int, reward: str) -> None:
    """Store samples as they come, and show progress: a bar on a terminal, a line every 30 s in a file.

    Raises `EvaluationError` once most samples have no verdict.
    """
    from tqdm import tqdm

    terminal, told = sys.stderr.isatty(), time.monotonic()
    with tqdm(total=total, initial=total - missing, desc="Evaluating", unit="sample", disable=not terminal) as bar:
        done = right = failed = 0
        for samples in batches:
            store.add(samples)
            done += len(samples)
            right += sum((sample["score"] or 0) > 0 for sample in samples)
            failed += sum(sample["status"] == "error" for sample in samples)
            if done >= min(FEW, missing) and failed > done / 2:
                error = next(row["error"] for row in store.rows.values() if row["status"] == "error")
                raise EvaluationError(
                    f"{failed} of {done} samples have no verdict. An error of the verifier: {error}. Correct --reward "
                    f"{reward}, then run this command again: it makes those samples again"
                )
            bar.set_postfix_str(f"right {100 * right / done:.1f} %", refresh=False)
            bar.update(len(samples))
            if not terminal and time.monotonic() - told >= SECONDS:
                told = time.monotonic()
                print(f"{total - missing + done} of {total} samples, right {100 * right / done:.1f} %")
