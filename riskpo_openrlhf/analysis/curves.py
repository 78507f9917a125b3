"""Choose what each picture shows, as panels of series, and compute the gains from first to last. Draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from riskpo_openrlhf.analysis.evaluations import read_summaries
from riskpo_openrlhf.analysis.runs import Curve, Run, combine, eval_tag, split_label, stack
from riskpo_openrlhf.evaluation.intervals import Z95, over_seeds
from riskpo_openrlhf.evaluation.metrics import SHOWN_KS
from riskpo_openrlhf.tables import aligned, plus_minus

WIDEST = 20  # steps of the moving mean at most
STEP = "training step"
TAILS = (0, 0.3), (0.7, 1)  # levels at which Section 5 of the paper finds the log-probability monotone
_LOGPROB = "log-probability a token"


class Series(NamedTuple):
    """A line of a panel.

    Attributes:
        run: whose line it is.
        name: what it shows, "" if it is the run's only line in the panel.
        x, y: its points, [m].
        half: half of the 95 % interval, [m], drawn as a band; None if unknown.
        raw: the values that `y` is the moving mean of, [m], drawn pale; None if `y` is not smoothed.
    """

    run: str
    name: str
    x: np.ndarray
    y: np.ndarray
    half: np.ndarray | None = None
    raw: np.ndarray | None = None


@dataclass
class Panel:
    """A pair of axes: `levels` are dashed lines across it, `regions` are shaded intervals of x."""

    title: str
    unit: str
    series: list[Series] = field(default_factory=list)
    x_label: str = STEP
    missing: list[str] = field(default_factory=list)  # who did not log it, or not to the end
    levels: Sequence[float] = ()
    regions: Sequence[tuple[float, float]] = ()


Groups = Mapping[str, Sequence[Run]]


def panel(groups: Groups, title: str, unit: str, tags: Mapping[str, str] | str, window: int = 1) -> Panel:
    """Make a panel of `tags` (tag -> name, or one tag). `window` > 1 smooths training metrics, beside the raw ones."""
    made = Panel(title, unit)
    for label, runs in groups.items():
        named = {tags: ""} if isinstance(tags, str) else tags
        for tag, name in named.items():
            if found := combine(runs, tag, window):
                curve, half = found
                smoothed = tag.startswith("train/") and window > 1
                raw = combine(runs, tag)[0].values if smoothed else None
                made.series.append(Series(legend(label, runs), name, *curve, half, raw))
        made.missing += _missing(label, [[run.scalars[tag] for tag in named if tag in run.scalars] for run in runs])
    return made


def _missing(label: str, logged: Sequence[Sequence[Curve]]) -> list[str]:
    """Say which of a label's runs logged none of the curves, and which end before others."""
    ends = [max(curve.steps[-1] for curve in curves) for curves in logged if curves]
    if not ends:
        return [label]
    without, early = len(logged) - len(ends), sum(end < max(ends) for end in ends)
    return [
        f"{label}{when} by {number} of {len(logged)} seeds"
        for number, when in ((without, ""), (early, f" after step {min(ends)}"))
        if number
    ]


def default_window(runs: Sequence[Run]) -> int:
    """Choose the steps of the moving mean: a tenth of the longest run's, at most 20."""
    steps = (len(curve.steps) for run in runs for tag, curve in run.scalars.items() if tag.startswith("train/"))
    return min(WIDEST, max(1, max(steps, default=1) // 10))


def legend(label: str, runs: Sequence) -> str:
    return f"{label} ({len(runs)} seeds)" if len(runs) > 1 else label


def overview(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Show six panels to look at first. With many data sources or values of k, only Pass@1."""
    sources, ks = _sources(groups), _shown(groups)
    ks = ks if len(sources) * len(ks) <= 4 else [1]
    passes = {
        eval_tag(source, k): f"pass@{k}" if len(sources) == 1 else f"{source} pass@{k}"
        for source in sources
        for k in ks
    }
    quantiles = {"q_alpha": "q_alpha", "score_mean": "mean score", "q_beta": "q_beta"}
    scores = {f"train/riskpo/{tag}": name for tag, name in quantiles.items()}
    signal = {"train/signal/prompts_all_wrong": "all wrong", "train/signal/prompts_all_right": "all right"}
    first_row = [
        panel(groups, "Held-out Pass@k", "share solved", passes),
        panel(groups, "Training reward", "mean of the rollouts", "train/rollout/reward_mean", window),
        panel(groups, "Entropy", "nats a token", "train/entropy", window),
    ]
    second_row = [
        panel(groups, "Bundle scores and quantiles", "bundle score", scores, window),
        panel(groups, "Prompts without a difference", "share of the batch", signal, window),
        panel(groups, "Response length", "tokens", "train/rollout/response_length_mean", window),
    ]
    return [first_row, second_row]


def learning(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Show Figure 1: for each data source a row with Pass@n, n the largest k, and Avg@n."""
    return [[_at(groups, source, max(_ks(groups, source))), *_averages(groups, source)] for source in _sources(groups)]


def passk(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Show Figures 4 and 8: for each data source a row with Pass@k for k = 1, 8, 16, or up to the largest below 16."""
    most = max(SHOWN_KS)
    return [[_at(groups, source, k) for k in _shown(groups, source) if k <= most] for source in _sources(groups)]


def avgk(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Show Figure 7: Avg@n of every data source."""
    return _in_rows([one for source in _sources(groups) for one in _averages(groups, source)])


def dynamics(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Show Figure 5: mean reward, lower-tail RVaR, MVaR, entropy."""
    row = [
        panel(groups, "Mean reward", "mean of the rollouts", "train/rollout/reward_mean", window),
        panel(groups, "Lower-tail RVaR", "bundle score", "train/risk/rvar_lower", window),
        panel(groups, "MVaR", "bundle score", "train/risk/mvar", window),
        panel(groups, "Entropy", "nats a token", "train/entropy", window),
    ]
    return [row]


def profiles(groups: Groups, window: int = 1) -> list[list[Panel]]:
    """Show Figure 6: entropy, and Pass@1 of every data source."""
    entropy = panel(groups, "Entropy", "nats a token", "train/entropy", window)
    return _in_rows([entropy, *(_at(groups, source, 1) for source in _sources(groups))])


FIGURES: dict[str, Callable[[Groups, int], list[list[Panel]]]] = {
    figure.__name__: figure for figure in (overview, learning, passk, avgk, dynamics, profiles)
}


def logprob(specs: Sequence[str]) -> tuple[list[list[Panel]], list[dict]]:
    """Show Figures 3 and 9: log-probability by the mean reward of a question.

    Figure 3 is one panel of all questions, by the quantile level of the reward. Figure 9 is a panel a data source, by
    the reward itself. Several seeds are averaged bin by bin.

    Args:
        specs: as for `load_groups`, of folders that hold one evaluation each.

    Returns:
        The panels, and for each evaluation `{"evaluation", "lower", "upper"}`: the verdicts on Assumption 1's tails.

    Raises:
        ValueError: a folder holds no evaluation, or several, or none has a response with both verdict and
            log-probability.
    """
    everything = Panel("all questions", _LOGPROB, x_label="quantile level of the mean reward", regions=TAILS)
    panels, verdicts = {"": everything}, []
    for label, folders in map(split_label, specs):
        seeds: dict[str, list[list[dict]]] = {}
        for folder in folders:
            found = read_summaries(folder)
            if len(found) != 1:
                raise ValueError(f"{folder} holds {len(found)} finished evaluations (cli.evaluate); 1 is expected")
            (evaluation,) = found.values()
            measured = evaluation["logprob_by_reward"]
            tails = {tail: measured[f"{tail}_tail"]["verdict"] for tail in ("lower", "upper")}
            verdicts.append({"evaluation": label or str(folder), **tails})
            seeds.setdefault("", []).append(measured["bins"])
            for source, metrics in evaluation["sources"].items():
                seeds.setdefault(source, []).append(metrics["logprob_by_reward"]["bins_by_reward"])
        name = legend(label or Path(folders[0]).name, folders)
        for source, bins in seeds.items():
            if source not in panels:
                panels[source] = Panel(source, _LOGPROB, x_label="mean reward of the question")
            there = [one for one in bins if one]
            if there and (series := _bins(name, there)).x.size:
                panels[source].series.append(series)
            if len(there) < len(folders):
                by = f" by {len(folders) - len(there)} of {len(folders)} seeds" if there else ""
                panels[source].missing.append(name + by)
    drawn = [panel for panel in panels.values() if panel.series]
    if not drawn:
        raise ValueError(
            f"{' '.join(specs)}: no response has both a verdict and a log-probability, so there is nothing to draw: "
            "evaluate again without --no-logprobs, and see that the verifier gives verdicts"
        )
    return _in_rows(drawn), verdicts


def _bins(name: str, seeds: list[list[dict]]) -> Series:
    """Make points in the middle of the bins that all seeds have, with bands over seeds, or else over questions."""
    by_low = [{round(one["low"], 9): one for one in seed} for seed in seeds]
    bins = [[seed[low] for seed in by_low] for low in sorted(set.intersection(*map(set, by_low)))]
    values = np.array([[one["mean_logprob"] for one in same] for same in bins])
    mean, half = over_seeds(values, axis=1)
    if len(seeds) == 1:
        half = Z95 * np.array([np.nan if one["se"] is None else one["se"] for (one,) in bins])
    return Series(name, "", np.array([(same[0]["low"] + same[0]["high"]) / 2 for same in bins]), mean, half)


def gains(groups: Groups) -> list[dict]:
    """Compute Pass@k at the first and the last evaluation, and the gain, each with half of its 95 % interval.

    Over seeds the gain's interval is that of the seeds' own gains. For a single run it takes the two evaluations as
    independent; since they share their problems, the true interval is narrower.

    Returns:
        A row for each label, data source and k: `run`, `source`, `k`, `first_step` and `last_step`, which all runs
        that logged it have, `longest`, the last step of any, and `before`, `after` and `gain` with `…_ci95` beside
        them, NaN if unknown.
    """
    rows = []
    for label, runs in groups.items():
        for source in _sources({label: runs}):
            for k in _shown({label: runs}, source):
                tag = eval_tag(source, k)
                having = [run for run in runs if tag in run.scalars]
                steps, values = stack(having, tag)
                first, last = values[:, 0], values[:, -1]
                means, halves = over_seeds([first, last, last - first], axis=1)
                if len(having) == 1:
                    both = having[0].halves(tag)[[0, -1]]
                    halves = np.array([*both, np.hypot(*both)])
                some = f"{label} ({len(having)} of {len(runs)} seeds)"
                row = {"run": legend(label, runs) if len(having) == len(runs) else some, "source": source, "k": k}
                row |= {"first_step": int(steps[0]), "last_step": int(steps[-1])}
                row["longest"] = max(int(run.scalars[tag].steps[-1]) for run in having)
                for name, mean, half in zip(("before", "after", "gain"), means, halves, strict=True):
                    row |= {name: float(mean), f"{name}_ci95": float(half)}
                rows.append(row)
    return rows


def gains_table(rows: Sequence[dict]) -> str:
    """Format the rows of `gains` for people."""
    if not rows:
        return "No Pass@k was logged: the run has no evaluation (--eval.dataset, --eval.steps)."
    cells = [("run", "held-out", "before", "after", "gain", "steps")]
    for row in rows:
        numbers = (
            plus_minus(row[name], row[f"{name}_ci95"], sign=sign)
            for name, sign in (("before", ""), ("after", ""), ("gain", "+"))
        )
        steps = f"{row['first_step']} -> {row['last_step']}"
        cells.append((row["run"], f"{row['source']} pass@{row['k']}", *numbers, steps))
    notes = dict.fromkeys(
        f"\n{row['run']}, {row['source']}: step {row['last_step']} is the last that all have; the longest run reaches "
        f"{row['longest']}"
        for row in rows
        if row["longest"] > row["last_step"]
    )
    return aligned(cells, left=2) + "".join(notes)


def _sources(groups: Groups) -> list[str]:
    return sorted({source for runs in groups.values() for run in runs for source, _ in run.evaluated()})


def _ks(groups: Groups, source: str | None = None, metric: str = "pass") -> list[int]:
    found = {key for runs in groups.values() for run in runs for key in run.evaluated(metric)}
    return sorted({k for name, k in found if source in (None, name)})


def _shown(groups: Groups, source: str | None = None) -> list[int]:
    """Choose from the values of k that were logged: 1, 8, 16 and the largest."""
    ks = _ks(groups, source)
    return [k for k in ks if k in SHOWN_KS or k == ks[-1]]


def _at(groups: Groups, source: str, k: int) -> Panel:
    return panel(groups, f"{source}: Pass@{k}", "share solved", eval_tag(source, k))


def _averages(groups: Groups, source: str) -> list[Panel]:
    ks = _ks(groups, source, "avg")
    return [panel(groups, f"{source}: Avg@{k}", "share of right answers", eval_tag(source, k, "avg")) for k in ks]


def _in_rows(panels: list[Panel]) -> list[list[Panel]]:
    return [panels[start : start + 4] for start in range(0, len(panels), 4)]
