"""Unbiased Pass@k of OpenRLHF's evaluation samples."""

from types import SimpleNamespace

import pytest
import torch

from riskpo_openrlhf.evaluation.in_training import pass_at_k_metrics
from riskpo_openrlhf.evaluation.passk import pass_at_k


def sample(prompt, score, label="1", reward=None):
    score = None if score is None else torch.tensor([score])
    return SimpleNamespace(prompts=[prompt], labels=[label], scores=score, rewards=torch.tensor([reward or 0.0]))


def loader(*rows):
    """Batches as OpenRLHF's dataloader gives them: sources, prompts, labels, images."""
    return [([source], [prompt], [label], [None]) for source, prompt, label in rows]


def test_each_source_has_pass_at_powers_of_two_and_at_n_with_standard_errors():
    right = {"a": 2, "b": 0, "c": 6}
    samples = [sample(prompt, float(i < count)) for prompt, count in right.items() for i in range(6)]
    metrics = pass_at_k_metrics(samples, loader(("x", "a", "1"), ("x", "b", "1"), ("y", "c", "1")), 6)
    assert set(metrics) == {f"{s}/pass@{k}{e}" for s in "xy" for k in (1, 2, 4, 6) for e in ("", "_se")}
    for k in (1, 2, 4, 6):
        assert metrics[f"x/pass@{k}"] == pytest.approx((pass_at_k(6, 2, k) + 0) / 2)
        assert metrics[f"y/pass@{k}"] == 1


def test_the_same_text_in_two_sources_is_told_apart_by_its_label_of_any_type():
    rows = ("x", "same", ["1"]), ("y", "same", {"a": 2})
    samples = [sample("same", 1.0, ["1"]), sample("same", 0.0, {"a": 2})]
    metrics = pass_at_k_metrics(samples, loader(*rows), 1)
    assert metrics["x/pass@1"] == 1 and metrics["y/pass@1"] == 0


def test_a_response_without_a_verdict_is_left_out_and_a_k_that_no_problem_reaches_is_not_logged():
    samples = [sample("a", float("nan")), sample("a", 1.0), sample("b", 0.0), sample("b", float("nan"))]
    metrics = pass_at_k_metrics(samples, loader(("x", "a", "1"), ("x", "b", "1")), 2)
    assert metrics["x/pass@1"] == 0.5
    assert "x/pass@2" not in metrics


def test_shaped_rewards_are_not_looked_at_where_scores_exist():
    samples = [sample("a", 0.0, reward=3.0), sample("b", None, reward=3.0)]
    metrics = pass_at_k_metrics(samples, loader(("x", "a", "1"), ("x", "b", "1")), 1)
    assert metrics["x/pass@1"] == 0.5


def test_scores_of_a_reward_server_in_lists_are_read():
    samples = [SimpleNamespace(prompts=["a"], labels=["1"], scores=torch.ones(1, 1), rewards=None)]
    assert pass_at_k_metrics(samples, loader(("x", "a", "1")), 1)["x/pass@1"] == 1
