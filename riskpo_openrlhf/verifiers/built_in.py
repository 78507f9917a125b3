"""The name of the package's own reward function, wherever a reward file is asked for."""

from __future__ import annotations

from pathlib import Path

NAME = "riskpo"  # `--reward.remote_url riskpo`, `evaluate --reward riskpo`
PATH = Path(__file__).with_name("reward_func.py")


def reward_path(reward: str) -> str:
    """Return the path of the built-in reward function for its name, and any other value unchanged."""
    return str(PATH) if reward == NAME else reward
