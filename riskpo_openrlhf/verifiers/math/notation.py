"""Rewrite a mathematical answer into one notation, out of many equal ones: text to text, standard library only."""

from __future__ import annotations

import functools
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from riskpo_openrlhf.verifiers.math.brackets import closing_bracket
from riskpo_openrlhf.verifiers.math.grammar import FUNCTIONS, THIN_SPACE
from riskpo_openrlhf.verifiers.math.limits import MAX_CHARACTERS, MAX_COMMANDS, Unreadable

TEXT_COMMANDS = (
    r"(?:text(?:bf|it|rm|normal|sf|tt|up)?|mbox|hbox|mathrm|mathbf|mathit|mathsf|operatorname\*?|boldsymbol|bm|emph)"
)
_SCALES = {"dozen": "12", "hundred": "10^{2}", "thousand": "10^{3}", "million": "10^{6}", "billion": "10^{9}",
           "trillion": "10^{12}"}  # fmt: skip
_SCALE = rf"(?i:{'|'.join(_SCALES)})s?"
_CHINESE_SCALES = {"百": 2, "千": 3, "万": 4, "亿": 8}
_CURRENCIES = {"$": "dollars", "£": "pounds", "pounds": "pounds", "€": "euros", "euro": "euros", "¥": "元"}
_FUNCTIONS = (
    "|".join(sorted((name[1:] for name in FUNCTIONS if name != "\\sec"), key=len, reverse=True)) + "|gcd|lcm|det"
)
_OTHER_NAMES = {"tg": "tan", "ctg": "cot", "arctg": "arctan", "lg": "log", "cosec": "csc", "arsinh": "arcsinh",
                "arcosh": "arccosh", "artanh": "arctanh"}  # fmt: skip
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Phi Psi Omega"
)
_INTEGER = r"(?:(?:(?:positive|natural|non-?negative)\s+)?(?:integer|whole\s+number)|natural\s+number)s?"
_NUMBER = rf"(?:{_INTEGER}|(?:real|rational|complex)(?:\s+(?:number|value|constant)s?)?(?:\s+of)?|reals|constants?)"
_VECTOR = (
    r"(?:\\nabla|\\(?:vec|overrightarrow|mathbf|boldsymbol|bm|hat)\s*(?:\{\s*[a-zA-Z]+\s*\}|[a-zA-Z])"
    r"(?:_\{?\w\}?)?)"
)
_SUPERSCRIPTS, _SUBSCRIPTS = (
    re.compile(
        f"[{''.join(c for c in map(chr, range(0xB2, 0x2C7E)) if unicodedata.decomposition(c).startswith(of))}]+"
    )
    for of in ("<super> ", "<sub> ")
)
_CHARACTERS = {
    **dict.fromkeys("−–—‐‑﹣－", "-"),
    **dict.fromkeys("′’‘", "'"),
    **dict.fromkeys("和与及、", ","),
    **dict.fromkeys("且∧", r"\land "),
    **dict.fromkeys("或∨", r"\lor "),
    **dict.fromkeys("\u200b\ufeff", ""),
    **{c: rf"\frac{{{p[0]}}}{{{p[1]}}}" for c, p in zip("½⅓⅔¼¾⅕⅙⅛", "12 13 23 14 34 15 16 18".split(), strict=True)},
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": "/", "⁄": "/", "√": r"\sqrt ", "∞": r"\infty ",
    "µ": r"\mu ", "Å": r"\AA ", "…": r"\ldots ",
    **{c: rf"\{name} " for c, name in zip("αβγδεζηθικλμνξπρστφχψωΓΔΘΛΞΦΨΩ", _GREEK.split(), strict=True)},
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ",
    "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "⟨": "(", "⟩": ")", "∖": r"\setminus ", "。": ".",
}  # fmt: skip
_WITHOUT_BRACKETS = re.compile(rf"\\(?:{_FUNCTIONS}|sec)(?![a-zA-Z])\s*(?![(\[{{\s])")
_SYNONYMS = {
    synonym: name
    for name, synonyms in {
        r"\frac": r"\dfrac \tfrac \cfrac", r"\binom": r"\dbinom \tbinom", r"\emptyset": r"\varnothing \empty",
        r"\bar": r"\overline", r"\text{ angstrom}": r"\AA", "T": r"\top \intercal",
        r"\le ": r"\leq \leqslant \le <= =<", r"\ge ": r"\geq \geqslant \ge >=", r"\ne ": r"\neq \ne !=",
        r"\approx ": r"\approx \simeq \doteq", r"\ldots": r"\dots \cdots \dotsc \dotsb \hdots ...", r"\lor ": r"\vee",
        r"\land ": r"\wedge", r"\neg ": r"\lnot",
        r"\to ": r"\rightarrow \Rightarrow \implies \longrightarrow \Longrightarrow",
        r"\setminus ": r"\smallsetminus \backslash", "=": r"\equiv \coloneqq := ==",
        "<": r"\lt", ">": r"\gt", r"\{": r"\lbrace", r"\}": r"\rbrace", "(": r"\langle", ")": r"\rangle",
        "^": "**", r"\cdot ": r"* \times \ast", "/": r"\div",
        "|": r"\vert \Vert \lvert \rvert \lVert \rVert \mid \|",
    }.items()
    for synonym in synonyms.split()
}  # fmt: skip
_T = r"\\text\{\s*"
_DELETED = (
    r"\\?[$€£¥]|\\(?:pounds|euro)(?![a-zA-Z])|(?<!\\)\\!\s*|\{\}|\\(?:tag|phantom)\s*\{[^{}]*\}"
    r"|(?<![\^{])\\(?:boxed|fbox|underline)\s*(?=\{)|\\(?:text)?color\s*\{[^{}]{0,40}\}"
    r"|\\(?:(?:display|text|script)style|(?:no)?limits|rm|bf|it|left|right|middle|[bB]igg?[lrm]?"
    r"|tiny|small|[lL]arge|LARGE|[hH]uge)(?![a-zA-Z])\s*\.?"
)


def _compiled(*rules: tuple) -> list[tuple]:
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]


# Both tables are applied in their order. Each rule takes at most quadratic time, on a text of bounded length.
_REWRITES = _compiled(
    # Layout.
    (r"\\text\{\s*\\?([$£€¥])\s*\}", r"\\\1"),
    (
        r"^\s*(-?)\s*(?:\\([$£€¥]|pounds|euro)|([£€¥]))\s*(-?\d[\d,.]*)\s*\.?\s*$",
        lambda m: rf"{m[1]}{m[4]}\text{{ {_CURRENCIES[m[2] or m[3]]}}}",
    ),
    (r"\s*\\?¢", r"\\text{ cents}"),
    (_DELETED, ""),
    (r"(?<!\\)\\[()\[\]]", " "),
    (r"\s*\{\s*(,)\s*\}|(?<=\d)\{(:)\}", r"\1\2"),
    (
        r"(?<!\\)\\(?:[,;:> ]|(?:quad|qquad|thinspace)(?![a-zA-Z]))|~",
        lambda m: THIN_SPACE if _WITHOUT_BRACKETS.search(m.string) else " ",
    ),
    (rf"({_VECTOR})\s*\\times\s*({_VECTOR})", r"\\text{cross}(\1,\2)"),  # not the dot product
    # Words: units, functions, single letters.
    (rf"\\{TEXT_COMMANDS}\s*\{{", r"\\text{"),
    (rf"(?<=[\d}}])(?:\s*(\\text\{{))?((?:\s*{_SCALE}(?![a-zA-Z]))+)\s*", lambda m: f"{_scale(m[2])}{m[1] or ' '}"),
    (r"(?<=[\d}])(\s*(?:\\text\{\s*)?)([百千]?[万亿]|[百千])(?![分米克瓦])", lambda m: f"{_scale(m[2])}{m[1]}"),
    (r"\\text\{\s*(?:[Tt]he )?(?:[Ff]inal |[Cc]orrect )?[Aa]nswer(?: is)?\s*:?\s*\}", ""),
    (r"\\text\{([^a-zA-Z\\{}\u4e00-\u9fff]*)\}|^\s*\\text\{\s*(-?\d[^{}]*)\}\s*$", r"\1\2"),
    (
        rf"({_T})?(?<!for )\b[Aa]ll real(?:s| numbers| values of)(\s*except(?: for)?)?\s*(?(1)\}})(?:\s*[a-z]\s*$)?",
        lambda m: r"\mathbb{R}" + (r"\setminus " if m[2] else ""),
    ),
    (r"(?<![a-zA-Z])(?:np|numpy|math|sympy|sp)\.(?=[a-z])", ""),
    (rf"\\text\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
    (
        rf"(?<![a-zA-Z])\\?(?:text\{{\s*)?({'|'.join(_OTHER_NAMES)})(?![a-zA-Z])(?:\s*\}})?",
        lambda m: rf"\{_OTHER_NAMES[m[1]]} ",
    ),
    (  # 9^{th}
        r"(?<=\d)\s*(?:\^\s*(\{)?\s*(\\text\{\s*)?|(\\text\{))(?:st|nd|rd|th)(?![a-zA-Z])\s*(?(2)\})(?(1)\})(?(3)\})",
        "",
    ),
    (r"(^\s*|(?<=[a-z] ))(\d*)(?:(1)st|(2)nd|(3)rd|([04-9]|1[123])th)(?=\s*(?:$|[a-z}]|\\text))", r"\1\2\3\4\5\6"),
    (r"\^\s*\{?\s*\\circ\s*\}?|\\(?:text)?degree(?![a-zA-Z])|\\deg(?![a-zA-Z])", "°"),
    (r"°\s*(\\text\{\s*)?C(?![a-zA-Z])\s*(?(1)\})", r"\\text{ degrees celsius}"),
    (r"°\s*(\\text\{\s*)?F(?![a-zA-Z])\s*(?(1)\})", r"\\text{ degrees fahrenheit}"),
    (r"\\?%|(?:\\text\{\s*|(?<![a-zA-Z]))(?:\\?%|per\s?cent|percentage|pct)(?![a-zA-Z])(?:\s*\})?", "%"),
    (
        r"(?:\\pmod|\(\s*\\mod|((?:^|=|\\equiv)\s*-?\d+)\s*\\mod)(?![a-zA-Z])\s*\{?\s*(\d+)\s*\}?\s*\)?\s*$",
        r"\1\\text{mod \2}",
    ),
    (r"\\bmod(?![a-zA-Z])", r"\\mod "),
    (r"(?<![a-zA-Z])\\?log(2|10)(?=\s*\()", r"\\log_{\1}"),
    (r"(?<=\d) ?[xX] ?(?=10 ?\^)", r"\\cdot "),
    (r"(?<=\d)\s*\\text\{\s*to\s*\}\s*(?=\d+$)", ":"),  # 3 to 2
    (
        r"(?:\\text\{\s*)?(?:\b([aApP])\.\s?[mM]\b\.?|(?<=\d)(?<=:\d\d)\s*\b([aApP])[mM]\b)(?:\s*\})?",
        lambda m: rf"\text{{ {(m[1] or m[2]).lower()}m}}",
    ),
    (  # 2 hours and 30 minutes
        r"\b(hour|hr|h|minute|min|day|week|year|month|feet|foot|ft|pound|dollar)(s?)\s+and"
        r"(?=[\s}]*\d+[\s\\tex{]*(?!\1)(?:min|sec|in|ounce|cent|month|day|hour))",
        r"\1\2",
    ),
    (r"(?<=\d\.)(\d*)\((\d+)\)\s*$", r"\1\\overline{\2}"),  # 0.(3)
    (r"(\d)\s*\\text\{\s*(?:repeating|recurring)\s*\}\s*$", r"\\overline{\1}"),
    (r"\\text\{\s*(?i:only|about|approximately)\s*\}", ""),
    (r"(?<![\w.^/)}\]])(\d+)/(\d+) +(?=[a-zA-Z](?![a-zA-Z])|\\(?!text)|\()", r"\\frac{\1}{\2} "),  # 4/3 \pi
    (  # ]0, 1[
        r"(?:^|(?<=[\s=])|(?<=\\cup)|(?<=\\in))([\[\]])([^\[\]]*,[^\[\]]*)([\[\]])(?=\s*(?:$|\\cup|\\cap))",
        lambda m: f"{m[1].replace(']', '(')}{m[2]}{m[3].replace('[', ')')}",
    ),
    # Signs.
    (r"\\not\s*(=|\\equiv(?![a-z])|\\in(?![a-z]))", lambda m: r"\notin " if m[1] == r"\in" else r"\ne "),
    (r"(\\partial|(?<![a-zA-Z\\])d)\s*([a-zA-Z])\s*/\s*\1\s*([a-zA-Z])(?![a-zA-Z])", r"\\frac{\1 \2}{\1 \3}"),
    (r"\^\s*\{?\s*\\prime\s*\}?", "'"),
    (r"^\s*\\\{\s*\\begin\{(array|aligned)\}(?:\{[lcr ]*\})?(.*)\\end\{\1\}\s*$", r"\\begin{cases}\2\\end{cases}"),
    (
        r"\{((?:[^{}]|\{[^{}]*\}){1,99}?)\\(choose|over)(?![a-zA-Z])((?:[^{}]|\{[^{}]*\}){1,99})\}",
        lambda m: rf"\{'binom' if m[2] == 'choose' else 'frac'}{{{m[1]}}}{{{m[3]}}}",
    ),
    (r"(\\mathbb\s*\{?R\}?)\s*(?:-|\\)\s*(?=\\\{)", r"\1\\setminus "),
    (r"\\(?:[a-zA-Z]+|\|)|[<>!:=]=|=<|\*\*?|\.\.\.", lambda m: _SYNONYMS.get(m[0], m[0])),
    (r"(?<![a-zA-Z\\])(?:infinity|infty|inf|oo)(?![a-zA-Z])|\+\s*\\infty(?![a-zA-Z])", r"\\infty "),
    (rf"(?<![a-zA-Z\\{{])({_FUNCTIONS}|sqrt|pi)(?![a-zA-Z])", r"\\\1 "),
    (r"_\s*\{\s*\\(max|min)\s*\}", r"_{\1}"),
    (r"\\text\{\s*,?\s*(?:\\l)?(and|or)\s*\}|(?<![a-zA-Z\\{])(and|or)(?![a-zA-Z}])", r"\\l\1\2 "),
    (r"\\text\{\s*,?\s*(?:for|where|with|if|when|provided(?: that)?)\s*\}(?=\s*[a-z]\s*\\ne )", ","),
    (
        rf"^{_T}(?:for )?all (?:real |positive )?(?:integers|numbers|values of)\s*\}}(?=\s*[a-z]\s*(?:\\[lg]e |[<>]))",
        "",
    ),
    (rf"[^\S{THIN_SPACE}]+", " "),
    (
        r"\\det ?(\()? ?\\begin ?\{([pb]?matrix)\}(.*?)\\end ?\{\2\} ?(?(1)\))",
        r"\\begin{vmatrix}\3\\end{vmatrix}",
    ),
)
# The same for numbers, once arguments have their braces.
_REWRITES_OF_NUMBERS = _compiled(
    (r"\^(\{[^{}]*\})_(\{[^{}]*\})", r"_\2^\1"),  # v^2_0
    (r"(?<![\w.])(\d{1,40}(?:\.\d{1,40})?)[eE]([+-]?\d{1,6})(?![\w.])", r"\1\\cdot 10^{\2}"),
    (r"(?<![\d.,])(\d{1,3}(?: \d{3})+)(?![\d,]| \d)", lambda m: m[1].replace(" ", "")),
    (r"\\dot\s*\{?(\d)\}?(\d{0,40})\\dot\s*\{?(\d)\}?", r"\\overline{\1\2\3}"),
    (
        r"(?<![\d.])(\d{0,40})\.(\d{0,40})\\(?:overline|bar|dot)\s*\{(\d{1,40})\}",
        lambda m: _repeating_decimal(*m.groups()),
    ),
    (r"(?<![\d.])(\d{0,40})\.(\d{0,40}?)(\d{1,20}?)\3+\\ldots$", lambda m: _repeating_decimal(*m.groups())),
    (
        r"(?<![\d.,/^_{\\])(\d{1,40})(?: ?\\frac\{(\d{1,40})\}\{(\d{1,40})\}| (\d{1,40})/(\d{1,40})(?!\d))",
        lambda m: _mixed_number(int(m[1]), int(m[2] or m[4]), int(m[3] or m[5])),
    ),
    (r"(\d{1,9}) ?° ?(\d{1,2}) ?'(?: ?(\d{1,2}) ?'')?", lambda m: _degrees(*(int(each or 0) for each in m.groups()))),
    (r"(?:(\d+(?:\.\d+)?) ?)?°", lambda m: _degree(m[1]) if _TRIGONOMETRIC.search(m.string) else m[0]),
    (r"^([^,;<>=(\[|]*)° ?(?=$|\\text)", r"\1\\text{ degrees}"),
    ("°", ""),
)
_TEXT = re.compile(r"(\\text\s*\{)([^{}]*)\}")
_BEFORE = r"\s,;:|(\["
# The end of an answer, or of a set, that says where a letter runs: ", k \in \mathbb{Z}", "where n is an integer".
_RANGE = re.compile(
    rf"""(?<![{_BEFORE}])(?P<apart>[{_BEFORE}]*\\forall\s*|[{_BEFORE}]+)
    (?P<word>(?:where|with|for|when|if)\s+)?(?:(?P<all>any|all|every|each|some|arbitrary)\s+)?(?:
        (?P<letter>[a-z])\s*\\in\s*(?:\\(?:mathbb|Bbb)\s*\{{?|\\|)\s*(?P<set>[NZQRC])\s*\}}?
        (?P<positive>\s*[\^_]\s*\{{?\s*(?:\+|\\cdot|[01]|>\s*0|\\ge\s*[01])\s*\}}?)?
        |(?P<named>[a-z])\s+(?:(?:is|being|are)\s+)?(?:(?:an?|any|some)\s+)?(?P<of_named>{_NUMBER})
        |(?P<of_last>{_NUMBER})\s+(?P<last>[a-z])
        |(?(all)(?P<free>[a-z])|(?!))
    )\s*[)\].]?\s*(?=\\\}}|$)""",
    re.VERBOSE,
)
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_COMMAND = re.compile(r"\\(?:frac|binom|sqrt|overline|bar)(?![a-zA-Z])|[\^_]")
_SCRIPT = re.compile(r"-?\d+|\\[a-zA-Z]+|.", re.DOTALL)
_SINGLE = re.compile(r"\\[a-zA-Z]+|.", re.DOTALL)


class Tidied(NamedTuple):
    """An answer in our notation. `letter` runs over the whole numbers ("Z"), or those from 0 or 1 on ("N").

    Where some letter runs over other numbers, `over` is "R", and `letter` is empty.
    """

    text: str
    letter: str = ""
    over: str = ""


@functools.lru_cache(maxsize=2048)
def tidy(text: str) -> Tidied:
    """Rewrite an answer. Raises `Unreadable` if it is too long or its brackets don't match."""
    if len(text) > MAX_CHARACTERS or "\x00" in text:
        raise Unreadable
    if "\\\\begin" in text:  # an escaped text
        text = text.replace("\\\\", "\\")
    elif "\\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z{}()])", r"\\", text).replace("\\\\", " ")
    if re.search(r"\\(?:not|nmid)(?![a-zA-Z])(?!\s*(?:=|\\equiv(?![a-z])|\\in(?![a-z])))", text):
        raise Unreadable
    text = re.sub("(?<=[①-⑳])(?=[①-⑳])", ",", text.replace("º", "°"))
    for letter in ("epsilon", "phi", "theta"):  # one letter, unless both forms occur
        if rf"\{letter}" not in text:
            text = text.replace(rf"\var{letter}", rf"\{letter}")
    text = _SUPERSCRIPTS.sub(r"^{\g<0>}", _SUBSCRIPTS.sub(r"_{\g<0>}", text))
    text = "".join(_CHARACTERS[c] if c in _CHARACTERS else unicodedata.normalize("NFKC", c) for c in text)
    text = text.replace("−", "-")  # in exponents
    text = _rewritten(text, _REWRITES)
    text = re.sub(r"^(?:[\s=,;]|\\(?:approx|sim)(?![a-zA-Z]))+|[\s.,;\\]+$", "", text)
    text, *where = _without_ranges(text)
    return Tidied(_rewritten(_with_braces(text), _REWRITES_OF_NUMBERS).strip(), *where)


def _rewritten(text: str, rules: list[tuple]) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _scale(words: str) -> str:
    """Return a factor: `\\cdot 10^{2}\\cdot 10^{3}` for "hundred thousand" and 百千."""
    if words[0] in _CHINESE_SCALES:
        return rf"\cdot 10^{{{sum(_CHINESE_SCALES[character] for character in words)}}}"
    return "".join(rf"\cdot {_SCALES[word.lower().removesuffix('s')]}" for word in words.split())


def _without_ranges(text: str) -> Tidied:
    r"""Cut out where a letter runs: `2k\pi, k \in \mathbb{Z}`, `\{2n : n \in Z\}`, `2n \text{ for integers } n`."""
    bare = _TEXT.sub(lambda m: " " * len(m[1]) + m[2] + " ", text)  # of the same length
    kept, end, letters, over, real = "", 0, set(), set(), ""
    for match in _RANGE.finditer(bare):
        before, cut, found = text[: match.start()].strip(), text[match.start() : match.end()], match.groupdict()
        letter = found["letter"] or found["named"] or found["last"] or found["free"]
        apart = match["apart"].strip() or found["word"] or letter in before  # 2k k \in Z
        if not before or not apart or cut.count("{") != cut.count("}"):  # or inside of \text{}
            continue
        kept, end = kept + text[end : match.start()], match.end()
        words = found["of_named"] or found["of_last"] or ""
        if found["set"] in ("N", "Z") or re.match(_INTEGER, words):
            natural = found["set"] == "N" or found["positive"] or words.startswith(("positive", "natural", "non"))
            letters.add(letter)
            over.add("N" if natural else "Z")
        else:
            real = "R"  # or any other number
    text = (kept + text[end:]).strip()
    return Tidied(text, *letters, *over) if len(letters) == len(over) == 1 else Tidied(text, "", real * (not letters))


def _fraction(value: Fraction) -> str:
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _repeating_decimal(whole: str, start: str, period: str) -> str:
    r"""Write 0.1\overline{6}, or 0.166\ldots, as a fraction."""
    scale = 10 ** len(start) * (10 ** len(period) - 1)
    return _fraction(Fraction(int(whole + start + period) - int(whole + start or 0), scale))


def _degrees(degrees: int, minutes: int, seconds: int) -> str:
    """Write 30°15' as degrees."""
    return f"{_fraction(degrees + Fraction(60 * minutes + seconds, 3600))}°"


def _degree(number: str | None) -> str:
    """Write a number of degrees in radians."""
    return rf"({number}\cdot\frac{{\pi}}{{180}})" if number else r"\cdot\frac{\pi}{180}"


def _mixed_number(whole: int, top: int, bottom: int) -> str:
    r"""Write 7\frac{3}{4} as one fraction; with an improper fraction, as a product."""
    if top < bottom:
        return rf"\frac{{{whole * bottom + top}}}{{{bottom}}}"
    return rf"{whole}\cdot\frac{{{top}}}{{{bottom}}}"


def _with_braces(text: str) -> str:
    r"""Put braces around arguments of \frac, \binom, \sqrt, \bar, ^ and _, as in \frac43, \sqrt2, x^10, sqrt(x)."""
    places = list(_COMMAND.finditer(text))
    if len(places) > MAX_COMMANDS:
        raise Unreadable
    for place in reversed(places):  # from the right: commands inside an argument have their braces then
        name, rest, arguments = place[0], text[place.end() :].lstrip(), ""
        if name == "\\sqrt" and rest.startswith("["):
            end = closing_bracket(rest) + 1
            arguments, rest = rest[:end], rest[end:].lstrip()
        for _ in range(2 if name in ("\\frac", "\\binom") else 1):
            bare = rest.lstrip()[:1].isdigit()
            argument, rest = _argument(rest.lstrip(), name)
            arguments += f"{{{argument}}}"
        if bare and rest[:1].isdigit():  # \frac142
            raise Unreadable
        text = text[: place.start()] + name + arguments + rest
    return text


def _argument(text: str, of: str) -> tuple[str, str]:
    """Split off the first argument of command `of`. Returns the argument and the rest."""
    if not text:
        raise Unreadable
    if text[0] == "{" or (text[0] == "(" and of in ("^", "\\sqrt")):
        end = closing_bracket(text)
        return text[1:end].strip(), text[end + 1 :]
    # People write x^10 and \sqrt51 and mean x^{10} and \sqrt{51}, but \frac43 is 4 over 3.
    end = (_SINGLE if of in ("\\frac", "\\binom") else _SCRIPT).match(text).end()
    while text[0] == "\\" and text[end : end + 1] == "{":
        end += closing_bracket(text[end:]) + 1
    return text[:end], text[end:]
