"""Responses as OpenRLHF's generator makes them, with missing verdicts kept apart from wrong answers."""

from __future__ import annotations

from collections.abc import Callable

import ray
import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from riskpo_openrlhf.config import FLAG_PREFIX, RiskPOConfig
from riskpo_openrlhf.integration.arguments import config_from_args, uses_riskpo
from riskpo_openrlhf.integration.rewards import number
from riskpo_openrlhf.integration.watch import beat


class VerifierError(RuntimeError):
    """Too many responses have no verdict. The message carries the verifier's own error."""


def stop_on_failed_verifier(failed: int, responses: int, config: RiskPOConfig, last_error: Callable[[], str]) -> None:
    """Raise `VerifierError` if more than the allowed share of `responses` has no verdict."""
    if failed > config.max_error_share * responses:
        raise VerifierError(
            f"{failed} of {responses} responses of this rollout have no verdict (missing or non-finite reward), more "
            f"than {FLAG_PREFIX}max_error_share {config.max_error_share:g} allows. The verifier's last error: "
            f"{last_error()}. Mend the reward function (--reward.remote_url, --train.agent_func_path) or the reward "
            "model, or raise that share if failures are expected."
        )


def last_reward_error(vllm_engines) -> str:
    """Return the last exception of the reward function in any engine. `RiskPORolloutActor` keeps it."""
    errors = ray.get([engine.last_reward_error.remote() for engine in vllm_engines or []])
    return next((error for error in errors if error), "it raised none; rewards were missing or not finite")


class RiskPOSamplesGenerator(SamplesGenerator):
    """OpenRLHF's generator; a missing or non-finite reward becomes score NaN (no verdict) and reward 0.

    OpenRLHF logs a reward function's exception at INFO and leaves None behind. That ends in a crash far away or, with
    dynamic filtering, in a job that trains on nothing. `eval_samples` holds the responses of the latest evaluation.
    """

    def __init__(self, strategy, *args, **kwargs):
        super().__init__(strategy, *args, **kwargs)
        self._config = config_from_args(strategy.args)
        self._responses = self._failed = 0
        self.eval_samples: list[Experience] = []

    def _process_response_into_experience(self, response, **generate_kwargs) -> Experience:
        beat("generation")
        if not self.args.reward.remote_url:
            return super()._process_response_into_experience(response, **generate_kwargs)
        reward, score = response.get("reward"), response.get("scores")
        reward, score = number(reward), number(reward if score is None else score)
        failed = reward is None or score is None
        logs = {name: number(value) or 0.0 for name, value in (response.get("extra_logs") or {}).items()}
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
            self._check_verdicts()  # dynamic filtering may replace failed groups until the data is used up
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
        """Check the share of missing verdicts since the last call, responses that filtering dropped included."""
        responses, failed, self._responses, self._failed = self._responses, self._failed, 0, 0
        if failed:
            stop_on_failed_verifier(failed, responses, self._config, lambda: last_reward_error(self.vllm_engines))
