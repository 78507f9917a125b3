"""Log-probability against reward: Assumption 1 of the paper, as its Figures 3 and 9 look at it.

The assumption, with ψ(r) = E[log π(y|x) | R = r]: ψ does not increase for r ≤ F⁻¹(α), does not decrease for
r ≥ F⁻¹(β), and ψ(F⁻¹(α)), ψ(F⁻¹(β)) ≥ E[log π]. As in the paper, R is a question's mean reward over its responses,
log π their mean sequence-normalised log-probability, and the tails are the levels [0, 0.3] and [0.7, 1].
"""

from __future__ import annotations

import numpy as np

LOWER, UPPER = 0.3, 0.7
BINS = 10
SIGNIFICANT = 0.05


def logprob_by_reward(rewards, logprobs, *, permutations: int = 5000, seed: int = 0) -> dict:
    """Bins and tests of Assumption 1.

    Args:
        rewards: `[P]`, mean reward of each question.
        logprobs: `[P]`, mean sequence-normalised log-probability of its responses, nats a token.
        permutations: for the p-values.
        seed: draws the permutations.

    Returns:
        `bins`: questions by the quantile level of their reward (Figure 3), in tenths; questions of equal reward share
        one level, the middle of theirs. `bins_by_reward`: by the reward itself (Figure 9), in tenths of the range
        from the lowest of 0 and the rewards to the highest of 1 and the rewards. Bins without questions are left out;
        `se` is null with a single question. `lower_tail` and `upper_tail`, see `tail`. JSON-ready.
    """
    rewards, logprobs = np.asarray(rewards, dtype=float), np.asarray(logprobs, dtype=float)
    levels = (_ranks(rewards) - 0.5) / max(rewards.size, 1)
    low, high = (min(0.0, rewards.min(initial=0.0)), max(1.0, rewards.max(initial=1.0)))
    return {
        "questions": rewards.size,
        "bins": _bins(levels, rewards, logprobs, np.linspace(0, 1, BINS + 1)),
        "bins_by_reward": _bins(rewards, rewards, logprobs, np.linspace(low, high, BINS + 1)),
        "lower_tail": tail(rewards, logprobs, LOWER, falling=True, permutations=permutations, seed=seed),
        "upper_tail": tail(rewards, logprobs, UPPER, falling=False, permutations=permutations, seed=seed),
    }


def tail(rewards, logprobs, level: float, *, falling: bool, permutations: int = 5000, seed: int = 0) -> dict:
    """Is ψ monotone in one tail, and at least average at the tail's edge?

    Spearman's rank correlation of reward and log-probability over the tail's questions, and one-sided permutation
    p-values: `p_monotone` for a correlation as assumed (small: the trend is there), `p_against` for the opposite one.

    Args:
        rewards, logprobs: `[P]`, of all questions.
        level: the tail is rewards ≤ F⁻¹(level) with `falling`, else rewards ≥ F⁻¹(level).

    Returns:
        `verdict`: `holds` or `violated` where a p-value is under 0.05, `undecided` where none is, `untestable` where
        the tail holds fewer than 5 questions or a single reward. `edge_minus_mean`: ψ(F⁻¹(level)) less the mean over
        all questions, which Assumption 1 wants ≥ 0, and its standard error. Null where a number can't be known.
    """
    if not rewards.size:
        return {"level": level, "questions": 0, "verdict": "untestable"}
    edge = float(np.quantile(rewards, level, method="inverted_cdf"))
    inside = rewards <= edge if falling else rewards >= edge
    at_edge, mean = logprobs[rewards == edge], float(logprobs.mean())
    # What each question adds to the error of the difference; the edge's questions are a part of all.
    influence = (rewards == edge) * (logprobs - at_edge.mean()) / at_edge.size - (logprobs - mean) / rewards.size
    result = {
        "level": level,
        "edge_reward": edge,
        "questions": int(inside.sum()),
        "distinct_rewards": len(np.unique(rewards[inside])),
        "spearman": None,
        "p_monotone": None,
        "p_against": None,
        "verdict": "untestable",
        "edge_minus_mean": float(at_edge.mean()) - mean,
        "edge_minus_mean_se": float(np.sqrt((influence**2).sum())) if at_edge.size > 1 else None,
    }
    x, y = _standard(_ranks(rewards[inside])), _standard(_ranks(logprobs[inside]))
    if x.size < 5 or not x.any() or not y.any():
        return result
    rho = float(x @ y)
    rng, drawn = np.random.default_rng(seed), []
    rows = max(1, 2**22 // x.size)
    for start in range(0, permutations, rows):
        shuffled = rng.permuted(np.tile(y, (min(rows, permutations - start), 1)), axis=1)
        drawn.append(shuffled @ x)
    drawn = np.concatenate(drawn)
    # 1e-12: a permutation of the same correlation counts, whatever its rounding.
    below = (1 + (drawn <= rho + 1e-12).sum()) / (permutations + 1)
    above = (1 + (drawn >= rho - 1e-12).sum()) / (permutations + 1)
    assumed, against = (below, above) if falling else (above, below)
    verdict = "holds" if assumed < SIGNIFICANT else "violated" if against < SIGNIFICANT else "undecided"
    return {**result, "spearman": rho, "p_monotone": float(assumed), "p_against": float(against), "verdict": verdict}


def _bins(place, rewards, logprobs, edges) -> list[dict]:
    which = np.clip(np.searchsorted(edges, place, side="right") - 1, 0, len(edges) - 2)
    bins = []
    for i in np.unique(which):
        inside = logprobs[which == i]
        error = float(inside.std(ddof=1) / np.sqrt(inside.size)) if inside.size > 1 else None
        bins.append(
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "questions": inside.size,
                "mean_reward": float(rewards[which == i].mean()),
                "mean_logprob": float(inside.mean()),
                "se": error,
            }
        )
    return bins


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def _standard(values: np.ndarray) -> np.ndarray:
    """Centred and of length 1, so that a product of two is their correlation; zeros if all are equal."""
    centred = values - values.mean() if values.size else values
    length = np.sqrt((centred**2).sum())
    return centred / length if length else np.zeros_like(centred)
