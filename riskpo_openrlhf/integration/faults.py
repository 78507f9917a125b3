"""The error that ends a run for good: what happened, and what to do."""

from __future__ import annotations


class RunFault(RuntimeError):
    """End the run: `cause` says what happened, `cure` what to do. A restart would not help.

    Both arguments go to `RuntimeError`, so that the error survives pickle, and with it Ray.
    """

    def __init__(self, cause: str, cure: str):
        super().__init__(cause, cure)
        self.cause, self.cure = cause, cure

    def __str__(self) -> str:
        return f"{self.cause.rstrip('.')}. {self.cure}"
