"""Learning curves and a before/after table from the TensorBoard files of one or more runs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, nan
from pathlib import Path
from typing import NamedTuple

import numpy as np

EVENT_FILES = "events.out.tfevents.*"
SHOWN_KS = (1, 8, 16)
_PASS_AT = re.compile(r"eval/(?P<source>.+)/pass@(?P<k>\d+)$")
# Okabe and Ito's colours, apart for colour-blind readers too; the pale yellow is left out.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", ":", "-.")
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "riskpo",
}


class Curve(NamedTuple):
    """One scalar over training: `steps` [m], rising, and `values` [m]."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Run:
    """The scalars of one run, by tag (`train/entropy`)."""

    name: str
    scalars: dict[str, Curve]

    def pass_at(self) -> dict[tuple[str, int], tuple[Curve, np.ndarray]]:
        """(data source, k) -> the curve of Pass@k and its standard errors, NaN where none was logged.

        Of the k's logged: 1, 8, 16 and the largest.
        """
        found = {}
        for tag, curve in self.scalars.items():
            match = _PASS_AT.match(tag)
            if match:
                errors = dict(zip(*self.scalars.get(f"{tag}_se", Curve((), ())), strict=True))
                found[match["source"], int(match["k"])] = curve, np.array([errors.get(s, nan) for s in curve.steps])
        largest = max((k for _, k in found), default=0)
        return {key: found[key] for key in sorted(found) if key[1] in SHOWN_KS or key[1] == largest}


def load_runs(folders: Sequence[str | os.PathLike]) -> list[Run]:
    """Read every folder that holds TensorBoard event files, at or below `folders`: one run each.

    The event files of a folder belong together (a resumed run writes another); of a step logged twice the later value
    counts.

    Raises:
        FileNotFoundError: a folder is missing or has no event files anywhere below it.
    """
    runs, several = [], len(folders) > 1
    for top in map(Path, folders):
        if not top.is_dir():
            raise FileNotFoundError(f"{top} is not a folder: name the folder that --logger.tensorboard_dir wrote to")
        homes = sorted({path.parent for path in top.rglob(EVENT_FILES)})
        if not homes:
            raise FileNotFoundError(
                f"no TensorBoard event files ({EVENT_FILES}) in or below {top}: did the run log with "
                "--logger.tensorboard_dir, and has it reached its first step?"
            )
        for home in homes:
            parts = ([top.name] if several or home == top else []) + list(home.relative_to(top).parts)
            runs.append(Run("/".join(parts), _read(home)))
    return runs


def draw(runs: Sequence[Run], out: str | os.PathLike) -> list[Path]:
    """Draw the learning curves of `runs` to `out` (.png or .svg) and to its twin in the other format.

    Six panels; one that no run has logged says so. Returns the files written.

    Raises:
        ValueError: `out` has another suffix.
    """
    out = Path(out)
    if out.suffix not in (".png", ".svg"):
        raise ValueError(f"--out {out} must end in .png or .svg")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context(_STYLE):
        figure, panels = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
        _pass_at_panel(panels[0, 0], runs)
        for panel, (title, unit, tags) in zip(panels.flat[1:], _PANELS, strict=True):
            series = [
                (run.name, label, run.scalars[tag], None)
                for run in runs
                for tag, label in tags.items()
                if tag in run.scalars
            ]
            _panel(panel, title, unit, series, len(runs))
        out.parent.mkdir(parents=True, exist_ok=True)
        files = [out.with_suffix(".png"), out.with_suffix(".svg")]
        for file in files:
            figure.savefig(file, dpi=150)
        plt.close(figure)
    return files


_PANELS = (
    ("Training reward", "mean of the rollouts", {"train/rollout/reward_mean": "reward"}),
    ("Entropy", "nats a token", {"train/entropy": "entropy"}),
    (
        "Bundle scores and tracked quantiles",
        "bundle score",
        {"train/riskpo/q_alpha": "q_alpha", "train/riskpo/score_mean": "mean score", "train/riskpo/q_beta": "q_beta"},
    ),
    (
        "Prompts without a difference",
        "share of the batch",
        {"train/signal/prompts_all_wrong": "all wrong", "train/signal/prompts_all_right": "all right"},
    ),
    ("Response length", "tokens", {"train/rollout/response_length_mean": "length"}),
)


def summary(runs: Sequence[Run]) -> str:
    """A table in plain text: Pass@k at the first and the last evaluation, and the gain.

    The gain's standard error takes the two evaluations as independent; on the same problems the true one is smaller.
    """
    rows = [("run", "held-out", "before", "after", "gain", "steps")]
    for run in runs:
        for (source, k), (curve, errors) in run.pass_at().items():
            before, after = curve.values[0], curve.values[-1]
            rows.append(
                (
                    run.name,
                    f"{source} pass@{k}",
                    _with_error(before, errors[0]),
                    _with_error(after, errors[-1]),
                    _with_error(after - before, hypot(errors[0], errors[-1]), sign="+"),
                    f"{curve.steps[0]} -> {curve.steps[-1]}",
                )
            )
    if len(rows) == 1:
        return "No Pass@k was logged: the run has no evaluation (--eval.dataset, --eval.steps)."
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _with_error(value: float, error: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" + ("" if np.isnan(error) else f" ± {error:.3f}")


def _read(home: Path) -> dict[str, Curve]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(home), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {}
    for tag in events.Tags()["scalars"]:
        latest = {event.step: event.value for event in sorted(events.Scalars(tag), key=lambda event: event.wall_time)}
        steps = sorted(latest)
        scalars[tag] = Curve(np.array(steps), np.array([latest[step] for step in steps]))
    return scalars


def _pass_at_panel(panel, runs: Sequence[Run]) -> None:
    sources = {source for run in runs for source, _ in run.pass_at()}
    series = [
        (run.name, f"pass@{k}" if len(sources) == 1 else f"{source} pass@{k}", curve, errors)
        for run in runs
        for (source, k), (curve, errors) in run.pass_at().items()
    ]
    _panel(panel, "Held-out Pass@k", "share solved (band: ± 1 standard error)", series, len(runs))


def _panel(panel, title: str, unit: str, series: list, n_runs: int) -> None:
    """One run: a colour a series. Several: a colour a run, a line style a series."""
    panel.set(title=title, xlabel="training step", ylabel=unit)
    if not series:
        panel.text(0.5, 0.5, "not logged", transform=panel.transAxes, ha="center", va="center", color="0.5")
        panel.set(xticks=[], yticks=[])
        return
    runs, labels = (list(dict.fromkeys(one[place] for one in series)) for place in (0, 1))
    for run, label, curve, errors in series:
        by_run, by_label = runs.index(run), labels.index(label)
        colour = _COLOURS[(by_run if n_runs > 1 else by_label) % len(_COLOURS)]
        marker = {"marker": "o", "markersize": 3} if errors is not None or len(curve.steps) < 3 else {}
        line = _LINES[by_label % len(_LINES)]
        panel.plot(curve.steps, curve.values, line, color=colour, linewidth=1.5, **marker)
        if errors is not None:
            band = curve.values - errors, curve.values + errors
            panel.fill_between(curve.steps, *band, color=colour, alpha=0.15, linewidth=0)
        if n_runs == 1 and len(labels) > 1:
            panel.plot([], [], line, color=colour, label=label)
    if n_runs > 1:
        for place, name in enumerate(runs):
            panel.plot([], [], "-", color=_COLOURS[place % len(_COLOURS)], label=name)
        for place, name in enumerate(labels if len(labels) > 1 else []):
            panel.plot([], [], _LINES[place % len(_LINES)], color="0.4", label=name)
    if n_runs > 1 or len(labels) > 1:
        panel.legend(frameon=False, fontsize=8)
