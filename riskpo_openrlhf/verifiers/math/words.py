r"""Answers in words: `\text{Even}`, and the letters of multiple choice."""

from __future__ import annotations

import re

from riskpo_openrlhf.verifiers.math.limits import MAX_CHARACTERS
from riskpo_openrlhf.verifiers.math.notation import TEXT_COMMANDS

_MARKUP = re.compile(rf"\\{TEXT_COMMANDS}\s*\{{|[{{}}$\"]|\\[(), ]")
_CHOICE = re.compile(r"\( ?(?P<bracketed>[a-z]) ?\)(?: ?[^,;+*/=^ ].*)?|(?P<plain>[a-z])(?:[).:](?: .*)?)?")
_LABEL = re.compile(r"(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?:? (?=\(? ?[a-j]\b(?! [a-z]))")
_BRACKETED = re.compile(r"\( ?([A-H]) ?\)")
_CHOICES = re.compile(r"[A-H](?:(?:,? and | ?[,;&]? ?)[A-H])+")
_NOTHING = re.compile(
    r"\\(?:emptyset|varnothing)|∅|\\\{ *\\\}|(?:there (?:is|are) )?no (?:real )?solutions?", re.IGNORECASE
)
_NOT_THERE = re.compile(r"dne|(?:the limit )?(?:does not|doesn't) exist")
_SECOND_CHOICE = re.compile(r"\(?\b[a-h][).:]|\b(?:and|or|both)\b")


def plain_words(text: str, numbered: bool = False) -> str:
    r"""Return an answer in words, in lower case: `c` for `\text{(C)}` and `C) 42`, `even` for `\text{Even}`.

    Returns an empty text for anything else, and for a choice that is followed by a second one.
    `numbered`: words have a number after them, as in `July 5`; choices are read as before.
    """
    if len(text) > MAX_CHARACTERS:
        return ""
    words = " ".join(_MARKUP.sub(" ", text).split()).strip(" .").lower()
    words = _LABEL.sub("", words)
    if _NOTHING.fullmatch(text.strip(" $.")) or _NOTHING.fullmatch(words):
        return "no solution"
    if _NOT_THERE.fullmatch(words):
        return "does not exist"
    if match := _CHOICE.fullmatch(words):
        rest = words[match.end(match.lastgroup) + 1 :]
        return "" if _SECOND_CHOICE.search(rest) else match[match.lastgroup]
    pattern = r"[a-z]{3,}[a-z ,'\-.]* \d{1,4}" if numbered else r"[a-z][a-z ,'\-.]*"
    return words if re.fullmatch(pattern, words) else ""


def choices(text: str) -> tuple[str, bool]:
    """Return several letters of multiple choice in order, and whether they stand apart: `A and C` gives `AC`, true.

    The letters are empty for anything else.
    """
    text = " ".join(_BRACKETED.sub(r" \1 ", _MARKUP.sub(" ", text)).split()).strip(" .")
    letters = re.findall("[A-H]", text)
    if len(text) > MAX_CHARACTERS or len(set(letters)) < max(len(letters), 2) or not _CHOICES.fullmatch(text):
        return "", False
    return "".join(sorted(letters)), not text.isalpha()


def is_word(words: str, text: str) -> bool:
    r"""Tell whether `words`, the `plain_words` of `text`, are no product of letters: `\text{odd}`, not `odd`."""
    return bool(re.search(r"[a-z]{5}", words)) or (bool(words) and "\\text" in text)
