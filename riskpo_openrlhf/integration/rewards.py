"""What a reward function gives, read in one place, and the name of the built-in one."""

from __future__ import annotations

from pathlib import Path

BUILT_IN = "riskpo"  # `--reward.remote_url riskpo`, `evaluate --reward riskpo`
BUILT_IN_FILE = Path(__file__).parents[1] / "verifiers" / "reward_func.py"


def reward_path(name: str | None) -> str | None:
    """Return the path of the built-in reward function for its name, and any other value as it is."""
    return str(BUILT_IN_FILE) if name == BUILT_IN else name


def number(value) -> float | None:
    """Read a reward: a number, or a list or tensor of one. Return None if it is missing, not finite or not one."""
    import torch

    try:
        found = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    return found.item() if found.numel() == 1 and bool(found.isfinite()) else None
