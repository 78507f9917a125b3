"""Find training problems that are also in a test set, by their normalised text and their images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from riskpo_openrlhf.data.instructions import bare_problem
from riskpo_openrlhf.verifiers.labels import read_label

_SPACING = re.compile(r"\\[,;:! ()\[\]]|\\(?:left|right|displaystyle|q?quad)(?![a-z])|[$~]")
LEAST_CONTAINED = 100  # characters; a shorter task can be part of another one by chance


def normalise(text: str) -> str:
    r"""Lower the case; remove white space, dollar signs, LaTeX spacing, `\left`, `\right` and a final stop."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"\\[dt]frac(?![a-z])", r"\\frac", _SPACING.sub("", text))
    return re.sub(r"\s+", "", text).rstrip(".")


def identity(row: dict) -> tuple[str, ...]:
    """Return what identifies a problem: its normalised text without instruction, and its images' contents."""
    text = "\n".join(turn["content"] for turn in row["prompt"])
    return (normalise(bare_problem(text)), *(Path(image).stem for image in row.get("images") or ()))


def contaminated(train: Iterable[dict], test: Iterable[dict]) -> list[int]:
    """Return the places of the training rows that are also tests.

    A programming task also counts if it contains the whole text of a test of 100 characters or more, because
    sources put their own words around a task.
    """
    train, test = list(train), list(test)
    tests = {identity(row) for row in test}
    inside = [text for text, *_ in (identity(row) for row in test if _is_code(row)) if len(text) >= LEAST_CONTAINED]
    found = []
    for place, row in enumerate(train):
        mine = identity(row)
        if mine in tests or (inside and _is_code(row) and any(text in mine[0] for text in inside)):
            found.append(place)
    return found


def _is_code(row: dict) -> bool:
    return read_label(row["label"])[0] == "code"
