"""Read the numbers of runs from TensorBoard files and from the summaries of evaluations."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import nan
from pathlib import Path
from typing import NamedTuple

import numpy as np

from riskpo_openrlhf.analysis.evaluations import read_summaries, step_of
from riskpo_openrlhf.evaluation.intervals import Z95, over_seeds

EVENT_FILES = "events.out.tfevents.*"
_AT = re.compile(r"eval/(?P<source>.+)/(?P<metric>pass|avg)@(?P<k>\d+)$")


class Curve(NamedTuple):
    """One scalar over training: `steps` [m], ascending, and `values` [m]."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Run:
    """The scalars of one run, by tag (`train/entropy`), and the folder with its event files."""

    name: str
    scalars: dict[str, Curve]
    home: Path = Path()

    def evaluated(self, metric: str = "pass") -> list[tuple[str, int]]:
        """List (data source, k) of every Pass@k that was logged, or of every Avg@k with `metric` "avg"."""
        matches = filter(None, map(_AT.match, self.scalars))
        return sorted((match["source"], int(match["k"])) for match in matches if match["metric"] == metric)

    def halves(self, tag: str) -> np.ndarray:
        """Compute half of the 95 % interval over problems, [m]; NaN where no standard error was logged."""
        known = dict(zip(*self.scalars.get(f"{tag}_se", Curve((), ())), strict=True))
        return Z95 * np.array([known.get(step, nan) for step in self.scalars[tag].steps])


def eval_tag(source: str, k: int, metric: str = "pass") -> str:
    return f"eval/{source}/{metric}@{k}"


def load_runs(folders: Sequence[str | os.PathLike]) -> list[Run]:
    """Read one run from every folder with TensorBoard event files, at or below `folders`.

    All event files of a folder are one run: a resumed run adds a file. If a step was logged twice, the later value
    counts. A folder without event files is a run too, if it holds evaluations in folders named by their steps
    (`step40/summary.json`).

    Raises:
        FileNotFoundError: a folder is missing, or holds no run.
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
    """Split `label=folder,folder` into the label and its folders; a folder alone has the label ""."""
    label, mark, folders = spec.partition("=")
    return (label, folders.split(",")) if mark and not os.path.exists(spec) else ("", [spec])


def load_groups(specs: Sequence[str]) -> dict[str, list[Run]]:
    """Read runs by label, one a seed. `specs`: `label=folder,folder`, or folders whose runs are labels of their own.

    Raises:
        FileNotFoundError: as `load_runs`.
        ValueError: two runs without a label share a name.
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


def of_sources(groups: dict[str, list[Run]], sources: Sequence[str]) -> dict[str, list[Run]]:
    """Leave out the evaluations of other data sources.

    Raises:
        ValueError: no run evaluated a data source that is asked for.
    """
    known = {source for runs in groups.values() for run in runs for source, _ in run.evaluated()}
    if unknown := [source for source in sources if source not in known]:
        raise ValueError(f"no run evaluated {', '.join(unknown)}; there are: {', '.join(sorted(known)) or 'none'}")
    others = tuple(f"eval/{source}/" for source in known - set(sources))
    return {
        label: [
            replace(run, scalars={tag: curve for tag, curve in run.scalars.items() if not tag.startswith(others)})
            for run in runs
        ]
        for label, runs in groups.items()
    }


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Average each value [m] with those before it, `window` values at most."""
    return np.array([values[max(0, end - window) : end].mean() for end in range(1, len(values) + 1)])


def stack(runs: Sequence[Run], tag: str) -> Curve | None:
    """Stack a scalar over the runs that logged it, at the steps that all of them have: `values` [runs, m].

    Returns None if no run logged it.

    Raises:
        ValueError: the runs have no step in common.
    """
    curves = [run.scalars[tag] for run in runs if tag in run.scalars]
    if not curves:
        return None
    steps = reduce(np.intersect1d, [curve.steps for curve in curves])
    if not len(steps):
        names = ", ".join(run.name for run in runs if tag in run.scalars)
        raise ValueError(f"{names} have no step of {tag} in common: plot them apart")
    return Curve(steps, np.stack([curve.values[np.isin(curve.steps, steps)] for curve in curves]))


def combine(runs: Sequence[Run], tag: str, window: int = 1) -> tuple[Curve, np.ndarray | None] | None:
    """Average a scalar over the runs that logged it; None if no run did.

    Args:
        runs: one a seed.
        window: `train/` values are first replaced by their moving mean over this many steps.

    Returns:
        The mean curve, and half of its 95 % interval [m]: over seeds (Student's t); for a single run over problems,
        or None if no errors were logged.

    Raises:
        ValueError: the runs have no step in common.
    """
    if tag.startswith("train/") and window > 1:
        runs = [
            Run(run.name, {tag: Curve(run.scalars[tag].steps, moving_mean(run.scalars[tag].values, window))})
            for run in runs
            if tag in run.scalars
        ]
    stacked = stack(runs, tag)
    if stacked is None:
        return None
    if len(stacked.values) == 1:
        halves = next(run for run in runs if tag in run.scalars).halves(tag)
        return Curve(stacked.steps, stacked.values[0]), None if np.isnan(halves).all() else halves
    mean, half = over_seeds(stacked.values)
    return Curve(stacked.steps, mean), half


def _evaluated(top: Path) -> dict[str, Curve]:
    points: dict[str, dict[int, float]] = {}
    for home, summary in read_summaries(top).items():
        if (step := step_of(home)) is not None:
            for source, metrics in summary["sources"].items():
                for name, value in metrics.items():
                    if isinstance(value, (int, float)):
                        points.setdefault(f"eval/{source}/{name}", {})[step] = float(value)
    return {tag: Curve(*map(np.array, zip(*sorted(values.items()), strict=True))) for tag, values in points.items()}


def read_events(home: Path):
    """Read the event files of a folder: TensorBoard's `EventAccumulator` of all scalars and texts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(home), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def _scalars(home: Path) -> dict[str, Curve]:
    events, scalars = read_events(home), {}
    for tag in events.Tags()["scalars"]:
        latest = {event.step: event.value for event in sorted(events.Scalars(tag), key=lambda event: event.wall_time)}
        steps = sorted(latest)
        scalars[tag] = Curve(np.array(steps), np.array([latest[step] for step in steps]))
    return scalars
