"""Tables and numbers for people, and the same values as JSON for programs. ± is always half of a 95 % interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isnan
from typing import Any


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Format rows for a terminal: columns of equal width, the first `left` of them flush left, the others right."""
    columns = []
    for i, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        columns.append([cell.ljust(width) if i < left else cell.rjust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def plus_minus(value: float | None, half: float | None = None, digits: int = 3, sign: str = "") -> str:
    """Format `value ± half`. An unknown value (None, NaN) is a dash; an unknown half width is left out."""
    if value is None or isnan(value):
        return "–"
    return f"{value:{sign}.{digits}f}" + ("" if half is None or isnan(half) else f" ± {half:.{digits}f}")


def to_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON. NaN and infinities, which JSON does not have, become null."""
    value = json.loads(json.dumps(value), parse_constant=lambda constant: None)
    return json.dumps(value, indent=indent, ensure_ascii=False)
