"""Risk measures of a sample of scores and the advantages whose policy gradients are theirs (Eq. 1, Eq. 2, Theorem 1).

R is a bundle score, q_alpha and q_beta the quantiles F^-1(alpha) and F^-1(beta) of its distribution, and
(z)^+ = max(z, 0). Quantiles may be numbers or tensors that broadcast against the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6  # the released code adds it to every divisor


def rvar(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Eq. 1: RVaR_{alpha:beta} of a sample `x [n]`, the mean of its quantile function over the levels [alpha, beta].

    An order statistic that straddles a level counts by the part inside. Raises `ValueError` for other levels than
    0 <= alpha < beta <= 1 and for an empty sample.
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
    """Eq. 2: (1 + omega) alpha RVaR_{0:alpha} + (beta - alpha) RVaR_{alpha:beta} of a sample `x [n]`."""
    return (1 + omega) * alpha * cvar(x, alpha) + (beta - alpha) * rvar(x, alpha, beta)


def g(z: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """Theorem 1: g(z, a, b) = (z - a)^+ - (z - b)^+ + a - b, for a <= b."""
    return _middle(z, a, b) + (a - b)


def utility(
    x: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, omega: float, profile: str = "averse"
) -> Tensor:
    """The advantage without its constant, as a function u of the bundle score; it never decreases in x.

    averse:  u(x) = -(1 + omega) (q_alpha - x)^+ + (x - q_alpha)^+ - (x - q_beta)^+
    seeking: u(x) =  (1 + omega) (x - q_beta)^+  + (x - q_alpha)^+ - (x - q_beta)^+
    """
    return (1 + omega) * _tail(x, q_alpha, q_beta, profile) + _middle(x, q_alpha, q_beta)


def mvar_advantage(
    scores: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, omega: float, constant: bool = True
) -> Tensor:
    """A = -(1 + omega) (q_alpha - R)^+ + g(R, q_alpha, q_beta); E[A grad ln pi] is the gradient of Eq. 2.

    `constant=False` leaves out the q_alpha - q_beta of g, which has no part in the mean gradient.
    """
    A = utility(scores, q_alpha, q_beta, omega, "averse")
    return A + (q_alpha - q_beta) if constant else A


def risk_seeking_advantage(
    scores: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, omega: float, constant: bool = True
) -> Tensor:
    """A = (1 + omega) (R - q_beta)^+ + g(R, q_alpha, q_beta), the risk-seeking counterpart of section 6.2.

    E[A grad ln pi] is the gradient of (1 + omega) (1 - beta) RVaR_{beta:1} + (beta - alpha) RVaR_{alpha:beta}.
    """
    A = utility(scores, q_alpha, q_beta, omega, "seeking")
    return A + (q_alpha - q_beta) if constant else A


def released_advantage(
    scores: Tensor,
    q_alpha: Tensor | float,
    q_beta: Tensor | float,
    alpha: float,
    beta: float,
    omega: float,
    constant: bool = True,
    profile: str = "averse",
) -> Tensor:
    """The advantage of the authors' released code: A = (omega h + m) / (omega + 1).

    m is the middle part, with or without q_alpha - q_beta, over (beta - alpha); h the tail: -(q_alpha - R)^+ / alpha
    (averse) or (R - q_beta)^+ / (1 - beta) (seeking). 1e-6 is added to each of the three widths.
    """
    middle = g(scores, q_alpha, q_beta) if constant else _middle(scores, q_alpha, q_beta)
    width = alpha if profile == "averse" else 1 - beta
    h = _tail(scores, q_alpha, q_beta, profile) / (width + EPSILON)
    return (omega * h + middle / (beta - alpha + EPSILON)) / (omega + 1)


def _tail(x: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float, profile: str) -> Tensor:
    """-(q_alpha - x)^+ for the averse profile, (x - q_beta)^+ for the seeking one."""
    if profile == "averse":
        return (x - q_alpha).clamp(max=0)
    if profile == "seeking":
        return (x - q_beta).clamp(min=0)
    raise ValueError(f"profile {profile!r} is not allowed: one of: averse, seeking")


def _middle(x: Tensor, q_alpha: Tensor | float, q_beta: Tensor | float) -> Tensor:
    """(x - q_alpha)^+ - (x - q_beta)^+ as min((x - q_alpha)^+, q_beta - q_alpha): rounding can't make it decrease."""
    width = torch.as_tensor(q_beta - q_alpha, dtype=x.dtype, device=x.device)
    return torch.minimum((x - q_alpha).clamp(min=0), width)
