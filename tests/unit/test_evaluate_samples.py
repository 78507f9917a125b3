"""The folder of an evaluation: what was written is never lost, doubled or mixed with something else."""

import json

import pytest

from riskpo_openrlhf.evaluation.problems import EvaluationError
from riskpo_openrlhf.evaluation.samples import SAMPLES, SETTINGS, SampleStore, read_samples, write_parquet

SETTINGS_OF_A_RUN = {"model": "m", "sampling": {"s": {"n": 2, "temperature": 1.0}}}


def sample(problem="p", place=0, status="ok", **fields):
    row = {
        "datasource": "s",
        "id": problem,
        "sample": place,
        "response": 'e\u0301 \n"2"',
        "score": 1.0,
        "status": status,
    }
    return {**row, "tokens": 3, "truncated": False, "logprob": -0.5, "extra_logs": {"x": 1.0}, **fields}


@pytest.fixture
def opened(tmp_path):
    stores = []

    def open_store(settings=SETTINGS_OF_A_RUN):
        for store in stores:
            store.close()
        stores.append(SampleStore(tmp_path, settings))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def test_a_resumed_evaluation_finds_every_sample_that_was_added(opened):
    store = opened()
    store.add([sample("p", 0), sample("p", 1)])
    store.add([sample("q", 0)])
    again = opened()
    assert [again.finished(("s", *key)) for key in (("p", 0), ("p", 1), ("q", 0), ("q", 1))] == [True] * 3 + [False]
    assert again.rows == store.rows


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_half_written_last_line_is_dropped_and_the_next_sample_starts_a_line_of_its_own(opened, tmp_path, cut):
    opened().add([sample("p", 0)])
    whole = (tmp_path / SAMPLES).read_bytes()
    half = (json.dumps(sample("p", 1)) + "\n").encode()[:cut]
    (tmp_path / SAMPLES).write_bytes(whole + half)
    store = opened()
    assert not store.finished(("s", "p", 1))
    store.add([sample("p", 1)])
    assert (tmp_path / SAMPLES).read_bytes().startswith(whole)
    assert [key for key, _, _ in read_samples(tmp_path / SAMPLES)] == [("s", "p", 0), ("s", "p", 1)]


def test_a_half_written_line_longer_than_a_block_of_reading_is_dropped_too(opened, tmp_path):
    opened().add([sample("p", 0)])
    with open(tmp_path / SAMPLES, "ab") as file:
        file.write(b'{"response": "' + b"x" * 200_000)
    assert len(opened().rows) == 1
    (tmp_path / SAMPLES).write_bytes(b"x" * 200_000)
    assert not opened().rows


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(opened, tmp_path):
    opened().add([sample("p", 0), sample("p", 1)])
    lines = (tmp_path / SAMPLES).read_bytes().splitlines(keepends=True)
    (tmp_path / SAMPLES).write_bytes(lines[0] + b"broken\n" + lines[1])
    with pytest.raises(EvaluationError, match="line 2 is not a sample"):
        opened()


def test_other_settings_are_refused_and_each_difference_is_named(opened):
    opened()
    other = {"model": "m", "sampling": {"s": {"n": 4, "temperature": 1.0}}}
    with pytest.raises(EvaluationError, match=r"sampling\.s\.n: 2 there, 4 now") as error:
        opened(other)
    assert "temperature" not in str(error.value)


def test_samples_without_settings_are_not_resumed(tmp_path, opened):
    opened().add([sample()])
    (tmp_path / SETTINGS).unlink()
    with pytest.raises(EvaluationError, match="no evaluation.json"):
        opened()


def test_two_processes_can_not_write_the_same_evaluation(tmp_path, opened):
    opened()
    with pytest.raises(EvaluationError, match="in use by another evaluation"):
        SampleStore(tmp_path, SETTINGS_OF_A_RUN)


def test_a_sample_whose_verifier_failed_is_made_again_and_its_later_line_counts(opened):
    opened().add([sample(status="error", score=None, error="down")])
    store = opened()
    assert not store.finished(("s", "p", 0))
    store.add([sample(score=0.0)])
    again = opened()
    assert again.finished(("s", "p", 0)) and again.rows["s", "p", 0]["score"] == 0.0


def test_parquet_holds_every_sample_once_with_ids_as_text(opened, tmp_path):
    import pyarrow.parquet

    store = opened()
    store.add([sample("007", 0, status="error", score=None, error="down"), sample("007", 1)])
    store.add([sample("007", 0)])
    rows = pyarrow.parquet.read_table(write_parquet(tmp_path)).to_pylist()
    assert [(row["id"], row["sample"], row["status"]) for row in rows] == [("007", 1, "ok"), ("007", 0, "ok")]
    assert rows[0]["response"] == sample()["response"] and json.loads(rows[0]["extra_logs"]) == {"x": 1.0}
