"""Is a response right? Each verifier has `verify(response, gold) -> Verdict`: math, geometry and code."""

from __future__ import annotations

from dataclasses import dataclass

STATUSES = ("ok", "no_answer", "unparsable", "timeout", "error")


@dataclass(frozen=True)
class Verdict:
    """A verifier's verdict on one response.

    Attributes:
        correct: the answer is right.
        status: `ok`: an answer was found and compared. `no_answer`: none was found. `unparsable`: the answer can't be
            read. `timeout`, `error`: no verdict, because the verifier failed. The answer does not count as wrong.
        extracted: the answer as it stands in the response, or None. With `timeout` and `error` it may be the reason.

    Raises `ValueError` for an unknown status, and for a correct answer whose status is not `ok`.
    """

    correct: bool
    status: str
    extracted: str | None = None

    def __post_init__(self):
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not known; one of: {', '.join(STATUSES)}")
        if self.correct and self.status != "ok":
            raise ValueError(f"a response with status {self.status!r} can't be correct")
