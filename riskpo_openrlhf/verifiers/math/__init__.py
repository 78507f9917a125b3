r"""Grades an answer in mathematical notation: numbers, expressions, equations, sets, intervals, matrices, words.

An answer counts in `\boxed{…}`, on a line `Answer: …` or on a line `#### …` with a number; nothing else is looked at.
Two answers are compared in a worker process, which is killed if it takes too long; what is allowed is in
docs/verifiers.md. The work is done by math-verify, latex2sympy2_extended and SymPy.
"""

from __future__ import annotations

import re

from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.math.notation import MAX_LENGTH
from riskpo_openrlhf.verifiers.math.symbolic import EQUAL, UNREADABLE, quickly
from riskpo_openrlhf.verifiers.pool import WorkerPool, shared
from riskpo_openrlhf.verifiers.response import SPECIAL_TOKEN, after_thinking

_COMPARE = "riskpo_openrlhf.verifiers.math.symbolic:compare"
# Of every kind that is frequent: the first parse of each costs tens of milliseconds.
_WARM_UP = (
    r"\frac{1}{2},3\sqrt{5}+x^{2}-2\pi,\sqrt[3]{7},\frac{-1+i\sqrt3}{2},\sin(2x)\cdot e^{x}!,\log_{2}(n+1),a_{1}b,|x|",
    r"\frac{2}{4},\sqrt{45}+x^2-\pi\cdot2,7^{\frac{1}{3}},(i\sqrt{3}-1)/2,\sin 2x\cdot e^x!,\log_2(1+n),ba_1,|-x|",
)

_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\s*([-+]?[\d.][^\s${}\\]*|\\[a-zA-Z]+(?:\{[^{}\n]*\}){0,2})")
_LINE = re.compile(
    r"^[ \t>*_#-]{0,20}(?:(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t*_]{0,10}[:：][\s*_]{0,10}(?P<answer>\S.*)"
    r"|(?<!#)#### ?(?P<number>[-+]?\\?\$?\d[\d,]*(?:\.\d+)?)\.?[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)


def verify(response: str, gold: str) -> Verdict:
    r"""Compare the answer that a response gives with the right one.

    Args:
        response: what the model wrote. Thinking, up to the last `</think>`, is not looked at.
        gold: the right answer, as LaTeX or plain text, with or without `$`.

    Returns:
        A verdict. Its status is `no_answer` without an answer in one of the places that count, or with thinking that
        does not end; `unparsable` for an answer that can't be read, is longer than `notation.MAX_LENGTH` characters or
        too large to be evaluated; `timeout` when the comparison took longer than the worker's limit; `error` when it
        ended two workers (what happened is in `extracted` then).

    Raises:
        WorkerError: no worker could be started.
    """
    return graded(response, gold, rounded=False)


def extract(response: str) -> str | None:
    r"""The answer of a response: its last `\boxed{…}`, `Answer: …` line or `#### …` line, whichever comes last."""
    text = after_thinking(response)
    if text is None:
        return None
    start, answer = _last_box(text)
    for match in _LINE.finditer(text, max(start, 0)):
        line = match["number"] or SPECIAL_TOKEN.sub("", match["answer"]).strip().strip("*_`").strip()
        # A box in the line is its answer; it has been found already.
        if not re.search(r"\\(?:boxed|fbox)(?![a-zA-Z])", line) and line:
            start, answer = match.start(), line
    return answer


def start() -> None:
    """Start the worker processes, in the background, so that the first answers need not wait for them."""
    _pool().start()


def graded(response: str, gold: str, *, rounded: bool) -> Verdict:
    """As `verify`; `rounded` is that of `symbolic.compare`."""
    answer = extract(response)
    if answer is None:
        return Verdict(False, "no_answer")
    result = quickly(gold, answer)
    if result is None or (rounded and result != EQUAL):
        if len(answer) > MAX_LENGTH or len(gold) > MAX_LENGTH:
            return Verdict(False, "unparsable", answer)
        status, result = _pool().call(gold, answer, rounded)
        if status == "error":
            return Verdict(False, "error", f"{result}; the answer was {answer!r}")
        if status != "ok":
            return Verdict(False, {"memory": "unparsable"}.get(status, status), answer)
    if result == UNREADABLE:
        return Verdict(False, "unparsable", answer)
    return Verdict(result == EQUAL, "ok", answer)


def _pool() -> WorkerPool:
    return shared(_COMPARE, _WARM_UP)


def _last_box(text: str) -> tuple[int, str | None]:
    r"""Place and content of the last `\boxed{…}` whose braces match, in one pass; also of `\boxed 7`. Of boxes within
    boxes the outermost counts, an empty one does not."""
    found: tuple[int, str | None] = (-1, None)
    if "box" not in text:
        return found
    opened: list[tuple[int, int] | None] = []  # per open brace: place of its \boxed and of its content
    box = None
    for match in _BOX_TOKEN.finditer(text):
        token = match[0]
        if token == "{":
            boxed = box is not None and not text[box.end() : match.start()].strip()
            opened.append((box.start(), match.end()) if boxed else None)
            box = None
        elif token == "}":
            if opened and (place := opened.pop()) and text[place[1] : match.start()].strip():
                found = place[0], text[place[1] : match.start()].strip()
        elif token in ("\\boxed", "\\fbox"):
            box = match
            if (bare := _BARE_BOX.match(text, match.end())) and (content := bare[1].rstrip(".,;:")):
                found = match.start(), content
    return found
