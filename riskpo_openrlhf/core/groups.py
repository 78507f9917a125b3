"""Statistics of each prompt's own rewards, counted from the lowest of them.

A group's valid rewards are lowest + width * place, with 0 <= place <= 1 (`spread`). Every statistic below is built
from `width` and `place`. So equal rewards give exactly 0, whatever their scale, sign and number, and none of them
needs a smallest divisor, which would mean something else at another scale.
"""

from __future__ import annotations

import torch
from torch import Tensor


def extremes(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest valid value `[N, 1]` of each row; inf and -inf without any."""
    lowest = values.masked_fill(~valid, torch.inf).amin(1, keepdim=True)
    return lowest, values.masked_fill(~valid, -torch.inf).amax(1, keepdim=True)


def settle(values: Tensor, valid: Tensor, eps: float | None = None, size: Tensor | None = None) -> Tensor:
    """Make the valid values of a row of `values [N, M]` equal where they differ by rounding alone.

    Rounding means that their range is at most 4 eps `size [N, 1]`. By default eps is the dtype's, and size the largest
    absolute value. A sum has the size of what was added up.
    """
    lowest, highest = extremes(values, valid)
    size = torch.maximum(lowest.abs(), highest.abs()) if size is None else size
    equal = highest - lowest <= 4 * (eps or torch.finfo(values.dtype).eps) * size
    return torch.where(equal & valid, lowest, values)


def spread(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return width [N, 1] and place [N, M] of each row's valid values: value = lowest + width * place.

    Both are 0 where a row's values are equal, and place is 0 where there is no valid value.
    """
    lowest, _ = extremes(values, valid)
    above = (values - lowest).masked_fill(~valid, 0)
    width = above.amax(1, keepdim=True)
    return width, above / torch.where(width > 0, width, 1)


def mean(values: Tensor, valid: Tensor) -> Tensor:
    """Average the valid values of each row -> `[N, 1]`; 0 without any."""
    return values.masked_fill(~valid, 0).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)


def centred(values: Tensor, valid: Tensor) -> Tensor:
    """Subtract the mean of the row's valid `values [N, M]`; 0 where invalid, and exactly 0 where all are equal."""
    width, place = spread(values, valid)
    return (width * (place - mean(place, valid))).masked_fill(~valid, 0)


def group_std(values: Tensor, valid: Tensor, unbiased: bool = False) -> Tensor:
    """Compute the standard deviation `[N, 1]` of each row's valid values; 0 if they are equal or fewer than two."""
    width, place = spread(values, valid)
    squares = centred(place, valid).square().sum(1, keepdim=True)
    n = valid.sum(1, keepdim=True) - int(unbiased)
    return width * (squares / n.clamp(min=1)).sqrt()


def group_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Compute by how much each row's mean is above its lowest valid value -> `[N, 1]`; 0 if all are equal.

    Among n values it is at least 1/n of their range.
    """
    width, place = spread(values, valid)
    return width * mean(place, valid)


def group_std_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Compute `group_std` times sqrt(2 s) `[N, 1]`; s is the mean's place between the lowest and the highest value.

    For binary rewards of pass rate p that is p sqrt(2 (1 - p)): near the mean for small p, near the std for p near 1,
    and equal to both at p = 1/2.
    """
    place = spread(values, valid)[1]
    return group_std(values, valid) * (2 * mean(place, valid)).sqrt()


DIVISORS = {"group-std": group_std, "group-mean": group_mean, "group-std-mean": group_std_mean}


def divide(A: Tensor, divisor: Tensor) -> Tensor:
    """Compute A / (2 divisor), and A where the divisor is 0. The 2 leaves a binary group of pass rate 1/2 as it is."""
    return A * torch.where(divisor > 0, 0.5 / divisor, 1)
