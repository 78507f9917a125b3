"""What a check of the flags finds."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """What is wrong, and the flag that it belongs to, with its dashes."""

    flag: str
    message: str

    def __str__(self) -> str:
        return f"{self.flag}{self.message}"
