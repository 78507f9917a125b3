r"""Compare sets of real numbers: unions, intersections and differences of intervals, points and inequalities.

A set is the sorted list of its cuts, the places where it begins or ends: `(x, 0)` is just before x, `(x, 1)` just
after. [1, 2) is [(1, 0), (2, 0)], and {1} is [(1, 0), (1, 1)].
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction

from riskpo_openrlhf.verifiers.math.grammar import letters
from riskpo_openrlhf.verifiers.math.leaves import Rules
from riskpo_openrlhf.verifiers.math.limits import MAX_ELEMENTS, Unreadable
from riskpo_openrlhf.verifiers.math.nodes import Group, Leaf, Named, Node
from riskpo_openrlhf.verifiers.math.numbers import CLOSE_TO, has_long_decimal
from riskpo_openrlhf.verifiers.math.values import real_value

_DRAWS = 5  # values for the letters of ends, whose order they decide
_REALS = [(-math.inf, 1), (math.inf, 0)]
_INFINITE = {"\\infty": math.inf, "-\\infty": -math.inf}
Cuts = list[tuple[Fraction | float, int]]


def same_sets(gold: Node, answer: Node, rules: Rules) -> bool:
    """Tell whether two nodes are the same set of real numbers. False if neither is written as a set."""
    if not (_is_set(gold) or _is_set(answer)):
        return False
    try:
        for draw in range(_DRAWS):
            reader = _Reader(rules, draw)
            golds, name = reader.cuts(gold), reader.name
            reader.name = ""
            if golds != reader.cuts(answer) or (reader.name and name not in ("", reader.name)):
                return False
            if not reader.has_letters:
                break
    except Unreadable:
        return False
    return True


def _is_set(node: Node) -> bool:
    if isinstance(node, Named):
        return node.is_inequality or _is_set(node.value)
    if node.shape == "list":
        return node.kind == "\\cup" or any(map(_is_set, node.nodes))
    return node.shape in ("\\cap", "\\setminus")


def _combined(operation: Callable, sets: list[Cuts]) -> Cuts:
    """Return the set of all numbers for which `operation`, of whether each of the sets has it, is true."""
    cuts: Cuts = []
    for cut in sorted({cut for one in sets for cut in one}):
        if operation([bisect_right(one, cut) % 2 for one in sets]) != len(cuts) % 2:
            cuts.append(cut)
    return cuts


class _Reader:
    """Turn nodes into sets. Letters in their ends have one draw of values. `name`: of what is in the set, x."""

    def __init__(self, rules: Rules, draw: int):
        self.rules, self.draw = rules, draw
        self.has_letters, self.name = False, ""
        self.ends: list[Fraction] = []

    def cuts(self, node: Node) -> Cuts:
        """Return the cuts of a node. Raises `Unreadable` if it is no set of numbers, or not that of `name`."""
        match node:
            case Group(brackets, (Leaf(low), Leaf(high)), shape="tuple"):
                low, high = (self.end(low), brackets[0] == "("), (self.end(high), brackets[1] == "]")
                return [low, high] if low < high else []
            case Group("{}", nodes):
                points = [self.end(point.text) for point in nodes if isinstance(point, Leaf)]
                if len(points) < len(nodes):
                    raise Unreadable
                return _combined(any, [[(point, 0), (point, 1)] for point in points])
            case Named(value, name) if self.name in ("", self.rules.name(name)):
                self.name = self.rules.name(name)
                return self.cuts(value)
            case Leaf(text):
                point = self.end(text)
                return [(point, 0), (point, 1)]
            case Group("\\cap" | "\\setminus" as operator, nodes):
                if any(isinstance(node, Leaf) and letters(self.rules.read(node.text)[0]) for node in nodes):
                    raise Unreadable  # A and B are sets, no points
                first, *rest = map(self.cuts, nodes)
                if operator == "\\cap":
                    return _combined(all, [first, *rest])
                return _combined(lambda inside: inside[0] and not any(inside[1:]), [first, *rest])
            case Group(joiner, nodes, shape="list") if len(nodes) <= MAX_ELEMENTS:
                return self._list([self.cuts(part) for part in nodes], joiner)
        raise Unreadable

    def _list(self, sets: list[Cuts], joiner: str) -> Cuts:
        """Return the union of sets; of conditions, the intersection, unless it is empty: "x < 1 and x > 2".

        Raises `Unreadable` if a part adds nothing: x > 2, x > 5 may be two guesses.
        """
        if joiner in (",", "\\land"):
            sets = [one for one in sets if one != _REALS]
        operation = any if joiner in ("\\cup", "\\lor") or not _combined(all, sets) else all
        whole = _combined(operation, sets)
        if any(_combined(operation, sets[:i] + sets[i + 1 :]) == whole for i in range(len(sets))):
            raise Unreadable
        return whole

    def end(self, text: str) -> Fraction | float:
        """Return the value of an end; the same for ends that are equal but for rounding."""
        if text in _INFINITE:
            return _INFINITE[text]
        tree = self.rules.read(text)[0]
        names = sorted(letters(tree))
        self.has_letters |= bool(names)
        point = {name: Fraction(random.Random(f"{self.draw} {name}").randint(-900, 900), 29) for name in names}
        value = real_value(tree, point)
        if value is None:
            raise Unreadable
        precision = CLOSE_TO if has_long_decimal(text) else 10**30
        for end in self.ends:
            if abs(end - value) * precision <= max(abs(end), abs(value)):
                return end
        self.ends.append(value)
        return value
