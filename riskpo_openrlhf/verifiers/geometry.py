r"""Grade an answer to a geometry problem: like `math`, but decimals may be rounded.

The golds of Geometry3K are integers, roots and fractions such as `4 \sqrt { 7 }`, and rounded decimals. A response
may give either form. So the two are compared to the places that the decimal has.
"""

from __future__ import annotations

from riskpo_openrlhf.verifiers import Verdict, math


def verify(response: str, gold: str) -> Verdict:
    """Compare as `math.verify` does, and also accept a decimal that is the other value rounded to its places.

    A decimal gold accepts any answer that rounds to it. A gold with a root or a fraction accepts a decimal of at least
    two places. A whole gold accepts no rounded decimal: it is exact.
    """
    return math.verify(response, gold, rounded=True)
