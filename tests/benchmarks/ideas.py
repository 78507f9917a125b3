"""Ideas to make the risk measure add more, as advantages of a rollout for `bench_plain_loop`. None became a flag.

Each takes the seed, and is then called with rewards `[P, G]`, step and prompts, and gives advantages `[P, G]`. Their
controls are `division` (no bundles and no risk) and `recommended`. docs/results/comparison-mixed.md has the outcome.
"""

from __future__ import annotations

import torch
from torch import Tensor

from riskpo_openrlhf import RiskPOConfig, RiskPOEstimator
from riskpo_openrlhf.core import groups
from riskpo_openrlhf.core.bundles import arrange, canonical_order, draw_layout, make_part
from riskpo_openrlhf.core.credit import counterfactual
from riskpo_openrlhf.core.quantiles import empirical_quantile

KEPT = 0.9  # share of a running mean that stays
HARD = 0.2  # a pass rate under which a question counts as unsolved


def others_rate(r: Tensor) -> Tensor:
    """Return the pass rate of each response's group without the response itself, `[P, G]`."""
    return (r.sum(1, keepdim=True) - r) / (r.shape[1] - 1)


def unsolved(r: Tensor) -> float:
    """Return the share of questions with a pass rate under `HARD`."""
    return float((r.mean(1) < HARD).float().mean())


def divided(A: Tensor, r: Tensor) -> Tensor:
    return groups.divide(A, groups.group_std_mean(r, torch.ones_like(r, dtype=torch.bool)))


def recommended(seed: int, **knobs) -> RiskPOEstimator:
    return RiskPOEstimator(RiskPOConfig.preset("recommended", **knobs), seed)


class Running:
    """A running mean of numbers that starts at the first one."""

    def __init__(self):
        self.value = None

    def __call__(self, new):
        self.value = new if self.value is None else KEPT * self.value + (1 - KEPT) * new
        return self.value


class Division:
    """The control: GRPO's advantage over the same statistic, without bundles and quantiles."""

    def __init__(self, seed: int):
        pass

    def __call__(self, r: Tensor, step: int, keys: list[str]) -> Tensor:
        return divided(r - others_rate(r), r)


class Weights:
    """B = 1: weigh by the pass rate of the group's other responses, 1 + omega under its alpha-quantile."""

    omega, alpha = 0.5, 0.4

    def __init__(self, seed: int):
        self.quantile = Running()

    def __call__(self, r: Tensor, step: int, keys: list[str]) -> Tensor:
        rate = others_rate(r)
        q = self.quantile(float(empirical_quantile(rate.flatten(), self.alpha)))
        return divided(r - rate, r) * (1 + self.omega * (rate <= q))


class HeavyWeights(Weights):
    omega = 1.5


class SmoothWeights:
    """B = 1 without a quantile: weigh by 1 + (1 - rate)^4."""

    def __init__(self, seed: int):
        pass

    def __call__(self, r: Tensor, step: int, keys: list[str]) -> Tensor:
        return divided(r - others_rate(r), r) * (1 + (1 - others_rate(r)) ** 4)


class EightBundlings:
    """Average over eight draws of the bundles, so that each response meets 40 sets of partners."""

    def __init__(self, seed: int):
        self.estimators = [recommended(seed + 1000 * i) for i in range(8)]

    def __call__(self, r: Tensor, step: int, keys: list[str]) -> Tensor:
        return torch.stack([each.step(r, step, keys=keys).advantages for each in self.estimators]).mean(0)


class LevelsByUnsolved:
    """alpha is the running share of unsolved questions."""

    def __init__(self, seed: int):
        self.seed, self.share = seed, Running()

    def __call__(self, r: Tensor, step: int, keys: list[str]) -> Tensor:
        alpha = min(max(self.share(unsolved(r)), 0.05), 0.9)
        return recommended(self.seed, alpha=alpha, quantile_source="batch").step(r, step, keys=keys).advantages


class OmegaByUnsolved:
    """omega starts at 1.5 and falls with the running share of unsolved questions."""

    def __init__(self, seed: int):
        self.seed, self.share, self.first = seed, Running(), None

    def __call__(self, r: Tensor, step: int, keys: list[str]) -> Tensor:
        share = self.share(unsolved(r))
        self.first = self.first or max(share, 1e-3)
        omega = 1.5 * share / self.first
        return recommended(self.seed, omega=omega, quantile_source="batch").step(r, step, keys=keys).advantages


class QuantilesByDifficulty:
    """Track quantiles for each third of the question sets, ranked by difficulty."""

    classes = 3

    def __init__(self, seed: int):
        self.seed, self.config = seed, RiskPOConfig.preset("recommended")
        self.quantiles = [Running() for _ in range(self.classes)]

    def __call__(self, r: Tensor, step: int, keys: list[str]) -> Tensor:
        c, valid = self.config, torch.ones_like(r, dtype=torch.bool)
        layout = draw_layout(r, valid, c.bundling, c.bundle_size, self.seed, step, keys)
        A, sets = torch.empty_like(layout.rewards), len(layout.parts[0].scores)
        class_of = torch.arange(sets) * self.classes // sets
        q = []
        for number, running in enumerate(self.quantiles):
            scores = torch.cat([part.scores[class_of == number].flatten() for part in layout.parts])
            q.append(running(torch.tensor([float(empirical_quantile(scores, level)) for level in (c.alpha, c.beta)])))
        for part in layout.parts:
            low, high = torch.stack(q)[class_of[part.set_of]].split(1, 1)
            A[:, part.columns] = counterfactual(layout, part, low, high, c.omega)
        return layout.restore(divided(A, layout.rewards))


class RunningRates:
    """Over epochs: rank questions by their running pass rate of earlier epochs, and bundle all ten responses."""

    def __init__(self, seed: int):
        self.seed, self.rates, self.estimator = seed, {}, recommended(seed)

    def __call__(self, r: Tensor, step: int, keys: list[str]) -> Tensor:
        known = [self.rates.get(key) for key in keys]
        for key, rate in zip(keys, r.mean(1).tolist(), strict=True):
            self.rates[key] = (self.rates.get(key, rate) + rate) / 2
        if None in known:
            return self.estimator.step(r, step, keys=keys).advantages
        c, tracker, valid = self.estimator.config, self.estimator.tracker, torch.ones_like(r, dtype=torch.bool)
        generator = torch.Generator().manual_seed(100_003 * self.seed + step)
        prompts = canonical_order(keys, r, valid, self.seed, step)
        layout = arrange(r, valid, prompts, torch.rand(r.shape, generator=generator).argsort(1))
        order = torch.tensor([known[i] for i in prompts]).argsort(stable=True)
        layout.parts.append(make_part(layout, slice(0, r.shape[1]), order, c.bundle_size))
        A = counterfactual(layout, layout.parts[0], *(r.new_tensor(value) for value in tracker.values), c.omega)
        tracker.update(layout.full_scores(c.bundle_size))
        return layout.restore(divided(A, layout.rewards))


class RunningWeights:
    """Over epochs: weigh by the running pass rate, 1.5 under its 0.4-quantile, in place of bundles."""

    def __init__(self, seed: int):
        self.rates, self.quantile = {}, Running()

    def __call__(self, r: Tensor, step: int, keys: list[str]) -> Tensor:
        known = torch.tensor([self.rates.get(key, torch.nan) for key in keys])[:, None].expand_as(r)
        rate = torch.where(known.isnan(), others_rate(r), known)
        q = self.quantile(float(empirical_quantile(rate.flatten(), 0.4)))
        for key, new in zip(keys, r.mean(1).tolist(), strict=True):
            self.rates[key] = (self.rates.get(key, new) + new) / 2
        return divided(r - others_rate(r), r) * (1 + 0.5 * (rate <= q))


IDEAS = {
    "division": Division, "weights": Weights, "heavy-weights": HeavyWeights, "smooth-weights": SmoothWeights,
    "eight-bundlings": EightBundlings, "levels-by-unsolved": LevelsByUnsolved, "omega-by-unsolved": OmegaByUnsolved,
    "quantiles-by-difficulty": QuantilesByDifficulty, "running-rates": RunningRates, "running-weights": RunningWeights,
}  # fmt: skip
