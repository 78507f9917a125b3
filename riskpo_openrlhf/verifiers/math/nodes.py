r"""The parts of an answer. `parse.py` makes them from text, `compare.py` compares them."""

from __future__ import annotations

from dataclasses import dataclass

_SHAPES = {
    **dict.fromkeys((",", "&", "\\land", "\\lor", "\\cup"), "list"),
    **dict.fromkeys(("()", "[]", "[)", "(]", "row"), "tuple"),
}


class Node:
    """A part of an answer. `shape` says what kind of group it is."""

    shape = ""


@dataclass(frozen=True)
class Leaf(Node):
    """A text without parts that are compared one by one: a number, an expression, a word, with or without unit."""

    text: str


@dataclass(frozen=True)
class Group(Node):
    r"""Several parts. `kind` says how they belong together:

    - a list: `,`, `\land`, `\lor`, `\cup`; also the two values of `\pm 3`, and `&` for a case of several conditions
    - a set: `{}`
    - a tuple: `()`, `[]`, `[)` or `(]`; a pair and an interval look alike; a `row` of a matrix
    - a matrix of rows: `matrix`
    - a ratio: `:`
    - an operation on sets: `\cap`, `\setminus`
    """

    kind: str
    nodes: tuple[Node, ...]

    @property
    def shape(self) -> str:
        """`list` or `tuple` for all their kinds, else the kind."""
        return _SHAPES.get(self.kind, self.kind)

    @property
    def is_interval(self) -> bool:
        """Whether it can only be an interval: two ends, and not both brackets round."""
        return self.kind in ("[]", "[)", "(]") and len(self.nodes) == 2


@dataclass(frozen=True)
class Relation(Node):
    r"""An equation or inequalities: each difference, a text, is to 0 as its sign says: `=`, `<`, `\le` or `\ne`."""

    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Named(Node):
    r"""A value with a name: `x = 5`, `f(x) = 2x`, `x \in [0, 1]`, `0 < x < 1`; and the relation that it also is."""

    value: Node
    name: str
    relation: Relation | None = None

    @property
    def stem(self) -> str:
        """The name without its index: `x` of `x_1`."""
        return self.name.split("_")[0]

    @property
    def is_inequality(self) -> bool:
        return self.relation is not None and self.relation.parts[0][1] != "="


@dataclass(frozen=True)
class Chain(Node):
    """An equation whose left side is no name: `2x+y = 3`, `2+3 = 5`, `a = b = 7`; of two sides, with its relation.

    `left_is_asked`: the left side, like `m+n`, is what the question asks for and not a value.
    """

    nodes: tuple[Node, ...]
    left_is_asked: bool = False
    relation: Relation | None = None
