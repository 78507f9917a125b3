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
from riskpo_openrlhf.verifiers.math.nodes import (
    Chain,
    Leaf,
    ListNode,
    Matrix,
    Named,
    Node,
    Operation,
    Ratio,
    Relation,
    Row,
    SetNode,
    TupleNode,
    stem_of,
)
from riskpo_openrlhf.verifiers.math.notation import Tidied, tidy
from riskpo_openrlhf.verifiers.math.numbers import has_long_decimal, plain_number, same_number
from riskpo_openrlhf.verifiers.math.parse import TOKEN, readings
from riskpo_openrlhf.verifiers.math.sets import same_sets
from riskpo_openrlhf.verifiers.math.values import same_up_to_a_factor
from riskpo_openrlhf.verifiers.math.words import choices, nothing, plain_words

EQUAL, DIFFERENT, UNREADABLE, SLOW = "equal", "different", "unreadable", "slow"
_OF_X = re.compile(r"[a-z](?:_\d)?(?:\^-1)?\(x\)")
_FUNCTION_OF_LETTER = re.compile(r"([^()]+)\(([a-z])\)")
_UNKNOWN = r"(?:^|[,;{{(])\s*{}\s*(?:[=<>]|\\(?:ne|le|ge)(?![a-z]))"  # it stands alone: k = 5
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
    name = _same_parameter(gold, answer)
    if not gold.letter or {gold.over, answer.over} != {"Z"} or not (name or gold.letter == answer.letter):
        return [name]
    if not (_is_family(gold) and _is_family(answer)):
        return [name]
    return [name, *(f"({sign}{gold.letter}{shift:+d})" for sign in ("", "-") for shift in range(-3, 4))]


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


def _same_parameter(gold: Tidied, answer: Tidied) -> str:
    r"""Return the name that the answer's whole number may get, the gold's: `n\pi` becomes `k\pi`. Empty if none."""
    ours, theirs = gold.letter, answer.letter
    if not ours or not theirs or ours == theirs or {ours, ours.upper()} & set(TOKEN.findall(answer.text)):
        return ""
    if any(re.search(_UNKNOWN.format(each.letter), each.text) for each in (gold, answer)):
        return ""
    return ours


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
        case (Leaf() | Named(relation=None), ListNode((first, Named(Operation("\\setminus"))), ",")):  # x+2, x \ne 2
            return same(gold, first, rules)
        case (Named(), _) | (_, Named()):
            return _same_named(gold, answer, rules)
        case Chain(), Chain() if len(gold.nodes) > 2 and _same_in_order(gold.nodes, answer.nodes, rules):
            return True
        case Chain(), _:
            return _same_equation(gold, answer, rules)
        case _, Chain():  # 2+3 = 5 is right if each part is; 41 = 42 is not
            return all(same(gold, value, rules) for value in answer.values)
        case (ListNode() | SetNode() | TupleNode(), ListNode()) | (ListNode(), SetNode() | TupleNode()):
            return _same_collection(gold, answer, rules)
        case (SetNode(), SetNode()) | (TupleNode(), TupleNode()):
            return _same_collection(gold, answer, rules)
        case SetNode(), _:  # {5} and 5, {(1, 2)} and (1, 2)
            return _same_in_order(gold.nodes, [answer], rules)
        case _, SetNode():
            return _same_in_order([gold], answer.nodes, rules)
        case Leaf(), Leaf():
            return same_leaf(gold.text, answer.text, rules)
        case Relation(), Relation():
            return _same_relation(gold, answer, rules)
        case Ratio(nodes=(_, _)), Leaf():
            return same(gold.as_quotient(), answer, rules)
        case Leaf(), Ratio(nodes=(_, _)):
            return same(gold, answer.as_quotient(), rules)
        case Ratio(nodes=(_, g)), Ratio(nodes=(_, a)) if not any(re.match(r"\d\d", end.text) for end in (g, a)):
            return same(gold.as_quotient(), answer.as_quotient(), rules)  # 6:4 is 3:2, but 1:20 may be a time
        case Ratio(), Ratio() if len(gold.nodes) > 2:
            return _same_in_order(gold.over_first(), answer.over_first(), rules)
        case (Matrix(), Matrix()) | (Row(), Row()) | (Ratio(), Ratio()):
            return _same_in_order(gold.nodes, answer.nodes, rules)
        case (Matrix(), TupleNode() | ListNode(joiner=",")) | (TupleNode() | ListNode(joiner=","), Matrix()):
            return _same_vector(gold, answer, rules)
        case (Row(), TupleNode()) | (TupleNode(), Row()):
            return _same_in_order(gold.nodes, answer.nodes, rules)
        case Operation("\\cap"), Operation("\\cap"):
            return _same_collection(SetNode(gold.nodes), SetNode(answer.nodes), rules)
        case Operation(), Operation():
            return gold.operator == answer.operator and _same_in_order(gold.nodes, answer.nodes, rules)
        case _:
            return False


def _same_in_order(golds, answers, rules: Rules) -> bool:
    return len(golds) == len(answers) and all(same(g, a, rules) for g, a in zip(golds, answers, strict=True))


def _same_vector(gold: Node, answer: Node, rules: Rules) -> bool:
    r"""Compare a column, row or matrix with (1, 2), \langle 1, 2\rangle or [[1, 2], [3, 4]]."""
    golds, answers = (node.entries if isinstance(node, Matrix) else node.nodes for node in (gold, answer))
    brackets = {node.brackets for node in (gold, answer) if isinstance(node, TupleNode)}
    return brackets <= {"()", "[]"} and _same_in_order(golds, answers, rules)


def _same_named(gold: Node, answer: Node, rules: Rules) -> bool:
    """Compare values of which at least one has a name: x = 5 and 5, but not x = 5 and y = 5."""
    g, a = (node.value if isinstance(node, Named) else node for node in (gold, answer))
    if isinstance(gold, Named) and isinstance(g, Chain):  # x = 5+6 = 11: the last value is the answer
        g = g.nodes[-1]
    relations = [node.relation if isinstance(node, Named) else node for node in (gold, answer)]
    if all(isinstance(relation, Relation) for relation in relations) and _same_relation(*relations, rules):
        return True
    if isinstance(gold, ListNode) or isinstance(answer, ListNode):  # (x, y) = (1, 2) and x = 1, y = 2
        expanded = _by_name(gold), _by_name(answer)
        if expanded != (gold, answer):
            return same(*expanded, rules)
    alike = not (isinstance(gold, Named) and isinstance(answer, Chain) and _has_letters(*answer.nodes[:-1]))
    if isinstance(gold, Named) and isinstance(answer, Named):
        names = rules.name(gold), rules.name(answer)
        stems = [stem_of(name) for name in names]
        alike = names[0] in (names[1], stems[1]) or names[1] == stems[0]
        alike = alike or ("y" in names and any(map(_OF_X.fullmatch, names)))
        if not alike and (renamed := _with_argument_of(gold, answer)):
            return same(g, renamed, rules)
    return (alike and same(g, a, rules)) or _same_equation(gold, answer, rules)


def _by_name(node: Node) -> Node:
    """Return a value for each name of `(x, y) = (1, 2)`; anything else as it is."""
    if isinstance(node, Named) and isinstance(node.value, TupleNode) and node.name.startswith("("):
        names = node.name.strip("()").split(",")
        if len(names) == len(node.value.nodes):
            return ListNode(tuple(map(Named, node.value.nodes, names)))
    return node


def _with_argument_of(gold: Named, answer: Named) -> Leaf | None:
    """Return the right side of f(t) = 2t as 2x where the gold defines f(x). None if the names differ otherwise."""
    names = [_FUNCTION_OF_LETTER.fullmatch(node.name) for node in (gold, answer)]
    if not (all(names) and names[0][1] == names[1][1] and isinstance(answer.value, Leaf)):
        return None
    tokens = re.findall(r"\\[a-zA-Z]+|.", answer.value.text, re.DOTALL)
    if names[0][2] in tokens or names[1][2] not in {*tokens, *"xtnzmksuy"}:  # f(t) = tx is not f(x) = x^2
        return None  # and f(a) = 1 is not f(b) = 1
    return Leaf("".join(names[0][2] if token == names[1][2] else token for token in tokens))


def _same_relation(gold: Relation, answer: Relation, rules: Rules) -> bool:
    """Tell whether each inequality is one of the other's, multiplied by a positive number."""

    def alike(i: int, k: int) -> bool:
        if gold.signs[i] != answer.signs[k]:
            return False
        texts, positive = (gold.differences[i], answer.differences[k]), gold.signs[i] != "\\ne"
        golds, answers = map(rules.read, texts)
        close = has_long_decimal("".join(texts))
        return any(same_up_to_a_factor(g, a, close, positive) for g in golds for a in answers)

    places = range(len(gold.signs)), range(len(answer.signs))
    return (
        len(gold.signs) == len(answer.signs)
        and all(any(alike(i, k) for k in places[1]) for i in places[0])
        and all(any(alike(i, k) for i in places[0]) for k in places[1])
    )


def _same_equation(gold: Node, answer: Node, rules: Rules) -> bool:
    """Tell whether two equations are the same: left side minus right side is the same up to a factor.

    The factor is a number, or a letter that one of them is divided by: F = ma and a = F/m.
    """
    if not all(isinstance(node, (Named, Chain)) and node.difference for node in (gold, answer)):
        return False
    try:
        golds, answers = rules.read(gold.difference), rules.read(answer.difference)
    except Unreadable:  # x = (1, 2)
        return False
    close = has_long_decimal(gold.difference + answer.difference)
    pairs = [(g, a) for g in golds for a in answers]
    pairs += [(times_denominators(g), times_denominators(a)) for g, a in pairs]
    if not any(same_up_to_a_factor(g, a, close) for g, a in dict.fromkeys(pairs)):
        return False
    return any(same_order(gold.difference, f"{sign}({answer.difference})") for sign in ("", "-"))


def _same_collection(gold: Node, answer: Node, rules: Rules) -> bool:
    """Compare lists, sets and tuples."""
    if isinstance(gold, TupleNode) and isinstance(answer, TupleNode):
        same_ends = gold.brackets == answer.brackets or len(gold.nodes) > 2
        return same_ends and _same_in_order(gold.nodes, answer.nodes, rules)
    golds, answers = _elements(gold.nodes), _elements(answer.nodes)
    if max(len(golds), len(answers)) > MAX_ELEMENTS:
        raise Unreadable
    tuples, lists = ([node for node in (gold, answer) if isinstance(node, kind)] for kind in (TupleNode, ListNode))
    if any(node.is_interval for node in tuples) or (tuples and any(map(_is_alternatives, lists))):
        return False  # an interval is not the list of its ends, nor a point two solutions
    if len(lists) == 2 and _joined_otherwise(*lists):
        return False
    if tuples or _named_by_place(golds, answers) or _named_by_place(answers, golds):
        if all(isinstance(node, Named) and node.name in ("x", "y", "z") for node in answers):
            answers.sort(key=lambda node: node.name)  # y = 1, x = 2 is (2, 1)
        return _same_in_order(golds, answers, rules)
    of_sets = isinstance(gold, SetNode) and isinstance(answer, SetNode)

    def alike(g: Node, a: Node) -> bool:  # {1, {2}} is not {1, 2}
        return (not of_sets or isinstance(g, SetNode) == isinstance(a, SetNode)) and same(g, a, rules)

    # Each gold as often as among the golds, or more often: an answer may name a solution twice.
    counts = [[sum(alike(g, node) for node in nodes) for g in golds] for nodes in (golds, answers)]
    known = all(any(alike(g, a) for g in golds) for a in answers)
    return known and all(1 <= g <= a for g, a in zip(*counts, strict=True))


def _is_alternatives(node: ListNode) -> bool:
    """Tell whether a list can't be the parts of one point: x = 1 or y = 2, x = -1 and x = 1."""
    names = [each.name for each in node.nodes if isinstance(each, Named)]
    return node.joiner == "\\lor" or len(set(names)) < len(names)


def _joined_otherwise(gold: ListNode, answer: ListNode) -> bool:
    """Tell whether one says "and" of conditions, and the other "or"."""
    nodes = [*gold.nodes, *answer.nodes]
    names = {node.stem for node in nodes if isinstance(node, Named)}
    logical = all(isinstance(node, Leaf) and re.fullmatch("[a-zA-Z]", node.text) for node in nodes)
    conditions = len(names) > 1 or any(
        isinstance(node, (Relation, Chain))
        or (isinstance(node, Named) and (node.relation or isinstance(node.value, Operation)))
        for node in nodes
    )
    joiners = {"\\land" if node.joiner == "," and conditions else node.joiner for node in (gold, answer)}
    return joiners == {"\\land", "\\lor"} and (conditions or logical)


def _has_letters(*nodes: Node) -> bool:
    return any(isinstance(node, Leaf) and re.search(r"(?<![\\a-zA-Z])[a-zA-Z]", node.text) for node in nodes)


def _elements(nodes: tuple[Node, ...]) -> list[Node]:
    """Return the nodes with each list, such as the two values of a plus-minus, replaced by its elements."""
    elements: list[Node] = []
    for node in nodes:
        elements += _elements(node.nodes) if isinstance(node, ListNode) and node.joiner != "&" else [node]
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
