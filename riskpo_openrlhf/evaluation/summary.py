"""Sum up the samples of an evaluation: metrics by data source, their mean, and a table for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from riskpo_openrlhf.evaluation.intervals import Z95
from riskpo_openrlhf.evaluation.logprob import logprob_by_reward
from riskpo_openrlhf.evaluation.metrics import SHOWN_KS, correctness, ks_of, source_metrics
from riskpo_openrlhf.tables import aligned, plus_minus
from riskpo_openrlhf.verifiers import STATUSES

FEWER = "\n*: a mean over fewer problems, those with at least k verdicts; not to be compared with its neighbours"
PLUS_MINUS = "±: half of the 95 % interval over problems"


def sample_arrays(rows: Iterable[dict]) -> dict[str, dict[str, np.ndarray]]:
    """Arrange samples as arrays `[P, n]` by data source.

    Returns:
        Data source -> `score` (NaN without a verdict), `tokens`, `truncated` and `logprob`, all NaN where a sample is
        missing; `status` (text); `ids`, the P problems in order.
    """
    by_source: dict[str, dict[str, dict[int, dict]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        by_source[row["datasource"]][row["id"]][row["sample"]] = row
    result = {}
    for source, problems in sorted(by_source.items()):
        ids = sorted(problems)
        n = 1 + max(sample for samples in problems.values() for sample in samples)
        arrays = {name: np.full((len(ids), n), np.nan) for name in ("score", "tokens", "truncated", "logprob")}
        arrays["status"] = np.full((len(ids), n), "", dtype=object)
        for i, name in enumerate(ids):
            for j, row in problems[name].items():
                for field, values in arrays.items():
                    values[i, j] = np.nan if row[field] is None else row[field]
        result[source] = {**arrays, "ids": np.array(ids)}
    return result


def summarise(rows: Iterable[dict]) -> dict:
    """Compute the summary of an evaluation from its samples.

    Returns:
        `sources`: for each data source its metrics, counts, the share of each status, `logprob_by_reward`, and
        `problems_at`: k -> of how many problems Pass@k is, those with at least k verdicts.
        `overall`: Pass@k and Avg@n as means over data sources. `logprob_by_reward`: of all problems together.
    """
    sources, problems = {}, []
    for source, arrays in sample_arrays(rows).items():
        there = np.isfinite(arrays["tokens"])
        metrics = source_metrics(correctness(arrays["score"]), arrays["tokens"], arrays["truncated"])
        for status in STATUSES[1:]:
            metrics[status] = float((arrays["status"][there] == status).mean())
        # [P, 2]: a problem's mean score and mean log-probability, over the samples that have both
        pairs = np.stack([arrays["score"], arrays["logprob"]], axis=-1)
        pairs[np.isnan(pairs).any(axis=-1)] = np.nan
        pairs = np.nanmean(pairs[np.isfinite(pairs).any(axis=(1, 2))], axis=1)
        problems.append(pairs)
        counts = {"problems": len(arrays["ids"]), "n": there.shape[1], "samples": int(there.sum())}
        verdicts = np.isfinite(arrays["score"]).sum(axis=1)
        at = {str(k): int((verdicts >= k).sum()) for k in ks_of(metrics)}
        sources[source] = {**counts, **metrics, "problems_at": at, "logprob_by_reward": logprob_by_reward(*pairs.T)}
    by_reward = logprob_by_reward(*np.concatenate(problems).T)
    return {"sources": sources, "overall": _overall(sources), "logprob_by_reward": by_reward}


def unreadable(summary: dict) -> dict[str, str]:
    """Explain each data source in which the verifier could not read a single response.

    Returns:
        Data source -> what was found, the likely cause and the cure. Empty if every source has a response with status
        `ok`, right or wrong.
    """
    found = {}
    for source, metrics in summary["sources"].items():
        shares = {status: metrics[status] for status in STATUSES[1:]}
        if sum(shares.values()) < 1 - 1e-9:
            continue
        status = max(shares, key=shares.__getitem__)
        if status == "no_answer" and metrics["truncated"] > 0.5:
            status = "truncated"
            shares[status] = metrics[status]
        share = f"{shares[status]:.0%} {status.replace('_', ' ')}"
        found[source] = (
            f"{source}: not one of {metrics['samples']} responses could be read ({share}). {_CURES[status]}"
        )
    return found


_CURES = {
    "no_answer": (
        "Likely cause: the prompt does not ask for the form that the verifier reads (mathematics: \\boxed{…}), or "
        "training used another reward function. Cure: give the prompts of training (--apply_chat_template), or "
        "training's reward function (--reward FILE)"
    ),
    "truncated": "Likely cause: the token limit cut the responses before their answer. Cure: raise --max_new_tokens",
    "unparsable": (
        "Likely cause: the answers are of another kind than the labels' verifier expects. Cure: name the right "
        "verifier in the labels (prepare_data), or give training's reward function (--reward FILE)"
    ),
    "timeout": "Likely cause: the verifier's time limit is too short. Cure: raise RISKPO_VERIFIER_SECONDS",
    "error": (
        "Likely cause: the reward function fails on these labels. Cure: correct --reward, then run the same command: "
        "it makes these samples again"
    ),
}


def _overall(sources: dict[str, dict]) -> dict[str, float]:
    """Average over data sources the metrics that all have. Standard errors are those of independent means."""
    common = set.intersection(*(set(metrics) for metrics in sources.values()))
    overall = {}
    for name in next(iter(sources.values())):
        if name in common and name.startswith(("pass@", "avg@")):
            values = np.array([metrics[name] for metrics in sources.values()])
            mean = np.sqrt((values**2).sum()) / values.size if name.endswith("_se") else values.mean()
            overall[name] = float(mean)
    return overall


def as_table(summary: dict) -> str:
    """Format the summary for people: a line a data source, Pass@k in per cent, ± half of its 95 % interval.

    A Pass@k that is of other problems than its neighbour is marked.
    """
    sources = summary["sources"]
    ks = sorted({k for metrics in sources.values() for k in ks_of(metrics)})
    ks = [k for k in ks if k in SHOWN_KS or k == ks[-1]]
    rows = [["", "problems", "n", *(f"pass@{k} %" for k in ks), "tokens", "truncated", "no answer", "no verdict"]]
    for source, metrics in sources.items():
        shares = (metrics[name] for name in ("truncated", "no_answer", "verifier_error"))
        counts = [source, str(metrics["problems"]), str(metrics["n"])]
        cells = [f"{metrics['response_length']:.0f}", *(f"{100 * share:.1f} %" for share in shares)]
        rows.append([*counts, *(percent(metrics, k) + _of_fewer(metrics, k) for k in ks), *cells])
    if len(sources) > 1:
        overall = summary["overall"]
        marks = ["*" * any(_of_fewer(metrics, k) for metrics in sources.values()) for k in ks]
        means = [percent(overall, k) + mark * (f"pass@{k}" in overall) for k, mark in zip(ks, marks, strict=True)]
        rows.append(["mean of sources", "", "", *means, "", "", "", ""])
    fewer = any(_of_fewer(metrics, k) for metrics in sources.values() for k in ks)
    return aligned(rows) + FEWER * fewer


def _of_fewer(metrics: dict, k: int) -> str:
    """Mark a Pass@k that is of fewer problems than the source has, with their number."""
    problems = metrics["problems_at"].get(str(k), 0)
    return f" * of {problems}" if 0 < problems < metrics["problems"] else ""


def percent(metrics: dict, k: int) -> str:
    """Format Pass@k in per cent ± half of its 95 % interval; a dash if it is not known, or read as null."""
    value, error = (metrics.get(name) for name in (f"pass@{k}", f"pass@{k}_se"))
    return plus_minus(None if value is None else 100 * value, None if error is None else 100 * Z95 * error, 1)
