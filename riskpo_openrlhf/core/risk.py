"""Risk measures of a sample of scores (Eq. 1, Eq. 2) and the advantages that maximise them (Theorem 1).

R is a bundle score, q_alpha and q_beta are the quantiles F^-1(alpha) and F^-1(beta) of its distribution, and
(z)^+ = max(z, 0). Quantiles are numbers, or tensors that broadcast against the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rvar(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Eq. 1: RVaR_{alpha:beta} of a sample `x [n]`, the mean of its quantile function over the levels [alpha, beta].

    An atom counts by the part of it that lies inside the levels. The paper's conditional expectation, and the authors'
    code, count every score between the two quantiles in full; the three agree for a continuous distribution
    (docs/method.md, section 2). Raises `ValueError` unless 0 <= alpha < beta <= 1 and `x` holds a score.
    """
    if not 0 <= alpha < beta <= 1:
        raise ValueError(f"levels {alpha:g}, {beta:g} are not allowed: 0 <= alpha < beta <= 1")
    if x.numel() == 0:
        raise ValueError("x is empty: a risk measure needs at least one score")
    n, ordered = x.numel(), x.flatten().sort().values
    first, last = int(alpha * n), int(beta * n)
    total = ordered[first:last].sum(dtype=torch.float64)
    total = total - (alpha * n - first) * ordered[first] + (beta * n - last) * ordered[min(last, n - 1)]
    return total / (n * (beta - alpha))


def cvar(x: Tensor, alpha: float) -> Tensor:
    """CVaR_alpha of a sample `x [n]`: the mean of its lower tail, RVaR_{0:alpha}."""
    return rvar(x, 0.0, alpha)


def mvar(x: Tensor, alpha: float, beta: float, omega: float) -> Tensor:
    """Eq. 2: (1 + omega) alpha RVaR_{0:alpha} + (beta - alpha) RVaR_{alpha:beta} of a sample `x [n]`.

    Atoms count as in `rvar`. The authors' code logs (omega RVaR_{0:alpha} + RVaR_{alpha:beta}) / (omega + 1) instead.
    """
    return (1 + omega) * alpha * cvar(x, alpha) + (beta - alpha) * rvar(x, alpha, beta)


def g(z: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """Theorem 1: g(z, a, b) = (z - a)^+ - (z - b)^+ + a - b, for a <= b."""
    return middle(z, a, b) + (a - b)


def utility(
    x: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, omega: float, profile: str = "averse"
) -> Tensor:
    """u(x), the advantage without its constant, as a function of the bundle score; it never decreases in x.

    averse:  u(x) = -(1 + omega) (q_alpha - x)^+ + (x - q_alpha)^+ - (x - q_beta)^+
    seeking: u(x) =  (1 + omega) (x - q_beta)^+  + (x - q_alpha)^+ - (x - q_beta)^+
    """
    return (1 + omega) * tail(x, q_alpha, q_beta, profile) + middle(x, q_alpha, q_beta)


def mvar_advantage(
    scores: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, omega: float, constant: bool = True
) -> Tensor:
    """A = -(1 + omega) (q_alpha - R)^+ + g(R, q_alpha, q_beta); E[A grad ln pi] is the gradient of Eq. 2.

    `constant=False` leaves out g's constant q_alpha - q_beta, which does not change the mean gradient.
    """
    A = utility(scores, q_alpha, q_beta, omega, "averse")
    return A + (q_alpha - q_beta) if constant else A


def risk_seeking_advantage(
    scores: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, omega: float, constant: bool = True
) -> Tensor:
    """A = (1 + omega) (R - q_beta)^+ + g(R, q_alpha, q_beta), the risk-seeking counterpart of section 6.2.

    E[A grad ln pi] is the gradient of (1 + omega) (1 - beta) RVaR_{beta:1} + (beta - alpha) RVaR_{alpha:beta}.
    The paper gives that objective but no advantage. Theorem 1 would give its upper tail the further constant
    (1 + omega) (q_beta - F^-1(1)); it is left out, as in the authors' code: F^-1(1), the highest possible score, is
    not tracked, and a constant does not change the mean gradient. A is therefore positive above q_beta.
    """
    A = utility(scores, q_alpha, q_beta, omega, "seeking")
    return A + (q_alpha - q_beta) if constant else A


def tail(x: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, profile: str) -> Tensor:
    """-(q_alpha - x)^+ for the averse profile, (x - q_beta)^+ for the seeking one."""
    if profile == "averse":
        return (x - q_alpha).clamp(max=0)
    if profile == "seeking":
        return (x - q_beta).clamp(min=0)
    raise ValueError(f"profile {profile!r} is not allowed: one of: averse, seeking")


def middle(x: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float) -> Tensor:
    """(x - q_alpha)^+ - (x - q_beta)^+, as min((x - q_alpha)^+, q_beta - q_alpha): rounding can't make it decrease."""
    width = torch.as_tensor(q_beta - q_alpha, dtype=x.dtype, device=x.device)
    return torch.minimum((x - q_alpha).clamp(min=0), width)
