"""RiskPOEstimator: rewards [P, G] -> advantages [P, G]. It joins the risk measure, the bundles and the quantiles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from riskpo_openrlhf.config import FLAG_PREFIX, SETTINGS_OF_QUANTILES, RiskPOConfig
from riskpo_openrlhf.core import groups, metrics, released, risk
from riskpo_openrlhf.core.bundles import Layout, draw_layout
from riskpo_openrlhf.core.credit import counterfactual, uniform
from riskpo_openrlhf.core.quantiles import QuantileTracker, empirical_quantile

logger = logging.getLogger("riskpo_openrlhf")

STATE_VERSION = 1
WEAK_START = 0.3  # pass rate under which the paper's offset is known to do harm


@dataclass
class RiskPOAdvantages:
    """What one step gives back; rows and columns as the rewards came."""

    advantages: Tensor  # [P, G] floating point, 0 where there is no verdict
    bundle: Tensor  # [P, G] long: index into `scores`, -1 where there is no verdict
    scores: Tensor  # [n_bundles] bundle scores R_B
    metrics: dict[str, float]


class RiskPOEstimator:
    """The advantages of Risk-based Policy Optimization: Algorithm 1 without the policy update.

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
        """Turn the rewards of one rollout into advantages, then move the quantile tracker.

            rewards [P, G]   raw scores, one row a prompt; any real dtype. Computed in float32 (float64 stays float64)
            step             number of the rollout: with `seed` and `keys` it draws the bundles
            valid [P, G]     bool, False where a response has no verdict; default: all have one
            keys             one stable string a prompt; default: its row
            -> .advantages [P, G] floating point, .bundle [P, G], .scores [n_bundles], .metrics {name: float}

            estimator = RiskPOEstimator(RiskPOConfig.preset("recommended"), seed=42)
            for step, batch in enumerate(rollouts):
                result = estimator.step(batch.rewards, step, keys=batch.prompts)
                loss = policy_gradient(batch, result.advantages)     # one A for all tokens of a response
                log(result.metrics)
            checkpoint["riskpo"] = estimator.state_dict()            # resume: estimator.load_state_dict(...)

        The same seed, step, keys and rewards give the same result for each prompt, whatever order the prompts came in.
        Raises `ValueError` for rewards that are not finite and for groups that are too small for the settings.
        """
        config, device = self.config, rewards.device
        rewards, valid = self._checked(rewards, valid, keys)
        draw = (config.bundle_size, self.seed, step, keys)
        if config.released:
            layout = released.draw_layout(rewards, valid, *draw)
        else:
            layout = draw_layout(rewards, valid, config.bundling, *draw)
        scores, full = layout.scores, layout.full_scores(config.bundle_size)
        sample = full if len(full) else scores  # a short bundle speaks for the batch only where none is full
        if not self.tracker.started:
            self.tracker.start(full)
        if self._first_step:
            self._warn_of_weak_start(layout)
        if config.released:
            A, *q = released.advantages(layout, config)
        else:
            q = self._quantiles(sample)
            A = self._advantages(layout, *q)
        numbers = {
            **metrics.quantile_metrics(q, self.tracker.values, sample),
            **metrics.score_metrics(sample, config.alpha, config.beta, config.omega),
            **metrics.region_metrics(scores, *q),
            **metrics.advantage_metrics(A, layout.valid),
            **metrics.signal_metrics(layout.rewards, layout.valid),
        }
        self.tracker.update(full)
        self._first_step = False
        return RiskPOAdvantages(
            layout.restore(A).to(device, rewards.dtype),
            layout.bundle_ids().to(device),
            scores.to(device, rewards.dtype),
            numbers,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain Python values: version, config, tracker."""
        return {"version": STATE_VERSION, "config": self.config.to_dict(), "tracker": self.tracker.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`.

        Raises `ValueError` if levels, bundle size or bundling differ from the checkpoint's: tracked quantiles mean
        nothing for other bundles. With `resume_changed` the tracker restarts instead, and the log says so.
        """
        if state["version"] != STATE_VERSION:
            raise ValueError(
                f"the checkpoint holds RiskPO state of version {state['version']!r}; this release reads version "
                f"{STATE_VERSION}: resume with the release that wrote it"
            )
        own, theirs = _bundles_by(self.config.to_dict()), _bundles_by(state["config"])
        changed = [
            f"{FLAG_PREFIX}{name} {own[name]} (checkpoint {theirs[name]})" for name in own if own[name] != theirs[name]
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
        c = self.config
        return QuantileTracker([c.alpha, c.beta], c.tracker_lr, c.tracker_decay)

    def _quantiles(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return q_alpha, q_beta (0-dim): the tracked values, or the empirical quantiles of `sample [n]`."""
        values = self.tracker.values
        if self.config.quantile_source == "batch" or not self.tracker.started:
            levels = (self.config.alpha, self.config.beta)
            values = [empirical_quantile(sample, level) if len(sample) else 0.0 for level in levels]
        return tuple(sample.new_tensor(value) for value in values)

    def _advantages(self, layout: Layout, q_alpha: Tensor, q_beta: Tensor) -> Tensor:
        """Compute A `[P, G]` in bundle order: by bundle, given back to responses, over the group's statistic."""
        c, A = self.config, torch.empty_like(layout.rewards)
        advantage = risk.mvar_advantage if c.profile == "averse" else risk.risk_seeking_advantage
        for part in layout.parts:
            if c.credit == "counterfactual":
                A[:, part.columns] = counterfactual(layout, part, q_alpha, q_beta, c.omega, c.profile)
            else:
                of_bundles = advantage(part.scores, q_alpha, q_beta, c.omega, c.constant)
                A[:, part.columns] = uniform(of_bundles, layout, part)
        if c.normalization == "none":
            return A
        return groups.divide(A, groups.DIVISORS[c.normalization](layout.rewards, layout.valid))

    def _checked(self, rewards: Tensor, valid: Tensor | None, keys: Sequence[str] | None) -> tuple[Tensor, Tensor]:
        """Make rewards float32 or float64 and valid bool, on the CPU. Raises `ValueError` for unusable ones."""
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
        return groups.settle(rewards, valid), valid

    def _warn_of_weak_start(self, layout: Layout) -> None:
        c = self.config
        passed = torch.count_nonzero(layout.rewards > 0).item() / max(torch.count_nonzero(layout.valid).item(), 1)
        if (c.released, c.credit, c.constant, c.profile) == ("", "uniform", True, "averse") and passed < WEAK_START:
            logger.warning(
                "RiskPO starts at a pass rate of %.2f with the paper's advantage, which is never positive: weak "
                "models have unlearned with it (docs/method.md, section 9). Watch riskpo/score_mean; "
                "%spreset recommended and %scredit counterfactual have no such offset",
                passed,
                FLAG_PREFIX,
                FLAG_PREFIX,
            )


def _bundles_by(config: dict[str, Any]) -> dict[str, Any]:
    """Select the settings that give tracked quantiles their meaning. All presets released-* bundle alike."""
    found = {name: config[name] for name in SETTINGS_OF_QUANTILES}
    return found | ({"bundling": "of the presets released-*"} if config["released"] else {})
