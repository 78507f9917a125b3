"""Compare the trees of `grammar.py` by value, to as many digits as the comparison needs.

Two values are equal if their difference is below the rounding of the largest quantity in them. The number of digits
is three times their range of magnitudes, so that what cancels is still seen. If it takes more than `MAX_PRECISION`
digits, the comparison is not decided, and raises `Unreadable`.

Formulas are compared at points. A letter in a floor, a factorial, a gcd and the like takes whole numbers.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

import mpmath
from mpmath import mp

from riskpo_openrlhf.verifiers.math.evaluate import Evaluation, Undefined, inexact
from riskpo_openrlhf.verifiers.math.grammar import letters, nodes
from riskpo_openrlhf.verifiers.math.limits import MAX_PRECISION, Unreadable
from riskpo_openrlhf.verifiers.math.numbers import CLOSE_TO

_DIGITS = 60  # of the first try
_WHOLE = {"floor", "ceiling", "mod", "gcd", "lcm", "factorial", "double factorial", "binomial", "sum", "prod"}
_NATURAL = _WHOLE - {"floor", "ceiling", "mod"}  # formulas with these are meant for 0, 1, 2, …
_COSTLY = {"factorial", "double factorial", "binomial", "sum", "prod"}  # for large numbers
_POINTS, _WHOLE_POINTS, _LARGE = 13, 48, 80
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23)
_WITH_CORNERS = {"abs", "root", "min", "max"}  # |x - 100| is 100 - x up to 100
_CORNERS = 24


def same_value(gold: tuple, answer: tuple, close: bool = False) -> bool:
    """Tell whether two trees have the same values; `close`: values that differ by `CLOSE` are the same.

    Equality at the points is as good as a proof, unless somebody constructed the answer to be near.
    """
    agreed, has_letters = 0, bool(letters(gold) | letters(answer))
    for pair in _values(gold, answer) if gold != answer else ():
        if not pair.is_equal(close and (has_letters or not pair.has_whole)):
            return False
        agreed += 1
    return gold == answer or agreed >= (3 if has_letters else 1)


def same_up_to_a_factor(gold: tuple, answer: tuple, close: bool = False, positive: bool = False) -> bool:
    """Tell whether one tree is the other times a number, as the two forms of an equation are.

    `positive`: the number must be positive, as in an inequality.
    """
    if not letters(gold) or letters(gold) != letters(answer):
        return False
    first, agreed = None, 0
    for pair in _values(gold, answer, exactly=True):
        if min(abs(pair.gold), abs(pair.answer)) <= pair.noise:
            if not pair.is_equal(close):
                return False
            continue
        first = first or pair
        if not pair.times(first).is_equal(close) or (positive and not mp.re(pair.gold / pair.answer) > 0):
            return False
        agreed += 1
    return agreed >= 3


def same_up_to_a_constant(gold: tuple, answer: tuple, close: bool = False) -> bool:
    """Tell whether the difference of two trees is the same everywhere, as of two antiderivatives."""
    pairs = _values(gold, answer, exactly=True)
    first = next(pairs, None)
    agreed = 0
    for pair in pairs:
        if not pair.minus(first).is_equal(close):
            return False
        agreed += 1
    return agreed > 1


class _OfMatrices(Evaluation):
    """Evaluate trees at a point some of whose values are matrices."""

    def value(self, tree: tuple):
        match tree:
            case ("^", base, ("letter", "T" | "H")):
                return self.value(base).T
        return super().value(tree)

    def seen(self, x):
        return x if isinstance(x, mp.matrix) else super().seen(x)


def same_as_matrices(gold: tuple, answer: tuple) -> bool:
    """Tell whether two trees agree if capitals are matrices, whose products have an order. True if they can't be."""
    draws = random.Random(0)
    point = {name: Fraction(draws.randint(2, 9)) for name in sorted(letters(gold) | letters(answer))}
    for name in point:
        if re.match(r"\\?[A-Z][^_]*$", name):
            point[name] = mp.matrix([[draws.randint(1, 99) for _ in range(2)] for _ in range(2)])
    evaluation = _OfMatrices(point | {"I": mp.eye(2)}, False)
    try:
        with mp.workdps(_DIGITS):
            g, a = evaluation.value(gold), evaluation.value(answer)
            return type(g) is type(a) and mp.norm(g - a) <= mp.norm(g) * mp.mpf(10) ** (-_DIGITS // 2)
    except (TypeError, AttributeError, ZeroDivisionError, ValueError):
        return True


@dataclass(frozen=True)
class Pair:
    """Two values, both exact or both of `digits`. `noise` is what rounding can make of their difference."""

    gold: object
    answer: object
    noise: object
    digits: int = _DIGITS

    @property
    def has_whole(self) -> bool:
        """Whether one is a whole number, of fewer digits than a decimal may have."""
        return any(abs(x) < 10**15 and x == mp.nint(mp.re(x)) for x in map(inexact, (self.gold, self.answer)))

    def is_equal(self, close: bool) -> bool:
        allowed = max(abs(self.gold), abs(self.answer)) * int(close) / CLOSE_TO
        return abs(self.gold - self.answer) <= max(self.noise, allowed)

    def minus(self, other: Pair) -> Pair:
        return Pair(self.gold - other.gold, self.answer - other.answer, self.noise + other.noise, self.digits)

    def times(self, other: Pair) -> Pair:
        """Return a pair that is equal if gold and answer have one ratio in both pairs."""
        if type(self.gold) is not type(other.gold):
            self, other = (Pair(inexact(p.gold), inexact(p.answer), p.noise) for p in (self, other))
        noise = self.noise * (abs(other.gold) + abs(other.answer)) + other.noise * (abs(self.gold) + abs(self.answer))
        return Pair(self.gold * other.answer, self.answer * other.gold, noise)


def real_value(tree: tuple, point: Mapping[str, Fraction] = MappingProxyType({})) -> Fraction | None:
    """Return the value of a tree at a point to 40 digits; None if it is not real, or the point lacks a letter."""
    if letters(tree) - point.keys():
        return None
    try:
        value = _pair(Evaluation(point, False), tree, ("number", Fraction(0)), exactly=True).gold
    except Undefined:
        return None
    return value if isinstance(value, Fraction) else Fraction(mpmath.nstr(value, 40))


def _values(gold: tuple, answer: tuple, exactly: bool = False) -> Iterator[Pair]:
    """Yield the values of two trees at each point where both have one. Without letters, raises `Unreadable`.

    `exactly`: values that are seen to differ are still worked out to all digits.
    """
    parts = [node for tree in (gold, answer) for node in nodes(tree)]
    complex_values = ("constant", "i") in parts or any(map(_is_power_of_negative, parts))
    complex_values |= bool(_complex_letters(gold, answer))
    in_bars = _letters_in(gold, "abs") and not _letters_in(answer, "abs")  # ln|x| is not ln x
    for point in _points(gold, answer):
        evaluation = Evaluation(point, complex_values)
        try:
            pair = _pair(evaluation, gold, answer, exactly)
            with mp.workdps(pair.digits):
                yield pair
        except Undefined:
            if in_bars:
                with contextlib.suppress(Undefined):
                    evaluation.value(gold)
                    yield Pair(0, 1, 0)
        except Unreadable:  # a formula may be too large at some points
            if not point:
                raise


def _pair(evaluation: Evaluation, gold: tuple, answer: tuple, exactly: bool) -> Pair:
    """Evaluate two trees to as many digits as decide about their difference."""
    digits, size = _DIGITS, 0
    most = MAX_PRECISION // 4 if evaluation.point else MAX_PRECISION
    while True:
        with mp.workdps(digits):
            g, a = evaluation.value(gold), evaluation.value(answer)
            if isinstance(g, Fraction) and isinstance(a, Fraction):
                return Pair(g, a, 0)
            size = size or math.ceil(evaluation.bits * 0.30103) + 1
            g, a = inexact(g), inexact(a)
            noise = mp.mpf(10) ** (size + 20 - digits) * mp.mpf(2) ** evaluation.largest
            if digits >= 3 * size + 50 or (abs(g - a) > noise and not exactly):
                return Pair(g, a, noise, digits)
        digits = 3 * size + 50
        if digits > most:
            raise Unreadable


def _points(gold: tuple, answer: tuple) -> Iterator[dict[str, Fraction]]:
    """Yield values of the letters: whole numbers, fractions in (0, 2), below 0, and larger ones."""
    names = sorted(letters(gold) | letters(answer))
    if not names:
        yield {}
        return
    whole, real, natural = _whole_letters(gold, answer)
    positive, complex_letters = _positive_letters(gold, answer), _complex_letters(gold, answer)
    draws = random.Random(0)
    costly = set().union(*(_letters_in(tree, kind) for tree in (gold, answer) for kind in _COSTLY))
    special: list[dict[str, Fraction]] = []
    if large := sorted(whole - costly):
        values = _changes(gold, answer) + [int(10 ** draws.uniform(1, 6)) for _ in range(_LARGE)]
        special = [{large[k % len(large)]: Fraction(value)} for k, value in enumerate(values)]
    elif not whole:
        free = [name for name in names if name not in positive | complex_letters]
        special = [{name: value} for value in _corners(gold, answer) for name in free]
    for k, change in enumerate([{}] * (_WHOLE_POINTS if whole else _POINTS) + special):
        point = {}
        for i, name in enumerate(names):
            negative = name not in positive
            if name in whole and not (name in real and k % 2):
                low = 0 if name in natural else -9
                step = k // 2 if name in real else k
                point[name] = Fraction(step + low if len(names) == 1 and k < 36 else draws.randint(low, 12))
            elif k == 5:
                point[name] = Fraction(_PRIMES[-i % len(_PRIMES)])
            elif k % 2 == 0 and k > 5:
                negative = negative and k % 4 == 0 and draws.random() < 0.6
                point[name] = Fraction(draws.randint(60, 900), -29 if negative else 29)
            else:
                negative = negative and k % 4 == 3 and (k == 3 or draws.random() < 0.6)
                point[name] = Fraction((37 * i + 11 * k) % 53 + 3, -29 if negative else 29)
                if name in complex_letters:
                    point[name] = mp.mpc(inexact(point[name]), k)
        yield point | change


def _corners(*trees: tuple) -> list[Fraction]:
    """Return numbers beside the trees' constants, if a formula may have another form on either side of them."""
    parts = [node for tree in trees for node in nodes(tree)]
    if not any(node[0] in _WITH_CORNERS for node in parts):
        return []
    constants = sorted({abs(node[1]) for node in parts if node[0] == "number"} - {0}, reverse=True)
    near = (sign * n + side for n in constants for sign in (1, -1) for side in (Fraction(1, 3), Fraction(-1, 3)))
    return list(dict.fromkeys(near))[:_CORNERS]


def _changes(*trees: tuple) -> list[int]:
    r"""Return whole numbers at which floors and remainders with the trees' constants change: 99 for `n \bmod 99`."""
    numbers = (node[1] for tree in trees for node in nodes(tree) if node[0] == "number")
    constants = sorted({n for x in numbers for n in (abs(x.numerator), x.denominator) if 1 < n < 10**6}, reverse=True)
    near = [*constants, *(m * n for m in constants for n in constants)]
    near += [n + shift for n in near if n > 9 for m in constants for shift in (m, -m)]
    near += [n // m for n in near if n > 9 for m in constants]
    return list(dict.fromkeys(n + d for n in near for d in (0, -1, 1)))[:_LARGE]


def _whole_letters(*trees: tuple) -> tuple[set[str], set[str], set[str]]:
    """Return the letters that take whole numbers, those of them that take others too, and those not below 0."""
    whole, real, natural = set(), set(), set()
    for is_gold, node in ((tree is trees[0], node) for tree in trees for node in nodes(tree)):
        if node[0] in _WHOLE:
            bounds = ("*", *node[2:4]) if node[0] in ("sum", "prod") else node
            whole |= letters(bounds)
            if node[0] in ("floor", "ceiling"):
                real |= {name for name in letters(node) if name[0] not in "ijklmnpqNMK"}
            elif node[0] in _NATURAL:
                natural |= letters(bounds)
        elif node[0] == "^" and (node[1] == ("constant", "i") or _is_power_of_negative(node)):
            whole |= letters(node[2])
        elif is_gold and node[0] in ("sin", "cos", "tan", "cot") and ("constant", "pi") in set(nodes(node)):
            whole |= {name for name in letters(node) if name in ("k", "m", "n")}
    return whole, real, natural


def _is_power_of_negative(tree: tuple) -> bool:
    """Tell whether a tree is such as (-1)^n, which is real for whole numbers only."""
    if tree[0] != "^" or not letters(tree[2]) or letters(tree[1]) or tree[1][0] not in ("number", "*"):
        return False
    return (real_value(tree[1]) or 0) < 0


def _positive_letters(gold: tuple, answer: tuple) -> set[str]:
    """Return the letters that stand for positive quantities.

    They have an index, are Greek or capitals, or are under a root of the gold, and stand in no bars. Coordinates and
    angles may be negative.
    """
    in_bars = _letters_in(gold, "abs") | _letters_in(answer, "abs")
    physical = {name for name in letters(gold) if "_" in name or name[0] == "\\" or name[0].isupper()}
    found = (_letters_in(gold, "root") | physical) - in_bars
    return {
        name for name in found if not re.match(r"[xyzt](?![a-z])|\\(?:theta|phi|varphi|alpha|beta|gamma|psi)", name)
    }


def _complex_letters(gold: tuple, answer: tuple) -> set[str]:
    """Return the letters that are complex: z and w in bars."""
    return {"z", "w"} & (_letters_in(gold, "abs") | _letters_in(answer, "abs"))


def _letters_in(tree: tuple, kind: str) -> set[str]:
    return {name for node in nodes(tree) if node[0] == kind for name in letters(node)}
