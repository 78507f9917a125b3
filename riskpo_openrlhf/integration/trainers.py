"""OpenRLHF's drivers with RiskPO's experience maker, tracker state in every checkpoint, and metrics.

`install` puts these classes where OpenRLHF's `train()` looks for its own. With any other estimator they train as
OpenRLHF does and only report more: a line a step, unbiased Pass@k, the entropy.
"""

from __future__ import annotations

import os
import re
import sys

import openrlhf.trainer.ppo_trainer as ppo_trainer
import openrlhf.trainer.ppo_trainer_async as ppo_trainer_async
import openrlhf.trainer.ray.ppo_actor as ppo_actor
import openrlhf.trainer.ray.vllm_engine as vllm_engine
import ray

from riskpo_openrlhf import __version__
from riskpo_openrlhf.evaluation.in_training import evaluation_metrics
from riskpo_openrlhf.integration import contract
from riskpo_openrlhf.integration.arguments import config_from_args, method_flags, uses_riskpo
from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.experience_maker import RiskPOExperienceMaker, RiskPOSamplesGenerator
from riskpo_openrlhf.integration.policy_loss import RiskPOPolicyActor
from riskpo_openrlhf.integration.rollout_actor import RiskPORolloutActor

STATE_KEY = "riskpo"  # in the client state of OpenRLHF's checkpoints


def say(message: str) -> None:
    """One line for people and for `cli.progress`."""
    print(f"[riskpo] {message}", flush=True)


class _RiskPODriver:
    """What the synchronous and the asynchronous driver share. Comes before OpenRLHF's class in the bases."""

    def _take_over(self) -> None:
        """Replace the experience maker that OpenRLHF's constructor made. Other estimators' advantages stay theirs."""
        self._riskpo = uses_riskpo(self.args)
        theirs = self.experience_maker
        self.experience_maker = RiskPOExperienceMaker(
            theirs.actor_model_group,
            theirs.critic_model_group,
            theirs.reward_model_group,
            theirs.initial_model_group,
            theirs.kl_ctl,
            theirs.strategy,
            theirs.tokenizer,
            config=config_from_args(self.args),
        )
        if self._riskpo:
            say(self.experience_maker.config.describe(self.args.algo.riskpo.preset, method_flags(self.args)))

    def train_step(self, rollout_samples, global_step: int):
        self.experience_maker.step = global_step
        status, global_step = super().train_step(rollout_samples, global_step)
        status.update(self.experience_maker.metrics)
        return status, global_step

    def _with_state(self, client_states: dict | None) -> dict | None:
        if not self._riskpo:
            return client_states
        state = self.experience_maker.risk_estimator.state_dict()
        return {**(client_states or {}), STATE_KEY: {**state, "package_version": __version__}}

    def save_logs_and_checkpoints(self, global_step, logs_dict=None, client_states=None):
        say(_step_line(logs_dict or {}, global_step, getattr(self, "total_steps", None)))
        super().save_logs_and_checkpoints(global_step, logs_dict, self._with_state(client_states))

    def save_best_checkpoint(self, eval_metrics, global_step, client_states=None):
        super().save_best_checkpoint(eval_metrics, global_step, self._with_state(client_states))

    def init_checkpoint_states(self) -> dict:
        states = super().init_checkpoint_states()
        if states.get("global_step"):
            say(f"resumed at step {states['global_step']}")
            if self._riskpo and states.get(STATE_KEY):
                self.experience_maker.risk_estimator.load_state_dict(states[STATE_KEY])
            elif self._riskpo:
                say("the checkpoint is of a run without RiskPO: the quantile tracker starts afresh")
        return states


class RiskPOTrainer(_RiskPODriver, plain_class(ppo_trainer.PPOTrainer)):
    """The driver of synchronous and colocated runs."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._take_over()
        self.samples_generator = _own_generator(self.samples_generator)
        if not self.args.algo.dynamic_filtering_enable:  # which draws more prompts than it keeps
            steps = -(-len(self.prompts_dataloader) // self.args.rollout.batch_size)
            self.total_steps = steps * self.args.train.num_episodes

    def fit(self, global_step: int = 0) -> None:
        resuming = self.args.ckpt.load_enable and os.path.exists(os.path.join(self.args.ckpt.path, "_actor"))
        if self.args.riskpo.eval_at_start and self.eval_dataloader and not resuming:
            eval_kwargs = {
                **self.generate_kwargs,
                "temperature": self.args.eval.temperature,
                "n_samples_per_prompt": self.args.eval.n_samples_per_prompt,
            }
            self.evaluate(0, **eval_kwargs)
        super().fit(global_step)

    def evaluate(self, global_step, **generate_kwargs):
        logs = super().evaluate(global_step, **generate_kwargs)
        ours = _pass_at_k(self, generate_kwargs["n_samples_per_prompt"])
        for logger in filter(None, (self.wandb_logger, self.tensorboard_logger)):
            logger.log_eval(global_step, ours)
        say(_eval_line(ours, global_step))
        return {**logs, **ours}


class RiskPOTrainingActor(_RiskPODriver, plain_class(ppo_trainer_async.TrainingActor)):
    """The driver of asynchronous runs; its rollouts come from `RiskPOGenerateSamplesActor`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._take_over()


class RiskPOGenerateSamplesActor(plain_class(ppo_trainer_async.GenerateSamplesActor)):
    """The asynchronous generator, with our handling of missing verdicts and our evaluation metrics."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.samples_generator = _own_generator(self.samples_generator)

    def _run_eval(self):
        logs = super()._run_eval()
        ours = _pass_at_k(self, self.args.eval.n_samples_per_prompt)
        say(_eval_line(ours))
        return {**logs, **ours}


class RiskPOTrainerAsync(plain_class(ppo_trainer_async.PPOTrainerAsync)):
    """Starts the two actors above. Its parent looks them up by name, in this actor's own process."""

    def __init__(self, *args, **kwargs):
        ppo_trainer_async.TrainingActor = ray.remote(RiskPOTrainingActor)
        ppo_trainer_async.GenerateSamplesActor = ray.remote(RiskPOGenerateSamplesActor)
        super().__init__(*args, **kwargs)


def install() -> None:
    """Put our classes where OpenRLHF's `train()` imports its own from, in the submitting process.

    Call it before `openrlhf.cli.train_ppo_ray` is imported. Raises `ContractError` if OpenRLHF is another one than
    expected, and `RuntimeError` if it is called too late.
    """
    if "openrlhf.cli.train_ppo_ray" in sys.modules:
        raise RuntimeError("call riskpo_openrlhf.install() before importing openrlhf.cli.train_ppo_ray")
    contract.check()
    ppo_trainer.PPOTrainer = ray.remote(RiskPOTrainer)
    ppo_trainer_async.PPOTrainerAsync = ray.remote(RiskPOTrainerAsync)
    ppo_actor.PolicyModelActor = ray.remote(num_gpus=1)(RiskPOPolicyActor)
    vllm_engine.RolloutRayActor = ray.remote(RiskPORolloutActor)


def _own_generator(theirs) -> RiskPOSamplesGenerator:
    return RiskPOSamplesGenerator(
        theirs.strategy, theirs.prompts_dataloader, theirs.eval_dataloader, theirs.tokenizer, theirs.vllm_engines
    )


def _pass_at_k(owner, n: int) -> dict[str, float]:
    samples, owner.samples_generator.eval_samples = owner.samples_generator.eval_samples, []
    return evaluation_metrics(samples, owner.eval_dataloader, n)


def _step_line(status: dict, step: int, total: int | None) -> str:
    parts = [f"step {step}{f'/{total}' if total else ''}", f"reward {status.get('rollout/reward_mean', 0):.3f}"]
    if "riskpo/q_alpha" in status:
        parts.append(f"q {status['riskpo/q_alpha']:.2f} {status['riskpo/q_beta']:.2f}")
    if "signal/prompts_all_wrong" in status:
        signal = 1 - status["signal/prompts_all_wrong"] - status["signal/prompts_all_right"]
        parts.append(f"signal {signal:.2f}")
    if "entropy" in status:
        parts.append(f"entropy {status['entropy']:.3f}")
    return " | ".join([*parts, f"{status.get('timing/step_total', 0):.1f} s"])


def _eval_line(metrics: dict, step: int | None = None) -> str:
    values = " | ".join(f"{name} {value:.3f}" for name, value in metrics.items() if re.search(r"/pass@\d+$", name))
    return f"eval{'' if step is None else f' at step {step}'} | {values}"
