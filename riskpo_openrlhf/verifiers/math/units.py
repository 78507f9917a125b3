r"""Units: `10\text{ cm}^{2}` is the value 10 and the unit cm²; `5\text{ J kg}^{-1}` is 5 and J/kg."""

from __future__ import annotations

import re

_NAMES = {
    "m": "meter metre 米", "cm": "centimeter centimetre 厘米", "mm": "millimeter millimetre 毫米", "dm": "分米",
    "km": "kilometer kilometre 千米 公里", "ft": "foot feet", "in": "inch inche", "yd": "yard", "mi": "mile",
    "g": "gram 克", "kg": "kilogram 千克 公斤", "lb": "pound", "oz": "ounce", "l": "L liter litre 升",
    "ml": "mL milliliter millilitre 毫升", "s": "sec second 秒", "min": "minute 分 分钟", "h": "hr hour 小时",
    "day": "天 日", "week": "周 星期", "month": "月", "yr": "year 年", "dollar": "", "cent": "", "degree": "deg 度",
    "rad": "radian", "unit": "", "mol": "mole", "erg": "", "eV": "", "cal": "calorie", "dyn": "dyne",
    "angstrom": "", "dB": "decibel", "yuan": "yen 元", "jiao": "角",
    "N": "newton", "J": "joule", "W": "watt", "V": "volt", "A": "ampere amp", "C": "coulomb", "K": "kelvin",
    "T": "tesla", "F": "farad", "H": "henry", "Pa": "pascal", "Hz": "hertz", "Wb": "weber",
    "B": "byte", "S": "siemens", "G": "gauss", "M": "molar", "\\Omega": "ohm", "rpm": "", "psi": "", "atm": "",
    "gal": "gallon", "qt": "quart", "ton": "tonne 吨", "acre": "", "ha": "hectare", "century": "centurie",
    "decade": "", "euro": "", "dime": "", "nickel": "", "penny": "pennie", "quarter": "", "pc": "parsec", "kWh": "",
    "bit": "", "am": "", "mph": "", "kph": "", "Nm": "",
}  # fmt: skip
_UNIT_OF = {name: unit for unit, names in _NAMES.items() for name in (unit, *names.split())}
for _prefix in ("k", "M", "G", "m", "c", "n", "p", "\\mu"):
    for _unit in (*"m s g N J W V A C F T Pa Hz eV mol cal pc".split(), "\\Omega"):
        _UNIT_OF.setdefault(_prefix + _unit, _prefix + _unit)
# Without \text, letters are mostly a product: 4c, 2nm. These are units.
_PLAIN = set("cm mm km ft yd mi kg lb oz ml mL hr Hz eV kJ kW pc dB".split()) | {n for n in _UNIT_OF if len(n) > 2}
_FACTORS = set("hr yd mi ft lb oz ml mL".split())
_POWERS = {"square": 2, "sq": 2, "平方": 2, "cubic": 3, "cu": 3, "立方": 3}
_EXPONENT = r"(?:\s*\^\s*\{?\s*-?\s*\d\s*\}?)?"
_TEXT = rf"\\text\s*\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}{_EXPONENT}"
_LETTERS = rf"(?:\\mu\s*)?(?:[a-zA-Z]+|\\Omega)(?![a-zA-Z]){_EXPONENT}"
_MORE = rf"(?:\s*(?:(?:/|\\cdot)\s*)?(?:\(\s*)?(?:{_TEXT}|{_LETTERS})(?:\s*\))?)*"
_WITH_TEXT = re.compile(rf"(.*?[^\s(\[{{,\\/])(\s*)(?:\\cdot\s*)?((?:\\mu\s*|/\s*)?{_TEXT}{_MORE})", re.DOTALL)
_WITH_PLAIN = re.compile(rf"(.*?[\d}})])(\s*)((?:(?:{'|'.join(_POWERS)})\.? )?{_LETTERS}{_MORE})", re.DOTALL)
_WITH_WORDS = re.compile(r"(-?[\d.,/]+)\s+([A-Za-z]{4,}(?:\s+[A-Za-z]+)*)")
_WITH_CHINESE = re.compile(  # with a measure word before the unit
    r"(?:一?共|约|等于)?(.*[\d})])\s*(?:\\text\s*\{\s*)?((?=[\u4e00-\u9fff])[个只名位本张条件种次块颗棵头]?"
    r"([\u4e00-\u9fff]*))\s*\}?",
    re.DOTALL,
)
_IN_TEXT = re.compile(r"\\text\s*\{[^{}]*\}|\\[a-zA-Z]+")
_GREEK = re.compile(r"(?:alpha|beta|gamma|delta|theta|lambda|sigma|omega)\b")
_PARTS = r"((?:\\text\{[^{}]*\}|\^\{[^{}]*\}|\\cdot|\s)+)"
_FRACTION = re.compile(rf"\\frac\{{{_PARTS}\}}\{{{_PARTS}\}}\s*$")
# 10 \frac{m}{s^2}
_PLAIN_FRACTION = re.compile(r"(?<=\d )\\frac\{([a-zA-Z]+)\}\{((?:s|h|kg|mol|K|min)(?:\^\{\d\})?)\}\s*$")
_TOKEN = re.compile(
    r"\^\s*(-?)\s*(\d)|((?:\\mu\s*)?(?:[a-zA-Z]*\\Omega|[a-zA-Z]+)|\\mu|平方|立方|[\u4e00-\u9fff]+)|[/()]"
)
# A second answer or a condition: no unit.
_NO_UNIT = re.compile(
    r"\d|(?:\b|\\l)(?:or|and)\b|^(?:squared|cubed|to|score)\b"
    r"|\b(?:if|otherwise|when|unless|not|maybe|possibly|either|both|where|for|plus|minus|than [a-z]|choose|factorial"
    r"|root|power|mille|ppm|below zero|over|divided|pi|at (?:least|most)|lakh|crore|bn|mod|times [b-z]"
    r"|negative$|repeating|recurring|gross|(?:sin|cos|tan|log|exp)[a-z]?"
    r"|(?:one|two|three|four|five|six|seven|eight|nine|third|fif|nin|twelf|hal[fv]e?|ten|eleven|twelve|eigh|twentie"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)t(?:y|ie)"
    r"|[a-z]*(?:hundred|thousand|[mbtr]+illion))(?:th)?s?(?!-))\b"
)
_CHANGES_VALUE = re.compile(
    "^(?:[十百万亿半折成几余打]|千(?![米克瓦升])|多(?![边项]))|半$|个半|以上|以下|分之|次方|开方|的(?:平方|立方|.?倍)|^(?:平方|立方)$"
)
_NUMBER = re.compile(r"-?[\d.,]+|.*10\^\{-?\d+\}")
_PERCENT = re.compile(r"([^%]*?)\s*%[\s%]*((?:\\text\s*\{[a-zA-Z\s]*\}\s*|[a-z]{2,}(?![a-z])\s*)*)")
_NUMERIC = re.compile(r"(?:[\d.,+\-/*^(){}\s!]|\\(?:frac|sqrt|pi|cdot|approx)(?![a-zA-Z])|e(?=\^))+")


def split_unit(text: str, expected: str = "") -> tuple[str, str]:
    r"""Split an answer into value and unit: `10\text{ cm}^{2}` gives `("10", "cm2")`, `3 steps left` `? step left`.

    `expected`: the other answer's unit. The 10 N of an answer are newtons if the gold is in newtons.
    """
    if (match := _PERCENT.fullmatch(text)) and not _NO_UNIT.search(match[2]):
        return match[1], " ".join(("%", *re.sub(r"\\text|[{}]", " ", match[2]).split()))
    text = _PLAIN_FRACTION.sub(r"\1/\2", _FRACTION.sub(r"\1/(\2)", text))
    if match := _WITH_CHINESE.fullmatch(text):
        value, words, noun = match.groups()
        unit = _unit(noun)
        if not unit and _CHANGES_VALUE.search(words):
            return text, ""
        return value, unit or _words(noun.split())
    if match := _WITH_TEXT.fullmatch(text):
        value, space, tail = match.groups()
        words = re.sub(r"\\text|\^\s*\{?\s*-?\s*\d|[{}]", " ", tail).lower().split()
        if words[:1] == ["mod"] and words[-1].isdigit():
            return value, " ".join(words)
        unit, spaced = _unit(tail), space or re.match(r"\\text\s*\{\s", tail)
        is_letter = all(len(word) == 1 and word.isascii() for word in words)  # 3\text{A}+2\text{B} has no unit
        bare = set(re.findall(r"[a-zA-Z]+", _IN_TEXT.sub(" ", tail)))  # 3\text{ apples}x has a factor x
        if "\\text" in value or bare - _UNIT_OF.keys():
            return text, ""
        if is_letter and not (unit and (spaced or _NUMERIC.fullmatch(value))):
            return text, ""
        if unit is None and _NO_UNIT.search(" ".join(words)):
            return text, ""
        return value, unit or _words(words)
    if (match := _WITH_PLAIN.fullmatch(text)) and (unit := _unit(match[3])):
        if unit == expected or _is_unit_without_text(*match.groups()):
            return match[1], unit
    if match := _WITH_WORDS.fullmatch(text):
        if not _GREEK.match(match[2]) and not _NO_UNIT.search(match[2].lower()):
            return match[1], _words(match[2].lower().split())
    return text, ""


def _is_unit_without_text(value: str, space: str, tail: str) -> bool:
    r"""Tell whether letters are a unit, not factors: `5 km`, `9.8 m/s^2`, but not `2 m g` and `\frac{1}{2}hr`."""
    names = set(re.findall("[a-zA-Z]+", tail))
    if space and "Omega" in names:
        return True
    if _PLAIN & {*names, *(name.removesuffix("s") for name in names)}:
        is_product = "^" in tail and {"mL", "ml", "hr"} & names  # 2mL^2
        if space or not _FACTORS & names or (_NUMBER.fullmatch(value) and not is_product):
            return True
    is_quotient = (space or tail.startswith("m/s")) and re.search(r"/|-|\\cdot", tail) and _NUMERIC.fullmatch(value)
    return bool(is_quotient) and all(len(name) > 1 or name in "msghJNWVKLCATF" for name in names)


def _words(words: list[str]) -> str:
    """Return words that are no known unit as one."""
    kept = [word.strip(".,").removesuffix("s") for word in words]
    kept = [word for word in kept if word not in ("of", "the", "a", "in", "total", "")]
    return " ".join(("?", *kept)) if kept else ""


def _are_among(words: list[str], others: list[str]) -> bool:
    """Tell whether words are among others, in their order."""
    rest = iter(others)
    return all(word in rest for word in words)


def same_unit(gold: str, answer: str) -> bool:
    """Tell whether two units may belong to one quantity: `3 red apples` may be `3 apples`, or 3.

    But `3 steps left` is not `3 steps right`: one's words must be among the other's, or name its unit.
    """
    if "" in (gold, answer) or gold == answer:
        return True
    if gold[0] == answer[0] == "%":  # % increase, % of the class
        return _are_among(gold.split(), answer.split()) or _are_among(answer.split(), gold.split())
    words, others = sorted((gold.split(), answer.split()), key=lambda each: "?" not in each)
    if "?" in others:
        return _are_among(words, others) or _are_among(others, words)
    named = {_UNIT_OF[word] for word in words if word in _UNIT_OF}
    return "?" in words and bool(named & {re.sub(r"-?\d+$", "", other) for other in others})


def _unit(tail: str) -> str | None:
    """Return the usual form of a unit, as `kg1 m1 s-2`; None if a part is not known."""
    powers: dict[str, int] = {}
    sign, in_brackets, next_power, last, name = 1, False, 1, 1, ""
    tail = re.sub(r"\b([mk])ph\b", lambda m: {"m": "mi/h", "k": "km/h"}[m[1]], tail)
    for token in _TOKEN.finditer(re.sub(r"\\text|\\cdot|[{}]", " ", tail)):
        if token[2]:
            if not name:
                return None
            powers[name] += last * (int(token[1] + token[2]) - 1)
        elif token[0] in ("/", "per", "each", "every"):
            sign = -1
        elif token[0] in "()":
            in_brackets, sign = token[0] == "(", 1 if token[0] == ")" else sign
        elif token[0].lower() in _POWERS:
            next_power = _POWERS[token[0].lower()]
        else:
            word = "".join(token[0].split())
            lower = word.lower() if len(word) > 2 or word.lower() in {*_PLAIN, "am", "pm"} else word  # Nm is not nm
            forms = (word, lower, word.removesuffix("s"), lower.removesuffix("s"))
            name = next((_UNIT_OF[form] for form in forms if form in _UNIT_OF), "")
            if not name:
                return None
            last = sign * next_power
            powers[name] = powers.get(name, 0) + last
            sign, next_power = sign if in_brackets else 1, 1
            last = last // abs(last)
    return " ".join(f"{name}{power}" for name, power in sorted(powers.items())) or None
