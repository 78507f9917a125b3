"""Two models on the same problems: the intervals say what they claim."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.evaluation.compare_models import as_table, bootstrap_means, compare, interval
from riskpo_openrlhf.evaluation.passk import pass_at_k
from riskpo_openrlhf.evaluation.problems import EvaluationError
from riskpo_openrlhf.evaluation.samples import SampleStore


def test_the_interval_covers_the_true_difference_nineteen_times_in_twenty():
    rng, covered, runs = np.random.default_rng(0), 0, 400
    for run in range(runs):
        difficulty = rng.uniform(size=60)
        first = rng.uniform(size=60) < difficulty
        second = rng.uniform(size=60) < np.clip(difficulty + 0.1 * (difficulty < 0.9), 0, 1)
        low, high = interval(bootstrap_means(second.astype(float) - first, resamples=1000, seed=run))
        covered += low <= 0.09 <= high  # 0.1 for nine problems in ten
    assert 0.91 <= covered / runs <= 0.98


def test_pairs_make_the_interval_narrower_than_two_separate_ones():
    rng = np.random.default_rng(1)
    first = rng.uniform(size=200)
    second = first + 0.01 * rng.standard_normal(200)
    low, high = interval(bootstrap_means(second - first))
    separate = bootstrap_means(second, seed=1) - bootstrap_means(first, seed=2)
    assert high - low < 0.1 * np.ptp(np.percentile(separate, (2.5, 97.5)))


def test_an_equal_gain_on_every_problem_has_no_uncertainty():
    assert interval(bootstrap_means([0.25, 0.25, 0.25])) == (0.25, 0.25)


def evaluation(folder, right, n=4, problems="same", model="m", temperature=1.0, known=None):
    """An evaluation whose problem i of source s has right[s][i] of n samples right; known[i] have a verdict."""
    sampling = {source: {"n": n, "temperature": temperature, "top_p": 1.0, "max_new_tokens": 8} for source in right}
    counts = {source: len(values) for source, values in right.items()}
    settings = {"model": model, "problems": problems, "sampling": sampling, "counts": counts, "reward": "r.py"}
    store = SampleStore(folder, settings)
    rows = [
        {"datasource": source, "id": str(i), "sample": j, "response": "",
         "score": float(j < c) if known is None or j < known[i] else None, "status": "ok", "tokens": 1,
         "truncated": False, "logprob": -1.0, "extra_logs": {}}
        for source, values in right.items() for i, c in enumerate(values) for j in range(n)
    ]  # fmt: skip
    store.add(rows if folder.name == "a" else rows[::-1])
    store.close()
    return folder


def test_two_evaluations_are_compared_problem_by_problem(tmp_path):
    first = evaluation(tmp_path / "a", {"x": [0, 1, 2, 4], "y": [0, 0]}, model="one")
    second = evaluation(tmp_path / "b", {"x": [1, 2, 3, 4], "y": [4, 4]}, model="two")
    result = compare(first, second)
    entry = result["sources"]["x"]["pass@1"]
    assert (entry["first"], entry["second"]) == (7 / 16, 10 / 16)
    assert entry["difference"] == pytest.approx(3 / 16)
    # Three of four problems gain 1/4: a resample without any of them is 1 in 256, one of them alone 12 in 256.
    assert (entry["low"], entry["high"]) == (0.0625, 0.25)
    assert result["sources"]["y"]["pass@4"] == {"first": 0, "second": 1, "difference": 1, "low": 1, "high": 1}
    assert result["overall"]["pass@1"]["difference"] == pytest.approx((3 / 16 + 1) / 2)
    assert "one" in as_table(result) and "mean of sources" in as_table(result)


def test_a_model_differs_from_itself_by_nothing(tmp_path):
    folder = evaluation(tmp_path / "a", {"x": [0, 1, 2, 4]})
    for entry in compare(folder, folder)["sources"]["x"].values():
        assert entry["difference"] == entry["low"] == entry["high"] == 0


def test_one_problem_has_no_interval(tmp_path):
    folder = evaluation(tmp_path / "a", {"x": [1]})
    with pytest.raises(EvaluationError, match="1 of 1 problems have a verdict of both models"):
        compare(folder, folder)


def test_other_problems_and_unfinished_evaluations_are_refused(tmp_path):
    first = evaluation(tmp_path / "a", {"x": [0, 1]})
    with pytest.raises(EvaluationError, match="different problems"):
        compare(first, evaluation(tmp_path / "b", {"x": [0, 1]}, problems="other"))
    unfinished = evaluation(tmp_path / "c", {"x": [0, 1]})
    lines = (unfinished / "samples.jsonl").read_text().splitlines(keepends=True)
    (unfinished / "samples.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(EvaluationError, match="7 of 8 samples"):
        compare(first, unfinished)
    with pytest.raises(EvaluationError, match="holds no evaluation"):
        compare(first, tmp_path / "nothing")


def test_other_sampling_of_the_two_is_said(tmp_path):
    first = evaluation(tmp_path / "a", {"x": [0, 1]})
    second = evaluation(tmp_path / "b", {"x": [0, 1]}, temperature=0.6)
    assert compare(first, second)["notes"] == ["x: temperature is 1.0 for the first and 0.6 for the second"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2), min_size=3, max_size=8))
def test_pass_at_k_is_of_the_problems_with_k_verdicts_of_both_models(problems):
    """Each problem: for both models the number of verdicts, and of right ones if there are as many."""
    with TemporaryDirectory() as folder:
        pairs = [[(known, min(right, known)) for known, right in problem] for problem in problems]
        first, second = (
            evaluation(Path(folder) / "ab"[i], {"x": [p[i][1] for p in pairs]}, known=[p[i][0] for p in pairs])
            for i in (0, 1)
        )
        there = {k: [pair for pair in pairs if min(pair[0][0], pair[1][0]) >= k] for k in (1, 2, 4)}
        enough = {k: len(kept) >= max(2, len(pairs) / 2) for k, kept in there.items()}
        if not enough[1]:
            with pytest.raises(EvaluationError, match=f"{len(there[1])} of {len(pairs)}.*verdicts are missing"):
                compare(first, second)
            return
        result = compare(first, second)
    entries = result["sources"]["x"]
    assert set(entries) == {f"pass@{k}" for k in there if enough[k]}
    for k, kept in there.items():
        if enough[k]:
            means = [np.mean([pass_at_k(*pair[i], k) for pair in kept]) for i in (0, 1)]
            assert [entries[f"pass@{k}"][side] for side in ("first", "second")] == pytest.approx(means)
            left_out = f"{len(pairs) - len(kept)} of pass@{k}"
            assert any(left_out in note for note in result["notes"]) == (len(kept) < len(pairs))
