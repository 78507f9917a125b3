"""The geometry verifier: the math verifier, and decimals may be rounded."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.verifiers import geometry


def right(gold: str, answer: str) -> bool:
    return geometry.verify(rf"<think>\boxed{{0}}</think> It is \boxed{{{answer}}}.", gold).correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"4 \sqrt { 7 }", r"4\sqrt{7}"),
        (r"4 \sqrt { 7 }", r"\sqrt{112}"),
        (r"\frac { 2 \sqrt { 2 } } { 5 }", r"\frac{2\sqrt2}{5}"),
        (r"\frac { 2 \sqrt { 2 } } { 5 }", "0.57"),
        (r"4 \sqrt { 7 }", "10.58"),
        (r"4 \sqrt { 7 }", "10.583"),
        (r"\frac { 50 } { 3 }", "16.67"),
        ("13.5", "13.5"),
        ("13.5", "13.52"),
        ("13.5", "13.45"),
        ("10.6", r"4\sqrt{7}"),
        ("10.6", r"4\sqrt{7} \text{ cm}"),
        ("13.5", r"13.5^\circ"),
        ("42", r"42^{\circ}"),
        ("42", r"x = 42 \text{ degrees}"),
        ("42", "42.0"),
        ("B", r"\text{(B)}"),
    ],
)
def test_an_answer_is_right_as_far_as_the_decimals_go(gold, answer):
    assert right(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("13.5", "13.56"),
        ("13.5", "13.44"),
        ("13.5", "13"),
        ("13.5", "14"),
        (r"4 \sqrt { 7 }", "10.6"),
        (r"4 \sqrt { 7 }", "10.59"),
        (r"4 \sqrt { 7 }", r"7 \sqrt { 4 }"),
        ("42", "41.9"),
        ("42", "42.01"),
        ("42", "B"),
        (r"4 \sqrt { 7 }", "B"),
        ("B", "42"),
        ("10.6", "x"),
    ],
)
def test_an_answer_beyond_the_decimals_is_wrong(gold, answer):
    assert not right(gold, answer)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 999), st.integers(2, 4))
def test_a_root_rounded_to_two_places_or_more_is_right(square, places):
    root = square**0.5
    assert right(rf"\sqrt {{ {square} }}", f"{root:.{places}f}")
    assert right(f"{root:.1f}", rf"\sqrt{{{square}}}") or root == int(root)


def test_a_response_without_an_answer_says_so():
    assert geometry.verify("It is 42.", "42").status == "no_answer"
