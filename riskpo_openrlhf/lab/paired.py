"""Compare two methods on the same seeds: differences at equal steps and at matched Pass@1, with 95 % intervals.

At equal steps, a method that has learned less seems to explore more. A comparison at equal Pass@1 avoids that.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
from scipy.optimize import isotonic_regression

from riskpo_openrlhf.analysis.runs import Curve, Run
from riskpo_openrlhf.evaluation.intervals import Interval, interval


def rising(values: np.ndarray) -> np.ndarray:
    """Fit the nearest non-decreasing curve [m], by least squares.

    Noise makes a learning curve reach a level, and its highest value, too early.
    """
    return isotonic_regression(values).x


def reached(curve: Curve, level: float) -> float:
    """Return the step at which the `rising` curve first reaches `level`, interpolated; NaN if it never does."""
    values = rising(curve.values)
    above = np.flatnonzero(values >= level)
    if not len(above):
        return nan
    j = int(above[0])
    if j == 0:
        return float(curve.steps[0])
    (s0, s1), (v0, v1) = curve.steps[j - 1 : j + 1], values[j - 1 : j + 1]
    return float(s0 + (s1 - s0) * (level - v0) / (v1 - v0))


def at_end(curve: Curve) -> float:
    """Average the last two values: one evaluation is too noisy."""
    return float(curve.values[-2:].mean())


def value_at(curve: Curve, step: float) -> float:
    """Read the curve at a step, interpolated; NaN if the step is NaN. Beyond its ends the curve is constant.

    Each value is first averaged with its neighbours, because one value is too noisy.
    """
    if not np.isfinite(step):
        return nan
    means = [curve.values[max(0, i - 1) : i + 2].mean() for i in range(len(curve.values))]
    return float(np.interp(step, curve.steps, means))


def common_level(pair: tuple[Run, Run], tag: str) -> float:
    """Return the largest value of `tag` that both `rising` curves reach."""
    return min(float(rising(run.scalars[tag].values)[-1]) for run in pair)


def differences(
    pairs: Sequence[tuple[Run, Run]], tags: Sequence[str], match: str | None = None, level: float | None = None
) -> dict[str, Interval]:
    """Subtract the second run of each pair (same seed) from the first, for every tag that all runs have.

    Args:
        match: read each run at the step where this tag reaches the level, and return the difference of these steps as
            `steps`. A pair in which one run never reaches it is left out. Without `match`, read the ends.
        level: for `match`; default: each pair's `common_level`.
    """
    shared = [tag for tag in tags if all(tag in run.scalars for pair in pairs for run in pair)]
    found: dict[str, list[float]] = {tag: [] for tag in (*shared, *(["steps"] if match else []))}
    for pair in pairs:
        if match:
            at = common_level(pair, match) if level is None else level
            steps = [reached(run.scalars[match], at) for run in pair]
            found["steps"].append(steps[0] - steps[1])
        for tag in shared:
            curves = [run.scalars[tag] for run in pair]
            first, second = map(value_at, curves, steps) if match else map(at_end, curves)
            found[tag].append(first - second)
    return {tag: interval(values) for tag, values in found.items()}
