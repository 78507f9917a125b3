from itertools import combinations
from math import comb

import numpy as np
import pytest

from riskpo_openrlhf.evaluation.passk import pass_at_k, pass_at_k_summary


def test_pass_at_k_is_one_minus_the_share_of_draws_without_a_right_answer():
    for n in range(1, 13):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


def test_pass_at_k_agrees_with_enumerating_every_subset():
    right = [1, 0, 0, 1, 0, 0]
    subsets = list(combinations(right, 3))
    assert pass_at_k(6, 2, 3) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_unbiased_for_independent_responses():
    p, k, n = 0.15, 4, 10
    c = np.random.default_rng(0).binomial(n, p, size=200_000)
    assert pass_at_k(n, c, k).mean() == pytest.approx(1 - (1 - p) ** k, abs=0.003)


def test_pass_at_k_is_exactly_0_or_1_at_the_edges_and_stable_for_large_n():
    assert pass_at_k(16, 0, 16) == 0.0
    assert pass_at_k(16, 16, 1) == 1.0
    assert pass_at_k(16, 1, 16) == 1.0
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5, abs=1e-9)
    assert 0 <= pass_at_k(10_000, 9_000, 1_000) <= 1


def test_pass_at_k_takes_arrays_and_broadcasts_them():
    values = pass_at_k(8, np.array([[0], [3]]), np.array([1, 2, 8]))
    assert values.shape == (2, 3)
    assert values[1] == pytest.approx([3 / 8, 1 - comb(5, 2) / comb(8, 2), 1.0])
    assert values[0] == pytest.approx([0, 0, 0])
    assert isinstance(float(pass_at_k(4, 2, 1)), float)


@pytest.mark.parametrize(
    ("n", "c", "k", "says"),
    [(4, 2, 5, "k can't"), (4, 5, 1, "c, the right"), (4, 1, 0, "at least 1"), (4, -1, 1, "at least 0"),
     (4, 1.5, 1, "whole"), (np.array([8, 4]), 1, 8, "n=4, c=1, k=8"), (4, float("nan"), 1, "whole")],
)  # fmt: skip
def test_impossible_counts_are_refused_by_name(n, c, k, says):
    with pytest.raises(ValueError, match=says):
        pass_at_k(n, c, k)


def test_the_summary_is_the_mean_over_problems_and_its_standard_error():
    correct = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
    summary = pass_at_k_summary(correct, (1, 2))
    assert list(summary) == [1, 2]
    assert summary[1] == pytest.approx((0.5, np.std([0.5, 0, 1], ddof=1) / np.sqrt(3)))
    assert summary[2][0] == pytest.approx((5 / 6 + 0 + 1) / 3)


def test_a_missing_verdict_is_left_out_and_not_taken_for_a_wrong_answer():
    nan = float("nan")
    summary = pass_at_k_summary([[1, 1, nan], [0, 1, 0]], (1, 3))
    assert summary[1][0] == pytest.approx((1 + 1 / 3) / 2)
    assert summary[3][0] == 1.0  # the first problem has two verdicts only


def test_the_summary_refuses_partial_rewards_wrong_shapes_and_too_large_k():
    with pytest.raises(ValueError, match="0 and 1 only"):
        pass_at_k_summary([[0.5, 1]], (1,))
    with pytest.raises(ValueError, match="shape"):
        pass_at_k_summary([1, 0], (1,))
    with pytest.raises(ValueError, match="not empty"):
        pass_at_k_summary(np.zeros((0, 4)), (1,))
    with pytest.raises(ValueError, match="at most 2"):
        pass_at_k_summary([[1, 0]], (4,))
