r"""Reward file for SmolLM2-135M-Instruct, which does not write `\boxed{}`: the last number of a response counts.

OpenRLHF loads this file by its path and calls `reward_func` in a thread, with one response a call.
"""

from __future__ import annotations

import re
from decimal import Decimal

from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.response import response_of

# 1,234 and 12.50; a minus right after a digit or a bracket is the operator, not the sign.
_NUMBER = re.compile(r"(?<![\d.)])[-−]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|(?<![\d.)])[-−]?\d+(?:\.\d+)?|\d+(?:\.\d+)?")


def verify(response: str, gold: str) -> Verdict:
    """Compare the last number of a response with the right one, as numbers (`1,234` is `1234.0`).

    Returns:
        A verdict, with status `no_answer` if the response has no number.

    Raises:
        ValueError: `gold` is not a number.
    """
    if not _NUMBER.fullmatch(gold.strip()):
        raise ValueError(f"the label {gold!r} is not a number")
    found = _NUMBER.findall(response)
    if not found:
        return Verdict(False, "no_answer")
    return Verdict(_value(found[-1]) == _value(gold.strip()), "ok", found[-1])


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict:
    """Grade one response through OpenRLHF's reward interface: 1.0 for the right number, else 0.0."""
    (query,), (prompt,), (label,) = queries, prompts, labels
    verdict = verify(response_of(query, prompt), label)
    reward = float(verdict.correct)
    return {"rewards": reward, "scores": reward, "extra_logs": {"verifier/no_answer": float(verdict.status != "ok")}}


def _value(number: str) -> Decimal:
    return Decimal(number.replace(",", "").replace("−", "-"))
