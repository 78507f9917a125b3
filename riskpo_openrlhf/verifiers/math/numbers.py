"""Plain numbers: decimals and fractions of digits, compared exactly and without algebra."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from riskpo_openrlhf.verifiers.math.limits import MAX_DIGITS

CLOSE_TO = 10**8  # a decimal may stand for a value with more digits that differs by one part in so many
_LONG_DECIMAL = re.compile(r"\d+\.\d+")

_DIGITS, _SOME_DIGITS = rf"\d{{1,{MAX_DIGITS}}}", rf"\d{{0,{MAX_DIGITS}}}"
_DECIMAL = re.compile(rf"([+-]?)(?:({_DIGITS})|({_SOME_DIGITS})\.({_DIGITS})|({_DIGITS})\.)")
_FRACTION = re.compile(rf"([+-]?)(?:\\frac\{{(-?{_DIGITS})\}}\{{({_DIGITS})\}}|({_DIGITS}) ?/ ?({_DIGITS}))")


@dataclass(frozen=True)
class PlainNumber:
    """`places`: digits after the point; 0 for whole numbers, None for fractions."""

    value: Fraction
    places: int | None

    @property
    def is_whole(self) -> bool:
        return self.value.denominator == 1


def plain_number(text: str) -> PlainNumber | None:
    r"""Read `-3`, `0.25`, `\frac{1}{2}` or `1/2`. Returns None for anything else."""
    if match := _DECIMAL.fullmatch(text):
        sign, whole, before, after, pointed = match.groups()
        value, places = (Fraction(f"{before or 0}.{after}"), len(after)) if after else (Fraction(whole or pointed), 0)
    elif (match := _FRACTION.fullmatch(text)) and int(match[3] or match[5]):
        sign, value, places = match[1], Fraction(int(match[2] or match[4]), int(match[3] or match[5])), None
    else:
        return None
    return PlainNumber(-value if sign == "-" else value, places)


def same_number(gold: PlainNumber, answer: PlainNumber) -> bool:
    """Tell whether two numbers are equal; of two that are not whole, a decimal may differ by one in `CLOSE_TO`."""
    if gold.value == answer.value:
        return True
    close = gold.places != answer.places and not gold.is_whole and not answer.is_whole
    return close and abs(gold.value - answer.value) * CLOSE_TO <= abs(gold.value)


def has_long_decimal(text: str) -> bool:
    """Tell whether a text has a decimal of eight digits or more, which may stand for a value with more digits."""
    return any(len(match[0].replace(".", "").strip("0")) >= 8 for match in _LONG_DECIMAL.finditer(text))
