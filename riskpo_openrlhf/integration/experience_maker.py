"""Rewards to RiskPO advantages, in OpenRLHF's driver, where the quantile tracker lives."""

from __future__ import annotations

import itertools

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.length_penalty import apply_length_penalties

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.core.estimator import RiskPOEstimator
from riskpo_openrlhf.core.groups import centred, group_std
from riskpo_openrlhf.evaluation.in_training import content_text
from riskpo_openrlhf.integration.arguments import config_from_args, uses_riskpo
from riskpo_openrlhf.integration.guards import check_advantages, check_log_probs, uniform_log_prob
from riskpo_openrlhf.integration.samples import stop_on_failed_verifier

# The paper's levels and random bundles, quantiles of the batch itself; `constant` plays no part in the measures.
YARDSTICK = RiskPOConfig(quantile_source="batch", constant=False)


class RiskPOExperienceMaker(RemoteExperienceMaker):
    """Advantages by `core.estimator`; everything before (log-probabilities, KL) is OpenRLHF's."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.config = config_from_args(self.args)
        self.risk_estimator = RiskPOEstimator(self.config, seed=self.args.train.seed)
        self.step = 0  # set by the trainer before each batch; shuffles depend on it
        self.metrics: dict[str, float] = {}
        self.uniform: float | None = None  # the log-probability of every token of the rollout, if they are all equal
        self.signal = False  # whether any advantage of the rollout is not 0
        # The same for every run, so that runs by different methods and settings can be compared.
        self._yardstick = RiskPOEstimator(YARDSTICK, seed=self.args.train.seed)

    def make_experience(self, samples_list: list[Experience]) -> list[Experience]:
        """Get log-probabilities and KL as OpenRLHF does. Raises `RunFault` if they are not finite."""
        experiences = super().make_experience(samples_list)
        check_log_probs(experiences, self.step + 1)
        self.uniform = uniform_log_prob(experiences)
        return experiences

    @torch.no_grad()
    def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]:
        """Fill `advantages` and `returns` [responses, tokens] of every micro-batch, in place.

        Raises `RunFault` if an advantage is not finite.
        """
        experiences = self._with_advantages(experiences)
        check_advantages(experiences, self.step + 1)
        self.signal = any(bool(experience.advantages.any()) for experience in experiences)
        return experiences

    def _with_advantages(self, experiences: list[Experience]) -> list[Experience]:
        if not uses_riskpo(self.args):
            self.metrics = self._measure(*self._scores(experiences))
            experiences = super().compute_advantages_and_returns(experiences)
            share = 1 - self.metrics["signal/grpo_zero_share"]
            if self.args.actor.policy_loss_type == "gpg" and share:
                # GPG's alpha (arXiv:2504.02546): over the share of groups with signal
                for experience in experiences:
                    experience.advantages = experience.advantages / share
                    experience.returns = experience.returns / share
            return experiences
        sizes = [len(e.index) for e in experiences]
        scores, valid, keys, index = self._scores(experiences)
        group_size = scores.shape[1]
        if self.reward_model_group is not None:  # verdicts of reward functions were counted where they came in
            failed = int((~valid).sum())
            stop_on_failed_verifier(failed, valid.numel(), self.config, lambda: "the reward model's are not finite")
        for experience in experiences:
            experience.rewards = experience.rewards.float().nan_to_num(0.0, 0.0, 0.0)
        result = self.risk_estimator.step(scores, self.step, valid, keys)
        self.metrics = {**result.metrics, **self._measure(scores, valid, keys, index)}
        advantages = result.advantages

        apply_length_penalties(experiences, self.args)
        if self.config.shaped_rewards:
            shaped = _in_rollout_order(torch.cat([e.rewards for e in experiences]), index).view(-1, group_size)
            advantages = advantages + centred(shaped - scores, valid)
        stds = group_std(scores, valid, unbiased=True).expand_as(scores)

        parts = advantages.reshape(-1)[index].split(sizes), stds.reshape(-1)[index].split(sizes)
        for experience, advantage, std in zip(experiences, *parts, strict=True):
            if group_size > 1:
                experience.info["group_reward_std"] = std
            mask = experience.action_mask
            # What GRPO puts on the last token and sums back over the tokens is constant within a response.
            experience.returns = advantage.unsqueeze(-1) * mask
            penalty = self._kl_to_go(experience)
            experience.info["return"] = advantage.clone()
            if penalty is not None:
                experience.returns -= penalty
                experience.info["return"] -= penalty[:, 0]
            experience.advantages = experience.returns.clone()
            experience.kl = None
        return experiences

    def _scores(self, experiences: list[Experience]) -> tuple[torch.Tensor, torch.Tensor, list[str], torch.Tensor]:
        """Return raw scores [P, G] in rollout order (0 without a verdict), which are valid, prompt keys, the order."""
        group_size = self.args.rollout.n_samples_per_prompt
        raw = [(e.rewards if e.scores is None else e.scores).float() for e in experiences]
        # index: the place of each response in the rollout, where the responses of a prompt stand together
        index = torch.tensor(list(itertools.chain.from_iterable(e.index for e in experiences)))
        scores = _in_rollout_order(torch.cat(raw).view(-1), index).view(-1, group_size)
        valid = torch.isfinite(scores)
        return scores.nan_to_num(0.0, 0.0, 0.0), valid, _keys(experiences, index, group_size), index

    def _measure(self, scores: torch.Tensor, valid: torch.Tensor, keys: list[str], index: torch.Tensor) -> dict:
        """Measure tail and signal of this rollout's scores, by settings that are the same for every method."""
        metrics = self._yardstick.step(scores, self.step, valid, keys).metrics
        found = {f"risk/{name}": metrics[f"riskpo/{name}"] for name in ("mvar", "rvar_lower")}
        return {**found, **{name: value for name, value in metrics.items() if name.startswith("signal/")}}

    def _kl_to_go(self, experience: Experience) -> torch.Tensor | None:
        """Sum coefficient * KL from each response token to the end of the response, [responses, tokens].

        Return None if the KL is off or enters as a loss. The first column holds the sum over the whole response.
        """
        if self.args.algo.kl.use_loss or self.initial_model_group is None or self.kl_ctl.value <= 0:
            return None
        kl = experience.kl.float() * experience.action_mask
        return (kl.flip(-1).cumsum(-1).flip(-1)).mul_(self.kl_ctl.value)


def _in_rollout_order(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Put `values` [responses] of all micro-batches back to the places that `index` names."""
    ordered = torch.empty_like(values)
    ordered[index] = values
    return ordered


def _keys(experiences: list[Experience], index: torch.Tensor, group_size: int) -> list[str]:
    """Return one string per prompt, in rollout order: text, label and images, whenever the prompt arrived."""
    prompts, labels, images = (
        list(itertools.chain.from_iterable(getattr(e, name) for e in experiences))
        for name in ("prompts", "labels", "images")
    )
    first = _in_rollout_order(torch.arange(len(index)), index)[::group_size].tolist()
    return [f"{prompts[i]}\x1f{labels[i]}\x1f{content_text(images[i]) if images else ''}" for i in first]
