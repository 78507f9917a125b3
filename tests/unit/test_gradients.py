"""The advantages' mean gradients are those of the risk measures that the paper sets out to maximise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.core.estimator import RiskPOEstimator
from riskpo_openrlhf.core.risk import g, mvar_advantage, risk_seeking_advantage, utility

logit_lists = st.lists(st.floats(-2, 2), min_size=2, max_size=8)
level_pairs = st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)).filter(lambda ab: ab[1] - ab[0] > 0.02)


def tabular(logits, seed):
    """A softmax policy over answers of distinct rewards, in order of reward."""
    theta = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(len(logits), dtype=torch.float64, generator=generator).add(0.01).cumsum(0)
    return theta, rewards


def tail_integral(theta, rewards, alpha, beta):
    """The integral of the quantile function over [alpha, beta], of the distribution itself: atoms by their part."""
    edges = torch.cat([theta.new_zeros(1), theta.softmax(0).cumsum(0)[:-1], theta.new_ones(1)])
    return edges.clamp(alpha, beta).diff() @ rewards


def quantile(theta, rewards, level):
    cumulative = theta.detach().softmax(0).cumsum(0)
    if (cumulative - level).abs().min() < 1e-6:
        return None  # at the edge of an atom the quantile jumps and there is no derivative
    return rewards[(cumulative < level).sum()]


def assert_mean_gradient(theta, advantages, objective):
    (expected,) = torch.autograd.grad(objective, theta)
    policy = theta.detach().softmax(0)
    (actual,) = torch.autograd.grad((policy * advantages * theta.log_softmax(0)).sum(), theta)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-9)


@settings(max_examples=200)
@given(logit_lists, level_pairs, st.floats(0, 5), st.integers(0, 1000), st.booleans())
def test_the_advantages_mean_gradient_is_that_of_mvar(logits, levels, omega, seed, constant):
    (alpha, beta), (theta, rewards) = levels, tabular(logits, seed)
    q_alpha, q_beta = (quantile(theta, rewards, level) for level in levels)
    if q_alpha is None or q_beta is None:
        return
    mvar = (1 + omega) * tail_integral(theta, rewards, 0, alpha) + tail_integral(theta, rewards, alpha, beta)
    assert_mean_gradient(theta, mvar_advantage(rewards, q_alpha, q_beta, omega, constant), mvar)


@settings(max_examples=100)
@given(logit_lists, level_pairs, st.integers(0, 1000))
def test_theorem_1_gives_the_gradient_of_rvar(logits, levels, seed):
    (alpha, beta), (theta, rewards) = levels, tabular(logits, seed)
    q_alpha, q_beta = (quantile(theta, rewards, level) for level in levels)
    if q_alpha is None or q_beta is None:
        return
    rvar = tail_integral(theta, rewards, alpha, beta) / (beta - alpha)
    assert_mean_gradient(theta, g(rewards, q_alpha, q_beta) / (beta - alpha), rvar)


@settings(max_examples=100)
@given(logit_lists, level_pairs, st.floats(0, 5), st.integers(0, 1000))
def test_the_risk_seeking_advantages_mean_gradient_is_that_of_its_objective(logits, levels, omega, seed):
    (alpha, beta), (theta, rewards) = levels, tabular(logits, seed)
    q_alpha, q_beta = (quantile(theta, rewards, level) for level in levels)
    if q_alpha is None or q_beta is None:
        return
    objective = (1 + omega) * tail_integral(theta, rewards, beta, 1) + tail_integral(theta, rewards, alpha, beta)
    assert_mean_gradient(theta, risk_seeking_advantage(rewards, q_alpha, q_beta, omega), objective)


PASS_RATES = torch.tensor([0.05, 0.15, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
Q_ALPHA, Q_BETA, OMEGA = 0.5, 1.5, 2.0


def sampled_and_enumerated_gradients(bundling, credit, steps=12, copies=400, G=8):
    """Mean policy gradients by type of question, B = 2, at fixed quantiles, by logit of a right answer.

    Sampled: A grad ln pi. Enumerated: for the same pairs of questions, d/dtheta_i E[u(r_i + r_k)] summed over the
    outcomes of both, p_i (1 - p_i) sum_r P(r_k = r) (u(1 + r) - u(r)).
    """
    p = PASS_RATES.repeat(copies)
    kind = torch.arange(len(PASS_RATES)).repeat(copies)
    generator = torch.Generator().manual_seed(11)
    estimator = RiskPOEstimator(
        RiskPOConfig(bundling=bundling, credit=credit, bundle_size=2, omega=OMEGA, tracker_lr=1e-12), seed=4
    )
    estimator.tracker.values = [Q_ALPHA, Q_BETA]
    gain = utility(torch.arange(3, dtype=torch.float64), Q_ALPHA, Q_BETA, OMEGA).diff()  # u(1) - u(0), u(2) - u(1)
    sampled, enumerated = torch.zeros(2, len(PASS_RATES), dtype=torch.float64)
    for k in range(steps):
        r = (torch.rand(len(p), G, dtype=torch.float64, generator=generator) < p[:, None]).double()
        result = estimator.step(r, k)
        score_function = r - p[:, None]  # d ln pi / d logit of a right answer
        sampled.index_add_(0, kind, (result.advantages * score_function).sum(1))
        pairs = result.bundle.flatten().argsort().view(-1, 2) // G
        for i, other in (pairs.T, pairs.T.flip(0)):
            slope = (1 - p[other]) * gain[0] + p[other] * gain[1]
            enumerated.index_add_(0, kind[i], p[i] * (1 - p[i]) * slope)
    return sampled, enumerated


@pytest.mark.parametrize("bundling", ["random", "stratified"])
@pytest.mark.parametrize("credit", ["counterfactual", "uniform"])
def test_the_mean_gradient_of_bundles_is_that_of_mvar_at_fixed_quantiles(bundling, credit):
    sampled, enumerated = sampled_and_enumerated_gradients(bundling, credit)
    assert torch.cosine_similarity(sampled, enumerated, dim=0) >= 0.99
    tolerance = 0.05 if credit == "counterfactual" else 0.25  # the noisier estimator
    assert ((sampled - enumerated).abs() <= tolerance * enumerated.abs().max()).all()


@pytest.mark.parametrize("bundling", ["random", "stratified"])
def test_counterfactual_credit_has_less_variance_than_the_papers(bundling):
    p = torch.linspace(0.02, 0.95, 50, dtype=torch.float64)[:, None]
    variance = {}
    for credit in ("uniform", "counterfactual"):
        generator = torch.Generator().manual_seed(2)
        estimator = RiskPOEstimator(RiskPOConfig(bundling=bundling, credit=credit, tracker_lr=1e-12))
        estimator.tracker.values = [1.5, 3.5]
        gradients = []
        for k in range(200):
            r = (torch.rand(50, 10, dtype=torch.float64, generator=generator) < p).double()
            gradients.append((estimator.step(r, k).advantages * (r - p)).mean(1))
        variance[credit] = torch.stack(gradients).var(0).sum().item()
    ratio = variance["counterfactual"] / variance["uniform"]
    print(f"\nvariance of the gradient, {bundling} bundles: counterfactual / paper = {ratio:.3f}")
    assert ratio < 1
