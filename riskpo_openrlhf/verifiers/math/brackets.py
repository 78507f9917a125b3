"""Find matching brackets, and split a text where no bracket is open."""

from __future__ import annotations

import re
from collections.abc import Iterator

from riskpo_openrlhf.verifiers.math.limits import Unreadable

_TOKEN = re.compile(r"\\(?:begin|end)\s*\{[a-z]+\*?\}|\\[a-zA-Z]+|\\.|.", re.DOTALL)


def closing_bracket(text: str) -> int:
    """Return the place of the bracket that closes the text's first character. Raises `Unreadable` if there is none."""
    return next(match.start() for match, depth in depths(text) if depth == 0)


def depths(text: str) -> Iterator[tuple[re.Match, int]]:
    """Yield each token of the text with the number of brackets that are open after it.

    Raises `Unreadable` if opened and closed brackets differ in number; their kinds may differ, as in `[0, 1)`.
    """
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        opens = token in ("(", "[", "{", "\\{") or token.startswith("\\begin")
        depth += opens - (token in (")", "]", "}", "\\}") or token.startswith("\\end"))
        if depth < 0:
            raise Unreadable
        yield match, depth
    if depth:
        raise Unreadable


def split(text: str, separators: set[str]) -> tuple[list[str], list[str]]:
    """Split a text at separators outside of brackets. Returns the parts, stripped, and the separators found."""
    parts, found, start = [], [], 0
    for match, depth in depths(text):
        if depth == 0 and match[0] in separators:
            parts.append(text[start : match.start()].strip())
            found.append(match[0])
            start = match.end()
    return [*parts, text[start:].strip()], found
