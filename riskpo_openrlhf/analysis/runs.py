"""The numbers of runs: TensorBoard files, and the summaries that evaluations leave behind."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import nan
from pathlib import Path
from typing import NamedTuple

import numpy as np

from riskpo_openrlhf.analysis.evaluations import step_of, summaries

EVENT_FILES = "events.out.tfevents.*"
_AT = re.compile(r"eval/(?P<source>.+)/(?P<metric>pass|avg)@(?P<k>\d+)$")


class Curve(NamedTuple):
    """One scalar over training: `steps` [m], rising, and `values` [m]."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Run:
    """The scalars of one run, by tag (`train/entropy`), and the folder with its event files."""

    name: str
    scalars: dict[str, Curve]
    home: Path = Path()

    def evaluated(self, metric: str = "pass") -> list[tuple[str, int]]:
        """(data source, k) of every Pass@k, or Avg@k with `metric` "avg", that was logged."""
        matches = filter(None, map(_AT.match, self.scalars))
        return sorted((match["source"], int(match["k"])) for match in matches if match["metric"] == metric)

    def errors(self, tag: str) -> np.ndarray:
        """Standard errors [m] logged beside `tag`; NaN where there is none."""
        known = dict(zip(*self.scalars.get(f"{tag}_se", Curve((), ())), strict=True))
        return np.array([known.get(step, nan) for step in self.scalars[tag].steps])


def eval_tag(source: str, k: int, metric: str = "pass") -> str:
    return f"eval/{source}/{metric}@{k}"


def load_runs(folders: Sequence[str | os.PathLike]) -> list[Run]:
    """Read every folder that holds TensorBoard event files, at or below `folders`: one run each.

    The event files of a folder belong together (a resumed run writes another); of a step logged twice the later value
    counts. A folder without any, but with evaluations in folders named by their steps (`step40/summary.json`), is one
    run of those.

    Raises:
        FileNotFoundError: a folder is missing or has no event files anywhere below it.
    """
    runs, several = [], len(folders) > 1
    for top in map(Path, folders):
        if not top.is_dir():
            raise FileNotFoundError(f"{top} is not a folder: name the folder that --logger.tensorboard_dir wrote to")
        homes = sorted({path.parent for path in top.rglob(EVENT_FILES)})
        if not homes and (evaluated := _evaluated(top)):
            runs.append(Run(top.name, evaluated, top))
        elif not homes:
            raise FileNotFoundError(
                f"no TensorBoard event files ({EVENT_FILES}) in or below {top}: did the run log with "
                "--logger.tensorboard_dir, and has it reached its first step?"
            )
        for home in homes:
            parts = ([top.name] if several or home == top else []) + list(home.relative_to(top).parts)
            runs.append(Run("/".join(parts), _scalars(home), home))
    return runs


def split_label(spec: str) -> tuple[str, list[str]]:
    """`label=folder,folder` -> the label and its folders; a folder alone has the label ""."""
    label, mark, folders = spec.partition("=")
    return (label, folders.split(",")) if mark and not os.path.exists(spec) else ("", [spec])


def load_groups(specs: Sequence[str]) -> dict[str, list[Run]]:
    """Label -> its runs, one a seed. `specs` are `label=folder,folder`, or folders whose runs stand for themselves.

    Raises:
        FileNotFoundError: as `load_runs`.
        ValueError: two runs without a label have the same name.
    """
    groups: dict[str, list[Run]] = {}
    pairs = [split_label(spec) for spec in specs]
    for run in load_runs([folder for label, folders in pairs if not label for folder in folders]):
        if run.name in groups:
            raise ValueError(f"two runs are called {run.name}: give each a label, as in LABEL={run.home}")
        groups[run.name] = [run]
    for label, folders in pairs:
        if label:
            groups.setdefault(label, []).extend(run for folder in folders for run in load_runs([folder]))
    return groups


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value [m] and those before it, `window` at most."""
    return np.array([values[max(0, end - window) : end].mean() for end in range(1, len(values) + 1)])


def combine(runs: Sequence[Run], tag: str, window: int = 1) -> tuple[Curve, np.ndarray | None] | None:
    """A scalar of the runs that logged it, over seeds: its mean and standard error [m], at the steps all of them have.

    Of a single run: its values, and the standard error logged beside them, if any. `window` > 1 takes the moving mean
    of each run's `train/` values first. None if no run has it.

    Raises:
        ValueError: the runs have no step in common.
    """
    having = [run for run in runs if tag in run.scalars]
    if not having:
        return None
    curves = [run.scalars[tag] for run in having]
    if tag.startswith("train/") and window > 1:
        curves = [Curve(curve.steps, moving_mean(curve.values, window)) for curve in curves]
    if len(having) == 1:
        errors = having[0].errors(tag)
        return curves[0], None if np.isnan(errors).all() else errors
    steps = reduce(np.intersect1d, [curve.steps for curve in curves])
    if not len(steps):
        raise ValueError(f"{', '.join(run.name for run in having)} have no step of {tag} in common: plot them apart")
    values = np.stack([curve.values[np.isin(curve.steps, steps)] for curve in curves])
    return Curve(steps, values.mean(0)), values.std(0, ddof=1) / np.sqrt(len(values))


def _evaluated(top: Path) -> dict[str, Curve]:
    points: dict[str, dict[int, float]] = {}
    for home, summary in summaries(top).items():
        if (step := step_of(home)) is not None:
            for source, metrics in summary["sources"].items():
                for name, value in metrics.items():
                    if isinstance(value, (int, float)):
                        points.setdefault(f"eval/{source}/{name}", {})[step] = float(value)
    return {tag: Curve(*map(np.array, zip(*sorted(values.items()), strict=True))) for tag, values in points.items()}


def _scalars(home: Path) -> dict[str, Curve]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(home), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {}
    for tag in events.Tags()["scalars"]:
        latest = {event.step: event.value for event in sorted(events.Scalars(tag), key=lambda event: event.wall_time)}
        steps = sorted(latest)
        scalars[tag] = Curve(np.array(steps), np.array([latest[step] for step in steps]))
    return scalars
