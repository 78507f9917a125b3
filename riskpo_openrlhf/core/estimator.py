"""RiskPOEstimator: rewards [P, G] -> advantages [P, G]. It joins the risk measure, the bundles and the quantiles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from riskpo_openrlhf.config import FLAG_PREFIX, RiskPOConfig
from riskpo_openrlhf.core import risk
from riskpo_openrlhf.core.bundles import (
    Layout,
    Part,
    counterfactual,
    draw_layout,
    group_mean,
    group_std,
    group_std_mean,
    masked_std,
    send_back,
)
from riskpo_openrlhf.core.quantiles import QuantileTracker, empirical_quantile

logger = logging.getLogger("riskpo_openrlhf")

STATE_VERSION = 1
GROUP_DIVISORS = {
    "group-std": partial(group_std, unbiased=False),
    "group-mean": group_mean,
    "group-std-mean": group_std_mean,
}
WEAK_START = 0.3  # pass rate under which the paper's offset is known to do harm


@dataclass
class RiskPOAdvantages:
    """What one step gives back; rows and columns as the rewards came."""

    advantages: Tensor  # [P, G], 0 where there is no verdict
    bundle: Tensor  # [P, G] long: index into `scores`, -1 where there is no verdict
    scores: Tensor  # [n_bundles] bundle scores R_B
    metrics: dict[str, float]


class RiskPOEstimator:
    """The advantages of Risk-based Policy Optimization (Algorithm 1 without the policy update).

    Score, then update: the advantages of step k use q_k, then the tracker moves to q_{k+1}; q_0 is the empirical
    quantile of the first batch. Only full bundles with all their verdicts move it. Bundles are drawn by
    (seed, step, keys), so the tracker is all there is to save.
    """

    def __init__(self, config: RiskPOConfig | None = None, seed: int = 0):
        self.config = config or RiskPOConfig()
        self.seed = seed
        self.tracker = self._new_tracker()
        self._first_step = True

    def step(
        self, rewards: Tensor, step: int, valid: Tensor | None = None, keys: Sequence[str] | None = None
    ) -> RiskPOAdvantages:
        """Advantages of `rewards [P, G]`, and one step of the tracker.

        `valid [P, G]` bool is False where a response has no verdict; `keys` is one stable string a prompt. The same
        seed, step, keys and rewards give the same result for each prompt, whatever order the prompts came in. Raises
        `ValueError` for rewards that are not finite and for groups that are too small for the settings.
        """
        config, device, dtype = self.config, rewards.device, rewards.dtype
        rewards, valid = self._checked(rewards, valid, keys)
        layout = draw_layout(
            rewards, valid, config.bundling, config.bundle_size, self.seed, step, keys, config.short_bundle == "scale"
        )
        parts = layout.parts
        scores = torch.cat([part.scores[part.scored] for part in parts])
        full = torch.cat([part.scores[part.n == config.bundle_size] for part in parts])
        if not self.tracker.started:
            self.tracker.start(full)
        if self._first_step:
            self._warn_of_weak_start(layout)

        A, q = torch.empty_like(layout.rewards), []
        for part in parts:
            quantiles = self._quantiles(part, full, scores)
            A[:, part.columns] = self._advantages(layout, part, *quantiles)
            q.append(torch.stack(quantiles).expand(2, *part.n.shape)[:, part.scored])
        if config.normalization in GROUP_DIVISORS:
            of_group = GROUP_DIVISORS[config.normalization](layout)
            # Twice, so that a binary group of pass rate 1/2, whose mean and std are 1/2, keeps its advantages.
            A *= torch.where(of_group > 1e-6, 0.5 / of_group, 1)

        metrics = self._metrics(layout, A, torch.cat(q, dim=1), scores, full)
        self.tracker.update(full)
        self._first_step = False
        del q, full  # as is A by the next line: room for the result
        A = layout.restore(A)
        return RiskPOAdvantages(A.to(device, dtype), layout.bundle_ids().to(device), scores.to(device), metrics)

    def state_dict(self) -> dict[str, Any]:
        """Plain Python values: version, config, tracker."""
        return {"version": STATE_VERSION, "config": self.config.to_dict(), "tracker": self.tracker.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`. The tracker's values mean nothing for other levels, bundle sizes or bundlings:

        those raise `ValueError`, unless `resume_changed` is set; then the tracker restarts and the log says so.
        """
        if state["version"] != STATE_VERSION:
            raise ValueError(
                f"the checkpoint holds RiskPO state of version {state['version']!r}; this release reads version "
                f"{STATE_VERSION}: resume with the release that wrote it"
            )
        changed = [
            f"{FLAG_PREFIX}{name} {getattr(self.config, name)} (checkpoint {state['config'][name]})"
            for name in ("alpha", "beta", "bundle_size", "bundling")
            if state["config"][name] != getattr(self.config, name)
        ]
        if changed and not self.config.resume_changed:
            raise ValueError(
                f"cannot resume: {', '.join(changed)} would give the tracked quantiles another meaning; restore the "
                f"checkpoint's value, or set {FLAG_PREFIX}resume_changed true to restart the tracker"
            )
        self.tracker = self._new_tracker()
        if changed:
            logger.warning("RiskPO resumes with %s: the quantile tracker restarts", ", ".join(changed))
        else:
            self.tracker.load_state_dict(state["tracker"])
        self._first_step = False

    def _new_tracker(self) -> QuantileTracker:
        return QuantileTracker(
            [self.config.alpha, self.config.beta], self.config.tracker_lr, self.config.tracker_decay
        )

    def _quantiles(self, part: Part, full: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """q_alpha, q_beta `[n_sets, 1]` of the question sets of a part."""
        levels = (self.config.alpha, self.config.beta)
        if self.config.quantile_source == "bundle":
            seen = part.scores.masked_fill(~part.scored, torch.nan)
            return tuple(torch.nanquantile(seen, level, dim=1, keepdim=True).nan_to_num_(0) for level in levels)
        if self.config.quantile_source == "tracked" and self.tracker.started:
            values = self.tracker.values
        else:
            sample = full if full.numel() else scores
            values = [empirical_quantile(sample, level) if sample.numel() else 0.0 for level in levels]
        return tuple(torch.full_like(part.target, value) for value in values)

    def _advantages(self, layout: Layout, part: Part, q_alpha: Tensor, q_beta: Tensor) -> Tensor:
        """A `[P, J]` of the responses of a part."""
        config = self.config
        scale = torch.ones_like(part.target)  # [n_sets, 1]
        if config.normalization == "bundle-std":
            std = masked_std(part.scores, part.scored, unbiased=True)
            scale = torch.where(part.scored.sum(1, keepdim=True) > 1, std, 1) + risk.EPSILON
        if config.credit == "counterfactual":

            def u(x: Tensor, sets: Tensor) -> Tensor:
                at = sets[:, None]  # [c, 1], so that the quantiles below are [c, 1, 1]
                return self._of_scores(x, q_alpha[at], q_beta[at], constant=False) / scale[at]

            return counterfactual(layout, part, u)
        A = self._of_scores(part.scores, q_alpha, q_beta, config.constant) / scale * part.factor
        return send_back(A, layout, part, config.credit)

    def _of_scores(self, scores: Tensor, q_alpha: Tensor, q_beta: Tensor, constant: bool) -> Tensor:
        """The advantage of bundle scores by the configured mix and profile."""
        c = self.config
        if c.mix == "released":
            return risk.released_advantage(scores, q_alpha, q_beta, c.alpha, c.beta, c.omega, constant, c.profile)
        advantage = risk.mvar_advantage if c.profile == "averse" else risk.risk_seeking_advantage
        return advantage(scores, q_alpha, q_beta, c.omega, constant)

    def _metrics(self, layout: Layout, A: Tensor, q: Tensor, scores: Tensor, full: Tensor) -> dict[str, float]:
        """One step's numbers for the log, all finite; `q [2, n_bundles]` goes with `scores [n_bundles]`.

        Statistics of scores are the full bundles', or all bundles' if none is full. riskpo/mvar and rvar_* are Eq. 2
        and Eq. 1 of this batch for either profile, so that runs can be compared.
        """
        c, valid = self.config, layout.valid
        n, n_valid = max(len(scores), 1), int(valid.count_nonzero())
        lower = torch.count_nonzero(scores <= q[0]).item()
        upper = torch.count_nonzero(scores > q[1]).item()
        used, coverage, tail, middle, mean, std = [0.0, 0.0], [0.0, 0.0], 0.0, 0.0, 0.0, 0.0
        if len(scores):
            used = q.double().mean(1).tolist()
            sample = full if len(full) else scores
            under = self.tracker.values if self.tracker.started else used
            coverage = [torch.count_nonzero(sample < value).item() / len(sample) for value in under]
            tail = risk.cvar(sample, c.alpha).item()
            middle = risk.rvar(sample, c.alpha, c.beta).item()
            mean, std = sample.mean().item(), sample.std(unbiased=False).item()

        # A is 0 without a verdict, so sums over the batch are sums over verdicts.
        a_mean = A.sum(1).double().sum().item() / max(n_valid, 1)
        a_square = torch.linalg.vector_norm(A, dim=1).double().square().sum().item() / max(n_valid, 1)
        a_nonzero = torch.count_nonzero(A).item()
        low = layout.rewards.masked_fill(~valid, torch.inf).amin(1)
        high = layout.rewards.masked_fill(~valid, -torch.inf).amax(1)
        equal = low == high  # never for a prompt without any verdict
        prompts = max(torch.count_nonzero(low <= high).item(), 1)
        return {
            "riskpo/q_alpha": used[0],
            "riskpo/q_beta": used[1],
            "riskpo/coverage_alpha": coverage[0],
            "riskpo/coverage_beta": coverage[1],
            "riskpo/mvar": (1 + c.omega) * c.alpha * tail + (c.beta - c.alpha) * middle,
            "riskpo/rvar_lower": tail,
            "riskpo/rvar_middle": middle,
            "riskpo/score_mean": mean,
            "riskpo/score_std": std,
            "riskpo/share_lower": lower / n,
            "riskpo/share_middle": (len(scores) - lower - upper) / n,
            "riskpo/share_upper": upper / n,
            "riskpo/advantage_mean": a_mean,
            "riskpo/advantage_std": max(a_square - a_mean**2, 0.0) ** 0.5,
            "riskpo/advantage_abs_max": max(A.max().item(), -A.min().item()),
            "riskpo/advantage_zero_share": (n_valid - a_nonzero) / max(n_valid, 1),
            "signal/prompts_all_wrong": torch.count_nonzero(equal & (high <= 0)).item() / prompts,
            "signal/prompts_all_right": torch.count_nonzero(equal & (high > 0)).item() / prompts,
            "signal/grpo_zero_share": int(valid[equal].count_nonzero()) / max(n_valid, 1),
            "verifier/error_share": 1 - n_valid / valid.numel(),
        }

    def _checked(self, rewards: Tensor, valid: Tensor | None, keys: Sequence[str] | None) -> tuple[Tensor, Tensor]:
        """Rewards as float32 or float64 and valid as bool, on the CPU; raises `ValueError` for what can't be used."""
        if rewards.dim() != 2 or rewards.numel() == 0:
            raise ValueError(f"rewards have shape {list(rewards.shape)}: [prompts, responses a prompt] is expected")
        if valid is not None and valid.shape != rewards.shape:
            raise ValueError(f"valid has shape {list(valid.shape)}, rewards have {list(rewards.shape)}")
        if keys is not None and len(keys) != len(rewards):
            raise ValueError(f"there are {len(keys)} keys for {len(rewards)} prompts: one key a prompt is expected")
        self.config.require_group_size(rewards.shape[1])
        rewards = rewards.detach().cpu()
        rewards = rewards if rewards.dtype == torch.float64 else rewards.float()
        finite = torch.isfinite(rewards)
        valid = torch.ones_like(finite) if valid is None else valid.detach().cpu().bool()
        if not (finite | ~valid).all():
            bad = torch.count_nonzero(valid & ~finite).item()
            raise ValueError(
                f"{bad} of {rewards.numel()} rewards are not finite; mark responses without a verdict in `valid`"
            )
        return rewards, valid

    def _warn_of_weak_start(self, layout: Layout) -> None:
        c = self.config
        passed = torch.count_nonzero(layout.rewards > 0).item() / max(int(layout.valid.count_nonzero()), 1)
        if (c.mix, c.credit, c.constant, c.profile) == ("paper", "uniform", True, "averse") and passed < WEAK_START:
            logger.warning(
                "RiskPO starts at a pass rate of %.2f with the paper's advantage, which is never positive: from a "
                "weak start it has been seen to unlearn. Watch riskpo/score_mean; %scredit counterfactual or "
                "%spreset recommended has no such offset",
                passed,
                FLAG_PREFIX,
                FLAG_PREFIX,
            )
