"""Evaluate a tree of `grammar.py`: exactly while values are rational, else by mpmath's numbers."""

from __future__ import annotations

import math
import operator
import random
import time
from fractions import Fraction
from functools import reduce

import mpmath
from mpmath import mp

from riskpo_openrlhf.verifiers.math.limits import MAX_BITS, MAX_GAMMA, MAX_TERMS, Unreadable


class Undefined(ValueError):
    """An expression has no value at a point, or none that is real."""


class TooSlow(Exception):
    """A comparison takes more CPU time than `limit_time` allows."""


_deadline = math.inf  # of this process's CPU time


def limit_time(seconds: float) -> None:
    """Let evaluations raise `TooSlow` once this process has used so many more seconds of CPU time."""
    global _deadline
    _deadline = time.process_time() + seconds


class Evaluation:
    """Evaluate trees at a point, to mpmath's current precision.

    Args:
        point: the values of the letters.
        complex_values: allow values that are not real.

    Attributes:
        bits: the most bits, or the largest power of two either way, of any value on the way.
        largest: the largest power of two.
    """

    def __init__(self, point: dict[str, Fraction], complex_values: bool):
        self.point, self.complex_values = dict(point), complex_values
        self.bits, self.largest, self.terms = 1, -MAX_BITS, MAX_TERMS

    def value(self, tree: tuple):
        """Return the value of a tree. Raises `Undefined`, and `Unreadable` if it is too large."""
        kind, *parts = tree
        if kind == "number":
            result = parts[0]
        elif kind == "letter":
            result = self.point[parts[0]]
        elif kind == "constant":
            if parts[0] == "infinity":
                raise Undefined
            result = mp.mpc(0, 1) if parts[0] == "i" else +getattr(mp, parts[0])
        elif kind in ("sum", "prod"):
            result = self._series(kind, *parts)
        elif kind == "apply":  # any value that depends on the function and its arguments
            seed = parts[0] + ", ".join(mpmath.nstr(inexact(self.value(part)), 20) for part in parts[1:])
            result = Fraction(random.Random(seed).randrange(1, 10**6), 10**6)
        else:
            values = [self.value(part) for part in parts]
            try:
                result = _OPERATIONS[kind](self, *values)
            except (TypeError, ZeroDivisionError):  # of complex numbers, or at a pole
                raise Undefined from None
        return self.seen(result)

    def seen(self, x):
        """Note the magnitude of a value. Returns it, as a real number if it is one. Raises `TooSlow`."""
        if time.process_time() > _deadline:
            raise TooSlow
        if isinstance(x, Fraction):
            above, below = x.numerator.bit_length(), x.denominator.bit_length()
            bits, magnitude = max(above, below), above - below
        else:
            x = x.real if isinstance(x, mp.mpc) and x.imag == 0 else x
            if not mp.isfinite(x) or (isinstance(x, mp.mpc) and not self.complex_values):
                raise Undefined
            magnitude = int(mp.mag(x)) if x else 0
            bits = abs(magnitude)
        if bits > MAX_BITS:
            raise Unreadable
        self.bits, self.largest = max(self.bits, bits), max(self.largest, magnitude)
        return x

    def _series(self, kind: str, letter: tuple, first: tuple, last: tuple, term: tuple):
        first, last = _whole(self.value(first)), _whole(self.value(last))
        self.terms -= last - first + 1
        if last < first - 1:
            raise Undefined
        if self.terms < 0:
            raise Unreadable
        outer, total = self.point.get(letter[1]), Fraction(int(kind == "prod"))
        for number in range(first, last + 1):
            self.point[letter[1]] = Fraction(number)
            total = self.seen(_OPERATIONS["+" if kind == "sum" else "*"](self, total, self.value(term)))
        self.point[letter[1]] = outer
        return total


def inexact(x):
    return mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def _nearest(x) -> int | None:
    """Return the integer that a value differs from by rounding at most; None if there is none."""
    if isinstance(x, Fraction):
        return x.numerator if x.denominator == 1 else None
    if isinstance(x, mp.mpc):
        return None
    nearest = int(mp.nint(x))
    return nearest if abs(x - nearest) <= mp.mpf(10) ** (-mp.dps * 2 // 3) * max(1, abs(x)) else None


def _whole(x) -> int:
    nearest = _nearest(x)
    if nearest is None:
        raise Undefined
    return nearest


def _limit(bits: int) -> None:
    if bits > MAX_BITS:
        raise Unreadable


def _power(evaluation: Evaluation, base, exponent):
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        power = abs(exponent.numerator)
        if isinstance(base, Fraction):
            _limit(power * (max(abs(base.numerator), base.denominator).bit_length() - 1))
        _limit(power.bit_length() << 10)
        if power == 0 and base == 0:
            raise Undefined
        return base**exponent.numerator
    if base == 0:
        if exponent < 0:
            raise Undefined
        return Fraction(0)
    if not evaluation.complex_values and base < 0:  # the real root, where there is one
        if isinstance(exponent, Fraction) and exponent.denominator % 2:
            return (-1) ** exponent.numerator * mp.exp(inexact(exponent) * mp.log(-inexact(base)))
        return inexact(base) ** _whole(exponent)
    logarithm = mp.log(inexact(base)) * inexact(exponent)
    _limit(int(abs(logarithm)) if mp.mag(logarithm) < 64 else 2 * MAX_BITS)
    return mp.exp(logarithm)


def _root(evaluation: Evaluation, index, base):
    if index == 2 and isinstance(base, Fraction) and base >= 0:
        above, below = math.isqrt(base.numerator), math.isqrt(base.denominator)
        return Fraction(above, below) if Fraction(above**2, below**2) == base else mp.sqrt(inexact(base))
    return _power(evaluation, base, 1 / index)


def _logarithm(evaluation: Evaluation, x, base=None):
    if x == 0 or base in (0, 1) or not (evaluation.complex_values or x > 0):
        raise Undefined
    return mp.log(inexact(x)) / (1 if base is None else mp.log(inexact(base)))


def _floor(_, x):
    nearest = _nearest(x)
    return Fraction(int((math if isinstance(x, Fraction) else mp).floor(x)) if nearest is None else nearest)


def _factorial(_, x):
    number = _nearest(x)
    if number is None:
        if mp.mag(inexact(x)) > 16 or mp.dps > MAX_GAMMA:
            raise Unreadable
        return mp.gamma(inexact(x) + 1)
    if number < 0:
        raise Undefined
    _limit(number.bit_length() * number)
    return Fraction(math.factorial(number))


def _binomial(_, n, k):
    chosen = _whole(k)
    if not isinstance(n, Fraction):
        raise Undefined
    if n.denominator == 1 and n >= 0:
        chosen = min(chosen, int(n) - chosen)
    _limit(chosen * n.numerator.bit_length())
    return math.prod((n - i for i in range(chosen)), start=Fraction(chosen >= 0)) / math.factorial(max(chosen, 0))


def _double_factorial(number: int) -> int:
    if number < 0:
        raise Undefined
    _limit(number.bit_length() * number)
    return math.prod(range(number, 0, -2))


def _of_two(operation):
    def apply(evaluation: Evaluation, *values):
        exact = all(isinstance(x, Fraction) for x in values)
        return reduce(lambda x, y: evaluation.seen(operation(x, y)), values if exact else [inexact(x) for x in values])

    return apply


def _of_integers(function):
    return lambda _, *values: Fraction(function(*map(_whole, values)))


def _of_one(function):
    """Make an operation of a function of mpmath. It is undefined at a pole, which rounding hides."""

    def apply(_, x):
        if x and mp.mag(inexact(x)) > (17 if function is mp.exp else 1000):
            raise Unreadable
        try:
            value = function(inexact(x))
        except ValueError:
            raise Undefined from None
        if function is not mp.exp and value and mp.mag(value) > mp.prec * 2 // 3:
            raise Undefined
        return value

    return apply


_OPERATIONS = {
    "+": _of_two(operator.add), "*": _of_two(operator.mul), "^": _power, "root": _root, "abs": lambda _, x: abs(x),
    "ln": _logarithm, "log": _logarithm, "floor": _floor, "ceiling": lambda _, x: -_floor(_, -x),
    "factorial": _factorial, "double factorial": _of_integers(_double_factorial), "binomial": _binomial,
    "max": _of_two(max), "min": _of_two(min), "gcd": _of_integers(math.gcd), "lcm": _of_integers(math.lcm),
    "mod": _of_integers(operator.mod),
    **{name: _of_one(getattr(mp, name)) for name in
       "exp sin cos tan cot sec csc asin acos atan acot asec acsc asinh acosh atanh sech csch sinh cosh".split()},
}  # fmt: skip
