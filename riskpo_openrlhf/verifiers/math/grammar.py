r"""Read an expression in LaTeX as a tree: a tokenizer and a recursive-descent parser, standard library only.

A tree is a tuple: `("number", Fraction)`, `("letter", name)`, `("constant", name)`, `("+", …)`, `("*", …)`,
`("^", base, exponent)`, `("sum" or "prod", letter, first, last, term)`, `("apply", name, …)` for an unknown function,
or the name of a function of `values.py` and its arguments. No text is evaluated as Python.

What binds how: a function without brackets takes the factors after it, up to `\cdot`, `/`, `+` or the next function:
`\sin 2x\cos x` is sin(2x) cos x, and `\ln 2\cdot 3` is 3 ln 2. Braces or brackets end its argument: `\sin{x}/x`. Where
writers differ, as in `\cos\theta\, r` and `\cos\theta(1+r)`, there are two readings: `short` ends the argument there.
A product without a sign binds tighter than a quotient: `1/2x` is 1/(2x).
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from riskpo_openrlhf.verifiers.math.limits import MAX_NESTED_BRACKETS, MAX_ROWS, Unreadable

THIN_SPACE = "\u2009"  # \\, in a text with functions
_TOKEN = re.compile(rf"\d+\.?\d*|\.\d+|\\[a-zA-Z]+|\\.|{THIN_SPACE}|\S")
_MINUS = ("number", Fraction(-1))
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma "
    "tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell partial "
    "nabla"
)
_LETTERS = {f"\\{name}" for name in f"{_GREEK} odot oplus prime".split()} | {"'"}
_DIFFERENTIAL = re.compile(r"(?<![a-zA-Z\\])d([r-vx-z])(?![a-zA-Z])")
_CALL = re.compile(r"(\\[a-zA-Z]+|[a-zA-Z])(?:\s*(?:'|_\{[^{}]*\}|\^\{-1\}))*\s*\(")
_FUNCTION = re.compile(r"[NPQHTu]|\\(?:[Pp][hs]i|delta|zeta)")
_FOLLOWED = re.compile(r"(\\[a-zA-Z]+|[a-zA-Z])(?=\s*(\((?:[^()]|\([^()]*\))*\))?)")
_CONSTANTS = {"e": "e", "i": "i", "\\pi": "pi", "\\infty": "infinity"}
_ACCENTS = set(
    r"\dot \ddot \bar \hat \vec \tilde \overline \overrightarrow \mathcal \mathbb \mathfrak \widehat".split()
)
FUNCTIONS = {
    f"\\{name}": name.replace("arc", "a", 1)
    for name in "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth sech csch arcsinh arccosh "
    "arctanh ln log exp abs floor".split()
}
FUNCTIONS["\\ceil"] = "ceiling"
_INVERSE = {name: f"a{name}" for name in "sin cos tan cot sec csc sinh cosh tanh".split()}
_LISTED = {"\\max": "max", "\\min": "min", "\\gcd": "gcd", "\\lcm": "lcm"}
_CLOSING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_AROUND = {"|": "abs", "\\lfloor": "floor", "\\lceil": "ceiling"}
_ENDS = {"", "+", "-", "\\cdot", "/", "\\mod", ",", ";", "=", "<", ">", "!", "^", "_", THIN_SPACE, "%", "°", ":", "&"}
_ENDS |= (set(_CLOSING.values()) - {"|"}) | {"\\\\", "\\end"}


@functools.lru_cache(maxsize=4096)
def parse_expression(text: str, fold_case: bool, functions: frozenset[str] = frozenset()) -> tuple[tuple, ...]:
    """Parse a text into a tree for each reading. With `fold_case`, M is m. Raises `Unreadable`.

    `functions`: the letters that are functions before a bracket, see `functions_in`.
    """
    if len(_DIFFERENTIAL.findall(text)) > 1:  # x dy - y dx is not 0
        text = _DIFFERENTIAL.sub(r"\\text{d\1}", text)
    tokens = _TOKEN.findall(text)
    return tuple(dict.fromkeys(_Parser(tokens, fold_case, short, functions).whole() for short in (False, True)))


class _Parser:
    def __init__(self, tokens: list[str], fold_case: bool, short: bool, functions: frozenset[str]):
        self.tokens, self.fold_case, self.short = [*tokens, ""], fold_case, short
        self.place = self.depth = self.bars = 0
        self.bound: list[str] = []  # letters of sums, which are never the imaginary unit
        self.functions = functions

    @property
    def next(self) -> str:
        return self.tokens[self.place]

    def take(self, *expected: str) -> str:
        token = self.next
        if expected and token not in expected:
            raise Unreadable
        self.place += 1
        return token

    def whole(self) -> tuple:
        tree = self.sum()
        if self.next:
            raise Unreadable
        return tree

    def sum(self) -> tuple:
        self.depth += 1
        if self.depth > MAX_NESTED_BRACKETS:
            raise Unreadable
        terms = [self.term()]
        while self.next in ("+", "-"):
            terms.append(self.term())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def term(self) -> tuple:
        sign = 1
        while self.next in ("+", "-", THIN_SPACE):
            sign = -sign if self.take() == "-" else sign
        product = self.factors()
        while self.next in ("\\cdot", "/", "\\mod"):
            operator = self.take()
            minus = self.next == "-" and self.take()
            factor = self.factors()
            if operator == "/" and any("mathbb" in name for name in letters(factor)):
                raise Unreadable  # \mathbb{Z}/2\mathbb{Z}
            if operator == "\\mod":
                product = ("mod", product, factor)
            else:
                product = _times(product, factor if operator == "\\cdot" else ("^", factor, _MINUS))
            sign = -sign if minus else sign
        return product if sign == 1 else _times(_MINUS, product)

    def factors(self, of_function: bool = False) -> tuple:
        """Parse neighbours, which are factors; `of_function`: of a function without brackets."""
        found: list[tuple] = []
        while True:
            if self.next == THIN_SPACE:
                if of_function and self.short and found:
                    break
                self.take()
                continue
            if self.next in _ENDS or (self.next == "|" and self.bars):
                break
            if of_function and found and (self.next in FUNCTIONS or self.next in _LISTED):
                break
            if of_function and found and self.short and (self.next in ("(", "[", "e") or self.next == "\\sqrt"):
                if self.next == "e" or found[-1][0] != "number":
                    break
            if self.next[0] in "0123456789." and self.tokens[self.place - 1][:1].isdigit() and found:
                raise Unreadable  # 1 0
            found.append(self.power())
        if not found:
            raise Unreadable
        return functools.reduce(_times, found)

    def power(self) -> tuple:
        base = self.atom()
        while self.next in ("!", "^"):
            if self.take() == "^":
                base = ("^", base, self.group())
            elif self.next == "!":
                self.take()
                base = ("double factorial", base)
            else:
                base = ("factorial", base)
        return base

    def group(self) -> tuple:
        tree, *more = self.arguments()
        if more:
            raise Unreadable
        return tree

    def arguments(self) -> list[tuple]:
        """Parse a list in brackets."""
        opening = self.take(*_CLOSING)
        bars, self.bars = self.bars, int(opening == "|")
        trees = [self.sum()]
        while self.next in (",", ";"):
            self.take()
            trees.append(self.sum())
        self.bars = bars
        self.take(_CLOSING[opening])
        return [(_AROUND[opening], *trees)] if opening in _AROUND else trees

    def is_upper_index(self) -> bool:
        """Tell whether x^{(2)} comes, which is no power."""
        ahead = self.tokens[self.place : self.place + 6]
        return ahead[:3] == ["^", "{", "("] and ahead[4:] == [")", "}"]

    def raw_group(self) -> str:
        """Return the text of a group, without spaces and text commands, or of one token."""
        if self.next != "{":
            return self.take()
        depth, start = 0, self.place
        while True:
            token = self.take()
            depth += (token == "{") - (token == "}")
            if not token:
                raise Unreadable
            if depth == 0:
                parts = self.tokens[start + 1 : self.place - 1]
                return "".join(part for part in parts if part not in ("\\text", "{", "}", THIN_SPACE))

    def atom(self) -> tuple:
        token = self.next
        if token in _ENDS:
            raise Unreadable
        if token in _CLOSING:
            return self.group()
        self.take()
        if token[0] in "0123456789.":
            return ("number", Fraction(token + "0" if token.endswith(".") else token))
        if token in FUNCTIONS:
            return self.function(FUNCTIONS[token])
        if token in _LISTED:
            return (_LISTED[token], *self.arguments())
        if token == "\\frac":
            return self.fraction()
        if token == "\\binom":
            return ("binomial", self.group(), self.group())
        if token == "\\sqrt":
            index = self.group() if self.next == "[" else ("number", Fraction(2))
            return ("root", index, self.group())
        if token in ("\\sum", "\\prod"):
            return self.series(token[1:])
        if token == "\\begin":
            return self.determinant()
        if token == "\\Gamma" and self.next == "(":
            return ("factorial", ("+", self.group(), _MINUS))
        return self.letter(token)

    def function(self, name: str) -> tuple:
        base = power = None
        while self.next in ("_", "^"):
            if self.take() == "_":
                base = self.group()
            else:
                power = self.group()
        if name == "log":
            base, name = base or ("number", Fraction(10)), "log"
        elif base:
            raise Unreadable
        if power == _MINUS and name in _INVERSE:
            name, power = _INVERSE[name], None
        while self.next == THIN_SPACE:
            self.take()
        if self.next in ("{", "(", "["):
            argument = self.group()
        else:
            minus = self.next == "-" and self.take()
            argument = self.factors(of_function=True)
            argument = _times(_MINUS, argument) if minus else argument
        tree = (name, argument, base) if base else (name, argument)
        if name in ("tanh", "coth"):  # by exponentials, whose magnitudes are seen: tanh(100) is not 1
            squared = ("exp", _times(("number", Fraction(2)), argument))
            sides = ("+", squared, _MINUS), ("+", squared, ("number", Fraction(1)))
            above, below = sides if name == "tanh" else sides[::-1]
            tree = _times(above, ("^", below, _MINUS))
        return ("^", tree, power) if power else tree

    def fraction(self) -> tuple:
        start = self.place
        above = self.raw_group()
        below = self.raw_group()
        # A derivative is a quantity of its own: dx/dt is not x/t.
        if match := re.fullmatch(r"(d|\\partial)(\^\d)?(\\?[a-zA-Z].*)", above):
            if below.startswith(match[1]) and below != match[1] and not re.search(r"[-+]", above):
                return ("letter", f"{above}/{below}")
        if above in ("d", "\\partial") and re.match(rf"{re.escape(above)}\\?[a-zA-Z]", below):
            raise Unreadable  # of the expression that follows
        self.place = start
        return _times(self.group(), ("^", self.group(), _MINUS))

    def series(self, name: str) -> tuple:
        self.take("_")
        self.take("{")
        letter = self.letter(self.take(), bound=True)
        if letter[0] != "letter":
            raise Unreadable
        self.take("=")
        first = self.sum()
        self.take("}")
        self.take("^")
        last = self.group()
        if ("constant", "infinity") in (first, last):
            raise Unreadable
        self.bound.append(letter[1])
        term = self.term()
        self.bound.pop()
        return (name, letter, first, last, term)

    def determinant(self) -> tuple:
        r"""Parse the rest of `\begin{vmatrix} … \end{vmatrix}`."""
        kind, rows = self.raw_group(), [[self.sum()]]
        while self.next in ("&", "\\\\"):
            if self.take() == "&":
                rows[-1].append(self.sum())
            elif self.next != "\\end":
                rows.append([self.sum()])
        self.take("\\end")
        if not kind == self.raw_group() == "vmatrix":
            raise Unreadable
        if len(rows) > MAX_ROWS or any(len(row) != len(rows) for row in rows):
            raise Unreadable
        return _determinant(rows)

    def letter(self, token: str, bound: bool = False) -> tuple:
        r"""Parse a letter with accents, primes and index: one quantity. Before `(t)` it is a function."""
        if token in _ACCENTS:
            name = f"{token[1:]} {self.raw_group()}"
        elif token == "\\text":
            word = self.raw_group()
            name = word if re.fullmatch("[a-zA-Z]", word) else f"text {word}"
            if not word:
                raise Unreadable
        elif token in _LETTERS or re.fullmatch(r"[^\W\d_\u3040-\u9fff]", token) or token in _CONSTANTS:
            name = token
        else:
            raise Unreadable
        plain = name
        while self.next in ("'", "_") or (name not in _CONSTANTS and self.is_upper_index()):
            if self.next == "^":
                name += f"^{self.raw_group()}"
            elif self.take() == "'":
                name += "'"
                continue
            start = self.place
            index = self.raw_group()
            if set(re.findall("[a-zA-Z]", index)) & set(self.bound):  # x_i of a sum is a function of i
                self.place = start
                return ("apply", name, self.group() if self.next == "{" else self.atom())
            name += f"_{index}"
        if plain == name in _CONSTANTS and not (bound or name in self.bound):
            return ("constant", _CONSTANTS[name])
        name = name.lower() if self.fold_case and not name.startswith("\\") else name
        if self.next == "(" and not bound:
            start = self.place
            arguments = self.arguments()
            simple = plain == "f" or (arguments[0][0] in ("letter", "number") and self.place == start + 3)
            called = len(arguments) > 1 or (simple and f"{plain}(" in self.functions)
            if called or plain in self.functions:
                return ("apply", name, *arguments)
            self.place = start
        return ("letter", name)


def functions_in(gold: str, answer: str) -> frozenset[str]:
    r"""Return the letters that are functions, as N and \Phi may be: different brackets follow them in a text.

    In the gold, nothing but brackets may follow them. `f(` is among them if a bracket follows f in the gold.
    """
    golds, answers = _followers(gold), _followers(answer)
    found = {letter for each in (golds, answers) for letter, after in each.items() if len(after - {""}) > 1}
    called = (f"{letter}(" for letter in _CALL.findall(gold))
    return frozenset((*(letter for letter in found if "" not in golds.get(letter, ())), *called))


def _followers(text: str) -> dict[str, set[str]]:
    """Return the brackets that follow each letter that may be a function; an empty text where none does."""
    found: dict[str, set[str]] = {}
    for letter, bracket in _FOLLOWED.findall(text):
        if _FUNCTION.fullmatch(letter):
            found.setdefault(letter, set()).add("".join(bracket.split()))
    return found


def _times(x: tuple, y: tuple) -> tuple:
    if x == _MINUS and y[0] == "number":
        return ("number", -y[1])
    return ("*", *(x[1:] if x[0] == "*" else (x,)), y)


def _determinant(rows: list[list[tuple]]) -> tuple:
    """Return the expansion by the first row."""
    first, *below = rows
    if not below:
        return first[0]
    minors = (_determinant([row[:k] + row[k + 1 :] for row in below]) for k in range(len(first)))
    return ("+", *(("*", ("number", Fraction((-1) ** k)), first[k], minor) for k, minor in enumerate(minors)))


def letters(tree: tuple) -> frozenset[str]:
    """Return the names of a tree's letters, without those that a sum binds."""
    if tree[0] in ("number", "constant"):
        return frozenset()
    if tree[0] == "letter":
        return frozenset((tree[1],))
    found = frozenset().union(*(letters(part) for part in tree[1:] if isinstance(part, tuple)))
    return found - {tree[1][1]} if tree[0] in ("sum", "prod") else found


def nodes(tree: tuple):
    """Yield a tree and all its parts."""
    yield tree
    for part in tree[1:]:
        if isinstance(part, tuple):
            yield from nodes(part)


def times_denominators(tree: tuple) -> tuple:
    """Return a tree times each product of letters that something in it is divided by: x(y - 6/x) for y - 6/x."""
    below = (node[1] for node in nodes(tree) if node[0] == "^" and node[2] == _MINUS)
    products = (base for base in below if {node[0] for node in nodes(base)} <= {"letter", "number", "*", "^"})
    return functools.reduce(_times, dict.fromkeys(products), tree)
