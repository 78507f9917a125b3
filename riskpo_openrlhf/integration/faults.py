"""The fault that ends a run: what happened and what to do."""

from __future__ import annotations


class RunFault(RuntimeError):
    """End the run: `cause` says what happened, `cure` what to do. A restart would not help."""

    def __init__(self, cause: str, cure: str):
        super().__init__(cause, cure)  # both, so that the error survives pickling between Ray's processes
        self.cause, self.cure = cause, cure

    def __str__(self) -> str:
        return f"{self.cause}. {self.cure}"
