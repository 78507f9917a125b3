"""Rewards to RiskPO advantages, in OpenRLHF's driver, where the quantile tracker lives."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import ray
import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.length_penalty import apply_length_penalties
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from riskpo_openrlhf.config import FLAG_PREFIX, RiskPOConfig
from riskpo_openrlhf.core.estimator import RiskPOEstimator
from riskpo_openrlhf.core.groups import centred, group_std
from riskpo_openrlhf.integration.arguments import config_from_args, uses_riskpo

# The paper's levels and random bundles, quantiles of the batch itself; `constant` plays no part in the measures.
YARDSTICK = RiskPOConfig(quantile_source="batch", constant=False)


class VerifierError(RuntimeError):
    """Too many responses have no verdict; the message carries the verifier's own error."""


def _number(value) -> float | None:
    """A reward as reward functions give it (a number, a list or tensor of one) -> float; None if it is not finite."""
    try:
        number = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number.item() if number.numel() == 1 and bool(number.isfinite()) else None


def stop_on_failed_verifier(failed: int, responses: int, config: RiskPOConfig, last_error: Callable[[], str]) -> None:
    """Raises `VerifierError` when more than the allowed share of `responses` has no verdict."""
    if failed > config.max_error_share * responses:
        raise VerifierError(
            f"{failed} of {responses} responses of this rollout have no verdict (missing or non-finite reward), more "
            f"than {FLAG_PREFIX}max_error_share {config.max_error_share:g} allows. The verifier's last error: "
            f"{last_error()}. Mend the reward function (--reward.remote_url, --train.agent_func_path) or the reward "
            "model, or raise that share if failures are expected."
        )


def last_reward_error(vllm_engines) -> str:
    """The last exception of the reward function in any engine (`RiskPORolloutActor` remembers it)."""
    errors = ray.get([engine.last_reward_error.remote() for engine in vllm_engines or []])
    return next((error for error in errors if error), "it raised none; rewards were missing or not finite")


class RiskPOSamplesGenerator(SamplesGenerator):
    """OpenRLHF's generator; a missing or non-finite reward becomes score NaN (no verdict) and reward 0.

    OpenRLHF logs a reward function's exception at INFO and leaves None behind, which ends in a crash far away or,
    with dynamic filtering, in a job that trains on nothing. `eval_samples` holds the latest evaluation's responses.
    """

    def __init__(self, strategy, *args, **kwargs):
        super().__init__(strategy, *args, **kwargs)
        known = hasattr(strategy.args.algo, "riskpo")  # not in a launch script that parses its flags by itself
        self._config = config_from_args(strategy.args) if known else RiskPOConfig()
        self._responses = self._failed = 0
        self.eval_samples: list[Experience] = []

    def _process_response_into_experience(self, response, **generate_kwargs) -> Experience:
        if not self.args.reward.remote_url:
            return super()._process_response_into_experience(response, **generate_kwargs)
        reward, score = response.get("reward"), response.get("scores")
        reward, score = _number(reward), _number(reward if score is None else score)
        failed = reward is None or score is None
        logs = {name: _number(value) or 0.0 for name, value in (response.get("extra_logs") or {}).items()}
        # Other estimators know no missing verdict: to them the response is wrong.
        no_score = float("nan") if uses_riskpo(self.args) else 0.0
        verdict = {"reward": 0.0, "scores": no_score} if failed else {"reward": reward, "scores": score}
        experience = super()._process_response_into_experience(
            {**response, **verdict, "extra_logs": logs}, **generate_kwargs
        )
        if failed:
            experience.info["score"] = torch.zeros(1)  # logged means stay finite
        self._responses, self._failed = self._responses + 1, self._failed + failed
        if self._responses == self.args.rollout.batch_size * self.args.rollout.n_samples_per_prompt:
            self._check_verdicts()  # dynamic filtering may go on replacing failed groups until the data is used up
        return experience

    def generate_samples(self, **generate_kwargs):
        samples, *rest = super().generate_samples(**generate_kwargs)
        self._check_verdicts()
        # OpenRLHF merges `info` key by key across ranks, so every sample must carry the same keys, in one order.
        keys = sorted(set().union(*(sample.info for sample in samples)))
        for sample in samples:
            sample.info = {key: sample.info.get(key, torch.zeros(1)) for key in keys}
        return samples, *rest

    def generate_eval_samples(self, **generate_kwargs) -> list[Experience]:
        self.eval_samples = super().generate_eval_samples(**generate_kwargs)
        self._check_verdicts()
        return self.eval_samples

    def _check_verdicts(self) -> None:
        """Over all responses since the last call, those that dynamic filtering dropped included."""
        responses, failed, self._responses, self._failed = self._responses, self._failed, 0, 0
        if failed:
            stop_on_failed_verifier(failed, responses, self._config, lambda: last_reward_error(self.vllm_engines))


class RiskPOExperienceMaker(RemoteExperienceMaker):
    """Advantages by `core.estimator`; everything before (log-probabilities, KL) is OpenRLHF's."""

    def __init__(self, *args, config: RiskPOConfig, **kwargs):
        super().__init__(*args, **kwargs)
        self.config = config
        self.risk_estimator = RiskPOEstimator(config, seed=self.args.train.seed)
        self.step = 0  # set by the trainer before each batch; shuffles depend on it
        self.metrics: dict[str, float] = {}
        # The same for every run, so that runs by different methods and settings can be compared.
        self._yardstick = RiskPOEstimator(YARDSTICK, seed=self.args.train.seed)

    @torch.no_grad()
    def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]:
        """Fill `advantages` and `returns` [responses, tokens] of every micro-batch, in place."""
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
        """Raw scores `[P, G]` in rollout order (0 without a verdict), who has one, keys of prompts, the order."""
        group_size = self.args.rollout.n_samples_per_prompt
        raw = [(e.rewards if e.scores is None else e.scores).float() for e in experiences]
        # index: the place of each response in the rollout, where the responses of a prompt stand together
        index = torch.tensor(list(itertools.chain.from_iterable(e.index for e in experiences)))
        scores = _in_rollout_order(torch.cat(raw).view(-1), index).view(-1, group_size)
        valid = torch.isfinite(scores)
        return scores.nan_to_num(0.0, 0.0, 0.0), valid, _keys(experiences, index, group_size), index

    def _measure(self, scores: torch.Tensor, valid: torch.Tensor, keys: list[str], index: torch.Tensor) -> dict:
        """The tail and the signal of this rollout's scores, by settings that are the same for every method."""
        metrics = self._yardstick.step(scores, self.step, valid, keys).metrics
        found = {f"risk/{name}": metrics[f"riskpo/{name}"] for name in ("mvar", "rvar_lower")}
        return {**found, **{name: value for name, value in metrics.items() if name.startswith("signal/")}}

    def _kl_to_go(self, experience: Experience) -> torch.Tensor | None:
        """KL in the reward: sum of coefficient * KL from each response token to the end, [responses, tokens].

        None when the KL is off or enters as a loss. The first column holds the whole response's sum.
        """
        if self.args.algo.kl.use_loss or self.initial_model_group is None or self.kl_ctl.value <= 0:
            return None
        kl = experience.kl.float() * experience.action_mask
        return (kl.flip(-1).cumsum(-1).flip(-1)).mul_(self.kl_ctl.value)


def _in_rollout_order(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    ordered = torch.empty_like(values)
    ordered[index] = values
    return ordered


def _keys(experiences: list[Experience], index: torch.Tensor, group_size: int) -> list[str]:
    """One string a prompt, in rollout order, that does not depend on when it arrived: text, label and images."""
    prompts, labels, images = (
        list(itertools.chain.from_iterable(getattr(e, name) for e in experiences))
        for name in ("prompts", "labels", "images")
    )
    first = _in_rollout_order(torch.arange(len(index)), index)[::group_size].tolist()
    return [f"{prompts[i]}\x1f{labels[i]}\x1f{images[i] if images else ''}" for i in first]
