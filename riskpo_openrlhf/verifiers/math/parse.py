r"""Take an answer apart into the nodes of `nodes.py`: text to nodes, standard library only."""

from __future__ import annotations

import functools
import re
from itertools import product

from riskpo_openrlhf.verifiers.math.brackets import closing_bracket, depths, split
from riskpo_openrlhf.verifiers.math.limits import MAX_ELEMENTS, MAX_NESTED_NODES, MAX_VECTOR, Unreadable
from riskpo_openrlhf.verifiers.math.nodes import Chain, Group, Leaf, Named, Node, Relation
from riskpo_openrlhf.verifiers.math.notation import tidy

_SEPARATORS = {",", ";"}
_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\in", "\\approx", "\\ne"}
_TURNED = {">": "<", "\\ge": "\\le"}
_UNKNOWNS = set("xyzt")
_MATRIX = re.compile(
    r"([^&]*?)(?:\\cdot\s*)?\\begin\s*\{([pbB]?matrix|array)\}(?:\s*\{[lcr| ]*\})?(.*)\\end\s*\{\2\}",
    re.DOTALL,
)
TOKEN = re.compile(r"\\text\s*\{[^{}]*\}|\\[a-zA-Z]+|.", re.DOTALL)  # words are one
_RAISED_C = re.compile(r"(?<![\w}])[\^_]\{([^{}]+)\}\s*(?:\\text\{C\}|C)_\{([^{}]+)\}")  # nCk, n raised or lowered
_FACTOR = r"[+-]?(?:\([^()]*\)|\{[^{}]*\}|\\(?!text|hat|vec)[a-zA-Z]+(?![a-zA-Z])|[^+\-=(),;{}\\])*"
_UNIT = r"\\(?:text|hat|vec)\s*\{\s*\\?([ijk])(?:math)?\s*\}\s*"
_ALONG = re.compile(rf"({_FACTOR}){_UNIT}")  # 2\sqrt{3}\mathbf{i}
_BASIS = re.compile(rf"(?:^|(?<==)) *(?:{_FACTOR}{_UNIT})+$")
_NOT_EQUAL = re.compile(r"([a-zA-Z])\s*\\ne(?![a-z])((?:[^=<>\\]|\\(?!ne|le|ge|in(?!fty)|lor|land))+)")
_OF_INTERVAL = re.compile(
    r"(?<![a-zA-Z\\])[a-zA-Z]\s*(?=\([^()\[\],]+,[^()\[\],]+\]$|\[[^()\[\],]+,[^()\[\],]+\)$)"
)  # t(0,4]
_POINT = re.compile(r"([A-Z])\s*(\([^()]*,[^()]*\))")
_SYSTEM = re.compile(r"(?:\\\{)?\s*\\begin\s*\{(cases|aligned|gathered)\}(.*)\\end\s*\{\1\}", re.DOTALL)
_ROW_END = re.compile(r"\\\\(?:\s*\[[^\]]*\])?")
_PIECE = re.compile(  # x^2, & x > 0 and x^2 & \text{if } x > 0; but not x &= 2 and x & + y = 2
    r"([^=<>&]+?)[\s,]*&\s*(?:\\text\s*\{[a-z\s]*\}\s*)?((?!\\(?:le|ge|ne)(?![a-z]))[^&=<>+\-\s][^&]*)"
)
_CONDITION = re.compile(r"\\text\s*\{[^{}]*\b(?:if|for|when|where|unless)\b")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_LETTER = re.compile(r"(?:[a-zA-Z]|\\[a-z]+)\s*(?:_\{[^{}]*\})?'*")
_ABSOLUTE = re.compile(r"\|([^|zw]+)\|")  # of a real number: z and w are mostly complex
_THOUSANDS = re.compile(r"(?<![\d.,])(?:(?<![(\[])|(?=\d+,0))[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)")  # (1,000), not (5,120)
_REALS = Group("()", (Leaf("-\\infty"), Leaf("\\infty")))
_POSITIVE = Group("()", (Leaf("0"), Leaf("\\infty")))
_SYMBOLS = {
    "\\emptyset": Group("{}", ()),
    "\\mathbb{R}": _REALS,
    "\\mathbb{R}_{\\ge 0}": Group("[)", _POSITIVE.nodes),
    **dict.fromkeys(("\\mathbb{R}^{+}", "\\mathbb{R}_{+}", "\\mathbb{R}_{>0}"), _POSITIVE),
}


@functools.lru_cache(maxsize=2048)
def readings(text: str, letter: str = "") -> tuple[Node, ...]:
    """Parse an answer into a node for each way to read it: `1,234` is a number, or a list of two.

    With a `letter`, the one that the answer declares a whole number gets this name. Raises `Unreadable`.
    """
    text, named, _ = tidy(text)
    if letter:
        text = renamed(text, named, letter)
    if len(text) < MAX_VECTOR:
        text = _BASIS.sub(_vector, text)
    text = _RAISED_C.sub(r"\\binom{\1}{\2}", text)
    joined = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return tuple(map(_node, dict.fromkeys((joined, text if ",0" not in text else joined))))


def renamed(text: str, name: str, other: str) -> str:
    return "".join(other if token == name else token for token in TOKEN.findall(text))


def _vector(match: re.Match) -> str:
    r"""Write 2\mathbf{i}-\mathbf{k} as (2,0,-1), and in two dimensions without a third number."""
    parts = {"i": "", "j": ""}
    for factor, letter in _ALONG.findall(match[0].replace(" ", "")):
        parts[letter] = parts.get(letter, "") + (factor + "1" if factor in ("", "+", "-") else factor)
    if "\\text" in match[0] and parts["i"] and parts == {"i": parts["i"], "j": ""}:  # 2i, a complex number
        return match[0]
    return f"({','.join(parts[letter].removeprefix('+') or '0' for letter in sorted(parts))})"


def _node(text: str, level: int = 0) -> Node:
    if level > MAX_NESTED_NODES:
        raise Unreadable
    text = text.strip()
    while text.startswith("{") and closing_bracket(text) == len(text) - 1:
        text = text[1:-1].strip()
        if split(text, _SEPARATORS)[1]:  # {1, 2} without the backslashes
            text = rf"\{{{text}\}}"
    if match := _NOT_EQUAL.fullmatch(text):  # x \ne 1, 2
        excluded = Group("{}", _nodes(split(match[2], _SEPARATORS)[0], level + 1))
        return Named(Group("\\setminus", (_REALS, excluded)), _plain(match[1]))
    cases = [split(case, {","})[0] for case in split(text, {"\\lor", ";"})[0]]
    if len(cases) > 1 and all(len(case) > 1 and re.search("[=<>]", "".join(case)) for case in cases):
        return Group("\\lor", tuple(Group("&", _nodes(case, level + 1)) for case in cases))
    for joiner in (",", "\\lor", "\\land"):
        parts = [part for part in split(text, _SEPARATORS if joiner == "," else {joiner})[0] if part]
        if len(parts) > 1:
            return Group(joiner, _nodes(_filled(parts), level + 1))
        text = parts[0] if parts else ""
    text = _OF_INTERVAL.sub("", text)
    if _PLUS_MINUS.search(text.partition("\\{")[0]):  # both upper signs, both lower signs
        pieces, marks = _PLUS_MINUS.split(text)[::2], _PLUS_MINUS.findall(text)
        upper, lower = (["+" if mark == kind else "-" for mark in marks] for kind in ("pm", "mp"))
        together = "mp" in marks or len(marks) > 4
        signs = [upper, lower] if together else product("+-", repeat=len(marks))
        values = ["".join(map("".join, zip(pieces, (*each, ""), strict=True))) for each in signs]
        values = [re.sub(r"(^|[(\[=,])\s*\+", r"\1", value) for value in values]
        return Group(",", _nodes(values, level + 1))
    parts, signs = split(text, _RELATIONS)
    if signs:
        return _relation(parts, signs, level + 1)
    for operator in ("\\cup", "\\cap", "\\setminus"):
        parts = split(text, {operator})[0]
        if len(parts) > 1:
            nodes = _nodes(parts, level + 1)
            if operator == "\\cup" and all(node.shape == "{}" for node in nodes):
                return Group("{}", tuple(element for node in nodes for element in node.nodes))
            return Group(operator, nodes)
    if text.endswith("^{T}"):
        match _node(text[:-4], level + 1):
            case Group("matrix", rows):
                columns = zip(*(row.nodes for row in rows), strict=True)
                return Group("matrix", tuple(Group("row", column) for column in columns))
            case Group(shape="tuple") as node:
                return node
    if match := _MATRIX.fullmatch(text):
        factor = {"": "", "-": "-1"}.get(match[1].strip(), match[1])
        rows = [split(row, {"&"})[0] for row in _ROW_END.split(match[3]) if row.strip()]
        if factor:
            rows = [[rf"({factor})\cdot ({entry})" for entry in row] for row in rows]
        return Group("matrix", tuple(Group("row", _nodes(row, level + 1)) for row in rows))
    if match := _SYSTEM.fullmatch(text):
        rows = (_PIECE.sub(r"(\1, \2)", row.strip()).replace("&", "") for row in _ROW_END.split(match[2]))
        rows = (f"({row})" if len(split(row, {","})[0]) == 2 else row for row in rows)
        return _node(",".join(rows), level + 1)
    if text in _SYMBOLS:
        return _SYMBOLS[text]
    if text.startswith(("(", "[", "\\{")) and (node := _bracketed(text, level + 1)):
        return node
    if match := _POINT.fullmatch(text):  # A(2, 3)
        node = _node(match[2], level + 1)
        return Named(node, _plain(match[1])) if node.shape == "tuple" else Leaf(text)
    parts, colons = split(text, {":"})
    return Group(":", tuple(map(Leaf, parts))) if colons and all(parts) else Leaf(text)


def _nodes(parts: list[str], level: int) -> tuple[Node, ...]:
    return tuple(_node(part, level) for part in parts)


def _filled(parts: list[str]) -> list[str]:
    r"""Write the whole numbers that dots stand for: `1, 2, \ldots, 5`; `1, 2, 3, \ldots, n` is `1, 2, \ldots, n`."""
    if parts.count("\\ldots") != 1 or not 0 < (place := parts.index("\\ldots")) < len(parts) - 1:
        return parts
    first = max(place - 3, 0)
    numbers = [int(part) for part in parts[first : place + 2] if re.fullmatch(r"-?\d{1,9}", part)]
    before, after = numbers[: place - first], numbers[place - first :]
    steps = {b - a for a, b in zip(before, before[1:], strict=False)} or {1}
    if len(before) != place - first or len(steps) > 1 or not (step := steps.pop()):
        return parts
    if not after:
        return [*parts[:2], *parts[3:]] if place == 3 else parts
    between = range(before[-1] + step, after[0], step)
    if (after[0] - before[-1]) % step or len(between) > MAX_ELEMENTS:
        return parts
    return [*parts[:place], *map(str, between), *parts[place + 1 :]]


def _bracketed(text: str, level: int) -> Node | None:
    """Parse a text that is one pair of brackets; None if it is more than that."""
    tokens = depths(text)
    opening = next(tokens)[0]
    end = next(match for match, depth in tokens if depth == 0)
    if end.end() != len(text) or (opening[0] == "\\{") != (end[0] == "\\}"):
        return None
    inner = text[opening.end() : end.start()].strip()
    if opening[0] == "\\{":
        parts, bars = split(inner, {"|", ":"})
        name, _, domain = parts[0].partition("\\in")
        if len(bars) == 1 and _is_name(name):  # {x : x > 1}, where x is any letter
            if domain and "R" not in domain:
                raise Unreadable
            node = _node(parts[1], level)
            return node.value if isinstance(node, Named) else node
    parts = [part for part in split(inner, {";"} if split(inner, {";"})[1] else {","})[0] if part]
    if opening[0] == "\\{":
        return Group("{}", _nodes(_filled(parts), level))
    if len(parts) == 1:
        return _node(inner, level)
    return Group(opening[0] + end[0], _nodes(parts, level))


def _relation(parts: list[str], signs: list[str], level: int) -> Node:
    """Parse a text with relations: `parts[0] signs[0] parts[1] signs[1] …`."""
    if not all(parts) or (signs != ["="] and _CONDITION.search("".join(parts))):
        raise Unreadable
    if "\\approx" in signs:  # the part before it is exact, unless that is only a name
        place = signs.index("\\approx")
        if place == 0 and _is_name(parts[0]):
            return Named(_node(parts[1], level), _plain(parts[0]))
        parts, signs = parts[: place + 1], signs[:place]
        if not signs:
            return _node(parts[0], level)
    if set(signs) == {"="}:
        return _equation(parts, level)
    if signs == ["\\in"] and _is_name(parts[0]):
        return Named(_node(parts[1], level), _plain(parts[0]))
    if not set(signs) <= {"<", "\\le", ">", "\\ge", "\\ne"}:
        raise Unreadable
    if set(signs) <= set(_TURNED):
        parts, signs = parts[::-1], [_TURNED.get(sign, sign) for sign in signs[::-1]]
    if len(parts) == 2 and signs[0] in ("<", "\\le"):
        if match := _ABSOLUTE.fullmatch(parts[0]):  # |x| < 2
            parts, signs = [f"-({parts[1]})", match[1], parts[1]], signs * 2
        elif match := _ABSOLUTE.fullmatch(parts[1]):  # |x| > 2
            less = _relation([match[1], f"-({parts[0]})"], signs, level)
            return Group("\\lor", (less, _relation([parts[0], match[1]], signs, level)))
    turned = [
        (b, _TURNED[s], a) if s in _TURNED else (a, s, b) for a, s, b in zip(parts, signs, parts[1:], strict=False)
    ]
    relation = Relation(tuple((f"{a}-({b})", sign) for a, sign, b in turned))
    if set(signs) <= {"<", "\\le"}:
        names = sorted(filter(_is_name, parts), key=lambda name: name not in _UNKNOWNS)
        if len(parts) == 2 and names:  # x > k says where x is, not k
            upper = names[0] == parts[0]
            parts, signs = (["-\\infty", *parts], ["<", *signs]) if upper else ([*parts, "\\infty"], [*signs, "<"])
        if len(parts) == 3 and _is_name(parts[1]):
            brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
            return Named(Group(brackets, _nodes([parts[0], parts[2]], level)), _plain(parts[1]), relation)
    return relation


def _equation(sides: list[str], level: int) -> Named | Chain | Group:
    if len(sides) == 2 and _is_name(sides[1]) and not _is_name(sides[0]):
        sides = sides[::-1]
    nodes = _nodes(sides, level)
    relations = [Relation(((f"{side}-({sides[-1]})", "="),)) for side in sides[:-1]]
    if len(sides) > 2 and all(_LETTER.fullmatch(side) for side in sides[:-1]):  # x = y = z = 1
        named = zip(sides[:-1], relations, strict=True)
        return Group(",", tuple(Named(nodes[-1], _plain(side), relation) for side, relation in named))
    relation = relations[0] if len(sides) == 2 else None
    if not _is_name(sides[0]):
        return Chain(nodes, _is_name(sides[0], sums=True), relation)
    return Named(nodes[1] if relation else Chain(nodes[1:]), _plain(sides[0]), relation)


def _plain(name: str) -> str:
    name = re.sub(r"\|([A-Z]{2})\|", r"\1", name)  # a length
    return re.sub(r"\\text|[\s{}]", "", name)


def _is_name(text: str, sums: bool = False) -> bool:
    r"""Tell whether a left side only names its value: x, a_{37}, f(x), |AB|, \angle A, (p, q), \frac{NO}{BO}.

    With `sums`, m+n is a name too.
    """
    if re.match(r"\s*-|.*(?:\\(?:neg|not|notin|nmid)(?![a-z])|\bnot\b)", text):
        return False
    text = re.sub(r"_\{[^{}]*\}|\\text\s*\{[^{}]*\}", "N", text)
    text = re.sub(r"\\begin\{[pb]matrix\}([a-zA-Z&\\\s]*)\\end\{[pb]matrix\}", "N", text)
    text = re.sub(r"(?<=[a-zA-Z'])(?:\^\{-1\}(?=\()|\s*)[\[(][^()\[\]]*[)\]]", "", text)  # f^{-1}(x)
    text = re.sub(r"\\(?:pi|infty|pm|mp|emptyset|mathbb|cdot|begin)(?![a-zA-Z])", "0", text)
    return bool(re.search("[a-zA-Z]", text)) and not re.search(r"[\d^<>=!%]" + ("" if sums else r"|[+\-]"), text)
