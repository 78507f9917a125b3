"""Policy losses whose ratio or product is one of the whole response: Eq. 3, GMPO and GPG.

Each takes `log_probs`, `old_log_probs`, `advantages`, `mask` [N, T] and returns a loss for each token; a response's
loss is the mean over its tokens. Padding never enters, whatever it holds; a response without tokens has loss 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_RATIO = 10.0  # the mean log ratio of a response is clamped to +-10: beyond, its gradient is 0, never inf


@dataclass
class PolicyLossTerms:
    """A loss for each token, and the shares of tokens (0-dim) on which the low and the high edge of the clip bind."""

    loss: Tensor  # [N, T], 0 on padding
    clip_low: Tensor
    clip_high: Tensor


def sequence_clipped_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> PolicyLossTerms:
    """Eq. 3: -min(s A, clip(s, 1 - clip_low, 1 + clip_high) A), s = (pi(y|x) / pi'(y|x))^(1/|y|).

    A may differ from token to token (a KL penalty in the reward); s is the response's. `dual_clip` > 1 bounds the
    objective of A < 0 from below by dual_clip * A (arXiv:1912.09729).
    """
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"dual_clip {dual_clip:g} is not allowed: (1, inf), or None for no dual clip")
    mask = mask.bool()
    log_ratio, A = _log_ratio(log_probs, old_log_probs, mask), torch.where(mask, advantages, 0)
    s = _mean(log_ratio, mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()  # [N, 1]
    objective = torch.min(s * A, s.clamp(1 - clip_low, 1 + clip_high) * A)
    if dual_clip is not None:
        objective = torch.where(A < 0, torch.max(objective, dual_clip * A), objective)
    return PolicyLossTerms(
        -objective, _share((A < 0) & (s < 1 - clip_low), mask), _share((A > 0) & (s > 1 + clip_high), mask)
    )


def gmpo_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.4,
    clip_high: float = 0.4,
) -> PolicyLossTerms:
    """GMPO (arXiv:2507.20673): -A exp(mean_t sgn(A) min(sgn(A) l_t, sgn(A) clip(l_t, -clip_low, clip_high))).

    l_t is the log ratio of a token, clipped in log space: 0.4 is the paper's range (e^-0.4, e^0.4). Where A differs
    from token to token, the sign is that of the response's mean A.
    """
    mask = mask.bool()
    log_ratio, A = _log_ratio(log_probs, old_log_probs, mask), torch.where(mask, advantages, 0)
    sign = _mean(A, mask).sign()  # [N, 1]
    # sgn(A) min(sgn(A) l, sgn(A) clip(l)) is min(l, clip_high) for A > 0 and max(l, -clip_low) for A < 0.
    clipped = torch.where(sign >= 0, log_ratio.clamp(max=clip_high), log_ratio.clamp(min=-clip_low))
    clipped = torch.where(mask, clipped, 0)
    product = _mean(clipped, mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()  # [N, 1]
    return PolicyLossTerms(
        -product * A,
        _share((sign < 0) & (log_ratio < -clip_low), mask),
        _share((sign > 0) & (log_ratio > clip_high), mask),
    )


def gpg_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor) -> PolicyLossTerms:
    """GPG (arXiv:2504.02546): -A log pi, without a ratio or a clip; `old_log_probs` is not used."""
    mask = mask.bool()
    loss = -torch.where(mask, advantages, 0) * torch.where(mask, log_probs, 0)
    return PolicyLossTerms(loss, loss.new_zeros(()), loss.new_zeros(()))


def _log_ratio(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> Tensor:
    # Chosen before the subtraction: nan or inf on padding would survive a product with the mask.
    return torch.where(mask, log_probs, 0) - torch.where(mask, old_log_probs, 0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average over a response's tokens -> [N, 1]; `values` are 0 on padding."""
    return values.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def _share(clipped: Tensor, mask: Tensor) -> Tensor:
    """Compute the share of the tokens that are clipped."""
    return (clipped & mask).sum() / mask.sum().clamp(min=1)
