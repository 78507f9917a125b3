"""The paper's tables with your own numbers beside the paper's: values, differences, intervals over seeds.

Numbers of the paper are copied from arXiv:2510.00911, Tables 1 to 5: Pass@1 in per cent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from math import isnan
from typing import NamedTuple

from riskpo_openrlhf.evaluation.intervals import Interval, interval
from riskpo_openrlhf.tables import plus_minus

# Measured values of a row: setting of the evaluation -> data source -> Pass@1 in per cent, one value a seed.
Measured = Mapping[str, Mapping[str, Sequence[float]]]


class Table(NamedTuple):
    """A table of the paper.

    `columns`: heading -> data sources whose mean it shows, in the paper's order; `rows`: label -> a value a column.
    """

    title: str
    columns: dict[str, tuple[str, ...]]
    rows: dict[str, tuple[float, ...]]


_HARD = {
    "AIME25": ("aime25",), "AIME24": ("aime24",), "AMC": ("amc",), "MATH500": ("math500",), "Minerva": ("minerva",),
    "Oly.": ("olympiadbench",), "Avg.": ("aime25", "aime24", "amc", "math500", "minerva", "olympiadbench"),
}  # fmt: skip
_EASY = {"MATH": ("math_test",), "GSM8K": ("gsm8k_test",), "Avg.": ("math_test", "gsm8k_test")}

TABLES = {
    "table1": Table("Table 1: Pass@1 on hard mathematics", _HARD, {
        "Qwen2.5-Math-1.5B": (6.6, 10.0, 43.4, 61.8, 15.1, 28.4, 27.55),
        "Qwen2.5-Math-1.5B-Instruct": (10.0, 10.0, 48.2, 64.2, 26.5, 35.2, 32.35),
        "DeepSeek-R1-Distill-Qwen-1.5B": (13.3, 13.3, 32.5, 59.8, 20.3, 30.5, 28.28),
        "Dr.GRPO": (20.0, 23.3, 54.7, 77.4, 26.3, 38.1, 39.97),
        "GRPO": (20.0, 20.0, 56.6, 79.2, 27.1, 39.6, 40.41),
        "GPG": (16.6, 20.0, 55.7, 74.5, 28.8, 37.6, 38.90),
        "DAPO": (30.0, 26.6, 58.6, 78.2, 29.2, 40.6, 43.87),
        "GMPO": (23.3, 23.3, 54.2, 76.2, 29.2, 39.2, 40.90),
        "RiskPO": (33.3, 33.3, 60.8, 81.8, 29.5, 41.2, 46.65),
    }),
    "table2": Table(
        "Table 2: Pass@1 on easy mathematics, code and geometry",
        {"MATH": ("math_test",), "GSM8K": ("gsm8k_test",), "Avg. (math.)": ("math_test", "gsm8k_test"),
         "LCB": ("livecodebench_v5",), "Geo3K": ("geometry3k_test",),
         "Avg. (others)": ("livecodebench_v5", "geometry3k_test")},
        {"GRPO": (54.3, 78.8, 66.55, 25.8, 53.7, 39.75),
         "DAPO": (55.2, 80.3, 67.75, 26.2, 54.3, 40.25),
         "RiskPO": (56.2, 80.3, 68.25, 26.8, 54.5, 40.65)},
    ),
    "table3": Table("Table 3: quantile levels (alpha, beta)", _EASY, {
        "0.2 0.8": (56.2, 80.3, 68.25), "0.1 0.8": (55.1, 78.7, 66.90), "0.3 0.8": (55.8, 79.2, 67.50),
        "0.4 0.8": (55.6, 79.6, 67.60), "0.2 0.6": (55.5, 79.0, 67.25), "0.2 0.7": (56.0, 79.5, 67.75),
        "0.2 0.9": (55.0, 78.9, 66.95),
    }),
    "table4": Table("Table 4: bundle size B", _EASY, {
        "1": (53.6, 78.0, 65.80), "2": (55.4, 79.0, 67.20), "3": (55.8, 79.5, 67.65), "4": (56.0, 80.1, 68.05),
        "5": (56.2, 80.3, 68.25), "6": (55.8, 79.9, 67.85), "7": (55.8, 79.4, 67.6), "8": (55.2, 78.8, 67.00),
        "9": (54.9, 78.6, 66.75), "10": (54.7, 78.6, 66.65),
    }),
    "table5": Table("Table 5: weight omega of the tail", _EASY, {
        "0.0": (54.8, 79.6, 67.20), "0.1": (55.1, 80.0, 67.55), "0.5": (56.2, 80.3, 68.25),
        "0.6": (56.0, 80.2, 68.10), "1.0": (55.7, 80.0, 67.85),
    }),
}  # fmt: skip


def measured_cell(sources: tuple[str, ...], values: Mapping[str, Sequence[float]]) -> Interval | None:
    """Average data sources seed by seed, then over seeds. None if a source was not measured, or is NaN for a seed.

    Raises:
        ValueError: the sources have different numbers of seeds.
    """
    if any(source not in values for source in sources):
        return None
    per_source = [values[source] for source in sources]
    if len({len(seeds) for seeds in per_source}) > 1:
        raise ValueError(f"{', '.join(sources)} were measured with different numbers of seeds")
    means = [sum(seed) / len(sources) for seed in zip(*per_source, strict=True)]
    return None if any(map(isnan, means)) else interval(means)


def as_markdown(table: Table, measured: Mapping[str, Measured]) -> str:
    """Write the table in Markdown: for each row the paper's line, then for each setting yours and the difference.

    Args:
        measured: label of a row -> what was measured. Rows that are missing show the paper's line alone.
    """
    lines = [
        f"**{table.title}**, %",
        "",
        _row(["", "", *table.columns]),
        _row(["---"] * 2 + ["---:"] * len(table.columns)),
    ]
    for label, paper in table.rows.items():
        digits = (1 if len(sources) == 1 else 2 for sources in table.columns.values())  # as printed there
        lines.append(_row([label, "paper", *(f"{value:.{n}f}" for value, n in zip(paper, digits, strict=True))]))
        for setting, values in measured.get(label, {}).items():
            cells = [measured_cell(sources, values) for sources in table.columns.values()]
            lines.append(_row(["", f"yours, `{setting}`", *(_shown(cell) for cell in cells)]))
            if setting == "paper":
                lines.append(_row(["", "difference", *(_shown(*pair) for pair in zip(cells, paper, strict=True))]))
    note = "`paper`: one greedy answer of 3,072 tokens; `public`: as public reports sample each benchmark."
    if any(len(seeds) > 1 for rows in measured.values() for values in rows.values() for seeds in values.values()):
        note += " ±: half of the 95 % interval over seeds."
    return "\n".join([*lines, "", note, ""])


def as_csv(table: Table, measured: Mapping[str, Measured]) -> str:
    """Write the table as CSV, a line a value; `origin` is `paper` or `yours`."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(["row", "column", "origin", "setting", "value", "half_interval", "seeds"])
    for label, paper in table.rows.items():
        for column, value in zip(table.columns, paper, strict=True):
            write([label, column, "paper", "", value, "", ""])
        for setting, values in measured.get(label, {}).items():
            for column, sources in table.columns.items():
                if cell := measured_cell(sources, values):
                    half = "" if isnan(cell.half) else round(cell.half, 4)
                    write([label, column, "yours", setting, round(cell.mean, 4), half, cell.n])
    return text.getvalue()


def _shown(cell: Interval | None, less: float | None = None) -> str:
    """Format a cell, or its difference to `less` with a sign."""
    if cell is None:
        return plus_minus(None)
    return plus_minus(cell.mean - (less or 0), cell.half, 1, "" if less is None else "+")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
