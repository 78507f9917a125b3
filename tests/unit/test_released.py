"""The presets `released-*` against the authors' code, worked out anew one response at a time."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.config import FIXED_BY_RELEASED, RiskPOConfig
from riskpo_openrlhf.core.estimator import RiskPOEstimator
from riskpo_openrlhf.core.released import mixed


def draw(P, G, seed=0, error_share=0.0):
    generator = torch.Generator().manual_seed(seed)
    rewards = (torch.rand(P, G, generator=generator) < torch.rand(P, 1, generator=generator)).float()
    return rewards, torch.rand(P, G, generator=generator) >= error_share


def step(preset, rewards, valid=None, keys=None, **changes):
    return RiskPOEstimator(RiskPOConfig.preset(preset, **changes)).step(rewards, 0, valid, keys)


def linear_quantile(values, level):
    place = level * (len(values) - 1)
    low, high = sorted(values)[math.floor(place)], sorted(values)[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def released_code(rewards, B, alpha, beta, credit, constant, profile, w=1.5, eps=1e-6):
    """The authors' released advantages, one response at a time, as the table in docs/method.md describes them."""
    G = len(rewards[0])
    A = [[0.0] * G for _ in rewards]
    for start in range(0, len(rewards), B):
        questions = range(start, min(start + B, len(rewards)))
        papers = [sum(rewards[q][j] for q in questions) for j in range(G)]
        q_down, q_up = linear_quantile(papers, alpha), linear_quantile(papers, beta)
        for j, R in enumerate(papers):
            a = max(R - q_down, 0) - max(R - q_up, 0) + (q_down - q_up if constant else 0)
            a /= beta - alpha + eps
            if profile == "averse":
                h = -max(q_down - R, 0) / (alpha + eps)
            else:
                h = max(R - q_up, 0) / (1 - beta + eps)
            a = (w * h + a) / (w + 1) / (statistics.stdev(papers) + eps)
            excess = {q: rewards[q][j] - statistics.fmean(rewards[q]) for q in questions}
            for q in questions:
                if credit == "std":
                    std = statistics.stdev(rewards[q])
                    A[q][j] = a / ((std if std > 1e-3 else 1) + eps)
                elif abs(sum(excess.values())) > 1e-6:
                    A[q][j] = a * excess[q] / sum(excess.values())
                else:
                    A[q][j] = a / len(questions)
    return A


RELEASED = {
    "released-dapo": dict(alpha=0.2, beta=0.8, credit="sum-mean", constant=False, profile="averse"),
    "released-math": dict(alpha=0.2, beta=0.9, credit="std", constant=True, profile="averse"),
    "released-seeking": dict(alpha=0.2, beta=0.8, credit="std", constant=True, profile="seeking"),
}


@pytest.mark.parametrize("preset", RELEASED)
@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(2, 6), st.integers(1, 5), st.integers(0, 10**6))
def test_released_presets_are_the_released_code(preset, P, G, B, seed):
    rewards = draw(P, G, seed)[0].double()
    result = RiskPOEstimator(RiskPOConfig.preset(preset, bundle_size=B)).step(rewards, 0)
    expected = torch.tensor(released_code(rewards.tolist(), B, **RELEASED[preset]), dtype=torch.float64)
    assert torch.allclose(result.advantages, expected, rtol=1e-5, atol=1e-5)


def test_released_dapo_by_hand_with_a_short_bundle():
    rewards = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    # Set 1: R = 1, 0, 2, so q = .4, 1.6 and std 1; question means 2/3 and 1/3.
    #   R = 1: m = .6/.6 = 1, h = 0, A = 1/2.5 = .4; excess 1/3 - 1/3 = 0: equal shares .2
    #   R = 0: m = 0, h = -.4/.2 = -2, A = -3/2.5 = -1.2; excess -2/3 - 1/3 = -1: shares 2/3, 1/3
    #   R = 2: m = 1.2/.6 = 2, h = 0, A = .8; excess 1/3 + 2/3 = 1: shares 1/3, 2/3
    # Set 2, one question: R = 1, 1, 0, so q = .4, 1 and std 3^-.5; A = .4, .4, -1.2 over it, one whole share.
    root3 = math.sqrt(3)
    expected = [[0.2, -0.8, 0.8 / 3], [0.2, -0.4, 1.6 / 3], [0.4 * root3, 0.4 * root3, -1.2 * root3]]
    result = RiskPOEstimator(RiskPOConfig.preset("released-dapo", bundle_size=2)).step(rewards, 0)
    assert torch.allclose(result.advantages, torch.tensor(expected), atol=3e-5)
    assert result.scores.tolist() == [1.0, 0.0, 2.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("r", "profile", "constant", "expected"),
    [
        # q = 1, 3; levels .2, .8; omega 1.5: (1.5 h + m / .6) / 2.5
        (0.0, "averse", False, (1.5 * -1 / 0.2 + 0 / 0.6) / 2.5),
        (0.0, "averse", True, (1.5 * -1 / 0.2 + -2 / 0.6) / 2.5),
        (2.0, "averse", False, (1 / 0.6) / 2.5),
        (4.0, "averse", False, (2 / 0.6) / 2.5),
        (4.0, "seeking", True, (1.5 * 1 / 0.2 + 0 / 0.6) / 2.5),
        (0.0, "seeking", True, (-2 / 0.6) / 2.5),
    ],
)
def test_the_mix_divides_each_region_by_its_width(r, profile, constant, expected):
    config = RiskPOConfig.preset("released-seeking", profile=profile, constant=constant)
    A = mixed(torch.tensor(r, dtype=torch.float64), 1.0, 3.0, config)
    assert A.item() == pytest.approx(expected, rel=1e-5)


def test_the_jth_responses_of_neighbours_are_bundled_in_the_order_given():
    result = step("released-dapo", torch.zeros(5, 3), bundle_size=2)
    assert result.bundle.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5], [6, 7, 8]]


def test_with_keys_the_order_of_prompts_is_the_seeded_one_and_not_that_of_arrival():
    rewards, keys = draw(40, 3)[0], [f"q{i}" for i in range(40)]
    first = step("released-math", rewards, keys=keys, bundle_size=2)
    assert (first.bundle % 3 == torch.arange(3)).all()
    assert not torch.equal(first.bundle, step("released-math", rewards, bundle_size=2).bundle)
    arrived = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    second = step("released-math", rewards[arrived], keys=[keys[i] for i in arrived.tolist()], bundle_size=2)
    assert torch.equal(second.advantages, first.advantages[arrived])


def test_a_short_bundle_is_taken_as_it_is_and_one_without_all_verdicts_is_scaled_to_its_questions():
    rewards, valid = torch.ones(5, 4), torch.ones(5, 4, dtype=torch.bool)
    valid[4, 0] = False  # bundle 0 of the short set has one verdict of two
    result = step("released-math", rewards, valid, bundle_size=3)
    assert [result.scores[b].item() for b in result.bundle[3].tolist()] == [2.0] * 4
    assert result.bundle[4, 0] == -1 and result.advantages[4, 0] == 0


@pytest.mark.parametrize("preset", RELEASED)
@settings(max_examples=60, deadline=None)
@given(st.integers(-6, 6), st.sampled_from([1.0, -1.0]), st.floats(-20, 20), st.integers(2, 8), st.integers(0, 10**6))
def test_rounding_is_never_divided_by_the_authors_epsilon(preset, exponent, sign, offset, G, seed):
    generator = torch.Generator().manual_seed(seed)
    # Every set scores the same in exact numbers: one question's rewards are another's, turned round.
    half = torch.randint(10, (3, G), generator=generator) / 10
    rewards = torch.stack([half, 1 - half], dim=1).view(6, G) + offset
    for dtype in (torch.float32, torch.float64):
        result = step(preset, (sign * 10.0**exponent * rewards).to(dtype), bundle_size=2)
        assert (result.advantages == 0).all()


@pytest.mark.parametrize("exponent", [-2, 0, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_shares_where_the_excess_cancels_but_for_rounding_at_any_scale(exponent, dtype):
    # Means 3 and 4: the second bundle's excesses are 5 - 3 and 2 - 4. A third of it has no exact number.
    rewards = torch.tensor([[1, 5, 3], [2, 2, 8]], dtype=dtype) * 10.0**exponent / 3
    A = step("released-dapo", rewards, bundle_size=2).advantages
    # R = 3, 7, 11 in the same unit: q = 4.6, 9.4, std 4, so A of R = 7 is 2.4 / .6 / 2.5 / 4 = .4, in halves.
    assert A[:, 1].tolist() == pytest.approx([0.2, 0.2], rel=1e-3)
    assert A.abs().max() < 2


@pytest.mark.parametrize("name", FIXED_BY_RELEASED)
def test_a_knob_that_the_authors_code_decides_is_refused_even_with_its_default(name):
    for value in (getattr(RiskPOConfig(), name), getattr(RiskPOConfig.preset("recommended"), name)):
        with pytest.raises(
            ValueError, match=f"--algo.riskpo.{name} {value} can't stand beside .*preset released-math"
        ):
            RiskPOConfig.preset("released-math", **{name: value})


def test_the_choice_survives_a_checkpoint():
    for name in RELEASED:
        config = RiskPOConfig.preset(name)
        assert RiskPOConfig(**config.to_dict()) == config


def test_an_unknown_script_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="released 'gsm8k' is not allowed: one of: dapo, math, seeking"):
        RiskPOConfig(released="gsm8k")


def test_one_response_a_prompt_is_refused():
    with pytest.raises(ValueError, match="n_samples_per_prompt 1 .*--algo.riskpo.preset released-dapo compares"):
        step("released-dapo", torch.ones(5, 1))
