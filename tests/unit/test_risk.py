import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.core.risk import (
    cvar,
    g,
    mvar,
    mvar_advantage,
    risk_seeking_advantage,
    rvar,
    utility,
)

numbers = st.floats(-10, 10, allow_subnormal=False)
samples = st.lists(numbers, min_size=1, max_size=12)
levels = st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)).filter(lambda ab: ab[1] - ab[0] > 1e-3)


def plus(z):
    return max(z, 0.0)


def integral_of_the_quantile_function(sample, alpha, beta):
    """By hand: the k-th of n ordered values holds the levels (k/n, (k+1)/n]."""
    n, total = len(sample), 0.0
    for k, value in enumerate(sorted(sample)):
        total += value * plus(min((k + 1) / n, beta) - max(k / n, alpha))
    return total


@given(samples, levels)
def test_rvar_is_the_integral_of_the_quantile_function_over_its_window(sample, window):
    alpha, beta = window
    expected = integral_of_the_quantile_function(sample, alpha, beta) / (beta - alpha)
    assert rvar(torch.tensor(sample), alpha, beta).item() == pytest.approx(expected, abs=1e-4)


def test_rvar_takes_an_order_statistic_by_the_part_inside_the_window():
    # Quantile function of {1, 2, 3, 4}: 1 on (0, .25], 2 on (.25, .5], ...; over [.2, .6] it is .05 + .5 + .3.
    assert rvar(torch.tensor([4.0, 1.0, 3.0, 2.0]), 0.2, 0.6).item() == pytest.approx((0.05 + 0.5 + 0.3) / 0.4)


@given(samples)
def test_rvar_over_all_levels_is_the_mean(sample):
    assert rvar(torch.tensor(sample), 0, 1).item() == pytest.approx(sum(sample) / len(sample), abs=1e-4)


@given(samples, st.floats(0.01, 1))
def test_cvar_is_rvar_of_the_lower_tail_and_never_above_the_mean(sample, alpha):
    x = torch.tensor(sample, dtype=torch.float64)
    assert cvar(x, alpha) == rvar(x, 0, alpha)
    assert cvar(x, alpha) <= x.mean() + 1e-9


@given(samples, levels, st.floats(0, 5))
def test_mvar_is_the_weighted_sum_of_its_two_integrals(sample, window, omega):
    alpha, beta = window
    expected = (1 + omega) * integral_of_the_quantile_function(sample, 0, alpha)
    expected += integral_of_the_quantile_function(sample, alpha, beta)
    x = torch.tensor(sample, dtype=torch.float64)
    assert mvar(x, alpha, beta, omega).item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("window", [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_levels_out_of_order_are_refused_with_their_bounds(window):
    with pytest.raises(ValueError, match="0 <= alpha < beta <= 1"):
        rvar(torch.ones(3), *window)


def test_an_empty_sample_is_refused():
    with pytest.raises(ValueError, match="empty"):
        rvar(torch.ones(0), 0.2, 0.8)


@given(numbers, numbers, st.floats(0, 10))
def test_g_is_theorem_one_s(z, a, width):
    b = a + width
    expected = plus(z - a) - plus(z - b) + a - b
    assert g(torch.tensor(z, dtype=torch.float64), a, b).item() == pytest.approx(expected, abs=1e-9)


@given(numbers, numbers, st.floats(0, 10), st.floats(0, 5))
def test_both_advantages_are_the_formulas_of_the_paper(r, q_alpha, width, omega):
    q_beta = q_alpha + width
    g_value = plus(r - q_alpha) - plus(r - q_beta) + q_alpha - q_beta
    R = torch.tensor([r], dtype=torch.float64)
    averse = -(1 + omega) * plus(q_alpha - r) + g_value
    seeking = (1 + omega) * plus(r - q_beta) + g_value
    assert mvar_advantage(R, q_alpha, q_beta, omega).item() == pytest.approx(averse, abs=1e-8)
    assert risk_seeking_advantage(R, q_alpha, q_beta, omega).item() == pytest.approx(seeking, abs=1e-8)
    without = mvar_advantage(R, q_alpha, q_beta, omega, constant=False).item()
    assert without == pytest.approx(averse + width, abs=1e-8)


@given(numbers, numbers, st.floats(0, 10), st.floats(0, 5))
def test_the_papers_advantage_is_never_positive(r, q_alpha, width, omega):
    assert mvar_advantage(torch.tensor(r, dtype=torch.float64), q_alpha, q_alpha + width, omega) <= 0


@settings(max_examples=200)
@given(st.lists(numbers, min_size=2, max_size=20), numbers, st.floats(0, 10), st.floats(0, 5))
def test_utility_never_decreases_not_even_by_rounding(scores, q_alpha, width, omega):
    x = torch.tensor(sorted(scores), dtype=torch.float32)
    for profile in ("averse", "seeking"):
        assert (utility(x, q_alpha, q_alpha + width, omega, profile).diff() >= 0).all()


def test_quantiles_may_differ_from_row_to_row():
    scores = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
    q_alpha, q_beta = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [1.0]])
    # Row 0: q = 1, 2: -(1.5)(1) - 1 and 0. Row 1: q = 0, 1: g(0) = -1 and 0.
    assert mvar_advantage(scores, q_alpha, q_beta, 0.5).tolist() == [[-2.5, 0.0], [-1.0, 0.0]]


def test_at_atoms_the_paper_the_authors_code_and_rvar_differ():
    # Ten bundles: six score 0, two score 1, two score 2. q_.2 = 0 and q_.8 = 1 (the lower quantile).
    x = torch.tensor([0.0] * 6 + [1.0] * 2 + [2.0] * 2)
    # Ours: the quantile function over [.2, .8] is 0 up to .6 and 1 up to .8: .2 / .6.
    assert rvar(x, 0.2, 0.8).item() == pytest.approx(1 / 3)
    # The paper's E[R | R in [q_.2, q_.8]], and what its authors log: eight scores lie in [0, 1], two of them 1.
    assert x[(x >= 0) & (x <= 1)].mean().item() == pytest.approx(1 / 4)
    # MVaR, omega .5: ours 1.5 * .2 * 0 + .6 / 3. The authors log (.5 * 0 + .25) / 1.5.
    assert mvar(x, 0.2, 0.8, 0.5).item() == pytest.approx(0.2)
    assert (0.5 * x[x <= 0].mean() + x[(x >= 0) & (x <= 1)].mean()).item() / 1.5 == pytest.approx(1 / 6)


@given(samples, st.floats(0.05, 0.95))
def test_without_extra_weight_mvar_is_beta_times_rvar_from_0_as_table_5_says(sample, beta):
    x = torch.tensor(sample, dtype=torch.float64)
    assert mvar(x, beta / 2, beta, 0).item() == pytest.approx(beta * rvar(x, 0, beta).item(), abs=1e-9)


@given(numbers, numbers, st.floats(0, 10))
def test_at_alpha_0_g_is_the_lower_tail_s_as_the_paper_says_after_theorem_1(lowest, z, width):
    # F^-1(0) is the lowest reward, so z >= lowest: g(z, lowest, q_beta) = -(q_beta - z)^+.
    z, q_beta = max(z, lowest), lowest + width
    expected = -plus(q_beta - z)
    assert g(torch.tensor(z, dtype=torch.float64), lowest, q_beta).item() == pytest.approx(expected, abs=1e-9)


@given(st.lists(numbers, min_size=2, max_size=8), st.floats(0, 1), st.floats(0, 5))
def test_theorem_1_would_give_the_seeking_profile_a_constant_that_is_left_out(sample, place, omega):
    # (1 + omega) g(R, q_beta, F^-1(1)) + g(R, q_alpha, q_beta), F^-1(1) the highest score: never positive.
    R = torch.tensor(sample, dtype=torch.float64)
    highest = max(sample)
    q_alpha, q_beta = min(sample), min(sample) + place * (highest - min(sample))
    by_theorem = (1 + omega) * g(R, q_beta, highest) + g(R, q_alpha, q_beta)
    left_out = (1 + omega) * (q_beta - highest)
    assert (by_theorem <= 1e-9).all()
    assert torch.allclose(by_theorem - left_out, risk_seeking_advantage(R, q_alpha, q_beta, omega), atol=1e-8)


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="one of: averse, seeking"):
        utility(torch.ones(1), 0.0, 1.0, 0.5, "neutral")
