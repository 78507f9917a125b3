"""The paper's tables: its numbers, and yours beside them."""

import csv
import importlib
import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from riskpo_openrlhf.analysis.paper_tables import TABLES, as_csv, as_markdown, measured_cell

EASY = TABLES["table3"]


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_averages_are_the_means_of_its_columns(name):
    table = TABLES[name]
    place = {sources[0]: i for i, sources in enumerate(table.columns.values()) if len(sources) == 1}
    for label, row in table.rows.items():
        for value, sources in zip(row, table.columns.values(), strict=True):
            mean = sum(row[place[source]] for source in sources) / len(sources)
            # GPG's printed average in Table 1, 38.90, is .03 above the mean of its row
            assert value == pytest.approx(mean, abs=0.04 if label == "GPG" else 0.011), (label, sources)


def test_an_average_is_taken_seed_by_seed_and_its_interval_is_students():
    cell = measured_cell(("math_test", "gsm8k_test"), {"math_test": [50, 52, 54], "gsm8k_test": [70, 74, 78]})
    # means of the seeds: 60, 63, 66; their standard error is 3 / sqrt 3; t of 2 degrees of freedom is 4.303
    assert (cell.mean, cell.n) == (63, 3)
    assert cell.half == pytest.approx(4.3027 * 3 / 3**0.5, abs=1e-3)
    assert measured_cell(("math_test", "gsm8k_test"), {"math_test": [50]}) is None
    with pytest.raises(ValueError, match="different numbers of seeds"):
        measured_cell(("math_test", "gsm8k_test"), {"math_test": [50, 51], "gsm8k_test": [70]})


def test_yours_stand_under_the_papers_with_the_difference_and_a_dash_for_what_was_not_measured():
    measured = {"0.2 0.8": {"paper": {"math_test": [57.2]}, "public": {"math_test": [60.0], "gsm8k_test": [80.0]}}}
    lines = as_markdown(EASY, measured).splitlines()
    place = lines.index("| 0.2 0.8 | paper | 56.2 | 80.3 | 68.25 |")
    assert lines[place + 1 : place + 4] == [
        "|  | yours, `paper` | 57.2 | – | – |",
        "|  | difference | +1.0 | – | – |",
        "|  | yours, `public` | 60.0 | 80.0 | 70.0 |",
    ]
    assert "| 0.1 0.8 | paper | 55.1 | 78.7 | 66.90 |" in lines  # a row that was not run


def test_the_csv_holds_every_number_of_both():
    measured = {"0.2 0.8": {"paper": {"math_test": [57.0, 58.0]}}}
    rows = list(csv.DictReader(io.StringIO(as_csv(EASY, measured))))
    papers = [row for row in rows if row["origin"] == "paper"]
    assert len(papers) == len(EASY.rows) * len(EASY.columns)
    (yours,) = [row for row in rows if row["origin"] == "yours"]
    assert (yours["column"], yours["value"], yours["seeds"]) == ("MATH", "57.5", "2")


def test_a_source_without_a_verdict_is_a_dash_as_one_that_was_not_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "recipes/lib"))
    paper = importlib.import_module("paper")
    job = paper.Evaluation("model", ("math_test", "gsm8k_test"), "paper", 0)
    jobs = SimpleNamespace(
        chosen=lambda element: {"0.2 0.8": {job.sets: job.model}}, trainings=lambda element: [],
        args=SimpleNamespace(smoke=False, out=tmp_path),
    )  # fmt: skip
    paper.Jobs.write_table(jobs, "table3", {job: {"sources": {"math_test": {"pass@1": 0.572}, "gsm8k_test": {}}}})
    assert "|  | yours, `paper` | 57.2 | – | – |" in (tmp_path / "table3.md").read_text()
    assert "GSM8K,yours" not in (tmp_path / "table3.csv").read_text()
