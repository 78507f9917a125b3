"""What is wrong: with the flags, before a run starts (`Problem`), and with a run, which ends for good (`RunFault`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from riskpo_openrlhf.tables import to_json


class Problem(NamedTuple):
    """What is wrong, and the flag that it belongs to, with its dashes."""

    flag: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.flag or ''}{self.message}"


def as_json(problems: Sequence[Problem], **more: Any) -> str:
    """Return the result of a dry run as one line of JSON. `more`: what is known if the flags were not refused."""
    found = [{"flag": problem.flag, "message": str(problem)} for problem in problems]
    return to_json({"ok": not problems, "problems": found, **more})


class RunFault(RuntimeError):
    """End the run: `cause` says what happened, `cure` what to do. A restart would not help.

    Both arguments go to `RuntimeError`, so that the error survives pickle, and with it Ray.
    """

    def __init__(self, cause: str, cure: str):
        super().__init__(cause, cure)
        self.cause, self.cure = cause, cure

    def __str__(self) -> str:
        return f"{self.cause.rstrip('.')}. {self.cure}"
