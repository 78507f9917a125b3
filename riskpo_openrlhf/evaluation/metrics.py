"""The metrics of one data source: the same numbers in training and in an evaluation on its own."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from riskpo_openrlhf.evaluation.passk import pass_at_k_summary

SHOWN_KS = (1, 8, 16)  # values of k in tables and pictures, beside the largest


def source_metrics(correct, tokens, truncated) -> dict[str, float]:
    """Compute the metrics of one data source.

    Args:
        correct: `[P, n]`, 1 right, 0 wrong, NaN without a verdict.
        tokens: `[P, n]`, length of each response; NaN where there is none.
        truncated: `[P, n]`, 1 where the token limit cut a response.

    Returns:
        `pass@k` for k = 1, 2, 4 … n, and `avg@n`. Each has its standard error over problems beside it, `…_se`. A k is
        left out if no problem has k verdicts. `response_length`, `truncated` and `verifier_error` (the share without
        a verdict) are means over responses.
    """
    correct, tokens, truncated = (np.asarray(values, dtype=float) for values in (correct, tokens, truncated))
    n = correct.shape[1]
    most = int(np.isfinite(correct).sum(axis=1).max())
    ks = sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n})
    metrics = {}
    for k, (mean, error) in pass_at_k_summary(correct, [k for k in ks if k <= most]).items():
        metrics[f"pass@{k}"], metrics[f"pass@{k}_se"] = mean, error
    if most:  # the mean over a problem's responses, then over problems: Pass@1 by its other name
        metrics[f"avg@{n}"], metrics[f"avg@{n}_se"] = metrics["pass@1"], metrics["pass@1_se"]
    there = np.isfinite(tokens)
    metrics["response_length"] = float(tokens[there].mean())
    metrics["truncated"] = float(truncated[there].mean())
    metrics["verifier_error"] = float(np.isnan(correct[there]).mean())
    return metrics


def ks_of(metrics: Iterable[str]) -> list[int]:
    """List the k of every Pass@k among names of metrics, in order."""
    return sorted(int(name[5:]) for name in metrics if name.startswith("pass@") and name[5:].isdigit())


def correctness(score: np.ndarray) -> np.ndarray:
    """Turn scores into 1 (above 0), 0 (not above 0) and NaN (no verdict)."""
    return np.where(np.isnan(score), np.nan, score > 0)
