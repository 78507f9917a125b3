r"""The parts of an answer. `parse.py` makes them from text, `compare.py` compares them."""

from __future__ import annotations

from dataclasses import dataclass


def stem_of(name: str) -> str:
    return name.split("_")[0]


@dataclass(frozen=True)
class Leaf:
    """A text without parts that are compared one by one: a number, an expression, a word, with or without unit."""

    text: str


@dataclass(frozen=True)
class ListNode:
    r"""`1, 2 and 3`; also the parts of a union, and the two values of `\pm 3`.

    `joiner`: `,`, `\land`, `\lor` or `\cup`.
    """

    nodes: tuple[Node, ...]
    joiner: str = ","


@dataclass(frozen=True)
class SetNode:
    r"""`\{1, 2\}`."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class TupleNode:
    """`(1, 2)` or `[0, 1)`: a pair and an interval look alike. `brackets` is `"()"`, `"[)"`, …"""

    nodes: tuple[Node, ...]
    brackets: str

    @property
    def is_interval(self) -> bool:
        """Whether it can only be an interval: two ends, and not both brackets round."""
        return self.brackets != "()" and len(self.nodes) == 2


@dataclass(frozen=True)
class Named:
    r"""A value with a name: `x = 5`, `f(x) = 2x`, `x \in [0, 1]`, `0 < x < 1`.

    `difference` is the text of left side minus right side of an equation; None for other relations. `relation` is the
    inequality that `x < 1` also is.
    """

    value: Node
    name: str
    difference: str | None = None
    relation: Relation | None = None

    @property
    def stem(self) -> str:
        """The name without its index: `x` of `x_1`."""
        return stem_of(self.name)


@dataclass(frozen=True)
class Chain:
    """An equation whose left side is no name: `2x+y = 3`, `2+3 = 5`, `a = b = 7`. `difference` is as in `Named`.

    `left_is_asked`: the left side, like `m+n`, is what the question asks for and not a value.
    """

    nodes: tuple[Node, ...]
    left_is_asked: bool = False
    difference: str | None = None

    @property
    def values(self) -> tuple[Node, ...]:
        return self.nodes[1:] if self.left_is_asked else self.nodes


@dataclass(frozen=True)
class Relation:
    r"""Inequalities: each of `differences`, a text, is less than 0, or as its sign says: `<`, `\le` or `\ne`."""

    differences: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    r"""An intersection or difference of sets: `(0,3)\cap(1,4)`, `\mathbb{R}\setminus\{1, 2\}`, and `x \ne 1`."""

    operator: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Row:
    """A row of a matrix."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows. `entries`: of one row or one column, its entries."""

    nodes: tuple[Row, ...]

    @property
    def entries(self) -> tuple[Node, ...]:
        if len(self.nodes) > 1 and all(len(row.nodes) == 1 for row in self.nodes):
            return tuple(row.nodes[0] for row in self.nodes)
        return self.nodes[0].nodes if len(self.nodes) == 1 else self.nodes

    def transposed(self) -> Matrix:
        return Matrix(tuple(map(Row, zip(*(row.nodes for row in self.nodes), strict=True))))


@dataclass(frozen=True)
class Ratio:
    """`11:21`."""

    nodes: tuple[Leaf, ...]

    def as_quotient(self) -> Leaf:
        return Leaf("/".join(f"({node.text})" for node in self.nodes))

    def over_first(self) -> list[Leaf]:
        return [Leaf(f"({node.text})/({self.nodes[0].text})") for node in self.nodes[1:]]


Node = Leaf | ListNode | SetNode | TupleNode | Named | Chain | Relation | Operation | Row | Matrix | Ratio
