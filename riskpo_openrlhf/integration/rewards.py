"""Read what a reward function, a reward server or an agent returns, in one place: shapes, types, logs."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import isfinite, isinf, nan
from numbers import Real

import torch

from riskpo_openrlhf.console import say

EXPECTED = (
    "expected a number, or a dictionary with `scores` or `rewards` (a number) and, if wanted, `extra_logs` (a "
    "dictionary of numbers)"
)
SCORES, REWARDS = ("scores", "score"), ("rewards", "reward")
# Names that a metric of OpenRLHF or of this package has: a log of that name would replace it.
TAKEN = frozenset(
    "reward score response_clip_ratio response_length total_length truncated return kl logprobs_diff group_reward_std "
    "policy_loss critic_loss entropy_loss entropy clip/low clip/high ppo_clip_ratio ppo_kl vllm_kl is_filter_ratio "
    "actor_lr actor_grad_norm critic_lr critic_grad_norm values generated_samples dynamic_filtering_pass_rate "
    "_num_samples _num_action_tokens".split()
)
_told: set[tuple[str, str]] = set()


class RewardError(RuntimeError):
    """A response has no verdict; the message says why."""


def number(value) -> float | None:
    """Read a reward: a number, or a list or tensor of one. Return None if it is missing, not finite or not one."""
    found = _one_number(value)
    return found if found is not None and isfinite(found) else None


def _one_number(value) -> float | None:
    """Read a number, or a list, array or tensor of one; NaN and infinity too. Return None for anything else."""
    try:
        if isinstance(value, (Real, Decimal)):
            return float(value)
        return float(torch.as_tensor(value).item())
    except (TypeError, ValueError, RuntimeError, OverflowError, AttributeError):
        return None


def read_reward(value, source: str) -> dict:
    """Read what `source` returned for one response, as OpenRLHF wants it.

    Takes every shape with one clear meaning: a number (Python's, numpy's, a tensor), a list or array of one, a
    dictionary with `scores`, `score`, `rewards` or `reward`, a list of one such dictionary.

    Returns:
        `rewards` and `scores`, numbers (each stands for the other if only one came; NaN is no verdict), `extra_logs`,
        and `error` if a server sent one.

    Raises:
        RewardError: the value has another type or shape, or is infinite. The message names what came.
    """
    given = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
    logs, error = None, None
    if isinstance(given, Mapping):
        logs, error = given.get("extra_logs"), given.get("error")
        score, reward = _first(given, SCORES), _first(given, REWARDS)
        if score is None and reward is None and isinstance(error, str):
            raise RewardError(f"{source} reports: {error}")
    else:
        score = reward = given
    found = [_one_number(reward if score is None else score), _one_number(score if reward is None else reward)]
    if None in found:
        raise RewardError(f"{source} returned {describe(value)} for one response; {EXPECTED}")
    if any(map(isinf, found)):
        raise RewardError(f"{source} returned an infinite reward, {describe(value)}; expected a finite number")
    answer = {"scores": found[0], "rewards": found[1], "extra_logs": clean_logs(logs, source)}
    return {**answer, "error": error} if isinstance(error, str) else answer


def _first(given: Mapping, names: tuple[str, ...]):
    return next((given[name] for name in names if given.get(name) is not None), None)


def read_step(value, source: str) -> dict:
    """Read what an agent's `step` returned, as OpenRLHF's executor wants it. Raises `RewardError`."""
    if not isinstance(value, Mapping):
        raise RewardError(f"{source} returned {describe(value)}; expected a dictionary with `rewards` and `done`")
    if missing := [name for name in ("rewards", "done") if name not in value]:
        raise RewardError(f"{source} returned {describe(value)}; it lacks `{missing[0]}`")
    feedback = value.get("environment_feedback") or ""
    if not isinstance(feedback, str):
        raise RewardError(f"{source} returned {describe(feedback)} as environment_feedback; expected a text")
    read = read_reward({name: value.get(name) for name in ("rewards", "scores", "extra_logs")}, source)
    # OpenRLHF sums the rewards of the steps, and takes the sum for the score if there is none.
    step = {**value, "rewards": torch.tensor(read["rewards"], dtype=torch.float64), "environment_feedback": feedback}
    step["extra_logs"] = read["extra_logs"]
    if value.get("scores") is None:
        step.pop("scores", None)
    else:
        step["scores"] = read["scores"]
    return step


def no_verdict_step() -> dict:
    """Make the last step of an agent that failed: the response has no verdict."""
    reward = torch.tensor(nan, dtype=torch.float64)
    return {"rewards": reward, "scores": nan, "environment_feedback": "", "done": True, "extra_logs": {}}


def clean_logs(logs, source: str) -> dict[str, float]:
    """Turn `extra_logs` of any shape into numbers by name. Nested names are joined by `/`.

    What is no number is left out, and one line for each name says so. A name that another metric has is logged as
    `extra_logs/NAME`.
    """
    if logs is None:
        return {}
    if not isinstance(logs, Mapping):
        _tell_once(
            source, "", f"extra_logs of {source} is {describe(logs)}, left out: expected a dictionary of numbers"
        )
        return {}
    clean = {}
    for name, value in _flat(logs):
        found = number(value)
        if found is not None:
            clean[f"extra_logs/{name}" if name in TAKEN else name] = found
        elif value is not None:
            what = f"{describe(value)}, left out: expected a finite number"
            _tell_once(source, name, f"extra_logs[{name!r}] of {source} is {what}")
    return clean


def _flat(logs: Mapping, prefix: str = ""):
    for key, value in logs.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _tell_once(source: str, name: str, message: str) -> None:
    if (source, name) not in _told:
        _told.add((source, name))
        say(f"note: {message}")


def describe(value) -> str:
    """Name a value's type and shape for an error message: `list of 2`, `Tensor of shape (3,)`, `str 'yes'`."""
    kind = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return f"{kind} with {', '.join(map(str, list(value)[:8])) or 'no keys'}" + _first_bad(value)
    if isinstance(value, (list, tuple)):
        inner = f" ({', '.join(sorted({type(one).__name__ for one in value}))})" if value else ""
        return f"{kind} of {len(value)}{inner}"
    if hasattr(value, "shape"):
        return f"{kind} of shape {tuple(value.shape)}"
    return f"{kind} {repr(value)[:80]}"


def _first_bad(value: Mapping) -> str:
    """Say what stands under the first name of a reward that is no finite number."""
    for name in (*SCORES, *REWARDS):
        if value.get(name) is not None and number(value[name]) is None:
            return f" ({name}: {describe(value[name])})"
    return ""
