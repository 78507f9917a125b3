"""Log-probability against reward: Assumption 1 of the paper, tested as its Figures 3 and 9 look at it.

The assumption, with ψ(r) = E[log π(y|x) | R = r]: ψ does not increase for r ≤ F⁻¹(α), does not decrease for
r ≥ F⁻¹(β), and ψ(F⁻¹(α)), ψ(F⁻¹(β)) ≥ E[log π]. As in the paper, R is a question's mean reward over its responses,
log π their mean sequence-normalised log-probability, and the tails are the levels [0, 0.3] and [0.7, 1].
"""

from __future__ import annotations

import numpy as np
from scipy import stats

LOWER, UPPER = 0.3, 0.7
BINS = 10
SIGNIFICANT = 0.05
FEWEST = 5  # questions in a tail under which nothing is tested


def logprob_by_reward(rewards, logprobs) -> dict:
    """Compute the bins and the tests of Assumption 1.

    Args:
        rewards: `[P]`, mean reward of each question.
        logprobs: `[P]`, mean sequence-normalised log-probability of its responses, nats a token.

    Returns:
        A dictionary that JSON can hold. `bins`: questions by the quantile level of their reward (Figure 3), in tenths;
        questions of equal reward share one level, the middle of theirs. `bins_by_reward`: by the reward itself (Figure
        9), in tenths of the range from the lowest of 0 and the rewards to the highest of 1 and the rewards. Bins
        without questions are left out; `se` is null with a single question. `lower_tail`, `upper_tail`: see `tail`.
    """
    rewards, logprobs = np.asarray(rewards, dtype=float), np.asarray(logprobs, dtype=float)
    levels = (stats.rankdata(rewards) - 0.5) / max(rewards.size, 1)
    tenths = np.arange(BINS + 1) / BINS  # each the number that its decimal is read as; `linspace` gives others
    low, high = (min(0.0, rewards.min(initial=0.0)), max(1.0, rewards.max(initial=1.0)))
    return {
        "questions": rewards.size,
        "bins": _bins(levels, rewards, logprobs, tenths),
        "bins_by_reward": _bins(rewards, rewards, logprobs, low + (high - low) * tenths),
        "lower_tail": tail(rewards, logprobs, LOWER, falling=True),
        "upper_tail": tail(rewards, logprobs, UPPER, falling=False),
    }


def tail(rewards, logprobs, level: float, *, falling: bool, permutations: int = 5000, seed: int = 0) -> dict:
    """Test whether ψ is monotone in one tail, and at least average at the tail's edge.

    The statistic is Spearman's rank correlation of reward and log-probability over the tail's questions. Two one-sided
    permutation tests: `p_monotone` is small if the assumed trend is there, `p_against` if the opposite one is.

    Args:
        rewards, logprobs: `[P]`, of all questions.
        level: the tail is rewards ≤ F⁻¹(level) with `falling`, else rewards ≥ F⁻¹(level).

    Returns:
        `verdict`: `holds` or `violated` if a p-value is under 0.05, else `undecided`; `untestable` if the tail holds
        fewer than 5 questions or a single reward. `edge_minus_mean`: ψ(F⁻¹(level)) less the mean over all questions,
        which Assumption 1 wants ≥ 0, with its standard error `edge_minus_mean_se`. Null where a number can't be known.
    """
    if not rewards.size:
        return {"level": level, "questions": 0, "verdict": "untestable"}
    edge = float(np.quantile(rewards, level, method="inverted_cdf"))
    inside = rewards <= edge if falling else rewards >= edge
    at_edge, mean = logprobs[rewards == edge], float(logprobs.mean())
    # What each question adds to the error of the difference; the edge's questions are a part of all.
    influence = (rewards == edge) * (logprobs - at_edge.mean()) / at_edge.size - (logprobs - mean) / rewards.size
    x, y = stats.rankdata(rewards[inside]), stats.rankdata(logprobs[inside])
    result = {
        "level": level,
        "edge_reward": edge,
        "questions": int(inside.sum()),
        "distinct_rewards": len(np.unique(x)),
        "spearman": None,
        "p_monotone": None,
        "p_against": None,
        "verdict": "untestable",
        "edge_minus_mean": float(at_edge.mean()) - mean,
        "edge_minus_mean_se": float(np.sqrt((influence**2).sum())) if at_edge.size > 1 else None,
    }
    if x.size < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return result

    def p_value(alternative: str) -> float:
        """Test one side. The sum of products of ranks orders permutations as Spearman's correlation does."""
        test = stats.permutation_test(
            (y,), lambda ranks, axis: (ranks * x).sum(axis=axis), permutation_type="pairings", vectorized=True,
            n_resamples=permutations, batch=max(1, 2**20 // x.size), alternative=alternative, rng=seed,
        )  # fmt: skip
        return float(test.pvalue)

    assumed, against = map(p_value, ("less", "greater") if falling else ("greater", "less"))
    verdict = "holds" if assumed < SIGNIFICANT else "violated" if against < SIGNIFICANT else "undecided"
    rho = float(stats.pearsonr(x, y).statistic)
    return {**result, "spearman": rho, "p_monotone": assumed, "p_against": against, "verdict": verdict}


def _bins(place, rewards, logprobs, edges) -> list[dict]:
    # A mean of scores may lie under its edge by an error of rounding.
    which = np.clip(np.searchsorted(edges.round(9), place.round(9), side="right") - 1, 0, len(edges) - 2)
    bins = []
    for i in np.unique(which):
        inside = logprobs[which == i]
        bins.append(
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "questions": inside.size,
                "mean_reward": float(rewards[which == i].mean()),
                "mean_logprob": float(inside.mean()),
                "se": float(stats.sem(inside)) if inside.size > 1 else None,
            }
        )
    return bins
