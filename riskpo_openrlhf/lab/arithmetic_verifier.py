"""Grades a response to an arithmetic problem by its number; also a reward file for `--reward.remote_url`.

OpenRLHF loads this file by its path and calls `reward_func` in a thread, with one response a call.
"""

from __future__ import annotations

import re
from decimal import Decimal

from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.response import response_of

# 1,234 and 12.50; a minus right after a digit or a bracket is the operator, not the sign.
_NUMBER = re.compile(r"(?<![\d.)])[-−]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|(?<![\d.)])[-−]?\d+(?:\.\d+)?|\d+(?:\.\d+)?")


def verify(response: str, gold: str, *, exact: bool = False) -> Verdict:
    """Compare the number that a response gives with the right one, as numbers (`1,234` is `1234.0`).

    Args:
        response: what the model wrote, without prompt and special tokens.
        gold: the right number.
        exact: the response must be the number and nothing else; otherwise its last number counts.

    Returns:
        A verdict. Its status is `no_answer` without a number, `unparsable` when `exact` finds more than a number,
        `error` when `gold` is not a number.
    """
    if not _NUMBER.fullmatch(gold.strip()):
        return Verdict(False, "error")
    response = response.strip()
    found = _NUMBER.findall(response)
    if not found:
        return Verdict(False, "no_answer")
    if exact and not _NUMBER.fullmatch(response):
        return Verdict(False, "unparsable", response)
    return Verdict(_value(found[-1]) == _value(gold.strip()), "ok", found[-1])


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict:
    """OpenRLHF's reward interface for one response: 1.0 for the right number, else 0.0.

    Args:
        queries: one text, the prompt and the response as the tokenizer decodes them, special tokens included.
        prompts: its prompt. One that ends in `=` asks for the rest of the equation: nothing but the number counts.
        labels: its right answer.

    Returns:
        `rewards` and `scores`, a float each, and `extra_logs` of floats: what OpenRLHF 0.11.2 puts into tensors.

    Raises:
        ValueError: no verdict is possible (a label that is not a number, or a query without its prompt).
    """
    (query,), (prompt,), (label,) = queries, prompts, labels
    response = response_of(query, prompt)
    verdict = verify(response, label, exact=prompt.endswith("="))
    if verdict.status == "error":
        raise ValueError(f"the label {label!r} is not a number")
    reward = float(verdict.correct)
    unanswered = float(verdict.status != "ok")
    return {"rewards": reward, "scores": reward, "extra_logs": {"verifier/no_answer": unanswered}}


def _value(number: str) -> Decimal:
    return Decimal(number.replace(",", "").replace("−", "-"))
