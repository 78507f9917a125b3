r"""Find the answer in a response: `\boxed{…}`, a line `Answer: …`, or a line `#### …` with a number; nothing else."""

from __future__ import annotations

import re

from riskpo_openrlhf.verifiers.response import SPECIAL_TOKEN, after_thinking

_BOX = re.compile(r"\\+(?:boxed|fbox)(?![a-zA-Z])")  # \\boxed too: a text may have been escaped
_BOX_TOKEN = re.compile(rf"{_BOX.pattern}|\\.|[{{}}]", re.DOTALL)
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$,;、}]|[a-zA-Z](?:_\{?\w\}?)?\s*=|\\[()\[\],; ]|\\q?quad|\\?text\s*\{|and|or|和|或){1,40}"
)
_MINUS = re.compile(r"(?:^|[\s=$({])-$")  # right before a box
_OF_DIGITS = re.compile(r"[\d.]|\\(?:[dt]?frac|sqrt|\$)")
_BARE_CONTENT = re.compile(  # of \boxed 7
    r"\s*([-+]?[\d.][^\s${}\\]*|\\[dt]?frac\s*\d\d(?!\d)|\\[a-zA-Z]+(?:\{[^{}\n]*\}){0,2})"
)
_LINE = re.compile(
    r"^[ \t>*_#-]{0,20}(?:(?:the[ \t]+)?(?:final[ \t]+)?answer[ \t*_]{0,10}[:：]"
    r"(?:[\s*_]|(?:\$\$|\\\[)[ \t]*\n){0,10}(?P<answer>\S.*)"
    r"|(?<!#)#### ?(?P<number>[-+]?\\?\$?\d[\d,]*(?:\.\d+)?)\.?[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)


def extract_answers(response: str) -> tuple[str | None, str | None]:
    r"""Return the last answer of a response after its thinking, and the list that it ends.

    `\boxed{1} and \boxed{2}` gives `2` and `1, 2`; `\boxed{2}` gives `2` and None. None if there is no answer.
    """
    text = after_thinking(response)
    if text is None:
        return None, None
    text = SPECIAL_TOKEN.sub("", text)
    boxes = _last_boxes(text)
    answer = boxes[-1][2] if boxes else None
    joined = ", ".join(content for *_, content in boxes) if answer and len(boxes) > 1 else None
    for match in _LINE.finditer(text, boxes[-1][0] if boxes else 0):
        if match["number"] and boxes:
            continue  # a heading
        line = match["number"] or match["answer"].strip().strip('*_`"').strip()
        # A box in the line is its answer, which has been found.
        if line and not _BOX.search(line):
            answer, joined = line, None
    return answer or None, joined


def _last_boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Return start, end and content of the last `\boxed{…}` with matching braces, after its neighbours; in one pass.

    `\boxed 7` counts too. Of nested boxes the outermost counts. An empty box does not count. A last box that does not
    end has an empty content: the response was cut off in its answer.
    """
    found: list[tuple[int, int, str]] = []

    def add(start: int, end: int, content: str) -> None:
        if found and not _BETWEEN_BOXES.fullmatch(text, found[-1][1], max(start, found[-1][1])):
            found.clear()
        if _OF_DIGITS.match(content) and _MINUS.search(text, max(start - 2, 0), start):
            content = f"-({content})" if re.search("[-+]", content) else f"-{content}"
        found.append((start, end, content))

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
                add(place[0], match.end(), text[place[1] : match.start()].strip())
        elif "box" in token:
            box = match
            if (bare := _BARE_CONTENT.match(text, match.end())) and (content := bare[1].rstrip(".,;:")):
                add(match.start(), bare.start(1) + len(content), content)
    last = found[-1][1] if found else 0
    unended = [place[0] for place in opened if place and place[0] >= last]
    return [(unended[0], len(text), "")] if unended else found
