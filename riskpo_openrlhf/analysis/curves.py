"""Which curves each picture shows, as panels of series made from runs, and a before/after table. It draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path
from typing import NamedTuple

import numpy as np

from riskpo_openrlhf.analysis.evaluations import summaries
from riskpo_openrlhf.analysis.runs import Run, combine, eval_tag, split_label

SHOWN_KS = (1, 8, 16)
STEP = "training step"
TAILS = (0, 0.3), (0.7, 1)  # levels at which Section 5 of the paper finds the log-probability monotone
_LOGPROB = "log-probability a token"


class Series(NamedTuple):
    """A line: whose it is, what it shows beside others of the same panel ("" if it is the only one), its points [m]

    and the half width of its band [m] or None.
    """

    run: str
    name: str
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None


@dataclass
class Panel:
    """One pair of axes: `levels` are dashed lines across it, `regions` shaded stretches of x, by their names."""

    title: str
    unit: str
    series: list[Series] = field(default_factory=list)
    x_label: str = STEP
    missing: list[str] = field(default_factory=list)  # labels that logged nothing of it
    levels: Sequence[float] = ()
    regions: Sequence[tuple[float, float]] = ()


Groups = Mapping[str, Sequence[Run]]


def panel(groups: Groups, title: str, unit: str, tags: Mapping[str, str] | str, window: int = 1, **more) -> Panel:
    """A panel of `tags`, tag -> name, or of one tag."""
    made = Panel(title, unit, **more)
    for label, runs in groups.items():
        before = len(made.series)
        for tag, name in ({tags: ""} if isinstance(tags, str) else tags).items():
            if found := combine(runs, tag, window):
                made.series.append(Series(legend(label, runs), name, *found[0], found[1]))
        if len(made.series) == before:
            made.missing.append(label)
    return made


def legend(label: str, runs: Sequence) -> str:
    return f"{label} ({len(runs)} seeds)" if len(runs) > 1 else label


def overview(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """What to look at first: six panels. Of many data sources or k's, only Pass@1."""
    sources, ks = _sources(groups), _shown(groups)
    ks = ks if len(sources) * len(ks) <= 4 else [1]
    passes = {
        eval_tag(source, k): f"pass@{k}" if len(sources) == 1 else f"{source} pass@{k}"
        for source in sources
        for k in ks
    }
    quantiles = {"q_alpha": "q_alpha", "score_mean": "mean score", "q_beta": "q_beta"}
    signal = {"train/signal/prompts_all_wrong": "all wrong", "train/signal/prompts_all_right": "all right"}
    return [
        [
            panel(groups, "Held-out Pass@k", "share solved", passes),
            panel(groups, "Training reward", "mean of the rollouts", "train/rollout/reward_mean", window),
            panel(groups, "Entropy", "nats a token", "train/entropy", window),
        ],
        [
            panel(
                groups,
                "Bundle scores and quantiles",
                "bundle score",
                {f"train/riskpo/{tag}": name for tag, name in quantiles.items()},
                window,
            ),
            panel(groups, "Prompts without a difference", "share of the batch", signal, window),
            panel(groups, "Response length", "tokens", "train/rollout/response_length_mean", window),
        ],
    ]


def learning(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Figure 1: a row a data source, Pass@n with the largest n, and Avg@n."""
    return [[_at(groups, source, max(_ks(groups, source))), *_averages(groups, source)] for source in _sources(groups)]


def passk(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Figures 4 and 8: a row a data source, Pass@k for k = 1, 8, 16 and the largest."""
    return [[_at(groups, source, k) for k in _shown(groups, source)] for source in _sources(groups)]


def avgk(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Figure 7: Avg@n of every data source."""
    return _in_rows([one for source in _sources(groups) for one in _averages(groups, source)])


def dynamics(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Figure 5: mean reward, lower-tail RVaR, MVaR, entropy."""
    return [
        [
            panel(groups, "Mean reward", "mean of the rollouts", "train/rollout/reward_mean", window),
            panel(groups, "Lower-tail RVaR", "bundle score", "train/risk/rvar_lower", window),
            panel(groups, "MVaR", "bundle score", "train/risk/mvar", window),
            panel(groups, "Entropy", "nats a token", "train/entropy", window),
        ]
    ]


def profiles(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Figure 6: entropy, and Pass@1 of every data source."""
    entropy = panel(groups, "Entropy", "nats a token", "train/entropy", window)
    return _in_rows([entropy, *(_at(groups, source, 1) for source in _sources(groups))])


FIGURES: dict[str, Callable[[Groups, int], list[list[Panel]]]] = {
    figure.__name__: figure for figure in (overview, learning, passk, avgk, dynamics, profiles)
}


def logprob(specs: Sequence[str]) -> tuple[list[list[Panel]], str]:
    """Figure 3, log-probability by the quantile level of a question's mean reward, of all questions; and Figure 9, by

    the reward itself, a panel a data source. `specs` as for `load_groups`, of folders that hold one evaluation each;
    several seeds are averaged bin by bin. The text says for each evaluation whether Assumption 1 holds in the tails.

    Raises:
        ValueError: a folder holds no evaluation, or several.
    """
    everything = Panel("all questions", _LOGPROB, x_label="quantile level of the mean reward", regions=TAILS)
    panels, verdicts = {"": everything}, []
    for label, folders in map(split_label, specs):
        seeds: dict[str, list[list[dict]]] = {}
        for folder in folders:
            found = summaries(folder)
            if len(found) != 1:
                raise ValueError(f"{folder} holds {len(found)} finished evaluations (cli.evaluate); 1 is expected")
            (evaluation,) = found.values()
            measured = evaluation["logprob_by_reward"]
            tails = (f"{tail} tail {measured[f'{tail}_tail']['verdict']}" for tail in ("lower", "upper"))
            verdicts.append(f"{label or folder}: Assumption 1, {', '.join(tails)}")
            seeds.setdefault("", []).append(measured["bins"])
            for source, metrics in evaluation["sources"].items():
                seeds.setdefault(source, []).append(metrics["logprob_by_reward"]["bins_by_reward"])
        name = legend(label or Path(folders[0]).name, folders)
        for source, bins in seeds.items():
            if source not in panels:
                panels[source] = Panel(source, _LOGPROB, x_label="mean reward of the question")
            panels[source].series.append(_bins(name, bins))
    return _in_rows(list(panels.values())), "\n".join(verdicts)


def _bins(name: str, seeds: list[list[dict]]) -> Series:
    """Points in the middle of the bins that all seeds have; errors over seeds, or over a single one's questions."""
    by_low = [{one["low"]: one for one in seed} for seed in seeds]
    bins = [[seed[low] for seed in by_low] for low in sorted(set.intersection(*map(set, by_low)))]
    values = np.array([[one["mean_logprob"] for one in same] for same in bins])
    if len(seeds) > 1:
        error = values.std(1, ddof=1) / len(seeds) ** 0.5
    else:
        error = np.array([np.nan if one["se"] is None else one["se"] for (one,) in bins])
    return Series(name, "", np.array([(same[0]["low"] + same[0]["high"]) / 2 for same in bins]), values.mean(1), error)


def summary(groups: Groups) -> str:
    """A table in plain text: Pass@k at the first and the last evaluation, and the gain.

    The gain's standard error takes the two evaluations as independent; on the same problems the true one is smaller.
    """
    rows = [("run", "held-out", "before", "after", "gain", "steps")]
    for label, runs in groups.items():
        for source in _sources({label: runs}):
            for k in _shown({label: runs}, source):
                if not (found := combine(runs, eval_tag(source, k))):
                    continue
                (steps, values), errors = found
                before, after = ((values[i], np.nan if errors is None else errors[i]) for i in (0, -1))
                gain = after[0] - before[0], hypot(before[1], after[1])
                cells = _with_error(*before), _with_error(*after), _with_error(*gain, sign="+")
                rows.append((legend(label, runs), f"{source} pass@{k}", *cells, f"{steps[0]} -> {steps[-1]}"))
    if len(rows) == 1:
        return "No Pass@k was logged: the run has no evaluation (--eval.dataset, --eval.steps)."
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _with_error(value: float, error: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" + ("" if np.isnan(error) else f" ± {error:.3f}")


def _sources(groups: Groups) -> list[str]:
    return sorted({source for runs in groups.values() for run in runs for source, _ in run.evaluated()})


def _ks(groups: Groups, source: str | None = None, metric: str = "pass") -> list[int]:
    found = {key for runs in groups.values() for run in runs for key in run.evaluated(metric)}
    return sorted({k for name, k in found if source in (None, name)})


def _shown(groups: Groups, source: str | None = None) -> list[int]:
    """Of the k's logged: 1, 8, 16 and the largest."""
    ks = _ks(groups, source)
    return [k for k in ks if k in SHOWN_KS or k == ks[-1]]


def _at(groups: Groups, source: str, k: int) -> Panel:
    return panel(groups, f"{source}: Pass@{k}", "share solved", eval_tag(source, k))


def _averages(groups: Groups, source: str) -> list[Panel]:
    ks = _ks(groups, source, "avg")
    return [panel(groups, f"{source}: Avg@{k}", "share of right answers", eval_tag(source, k, "avg")) for k in ks]


def _in_rows(panels: list[Panel]) -> list[list[Panel]]:
    return [panels[start : start + 4] for start in range(0, len(panels), 4)]
