"""Read LaTeX as a SymPy expression, by latex2sympy2_extended. No text is evaluated as Python.

SymPy is imported inside the functions: only worker processes load it.
"""

from __future__ import annotations

import functools
import re

from riskpo_openrlhf.verifiers.math.brackets import depths
from riskpo_openrlhf.verifiers.math.limits import MAX_BARS, MAX_BITS, MAX_EXPRESSION, MAX_NESTED_BRACKETS, Unreadable


@functools.lru_cache(maxsize=2048)
def read_expression(text: str, fold_case: bool):
    """Read a text as a SymPy object with exact decimals. With `fold_case`, M is m. Raises `Unreadable`."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

    if re.search(r"\d\s+\d|%", text) or not _is_tame(text):
        raise Unreadable
    # latex2sympy2_extended drops primes, and adds two neighbours that are rational: 2(3) would be 5.
    text = re.sub(r"(?<=[a-zA-Z])'+", lambda match: f"_{{{'prime' * len(match[0])}}}", text)
    text = re.sub(r"(?<=[\d)])\s*(?=\()|(?<=\))\s*(?=\d)", r"\\cdot ", text)
    text = re.sub(r"(\\frac\{[^{}]*\}\{[^{}]*\})\s*(?=[\d(]|\\frac)", r"\1\\cdot ", text)
    config = ConversionConfig(lowercase_symbols=fold_case)
    try:
        read = latex2sympy(text, is_real=True, normalization_config=None, conversion_config=config)
    except MemoryError:
        raise
    except Exception as error:  # of any kind: antlr's, sympy's, plain ones
        raise Unreadable from error
    for part in read if isinstance(read, sympy.MatrixBase) else [read]:
        _bits(part)
    return _rebuilt(read, sympy.Symbol("i", real=True) in read.free_symbols) if is_scalar(read) else read


def is_scalar(expression) -> bool:
    """Tell whether an expression is a number or formula: no matrix, set or relation."""
    import sympy

    return isinstance(expression, sympy.Expr) and not expression.has(sympy.MatrixBase, sympy.MatrixExpr)


def _is_tame(text: str) -> bool:
    """Tell whether reading a text ends in time: it is short and flat enough for the parser.

    Also refuses huge numbers in functions that latex2sympy2_extended evaluates while it reads.
    """
    deepest = max((depth for _, depth in depths(text)), default=0)
    eager = re.search(r"\\(?:gcd|lcm|Gamma|det)(?![a-zA-Z])", text) and re.search(r"[\^!]|\d{7}", text)
    return len(text) <= MAX_EXPRESSION and deepest <= MAX_NESTED_BRACKETS and text.count("|") <= MAX_BARS and not eager


def _bits(expression) -> float:
    """Estimate the bits of a value, for symbols of size 1. Raises `Unreadable` above `MAX_BITS`.

    This refuses 2^{2^{2^{99}}} before anything evaluates it.
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
    """Evaluate an expression with decimals as fractions and f(x) as a variable.

    `imaginary`: i is the imaginary unit, not an index.
    """
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
