"""Draw arithmetic problems with answers from reasoning-gym, without a download.

A hash of the expression's text decides its split. So no held-out problem is ever trained on, with any seeds and
counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from riskpo_openrlhf.data import reasoning
from riskpo_openrlhf.verifiers.labels import write_label

DATASOURCE = "arithmetic"


class Kind(NamedTuple):
    """A kind of problem: a reasoning-gym task, its number of terms and the digits of each term.

    `chain_sum` has + and -, `products` has *.
    """

    task: str
    terms: int
    digits: int

    def __str__(self) -> str:
        return f"{self.task}/{self.terms}x{self.digits}"

    @property
    def settings(self) -> dict[str, int]:
        sizes = {"terms": self.terms, "digits": self.digits}
        return {f"{bound}_{what}": size for what, size in sizes.items() for bound in ("min", "max")}


# For the small character-level models.
CHARACTER_KINDS = (Kind("chain_sum", 3, 1), Kind("chain_sum", 2, 2))


def problems(
    kinds: Sequence[Kind], count: int, seed: int, *, split: str = "train", unique: bool = False
) -> list[dict[str, str]]:
    """Draw `count` problems of one split, an equal number of each kind, in an order drawn from `seed`.

    Args:
        kinds: the kinds of problems to draw.
        seed: equal arguments give equal rows on every machine.
        split: `train` or `heldout`. One expression in 4 is held out, for every seed.
        unique: draw no expression twice. An evaluation needs that, because it counts by prompt.

    Returns:
        Rows `{"input": prompt, "answer": answer}`, with prompts like `12+34=`.

    Raises:
        ValueError: `count` is below 1, or `unique` asks for more expressions than a kind has.
        ModuleNotFoundError: reasoning-gym is missing; the message says how to install it.
    """
    if count < 1:
        raise ValueError(f"count {count} is not allowed: at least 1")
    seen: set[str] = set()

    def row(task: str, item: dict) -> dict[str, str] | None:
        expression = item["metadata"]["expression"].replace(" ", "")
        if reasoning.is_test(expression) != (split == "heldout") or (unique and expression in seen):
            return None
        seen.add(expression)
        return {"input": f"{expression}=", "answer": item["answer"]}

    return reasoning.draw([(str(kind), kind.task, kind.settings) for kind in kinds], count, seed, split, row)


def as_data(rows: Iterable[dict[str, str]], verifier: str | None = "math") -> list[dict[str, str]]:
    """Turn rows of `problems` into rows that OpenRLHF reads.

    A label names the verifier that grades it. With None it is the plain answer, for a reward file of your own.
    """
    labels = ((row, write_label(verifier, row["answer"]) if verifier else row["answer"]) for row in rows)
    return [{"input": row["input"], "label": label, "datasource": DATASOURCE} for row, label in labels]
