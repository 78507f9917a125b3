"""RiskPO's policy losses where OpenRLHF's policy workers look for theirs.

`core.losses` computes a loss per token. OpenRLHF's own `PolicyLoss` then weighs it by the rollout-mismatch correction
and reduces it, so that `--algo.advantage.is_correction_*` and data-parallel averaging work unchanged.
"""

from __future__ import annotations

import torch
from openrlhf.models import PolicyLoss
from openrlhf.models.utils import masked_mean
from openrlhf.trainer.ray import ppo_actor
from openrlhf.utils.loss_utils import get_loss_batch_info

from riskpo_openrlhf.core.losses import gmpo_loss, gpg_loss, sequence_clipped_loss
from riskpo_openrlhf.integration.arguments import POLICY_LOSSES
from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.guards import NO_UPDATE, Report, WeightWatch
from riskpo_openrlhf.integration.launch import WORKER, replace_names
from riskpo_openrlhf.integration.ports import HoldsPort
from riskpo_openrlhf.integration.watch import beat, join


class RiskPOPolicyLoss(PolicyLoss):
    """OpenRLHF's loss, with `--actor.policy_loss_type riskpo | gmpo | gpg` besides. Takes OpenRLHF's arguments.

    riskpo: Eq. 3 of arXiv:2510.00911. gmpo: arXiv:2507.20673. gpg: arXiv:2504.02546. Any other type is computed by
    OpenRLHF. `token_level_loss` False is a mean over responses, as the first two papers have it; `arguments.resolve`
    sets it for them unless `--actor.loss_agg_mode` is given.
    With a loss of ours, `clip_low` and `clip_high` hold the shares of response tokens on which each clip was active.
    """

    def __init__(
        self,
        clip_eps_low: float = 0.2,
        clip_eps_high: float = 0.2,
        dual_clip: float | None = None,
        token_level_loss: bool = True,
        policy_loss_type: str = "ppo",
        **correction,
    ):
        # With a loss of ours the parent, as "ppo", applies the correction and reduces. It must not clip again.
        self_made = policy_loss_type in POLICY_LOSSES
        kind, clip = ("ppo", None) if self_made else (policy_loss_type, dual_clip)
        super().__init__(clip_eps_low, clip_eps_high, clip, token_level_loss, kind, **correction)
        self.kind = policy_loss_type
        self.sequence_dual_clip = dual_clip
        self.clip_low = self.clip_high = torch.zeros(())

    def forward(
        self,
        log_probs: torch.Tensor,
        old_log_probs: torch.Tensor,
        advantages: torch.Tensor,
        action_mask: torch.Tensor | None = None,
        rollout_log_probs: torch.Tensor | None = None,
        **reduction,
    ):
        """All tensors [responses, tokens]. Return OpenRLHF's five: loss, clip share, ppo_kl, vllm_kl, filtered."""
        if self.kind not in POLICY_LOSSES:
            return super().forward(log_probs, old_log_probs, advantages, action_mask, rollout_log_probs, **reduction)
        if self.kind == "gpg":
            terms = gpg_loss(log_probs, old_log_probs, advantages, action_mask)
        elif self.kind == "gmpo":
            terms = gmpo_loss(log_probs, old_log_probs, advantages, action_mask, self.clip_eps_low, self.clip_eps_high)
        else:
            terms = sequence_clipped_loss(
                log_probs, old_log_probs, advantages, action_mask, self.clip_eps_low, self.clip_eps_high,
                self.sequence_dual_clip,
            )  # fmt: skip
        self.clip_low, self.clip_high = terms.clip_low.detach(), terms.clip_high.detach()
        # What padding holds must not enter here either.
        old_log_probs = torch.where(action_mask.bool(), old_log_probs, 0)
        # At ratio 1 the parent's surrogate is its advantage, here minus our loss: it corrects and reduces, no more.
        loss, _, _, vllm_kl, is_filter_ratio = super().forward(
            old_log_probs, old_log_probs, -terms.loss, action_mask, rollout_log_probs, **reduction
        )
        moved = torch.where(action_mask.bool(), old_log_probs - log_probs.detach(), 0)
        ppo_kl = masked_mean(moved, action_mask)
        return loss, self.clip_low + self.clip_high, ppo_kl, vllm_kl, is_filter_ratio


class RiskPOActorPPOTrainer(ppo_actor.ActorPPOTrainer):
    """OpenRLHF's policy trainer, which also logs `clip/*` with a loss of ours, and the mean entropy."""

    weight_watch: WeightWatch | None = None  # from the first update on

    def training_step(self, experience, kl_ctl, step, loss_batch_info=None, **more):
        beat("training")
        if loss_batch_info is None:  # dynamic batching: what the parent would compute
            loss_batch_info = get_loss_batch_info(
                self.strategy, experience.action_mask, replay_buffer=self.replay_buffer, step=step, dynamic_batch=True
            )
        self.weight_watch.before_backward()
        status = super().training_step(experience, kl_ctl, step, loss_batch_info, **more)
        metrics, weights = status["metrics"], status["weights"]
        if "actor_grad_norm" in metrics:  # an optimizer step
            self.weight_watch.after_backward(metrics["actor_grad_norm"])
        if self.args.actor.policy_loss_type in POLICY_LOSSES:
            metrics["clip/low"], metrics["clip/high"] = self.actor_loss_fn.clip_low, self.actor_loss_fn.clip_high
            weights["clip/low"] = weights["clip/high"] = "token"
        if "entropy_loss" in metrics:
            # entropy_loss is scaled for the gradient, by the tokens of the whole optimizer step; here is the mean.
            scale = loss_batch_info["batch_num_tokens"] / loss_batch_info["dp_size"]
            metrics["entropy"] = metrics["entropy_loss"] * scale / experience.action_mask.sum().clamp(min=1)
            weights["entropy"] = "token"
        return status


class RiskPOPolicyActor(HoldsPort, plain_class(ppo_actor.PolicyModelActor)):
    """The policy worker. Its parent looks up `ActorPPOTrainer`, and that one `PolicyLoss`, in this process."""

    _report = NO_UPDATE

    def init_model_from_pretrained(self, *args, **kwargs):
        join(f"policy worker {self._rank}")
        replace_names(WORKER)
        result = super().init_model_from_pretrained(*args, **kwargs)
        self.strategy.require_shared_folder()
        return result

    def finish_checkpoints(self) -> None:
        """Make the checkpoint count that all actors, the critic's included, have written. All ranks are called."""
        self.strategy.finish_checkpoints()

    def join_engines(self) -> None:
        """Make a new group for the weight sync, with engines that were replaced. All ranks are called."""
        if self._rank == 0 and not self.trainer.use_cuda_ipc:
            self.trainer._init_vllm_sync_group(self.strategy.args.vllm.sync_backend)

    def fit(self, *args, **kwargs):
        """Update the policy, as OpenRLHF does; then look at this rank's weights, while they are loaded."""
        if self.trainer.weight_watch is None:
            self.trainer.weight_watch = WeightWatch(self.actor.model)
        status = super().fit(*args, **kwargs)
        self._report = self.trainer.weight_watch.report()
        return status

    def training_report(self) -> Report:
        """Tell the driver what the latest update did to this rank's weights."""
        return self._report

    def forward(self, *args, **kwargs):
        beat("log-probabilities")
        return super().forward(*args, **kwargs)
