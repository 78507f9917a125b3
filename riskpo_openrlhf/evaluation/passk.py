"""Pass@k: the probability that at least one of k responses to a problem is right."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def pass_at_k(n, c, k):
    """Estimate Pass@k without bias, 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374).

    Computed as 1 - prod_{j<k} (n - c - j) / (n - j): no large binomials, exact zeros and ones.

    Args:
        n: responses to a problem, a number or an array.
        c: right responses among them, of a shape that broadcasts with n.
        k: responses that may be drawn, likewise.

    Returns:
        A float, or a float array of the common shape.

    Raises:
        ValueError: k > n, c > n, k < 1, c < 0, or a value is not a whole number.
    """
    n, c, k = np.broadcast_arrays(*(_whole(name, value) for name, value in (("n", n), ("c", c), ("k", k))))
    for wrong, rule in (
        (k < 1, "k must be at least 1"),
        (c < 0, "c must be at least 0"),
        (c > n, "c, the right responses, can't be more than n, all responses"),
        (k > n, "k can't be more than n: draw at least k responses a problem"),
    ):
        if wrong.any():
            at = np.argmax(wrong)
            raise ValueError(f"Pass@k: {rule}; got n={n.flat[at]}, c={c.flat[at]}, k={k.flat[at]}")
    none_right = np.ones(n.shape)
    for j in range(int(k.max(initial=0))):
        # If fewer than k responses are wrong, one factor is 0, and the product stays 0.
        none_right *= np.where(j < k, np.maximum(n - c - j, 0) / np.maximum(n - j, 1), 1.0)
    return (1.0 - none_right)[()]


def pass_at_k_summary(correct, ks: Iterable[int]) -> dict[int, tuple[float, float]]:
    """Average Pass@k over a set of problems.

    Args:
        correct: `[P, n]`, 1 where response j to problem i is right, 0 where it is wrong, NaN without a verdict. Such a
            response is left out, and a problem with fewer than k verdicts is left out of that Pass@k.
        ks: the values of k.

    Returns:
        k -> (mean, standard error) over problems. The standard error, std / sqrt(P), is that of drawing other
        problems; NaN with one problem.

    Raises:
        ValueError: `correct` is not a non-empty `[P, n]` of 0, 1 and NaN, or no problem has k verdicts.
    """
    correct = np.asarray(correct, dtype=float)
    if correct.ndim != 2 or correct.size == 0:
        raise ValueError(f"correct must be [problems, responses] and not empty; its shape is {list(correct.shape)}")
    known = ~np.isnan(correct)
    if not np.isin(correct[known], (0.0, 1.0)).all():
        raise ValueError("correct must hold 0 and 1 only: Pass@k counts right answers, not partial rewards")
    n, c = known.sum(axis=1), np.nansum(correct, axis=1).astype(int)
    result = {}
    for k in ks:
        enough = n >= k
        if not enough.any():
            raise ValueError(f"Pass@{k} needs at least {k} graded responses a problem; there are at most {n.max()}")
        values = pass_at_k(n[enough], c[enough], k)
        error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else np.nan
        result[k] = (float(values.mean()), float(error))
    return result


def _whole(name: str, value) -> np.ndarray:
    array = np.asarray(value)
    if not (array == np.floor(array)).all():
        raise ValueError(f"Pass@k: {name} must be whole numbers; got {value!r}")
    return array.astype(np.int64)
