"""Metrics of an evaluation, by data source: the same numbers in training and on its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from riskpo_openrlhf.evaluation.logprob import logprob_by_reward
from riskpo_openrlhf.evaluation.passk import pass_at_k_summary
from riskpo_openrlhf.verifiers import STATUSES

SHOWN_KS = (1, 8, 16)


def source_metrics(correct, tokens, truncated) -> dict[str, float]:
    """The metrics of one data source, all of them means.

    Args:
        correct: `[P, n]`, 1 right, 0 wrong, NaN without a verdict.
        tokens: `[P, n]`, lengths of the responses; NaN where there is none.
        truncated: `[P, n]`, 1 where the limit of tokens cut a response.

    Returns:
        `pass@k` for k = 1, 2, 4 … n and `avg@n`, each with its standard error over problems, `…_se` (a k that no
        problem has verdicts enough for is left out); `response_length`, `truncated` and `verifier_error` (the share
        without a verdict) over responses.
    """
    correct, tokens, truncated = (np.asarray(values, dtype=float) for values in (correct, tokens, truncated))
    n = correct.shape[1]
    most = int(np.isfinite(correct).sum(axis=1).max())
    ks = sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n})
    metrics = {}
    for k, (mean, error) in pass_at_k_summary(correct, [k for k in ks if k <= most]).items():
        metrics[f"pass@{k}"], metrics[f"pass@{k}_se"] = mean, error
    if most:  # the mean over a problem's responses, then over problems: Pass@1 by its other name
        metrics[f"avg@{n}"], metrics[f"avg@{n}_se"] = metrics["pass@1"], metrics["pass@1_se"]
    there = np.isfinite(tokens)
    metrics["response_length"] = float(tokens[there].mean())
    metrics["truncated"] = float(truncated[there].mean())
    metrics["verifier_error"] = float(np.isnan(correct[there]).mean())
    return metrics


def tables(rows: Iterable[dict]) -> dict[str, dict[str, np.ndarray]]:
    """Data source -> arrays `[P, n]` of its samples: `score` (NaN without a verdict), `tokens`, `truncated`,
    `logprob`, all NaN where a sample is missing, `status` (text), and `ids`, the P problems in order."""
    by_source: dict[str, dict[str, dict[int, dict]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        by_source[row["datasource"]][row["id"]][row["sample"]] = row
    result = {}
    for source, problems in sorted(by_source.items()):
        ids = sorted(problems)
        n = 1 + max(sample for samples in problems.values() for sample in samples)
        table = {name: np.full((len(ids), n), np.nan) for name in ("score", "tokens", "truncated", "logprob")}
        table["status"] = np.full((len(ids), n), "", dtype=object)
        for i, name in enumerate(ids):
            for j, row in problems[name].items():
                for field, values in table.items():
                    values[i, j] = np.nan if row[field] is None else row[field]
        result[source] = {**table, "ids": np.array(ids)}
    return result


def correctness(score: np.ndarray) -> np.ndarray:
    """1 where a score is over 0, 0 where it is not, NaN without a verdict."""
    return np.where(np.isnan(score), np.nan, score > 0)


def summarise(rows: Iterable[dict]) -> dict:
    """`sources`: of each data source the metrics, counts, shares of each status and `logprob_by_reward`; `overall`:
    Pass@k as the mean over data sources; `logprob_by_reward`: of all problems together."""
    sources, problems = {}, []
    for source, table in tables(rows).items():
        there = np.isfinite(table["tokens"])
        metrics = source_metrics(correctness(table["score"]), table["tokens"], table["truncated"])
        for status in STATUSES[1:]:
            metrics[status] = float((table["status"][there] == status).mean())
        # [P, 2]: a problem's mean score and mean log-probability, over the samples that have both
        pairs = np.stack([table["score"], table["logprob"]], axis=-1)
        pairs[np.isnan(pairs).any(axis=-1)] = np.nan
        pairs = np.nanmean(pairs[np.isfinite(pairs).any(axis=(1, 2))], axis=1)
        problems.append(pairs)
        counts = {"problems": len(table["ids"]), "n": there.shape[1], "samples": int(there.sum())}
        sources[source] = {**counts, **metrics, "logprob_by_reward": logprob_by_reward(*pairs.T)}
    by_reward = logprob_by_reward(*np.concatenate(problems).T)
    return {"sources": sources, "overall": _overall(sources), "logprob_by_reward": by_reward}


def _overall(sources: dict[str, dict]) -> dict[str, float]:
    """Mean over data sources of the metrics that all have; the standard error of independent means."""
    common = set.intersection(*(set(metrics) for metrics in sources.values()))
    overall = {}
    for name in next(iter(sources.values())):
        if name in common and name.startswith(("pass@", "avg@")):
            values = np.array([metrics[name] for metrics in sources.values()])
            mean = np.sqrt((values**2).sum()) / values.size if name.endswith("_se") else values.mean()
            overall[name] = float(mean)
    return overall


def as_table(summary: dict) -> str:
    """The summary for people: a line for each data source, Pass@k in per cent with its standard error."""
    sources = summary["sources"]
    ks = sorted({int(k) for m in sources.values() for k in (name[5:] for name in m if "pass@" in name) if k.isdigit()})
    ks = [k for k in ks if k in SHOWN_KS or k == ks[-1]]
    lines = [["", "problems", "n", *(f"pass@{k}" for k in ks), "tokens", "truncated", "no answer", "no verdict"]]
    for source, metrics in sources.items():
        shares = (metrics[name] for name in ("truncated", "no_answer", "verifier_error"))
        counts = [source, str(metrics["problems"]), str(metrics["n"])]
        cells = [f"{metrics['response_length']:.0f}", *(f"{100 * share:.1f} %" for share in shares)]
        lines.append([*counts, *(_percent(metrics, k) for k in ks), *cells])
    if len(sources) > 1:
        overall = summary["overall"]
        lines.append(["mean of sources", "", "", *(_percent(overall, k) for k in ks), "", "", "", ""])
    return aligned(lines)


def aligned(lines: list[list[str]]) -> str:
    """Rows of cells as columns of equal width, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _percent(metrics: dict, k: int) -> str:
    if f"pass@{k}" not in metrics:
        return "-"
    return f"{100 * metrics[f'pass@{k}']:.1f} ± {100 * metrics[f'pass@{k}_se']:.1f}"
