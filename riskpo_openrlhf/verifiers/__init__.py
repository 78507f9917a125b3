"""Is a response right? One module a kind of task, each with `verify(response, gold) -> Verdict`."""

from __future__ import annotations

from dataclasses import dataclass

STATUSES = ("ok", "no_answer", "unparsable", "timeout", "error")


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one response.

    Attributes:
        correct: the response holds the right answer.
        status: `ok` (an answer was found and compared), `no_answer`, `unparsable` (an answer that can't be read),
            `timeout` or `error` (no verdict: the verifier failed, which is not a wrong answer).
        extracted: the answer as found in the response, None when there is none; with `timeout` and `error` the reason.

    Raises `ValueError` for an unknown status, or for a correct answer whose status is not `ok`.
    """

    correct: bool
    status: str
    extracted: str | None = None

    def __post_init__(self):
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not known; one of: {', '.join(STATUSES)}")
        if self.correct and self.status != "ok":
            raise ValueError(f"a response with status {self.status!r} can't be correct")
