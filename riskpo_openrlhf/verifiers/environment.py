"""Read a number from an environment variable."""

from __future__ import annotations

import os


def number_from(variable: str, kind: type, default):
    """Return the variable's value as `int` or `float`, or the default if it is not set or empty.

    Raises `ValueError` unless the value is above 0 and below a million.
    """
    text = os.environ.get(variable) or str(default)
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e6:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{variable}={text!r} is not allowed: {what} above 0 and below 1,000,000")
    return value
