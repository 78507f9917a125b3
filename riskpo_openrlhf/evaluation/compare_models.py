"""Compare two models on the same problems: differences in Pass@k with paired bootstrap intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import stats

from riskpo_openrlhf.evaluation.metrics import correctness
from riskpo_openrlhf.evaluation.passk import pass_at_k
from riskpo_openrlhf.evaluation.problems import InputError
from riskpo_openrlhf.evaluation.samples import SAMPLES, read_samples, read_settings
from riskpo_openrlhf.evaluation.summary import sample_arrays
from riskpo_openrlhf.tables import aligned

RESAMPLES = 10_000
SAMPLING_FIELDS = ("temperature", "top_p", "max_new_tokens")


def bootstrap_means(values, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draw problems with replacement and return the means, `[resamples]`; `values` `[P]` holds a number a problem.

    Pass the differences between two models: each problem is then drawn for both, so its difficulty cancels.
    """
    values = np.asarray(values, dtype=float)
    drawn = stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, method="percentile", rng=seed, batch=max(1, 2**22 // values.size)
    )
    return drawn.bootstrap_distribution


def interval(means) -> tuple[float, float]:
    """Return the 95 % interval of bootstrap means, by their percentiles."""
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def compare(first: Path, second: Path, seed: int = 0) -> dict:
    """Compare two finished evaluations.

    Returns:
        `{"first", "second": models, "sources": {source: {"pass@k": {"first", "second", "difference", "low", "high"}}},
        "overall": likewise, "notes": [...]}`. `low` and `high` bound the 95 % interval of the difference. k = 1, 2,
        4 … and the number of samples. Pass@k is of the problems with k verdicts of both models; it is left out if
        fewer than half of them, or than 2, have these. Overall is the mean over data sources; its interval draws
        problems within each source.

    Raises:
        InputError: a folder holds no evaluation or an unfinished one, the two are of different problems, or
            fewer than half of the problems, or than 2, have a verdict of both models.
    """
    settings = [read_settings(folder) for folder in (first, second)]
    if settings[0]["problems"] != settings[1]["problems"]:
        raise InputError(f"{first} and {second} hold different problems: evaluate both models on the same --data")
    both = [_read(folder, setting) for folder, setting in zip((first, second), settings, strict=True)]
    sources, draws, notes = {}, {}, _notes(*settings)
    for number, source in enumerate(both[0]):
        right = [correctness(arrays[source]["score"]) for arrays in both]
        known = [np.isfinite(values).sum(axis=1) for values in right]
        counts = [np.nansum(values, axis=1).astype(int) for values in right]
        most = min(values.shape[1] for values in right)
        sources[source], left_out = {}, {}
        for k in sorted({2**i for i in range(most.bit_length())} | {most}):
            enough = np.min(known, axis=0) >= k
            if enough.sum() < max(2, len(enough) / 2):  # of fewer, it would be about the easy ones
                break
            left_out[k] = int((~enough).sum())
            values = [pass_at_k(n[enough], c[enough], k) for n, c in zip(known, counts, strict=True)]
            means = bootstrap_means(values[1] - values[0], seed=seed + number)
            sources[source][f"pass@{k}"] = _entry(values[0].mean(), values[1].mean(), means)
            draws[source, f"pass@{k}"] = means
        if not left_out:
            raise InputError(
                f"{source}: {enough.sum()} of {len(enough)} problems have a verdict of both models, and a comparison "
                "needs half of them, and 2 at least: if verdicts are missing (no verdict in the table of `evaluate`), "
                "repair the verifier or raise its time limit and evaluate again; else evaluate more problems"
            )
        if any(left_out.values()):
            numbers = ", ".join(f"{n} of pass@{k}" for k, n in left_out.items() if n)
            notes.append(f"{source}: of {len(known[0])} problems are left out, for want of verdicts: {numbers}")
    common = [name for name in next(iter(sources.values())) if all(name in entries for entries in sources.values())]
    overall = {
        name: _entry(
            *(np.mean([entries[name][side] for entries in sources.values()]) for side in ("first", "second")),
            np.mean([draws[source, name] for source in sources], axis=0),
        )
        for name in common
    }
    models = {"first": settings[0]["model"], "second": settings[1]["model"]}
    return {**models, "sources": sources, "overall": overall, "notes": notes}


def as_table(comparison: dict) -> str:
    """Format the comparison for people, in per cent, with a star where the interval excludes 0."""
    rows = [["", "", "first", "second", "difference", "95 % interval", ""]]
    groups = dict(comparison["sources"])
    if len(groups) > 1:
        groups["mean of sources"] = comparison["overall"]
    for source, entries in groups.items():
        for name, e in entries.items():
            first, second, difference, low, high = (
                f"{100 * e[field]:{sign}.1f}"
                for field, sign in (("first", ""), ("second", ""), ("difference", "+"), ("low", "+"), ("high", "+"))
            )
            star = "*" if e["low"] > 0 or e["high"] < 0 else ""
            rows.append([source, name, first, second, difference, f"{low} to {high}", star])
    head = f"first:  {comparison['first']}\nsecond: {comparison['second']}\n\n"
    return head + aligned(rows, left=2) + "".join(f"\nNote: {note}" for note in comparison["notes"])


def _entry(first: float, second: float, means: np.ndarray) -> dict[str, float]:
    values = {"first": float(first), "second": float(second), "difference": float(second - first)}
    return values | dict(zip(("low", "high"), interval(means), strict=True))


def _read(folder: Path, settings: dict) -> dict:
    if not (folder / SAMPLES).exists():
        raise InputError(f"{folder} holds no samples: finish that evaluation first")
    rows = {key: row for key, row, _ in read_samples(folder / SAMPLES)}
    wanted = sum(count * settings["sampling"][source]["n"] for source, count in settings["counts"].items())
    if len(rows) < wanted:
        raise InputError(f"{folder} has {len(rows)} of {wanted} samples: finish that evaluation first")
    return sample_arrays(rows.values())


def _notes(first: dict, second: dict) -> list[str]:
    notes = []
    for source, sampling in first["sampling"].items():
        for field in SAMPLING_FIELDS:
            one, other = sampling[field], second["sampling"][source][field]
            if one != other:
                notes.append(f"{source}: {field} is {one} for the first and {other} for the second")
    if first["reward"] != second["reward"]:
        notes.append(f"graded by {first['reward']} and {second['reward']}")
    return notes
