"""Compare what a program gave with what a test expects, by LiveCodeBench's rules."""

from __future__ import annotations

import json
from decimal import Decimal


def same_output(output: str, expected: str) -> bool:
    """Compare standard outputs line by line, without spaces at the ends of lines and text.

    Two lines are also the same if they hold the same numbers. Numbers are compared as decimals, exactly: `1.0` is `1`,
    `0.1` is not `0.10001`.
    """
    output, expected = output.strip(), expected.strip()
    if output.count("\n") != expected.count("\n"):
        return False
    return all(map(_same_line, output.split("\n"), expected.split("\n")))


def _same_line(line: str, expected: str) -> bool:
    line, expected = line.strip(), expected.strip()
    if line == expected:
        return True
    numbers = expected.split()
    try:
        return [Decimal(n) for n in line.split(None, len(numbers))] == [Decimal(n) for n in numbers]
    except ArithmeticError:
        return False


def same_result(output: bytes, expected: str) -> bool:
    """Compare a function's result with the expected one, both JSON, by Python's `==`: 1 is 1.0 and True."""
    if len(output) > 8 * len(expected) + 1024:  # the same value can't be that much longer
        return False
    try:
        return json.loads(output) == json.loads(expected)
    except (ValueError, RecursionError):
        return False
