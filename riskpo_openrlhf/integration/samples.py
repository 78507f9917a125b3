"""Responses as OpenRLHF's generator makes them, with missing verdicts kept apart from wrong answers."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from itertools import chain

import ray
import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
from ray.exceptions import RayError

from riskpo_openrlhf.config import FLAG_PREFIX, RiskPOConfig
from riskpo_openrlhf.console import say
from riskpo_openrlhf.integration import determinism
from riskpo_openrlhf.integration.arguments import config_from_args, uses_riskpo
from riskpo_openrlhf.integration.check_sizes import whole_groups
from riskpo_openrlhf.integration.engine_restarts import Replay, is_a_death, replaceable
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.filtering import FilterWatch
from riskpo_openrlhf.integration.final_flags import flat
from riskpo_openrlhf.integration.rewards import clean_logs, number
from riskpo_openrlhf.integration.watch import beat

STEP = "riskpo_step"  # in the loader's state, on its way from the asynchronous driver to the generator


class VerifierError(RunFault):
    """Too many responses have no verdict. The cause carries the verifier's own error."""


def stop_on_failed_verifier(failed: int, responses: int, config: RiskPOConfig, last_error: Callable[[], str]) -> None:
    """Raise `VerifierError` if more than the allowed share of `responses` has no verdict."""
    if failed > config.max_error_share * responses:
        raise VerifierError(
            f"{failed} of {responses} responses of this rollout have no verdict (missing or non-finite reward), more "
            f"than {FLAG_PREFIX}max_error_share {config.max_error_share:g} allows. The verifier's last error: "
            f"{last_error()}",
            "Mend the reward function (--reward.remote_url, --train.agent_func_path) or the reward model, or raise "
            "that share if failures are expected",
        )


def last_reward_error(vllm_engines) -> str:
    """Return the last exception of the reward function in any engine. `RiskPORolloutActor` keeps it."""
    errors = ray.get([engine.last_reward_error.remote() for engine in vllm_engines or []])
    return next((error for error in errors if error), "it raised none; rewards were missing or not finite")


class StepLimit:
    """`--riskpo.max_steps`: count the rollouts that the generator hands out. Each becomes one step of the driver.

    At the limit the generator reports the end of its data, so OpenRLHF ends the run as after its last episode.
    """

    def __init__(self, max_steps: int | None):
        self.max_steps, self.steps = max_steps, 0
        self._said = False

    def reached(self) -> bool:
        """Tell whether the run has all its rollouts, and say so once."""
        if self.max_steps is None or self.steps < self.max_steps:
            return False
        if not self._said:
            say(f"--riskpo.max_steps {self.max_steps} is reached: no further rollouts")
            self._said = True
        return True


def total_steps(args, prompts: int) -> int | None:
    """Return the number of steps of a run on `prompts` prompts an episode; None if filtering leaves it open.

    Say so if the episodes end before `--riskpo.max_steps`.
    """
    if args.algo.dynamic_filtering_enable:  # which draws more prompts than it keeps
        return None
    steps, limit = -(-prompts // args.rollout.batch_size) * args.train.num_episodes, args.riskpo.max_steps
    if limit is not None and steps < limit:
        say(
            f"note: the data give {steps} steps in {args.train.num_episodes} episodes, fewer than --riskpo.max_steps "
            f"{limit}: raise --train.num_episodes to train that long"
        )
    return steps if limit is None else min(steps, limit)


class RiskPOSamplesGenerator(SamplesGenerator):
    """OpenRLHF's generator; a missing or non-finite reward becomes score NaN (no verdict) and reward 0.

    OpenRLHF logs a reward function's exception at INFO and leaves None behind. That ends in a crash far away or, with
    dynamic filtering, in a job that trains on nothing. `eval_samples` holds the responses of the latest evaluation.
    """

    def __init__(self, strategy, *args, **kwargs):
        super().__init__(strategy, *args, **kwargs)
        self._config = config_from_args(strategy.args)
        self._responses = self._failed = 0
        rollout, algo = self.args.rollout, self.args.algo
        self.filter_watch: FilterWatch | None = None
        if algo.dynamic_filtering_enable:
            self.filter_watch = FilterWatch(
                algo.dynamic_filtering_range, rollout.batch_size, rollout.n_samples_per_prompt
            )
        self._evaluating = False
        for engine in self.vllm_engines:
            engine.begin_run.remote(self.args.riskpo.reward_timeout, replaceable(self.args))
        self.restore_engines: Callable[[], None] | None = None  # set by a driver that replaces engines
        self._pending: list = []
        self.eval_samples: list[Experience] = []
        self.step_limit = StepLimit(self.args.riskpo.max_steps)

    def _process_response_into_experience(self, response, **generate_kwargs) -> Experience:
        beat("generation")
        if not self.args.reward.remote_url:
            return super()._process_response_into_experience(response, **generate_kwargs)
        reward, score = response.get("reward"), response.get("scores")
        reward, score = number(reward), number(reward if score is None else score)
        failed = reward is None or score is None
        logs = clean_logs(response.get("extra_logs"), "the agent" if self.args.train.agent_func_path else "the reward")
        # Other estimators know no missing verdict: to them the response is wrong. Evaluations leave it out.
        no_score = float("nan") if self._evaluating or uses_riskpo(self.args) else 0.0
        verdict = {"reward": 0.0, "scores": no_score} if failed else {"reward": reward, "scores": score}
        experience = super()._process_response_into_experience(
            {**response, **verdict, "extra_logs": logs}, **generate_kwargs
        )
        if failed:
            experience.info["score"] = torch.zeros(1)  # logged means stay finite
        if self.filter_watch and not self._evaluating:
            self.filter_watch.add(verdict["scores"])
        self._responses, self._failed = self._responses + 1, self._failed + failed
        if self._responses % (self.args.rollout.batch_size * self.args.rollout.n_samples_per_prompt) == 0:
            self._check_verdicts()  # dynamic filtering may replace failed groups until the data is used up
        return experience

    def _dispatch_prompts_to_vllm(self, prompts, labels, **more):
        if self.args.train.full_determinism_enable:
            ray.get([engine.begin_draw.remote(determinism.draw_name(self)) for engine in self.vllm_engines])
        refs = super()._dispatch_prompts_to_vllm(prompts, labels, **more)
        if self.restore_engines:
            self._pending += refs
        return refs

    def _generate_vllm(self, dataloader_iter, **more):
        """Generate as OpenRLHF does; again from the first prompt if an engine dies and is replaced."""
        if not self.restore_engines:
            return super()._generate_vllm(dataloader_iter=dataloader_iter, **more)
        prompts, counts, watch = Replay(dataloader_iter), (self._responses, self._failed), copy(self.filter_watch)
        while True:
            try:
                made = super()._generate_vllm(dataloader_iter=prompts, **more)
                if left := prompts.left():  # with dynamic filtering, this time fewer groups were replaced
                    self._dataloader_iter = chain(left, dataloader_iter)
                return made
            except RayError as error:
                if not is_a_death(error):
                    raise
                for ref in self._pending:
                    ray.cancel(ref)
                self.restore_engines()
            finally:
                self._pending = []  # what a reference names stays in Ray's memory
            prompts.begin_again()
            (self._responses, self._failed), self.filter_watch = counts, copy(watch)

    def generate_samples(self, **generate_kwargs):
        if self.step_limit.reached():
            return [], None, 0, True  # as at the end of the data
        self._responses = self._failed = 0
        if self.restore_engines:
            self.restore_engines()
        samples, *rest = super().generate_samples(**generate_kwargs)
        if self.args.train.full_determinism_enable:
            samples = determinism.in_one_order(samples)
        self._check_verdicts()
        if self.args.algo.dynamic_filtering_enable:
            # Nobody knows the size of the last rollout before it comes; unequal shares would hang the ranks.
            kept = whole_groups(flat(self.args), len(samples))
            if kept < len(samples):
                left_out = f"{len(samples) - kept} of the last rollout's {len(samples)} responses"
                say(f"leaves out {left_out}: ranks need equal shares")
                samples = samples[:kept]
        self.step_limit.steps += bool(samples)
        # OpenRLHF merges `info` key by key across ranks, so every sample must carry the same keys, in one order.
        keys = sorted(set().union(*(sample.info for sample in samples)))
        for sample in samples:
            sample.info = {key: sample.info[key] if key in sample.info else torch.zeros(1) for key in keys}
        return samples, *rest

    def nothing_kept(self) -> RunFault | None:
        """Return the fault of a run whose groups were all filtered away so far; None without dynamic filtering."""
        return self.filter_watch and self.filter_watch.nothing_kept()

    def generate_eval_samples(self, **generate_kwargs) -> list[Experience]:
        if self.args.riskpo.eval_max_new_tokens is not None:
            generate_kwargs["max_new_tokens"] = self.args.riskpo.eval_max_new_tokens
        if self.restore_engines:
            self.restore_engines()
        self._evaluating = True
        self._responses = self._failed = 0
        try:
            self.eval_samples = super().generate_eval_samples(**generate_kwargs)
        finally:
            self._evaluating = False
        self._check_verdicts()
        return self.eval_samples

    def _check_verdicts(self) -> None:
        """Check the share of missing verdicts in this rollout so far, responses that filtering dropped included."""
        if self._failed:
            last_error = partial(last_reward_error, self.vllm_engines)
            stop_on_failed_verifier(self._failed, self._responses, self._config, last_error)
