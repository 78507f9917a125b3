"""The metric that `--ckpt.best_metric_key` selects the best checkpoint by."""

from __future__ import annotations

from collections.abc import Mapping

from riskpo_openrlhf.integration.faults import RunFault

FLAG = "--ckpt.best_metric_key"


def without_eval_prefix(key: str, metrics: Mapping[str, float]) -> str:
    """Return the name by which OpenRLHF knows a metric: TensorBoard and docs/metrics.md put `eval/` before it."""
    plain = key.removeprefix("eval/")
    return plain if key not in metrics and plain in metrics else key


def unknown_metric(key: str, metrics: Mapping[str, float]) -> str:
    """Say that no metric of the evaluation has this name, and list those that it has."""
    return f"{FLAG} {key or '(not given)'} is none of the evaluation's metrics: {', '.join(sorted(metrics))}"


def require_known_metric(key: str | None, metrics: Mapping[str, float]) -> None:
    """Raise `RunFault` if the evaluation at the start has no metric of the given name."""
    if key and key != "none" and without_eval_prefix(key, metrics) not in metrics:
        raise RunFault(unknown_metric(key, metrics), f"Give {FLAG} one of these names, or none, or leave it out")
