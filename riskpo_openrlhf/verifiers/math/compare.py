"""Compare two answers: rewrite both into one notation, take them apart, and compare their parts by value.

A comparison may take for ever, so `compare` belongs into a worker process (`verifiers/killable.py`).
`compare_without_algebra` needs none.
"""

from __future__ import annotations

import math
import re

from riskpo_openrlhf.verifiers.math.evaluate import TooSlow, limit_time
from riskpo_openrlhf.verifiers.math.grammar import functions_in, times_denominators
from riskpo_openrlhf.verifiers.math.leaves import Rules, same_leaf, same_order
from riskpo_openrlhf.verifiers.math.limits import MAX_ELEMENTS, QUICK_SECONDS, Unreadable
from riskpo_openrlhf.verifiers.math.nodes import Chain, Group, Leaf, Named, Node, Relation
from riskpo_openrlhf.verifiers.math.notation import Tidied, tidy
from riskpo_openrlhf.verifiers.math.numbers import has_long_decimal, plain_number, same_number
from riskpo_openrlhf.verifiers.math.parse import TOKEN, readings, renamed
from riskpo_openrlhf.verifiers.math.sets import same_sets
from riskpo_openrlhf.verifiers.math.values import same_up_to_a_factor
from riskpo_openrlhf.verifiers.math.words import choices, nothing, plain_words

EQUAL, DIFFERENT, UNREADABLE, SLOW = "equal", "different", "unreadable", "slow"
_OF_X = re.compile(r"[a-z](?:_\d)?(?:\^-1)?\(x\)")
_FUNCTION_OF_LETTER = re.compile(r"([^()]+)\(([a-z])\)")
_UNKNOWN = r"(?:^|[,;{{(])\s*{}\s*(?:[=<>]|\\(?:ne|le|ge)(?![a-z]))"  # it stands alone: k = 5
_MINUTES = re.compile(r"\d\d")
_SPACE = re.compile(r"\s+(?![\w\s])|(?<![\w\s])\s+")  # but not the space in "1 0" and "\pi r"


def compare_without_algebra(gold: str, answer: str) -> str | None:
    """Return the verdict of `compare` for the same text and for two plain numbers; None for all else."""
    gold, answer = (text.strip().strip("$").strip() for text in (gold, answer))
    if _SPACE.sub("", gold) == _SPACE.sub("", answer):
        return EQUAL
    g, a = plain_number(gold), plain_number(answer)
    return _verdict(same_number(g, a)) if g and a else None


def compare(gold: str, answer: str, rounded: bool = False) -> str:
    """Return `equal`, `different`, or `unreadable` if the answer can't be read or is too large to be evaluated.

    Args:
        gold: the right answer.
        answer: the answer to judge.
        rounded: accept decimals that are the rounded value of the other answer, see `geometry.verify`.
    """
    if (verdict := compare_without_algebra(gold, answer)) and (verdict == EQUAL or not rounded):
        return verdict
    if any(plain_words(gold, numbered) == plain_words(answer, numbered) != "" for numbered in (False, True)):
        return EQUAL
    nothings = sorted((nothing(gold), nothing(answer)))
    if nothings[0] and nothings[1].startswith(nothings[0]):
        return EQUAL
    letters, apart = choices(gold)
    if apart and letters == choices(answer)[0]:  # AB in a gold may be a product, "A, B" is none
        return EQUAL
    try:
        tidied = tidy(gold), tidy(answer)
        if len({each.over for each in tidied} - {""}) > 1 or _is_one_limited(*tidied):
            return DIFFERENT
        answers = (node for name in _names(*tidied) for node in readings(answer, name))
        functions = functions_in(tidied[0].text, tidied[1].text)
        rules = Rules(rounded, _case_is_free(gold) and _case_is_free(answer), functions)
        return _verdict(any(same(g, a, rules) or same_sets(g, a, rules) for a in answers for g in readings(gold)))
    except (MemoryError, TooSlow):
        raise
    except Exception:  # Unreadable, or whatever SymPy raises on an odd expression
        return UNREADABLE


def _names(gold: Tidied, answer: Tidied) -> list[str]:
    r"""Return what the answer's whole number may be called: `n\pi` is `k\pi`, and over all of Z `(k-1)\pi` too."""
    ours, theirs = gold.letter, answer.letter
    if not (ours and theirs):
        return [""]
    names = [""]
    if ours != theirs:
        is_unknown = any(re.search(_UNKNOWN.format(each.letter), each.text) for each in (gold, answer))
        if is_unknown or {ours, ours.upper()} & set(TOKEN.findall(answer.text)):
            return [""]
        names = [ours]
    if gold.over == answer.over == "Z" and _is_family(gold) and _is_family(answer):
        names += [f"({sign}{ours}{shift:+d})" for sign in ("", "-") for shift in range(-3, 4)]
    return names


def _is_family(tidied: Tidied) -> bool:
    r"""Tell whether solutions are counted by a letter, as in `x = 2k\pi`; but (-1)^n or n(n+1) is a formula."""
    letter = tidied.letter
    once = all(TOKEN.findall(part).count(letter) < 2 for part in tidied.text.split(","))
    inside = rf"\^\{{[^{{}}]*{letter}|\\(?:sin|cos|tan|cot)\s*\(?[^,]*{letter}|[a-zA-Z]\({letter}\)"
    return once and not re.search(inside, tidied.text)


def _is_one_limited(gold: Tidied, answer: Tidied) -> bool:
    r"""Tell whether only one says that the unknown of an inequality is whole: x > 1 and x > 1, x \in \mathbb{Z}."""
    letter = gold.letter or answer.letter
    if bool(gold.letter) == bool(answer.letter) or letter in "nkmpqij":  # these are whole anyway
        return False
    limit = rf"(?:[<>]|\\[lg]e(?![a-z]))\s*{letter}(?![a-z])|(?<![a-z]){letter}\s*(?:[<>]|\\[lg]e(?![a-z]))"
    return bool(re.search(limit, gold.text + ";" + answer.text))


def compare_quickly(gold: str, answer: str, rounded: bool = False) -> str:
    """Compare two answers; `slow` if that takes more than `QUICK_SECONDS`."""
    limit_time(QUICK_SECONDS)
    try:
        return compare(gold, answer, rounded)
    except TooSlow:
        return SLOW
    finally:
        limit_time(math.inf)


def same(gold: Node, answer: Node, rules: Rules) -> bool:
    """Tell whether an answer means the same as the gold. Raises `Unreadable`, and whatever SymPy raises."""
    match gold, answer:
        case (Leaf() | Named(is_inequality=False), Group(",", (first, Named(Group("\\setminus"))))):  # x+2, x \ne 2
            return same(gold, first, rules)
        case (Named(), _) | (_, Named()):
            return _same_named(gold, answer, rules)
        case Chain(nodes=(_, _, _, *_)), Chain() if _same_in_order(gold.nodes, answer.nodes, rules):
            return True
        case (Chain(), _) | (Relation(), Relation()):
            return _same_relation(gold, answer, rules)
        case _, Chain():  # 2+3 = 5 is right if each part is; 41 = 42 is not
            return all(same(gold, value, rules) for value in answer.nodes[answer.left_is_asked :])
        case Leaf(), Leaf():
            return same_leaf(gold.text, answer.text, rules)
        case Group(shape="list" | "{}"), Group(shape="list" | "{}"):
            return _same_collection(gold, answer, rules)
        case (Group(shape="tuple"), Group(shape="list")) | (Group(shape="list"), Group(shape="tuple")):
            return _same_collection(gold, answer, rules)
        case Group("{}", golds), _:  # {5} and 5, {(1, 2)} and (1, 2)
            return _same_in_order(golds, [answer], rules)
        case _, Group("{}", answers):
            return _same_in_order([gold], answers, rules)
        case Group("\\cap", golds), Group("\\cap", answers):
            return _same_collection(Group("{}", golds), Group("{}", answers), rules)
        case Group(":", (first, second)), Leaf():
            return same(_quotient(first, second), answer, rules)
        case Leaf(), Group(":", (first, second)):
            return same(gold, _quotient(first, second), rules)
        case Group(":", (_, Leaf(end))), Group(":", (_, Leaf(other))) if any(map(_MINUTES.match, (end, other))):
            return _same_in_order(gold.nodes, answer.nodes, rules)  # 1:20 may be a time
        case Group(":", (first, *golds)), Group(":", (other, *answers)):  # 6:4 is 3:2
            of_first = [_quotient(node, first) for node in golds], [_quotient(node, other) for node in answers]
            return _same_in_order(*of_first, rules)
        case Group(), Group() if gold.kind == answer.kind:
            return _same_in_order(gold.nodes, answer.nodes, rules)
        case Group(shape="tuple"), Group(shape="tuple"):  # the kinds of ends count for an interval
            no_ends = len(gold.nodes) > 2 or "row" in (gold.kind, answer.kind)
            return no_ends and _same_in_order(gold.nodes, answer.nodes, rules)
        case Group("matrix" | "," | "()" | "[]"), Group("matrix" | "," | "()" | "[]"):
            return _same_in_order(_entries(gold), _entries(answer), rules)
    return False


def _same_in_order(golds, answers, rules: Rules) -> bool:
    return len(golds) == len(answers) and all(same(g, a, rules) for g, a in zip(golds, answers, strict=True))


def _entries(node: Group) -> tuple[Node, ...]:
    """Return the entries of a matrix of one row or one column; the parts of anything else."""
    if node.kind == "matrix" and 1 in (len(node.nodes), max(len(row.nodes) for row in node.nodes)):
        return tuple(entry for row in node.nodes for entry in row.nodes)
    return node.nodes


def _quotient(above: Leaf, below: Leaf) -> Leaf:
    return Leaf(f"({above.text})/({below.text})")


def _same_named(gold: Node, answer: Node, rules: Rules) -> bool:
    """Compare values of which at least one has a name: x = 5 and 5, but not x = 5 and y = 5."""
    g, a = (node.value if isinstance(node, Named) else node for node in (gold, answer))
    if isinstance(gold, Named) and isinstance(g, Chain):  # x = 5+6 = 11: the last value is the answer
        g = g.nodes[-1]
    if "list" in (gold.shape, answer.shape):  # (x, y) = (1, 2) and x = 1, y = 2
        expanded = _by_name(gold), _by_name(answer)
        if expanded != (gold, answer):
            return same(*expanded, rules)
    alike = not (isinstance(gold, Named) and isinstance(answer, Chain) and _has_letters(*answer.nodes[:-1]))
    if isinstance(gold, Named) and isinstance(answer, Named):
        names = [rules.name(node.name) for node in (gold, answer)]
        stems = [rules.name(node.stem) for node in (gold, answer)]
        alike = names[0] in (names[1], stems[1]) or names[1] == stems[0]
        alike = alike or ("y" in names and any(map(_OF_X.fullmatch, names)))
        if not alike and (value := _with_argument_of(gold, answer)):
            return same(g, value, rules)
    return (alike and same(g, a, rules)) or _same_relation(gold, answer, rules)


def _by_name(node: Node) -> Node:
    """Return a value for each name of `(x, y) = (1, 2)`; anything else as it is."""
    match node:
        case Named(Group(shape="tuple", nodes=values), name) if name.startswith("("):
            names = name.strip("()").split(",")
            if len(names) == len(values):
                return Group(",", tuple(map(Named, values, names)))
    return node


def _with_argument_of(gold: Named, answer: Named) -> Leaf | None:
    """Return the right side of f(t) = 2t as 2x where the gold defines f(x). None if the names differ otherwise."""
    names = [_FUNCTION_OF_LETTER.fullmatch(node.name) for node in (gold, answer)]
    if not (all(names) and names[0][1] == names[1][1] and isinstance(answer.value, Leaf)):
        return None
    (ours, theirs), text = (name[2] for name in names), answer.value.text
    tokens = TOKEN.findall(text)
    if ours in tokens or theirs not in {*tokens, *"xtnzmksuy"}:  # f(t) = tx is not f(x) = x^2
        return None  # and f(a) = 1 is not f(b) = 1
    return Leaf(renamed(text, theirs, ours))


def _same_relation(gold: Node, answer: Node, rules: Rules) -> bool:
    """Tell whether each equation or inequality of the gold is one of the answer's times a number, and the reverse."""
    golds, answers = (getattr(node, "relation", node) for node in (gold, answer))
    if not (isinstance(golds, Relation) and isinstance(answers, Relation) and len(golds.parts) == len(answers.parts)):
        return False
    pairs = [[_same_difference(g, a, rules) for a in answers.parts] for g in golds.parts]
    return all(map(any, pairs)) and all(map(any, zip(*pairs, strict=True)))


def _same_difference(gold: tuple[str, str], answer: tuple[str, str], rules: Rules) -> bool:
    """Compare a difference and its sign with another up to a factor, which is positive for an inequality.

    The factor may also be a letter that one of two equations is divided by: F = ma and a = F/m.
    """
    (gold, sign), (answer, other_sign) = gold, answer
    if sign != other_sign:
        return False
    try:
        pairs = [(g, a) for g in rules.read(gold) for a in rules.read(answer)]
    except Unreadable:
        if sign == "=":  # x = (1, 2)
            return False
        raise
    if sign == "=":
        pairs += [(times_denominators(g), times_denominators(a)) for g, a in pairs]
    close, positive = has_long_decimal(gold + answer), sign in ("<", "\\le")
    if not any(same_up_to_a_factor(g, a, close, positive) for g, a in dict.fromkeys(pairs)):
        return False
    return sign != "=" or any(same_order(gold, f"{minus}({answer})") for minus in ("", "-"))


def _same_collection(gold: Group, answer: Group, rules: Rules) -> bool:
    """Compare two lists or sets, or a list and a tuple."""
    golds, answers = _elements(gold.nodes), _elements(answer.nodes)
    if max(len(golds), len(answers)) > MAX_ELEMENTS:
        raise Unreadable
    tuples, lists = ([node for node in (gold, answer) if node.shape == shape] for shape in ("tuple", "list"))
    if any(node.is_interval for node in tuples) or (tuples and any(map(_is_alternatives, lists))):
        return False  # an interval is not the list of its ends, nor a point two solutions
    if len(lists) == 2 and _joined_otherwise(*lists):
        return False
    if tuples or _named_by_place(golds, answers) or _named_by_place(answers, golds):
        if all(isinstance(node, Named) and node.name in ("x", "y", "z") for node in answers):
            answers.sort(key=lambda node: node.name)  # y = 1, x = 2 is (2, 1)
        return _same_in_order(golds, answers, rules)

    def alike(g: Node, a: Node) -> bool:  # {1, {2}} is not {1, 2}
        return (bool(lists) or (g.shape == "{}") == (a.shape == "{}")) and same(g, a, rules)

    # Each gold as often as among the golds, or more often: an answer may name a solution twice.
    counts = [[sum(alike(g, node) for node in nodes) for g in golds] for nodes in (golds, answers)]
    known = all(any(alike(g, a) for g in golds) for a in answers)
    return known and all(1 <= g <= a for g, a in zip(*counts, strict=True))


def _is_alternatives(node: Group) -> bool:
    """Tell whether a list can't be the parts of one point: x = 1 or y = 2, x = -1 and x = 1."""
    names = [each.name for each in node.nodes if isinstance(each, Named)]
    return node.kind == "\\lor" or len(set(names)) < len(names)


def _joined_otherwise(gold: Group, answer: Group) -> bool:
    """Tell whether one says "and" of conditions, and the other "or"."""
    nodes = [*gold.nodes, *answer.nodes]
    names = {node.stem for node in nodes if isinstance(node, Named)}
    logical = all(isinstance(node, Leaf) and re.fullmatch("[a-zA-Z]", node.text) for node in nodes)
    conditions = len(names) > 1 or any(map(_is_condition, nodes))
    joiners = {"\\land" if node.kind == "," and conditions else node.kind for node in (gold, answer)}
    return joiners == {"\\land", "\\lor"} and (conditions or logical)


def _is_condition(node: Node) -> bool:
    match node:
        case Relation() | Chain() | Named(is_inequality=True) | Named(Group("\\cap" | "\\setminus")):
            return True
    return False


def _has_letters(*nodes: Node) -> bool:
    return any(isinstance(node, Leaf) and re.search(r"(?<![\\a-zA-Z])[a-zA-Z]", node.text) for node in nodes)


def _elements(nodes: tuple[Node, ...]) -> list[Node]:
    """Return the nodes with each list, such as the two values of a plus-minus, replaced by its elements."""
    elements: list[Node] = []
    for node in nodes:
        elements += _elements(node.nodes) if node.shape == "list" and node.kind != "&" else [node]
    return elements


def _named_by_place(named: list[Node], bare: list[Node]) -> bool:
    """Tell whether the order of bare values says their names: x = 1, y = 2 against 1, 2.

    Not so for x_1 and x_2, which are two of a kind.
    """
    stems = {node.stem for node in named if isinstance(node, Named)}
    return len(stems) > 1 and not any(isinstance(node, Named) for node in bare)


def _case_is_free(text: str) -> bool:
    """Tell whether m and M are the same: yes, unless a letter occurs in both cases."""
    letters = set(re.sub(r"\\[a-zA-Z]+", "", text))
    return not any(letter.upper() in letters for letter in letters if letter.islower())


def _verdict(same: bool) -> str:
    return EQUAL if same else DIFFERENT
