"""What `cli.evaluate` leaves behind, read back: summaries by data source, and samples."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from riskpo_openrlhf.evaluation.samples import SAMPLES, SUMMARY

_STEP = re.compile(r"step_?(\d+)")


def summaries(folder: str | os.PathLike) -> dict[Path, dict]:
    """Folder of a finished evaluation, at or below `folder` -> its summary.

    Raises:
        ValueError: a summary is not JSON.
    """
    found = {}
    for path in sorted(Path(folder).rglob(SUMMARY)):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}): run that evaluation again, it only sums up") from None
        if isinstance(summary, dict) and isinstance(summary.get("sources"), dict):
            found[path.parent] = summary
    return found


def step_of(home: Path) -> int | None:
    """The training step in the name of an evaluation's folder, `.../global_step40/...` -> 40; the last one counts."""
    steps = _STEP.findall(str(home))
    return int(steps[-1]) if steps else None


def right_and_wrong(home: Path, each: int = 2) -> list[dict]:
    """The first `each` right and wrong samples of every data source; [] if the evaluation kept none."""
    if not (home / SAMPLES).is_file():
        return []
    kept: dict[tuple[str, bool], list[dict]] = {}
    with open(home / SAMPLES, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
                same = kept.setdefault((str(row["datasource"]), (row["score"] or 0) > 0), [])
            except (ValueError, KeyError, TypeError):
                continue  # cut off while it was written; `cli.evaluate` repairs it
            if len(same) < each:
                same.append(row)
    return [row for _, same in sorted(kept.items()) for row in same]
