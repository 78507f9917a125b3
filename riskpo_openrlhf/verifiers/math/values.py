"""Compare SymPy expressions by their values at a few points; what has no value is compared by math-verify."""

from __future__ import annotations

from fractions import Fraction

from riskpo_openrlhf.verifiers.math.numbers import CLOSE

EXACT = 1e-20  # relative, between values computed to 30 digits


def same_value(gold, answer, tolerance: float) -> bool:
    """Tell whether two scalar expressions have the same values.

    Equality at the points is as good as a proof, unless somebody constructed the answer to be near.
    """
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
    return agreed > len(points) / 3 or (agreed == 0 and judged_by_math_verify(gold, answer))


def same_up_to_a_factor(gold, answer) -> bool:
    """Tell whether one scalar expression is the other times a number, as the two forms of an equation are."""
    if not gold.free_symbols or gold.free_symbols != answer.free_symbols:
        return False
    values = [(_evaluate(gold, point), _evaluate(answer, point)) for point, _ in _points(gold, answer)]
    ratios = [g / a for g, a in values if g and a]
    return len(ratios) > 2 and all(_close(ratio, ratios[0], CLOSE) for ratio in ratios)


def real_value(expression) -> Fraction | None:
    """Return the value of a scalar expression to 30 digits; None if it has variables or is not real."""
    value = _evaluate(expression, {})
    return None if value is None or value.imag else Fraction(str(value.real))


def judged_by_math_verify(gold, answer) -> bool:
    """Compare what is no scalar: sets, matrices, relations."""
    from math_verify import verify

    return bool(verify(gold, answer, timeout_seconds=None))


def _points(*expressions):
    """Return points to evaluate at, `(values of the variables, all are positive)` each.

    The values are in (0, 2), below 0, and whole. Variables of a formula are mostly lengths, masses and the like.
    Formulas that are real for negative values must agree there too; others need not.
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
    """Return the value at a point as an mpmath number of 30 digits; None if there is none."""
    import mpmath

    parts = expression.evalf(30, subs=point).as_real_imag()
    if not all(part.is_Float or part.is_Rational for part in parts):
        return None
    return mpmath.mpc(*(part._to_mpmath(100) for part in parts))


def _close(x, y, tolerance: float) -> bool:
    size = max(abs(x), abs(y))
    return abs(x - y) <= tolerance * size or size < 1e-80
