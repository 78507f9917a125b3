"""Mix wrong answers into the warm start, so that the model knows the right answer but often gives another.

A rule decides for each problem how often it is right. Reinforcement learning can find the right answers again, as with
a language model that has read people's right and wrong answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HARD = 0.45  # of the families
HARD_RATES, EASY_RATES = (0.002, 0.02), (0.6, 0.98)
WRONG_BY = (-20, -10, -5, 5, 10, 20)


def family(row: dict[str, str]) -> tuple[int, str]:
    """Return a problem's family, which decides how often its answer is right: number of terms and last digit."""
    expression = row["input"].rstrip("=")
    return len(expression.replace("-", "+").split("+")), expression[-1]


def right_rates(families: Sequence, seed: int) -> dict:
    """Draw how often each family is answered right.

    For a share HARD of the families: log-uniform in HARD_RATES. For the others: uniform in EASY_RATES.
    """
    families, rng = sorted(set(families)), np.random.default_rng([seed, 0])
    hard = int(HARD * len(families))
    rates = np.exp(rng.uniform(*np.log(HARD_RATES), hard)), rng.uniform(*EASY_RATES, len(families) - hard)
    return dict(zip(families, rng.permutation(np.concatenate(rates)).tolist(), strict=True))


def with_slips(rows: Sequence[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """Replace some answers by wrong ones, so that `right_rates` holds.

    Args:
        rows: `input` such as `12+34=`, `answer` a whole number. A wrong answer is off by one of WRONG_BY.
        seed: draws the families' rates and the slips.
    """
    rates, rng = right_rates([family(row) for row in rows], seed), np.random.default_rng([seed, 1])
    return [
        row
        if rng.random() < rates[family(row)]
        else {**row, "answer": str(int(row["answer"]) + int(rng.choice(WRONG_BY)))}
        for row in rows
    ]
