"""Compare two leaves: numbers, expressions, words, with or without units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from riskpo_openrlhf.verifiers.math.grammar import letters, parse_expression
from riskpo_openrlhf.verifiers.math.limits import Unreadable
from riskpo_openrlhf.verifiers.math.numbers import PlainNumber, has_long_decimal, plain_number, same_number
from riskpo_openrlhf.verifiers.math.symbolic import needs_sympy, same_symbolically
from riskpo_openrlhf.verifiers.math.units import same_unit, split_unit
from riskpo_openrlhf.verifiers.math.values import real_value, same_as_matrices, same_up_to_a_constant, same_value
from riskpo_openrlhf.verifiers.math.words import is_word, plain_words

_BASE = re.compile(r"(?:\\text\{|\()?((?=[A-F]*\d)[\dA-F]+)[})]?_\{(?:\\text\{)?(\d{1,2}|[a-z]{3,5})\}?\}")
_FONTS = re.compile(r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}|(?<=\W)\s+|\s+(?=\W)")
_ANY_CONSTANT = re.compile(r"[^A-Z]*\+\s*C")  # of an antiderivative
_OF_MATRICES = re.compile(r"[A-Z)}]\s*\^\{(?:-1|T|H)\}")
_TRANSPOSED = re.compile(r"[A-Z)}]\s*\^\{[TH]\}")
# BCA may be an order, HTT three tosses, XI a number.
_IN_ORDER = re.compile(r"(?=...)(?:[A-H]+|[A-Z]*([A-Z])[A-Z]*\1[A-Z]*)|(?=.*X)[IVXLCDM]+")
_DIMENSION = re.compile(r"(?:[MLT]|[\s\d^{}-]|\\cdot)+")
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*((?:\\text\s*\{[^{}\d]*\}|[a-zA-Z][a-zA-Z.]*)[\s,]*)")
_BASES = {word: str(n) for n, word in enumerate("two three four five six seven eight nine ten".split(), 2)}


@dataclass(frozen=True)
class Rules:
    """How one comparison is made.

    Attributes:
        rounded: accept decimals that are the rounded value of the other answer.
        fold_case: m and M are the same variable.
        functions: letters that are functions, see `grammar.functions_in`.
    """

    rounded: bool
    fold_case: bool
    functions: frozenset[str] = frozenset()

    def name(self, name: str) -> str:
        """Return the name of a value, in lower case where that makes no difference."""
        return name.lower() if self.fold_case or re.fullmatch("[A-Za-z ]{3,}", name) else name

    def read(self, text: str) -> tuple[tuple, ...]:
        """Parse an expression into a tree for each reading. Raises `Unreadable`."""
        return parse_expression(text, self.fold_case, self.functions)


def same_leaf(gold: str, answer: str, rules: Rules) -> bool:
    """Tell whether two texts mean the same: without units, as words, in their number bases, or by value."""
    if (amounts := _amounts(gold)) and amounts == _amounts(answer):
        return True
    (gold, gold_unit), (answer, answer_unit) = split_unit(gold), split_unit(answer)
    if gold_unit and not answer_unit:
        answer, answer_unit = split_unit(answer, gold_unit)
    elif answer_unit and not gold_unit:
        gold, gold_unit = split_unit(gold, answer_unit)
    if not same_unit(gold_unit, answer_unit):
        return False
    if gold_unit == answer_unit and re.fullmatch(r"mod \d+ -?\d{1,99} -?\d{1,99}", f"{gold_unit} {gold} {answer}"):
        return (int(gold) - int(answer)) % (int(gold_unit[4:]) or 1) == 0
    gold_words, answer_words = plain_words(gold), plain_words(answer)
    if is_word(gold_words, gold) or is_word(answer_words, answer):
        return gold_words == answer_words
    if "\\ldots" in (gold, answer):
        return gold == answer
    if _IN_ORDER.fullmatch(gold) and _IN_ORDER.fullmatch(answer):
        return gold == answer
    if _BASE.fullmatch(gold) or _BASE.fullmatch(answer):
        return _digits_and_base(gold) == _digits_and_base(answer)
    one_percent = {gold_unit[:1], answer_unit[:1]} == {"", "%"}
    is_part = one_percent and _is_proper_fraction(gold if answer_unit else answer)
    if not is_part and _same_values(gold, answer, rules):
        return True
    if not one_percent:
        return False
    # 50% is 50 to some golds, and 0.5 to others; but 1/8 is not 0.125%.
    hundredth = [rf"\frac{{{t}}}{{100}}" if u else t for t, u in ((gold, gold_unit), (answer, answer_unit))]
    return _same_values(*hundredth, rules)


def _is_proper_fraction(text: str) -> bool:
    number = plain_number(text)
    return number is not None and number.places is None and abs(number.value) < 1


def _amounts(text: str) -> list[tuple[str, str]] | None:
    r"""Return numbers and units of `2\text{ h }30\text{ min}`; None for a single one, and for anything else."""
    parts = list(_AMOUNT.finditer(text))
    if len(parts) < 2 or "".join(part[0] for part in parts) != text:
        return None
    units = (" ".join(re.findall("[a-zA-Z]+", part[2].replace("\\text", ""))) for part in parts)
    amounts = [split_unit(rf"{part[1]}\text{{ {unit}}}") for part, unit in zip(parts, units, strict=True)]
    return None if any(unit[:1] in ("", "?") for _, unit in amounts) else amounts


def _digits_and_base(text: str) -> tuple[str, str]:
    """Return digits and base, 10 if none is written: 52_8 is not 42, because the question asks for the base."""
    match = _BASE.fullmatch(text)
    return (match[1], _BASES.get(match[2], match[2])) if match else (text, "10")


def _same_values(gold: str, answer: str, rules: Rules) -> bool:
    g, a = plain_number(gold), plain_number(answer)
    if g and a and same_number(g, a):
        return True
    if rules.rounded and _is_rounded(g, a, gold, answer, rules):
        return True
    if g and a:
        return False
    if _FONTS.sub(r"\1", gold) == _FONTS.sub(r"\1", answer):
        return True
    try:
        answers = rules.read(answer)
        golds = rules.read(gold)
    except Unreadable:
        if needs_sympy(gold + answer):
            return same_symbolically(gold, answer)
        rules.read(answer)
        return False  # nothing but the same text equals a gold that can't be read
    close = has_long_decimal(gold) or has_long_decimal(answer)
    indefinite = all(map(_ANY_CONSTANT.fullmatch, (gold, answer))) and len(letters(golds[0])) > 1
    same = same_up_to_a_constant if indefinite else same_value
    if not any(same(left, right, close) for left in golds for right in answers):
        return False
    return same_order(gold, answer)


def same_order(gold: str, answer: str) -> bool:
    """Tell whether two equal expressions are also equal if their capitals are matrices. True if these are none."""
    quotient = re.search(r"/|\\frac", gold + answer) and not _TRANSPOSED.search(gold)
    if quotient or not _OF_MATRICES.search(gold) or _DIMENSION.fullmatch(gold):
        return True
    return same_as_matrices(*(parse_expression(text, fold_case=False)[0] for text in (gold, answer)))


def _is_rounded(g: PlainNumber | None, a: PlainNumber | None, gold: str, answer: str, rules: Rules) -> bool:
    """Tell whether one is a decimal and the other its exact value; an answer's decimal needs two places or more."""
    if g and g.places:
        decimal, exact = g, answer
    elif a and (a.places or 0) > 1 and not (g and g.is_whole):
        decimal, exact = a, gold
    else:
        return False
    value = real_value(rules.read(exact)[0])
    return value is not None and abs(value - decimal.value) <= Fraction(1, 2 * 10**decimal.places)
