"""Check a run for warnings: each is a number of its metrics, a threshold and a cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot

import numpy as np

from riskpo_openrlhf.analysis.runs import Run, eval_tag

WINDOW = 20  # steps that "the last steps" are; half the run if it is shorter than two windows
FIRST = 5  # steps that "the first steps" are
FEW = 10  # steps before a trend is judged
ENTROPY_LEFT = 0.2
LENGTH_GROWTH = 1.5
TRUNCATED = 0.1
OFF_LEVEL = 0.1
NO_SIGNAL = 0.8
HUGE_ADVANTAGE = 50.0
REWARD_LOSS = 0.1
ERRORS = 3  # standard errors (SE) that the reward must have fallen by, too

FINE, WARNING, UNKNOWN = "fine", "warning", "unknown"


@dataclass(frozen=True)
class Check:
    """What was checked, the number found, the threshold, and the key of `cures.CURES`."""

    name: str
    state: str
    found: str
    limit: str
    cure: str


def check(run: Run, alpha: float, beta: float) -> list[Check]:
    """Check a run whose quantile levels are `alpha` and `beta`. A NaN among the values is a warning.

    The last steps are the last 20, or the last half of a run of fewer than 40.
    """
    share = "signal/grpo_zero_share"
    return [
        _training_steps(run),
        _check(run, "Optimizer steps", "update/steps", 1, _over_zero(np.sum), "0 in the whole run", "trained"),
        _check(run, "Unchanged weights", "update/weights_changed", 1, _over_zero(lambda values: values[-1]),
               "0 at the end: the weights equal those at the start", "trained"),
        _check(run, "Gradient norm", "actor_grad_norm", 1, _over_zero(_last), "0, or not finite, in the last steps",
               "gradient"),
        _check(run, "Entropy collapse", "entropy", FEW, _entropy,
               f"last steps under {ENTROPY_LEFT:.0%} of the first {FIRST}", "entropy"),
        _check(run, "Rising length", "rollout/response_length_mean", FEW, _length,
               f"last steps over {LENGTH_GROWTH:g} times the first {FIRST}", "reward"),
        _check(run, "Truncated responses", "rollout/truncated_rate", 1, _over(TRUNCATED, _last),
               f"last steps over {TRUNCATED:g}", "truncated"),
        _check(run, "Falling reward", "rollout/reward_mean", 2 * FEW, _reward,
               f"last steps over {REWARD_LOSS:.0%} and {ERRORS} SE under the best as many",
               "reward"),
        _pass_at(run),
        *(
            _check(run, f"Tracker off its level: {name}", f"riskpo/coverage_{name}", WINDOW, _coverage(level),
                   f"mean of {WINDOW} steps over {OFF_LEVEL:g} off the level",
                   "coverage")
            for name, level in (("alpha", alpha), ("beta", beta))
        ),
        _check(run, "Prompts without signal", share, 1, _over(NO_SIGNAL, _last),
               f"last steps over {NO_SIGNAL:g}", "signal"),
        _check(run, "Huge advantages", "riskpo/advantage_abs_max", 1, _over(HUGE_ADVANTAGE, np.max),
               f"over {HUGE_ADVANTAGE:g} at any step", "advantage"),
        _check(run, "Verifier errors", "verifier/error_share", 1, _over(0, np.max), "over 0 at any step",
               "verifier"),
    ]  # fmt: skip


Judge = Callable[[np.ndarray], tuple[bool, str]]  # values [m] -> (fine, what was found)


def _check(run: Run, name: str, metric: str, needs: int, judge: Judge, limit: str, cure: str) -> Check:
    curve = run.scalars.get(f"train/{metric}")
    if curve is None:
        return Check(name, UNKNOWN, f"{metric} is not logged", limit, cure)
    if len(curve.values) < needs:
        return Check(name, UNKNOWN, f"{len(curve.values)} steps; {needs} are needed", limit, cure)
    well, found = judge(curve.values)
    return Check(name, FINE if well else WARNING, f"{metric} {found}", limit, cure)


def _steps(values: np.ndarray) -> int:
    return min(WINDOW, max(1, len(values) // 2))


def _last(values: np.ndarray) -> float:
    return values[-_steps(values) :].mean()


def _over(limit: float, statistic: Callable[[np.ndarray], float]) -> Judge:
    def judge(values):
        found = statistic(values)
        return found <= limit, f"{found:.3g}"

    return judge


def _over_zero(statistic: Callable[[np.ndarray], float]) -> Judge:
    def judge(values):
        found = statistic(values)
        return bool(0 < found < np.inf), f"{found:.3g}"

    return judge


def _training_steps(run: Run) -> Check:
    """Warn of a run that failed before its first step. One that only holds evaluations of steps is not judged."""
    steps = {int(step) for tag, curve in run.scalars.items() if tag.startswith("train/") for step in curve.steps}
    later = any(curve.steps[-1] > 0 for curve in run.scalars.values())
    state = FINE if steps else UNKNOWN if later else WARNING
    found = f"{len(steps)} are logged" if steps else "no training metric is logged" if later else "no step was made"
    return Check("Training steps", state, found, "no step", "trained")


def _entropy(values: np.ndarray) -> tuple[bool, str]:
    first, last = values[:FIRST].mean(), _last(values)
    return last >= ENTROPY_LEFT * first, f"{first:.3g} at first, {last:.3g} at last"


def _length(values: np.ndarray) -> tuple[bool, str]:
    first, last = values[:FIRST].mean(), _last(values)
    return last <= LENGTH_GROWTH * first, f"{first:.4g} at first, {last:.4g} at last"


def _coverage(level: float) -> Judge:
    def judge(values):
        mean = values[-WINDOW:].mean()
        return abs(mean - level) <= OFF_LEVEL, f"{mean:.3f} for a level of {level:g}"

    return judge


def _reward(values: np.ndarray) -> tuple[bool, str]:
    """Compare the last steps with the best window of as many: the drop must be large, and larger than the noise."""
    windows = np.lib.stride_tricks.sliding_window_view(values, _steps(values))
    means, errors = windows.mean(1), windows.std(1, ddof=1) / windows.shape[1] ** 0.5
    best = int(means.argmax())  # that of a NaN, if there is one
    drop = means[best] - means[-1]
    well = drop <= REWARD_LOSS * abs(means[best]) or drop <= ERRORS * hypot(errors[best], errors[-1])
    return well, f"{means[best]:.3f} at best, {means[-1]:.3f} at last"


def _pass_at(run: Run) -> Check:
    """Judge the Pass@k that has fallen most from the first to the last evaluation, relative to its 95 % interval."""
    limit = "from first to last by more than the 95 % interval of the difference"
    falls = []
    for source, k in run.evaluated():
        tag = eval_tag(source, k)
        values, halves = run.scalars[tag].values, run.halves(tag)
        half = hypot(halves[0], halves[-1])
        if len(values) > 1 and half > 0:
            text = f"{source} pass@{k} {values[0]:.3f} at first, {values[-1]:.3f} at last (difference ± {half:.3f})"
            falls.append(((values[0] - values[-1]) / half, text))
    if not falls:
        return Check("Falling Pass@k", UNKNOWN, "there are no two evaluations with standard errors", limit, "pass")
    fall, text = max(falls)
    return Check("Falling Pass@k", FINE if fall <= 1 else WARNING, text, limit, "pass")
