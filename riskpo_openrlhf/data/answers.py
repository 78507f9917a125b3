"""Read the right answer out of a source's field. Each function raises `AnswerError` when there is none."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation


class AnswerError(ValueError):
    """A field holds no answer that can be read."""


def integer(value: object) -> str:
    """Return `str(int(...))` of 7, 7.0, `"007"`, `"7.0"` or `"7^\\circ"`; refuse what is no whole number."""
    try:
        number = Decimal(str(value).strip().strip("$").removesuffix(r"^\circ").removesuffix("°"))
        whole = int(number)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise AnswerError(f"{value!r} is not a whole number") from error
    if whole != number:
        raise AnswerError(f"{value!r} is not a whole number")
    return str(whole)


def last_boxed(solution: str) -> str:
    r"""Return the content of the last `\boxed{...}` or `\fbox{...}`, braces matched; of `\boxed 7`, all before `$`."""
    start, command = max((solution.rfind(command), command) for command in (r"\boxed", r"\fbox"))
    if start < 0:
        raise AnswerError(r"the solution has neither \boxed nor \fbox")
    rest = solution[start + len(command) :].lstrip()
    content = _braced(rest) if rest.startswith("{") else re.split(r"[$\n]", rest)[0]
    if not content.strip():
        raise AnswerError(f"the last {command} of the solution is empty")
    return content.strip()


def _braced(text: str) -> str:
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0 and match[0] == "}":
            return text[1 : match.start()]
    raise AnswerError(r"the last \boxed of the solution is never closed")


def after_hashes(answer: str) -> str:
    """Return GSM8K's number behind `#### `, without thousands separators and a final stop."""
    _, _, number = answer.partition("####")
    number = number.replace(",", "").strip().removesuffix(".")
    if not re.fullmatch(r"-?\d+(\.\d+)?", number):
        raise AnswerError(f"{answer[-40:]!r} does not end with one '#### number'")
    return number


def text(value: object) -> str:
    """Return a string as it stands, without space around it."""
    if not isinstance(value, str) or not value.strip():
        raise AnswerError(f"{value!r} is not a non-empty string")
    return value.strip()
