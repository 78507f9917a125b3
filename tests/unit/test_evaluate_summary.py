"""The summary of an evaluation, against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest

from riskpo_openrlhf.evaluation.metrics import source_metrics
from riskpo_openrlhf.evaluation.summary import as_table, summarise, unreadable


def row(source, problem, place, score, status="ok", tokens=10, truncated=False, logprob=-1.0):
    return {"datasource": source, "id": problem, "sample": place, "score": score, "status": status, "tokens": tokens,
            "truncated": truncated, "logprob": logprob}  # fmt: skip


# Source a, n = 2: problem 1 has 1 of 2 right, problem 2 none. Source b, n = 1: one problem, right.
ROWS = [
    row("a", "1", 0, 1.0, tokens=4),
    row("a", "1", 1, 0.0, status="no_answer", tokens=6, truncated=True, logprob=-3.0),
    row("a", "2", 0, 0.0, tokens=10, logprob=-2.0),
    row("a", "2", 1, None, status="timeout", tokens=20, truncated=True),
    row("b", "1", 0, 1.0, tokens=2, logprob=-0.25),
]


def test_the_metrics_of_a_source_are_those_worked_out_by_hand():
    metrics = summarise(ROWS)["sources"]["a"]
    assert (metrics["problems"], metrics["n"], metrics["samples"]) == (2, 2, 4)
    assert metrics["pass@1"] == metrics["avg@2"] == 0.25  # problem 1: 1/2; problem 2: 0 of the one verdict
    assert metrics["pass@1_se"] == metrics["avg@2_se"] == pytest.approx(0.25)  # std(0.5, 0) = 0.354, / sqrt 2
    assert metrics["pass@2"] == 1.0  # problem 1 alone has two verdicts
    assert math.isnan(metrics["pass@2_se"])
    assert (metrics["response_length"], metrics["truncated"]) == (10, 0.5)
    assert (metrics["no_answer"], metrics["unparsable"], metrics["timeout"], metrics["error"]) == (0.25, 0, 0.25, 0)
    assert metrics["verifier_error"] == 0.25


def test_overall_is_the_mean_of_sources_whatever_their_sizes():
    overall = summarise(ROWS)["overall"]
    assert overall["pass@1"] == pytest.approx((0.25 + 1) / 2)
    assert "pass@2" not in overall and "avg@2" not in overall
    rows = [row(source, str(i), 0, float(i < 2)) for source, count in (("a", 4), ("b", 8)) for i in range(count)]
    summary = summarise(rows)
    a, b = (summary["sources"][source]["pass@1_se"] for source in "ab")
    assert summary["overall"]["pass@1_se"] == pytest.approx(math.hypot(a, b) / 2)


def test_the_order_of_the_samples_does_not_matter():
    dump = json.dumps(summarise(ROWS), sort_keys=True)
    for seed in range(3):
        shuffled = [ROWS[i] for i in np.random.default_rng(seed).permutation(len(ROWS))]
        assert json.dumps(summarise(shuffled), sort_keys=True) == dump


def test_the_log_probability_of_a_problem_is_the_mean_over_its_samples_with_a_verdict():
    (one, other) = summarise(ROWS)["sources"]["a"]["logprob_by_reward"]["bins"]
    assert (one["mean_reward"], one["mean_logprob"]) == (0.0, -2.0)
    assert (other["mean_reward"], other["mean_logprob"]) == (0.5, -2.0)
    assert summarise(ROWS)["logprob_by_reward"]["questions"] == 3


def test_a_source_without_a_single_verdict_has_no_pass_at_k_but_its_other_metrics():
    metrics = source_metrics([[math.nan, math.nan]], [[5, 7]], [[0, 1]])
    assert metrics == {"response_length": 6, "truncated": 0.5, "verifier_error": 1.0}
    rows = [row("a", "1", 0, None, status="error", logprob=None)]
    assert "a" in as_table(summarise(rows))


def test_a_partial_reward_counts_as_right_when_it_is_positive():
    assert summarise([row("a", "1", 0, 0.3), row("a", "1", 1, -1.0)])["sources"]["a"]["pass@1"] == 0.5


def test_the_table_names_each_source_and_their_mean():
    lines = as_table(summarise(ROWS)).splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == ["a", "b", "mean of sources"]
    assert "25.0 ± 49.0" in lines[1]  # 1.96 standard errors of 25
    assert lines[2].split()[3] == "100.0"  # one problem has no error
    assert "62.5" in lines[3]


def test_no_source_is_unreadable_while_one_of_its_responses_was_read():
    assert unreadable(summarise(ROWS)) == {}
    assert unreadable(summarise([row("a", "1", 0, 0.0), row("a", "1", 1, 0.0, status="no_answer")])) == {}


@pytest.mark.parametrize(
    ("status", "fields", "cure"),
    [
        ("no_answer", {}, "--reward FILE"),
        ("no_answer", {"truncated": True}, "--max_new_tokens"),
        ("unparsable", {}, "the right verifier in the labels"),
        ("timeout", {"score": None}, "RISKPO_VERIFIER_SECONDS"),
        ("error", {"score": None}, "correct --reward"),
    ],
)
def test_a_source_of_which_nothing_was_read_is_named_with_the_likely_cause_and_the_cure(status, fields, cure):
    rows = [row("a", "1", j, **{"score": 0.0, "status": status, **fields}) for j in range(3)]
    found = unreadable(summarise([*rows, row("b", "1", 0, 0.0)]))
    assert list(found) == ["a"]
    assert found["a"].startswith("a: not one of 3 responses could be read (100% ")
    assert "Likely cause: " in found["a"] and cure in found["a"]


def test_a_pass_at_k_of_fewer_problems_than_its_neighbour_is_marked_with_their_number():
    summary = summarise(ROWS)
    assert summary["sources"]["a"]["problems_at"] == {"1": 2, "2": 1}
    table = as_table(summary)
    assert "* of 1" in table and "* of 2" not in table and "fewer problems" in table
    whole = [row("a", str(i), j, 1.0) for i in range(3) for j in range(2)]
    assert "*" not in as_table(summarise(whole))
    both = [*whole, *(row("b", str(i), j, None if i + j == 0 else 1.0) for i in range(2) for j in range(2))]
    mean = next(line for line in as_table(summarise(both)).splitlines() if line.startswith("mean"))
    assert mean.count("*") == 1  # Pass@2 of b is of one problem, so the mean of Pass@2 is too
