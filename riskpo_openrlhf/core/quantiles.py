"""Online tracking of the quantiles of bundle scores (Algorithm 1, line 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def empirical_quantile(scores: Tensor, level: float) -> float:
    """Compute the quantile of `scores [n]` at `level`, by linear interpolation between order statistics."""
    place = level * (scores.numel() - 1)
    below, above = (scores.flatten().kthvalue(k + 1).values.item() for k in (math.floor(place), math.ceil(place)))
    return below + (above - below) * (place - math.floor(place))


class QuantileTracker:
    """q <- q + gamma_k (level - mean 1{R < q}) for each level, gamma_k = lr / (1 + k)^decay after k updates.

    It starts at the empirical quantiles of the first scores that it sees and keeps its values in the order of the
    levels. Values are Python floats, so a resumed run continues exactly. A constant gamma (`decay=0`)
    follows a drifting policy; with discrete scores the value then saws around an atom, by about lr.
    """

    def __init__(self, levels: Sequence[float], lr: float, decay: float = 0.0):
        self.levels = [float(level) for level in levels]
        if not all(0 < level < 1 for level in self.levels) or self.levels != sorted(set(self.levels)):
            raise ValueError(f"levels {list(levels)} are not allowed: increasing numbers in (0, 1)")
        self.lr = lr
        self.decay = decay
        self.updates = 0
        self.values: list[float] | None = None

    @property
    def started(self) -> bool:
        return self.values is not None

    def start(self, scores: Tensor) -> None:
        """Set q_0 to the empirical quantiles of `scores [n]`; empty scores leave the tracker as it is."""
        if scores.numel():
            self.values = [empirical_quantile(scores, level) for level in self.levels]

    def update(self, scores: Tensor) -> None:
        """Move from q_k to q_{k+1} by `scores [n]`, after a start at q_0 where needed; empty scores do nothing."""
        if scores.numel() == 0:
            return
        if not self.started:
            self.start(scores)
        gamma = self.lr / (1 + self.updates) ** self.decay
        under = self.coverage(scores)
        moved = (q + gamma * (level - c) for q, level, c in zip(self.values, self.levels, under, strict=True))
        self.values = sorted(moved)
        self.updates += 1

    def value(self, level: float) -> float:
        """Return the tracked quantile at a level. Raises `ValueError` for another level or before the start."""
        if level not in self.levels:
            raise ValueError(f"level {level:g} is not tracked; one of: {_text(self.levels)}")
        if self.values is None:
            raise ValueError("the quantile tracker has no value before it has seen scores")
        return self.values[self.levels.index(level)]

    def coverage(self, scores: Tensor) -> list[float]:
        """Compute the share of `scores [n]` under each tracked value: near the levels when calibrated."""
        return [torch.count_nonzero(scores < q).item() / scores.numel() for q in self.values]

    def state_dict(self) -> dict[str, Any]:
        """Return plain Python numbers: the levels, their values (None before the start), the number of updates."""
        values = None if self.values is None else list(self.values)
        return {"levels": list(self.levels), "values": values, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`. Raises `ValueError` if that tracker had other levels."""
        if list(state["levels"]) != self.levels:
            raise ValueError(
                f"--algo.riskpo.alpha/beta: this run tracks the levels {_text(self.levels)}, the checkpoint "
                f"{_text(state['levels'])}; they must be equal"
            )
        self.values = None if state["values"] is None else [float(value) for value in state["values"]]
        self.updates = int(state["updates"])


def _text(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)
