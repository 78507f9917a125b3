"""The reward file for `--reward.remote_url`: grade a response with the verifier that its label names.

OpenRLHF loads this file by its path in every vLLM engine. It calls `reward_func` in threads, with one response a call.
The rows of `prepare_data` name their verifier in the label (`labels.py`). Any other label is the answer of a `math`
problem.
"""

from __future__ import annotations

from math import nan

from riskpo_openrlhf.verifiers import code, geometry, math
from riskpo_openrlhf.verifiers.labels import read_label
from riskpo_openrlhf.verifiers.response import response_of

# These imports are cheap: worker processes load SymPy, and the first program loads the sandbox.
VERIFY = {"math": math.verify, "geometry": geometry.verify, "code": code.verify}

# The same keys for every sample and verifier: OpenRLHF reduces extra_logs over ranks key by key.
LOGGED = {"no_answer": "verifier/no_answer", "unparsable": "verifier/unparsable", "timeout": "verifier/timeout"}


def grade(query: str, prompt: str, label: str) -> dict:
    """Grade one response, in OpenRLHF's format.

    Args:
        query: prompt and response as the tokenizer decodes them.
        prompt: the prompt.
        label: made by `labels.write_label`, or the right answer of a `math` problem.

    Returns:
        `scores`: 1.0 right, 0.0 wrong, NaN if the verifier ran out of time. NaN is no verdict and not a wrong answer:
        RiskPO leaves it out. `rewards`: the same, but 0.0 without a verdict. `extra_logs`: 0.0 or 1.0 each for
        `verifier/no_answer`, `verifier/unparsable` and `verifier/timeout`.

    Raises:
        ValueError: the label is wrong, or the prompt is not found in the query.
        RuntimeError: the verifier failed. If that happens too often, the job stops with this message.
    """
    name, gold = read_label(label)
    verdict = VERIFY[name](response_of(query, prompt), gold)
    if verdict.status == "error":
        raise RuntimeError(f"the {name} verifier failed on label {label[:200]!r}: {verdict.extracted or 'no detail'}")
    return {
        "rewards": float(verdict.correct),
        "scores": nan if verdict.status == "timeout" else float(verdict.correct),
        "extra_logs": {key: float(verdict.status == status) for status, key in LOGGED.items()},
    }


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict:
    """Grade the one response in the lists: OpenRLHF's reward interface. Returns and raises like `grade`."""
    (query,), (prompt,), (label,) = queries, prompts, labels
    return grade(query, prompt, label)
