"""Right answers out of the fields in which the sources keep them; each raises `BadGold` when there is none."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation


class BadGold(ValueError):
    """No right answer can be read."""


def integer(value: object) -> str:
    """`str(int(...))` of 7, 7.0, `"007"`, `"7.0"` or `"7^\\circ"`; anything that is no whole number is refused."""
    try:
        number = Decimal(str(value).strip().strip("$").removesuffix(r"^\circ").removesuffix("°"))
        whole = int(number)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise BadGold(f"{value!r} is not a whole number") from error
    if whole != number:
        raise BadGold(f"{value!r} is not a whole number")
    return str(whole)


def last_boxed(solution: str) -> str:
    r"""The content of the last `\boxed{...}` or `\fbox{...}`, braces matched; of `\boxed 7`, all before `$`."""
    start, command = max((solution.rfind(command), command) for command in (r"\boxed", r"\fbox"))
    if start < 0:
        raise BadGold(r"the solution has neither \boxed nor \fbox")
    rest = solution[start + len(command) :].lstrip()
    content = _braced(rest) if rest.startswith("{") else re.split(r"[$\n]", rest)[0]
    if not content.strip():
        raise BadGold(f"the last {command} of the solution is empty")
    return content.strip()


def _braced(text: str) -> str:
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0 and match[0] == "}":
            return text[1 : match.start()]
    raise BadGold(r"the last \boxed of the solution is never closed")


def after_hashes(answer: str) -> str:
    """GSM8K's number behind `#### `, without thousands separators and a final stop."""
    before, _, gold = answer.partition("####")
    gold = gold.replace(",", "").strip().removesuffix(".")
    if not re.fullmatch(r"-?\d+(\.\d+)?", gold):
        raise BadGold(f"{answer[-40:]!r} does not end with one '#### number'")
    return gold


def text(value: object) -> str:
    """A string as it stands, without space around it."""
    if not isinstance(value, str) or not value.strip():
        raise BadGold(f"{value!r} is not a string that is not empty")
    return value.strip()
