"""Faults that end a run: they carry a cause and a cure, and a restart would not help."""

from __future__ import annotations


class RunFault(RuntimeError):
    """End the run: `cause` says what happened, `cure` what to do. A restart would not help."""

    def __init__(self, cause: str, cure: str):
        super().__init__(cause, cure)
        self.cause, self.cure = cause, cure

    def __str__(self) -> str:
        return f"{self.cause}. {self.cure}"
