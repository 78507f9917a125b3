"""Compute the metrics of OpenRLHF's evaluation during training."""

from __future__ import annotations

from collections import defaultdict, deque
from hashlib import blake2b

import numpy as np
import torch

from riskpo_openrlhf.evaluation.metrics import correctness, source_metrics

NO_ANSWER = "verifier/no_answer"  # in the reward function's `extra_logs`


def evaluation_metrics(samples, eval_dataloader, n: int) -> dict[str, float]:
    """Compute `{source}/{metric}` for the metrics of `metrics.source_metrics`, and `{source}/no_answer` if logged.

    Args:
        samples: OpenRLHF's evaluation experiences, the n responses to a problem together. A response is right if its
            raw score is positive; one without a verdict is left out of Pass@k and Avg@n.
        eval_dataloader: OpenRLHF's. A problem is a row of the data. If rows of several sources are equal, each row
            takes one group of the responses.
        n: responses a problem.
    """
    sources_of = defaultdict(deque)
    for sources, prompts, labels, images in eval_dataloader:
        for source, *row in zip(sources, prompts, labels, images, strict=True):
            sources_of[content_text(row)].append(source)
    groups = defaultdict(list)
    for start in range(0, len(samples) - n + 1, n):
        group = samples[start : start + n]
        waiting = sources_of[content_text([group[0].prompts[0], group[0].labels[0], group[0].images[0]])]
        groups[waiting.popleft() if waiting else "unknown"].append(group)
    metrics = {}
    for source, problems in groups.items():
        scores = _table(problems, lambda s: s.rewards if s.scores is None else s.scores)
        tokens, cut = _table(problems, lambda s: s.response_length), _table(problems, lambda s: s.truncated)
        found = source_metrics(correctness(np.where(np.isfinite(scores), scores, np.nan)), tokens, cut)
        if any(NO_ANSWER in sample.info for group in problems for sample in group):  # a failed sample has none
            found["no_answer"] = float(_table(problems, lambda s: s.info.get(NO_ANSWER, torch.zeros(1))).mean())
        metrics.update({f"{source}/{name}": value for name, value in found.items()})
    return metrics


def content_text(value) -> str:
    """Write a value so that equal content gives equal texts: `repr`, but of an image, array or bytes by a hash.

    The `repr` of a picture holds its address in memory, which differs from copy to copy and from run to run.
    """
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(content_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {content_text(one)}' for key, one in value.items())}}}"
    if isinstance(value, torch.Tensor):
        value = value.numpy(force=True)
    if isinstance(value, (bytes, bytearray)):
        return f"bytes {blake2b(value, digest_size=16).hexdigest()}"
    if hasattr(value, "tobytes"):  # a picture of PIL, an array
        shape = [str(getattr(value, name, "")) for name in ("mode", "size", "dtype", "shape")]
        return f"{shape} {blake2b(value.tobytes(), digest_size=16).hexdigest()}"
    return repr(value)


def _table(problems: list, field) -> np.ndarray:
    """Arrange one number a sample as `[P, n]`; OpenRLHF keeps it as a tensor with one element."""
    return torch.stack([torch.cat([field(s).view(-1) for s in group]).double() for group in problems]).numpy()
