"""Compare the trees of `grammar.py` by value, to as many digits as the comparison needs.

Numbers are exact fractions as long as they are rational, and mpmath's beyond. Two values are equal if their difference
is below the rounding of the largest quantity in them; the number of digits is three times their range of magnitudes, so
that what cancels is still seen. Where that takes more than `MAX_PRECISION` digits, they are not equal.

Formulas are compared at points. A letter in a floor, a factorial, a gcd and the like takes whole numbers.
"""

from __future__ import annotations

import math
import operator
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import mpmath
from mpmath import mp

from riskpo_openrlhf.verifiers.math.grammar import letters, nodes
from riskpo_openrlhf.verifiers.math.limits import MAX_BITS, MAX_PRECISION, MAX_TERMS, Unreadable
from riskpo_openrlhf.verifiers.math.numbers import CLOSE_TO

_DIGITS = 60  # of the first try
_WHOLE = {"floor", "ceiling", "mod", "gcd", "lcm", "factorial", "double factorial", "binomial", "sum", "prod"}
_NATURAL = _WHOLE - {"floor", "ceiling", "mod"}  # formulas with these are meant for 0, 1, 2, …
_POINTS, _WHOLE_POINTS = 13, 48
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23)


def same_value(gold: tuple, answer: tuple, close: bool = False) -> bool:
    """Tell whether two trees have the same values; `close`: values that differ by `CLOSE` are the same.

    Equality at the points is as good as a proof, unless somebody constructed the answer to be near.
    """
    agreed = 0
    for pair in _values(gold, answer) if gold != answer else ():
        if not pair.is_equal(close):
            return False
        agreed += 1
    return gold == answer or agreed >= (3 if letters(gold) | letters(answer) else 1)


def same_up_to_a_factor(gold: tuple, answer: tuple, close: bool = False, positive: bool = False) -> bool:
    """Tell whether one tree is the other times a number, as the two forms of an equation are.

    `positive`: the number must be positive, as in an inequality.
    """
    if not letters(gold) or letters(gold) != letters(answer):
        return False
    first, agreed = None, 0
    for pair in _values(gold, answer):
        if min(abs(pair.gold), abs(pair.answer)) <= pair.noise:
            if not pair.is_equal(close):
                return False
            continue
        first = first or pair
        if not pair.times(first).is_equal(close) or (positive and not mp.re(pair.gold / pair.answer) > 0):
            return False
        agreed += 1
    return agreed >= 3


@dataclass(frozen=True)
class Pair:
    """Two values, both exact or both not. `noise` is what rounding can make of their difference."""

    gold: object
    answer: object
    noise: object

    def is_equal(self, close: bool) -> bool:
        allowed = max(abs(self.gold), abs(self.answer)) * int(close) / CLOSE_TO
        return abs(self.gold - self.answer) <= max(self.noise, allowed)

    def times(self, other: Pair) -> Pair:
        """Return a pair that is equal if gold and answer have one ratio in both pairs."""
        if type(self.gold) is not type(other.gold):
            self, other = (Pair(_inexact(p.gold), _inexact(p.answer), p.noise) for p in (self, other))
        noise = self.noise * (abs(other.gold) + abs(other.answer)) + other.noise * (abs(self.gold) + abs(self.answer))
        return Pair(self.gold * other.answer, self.answer * other.gold, noise)


def real_value(tree: tuple) -> Fraction | None:
    """Return the value of a tree to many digits; None if it has letters or is not real."""
    if letters(tree):
        return None
    with mp.workdps(_DIGITS):
        try:
            value = Context({}, False).value(tree)
        except Undefined:
            return None
        return value if isinstance(value, Fraction) else Fraction(mpmath.nstr(value, 40))


def _values(gold: tuple, answer: tuple) -> Iterator[Pair]:
    """Yield the values of two trees at each point where both have one."""
    complex_values = any(node == ("constant", "i") for tree in (gold, answer) for node in nodes(tree))
    for point in _points(gold, answer):
        digits, size = _DIGITS, 0
        while True:
            with mp.workdps(digits):
                context = Context(point, complex_values)
                try:
                    g, a = context.value(gold), context.value(answer)
                except Undefined:
                    break
                if isinstance(g, Fraction) and isinstance(a, Fraction):
                    yield Pair(g, a, 0)
                    break
                size = size or math.ceil(context.bits * 0.30103) + 1
                g, a = _inexact(g), _inexact(a)
                noise = mp.mpf(10) ** (size + 20 - digits) * mp.mpf(2) ** context.largest
                enough = 3 * size + 50
                if digits >= enough or abs(g - a) > noise:
                    yield Pair(g, a, noise)
                    break
                if enough > MAX_PRECISION:
                    raise Unreadable
                digits = enough


def _points(gold: tuple, answer: tuple) -> Iterator[dict[str, Fraction]]:
    """Yield values of the letters: whole numbers, fractions in (0, 2), below 0, and larger ones."""
    names = sorted(letters(gold) | letters(answer))
    if not names:
        yield {}
        return
    whole, real, natural = _whole_letters(gold, answer)
    positive = _positive_letters(gold, answer)
    draws = random.Random(0)
    for k in range(_WHOLE_POINTS if whole else _POINTS):
        point = {}
        for i, name in enumerate(names):
            negative = name not in positive and k % 4 == 3
            if name in whole and not (name in real and k % 2):
                low = 0 if name in natural else -9
                point[name] = Fraction(k + low if len(names) == 1 and k < 36 else draws.randint(low, 12))
                if k % 8 == 5 and name not in natural:
                    point[name] = Fraction(draws.choice((64, 100, 127, 128, 243, 1000, 1023, 1024)))
            elif k == 5:
                point[name] = Fraction(_PRIMES[-i % len(_PRIMES)])
            elif k % 2 == 0 and k > 5:
                point[name] = Fraction(draws.randint(60, 900), 29)
            else:
                point[name] = Fraction((37 * i + 11 * k) % 53 + 3, 29) * (
                    -1 if negative and (k == 3 or draws.random() < 0.6) else 1
                )
        yield point


def _whole_letters(*trees: tuple) -> tuple[set[str], set[str], set[str]]:
    """Return the letters that take whole numbers, those of them that take others too, and those not below 0."""
    whole, real, natural = set(), set(), set()
    for node in (node for tree in trees for node in nodes(tree)):
        if node[0] in _WHOLE:
            bounds = ("*", *node[2:4]) if node[0] in ("sum", "prod") else node
            whole |= letters(bounds)
            if node[0] in ("floor", "ceiling"):
                real |= {name for name in letters(node) if name[0] not in "ijklmnpqNMK"}
            elif node[0] in _NATURAL:
                natural |= letters(bounds)
        elif node[0] == "^" and node[1][0] in ("number", "*") and _is_negative(node[1]):
            whole |= letters(node[2])
        elif node[0] in ("sin", "cos", "tan", "cot") and ("constant", "pi") in set(nodes(node)):
            whole |= {name for name in letters(node) if name in ("k", "m", "n")}
    return whole, real, natural


def _is_negative(tree: tuple) -> bool:
    return not letters(tree) and (real_value(tree) or 0) < 0


def _positive_letters(gold: tuple, answer: tuple) -> set[str]:
    """Return the letters that stand for positive quantities.

    They have an index, are Greek or capitals, or are under a root of the gold, and stand in no bars. Coordinates and
    angles may be negative.
    """
    under_roots, in_bars = set(), set()
    for node in nodes(gold):
        under_roots |= letters(node) if node[0] == "root" else set()
    for node in (*nodes(gold), *nodes(answer)):
        in_bars |= letters(node) if node[0] == "abs" else set()
    physical = {name for name in letters(gold) if "_" in name or name[0] == "\\" or name[0].isupper()}
    found = (under_roots | physical) - in_bars
    return {
        name for name in found if not re.match(r"[xyzt](?![a-z])|\\(?:theta|phi|varphi|alpha|beta|gamma|psi)", name)
    }


class Undefined(ValueError):
    """An expression has no value at a point, or none that is real."""


class Context:
    """The values of letters, and what is seen on the way: the range of magnitudes, and how many terms are left."""

    def __init__(self, point: dict, complex_values: bool):
        self.point, self.complex_values = dict(point), complex_values
        self.bits, self.largest, self.terms = 1, -(10**9), MAX_TERMS

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
            result = self.series(kind, *parts)
        elif kind == "apply":
            seed = f"{parts[0]}({', '.join(mpmath.nstr(_inexact(self.value(part)), 20) for part in parts[1:])})"
            result = Fraction(random.Random(seed).randrange(1, 10**6), 10**6)
        else:
            result = _OPERATIONS[kind](self, *(self.value(part) for part in parts))
        return self.seen(result)

    def seen(self, x):
        """Note the magnitude of a value, and return it: real, if it has to be."""
        if isinstance(x, Fraction):
            bits = max(x.numerator.bit_length(), x.denominator.bit_length())
            magnitude = x.numerator.bit_length() - x.denominator.bit_length()
        else:
            if isinstance(x, mp.mpc):
                if x.imag == 0:
                    x = x.real
                elif not self.complex_values:
                    raise Undefined
            if not mp.isfinite(x):
                raise Undefined
            magnitude = int(mp.mag(x)) if x else 0
            bits = abs(magnitude)
        if bits > MAX_BITS:
            raise Unreadable
        self.bits, self.largest = max(self.bits, bits), max(self.largest, magnitude)
        return x

    def series(self, kind: str, letter: tuple, first: tuple, last: tuple, term: tuple):
        first, last = _whole(self.value(first)), _whole(self.value(last))
        if last < first - 1:
            raise Undefined
        self.terms -= last - first + 1
        if self.terms < 0:
            raise Unreadable
        outer, total = self.point.get(letter[1]), Fraction(int(kind == "prod"))
        combine = _add if kind == "sum" else _multiply
        for number in range(first, last + 1):
            self.point[letter[1]] = Fraction(number)
            total = self.seen(combine(self, total, self.value(term)))
        self.point[letter[1]] = outer
        return total


def _inexact(x):
    return mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def _whole(x) -> int:
    """Return a value that is whole, but for rounding, as an integer."""
    if isinstance(x, Fraction):
        if x.denominator != 1:
            raise Undefined
        return x.numerator
    if isinstance(x, mp.mpc) or _nearest(x) is None:
        raise Undefined
    return _nearest(x)


def _nearest(x) -> int | None:
    """Return the integer that x differs from by rounding only; None if there is none."""
    nearest = int(mp.nint(x))
    return nearest if abs(x - nearest) <= mp.mpf(10) ** (-mp.dps * 2 // 3) * max(1, abs(x)) else None


def _both(operation):
    def apply(_, first, *rest):
        for x in rest:
            if isinstance(first, Fraction) != isinstance(x, Fraction):
                first, x = _inexact(first), _inexact(x)
            first = operation(first, x)
        return first

    return apply


_add, _multiply = _both(operator.add), _both(operator.mul)


def _power(context: Context, base, exponent):
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        power = exponent.numerator
        if base == 0 and power <= 0:
            raise Undefined
        if isinstance(base, Fraction):
            if abs(power) * max(base.numerator.bit_length(), base.denominator.bit_length()) > MAX_BITS + abs(power):
                raise Unreadable
            return base**power
        if abs(power) > 2**64:
            raise Unreadable
        return base**power
    if base == 0:
        if isinstance(exponent, mp.mpc) or exponent <= 0:
            raise Undefined
        return Fraction(0)
    base, real = _inexact(base), not isinstance(base, mp.mpc)
    if real and base < 0 and not context.complex_values:  # the real root, where there is one
        if not isinstance(exponent, Fraction) or exponent.denominator % 2 == 0:
            nearest = None if isinstance(exponent, (Fraction, mp.mpc)) else _nearest(exponent)
            if nearest is None:
                raise Undefined
            return base**nearest
        sign = -1 if exponent.numerator % 2 else 1
        return sign * mp.exp(_inexact(exponent) * mp.log(-base))
    if mp.mag(mp.log(abs(base))) + mp.mag(_inexact(exponent)) > 64:
        raise Unreadable
    return mp.power(base, _inexact(exponent))


def _root(context: Context, index, base):
    if index == 0:
        raise Undefined
    if index == 2 and isinstance(base, Fraction) and base >= 0:
        above, below = math.isqrt(base.numerator), math.isqrt(base.denominator)
        if above * above == base.numerator and below * below == base.denominator:
            return Fraction(above, below)
    return _power(context, base, 1 / index if isinstance(index, Fraction) else 1 / _inexact(index))


def _exponential(_, x):
    x = _inexact(x)
    if x and mp.mag(x) > 18:
        raise Unreadable
    return mp.exp(x)


def _logarithm(context: Context, x, base=None):
    if x == 0 or base == 0 or base == 1:
        raise Undefined
    if not context.complex_values and not x > 0:
        raise Undefined
    return mp.log(_inexact(x)) / (1 if base is None else mp.log(_inexact(base)))


def _floor(_, x):
    if isinstance(x, mp.mpc):
        raise Undefined
    if isinstance(x, Fraction):
        return Fraction(math.floor(x))
    nearest = _nearest(x)
    return Fraction(int(mp.floor(x)) if nearest is None else nearest)


def _of_integers(function):
    return lambda _, *values: Fraction(function(*map(_whole, values)))


def _factorial(_, x):
    if isinstance(x, Fraction) and x.denominator == 1:
        number = x.numerator
        if number < 0:
            raise Undefined
        if number.bit_length() * number > MAX_BITS:
            raise Unreadable
        return Fraction(math.factorial(number))
    if mp.mag(_inexact(x)) > 16:
        raise Unreadable
    return mp.gamma(_inexact(x) + 1)


def _double_factorial(number: int) -> int:
    if number < 0:
        raise Undefined
    if number.bit_length() * number > MAX_BITS:
        raise Unreadable
    return math.prod(range(number, 0, -2))


def _binomial(context: Context, n, k):
    if isinstance(k, Fraction) and k.denominator == 1 and isinstance(n, Fraction):
        if n.denominator == 1 and n >= 0:
            k = min(k, n - k)
        if k < 0:
            return Fraction(0)
        if k * max(n.numerator.bit_length(), n.denominator.bit_length()) > MAX_BITS:
            raise Unreadable
        return math.prod((n - i for i in range(int(k))), start=Fraction(1)) / math.factorial(int(k))
    values = (_factorial(context, x) for x in (n, k, _add(context, n, -k)))
    above, one, two = map(_inexact, values)
    return above / (one * two)


def _function(function, inverse: bool = False):
    """A function of mpmath; `inverse`: one divided by it. At a pole, which rounding hides, it has no value."""

    def apply(_, x):
        if x and mp.mag(_inexact(x)) > 1024:
            raise Unreadable
        try:
            value = function(_inexact(x))
            value = 1 / value if inverse else value
        except (ZeroDivisionError, ValueError):
            raise Undefined from None
        if mp.mag(value) > mp.prec * 2 // 3:
            raise Undefined
        return value

    return apply


def _extreme(function):
    def apply(_, *values):
        if any(isinstance(x, mp.mpc) for x in values):
            raise Undefined
        return function(values, key=_inexact)

    return apply


def _modulo(n: int, m: int) -> int:
    if m == 0:
        raise Undefined
    return n % m


_OPERATIONS = {
    "+": _add, "*": _multiply, "^": _power, "root": _root, "abs": lambda _, x: abs(x), "exp": _exponential,
    "ln": _logarithm, "log": _logarithm, "floor": _floor, "ceiling": lambda _, x: -_floor(_, -x),
    "factorial": _factorial, "double factorial": _of_integers(_double_factorial), "binomial": _binomial,
    "max": _extreme(max), "min": _extreme(min), "gcd": _of_integers(math.gcd),
    "lcm": _of_integers(math.lcm), "mod": _of_integers(_modulo),
    **{name: _function(getattr(mp, name)) for name in
       "sin cos tan cot sec csc asin acos atan acot sinh cosh tanh coth".split()},
}  # fmt: skip
