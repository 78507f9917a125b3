"""The reward file for `--reward.remote_url`: grades a response by the verifier that its label names.

OpenRLHF loads this file by its path in every vLLM engine and calls `reward_func` in threads, one response a call. Rows
of `prepare_data` name their verifier in the label (`labels.py`); any other label is the answer of a `math` problem.
"""

from __future__ import annotations

import importlib
import math

from riskpo_openrlhf.verifiers.labels import read_label
from riskpo_openrlhf.verifiers.response import response_of

# Alike for every sample and every verifier: OpenRLHF reduces extra_logs over ranks key by key.
LOGGED = {"no_answer": "verifier/no_answer", "unparsable": "verifier/unparsable", "timeout": "verifier/timeout"}


def grade(query: str, prompt: str, label: str) -> dict:
    """The verdict on one response, as OpenRLHF 0.11.2 takes it.

    Args:
        query: prompt and response as the tokenizer decodes them.
        prompt: the prompt.
        label: of `labels.write_label`, or the right answer of a `math` problem.

    Returns:
        `scores`: 1.0 right, 0.0 wrong, NaN where the verifier ran out of time, which is no verdict and not a wrong
        answer: RiskPO leaves it out. `rewards`: the same, but 0.0 without a verdict. `extra_logs`: a 0/1 float each
        for `verifier/no_answer`, `verifier/unparsable` and `verifier/timeout`.

    Raises:
        ValueError: the label is wrong, or the response can't be told from the prompt.
        RuntimeError: the verifier itself failed. The job then stops with this message if it happens too often.
    """
    name, gold = read_label(label)
    verdict = importlib.import_module(f"riskpo_openrlhf.verifiers.{name}").verify(response_of(query, prompt), gold)
    if verdict.status == "error":
        raise RuntimeError(f"the {name} verifier failed on label {label[:200]!r}: {verdict.extracted or 'no detail'}")
    score = math.nan if verdict.status == "timeout" else float(verdict.correct)
    return {
        "rewards": float(verdict.correct),
        "scores": score,
        "extra_logs": {key: float(verdict.status == status) for status, key in LOGGED.items()},
    }


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict:
    """OpenRLHF's reward interface: lists of one query, prompt and label. Returns and raises as `grade`."""
    (query,), (prompt,), (label,) = queries, prompts, labels
    return grade(query, prompt, label)
