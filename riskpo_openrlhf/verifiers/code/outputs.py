"""Compare what a program gave with what a test expects: by LiveCodeBench's rules, or within a tolerance.

Whether real numbers may differ is a property of the problem. `tolerance_of` takes it from the test set: from its field
`tolerance`, or from the numbers that it shows.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal

TOLERANCE = 1e-6  # absolute or relative: the usual one of contests
PLACES = 5  # a number with so many decimals is a rounded real number
NOISE = 1e-12  # of double precision

_ROUNDED = re.compile(rf"(?<![\w.])\d+\.\d{{{PLACES},}}(?![\w.])")


def tolerance_of(tests: dict) -> float | None:
    """Return by how much real numbers of the outputs may differ, absolutely or relatively; None: not at all."""
    if "tolerance" in tests:
        return tests["tolerance"] or None
    return TOLERANCE if any(_ROUNDED.search(test["output"]) for test in tests.get("tests", ())) else None


def same_output(output: str, expected: str, tolerance: float | None = None) -> bool:
    """Compare standard outputs line by line, without spaces at the ends of lines and text.

    Two lines are also the same if they hold the same numbers. Numbers are compared as decimals, exactly: `1.0` is `1`,
    `0.1` is not `0.10001`. With a tolerance, they are also the same if their words are, and their numbers are close.
    """
    output, expected = output.strip(), expected.strip()
    if output.count("\n") != expected.count("\n"):
        return False
    lines = zip(output.split("\n"), expected.split("\n"), strict=True)
    return all(_same_line(line, wanted, tolerance) for line, wanted in lines)


def _same_line(line: str, expected: str, tolerance: float | None) -> bool:
    line, expected = line.strip(), expected.strip()
    if line == expected:
        return True
    numbers = expected.split()
    words = line.split(None, len(numbers))
    if len(words) != len(numbers):
        return False
    if tolerance is not None:
        return all(map(_same_word, words, numbers, [tolerance] * len(words)))
    try:
        return list(map(_number, words)) == list(map(_number, numbers))
    except ArithmeticError:
        return False


def _same_word(word: str, expected: str, tolerance: float) -> bool:
    try:
        number, wanted = _number(word), _number(expected)
        whole = expected.lstrip("+-").isdigit() and number == number.to_integral_value()
        same = number == wanted or (number.is_nan() and wanted.is_nan())
        return same or (not whole and _close(number, wanted, tolerance))
    except ArithmeticError:
        return word == expected


def _number(word: str) -> Decimal:
    """Read a decimal. Raises `ArithmeticError` for anything else, for Python's 1_000, and for digits such as 007."""
    return Decimal("no number" if "_" in word or re.match(r"[+-]?0\d", word) else word)


def same_result(output: str, expected: str, tolerance: float | None = None) -> bool:
    """Compare a function's result with the expected one, both JSON, by Python's `==`: 1 is 1.0 and True.

    An expected real number stands for those that differ from it by double precision's noise, or by the tolerance.
    """
    if len(output) > 12 * len(expected) + 1024:  # the same value can't be that much longer
        return False
    try:
        return _same_value(read_json(output), read_json(expected), tolerance or NOISE)
    except (ValueError, ArithmeticError, RecursionError):
        return False


def read_json(text: str):
    """Read JSON with decimals in place of floats. Integers that are too long for `int` keep their digits."""
    return json.loads(text, parse_float=_real, parse_int=_integer)


def _integer(digits: str) -> int | tuple[str]:
    return int(digits) if len(digits) <= 4000 else (digits,)


def _real(text: str) -> Decimal | float:
    return Decimal(text) if math.isfinite(float(text)) else float(text)


def _same_value(value, expected, tolerance: float) -> bool:
    if isinstance(expected, list) and isinstance(value, list):
        return len(value) == len(expected) and all(
            _same_value(a, b, tolerance) for a, b in zip(value, expected, strict=True)
        )
    if isinstance(expected, dict) and isinstance(value, dict):
        return value.keys() == expected.keys() and all(_same_value(value[k], expected[k], tolerance) for k in expected)
    if isinstance(expected, Decimal) and isinstance(value, (int, Decimal)):
        return value == expected or _close(Decimal(value), expected, tolerance)
    return value == expected


def _close(value: Decimal, expected: Decimal, tolerance: float) -> bool:
    """Tell whether a value is within the tolerance of a real number, or rounds to the decimals that it shows."""
    if not (value.is_finite() and expected.is_finite()):
        return False
    allowed = Decimal(str(tolerance)) * max(Decimal(1), abs(expected))
    if -expected.as_tuple().exponent >= PLACES:
        allowed = max(allowed, Decimal((0, (5,), expected.as_tuple().exponent - 1)))
    return abs(value - expected) <= allowed
