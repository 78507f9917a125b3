"""The metrics of OpenRLHF's evaluation samples, in training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from riskpo_openrlhf.evaluation.in_training import content_text, evaluation_metrics
from riskpo_openrlhf.evaluation.passk import pass_at_k


def sample(prompt, score, label="1", reward=None, image=None, tokens=3, truncated=False, **info):
    """A sample as OpenRLHF's generator makes it: one-element tensors, texts in lists."""
    score = None if score is None else torch.tensor([score])
    return SimpleNamespace(
        prompts=[prompt], labels=[label], images=[image], scores=score, rewards=torch.tensor([reward or 0.0]),
        response_length=torch.tensor([tokens]), truncated=torch.tensor([truncated]),
        info={f"verifier/{name}": torch.tensor([value]) for name, value in info.items()},
    )  # fmt: skip


def loader(*rows):
    """Batches as OpenRLHF's dataloader gives them: sources, prompts, labels, images."""
    return [
        ([source], [prompt], [label], [image])
        for source, prompt, label, image in (r + (None,) * (4 - len(r)) for r in rows)
    ]


def test_each_source_has_pass_at_powers_of_two_and_at_n_with_standard_errors():
    right = {"a": 2, "b": 0, "c": 6}
    samples = [sample(prompt, float(i < count)) for prompt, count in right.items() for i in range(6)]
    metrics = evaluation_metrics(samples, loader(("x", "a", "1"), ("x", "b", "1"), ("y", "c", "1")), 6)
    names = {f"{name}{error}" for name in ("pass@1", "pass@2", "pass@4", "pass@6", "avg@6") for error in ("", "_se")}
    names |= {"response_length", "truncated", "verifier_error"}
    assert set(metrics) == {f"{source}/{name}" for source in "xy" for name in names}
    for k in (1, 2, 4, 6):
        assert metrics[f"x/pass@{k}"] == pytest.approx((pass_at_k(6, 2, k) + 0) / 2)
        assert metrics[f"y/pass@{k}"] == 1
    assert metrics["x/avg@6"] == pytest.approx(1 / 6)


def test_lengths_truncation_no_answers_and_missing_verdicts_are_shares_of_the_responses():
    samples = [
        sample("a", 1.0, tokens=2, no_answer=0.0),
        sample("a", 0.0, tokens=8, truncated=True, no_answer=1.0),
        sample("b", float("nan"), tokens=8, truncated=True, no_answer=0.0),
        sample("b", 0.0, tokens=2, no_answer=0.0),
    ]
    metrics = evaluation_metrics(samples, loader(("x", "a", "1"), ("x", "b", "1")), 2)
    assert (metrics["x/response_length"], metrics["x/truncated"]) == (5, 0.5)
    assert (metrics["x/no_answer"], metrics["x/verifier_error"]) == (0.25, 0.25)
    assert metrics["x/avg@2"] == 0.25


def test_the_same_text_in_two_sources_is_told_apart_by_its_label_of_any_type():
    rows = ("x", "same", ["1"]), ("y", "same", {"a": 2})
    samples = [sample("same", 1.0, ["1"]), sample("same", 0.0, {"a": 2})]
    metrics = evaluation_metrics(samples, loader(*rows), 1)
    assert metrics["x/pass@1"] == 1 and metrics["y/pass@1"] == 0


def test_the_same_text_and_label_are_told_apart_by_the_image():
    rows = ("x", "same", "1", ["/a.png"]), ("y", "same", "1", ["/b.png"])
    samples = [sample("same", 1.0, image=["/a.png"]), sample("same", 0.0, image=["/b.png"])]
    metrics = evaluation_metrics(samples, loader(*rows), 1)
    assert metrics["x/pass@1"] == 1 and metrics["y/pass@1"] == 0


def picture(colour):
    return Image.new("RGB", (4, 4), colour)


def test_pictures_are_told_apart_by_their_content_whatever_the_copy():
    rows = [(source, "same", "1", [picture(colour)]) for source, colour in (("x", "red"), ("y", "blue"))]
    copies = [sample("same", score, image=[picture(colour)]) for score, colour in ((0.0, "blue"), (1.0, "red"))]
    metrics = evaluation_metrics(copies, loader(*rows), 1)
    assert metrics["x/pass@1"] == 1 and metrics["y/pass@1"] == 0
    assert not any(name.startswith("unknown") for name in metrics)


@pytest.mark.parametrize(
    "make",
    [picture, lambda colour: {"bytes": colour.encode(), "path": None}, lambda colour: np.full(9, ord(colour[0])),
     lambda colour: torch.full((2, 2), ord(colour[0])), lambda colour: f"/{colour}.png", str.encode],
)  # fmt: skip
def test_equal_content_has_equal_texts_and_other_content_another(make):
    assert content_text([make("red"), None]) == content_text((make("red"), None))
    assert content_text([make("red"), None]) != content_text([make("blue"), None])


def test_the_shape_of_a_picture_is_part_of_its_content():
    assert content_text(Image.new("L", (2, 8))) != content_text(Image.new("L", (8, 2)))


def test_a_problem_of_two_sources_counts_once_in_each():
    rows = ("x", "same", "1"), ("y", "same", "1"), ("y", "other", "1")
    samples = [sample(prompt, 1.0) for prompt in ("same", "other", "same") for _ in range(2)]
    metrics = evaluation_metrics(samples, loader(*rows), 2)
    assert metrics["x/pass@2"] == metrics["y/pass@2"] == 1
    assert metrics["y/pass@2_se"] == 0  # two problems, not three or one
    assert not any(name.startswith("unknown") for name in metrics)


def test_a_response_without_a_verdict_is_left_out_and_a_k_that_no_problem_reaches_is_not_logged():
    samples = [sample("a", float("nan")), sample("a", 1.0), sample("b", 0.0), sample("b", float("nan"))]
    metrics = evaluation_metrics(samples, loader(("x", "a", "1"), ("x", "b", "1")), 2)
    assert metrics["x/pass@1"] == 0.5
    assert "x/pass@2" not in metrics


def test_shaped_rewards_are_not_looked_at_where_scores_exist():
    samples = [sample("a", 0.0, reward=3.0), sample("b", None, reward=3.0)]
    metrics = evaluation_metrics(samples, loader(("x", "a", "1"), ("x", "b", "1")), 1)
    assert metrics["x/pass@1"] == 0.5


def test_scores_of_a_reward_server_in_lists_are_read():
    one = sample("a", None)
    one.scores = torch.ones(1, 1)
    assert evaluation_metrics([one], loader(("x", "a", "1")), 1)["x/pass@1"] == 1
