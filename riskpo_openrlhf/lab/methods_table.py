"""Keep the runs of several methods in one small file, and compare the methods in tables.

A record holds a run's method, learning rate, seed and a few curves, in one line of JSON. All tables are computed from
such a file, which is small enough to be published with the results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean

import numpy as np

from riskpo_openrlhf.analysis.curves import Panel, Series, default_window, legend, panel
from riskpo_openrlhf.analysis.runs import Curve, Run, combine
from riskpo_openrlhf.evaluation.intervals import Interval, interval
from riskpo_openrlhf.lab.paired import at_end, common_level, differences
from riskpo_openrlhf.tables import plus_minus

# Logged at every training step, with noise. Only their means between two evaluations are kept.
KEPT_TRAIN = ("entropy", "rollout/response_length_mean", "risk/rvar_lower", "risk/mvar", "signal/prompts_all_wrong",
              "riskpo/q_alpha", "riskpo/q_beta", "actor_grad_norm", "ppo_clip_ratio", "rollout/num_samples",
              "riskpo/advantage_mean")  # fmt: skip
CAPTION = "Means over seeds; bands are 95 % intervals."  # of `pictures`
LABEL = 36  # characters of a method's name in a picture
KEPT_EVAL = re.compile(r"(eval|heldout)/[^/]+/(pass@\d+|entropy|response_length|truncated|no_answer)$")


@dataclass(frozen=True)
class Record:
    """One finished run. `curves` holds `[steps, values]` by TensorBoard tag."""

    method: str
    rate: str
    seed: int
    steps: int
    model: str
    seconds: float = 0.0
    curves: dict[str, list[list[float]]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        return self.method, self.rate, self.seed, self.steps, self.model

    def run(self) -> Run:
        scalars = {tag: Curve(np.array(s), np.array(v, float)) for tag, (s, v) in self.curves.items()}
        return Run(self.method, scalars)


def curves_of(run: Run) -> dict[str, list[list[float]]]:
    """Select the curves to keep: evaluations unchanged, training metrics as means between two evaluations."""
    kept = {tag: curve for tag, curve in run.scalars.items() if KEPT_EVAL.match(tag)}
    edges = [*max((curve.steps for curve in kept.values()), key=len, default=[]), np.inf]
    for name in KEPT_TRAIN:
        curve = run.scalars.get(f"train/{name}")
        if curve is None:
            continue
        between = [(curve.steps > low) & (curve.steps <= high) for low, high in zip(edges, edges[1:], strict=False)]
        parts = [(curve.steps[inside].mean(), curve.values[inside].mean()) for inside in between if inside.any()]
        if parts:
            kept[f"train/{name}"] = Curve(*map(np.array, zip(*parts, strict=True)))
    return {
        tag: [[round(float(step), 1) for step in curve.steps], [float(f"{value:.5g}") for value in curve.values]]
        for tag, curve in sorted(kept.items())
    }


def read_records(file: Path) -> dict[tuple, Record]:
    """Read records by their keys. Of two with the same key the later counts. An incomplete last line is skipped."""
    found: dict[tuple, Record] = {}
    lines = file.read_text().splitlines() if file.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = Record(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            if number < len(lines):
                raise ValueError(f"{file}, line {number} is no record of a run: {error}") from error
        else:
            found[record.key] = record
    return found


def append_record(file: Path, record: Record) -> None:
    """Add a record to the file, after removing an incomplete last line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+b") as out:
        out.seek(0)
        out.truncate(out.read().rfind(b"\n") + 1)
        out.write(json.dumps(asdict(record), separators=(",", ":")).encode() + b"\n")


def best_rate(records: Iterable[Record], tag: str) -> str | None:
    """Return the learning rate whose runs have the highest mean of `tag` at their ends."""
    finals: dict[str, list[float]] = {}
    for record in records:
        finals.setdefault(record.rate, []).append(at_end(record.run().scalars[tag]))
    return max(finals, key=lambda rate: mean(finals[rate]), default=None)


def text(found: Interval, digits: int = 3, sign: str = "+") -> str:
    """Format an interval over seeds; nothing for one of no seed."""
    return plus_minus(found.mean, found.half, digits, sign) + " (one seed)" * (found.n == 1) if found.n else ""


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a Markdown table; the first row is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def tables(
    methods: dict[str, Sequence[Record]],
    baseline: str,
    columns: dict[str, str],
    match: str,
    levels: Sequence[float] = (),
) -> str:
    """Write Markdown tables: methods at their ends, and versus the baseline at the ends and at equal `match`.

    Args:
        methods: label -> its runs, one for each seed, all at one learning rate.
        columns: heading -> tag.
        levels: values of `match` to compare at, one table each, with the seeds in which both runs reach it. Default:
            the highest value that both runs of a pair reach.

    Differences are taken between runs of one seed. ± is a 95 % interval over seeds (Student's t).
    """
    runs = {label: {record.seed: record.run() for record in records} for label, records in methods.items()}
    rates = {label: records[0].rate for label, records in methods.items() if records}
    titles = list(columns)
    rows = [["method", "rate", "seeds", *titles]]
    for label, by_seed in runs.items():
        curves = [[run.scalars[tag] for run in by_seed.values() if tag in run.scalars] for tag in columns.values()]
        ends = [interval([at_end(curve) for curve in each]) for each in curves]
        cells = [rates[label], str(len(by_seed)), *(text(end, sign="") for end in ends)] if by_seed else []
        rows.append([label, *(cells or ["no finished run"])])
    lines = ["At the end:", "", markdown(rows)]
    at_levels = [(f"at Pass@1 = {level:g}", True, level) for level in levels]
    for title, matched, level in (("at the end", False, None), *(at_levels or [("at matched Pass@1", True, None)])):
        told = {heading: tag for heading, tag in columns.items() if not (matched and tag == match)}
        rows = [["method", *(["Pass@1", "seeds", "steps"] if matched else []), *told]]
        for label, by_seed in runs.items():
            pairs = [(by_seed[seed], runs[baseline][seed]) for seed in sorted(by_seed.keys() & runs[baseline].keys())]
            if label == baseline or not pairs:
                continue
            found, cells = differences(pairs, list(told.values()), match if matched else None, level), []
            if matched:
                mean_level = level or mean(common_level(pair, match) for pair in pairs)
                cells = [f"{mean_level:.3f}", str(found["steps"].n), text(found["steps"], 0)]
            rows.append([label, *cells, *(text(found[tag]) if tag in found else "" for tag in told.values())])
        lines += ["", f"Versus {baseline}, {title}:", "", markdown(rows)]
    return "\n".join(lines)


def pictures(methods: dict[str, Sequence[Record]], source: str, entropy: str, k: int = 16) -> list[list[Panel]]:
    """Draw Pass@1, Pass@k, entropy, lower RVaR and MVaR over training, and Pass@k against Pass@1.

    `source` is the part of the tags before `/pass@k`; `entropy` is a tag.
    """
    groups = {
        label if len(label) <= LABEL else f"{number}: {label[: LABEL - 4]}…": [record.run() for record in records]
        for number, (label, records) in enumerate(methods.items(), start=1)  # two long ones may begin alike
        if records
    }
    first, kth = f"{source}/pass@1", f"{source}/pass@{k}"
    window = default_window([run for runs in groups.values() for run in runs])
    way = Panel(f"Pass@{k} at equal Pass@1", f"Pass@{k}", x_label="Pass@1")
    for label, runs in groups.items():
        (x, _), (y, _) = combine(runs, first), combine(runs, kth)
        way.series.append(Series(legend(label, runs), "", x.values, y.values))
    return [
        [
            panel(groups, "Held-out Pass@1", "share solved", first),
            panel(groups, f"Held-out Pass@{k}", "share solved", kth),
        ],
        [panel(groups, "Entropy", "nats a token", entropy), way],
        [  # with the entropy: Figure 5 of arXiv:2510.00911
            panel(groups, "Lower-tail RVaR of bundles", "score", "train/risk/rvar_lower", window),
            panel(groups, "MVaR of bundles", "score", "train/risk/mvar", window),
        ],
    ]
