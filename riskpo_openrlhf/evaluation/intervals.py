"""The 95 % intervals behind every ±: of many problems by the normal law, of few seeds by Student's t."""

from __future__ import annotations

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
