"""Wrong answers among those to learn from: a model taught with them knows how to be right, and seldom shows it.

How seldom depends on the problem by a rule, which reinforcement learning can find, as it does in a language model that
has read the right and the wrong of people.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HARD = 0.45  # of the families
HARD_RATES, EASY_RATES = (0.002, 0.02), (0.6, 0.98)
WRONG_BY = (-20, -10, -5, 5, 10, 20)


def family(row: dict[str, str]) -> tuple[int, str]:
    """What decides how often an answer is right: how many terms the problem has, and its last digit."""
    expression = row["input"].rstrip("=")
    return len(expression.replace("-", "+").split("+")), expression[-1]


def right_rates(families: Sequence, seed: int) -> dict:
    """How often each family is answered right.

    A share HARD of them log-uniform in HARD_RATES, the others uniform in EASY_RATES.
    """
    families, rng = sorted(set(families)), np.random.default_rng([seed, 0])
    hard = int(HARD * len(families))
    rates = np.exp(rng.uniform(*np.log(HARD_RATES), hard)), rng.uniform(*EASY_RATES, len(families) - hard)
    return dict(zip(families, rng.permutation(np.concatenate(rates)).tolist(), strict=True))


def with_slips(rows: Sequence[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """The rows (`input` such as `12+34=`, `label` a whole number), with a wrong label where chance decides so.

    A wrong label is off by one of WRONG_BY. `seed` draws the families' rates and the slips.
    """
    rates, rng = right_rates([family(row) for row in rows], seed), np.random.default_rng([seed, 1])
    return [
        row
        if rng.random() < rates[family(row)]
        else {**row, "label": str(int(row["label"]) + int(rng.choice(WRONG_BY)))}
        for row in rows
    ]
