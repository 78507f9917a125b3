"""What is too large to be graded. Every limit of the math verifier is in this file."""

from __future__ import annotations

MAX_CHARACTERS = 2_000  # of an answer; the longest gold of the benchmarks has a few hundred
MAX_COMMANDS = 200  # \frac, \binom, \sqrt, ^ and _ in an answer
MAX_NESTED_NODES = 12  # lists in sets in equations …
MAX_ELEMENTS = 100  # of a list or set
MAX_DIGITS = 400  # of a number that is compared without algebra
MAX_NESTED_BRACKETS = 40  # of an expression
MAX_ROWS = 5  # of a determinant
MAX_BITS = 200_000  # of a number that is worth evaluating
MAX_PRECISION = 20_000  # digits
MAX_TERMS = 5_000  # of sums and products, per evaluation
QUICK_SECONDS = 0.05  # of CPU time; a comparison that takes longer goes to the workers for slow ones
MAX_VECTOR = 300  # characters of a sum along i, j and k, whose pattern takes quadratic time
MAX_GAMMA = 1_000  # digits of a factorial that is no whole number's
MAX_CALCULUS = 200  # characters of an expression for SymPy, whose parser's time explodes


class Unreadable(ValueError):
    """The text can't be taken apart, or its value is too large to be evaluated."""
