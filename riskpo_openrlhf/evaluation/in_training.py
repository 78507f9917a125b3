"""Unbiased Pass@k of OpenRLHF's evaluation samples, during training."""

from __future__ import annotations

from collections import defaultdict

import torch

from riskpo_openrlhf.evaluation.passk import pass_at_k_summary


def pass_at_k_metrics(samples, eval_dataloader, n: int) -> dict[str, float]:
    """`{source}/pass@k` for k = 1, 2, 4 ... n and its standard error over problems, `{source}/pass@k_se`.

    `samples`: OpenRLHF's evaluation experiences, the n responses of a problem together; a response is right when its
    raw score is positive, and one without a verdict is left out. A problem is its prompt and its label.
    """
    source_of = {
        (prompt, repr(label)): source
        for sources, prompts, labels, _ in eval_dataloader
        for source, prompt, label in zip(sources, prompts, labels, strict=True)
    }
    groups = defaultdict(list)
    for start in range(0, len(samples) - n + 1, n):
        problem = (samples[start].prompts[0], repr(samples[start].labels[0]))
        group = samples[start : start + n]
        scores = torch.cat([(s.rewards if s.scores is None else s.scores).view(-1) for s in group]).double()
        right = torch.where(scores.isfinite(), (scores > 0).double(), torch.nan)
        groups[source_of.get(problem, "unknown")].append(right)
    ks = sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n})
    metrics = {}
    for source, right in groups.items():
        right = torch.stack(right)
        most = int(right.isfinite().sum(1).max())  # a k that no problem has verdicts enough for is left out
        for k, (mean, error) in pass_at_k_summary(right.numpy(), [k for k in ks if k <= most]).items():
            metrics[f"{source}/pass@{k}"], metrics[f"{source}/pass@{k}_se"] = float(mean), float(error)
    return metrics
