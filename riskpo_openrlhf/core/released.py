"""The authors' released code (RTkenny/RiskPO), in one file: the advantages of the presets `released-*`.

Where it differs from the paper is a table in docs/method.md, section 8. Its order of operations is kept: middle part
over its width, mix with the tail, over the std of the set's scores, then the credit rule; 1e-6 is added to each of
these divisors. What was not in it: a response without a verdict is left out (its bundle counts as in `core.bundles`).

Three choices keep rounding from being divided by 1e-6; on exact numbers they change nothing. Everything is computed
in float64. Scores of a set that differ by float32's rounding alone count as equal: their advantage is 0 / 1e-6 = 0.
And a sum of excesses that is 0 but for float32's rounding counts as 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.core.bundles import Layout, Part, arrange, canonical_order, make_part, sum_sets
from riskpo_openrlhf.core.groups import group_std, mean, settle
from riskpo_openrlhf.core.risk import g, middle, tail

EPSILON = 1e-6  # the authors add it to every divisor
ROUNDING = torch.finfo(torch.float32).eps


def draw_layout(
    rewards: Tensor, valid: Tensor, bundle_size: int, seed: int, step: int, keys: Sequence[str] | None = None
) -> Layout:
    """Bundle the j-th responses of neighbouring prompts; the short last bundle is taken as it is.

    Prompts stay as given without `keys`, as in the authors' data loader; with keys they come in the seeded order,
    since OpenRLHF hands groups over as they are finished.
    """
    P, G = rewards.shape
    prompts = torch.arange(P) if keys is None else canonical_order(keys, rewards, valid, seed, step)
    layout = arrange(rewards.double(), valid, prompts, torch.arange(G).repeat(P, 1))
    part = make_part(layout, slice(0, G), torch.arange(P), bundle_size)
    part.target[-1] = P % bundle_size or bundle_size
    layout.parts.append(part)
    return layout


def advantages(layout: Layout, config: RiskPOConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Compute A `[P, G]` in bundle order, and q_alpha, q_beta `[n_bundles]` of the bundles that have a score."""
    (part,) = layout.parts
    added = sum_sets(layout.rewards.abs(), part.order, int(part.target[0])).amax(1, keepdim=True)
    scores = settle(part.scores, part.scored, ROUNDING, size=added)
    q_alpha, q_beta = (own_quantile(scores, part.scored, level) for level in (config.alpha, config.beta))
    A = mixed(scores, q_alpha, q_beta, config) / bundle_std(scores, part.scored) * part.factor
    credit = sum_mean_credit if config.released == "dapo" else std_credit
    A = credit(A, layout, part).masked_fill(~layout.valid, 0)
    return A, q_alpha.expand_as(scores)[part.scored], q_beta.expand_as(scores)[part.scored]


def own_quantile(scores: Tensor, scored: Tensor, level: float) -> Tensor:
    """Compute the empirical quantile `[n_sets, 1]` of each set's own G scores (linear); 0 without a score."""
    return torch.nanquantile(scores.masked_fill(~scored, torch.nan), level, dim=1, keepdim=True).nan_to_num(0)


def mixed(R: Tensor, q_alpha: Tensor, q_beta: Tensor, config: RiskPOConfig) -> Tensor:
    """(omega h + m) / (omega + 1) for scores `R [n_sets, G]`.

    m is the middle part, with or without q_alpha - q_beta, over (beta - alpha); h is the tail over its width:
    -(q_alpha - R)^+ / alpha (averse) or (R - q_beta)^+ / (1 - beta) (seeking).
    """
    m = g(R, q_alpha, q_beta) if config.constant else middle(R, q_alpha, q_beta)
    width = config.alpha if config.profile == "averse" else 1 - config.beta
    h = tail(R, q_alpha, q_beta, config.profile) / (width + EPSILON)
    return (config.omega * h + m / (config.beta - config.alpha + EPSILON)) / (config.omega + 1)


def bundle_std(scores: Tensor, scored: Tensor) -> Tensor:
    """Compute the unbiased std `[n_sets, 1]` of each set's scores, plus 1e-6. A single score counts as std 1."""
    std = group_std(scores, scored, unbiased=True)
    return torch.where(scored.sum(1, keepdim=True) > 1, std, 1) + EPSILON


def std_credit(A: Tensor, layout: Layout, part: Part) -> Tensor:
    """Divide A by the std of the question's own rewards (1 if at most 1e-3) plus 1e-6, as the MATH scripts do."""
    std = group_std(layout.rewards, layout.valid, unbiased=True)
    return A[part.set_of] / (torch.where(std > 1e-3, std, 1) + EPSILON)


def sum_mean_credit(A: Tensor, layout: Layout, part: Part) -> Tensor:
    """Share A as (r - m_q) / sum(r - m_q) over the bundle, equally if that sum is about 0: the DAPO-Math script.

    The divisor can be as small as 1e-6, so single advantages are unbounded.
    """
    excess = (layout.rewards - mean(layout.rewards, layout.valid)).masked_fill(~layout.valid, 0)
    whole, size = (sum_sets(x, part.order, int(part.target[0])) for x in (excess, layout.rewards.abs()))
    equal = whole.abs() <= (4 * ROUNDING * size).clamp(min=EPSILON)
    divisor = torch.where(equal, part.n.clamp(min=1), whole)
    return A[part.set_of] * torch.where(equal[part.set_of], 1, excess) / divisor[part.set_of]
