"""The 95 % intervals behind every ±: of many problems by the normal law, of few seeds by Student's t."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

import numpy as np

Z95 = 1.959964  # half of a 95 % interval in standard errors, for means of many problems


def over_seeds(values, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean over seeds and half of its 95 % interval (Student's t).

    Args:
        values: an array whose `axis` runs over seeds.

    Returns:
        Two arrays without that axis; the half width is NaN with a single seed.
    """
    from scipy import stats

    values = np.asarray(values, dtype=float)
    seeds = values.shape[axis]
    mean = values.mean(axis)
    if seeds < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, stats.t.ppf(0.975, seeds - 1) * stats.sem(values, axis=axis)


class Interval(NamedTuple):
    """A mean over `n` seeds and half the width of its 95 % interval, which is NaN with one seed."""

    mean: float
    half: float
    n: int


def interval(values: Sequence[float]) -> Interval:
    """Compute Student's interval of the finite values; all NaN if there is none."""
    finite = [value for value in values if np.isfinite(value)]
    return Interval(*map(float, over_seeds(finite)), len(finite)) if finite else Interval(nan, nan, 0)
