"""Draw arithmetic problems with answers from reasoning-gym, without a download.

A hash of the expression's text decides its split. So no held-out problem is ever trained on, with any seeds and
counts.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from riskpo_openrlhf.data.reasoning import INSTALL_HINT
from riskpo_openrlhf.verifiers.labels import write_label

DATASOURCE = "arithmetic"
SPLITS = ("train", "heldout")
TASKS = ("chain_sum", "products")
HELDOUT_ONE_IN = 4


class Kind(NamedTuple):
    """A kind of problem: a reasoning-gym task, its number of terms and the digits of each term.

    `chain_sum` has + and -, `products` has *.
    """

    task: str
    terms: int
    digits: int

    def __str__(self) -> str:
        return f"{self.task}/{self.terms}x{self.digits}"


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
        ValueError: a bad argument, or `unique` asks for more expressions than a kind has.
        ModuleNotFoundError: reasoning-gym is missing; the message says how to install it.
    """
    if not kinds:
        raise ValueError("kinds is empty: name at least one, e.g. Kind('chain_sum', 2, 1)")
    if count < 1:
        raise ValueError(f"count {count} is not allowed: at least 1")
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not known; one of: {', '.join(SPLITS)}")
    share, rest = divmod(count, len(kinds))
    rows = []
    for place, kind in enumerate(kinds):
        rows += _of_kind(kind, share + (place < rest), seed, split, unique)
    random.Random(seed).shuffle(rows)
    return rows


def as_data(rows: Iterable[dict[str, str]], verifier: str | None = "math") -> list[dict[str, str]]:
    """Turn rows of `problems` into rows that OpenRLHF reads.

    A label names the verifier that grades it. With None it is the plain answer, for a reward file of your own.
    """
    labels = ((row, write_label(verifier, row["answer"]) if verifier else row["answer"]) for row in rows)
    return [{"input": row["input"], "label": label, "datasource": DATASOURCE} for row, label in labels]


def check_disjoint(train: Iterable[dict], heldout: Iterable[dict]) -> None:
    """Raise `ValueError` with an example if a held-out prompt is also in the training set."""
    shared = {row["input"] for row in train} & {row["input"] for row in heldout}
    if shared:
        raise ValueError(f"{len(shared)} held-out prompts are in the training set too, e.g. {min(shared)!r}")


def _of_kind(kind: Kind, count: int, seed: int, split: str, unique: bool) -> list[dict[str, str]]:
    rows, seen, tried, most = [], set(), 0, 1000 + 100 * count
    # reasoning-gym draws item i from `seed + i`, so nearby seeds would give shifted copies of one another.
    first = int.from_bytes(hashlib.sha256(f"{seed}/{split}/{kind}".encode()).digest()[:6], "big")
    source = _reasoning_gym(kind, first, most) if count else None
    while len(rows) < count:
        if tried == most:
            raise ValueError(f"{kind} has too few different {split} problems for {count}: found {len(rows)}")
        item = source[tried]
        tried += 1
        expression = item["metadata"]["expression"].replace(" ", "")
        if _split_of(expression) != split or (unique and expression in seen):
            continue
        seen.add(expression)
        rows.append({"input": f"{expression}=", "answer": item["answer"]})
    return rows


def _split_of(expression: str) -> str:
    digest = hashlib.sha256(expression.encode()).digest()
    return "heldout" if int.from_bytes(digest[:4], "big") % HELDOUT_ONE_IN == 0 else "train"


def _reasoning_gym(kind: Kind, seed: int, size: int):
    if kind.task not in TASKS:
        raise ValueError(f"task {kind.task!r} is not known; one of: {', '.join(TASKS)}")
    try:
        import reasoning_gym
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"the arithmetic problems need reasoning-gym: {INSTALL_HINT} ({error})") from error
    return reasoning_gym.create_dataset(
        kind.task,
        min_terms=kind.terms,
        max_terms=kind.terms,
        min_digits=kind.digits,
        max_digits=kind.digits,
        seed=seed,
        size=size,
    )
