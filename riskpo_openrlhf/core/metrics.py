"""One step's numbers for the log (docs/metrics.md); all of them are finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from riskpo_openrlhf.core import risk
from riskpo_openrlhf.core.groups import extremes


def quantile_metrics(q: tuple[Tensor, Tensor], tracked: Sequence[float] | None, sample: Tensor) -> dict[str, float]:
    """Report the quantiles used, and the share of `sample [n]` under the tracked ones (else under those used)."""
    used = [values.double().mean().item() if values.numel() else 0.0 for values in q]
    coverage = [torch.count_nonzero(sample < value).item() / max(len(sample), 1) for value in tracked or used]
    names = ("q_alpha", "q_beta", "coverage_alpha", "coverage_beta")
    return dict(zip((f"riskpo/{name}" for name in names), (*used, *coverage), strict=True))


def score_metrics(sample: Tensor, alpha: float, beta: float, omega: float) -> dict[str, float]:
    """Compute Eq. 1 and Eq. 2, mean and std of scores `sample [n]`; the same for both profiles, to compare runs."""
    if not len(sample):
        return dict.fromkeys((f"riskpo/{n}" for n in "mvar rvar_lower rvar_middle score_mean score_std".split()), 0.0)
    sample = sample.sort().values
    return {
        "riskpo/mvar": risk.mvar(sample, alpha, beta, omega).item(),
        "riskpo/rvar_lower": risk.cvar(sample, alpha).item(),
        "riskpo/rvar_middle": risk.rvar(sample, alpha, beta).item(),
        "riskpo/score_mean": sample.mean().item(),
        "riskpo/score_std": sample.std(unbiased=False).item(),
    }


def region_metrics(scores: Tensor, q_alpha: Tensor, q_beta: Tensor) -> dict[str, float]:
    """Compute the shares of all scores `[n_bundles]` up to q_alpha, between, and above q_beta."""
    n = max(len(scores), 1)
    lower, upper = torch.count_nonzero(scores <= q_alpha).item(), torch.count_nonzero(scores > q_beta).item()
    return {
        "riskpo/share_lower": lower / n,
        "riskpo/share_middle": (len(scores) - lower - upper) / n,
        "riskpo/share_upper": upper / n,
    }


def advantage_metrics(A: Tensor, valid: Tensor) -> dict[str, float]:
    """Compute mean, std, largest size and share of zeros of `A [P, G]`, over responses with a verdict."""
    n = max(torch.count_nonzero(valid).item(), 1)
    mean = A.sum(dtype=torch.float64) / n  # A is 0 without a verdict
    squares = torch.where(valid, A.double() - mean, 0).square()
    return {
        "riskpo/advantage_mean": mean.item(),
        "riskpo/advantage_std": (squares.sum() / n).sqrt().item(),
        "riskpo/advantage_abs_max": A.abs().max().item(),
        "riskpo/advantage_zero_share": torch.count_nonzero((A == 0) & valid).item() / n,
    }


def signal_metrics(rewards: Tensor, valid: Tensor) -> dict[str, float]:
    """Compute the shares of prompts whose `rewards [P, G]` are all alike, and of responses without a verdict."""
    lowest, highest = (values.squeeze(1) for values in extremes(rewards, valid))
    equal = lowest == highest  # never for a prompt without any verdict
    prompts = max(torch.count_nonzero(lowest <= highest).item(), 1)
    n_valid = torch.count_nonzero(valid).item()
    return {
        "signal/prompts_all_wrong": torch.count_nonzero(equal & (highest <= 0)).item() / prompts,
        "signal/prompts_all_right": torch.count_nonzero(equal & (highest > 0)).item() / prompts,
        "signal/grpo_zero_share": torch.count_nonzero(valid[equal]).item() / max(n_valid, 1),
        "verifier/error_share": 1 - n_valid / valid.numel(),
    }
