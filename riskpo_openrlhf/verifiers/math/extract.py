r"""Find the answer in a response: `\boxed{…}`, a line `Answer: …`, or a line `#### …` with a number; nothing else."""

from __future__ import annotations

import re

from riskpo_openrlhf.verifiers.response import SPECIAL_TOKEN, after_thinking

_BOX = re.compile(r"\\+(?:boxed|fbox)(?![a-zA-Z])")  # \\boxed too: a text may have been escaped
_BOX_TOKEN = re.compile(rf"{_BOX.pattern}|\\.|[{{}}]", re.DOTALL)
_BETWEEN_BOXES = re.compile(
    r"[\s$.,;、。]*(?:\\[()\[\]]|and|or|,|和|或)?[\s$.,;]*(?:\\[()\[\]])?[\s$]*(?:\\text\{\s*(?:and|or)\s*\}\s*)?"
)
_BARE_CONTENT = re.compile(r"\s*([-+]?[\d.][^\s${}\\]*|\\[a-zA-Z]+(?:\{[^{}\n]*\}){0,2})")  # of \boxed 7
_LINE = re.compile(
    r"^[ \t>*_#-]{0,20}(?:(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t*_]{0,10}[:：][\s*_]{0,10}(?P<answer>\S.*)"
    r"|(?<!#)#### ?(?P<number>[-+]?\\?\$?\d[\d,]*(?:\.\d+)?)\.?[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)


def extract_answer(response: str) -> str | None:
    """Return the last answer of a response after its thinking; None if there is none."""
    text = after_thinking(response)
    if text is None:
        return None
    start, answer = _last_box(text)
    for match in _LINE.finditer(text, max(start, 0)):
        line = match["number"] or SPECIAL_TOKEN.sub("", match["answer"]).strip().strip("*_`").strip()
        # A box in the line is its answer; `_last_box` has found it.
        if line and not _BOX.search(line):
            answer = line
    return answer


def _last_box(text: str) -> tuple[int, str | None]:
    r"""Return place and content of the last `\boxed{…}` with matching braces, or `(-1, None)`; in one pass.

    `\boxed 7` counts too. Of nested boxes the outermost counts. An empty box does not count.
    """
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
        elif "box" in token:
            box = match
            if (bare := _BARE_CONTENT.match(text, match.end())) and (content := bare[1].rstrip(".,;:")):
                found = match.start(), content
    return found
