"""Tables and numbers as people read them, and as programs do."""

import json
from math import nan

import numpy as np
import pytest

from riskpo_openrlhf.evaluation.intervals import over_seeds
from riskpo_openrlhf.lab.methods_table import markdown
from riskpo_openrlhf.tables import aligned, plus_minus, to_json


def test_columns_are_as_wide_as_their_widest_cell_and_only_the_first_ones_are_flush_left():
    assert aligned([["", "n"], ["long", "1"], ["a", "100"]]) == "        n\nlong    1\na     100"
    assert aligned([["a", "b", "c"], ["aa", "bb", "cc"]], left=2) == "a   b    c\naa  bb  cc"


def test_a_markdown_table_has_its_head_in_the_first_row():
    assert markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"


def test_an_unknown_error_is_left_out_and_an_unknown_value_is_a_dash():
    assert plus_minus(0.25, 0.03) == "0.250 ± 0.030"
    assert plus_minus(0.25, None, 1, "+") == plus_minus(0.25, nan, 1, "+") == "+0.2"
    assert plus_minus(None, 0.1) == plus_minus(nan, 0.1) == "–"


def test_json_has_null_for_what_is_not_a_number():
    assert json.loads(to_json({"a": [nan, float("inf"), 1.5], "b": "±"})) == {"a": [None, None, 1.5], "b": "±"}
    assert "±" in to_json("±")


def test_an_interval_over_seeds_is_student_s():
    mean, half = over_seeds([[1.0, 0], [2, 0], [3, 0]])
    assert list(mean) == [2, 0]
    assert list(half) == pytest.approx([4.302653 / 3**0.5, 0])  # t(0.975) of 2 degrees of freedom, times 1 / √3
    assert np.isnan(over_seeds([[5.0]])[1]).all()
