r"""Do two answers mean the same? Both are tidied up (`notation.py`), taken apart, and their parts compared by value.

latex2sympy2_extended reads the parts that are expressions and SymPy evaluates them; math-verify judges what is none.
Any of these may take for ever, so `compare` belongs into a worker process (`verifiers/pool.py`); `quickly` needs none.
Nothing here evaluates text as Python.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from riskpo_openrlhf.verifiers.math.notation import MAX_LENGTH, TEXT_COMMANDS, TOKEN, Unreadable, closing_bracket, tidy

EQUAL, DIFFERENT, UNREADABLE = "equal", "different", "unreadable"
CLOSE = 1e-8  # relative, where a decimal stands for a value with more digits
EXACT = 1e-20  # relative, between values computed to 30 digits
_SPACE = re.compile(r"\s+(?!\w)|(?<!\w)\s+")  # but not that of "1 0" and "\pi r"
MAX_BITS = 200_000  # size of a number that is worth evaluating


def quickly(gold: str, answer: str) -> str | None:
    """The verdict of `compare` if it needs no algebra: the same text, or two plain numbers. Otherwise None."""
    gold, answer = (text.strip().strip("$").strip() for text in (gold, answer))
    if _SPACE.sub("", gold) == _SPACE.sub("", answer):
        return EQUAL
    g, a = _number(gold), _number(answer)
    return _verdict(_numbers_agree(g, a)) if g and a else None


def compare(gold: str, answer: str, rounded: bool = False) -> str:
    """`equal`, `different`, or `unreadable`: the answer is, or it is too large to be evaluated.

    Args:
        gold: the right answer.
        answer: the answer to judge.
        rounded: accept decimals that are the other value rounded, as `geometry.verify` says.
    """
    if (verdict := quickly(gold, answer)) and (verdict == EQUAL or not rounded):
        return verdict
    if _word(gold) == _word(answer) != "":
        return EQUAL
    try:
        answers = _readings(answer)
        comparison = _Comparison(rounded, _case_is_free(gold) and _case_is_free(answer))
        same = any(comparison.same(g, a) for g in _readings(gold) for a in answers)
        return _verdict(same or (bool(_SET_OPERATION.search(gold + answer)) and comparison.same_sets(gold, answer)))
    except MemoryError:
        raise
    except Exception:  # Unreadable, or whatever SymPy raises on an odd expression
        return UNREADABLE


def _verdict(same: bool) -> str:
    return EQUAL if same else DIFFERENT


# Taking apart. A node is a tuple that begins with its kind:
#   ("list", nodes)              1, 2 and 3; also the parts of a union, and the two values of a plus-minus
#   ("set", nodes)               \{1, 2\}
#   ("tuple", nodes, brackets)   (1, 2), [0, 1): a pair and an interval look alike
#   ("named", node, name, text)  x = 5, f(x) = 2x, x \in [0, 1], 0 < x < 1
#   ("chain", nodes, skip, text) 2x+y = 3, 2+3 = 5; skip: its left side, like m+n, is asked for and not a value
#   ("matrix", rows, text), ("row", nodes), ("ratio", nodes)
#   ("leaf", text)
# The text of an equation is its left side minus its right side; None for other relations.

_SEPARATORS = {",", ";"}
_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\in", "\\approx", "\\ne"}
_MATRIX = re.compile(r"\\begin\s*\{([pbB]?matrix|array)\}(?:\s*\{[lcr| ]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)
_SYSTEM = re.compile(r"(?:\\\{)?\s*\\begin\s*\{(cases|aligned|gathered)\}(.*)\\end\s*\{\1\}", re.DOTALL)
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_SYMBOLS = {
    "\\emptyset": ("set", []),
    "\\mathbb{R}": ("tuple", [("leaf", "-\\infty"), ("leaf", "\\infty")], "()"),
}
_ROW_END = re.compile(r"\\\\(?:\s*\[[^\]]*\])?")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_SET_OPERATION = re.compile(r"\\(?:setminus|backslash|cap|mathbb)(?![a-zA-Z])")
_MAX_DEPTH = 12


@functools.lru_cache(maxsize=2048)
def _readings(text: str) -> list[tuple]:
    """1,234 is a number, or two: what holds for one of the readings holds."""
    text = tidy(text)
    joined = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return [_node(reading) for reading in dict.fromkeys((joined, text if ",0" not in text else joined))]


def _depths(text: str):
    """Each token of the text with the number of brackets that are open after it. Raises `Unreadable` if they don't
    match; ( and ] do."""
    depth = 0
    for match in TOKEN.finditer(text):
        token = match[0]
        opens = token in ("(", "[", "{", "\\{") or token.startswith("\\begin")
        depth += opens - (token in (")", "]", "}", "\\}") or token.startswith("\\end"))
        if depth < 0:
            raise Unreadable
        yield match, depth
    if depth:
        raise Unreadable


def _split(text: str, separators: set[str]) -> tuple[list[str], list[str]]:
    """The parts of a text between separators that stand in no bracket, and those separators."""
    parts, found, start = [], [], 0
    for match, depth in _depths(text):
        if depth == 0 and match[0] in separators:
            parts.append(text[start : match.start()].strip())
            found.append(match[0])
            start = match.end()
    return [*parts, text[start:].strip()], found


def _node(text: str, level: int = 0) -> tuple:
    if level > _MAX_DEPTH:
        raise Unreadable
    text = text.strip()
    while text.startswith("{") and closing_bracket(text) == len(text) - 1:
        text = text[1:-1].strip()
        if _split(text, _SEPARATORS)[1]:  # {1, 2} without the backslashes
            text = rf"\{{{text}\}}"
    for separators in (_SEPARATORS, {"\\cup"}):
        parts = [part for part in _split(text, separators)[0] if part]
        if len(parts) > 1:
            return ("list", [_node(part, level + 1) for part in parts])
        text = parts[0] if parts else ""
    parts, signs = _split(text, _RELATIONS)
    if signs:
        return _relation(parts, signs, level + 1)
    if match := _MATRIX.fullmatch(text):
        rows = [_split(row, {"&"})[0] for row in _ROW_END.split(match[2]) if row.strip()]
        return ("matrix", [("row", [_node(cell, level + 1) for cell in row]) for row in rows], text)
    if match := _SYSTEM.fullmatch(text):
        return _node(_ROW_END.sub(",", match[2].replace("&", "")), level + 1)
    if text in _SYMBOLS:
        return _SYMBOLS[text]
    if _PLUS_MINUS.search(text) and not text.startswith("\\{"):  # both upper signs, both lower signs
        upper = _PLUS_MINUS.sub(lambda match: "+" if match[1] == "pm" else "-", text)
        lower = _PLUS_MINUS.sub(lambda match: "-" if match[1] == "pm" else "+", text)
        return ("list", [_node(value.removeprefix("+"), level + 1) for value in (upper, lower)])
    if text.startswith(("(", "[", "\\{")) and (node := _bracketed(text, level + 1)):
        return node
    parts, colons = _split(text, {":"})
    if colons and all(parts):
        return ("ratio", [("leaf", part) for part in parts])
    return ("leaf", text)


def _bracketed(text: str, level: int) -> tuple | None:
    """The node of a text that is one pair of brackets; None if there is more."""
    tokens = _depths(text)
    opening = next(tokens)[0]
    end = next(match for match, depth in tokens if depth == 0)
    if end.end() != len(text) or (opening[0] == "\\{") != (end[0] == "\\}"):
        return None
    inner = text[opening.end() : end.start()].strip()
    if opening[0] == "\\{":
        parts, bars = _split(inner, {"|", ":"})
        if len(bars) == 1 and _is_name(parts[0].split("\\in")[0]):  # {x : x > 1}
            return _node(parts[1], level)
    parts = [part for part in _split(inner, {";"} if _split(inner, {";"})[1] else {","})[0] if part]
    if opening[0] == "\\{":
        return ("set", [_node(part, level) for part in parts])
    if len(parts) == 1:
        return _node(inner, level)
    return ("tuple", [_node(part, level) for part in parts], opening[0] + end[0])


def _relation(parts: list[str], signs: list[str], level: int) -> tuple:
    if not all(parts):
        raise Unreadable
    if "\\approx" in signs:  # what stands before it is exact, unless it is only a name
        place = signs.index("\\approx")
        if place == 0 and _is_name(parts[0]):
            return ("named", _node(parts[1], level), _plain(parts[0]), None)
        parts, signs = parts[: place + 1], signs[:place]
        if not signs:
            return _node(parts[0], level)
    if set(signs) == {"="}:
        if len(parts) == 2 and _is_name(parts[1]) and not _is_name(parts[0]):
            parts = parts[::-1]
        nodes = [_node(part, level) for part in parts]
        text = f"{parts[0]}-({parts[1]})" if len(parts) == 2 else None
        if not _is_name(parts[0]):
            return ("chain", nodes, _is_name(parts[0], sums=True), text)
        return ("named", nodes[1] if text else ("chain", nodes[1:], False, None), _plain(parts[0]), text)
    if signs == ["\\in"] and _is_name(parts[0]):
        return ("named", _node(parts[1], level), _plain(parts[0]), None)
    if signs[0] in (">", "\\ge"):
        parts, signs = parts[::-1], [{">": "<", "\\ge": "\\le"}.get(sign, sign) for sign in signs[::-1]]
    if set(signs) <= {"<", "\\le"}:
        if len(parts) == 2 and _is_name(parts[0]):
            parts, signs = ["-\\infty", *parts], ["<", *signs]
        elif len(parts) == 2 and _is_name(parts[1]):
            parts, signs = [*parts, "\\infty"], [*signs, "<"]
        if len(parts) == 3 and _is_name(parts[1]):
            brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
            return (
                "named",
                ("tuple", [_node(parts[0], level), _node(parts[2], level)], brackets),
                _plain(parts[1]),
                None,
            )
    return ("leaf", " ".join([parts[0], *(f"{sign} {part}" for sign, part in zip(signs, parts[1:], strict=True))]))


def _plain(name: str) -> str:
    return re.sub(r"\\text|[\s{}]", "", name).lower()


def _is_name(text: str, sums: bool = False) -> bool:
    r"""x, a_{37}, f(x), |AB|, \angle A, (p, q), \frac{NO}{BO}: what a left side calls its value. `sums`: also m+n."""
    text = re.sub(r"_\{[^{}]*\}|\\text\s*\{[^{}]*\}", "N", text)
    text = re.sub(r"(?<=[a-zA-Z])\^\{-1\}(?=\()", "", text)  # f^{-1}(x)
    text = re.sub(r"(?<=[a-zA-Z'])\s*[\[(][^()\[\]]*[)\]]", "", text)
    text = re.sub(r"\\(?:pi|infty|pm|mp|cup|cap|setminus|emptyset|mathbb|cdot|begin)(?![a-zA-Z])", "0", text)
    return bool(re.search("[a-zA-Z]", text)) and not re.search(r"[\d^<>=!%]" + ("" if sums else r"|[+\-]"), text)


# Comparing.

_UNITS = {
    "m": "m meter metre", "cm": "cm centimeter centimetre", "mm": "mm millimeter millimetre",
    "km": "km kilometer kilometre", "ft": "ft foot feet", "in": "in inch inche", "yd": "yd yard", "mi": "mi mile",
    "g": "g gram", "kg": "kg kilogram", "lb": "lb pound", "oz": "oz ounce", "l": "l liter litre",
    "ml": "ml milliliter millilitre", "s": "s sec second", "min": "min minute", "h": "h hr hour", "day": "day",
    "week": "week", "month": "month", "year": "year", "dollar": "dollar", "cent": "cent", "degree": "degree deg",
    "radian": "radian rad", "mph": "mph", "unit": "unit",
}  # fmt: skip
_UNIT_OF = {name: unit for unit, names in _UNITS.items() for name in names.split()}
_PLAIN_UNITS = sorted((name for name in _UNIT_OF if len(name) > 1 and name != "in"), key=len, reverse=True)
_NO_UNIT = re.compile(r"\d|\b(?:or|and|if|otherwise|when|unless|not|maybe|possibly|either|both)\b")
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_EXPONENT = r"\s*(?:\^\s*\{?([23])\}?)?"
_WITH_UNIT = (
    re.compile(r"(.*[^\s(\[{,])\s*\\text\s*\{([^{}]*)\}" + _EXPONENT, re.DOTALL),
    re.compile(
        rf"(.*[\d}})])\s*((?:(?:{'|'.join(_POWERS)})\.? )?(?:{'|'.join(_PLAIN_UNITS)})s?|km/h|m/s)" + _EXPONENT,
        re.DOTALL,
    ),
    re.compile(r"(-?[\d.,/]+)\s+((?!alpha|beta|gamma|delta|theta|lambda|sigma|omega)[A-Za-z]{4,}(?:\s+[A-Za-z]+)*)()"),
)
_BASE = re.compile(r"(\d+)_\{(?:\\text\{)?(\d{1,2}|[a-z]{3,5})\}?\}")
_BASES = {word: str(n) for n, word in enumerate("two three four five six seven eight nine ten".split(), 2)}
_DECIMAL = re.compile(r"([+-]?)(?:(\d{1,400})|(\d{0,400})\.(\d{1,400})|(\d{1,400})\.)")
_FRACTION = re.compile(r"([+-]?)(?:\\frac\{(-?\d{1,400})\}\{(\d{1,400})\}|(\d{1,400}) ?/ ?(\d{1,400}))")


def _number(text: str) -> tuple[Fraction, int] | None:
    """A plain number and its decimal places, -1 for a fraction. None for anything else."""
    if match := _DECIMAL.fullmatch(text):
        sign, whole, before, after, pointed = match.groups()
        value, places = (Fraction(f"{before or 0}.{after}"), len(after)) if after else (Fraction(whole or pointed), 0)
    elif (match := _FRACTION.fullmatch(text)) and int(match[3] or match[5]):
        sign, value, places = match[1], Fraction(int(match[2] or match[4]), int(match[3] or match[5])), -1
    else:
        return None
    return -value if sign == "-" else value, places


def _numbers_agree(gold: tuple[Fraction, int], answer: tuple[Fraction, int]) -> bool:
    """They are equal; or one is a decimal, none is whole, and they differ by no more than `CLOSE`."""
    (g, _), (a, _) = gold, answer
    close = max(gold[1], answer[1]) > 0 and g.denominator > 1 and a.denominator > 1
    return g == a or (close and abs(g - a) <= CLOSE * abs(g))


def _unit(text: str) -> tuple[str, str]:
    r"""An answer without its unit, and the unit, empty if it is not known: `("10", "cm2")` of `10\text{ cm}^{2}`.

    A unit of one letter counts in \text only: 4c is a product.
    """
    match = next(filter(None, (pattern.fullmatch(text) for pattern in _WITH_UNIT)), None)
    if not match:
        return (text.rstrip("% "), "%") if text.endswith("%") else (text, "")
    words = match[2].lower().replace(".", " ").split()
    if words[:1] != ["mod"] and _NO_UNIT.search(match[2].lower()):  # a second answer, or a condition
        return text, ""
    power = match[3] or _POWERS.get(words[0] if words else "", "")
    names = [word for word in words if word not in _POWERS]
    if names[:1] == ["mod"]:
        return match[1].strip(), " ".join(names)
    unit = _UNIT_OF.get(names[0]) or _UNIT_OF.get(names[0].removesuffix("s")) if len(names) == 1 else None
    return match[1].strip(), unit + power if unit else ""


def _word(text: str) -> str:
    r"""An answer in words: `\text{(C)}` and `C) 42` are `c`, `\text{Even}` is `even`. Empty for anything else."""
    if len(text) > MAX_LENGTH:
        return ""
    text = re.sub(rf"\\{TEXT_COMMANDS}\s*\{{|[{{}}$\"]|\\[(), ]", " ", text)
    words = " ".join(text.split()).strip(" .").lower()
    if match := re.fullmatch(r"\( ?([a-z]) ?\)(?: .*)?|([a-z])(?:[).:](?: .*)?)?", words):
        # A second choice in what follows the letter: no choice.
        return (
            ""
            if re.search(r"\(?\b[a-h][).:]|\b(?:and|or|both)\b", words[match.end(1 if match[1] else 2) + 1 :])
            else (match[1] or match[2])
        )
    return words if re.fullmatch(r"[a-z][a-z ,'\-.]*", words) else ""


def _case_is_free(text: str) -> bool:
    """Whether m and M are the same: yes, unless a letter occurs in both cases."""
    letters = set(re.sub(r"\\[a-zA-Z]+", "", text))
    return not any(letter.upper() in letters for letter in letters if letter.islower())


def _elements(nodes: list[tuple]) -> list[tuple]:
    """Nodes, with the elements of a list (the two of a plus-minus) in its place."""
    elements = []
    for node in nodes:
        if node[0] == "list":
            elements += _elements(node[1])
        elif node[0] == "named" and node[1][0] == "list":
            elements += [("named", value, node[2], None) for value in _elements(node[1][1])]
        else:
            elements.append(node)
    return elements


def _by_place(named: list[tuple], bare: list[tuple]) -> bool:
    """x = 1, y = 2 against 1, 2: the order says which is which. Not so for x_1 and x_2, which are two of a kind."""
    names = {node[2].split("_")[0] for node in named if node[0] == "named"}
    return len(names) > 1 and not any(node[0] == "named" for node in bare)


class _Comparison:
    """Of nodes. `rounded` is that of `compare`; `lower`: the case of letters is free."""

    def __init__(self, rounded: bool, lower: bool):
        self.rounded, self.lower = rounded, lower

    def same(self, gold: tuple, answer: tuple) -> bool:
        kinds = {gold[0], answer[0]}
        if "named" in kinds:
            return self._named(gold, answer)
        if gold[0] == "chain":
            return answer[0] == "chain" and self._equations(gold, answer)
        if answer[0] == "chain":  # 2+3 = 5 is right if each part is; 41 = 42 is not
            return all(self.same(gold, node) for node in answer[1][answer[2] :])
        if len(kinds) == 2 and "set" in kinds and "list" not in kinds:  # {5} and 5
            golds, answers = (node[1] if node[0] == "set" else [node] for node in (gold, answer))
            return self._ordered(golds, answers)
        if kinds <= {"list", "set", "tuple"}:
            return self._collections(gold, answer)
        if kinds == {"leaf"}:
            return self._leaves(gold[1], answer[1])
        if kinds == {"leaf", "matrix"}:  # a number times a matrix
            return _judged_by_math_verify(*(self._expression(node[-1]) for node in (gold, answer)))
        if kinds == {"leaf", "ratio"}:
            return self.same(
                *(("leaf", "/".join(f"({x[1]})" for x in n[1])) if n[0] == "ratio" else n for n in (gold, answer))
            )
        return len(kinds) == 1 and self._ordered(gold[1], answer[1])

    def same_sets(self, gold: str, answer: str) -> bool:
        """For sets that are computed, such as a difference."""
        return _judged_by_math_verify(*(self._expression(tidy(text)) for text in (gold, answer)))

    def _ordered(self, golds: list[tuple], answers: list[tuple]) -> bool:
        return len(golds) == len(answers) and all(map(self.same, golds, answers))

    def _named(self, gold: tuple, answer: tuple) -> bool:
        g, a = (node[1] if node[0] == "named" else node for node in (gold, answer))
        if gold[0] == "named" and g[0] == "chain":  # x = 5+6 = 11: the last is meant
            g = g[1][-1]
        alike = gold[0] != answer[0] or gold[2] == answer[2] or gold[2].split("_")[0] == answer[2]
        return (alike and self.same(g, a)) or self._equations(gold, answer)

    def _collections(self, gold: tuple, answer: tuple) -> bool:
        if gold[0] == answer[0] == "tuple":
            return (gold[2] == answer[2] or len(gold[1]) > 2) and self._ordered(gold[1], answer[1])
        golds, answers = _elements(gold[1]), _elements(answer[1])
        if max(len(golds), len(answers)) > 100:
            raise Unreadable
        tuples = [node for node in (gold, answer) if node[0] == "tuple"]
        if any(node[2] != "()" and len(node[1]) == 2 for node in tuples):
            return False  # an interval is not the list of its ends
        if tuples or _by_place(golds, answers) or _by_place(answers, golds):
            return self._ordered(golds, answers)
        # As often as in the gold, or more often: a solution may be named twice.
        counts = [[sum(self.same(g, node) for node in nodes) for g in golds] for nodes in (golds, answers)]
        known = all(any(self.same(g, a) for g in golds) for a in answers)
        return known and all(1 <= g <= a for g, a in zip(*counts, strict=True))

    def _leaves(self, gold: str, answer: str) -> bool:
        (gold, gold_unit), (answer, answer_unit) = _unit(gold), _unit(answer)
        units = {gold_unit, answer_unit} - {""}
        if len(units) > 1:
            return False
        texts = (gold, answer)
        words = [_word(text) for text in texts]
        if any(
            re.search(r"[a-z]{5}", word) or (word and "\\text" in text)
            for word, text in zip(words, texts, strict=True)
        ):
            return words[0] == words[1]
        bases = [_BASE.fullmatch(text) for text in texts]
        if any(bases):  # in the base that is asked for; 52_8 is not 42
            g, a = ((m[1], _BASES.get(m[2], m[2])) if m else (t, "10") for m, t in zip(bases, texts, strict=True))
            return g == a
        if self._values(gold, answer):
            return True
        if units != {"%"} or gold_unit == answer_unit:
            return False
        # 50% is 50 to some golds, and 0.5 to others.
        hundredth = [rf"\frac{{{t}}}{{100}}" if u else t for t, u in ((gold, gold_unit), (answer, answer_unit))]
        return self._values(*hundredth)

    def _values(self, gold: str, answer: str) -> bool:
        g, a = _number(gold), _number(answer)
        if g and a and _numbers_agree(g, a):
            return True
        if self.rounded and self._rounds(g, a, gold, answer):
            return True
        if g and a:
            return False
        right = self._expression(answer)
        try:
            left = self._expression(gold)
        except Unreadable:  # nothing but the same text equals it
            return False
        if _is_scalar(left) and _is_scalar(right):
            return _same_value(left, right, CLOSE if "." in gold + answer else EXACT)
        return _judged_by_math_verify(left, right)

    def _rounds(self, g, a, gold: str, answer: str) -> bool:
        """One is a decimal, the other its exact value; an answer's decimal has two places or more."""
        if g and g[1] > 0:
            decimal, number, text = g, a, answer
        elif a and a[1] > 1 and not (g and g[0].denominator == 1):
            decimal, number, text = a, g, gold
        else:
            return False
        if number:
            value = number[0]
        else:
            expression = self._expression(text)
            computed = _evaluate(expression, {}) if _is_scalar(expression) else None
            if computed is None or computed.imag:
                return False
            value = Fraction(str(computed.real))
        return abs(value - decimal[0]) <= Fraction(1, 2 * 10 ** decimal[1])

    def _equations(self, gold: tuple, answer: tuple) -> bool:
        """Left side minus right side of the one is that of the other times a number."""
        if not all(node[0] in ("named", "chain") and node[3] for node in (gold, answer)):
            return False
        try:
            g, a = self._expression(gold[3]), self._expression(answer[3])
        except Unreadable:  # x = (1, 2)
            return False
        if not (_is_scalar(g) and _is_scalar(a) and g.free_symbols and g.free_symbols == a.free_symbols):
            return False
        values = [(_evaluate(g, point), _evaluate(a, point)) for point, _ in _points(g, a)]
        ratios = [x / y for x, y in values if x and y]
        return len(ratios) > 2 and all(_close(ratio, ratios[0], CLOSE) for ratio in ratios)

    def _expression(self, text: str):
        return _expression(text, self.lower)


@functools.lru_cache(maxsize=2048)
def _expression(text: str, lower: bool):
    """What the text says, as a SymPy object, with exact decimals. Raises `Unreadable`."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

    if re.search(r"\d\s+\d|%", text) or not _is_tame(text):
        raise Unreadable
    # latex2sympy2_extended drops primes, and adds two neighbours that are rational: 2(3) would be 5.
    text = re.sub(r"(?<=[a-zA-Z])'+", lambda match: f"_{{{'prime' * len(match[0])}}}", text)
    text = re.sub(r"(?<=[\d)])\s*(?=\()|(?<=\))\s*(?=\d)", r"\\cdot ", text)
    text = re.sub(r"(\\frac\{[^{}]*\}\{[^{}]*\})\s*(?=[\d(]|\\frac)", r"\1\\cdot ", text)
    try:
        read = latex2sympy(
            text, is_real=True, normalization_config=None, conversion_config=ConversionConfig(lowercase_symbols=lower)
        )
    except MemoryError:
        raise
    except Exception as error:  # of any kind: antlr's, sympy's, plain ones
        raise Unreadable from error
    for part in read if isinstance(read, sympy.MatrixBase) else [read]:
        _bits(part)
    return _rebuilt(read, sympy.Symbol("i", real=True) in read.free_symbols) if _is_scalar(read) else read


def _is_tame(text: str) -> bool:
    """Whether it is worth reading: not so long, nested or full of bars that the parser's time explodes, and without
    huge numbers in the functions that latex2sympy2_extended evaluates while it reads."""
    deepest = max((depth for _, depth in _depths(text)), default=0)
    eager = re.search(r"\\(?:gcd|lcm|Gamma|det)(?![a-zA-Z])", text) and re.search(r"[\^!]|\d{7}", text)
    return len(text) <= 600 and deepest <= 20 and text.count("|") <= 8 and not eager


def _is_scalar(expression) -> bool:
    import sympy

    return isinstance(expression, sympy.Expr) and not expression.has(sympy.MatrixBase, sympy.MatrixExpr)


def _bits(expression) -> float:
    """About how many bits the value has, for symbols of size 1. Raises `Unreadable` if that is above `MAX_BITS`.

    2^{2^{2^{99}}} is refused in this way before anything evaluates it.
    """
    import sympy

    if expression.is_Rational:
        bits = max(expression.p.bit_length(), expression.q.bit_length())
    elif isinstance(expression, (sympy.Pow, sympy.exp)):
        base, power = expression.as_base_exp()
        size = abs(power) if power.is_Rational or power.is_Float else 2 ** min(_bits(power), 64)
        bits = max(_bits(base), 1) * max(size, 1)
    else:
        parts = [_bits(part) for part in expression.args]
        if isinstance(expression, sympy.functions.combinatorial.factorials.CombinatorialFunction):
            bits = 2 ** min(max(parts), 64) * max(parts)
        else:
            bits = sum(parts) if expression.is_Mul else max(parts, default=1) + len(parts)
    if bits > MAX_BITS:
        raise Unreadable
    return float(bits)


def _rebuilt(expression, imaginary: bool):
    """Evaluated, with decimals as fractions and f(x) as a variable; `imaginary`: i is the imaginary unit, no index."""
    import sympy
    from sympy.core.function import AppliedUndef

    if expression.is_Float:
        return sympy.Rational(str(expression))
    if isinstance(expression, AppliedUndef):
        return sympy.Symbol(str(expression), real=True)
    if imaginary and expression.is_Symbol and expression.name == "i":
        return sympy.I
    if not expression.args:
        return expression
    return expression.func(*(_rebuilt(part, imaginary) for part in expression.args))


def _points(*expressions):
    """Values to try for the variables, in (0, 2) and below 0 and whole ones, and whether all are positive.

    Variables of a formula are mostly lengths, masses and the like: where the formulas are real for negative values
    they must agree there too, and only there.
    """
    import sympy

    symbols = sorted(set().union(*(expression.free_symbols for expression in expressions)), key=str)
    if not symbols:
        return [({}, True)]
    points = [{s: sympy.Rational((37 * i + 11 * k) % 53 + 3, 29) for i, s in enumerate(symbols)} for k in range(5)]
    points[3] = {s: -value for s, value in points[3].items()}
    points[4] = {s: value * (-1) ** i for i, (s, value) in enumerate(points[4].items(), 1)}
    whole = {s: sympy.Integer(sympy.prime(len(symbols) - i + 1)) for i, s in enumerate(symbols)}
    return [(point, k not in (3, 4)) for k, point in enumerate([*points, whole])]


def _evaluate(expression, point: dict):
    """The value as an mpmath number of 30 digits; None if there is none."""
    import mpmath

    parts = expression.evalf(30, subs=point).as_real_imag()
    if not all(part.is_Float or part.is_Rational for part in parts):
        return None
    return mpmath.mpc(*(part._to_mpmath(100) for part in parts))


def _close(x, y, tolerance: float) -> bool:
    size = max(abs(x), abs(y))
    return abs(x - y) <= tolerance * size or size < 1e-80


def _same_value(gold, answer, tolerance: float) -> bool:
    """Equality at some points is as good as a proof, unless somebody constructed the answer to be near."""
    import mpmath
    import sympy

    if gold == answer:
        return True
    if gold.has(sympy.oo, sympy.zoo, sympy.nan) or answer.has(sympy.oo, sympy.zoo, sympy.nan):
        return False
    if tolerance == EXACT and gold.is_Rational and answer.is_Rational:
        return False
    complex_values = gold.has(sympy.I) or answer.has(sympy.I)
    points = _points(gold, answer)
    agreed = 0
    with mpmath.workdps(40):
        for point, positive in points:
            g, a = _evaluate(gold, point), _evaluate(answer, point)
            if g is None or a is None:
                continue
            if _close(g, a, tolerance):
                agreed += 1
            elif positive or complex_values or not (g.imag or a.imag):
                return False
    return agreed > len(points) / 3 or (agreed == 0 and _judged_by_math_verify(gold, answer))


def _judged_by_math_verify(gold, answer) -> bool:
    from math_verify import verify

    return bool(verify(gold, answer, timeout_seconds=None))
