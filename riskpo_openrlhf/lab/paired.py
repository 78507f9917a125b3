"""Two methods on the same seeds: differences at equal steps and at matched Pass@1, with intervals.

At equal steps a method that has learned less looks as if it explored more; where both have the same Pass@1 that is
told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt
from typing import NamedTuple

import numpy as np

from riskpo_openrlhf.analysis.runs import Curve, Run

# two-sided 95 % quantiles of Student's t by degrees of freedom; from 30 on the normal's is close
_T = (nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
      2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)  # fmt: skip


class Interval(NamedTuple):
    """A mean over `n` seeds with half the width of its 95 % interval; NaN with one seed."""

    mean: float
    half: float
    n: int

    def __str__(self) -> str:
        return self.text(3)

    def text(self, digits: int) -> str:
        half = f" ± {self.half:.{digits}f}" if self.n > 1 else " (one seed)"
        return f"{self.mean:+.{digits}f}{half}" if self.n else ""


def interval(values: Sequence[float]) -> Interval:
    """Student's interval of the finite values. All NaN without any."""
    x = np.asarray([value for value in values if np.isfinite(value)], float)
    if len(x) < 2:
        return Interval(float(x[0]) if len(x) else nan, nan, len(x))
    quantile = _T[len(x) - 1] if len(x) <= len(_T) else 1.96
    return Interval(float(x.mean()), float(quantile * x.std(ddof=1) / sqrt(len(x))), len(x))


def rising(values: np.ndarray) -> np.ndarray:
    """The values [m] of the rising curve that is nearest in squares: neighbours that fall share their mean.

    A learning curve's noise would put its highest value, and the step at which it is first at a level, too early.
    """
    blocks: list[tuple[float, int]] = []  # mean, number of values
    for value in values:
        blocks.append((float(value), 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (m2, n2), (m1, n1) = blocks.pop(), blocks.pop()
            blocks.append(((m1 * n1 + m2 * n2) / (n1 + n2), n1 + n2))
    return np.repeat(*map(np.array, zip(*blocks, strict=True)))


def reached(curve: Curve, level: float) -> float:
    """The step at which the `rising` curve first is at `level`, straight lines between its points; NaN if never."""
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
    """The mean of the last two values: of evaluations, one is too noisy."""
    return float(curve.values[-2:].mean())


def value_at(curve: Curve, step: float) -> float:
    """The curve at a step; NaN at no step. Each value is first averaged with its neighbours, since one is too noisy.

    Straight lines between the points, level outside of them.
    """
    if not np.isfinite(step):
        return nan
    means = [curve.values[max(0, i - 1) : i + 2].mean() for i in range(len(curve.values))]
    return float(np.interp(step, curve.steps, means))


def common_level(pair: tuple[Run, Run], tag: str) -> float:
    """The largest value of `tag` that both `rising` curves reach."""
    return min(float(rising(run.scalars[tag].values)[-1]) for run in pair)


def differences(
    pairs: Sequence[tuple[Run, Run]], tags: Sequence[str], match: str | None = None, level: float | None = None
) -> dict[str, Interval]:
    """First less second run of each pair (same seed), for every tag that all runs have.

    With `match` each run is read at the step at which that tag has `reached` the `level` (without one, the pair's
    `common_level`), and a pair of which one never does is left out; `steps` is the difference of these steps. Without
    `match`, at their ends (`at_end`).
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
