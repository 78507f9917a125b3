"""Compare limits, integrals, derivatives and infinite sums, by latex2sympy2_extended and SymPy.

What `grammar.py` can't read comes here. SymPy is imported inside the functions: few worker processes need it.
"""

from __future__ import annotations

import re

from riskpo_openrlhf.verifiers.math.grammar import THIN_SPACE
from riskpo_openrlhf.verifiers.math.limits import MAX_CALCULUS, Unreadable

_CALCULUS = re.compile(
    r"\\(?:lim|i*int|oint)(?![a-zA-Z])|\\[dt]?frac\s*\{d\}\s*\{d|\\(?:sum|prod).*\\infty", re.DOTALL
)
_UPRIGHT_D = re.compile(r"\\text\s*\{\s*d\s*\}")


def needs_sympy(text: str) -> bool:
    """Tell whether the comparison of a text may need SymPy."""
    return bool(_CALCULUS.search(text))


def same_symbolically(gold: str, answer: str) -> bool:
    """Tell whether two expressions are equal after SymPy has worked out their limits, integrals and derivatives."""
    import sympy

    g, a = (_read(text) for text in (gold, answer))
    if not all(isinstance(each, sympy.Expr) and not _depends_unseen(each) for each in (g, a)):
        return False
    g, a = g.doit(), a.doit()
    return g == a or (not g.has(sympy.nan, sympy.oo, sympy.zoo) and sympy.simplify(g - a) == 0)


def _depends_unseen(tree) -> bool:
    r"""Tell whether SymPy takes a letter for constant that is none: the v of \frac{d}{dt}(mv), the a_n of a limit."""
    import sympy

    parts = tree.atoms(sympy.Derivative, sympy.Limit, sympy.Sum, sympy.Product)
    pairs = ((part.args[0].free_symbols, sympy.Tuple(part.args[1]).atoms(sympy.Symbol)) for part in parts)
    return any(letters and not letters & variable for letters, variable in pairs)


def _read(text: str):
    from latex2sympy2_extended.latex2sympy2 import latex2sympy

    if len(text) > MAX_CALCULUS:
        raise Unreadable
    return latex2sympy(_UPRIGHT_D.sub("d", text.replace(THIN_SPACE, " ")), is_real=True, normalization_config=None)
