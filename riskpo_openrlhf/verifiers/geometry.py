r"""Grades an answer to a geometry problem: as `math`, and decimals may be rounded.

The right answers of Geometry3K are integers, roots and fractions such as `4 \sqrt { 7 }`, and decimals that somebody
rounded. Which of both forms a response gives is chance, so they are compared as far as the decimals go.
"""

from __future__ import annotations

from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.math import graded


def verify(response: str, gold: str) -> Verdict:
    """As `math.verify`, and besides: a decimal is right if it is the other value rounded to the decimal's places.

    A decimal gold takes any answer that rounds to it. A gold with a root or a fraction takes a decimal of two places
    or more. A whole gold takes no decimals: it is no rounded value.
    """
    return graded(response, gold, rounded=True)
