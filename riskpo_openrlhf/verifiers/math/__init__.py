r"""Grade an answer in mathematical notation: numbers, expressions, equations, sets, intervals, matrices, words.

What happens to an answer, one file for each step (docs/verifiers.md says what counts as equal and why):

    extract.py      find the answer in the response: the last \boxed{…}, `Answer: …` or `#### …`
    notation.py     rewrite both answers into one notation: text to text
    parse.py        take them apart into the nodes of nodes.py: lists, sets, intervals, equations, leaves
    compare.py      compare two nodes, part by part
    leaves.py       compare two leaves, with units.py, words.py and numbers.py
    grammar.py      read a leaf as an expression
    values.py       compare two expressions by value
    symbolic.py     compare limits, integrals and sets with SymPy
"""

from __future__ import annotations

from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.killable import WorkerPool, shared_pool
from riskpo_openrlhf.verifiers.math.compare import EQUAL, UNREADABLE, compare_without_algebra
from riskpo_openrlhf.verifiers.math.extract import extract_answers
from riskpo_openrlhf.verifiers.math.limits import MAX_CHARACTERS
from riskpo_openrlhf.verifiers.math.symbolic import needs_sympy

_PATIENCE = 1.0  # seconds that an answer for SymPy waits for a worker: others may be busy for seconds


def verify(response: str, gold: str, *, rounded: bool = False) -> Verdict:
    r"""Compare the answer in a response with the right answer.

    Args:
        response: the text that the model wrote. Everything up to the last `</think>` is ignored.
        gold: the right answer, as LaTeX or plain text, with or without `$`.
        rounded: accept decimals that are the rounded value of the other answer, see `geometry.verify`.

    Returns:
        A verdict with the answer in `extracted`. Its status is `no_answer` if no answer is found or the thinking does
        not end; `unparsable` if the answer can't be read, is longer than `limits.MAX_CHARACTERS` or too large to be
        evaluated; `timeout` if the comparison exceeds the worker's time limit; `error` if the comparison ended two
        workers (`extracted` then holds the reason).

    Raises:
        WorkerError: no worker process can be started.
    """
    answer, joined = extract_answers(response)
    if answer is None:
        return Verdict(False, "no_answer")
    verdict = _verdict(answer, gold, rounded)
    if joined and verdict.status == "ok" and not verdict.correct:
        together = _verdict(joined, gold, rounded)
        return together if together.correct else verdict
    return verdict


def _verdict(answer: str, gold: str, rounded: bool) -> Verdict:
    result = compare_without_algebra(gold, answer)
    if result is None or (rounded and result != EQUAL):
        if max(len(answer), len(gold)) > MAX_CHARACTERS:
            return Verdict(False, "unparsable", answer)
        status, result = _workers(needs_sympy(gold + answer)).call(gold, answer, rounded)
        if status == "error":
            return Verdict(False, "error", f"{result}; the answer was {answer!r}")
        if status == "timeout":
            return Verdict(False, "timeout", answer)
        if status == "memory":
            return Verdict(False, "unparsable", answer)
    if result == UNREADABLE:
        return Verdict(False, "unparsable", answer)
    return Verdict(result == EQUAL, "ok", answer)


def _workers(sympy: bool) -> WorkerPool:
    """Return the workers of an answer. Those with SymPy may be slow, so that they hold up nobody else's answer."""
    if sympy:
        warm_up = (r"\int_0^1 x dx", r"\frac{1}{2}")
        return shared_pool("riskpo_openrlhf.verifiers.math.compare:compare_with_sympy", warm_up, _PATIENCE)
    return shared_pool("riskpo_openrlhf.verifiers.math.compare:compare", (r"\sin 2x", r"2\sin x\cos x"))
