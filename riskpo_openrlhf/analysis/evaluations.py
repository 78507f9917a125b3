"""Read what `cli.evaluate` wrote: summaries and samples."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from riskpo_openrlhf.evaluation.samples import SAMPLES, SUMMARY, read_samples

_STEP = re.compile(r"step_?(\d+)")


def read_summaries(folder: str | os.PathLike) -> dict[Path, dict]:
    """Read the summary of every finished evaluation at or below `folder`, by its folder.

    Raises:
        ValueError: a summary is not JSON.
    """
    found = {}
    for path in sorted(Path(folder).rglob(SUMMARY)):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}): run that evaluation again, it only sums up") from error
        if isinstance(summary, dict) and isinstance(summary.get("sources"), dict):
            found[path.parent] = summary
    return found


def step_of(home: Path) -> int | None:
    """Find the training step in the path of an evaluation, `.../global_step40/...` -> 40; the last one counts."""
    steps = _STEP.findall(str(home))
    return int(steps[-1]) if steps else None


def right_and_wrong(home: Path) -> list[dict]:
    """Pick the first two right and wrong samples of every data source; [] if the evaluation kept none.

    Raises `EvaluationError` for a line that is not a sample.
    """
    if not (home / SAMPLES).is_file():
        return []
    kept: dict[tuple[str, bool], list[dict]] = {}
    for (source, *_), row, line in read_samples(home / SAMPLES):
        same = kept.setdefault((source, (row["score"] or 0) > 0), [])
        if len(same) < 2:
            same.append(json.loads(line))
    return [row for _, same in sorted(kept.items()) for row in same]
