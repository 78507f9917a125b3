"""Assumption 1: a trend in the tails is found where there is one, and only there."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskpo_openrlhf.evaluation.logprob import logprob_by_reward, tail

G = 16


def questions(shape, noise=0.05, count=800, seed=0):
    """Mean rewards in sixteenths, evenly spread, and `shape` of them with noise."""
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, G + 1, count) / G
    return rewards, shape(rewards) + noise * rng.standard_normal(count)


def test_a_valley_satisfies_the_assumption_in_both_tails():
    result = logprob_by_reward(*questions(lambda r: (r - 0.5) ** 2))
    lower, upper = result["lower_tail"], result["upper_tail"]
    assert lower["verdict"] == upper["verdict"] == "holds"
    assert lower["spearman"] < 0 < upper["spearman"]
    assert lower["edge_reward"] == pytest.approx(0.3, abs=1 / G) and upper["edge_reward"] == pytest.approx(
        0.7, abs=1 / G
    )


def test_a_hill_violates_it_in_both():
    result = logprob_by_reward(*questions(lambda r: -((r - 0.5) ** 2)))
    assert result["lower_tail"]["verdict"] == result["upper_tail"]["verdict"] == "violated"


def test_a_rising_line_violates_it_below_and_satisfies_it_above():
    result = logprob_by_reward(*questions(lambda r: r))
    assert (result["lower_tail"]["verdict"], result["upper_tail"]["verdict"]) == ("violated", "holds")
    assert result["lower_tail"]["edge_minus_mean"] < 0 < result["upper_tail"]["edge_minus_mean"]


def test_without_any_relation_a_trend_is_claimed_one_time_in_twenty_each_way():
    verdicts = []
    for seed in range(200):
        rewards, logprobs = questions(lambda r: 0 * r, count=100, seed=seed)
        verdicts.append(tail(rewards, logprobs, 0.3, falling=True, permutations=400, seed=seed)["verdict"])
    assert 0.01 <= verdicts.count("holds") / 200 <= 0.10
    assert 0.01 <= verdicts.count("violated") / 200 <= 0.10


def test_the_p_value_of_a_small_tail_counts_all_its_orders():
    rewards = np.arange(5.0)
    lower = tail(np.append(rewards, 9.0), np.append(-rewards, 0.0), 0.8, falling=True)
    assert (lower["questions"], lower["spearman"]) == (5, pytest.approx(-1))
    assert lower["p_monotone"] == pytest.approx(1 / 120)  # 5! orders, one of which falls all the way
    assert lower["p_against"] == 1


def test_a_tail_of_one_reward_is_untestable_and_says_so():
    rewards = np.array([0.0] * 50 + [0.25, 0.5, 0.75, 1.0, 0.6, 0.9])
    lower = logprob_by_reward(rewards, np.linspace(-1, 0, rewards.size))["lower_tail"]
    assert (lower["verdict"], lower["distinct_rewards"], lower["questions"]) == ("untestable", 1, 50)
    assert lower["p_monotone"] is None and lower["edge_minus_mean"] < 0


def test_bins_hold_every_question_once_and_questions_of_equal_reward_share_a_bin():
    rewards, logprobs = questions(lambda r: r)
    result = logprob_by_reward(rewards, logprobs)
    for bins in (result["bins"], result["bins_by_reward"]):
        assert sum(entry["questions"] for entry in bins) == rewards.size
        total = sum(entry["questions"] * entry["mean_logprob"] for entry in bins)
        assert total / rewards.size == pytest.approx(logprobs.mean())
    levels = {entry["mean_reward"] for entry in logprob_by_reward([0.0] * 9 + [1.0], [0.0] * 10)["bins"]}
    assert levels == {0.0, 1.0}


def test_bins_by_hand():
    result = logprob_by_reward([0.0, 0.0, 0.5, 1.0], [-1.0, -3.0, -2.0, -0.5])
    first, middle, last = result["bins"]  # levels 0.25 (shared by two), 0.625, 0.875
    assert first == {"low": pytest.approx(0.2), "high": pytest.approx(0.3), "questions": 2, "mean_reward": 0.0,
                     "mean_logprob": -2.0, "se": 1.0}  # fmt: skip
    assert (middle["low"], middle["mean_logprob"], middle["se"]) == (pytest.approx(0.6), -2.0, None)
    assert (last["low"], last["mean_logprob"]) == (pytest.approx(0.8), -0.5)
    assert [(entry["low"], entry["questions"]) for entry in result["bins_by_reward"]] == [(0, 2), (0.5, 1), (0.9, 1)]


def test_rewards_of_minus_one_and_one_fall_into_bins_of_their_own():
    bins = logprob_by_reward([-1.0, 1.0, 0.1], [0.0, 0.0, 0.0])["bins_by_reward"]
    assert [entry["low"] for entry in bins] == pytest.approx([-1.0, 0.0, 0.8])


@pytest.mark.parametrize("size", [0, 1, 3])
def test_few_questions_give_a_result_that_json_can_hold(size):
    result = logprob_by_reward(np.arange(size) / 4, -np.ones(size))
    assert json.loads(json.dumps(result, allow_nan=False))["lower_tail"]["verdict"] == "untestable"


@given(st.data(), st.integers(0, 10), st.integers(1, 9))
def test_a_mean_of_tenths_that_is_a_tenth_falls_into_the_bin_that_begins_there(data, tenth, pairs):
    apart = st.integers(0, min(tenth, 10 - tenth))
    scores = [(tenth + sign * d) / 10 for d in data.draw(st.lists(apart, min_size=pairs)) for sign in (1, -1)]
    (found,) = logprob_by_reward([np.mean(scores)], [-1.0])["bins_by_reward"]
    assert found["low"] == min(tenth, 9) / 10


@pytest.mark.parametrize("count", [10, 20, 30])
def test_levels_that_are_tenths_fall_into_the_bins_that_begin_there(count):
    bins = logprob_by_reward(np.arange(count), -np.ones(count))["bins"]
    assert [entry["low"] for entry in bins] == [i / 10 for i in range(10)]
    assert [entry["questions"] for entry in bins] == [count // 10] * 10
