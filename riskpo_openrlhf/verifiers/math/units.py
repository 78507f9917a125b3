r"""Units: `10\text{ cm}^{2}` is the value 10 and the unit cm²."""

from __future__ import annotations

import re

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
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_EXPONENT = r"\s*(?:\^\s*\{?([23])\}?)?"
# A single letter is a unit in \text only: 4c is a product.
_WITH_UNIT = (
    re.compile(r"(.*[^\s(\[{,])\s*\\text\s*\{([^{}]*)\}" + _EXPONENT, re.DOTALL),
    re.compile(
        rf"(.*[\d}})])\s*((?:(?:{'|'.join(_POWERS)})\.? )?(?:{'|'.join(_PLAIN_UNITS)})s?|km/h|m/s)" + _EXPONENT,
        re.DOTALL,
    ),
    re.compile(r"(-?[\d.,/]+)\s+((?!alpha|beta|gamma|delta|theta|lambda|sigma|omega)[A-Za-z]{4,}(?:\s+[A-Za-z]+)*)()"),
)
# A second answer or a condition: no unit.
_NO_UNIT = re.compile(r"\d|\b(?:or|and|if|otherwise|when|unless|not|maybe|possibly|either|both)\b")


def split_unit(text: str) -> tuple[str, str]:
    r"""Split an answer into value and unit: `10\text{ cm}^{2}` gives `("10", "cm2")`. An unknown unit is dropped."""
    match = next(filter(None, (pattern.fullmatch(text) for pattern in _WITH_UNIT)), None)
    if not match:
        return (text.rstrip("% "), "%") if text.endswith("%") else (text, "")
    words = match[2].lower().replace(".", " ").split()
    if words[:1] != ["mod"] and _NO_UNIT.search(match[2].lower()):
        return text, ""
    power = match[3] or _POWERS.get(words[0] if words else "", "")
    names = [word for word in words if word not in _POWERS]
    if names[:1] == ["mod"]:
        return match[1].strip(), " ".join(names)
    unit = _UNIT_OF.get(names[0]) or _UNIT_OF.get(names[0].removesuffix("s")) if len(names) == 1 else None
    return match[1].strip(), unit + power if unit else ""
