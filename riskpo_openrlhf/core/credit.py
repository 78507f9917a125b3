"""How a bundle's advantage goes back to its responses. All tensors are in bundle order (`core.bundles`)."""

from __future__ import annotations

import torch
from torch import Tensor

from riskpo_openrlhf.core.bundles import Layout, Part
from riskpo_openrlhf.core.groups import extremes
from riskpo_openrlhf.core.risk import utility


def uniform(A: Tensor, layout: Layout, part: Part) -> Tensor:
    """Give every member of a bundle the bundle's advantage (Eq. 3): `A [n_sets, J]` -> `[P, J]`.

    A bundle of n members whose score was scaled to T gives each of them n / T of it.
    """
    return (A * part.factor)[part.set_of].masked_fill(~layout.valid[:, part.columns], 0)


def counterfactual(
    layout: Layout, part: Part, q_alpha: float, q_beta: float, omega: float, profile: str = "averse"
) -> Tensor:
    """Give each response what it adds to its bundles' utility, versus its prompt's other responses -> `[P, J]`.

        A_ij = mean_b [ u(S_{-i,b} + r_ij) - mean_{k != j} u(S_{-i,b} + r_ik) ]

    b runs over the J bundles of the part that hold question i, k over its other valid responses, and S_{-i,b} is the
    sum of the other members of b. Nothing of r_ij enters the baseline, so at fixed quantiles the mean of A grad ln pi
    is the gradient of E[u(R_B)]. u never decreases: the best answer never gets A < 0, and equal rewards get exactly 0.
    """
    r, valid = layout.rewards, layout.valid
    others = part.total[part.set_of] - r[:, part.columns]  # S_{-i,b} [P, J]
    members = part.n[part.set_of] - valid[:, part.columns].to(r.dtype) + 1  # as if i's own response were valid
    scale = part.target[part.set_of] / members
    worth = torch.empty_like(r)  # [P, G]: mean_b u(S_{-i,b} + r_ik)
    for k in range(r.shape[1]):
        scores = (others + r[:, k : k + 1]) * scale
        worth[:, k] = (utility(scores, q_alpha, q_beta, omega, profile) / scale).mean(1)
    return less_the_others(worth, valid)[:, part.columns]


def less_the_others(values: Tensor, valid: Tensor) -> Tensor:
    """Subtract from each valid value of `values [P, G]` the mean of the row's other valid ones; 0 without any other.

    Counted from the row's lowest, so that equal values cancel exactly.
    """
    above = (values - extremes(values, valid)[0]).masked_fill(~valid, 0)
    n = valid.sum(1, keepdim=True)
    difference = (n * above - above.sum(1, keepdim=True)) / (n - 1).clamp(min=1)
    return difference.masked_fill(~valid, 0)
