"""What a reward function gives, read in one place."""

from __future__ import annotations

import torch


def number(value) -> float | None:
    """Read a reward: a number, or a list or tensor of one. Return None if it is missing, not finite or not one."""
    try:
        found = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    return found.item() if found.numel() == 1 and bool(found.isfinite()) else None
