r"""Answers in words: `\text{Even}`, and the letters of multiple choice."""

from __future__ import annotations

import re

from riskpo_openrlhf.verifiers.math.limits import MAX_CHARACTERS
from riskpo_openrlhf.verifiers.math.notation import TEXT_COMMANDS

_MARKUP = re.compile(rf"\\{TEXT_COMMANDS}\s*\{{|[{{}}$\"]|\\[(), ]")
_CHOICE = re.compile(
    r"\( ?(?P<bracketed>[a-j]) ?\)(?: ?[^,;+*/=^ (!-].*| [-(] ?\d.*)?|(?P<plain>[a-z])(?:[).:](?: .*)?)?"
)
_CHOICE_OF_CAPITALS = re.compile(r"\( ?(?P<bracketed>[a-j]) ?\)(?: .*)?")
_LABEL = re.compile(r"(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?:? (?=\(? ?[a-j]\b(?! [a-z]))")
_BRACKETED = re.compile(r"\( ?([A-H]) ?\)")
_CHOICES = re.compile(r"[A-H](?:(?:,? and | ?[,;&]? ?)[A-H])+")
_KIND = "(?:(?:real|integer|positive|such) )*"
_EMPTY = re.compile(
    rf"\\(?:emptyset|varnothing)|∅|\\\{{ *\\\}}|无解|none"
    rf"|(?:there (?:is|are) )?no (?P<kind>{_KIND})solutions?(?: exists?)?",
    re.IGNORECASE,
)
_ABSENT = re.compile(r"DNE|(?i:(?:the )?(?:limit )?(?:does not|doesn't) exist)")
_SECOND_CHOICE = re.compile(r"\(?\b[a-h][).:]|\b(?:and|or|both)\b")


def plain_words(text: str, numbered: bool = False) -> str:
    r"""Return an answer in words, in lower case: `c` for `\text{(C)}` and `C) 42`, `even` for `\text{Even}`.

    Returns an empty text for anything else, and for a choice that is followed by a second one.
    `numbered`: words have a number after them, as in `July 5`; choices are read as before.
    """
    written = _without_markup(text)
    if re.fullmatch("[A-Z][a-z]", written) and written not in ("No", "Ok"):
        return written  # an element: Co is not CO
    words = _LABEL.sub("", written.lower())
    if match := (_CHOICE_OF_CAPITALS if re.match(r"\( ?[A-J] ?\) ", written) else _CHOICE).fullmatch(words):
        rest = words[match.end(match.lastgroup) + 1 :]
        return "" if _SECOND_CHOICE.search(rest) else match[match.lastgroup]
    pattern = r"[a-z]{3,}[a-z ,'\-.]* \d{1,4}" if numbered else r"[a-z][a-z ,'\-.]*|[\u4e00-\u9fff]+"
    if not re.fullmatch(pattern, words):
        return ""
    letters = 5 if "-" in words and "\\text" not in text else 3
    if not re.search(rf"[a-z]{{{letters}}}|[^\x00-\x7f]", words) and words not in ("no", "ok"):
        return written  # letters, not words: R-r is not r-R
    return re.sub("^(?:an?|the) (?=[a-z]{3})", "", words) if "\\text" in text else words  # a sin x has a factor a


def _without_markup(text: str) -> str:
    """Return the words and letters of a text on one line; an empty text if it is too long."""
    if len(text) > MAX_CHARACTERS:
        return ""
    return " ".join(_MARKUP.sub(" ", text).split()).strip(" .")


def nothing(text: str) -> str:
    """Return `empty` for the empty set and no solution, `absent` for what does not exist, else an empty text.

    `empty real` for no real solution, and the like.
    """
    words = _without_markup(text)
    if match := _EMPTY.fullmatch(text.strip(" $.")) or _EMPTY.fullmatch(words):
        return f"empty {(match['kind'] or '').lower()}".strip()
    return "absent" if _ABSENT.fullmatch(words) else ""


def choices(text: str) -> tuple[str, bool]:
    """Return several letters of multiple choice, and whether they can be nothing else: `A and C` gives `AC`, true.

    `AC` alone may be a product; `ABD` hardly. The letters are empty for anything else, also if they are not in
    alphabetical order: that may be an ordering.
    """
    text = _without_markup(text)
    bracketed = re.fullmatch(rf"(?:{_BRACKETED.pattern}[ ,]*)+", text)
    text = " ".join(_BRACKETED.sub(r" \1 ", text).split())
    letters = re.findall("[A-H]", text)
    if not 2 <= len(letters) <= 8 or letters != sorted(set(letters)) or not _CHOICES.fullmatch(text):
        return "", False
    return "".join(letters), bool(bracketed or re.search("[,;&]|and", text) or len(letters) > 2)


def is_word(words: str, text: str) -> bool:
    r"""Tell whether `words`, the `plain_words` of `text`, are no product of letters: `\text{odd}`, not `odd`."""
    return bool(re.search(r"[a-z]{5}|[\u4e00-\u9fff]", words)) or (bool(words) and "\\text" in text)
