"""Section 5 and Appendix A of the paper as numbers: what an advantage does to the entropy, and when MVaR's differs.

Lemma 1, Proposition 1 and Theorems 2 and 3 by enumeration of discrete distributions, fine enough to stand for a
continuous reward; and what is left of them for sums of binary rewards, where bundles are drawn at random.
"""

from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.core.risk import mvar_advantage

SEEDS = st.integers(0, 2**32 - 1)


def entropy(logits: np.ndarray) -> float:
    log_p = logits - np.logaddexp.reduce(logits)
    return -(np.exp(log_p) * log_p).sum()


def covariance(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    return (p * x * y).sum() - (p * x).sum() * (p * y).sum()


def advantage(rewards: np.ndarray, q_alpha: float, q_beta: float, omega: float) -> np.ndarray:
    return mvar_advantage(torch.from_numpy(rewards), q_alpha, q_beta, omega).numpy()


@given(SEEDS)
def test_proposition_1_the_entropy_changes_by_minus_the_covariance_up_to_second_order(seed):
    rng = np.random.default_rng(seed)
    logits, A = rng.normal(size=30), rng.normal(size=30)
    log_p = logits - np.logaddexp.reduce(logits)
    slope = -covariance(np.exp(log_p), log_p, A)
    rest = [abs(entropy(logits + eta * A) - entropy(logits) - eta * slope) for eta in (2e-3, 1e-3)]
    assert rest[1] <= 20 * 1e-6
    assert rest[1] <= 0.3 * rest[0] or rest[0] < 1e-9  # half the step, a quarter of the rest


@given(SEEDS)
def test_lemma_1_a_covariance_is_the_integral_of_those_of_the_indicators(seed):
    rng = np.random.default_rng(seed)
    p, x, y = rng.dirichlet(np.ones(12)), rng.normal(size=12), rng.normal(size=12)
    # Cov(1{X > t}, Y) is constant between two neighbouring values of X, and 0 outside of them.
    values = np.sort(x)
    pieces = [(b - a) * covariance(p, x > a, y) for a, b in zip(values[:-1], values[1:], strict=True)]
    assert covariance(p, x, y) == pytest.approx(sum(pieces), abs=1e-12)


def under_assumption_1(rng, alpha: float, beta: float, n: int = 400):
    """(rewards, ascending; psi, the log-probability given the reward; both quantiles), n outputs of equal weight."""
    rewards = np.sort(rng.gamma(rng.uniform(0.5, 5), size=n))
    low, high = int(alpha * n), int(beta * n)
    edge, tails = -4.0, rng.exponential(rng.uniform(0, 0.02), size=n)
    psi = np.full(n, edge)
    psi[:low] += np.cumsum(tails[:low])[::-1]  # falls towards q_alpha
    psi[high:] += np.cumsum(tails[high:])  # rises from q_beta
    # Between the quantiles anything that leaves the mean at or under the edges; about half of it above them.
    middle = rng.normal(size=high - low - 2)
    psi[low + 1 : high - 1] += middle - middle.mean() - (psi - edge).sum() * rng.uniform(1.01, 2) / len(middle)
    assert min(psi[low], psi[high - 1]) >= psi.mean() - 1e-9
    return rewards, psi, rewards[low], rewards[high - 1]


@settings(max_examples=200)
@given(SEEDS, st.sampled_from([(0.2, 0.8), (0.4, 0.9), (0.1, 0.6)]), st.sampled_from([0.0, 0.5, 2.0]))
def test_theorem_2_under_assumption_1_mvar_is_less_correlated_with_the_log_probability_than_the_mean(
    seed, levels, omega
):
    rewards, psi, q_alpha, q_beta = under_assumption_1(np.random.default_rng(seed), *levels)
    p = np.full(len(rewards), 1 / len(rewards))
    averse = covariance(p, psi, advantage(rewards, q_alpha, q_beta, omega))
    assert averse <= covariance(p, psi, rewards - rewards.mean()) + 1e-9


def transforms(rng, rewards: np.ndarray, steeper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(g_1, g_2) of the rewards: both never decrease, and g_1 rises by more where `steeper`, by as much elsewhere."""
    rise = rng.exponential(size=len(rewards) - 1) * np.diff(rewards)
    more = rng.exponential(size=len(rewards) - 1) * np.diff(rewards)
    g_2 = np.concatenate([[0], np.cumsum(rise)])
    return g_2 + np.concatenate([[0], np.cumsum(more * steeper[1:])]), g_2


@settings(max_examples=200)
@given(SEEDS, st.sampled_from([(0.2, 0.8), (0.4, 0.9), (0.1, 0.6)]))
def test_theorem_3_more_weight_on_the_upper_tail_means_more_covariance_with_the_log_probability(seed, levels):
    """The paper prints Cov(SF, g_2) >= Cov(SF, g_1) for g_1' >= g_2' above q_beta; its proof gives <=, and so do we.

    The proof's integral over k(t) (g_2' - g_1') has k >= 0 and g_2' - g_1' <= 0, so it is <= 0. That is also what
    section 5 says in words: weight on high rewards amplifies the covariance, and entropy falls faster.
    """
    rng = np.random.default_rng(seed)
    rewards, psi, _, q_beta = under_assumption_1(rng, *levels)
    p = np.full(len(rewards), 1 / len(rewards))
    g_1, g_2 = transforms(rng, rewards, rewards > q_beta)
    assert (g_1 == g_2)[rewards <= q_beta].all()
    assert covariance(p, psi, g_1) >= covariance(p, psi, g_2) - 1e-9


@settings(max_examples=200)
@given(SEEDS, st.sampled_from([(0.2, 0.8), (0.4, 0.9), (0.1, 0.6)]))
def test_theorem_3_mirrored_more_weight_on_the_lower_tail_means_less_covariance(seed, levels):
    rng = np.random.default_rng(seed)
    rewards, psi, q_alpha, _ = under_assumption_1(rng, *levels)
    p = np.full(len(rewards), 1 / len(rewards))
    g_1, g_2 = transforms(rng, rewards, rewards <= q_alpha)
    g_1 = g_1 - g_1[-1] + g_2[-1]  # equal above q_alpha
    assert np.allclose(g_1[rewards >= q_alpha], g_2[rewards >= q_alpha])
    assert covariance(p, psi, g_1) <= covariance(p, psi, g_2) + 1e-9


def test_theorem_3_as_printed_is_false_under_assumption_1():
    rewards, psi, _, q_beta = under_assumption_1(np.random.default_rng(0), 0.2, 0.8)
    p = np.full(len(rewards), 1 / len(rewards))
    g_2, g_1 = rewards, rewards + np.clip(rewards - q_beta, 0, None)  # g_1' = 2 and g_2' = 1 above q_beta
    assert covariance(p, psi, g_1) - covariance(p, psi, g_2) > 0.01


def test_without_assumption_1_theorem_2_can_fail():
    rewards = np.linspace(0, 1, 100)
    psi = -2 - rewards  # the better the answer, the less likely: falls in the upper tail
    p = np.full(100, 0.01)
    averse = covariance(p, psi, advantage(rewards, rewards[20], rewards[79], 0.0))
    assert averse > covariance(p, psi, rewards - 0.5)


def weight(others: np.ndarray, q_alpha: float, q_beta: float, omega: float) -> float:
    """What a right answer adds to the expected advantage, where `others` [B] is the law of the other members' sum."""
    A = advantage(np.arange(len(others) + 1, dtype=float), q_alpha, q_beta, omega)
    return float((others * np.diff(A)).sum())


def binomial(n: int, p: float) -> np.ndarray:
    return np.array([comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


LEVELS = dict(q_alpha=1.0, q_beta=4.0, omega=0.5)
PASS_RATES = np.array([0.05, 0.2, 0.5, 0.8, 0.95])


def test_in_random_bundles_of_binary_rewards_every_question_has_the_same_weight_as_under_the_mean():
    """The others of a bundle are drawn from all questions, so their sum is Binomial(B-1, mean pass rate) for everyone.

    A question's expected advantage is then w (r - p) with one w for all: the mean objective's, and so is the
    covariance with the log-probability, and the change of entropy. Theorem 2's gap is closed.
    """
    drawn = binomial(1, PASS_RATES.mean())
    others = np.array([1.0])
    for _ in range(4):
        others = np.convolve(others, drawn)
    assert others == pytest.approx(binomial(4, PASS_RATES.mean()))
    w = weight(others, **LEVELS)
    rng = np.random.default_rng(0)
    for p in PASS_RATES:
        # outputs of one question: some are right, their probabilities sum to its pass rate
        right, wrong = rng.dirichlet(np.ones(5)) * p, rng.dirichlet(np.ones(7)) * (1 - p)
        probabilities, r = np.concatenate([right, wrong]), np.repeat([1.0, 0.0], [5, 7])
        A = advantage(np.arange(6.0), **LEVELS)
        expected = np.array([(others * A[int(x) : int(x) + 5]).sum() for x in r])
        ours = covariance(probabilities, np.log(probabilities), expected)
        assert ours == pytest.approx(w * covariance(probabilities, np.log(probabilities), r - p))


def test_bundles_of_like_difficulty_weigh_hard_questions_more_and_solved_ones_not_at_all():
    weights = [weight(binomial(4, p), **LEVELS) for p in PASS_RATES]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 1.25 > 1.0 > weights[-2] > weights[-1]
    assert weights[-1] < 0.25
