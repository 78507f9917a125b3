"""OpenRLHF's drivers with RiskPO's state in every checkpoint, and metrics.

With any other estimator they train as OpenRLHF does and only report more: a line per step, unbiased Pass@k, entropy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import openrlhf.trainer.ppo_trainer as ppo_trainer
import openrlhf.trainer.ppo_trainer_async as ppo_trainer_async
import ray

from riskpo_openrlhf import __version__
from riskpo_openrlhf.console import say
from riskpo_openrlhf.evaluation.in_training import evaluation_metrics
from riskpo_openrlhf.integration import resume
from riskpo_openrlhf.integration.arguments import method_flags, uses_riskpo
from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.engine_restarts import Engines, replaceable
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.guards import TrainingGuard
from riskpo_openrlhf.integration.launch import DRIVER, GENERATOR, LAUNCHER, replace_names
from riskpo_openrlhf.integration.samples import STEP, total_steps
from riskpo_openrlhf.integration.watch import beat, join

BEST_METRIC = "--ckpt.best_metric_key"
STATE_KEY = "riskpo"  # in the client state of OpenRLHF's checkpoints


class SafeLogger:
    """OpenRLHF's `TensorboardLogger`: an error of its disk is told once, and training goes on without the logs."""

    def __init__(self, logger):
        self._logger, self._failed = logger, False

    def log_train(self, global_step, logs_dict) -> None:
        self._try(self._logger.log_train, global_step, logs_dict)

    def log_eval(self, global_step, logs_dict) -> None:
        self._try(self._logger.log_eval, global_step, logs_dict)

    def close(self) -> None:
        self._try(self._logger.close)

    def _try(self, method, *args) -> None:
        if self._failed:
            return
        try:
            method(*args)
        except OSError as error:
            self._failed = True
            say(f"TensorBoard logs end here, training goes on: {error}; mend --logger.tensorboard_dir and resume")


class _RiskPODriver:
    """What the synchronous and the asynchronous driver share. Comes before OpenRLHF's class in the bases."""

    part = "driver"
    total_steps: int | None = None  # where it is known

    def __init__(self, pretrain, strategy, *args, **kwargs):
        join(self.part)
        replace_names(DRIVER)  # OpenRLHF's constructors look up the experience maker and the generator
        resume.seed_driver(strategy.args)
        super().__init__(pretrain, strategy, *args, **kwargs)
        self.unsaved: tuple[int, dict] | None = None  # the last step with its state, while the weights are those
        self._guard = TrainingGuard(self.args)
        if self.tensorboard_logger:
            self.tensorboard_logger = SafeLogger(self.tensorboard_logger)
        self._riskpo = uses_riskpo(self.args)
        if self._riskpo:
            say(self.experience_maker.config.describe(self.args.algo.riskpo.preset, method_flags(self.args)))

    def fit(self, global_step: int = 0, **more) -> None:
        try:
            super().fit(global_step, **more)
        except (RunFault, ValueError):
            resume.keep_last_step(self)
            raise

    def train_step(self, rollout_samples, global_step: int, **more):
        beat("training")
        self.experience_maker.step = global_step
        status, global_step = super().train_step(rollout_samples, global_step, **more)
        status.update(self.experience_maker.metrics)
        return status, global_step

    def ppo_train(self, global_steps, **more) -> dict:
        self.unsaved = None  # the weights change
        status = super().ppo_train(global_steps, **more)
        reports = ray.get(self.actor_model_group.async_run_method(method_name="training_report"))
        maker = self.experience_maker
        status.update(self._guard.after_update(status, reports, maker.uniform, maker.signal, global_steps + 1))
        return status

    def _detect_eval_metric_key(self, eval_metrics):
        self.best_eval_metric_key = without_eval_prefix(self.best_eval_metric_key, eval_metrics)
        key = super()._detect_eval_metric_key(eval_metrics)
        if key is None and self.best_eval_metric_key != "none":
            say(f"warning: no best checkpoint: {_unknown_metric(self.best_eval_metric_key, eval_metrics)}")
        return key

    def restore_best_checkpoint_state(self, checkpoint_states) -> None:
        flag, best = self.best_eval_metric_key, (self.best_eval_metric_value, self._latest_eval_metric_value)
        super().restore_best_checkpoint_state(checkpoint_states)
        saved = self.best_eval_metric_key
        if flag and flag.removeprefix("eval/") != saved.removeprefix("eval/"):
            if flag != "none":
                say(f"{BEST_METRIC} {flag} (checkpoint {saved}): the best checkpoint is chosen anew")
            self.best_eval_metric_key, (self.best_eval_metric_value, self._latest_eval_metric_value) = flag, best

    def broadcast_to_vllm(self, *args, **kwargs):
        beat("weight sync")
        super().broadcast_to_vllm(*args, **kwargs)
        beat("weight sync done")

    def _with_state(self, client_states: dict | None) -> dict:
        client_states = resume.saved(self, client_states)
        if not self._riskpo:
            return client_states
        state = self.experience_maker.risk_estimator.state_dict()
        return {**client_states, STATE_KEY: {**state, "package_version": __version__}}

    def save_logs_and_checkpoints(self, global_step, logs_dict=None, client_states=None, **more):
        say(_step_text(logs_dict or {}, global_step, self.total_steps), step=global_step, steps=self.total_steps)
        beat("end of the step", step=global_step)
        states = self._with_state(client_states)
        super().save_logs_and_checkpoints(global_step, logs_dict, states, **more)
        if global_step % self.args.ckpt.save_steps == 0:
            self.finish_checkpoints()
        else:
            self.unsaved = (global_step, states)

    def save_best_checkpoint(self, eval_metrics, global_step, client_states=None, **more):
        super().save_best_checkpoint(eval_metrics, global_step, self._with_state(client_states), **more)
        self.finish_checkpoints()

    def finish_checkpoints(self) -> None:
        """Let checkpoints count that every actor has written."""
        ray.get(self.actor_model_group.async_run_method(method_name="finish_checkpoints"))

    def init_checkpoint_states(self, **more) -> dict:
        if self.args.ckpt.load_enable and not os.path.exists(os.path.join(self.args.ckpt.path, "_actor")):
            say(f"there is no checkpoint in {self.args.ckpt.path}: the run starts from the beginning")
        states = resume.restored(self, super().init_checkpoint_states(**more))
        self.resumed = {name: states[name] for name in resume.BEGINNING}
        self._guard.resumed_at = states.get("global_step") or 0
        if states.get("global_step"):
            say(f"resumed at step {states['global_step']}")
            resume.start_logging_after(self, states["global_step"])
            if self._riskpo and states.get(STATE_KEY):
                self.experience_maker.risk_estimator.load_state_dict(states[STATE_KEY])
            elif self._riskpo:
                say("the checkpoint is of a run without RiskPO: the quantile tracker starts afresh")
        return states


class RiskPOTrainer(_RiskPODriver, plain_class(ppo_trainer.PPOTrainer)):
    """The driver of synchronous and colocated runs."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.total_steps = total_steps(self.args, len(self.prompts_dataloader))
        self.prompts_dataloader.generator = self.samples_generator
        self._engines = None
        if replaceable(self.args):
            self._engines = Engines(self.vllm_engines, self.actor_model_group, self.args.riskpo.reward_timeout)
            self.samples_generator.restore_engines = self._restore_engines

    def _restore_engines(self) -> None:
        if self._engines.mend():
            self.broadcast_to_vllm()

    def broadcast_to_vllm(self) -> None:
        if self._engines:
            self._engines.mend()
        super().broadcast_to_vllm()

    def init_checkpoint_states(self, **more) -> dict:
        states = super().init_checkpoint_states(**more)
        self.samples_generator.step_limit.steps = states["global_step"]
        if self.args.riskpo.eval_at_start and self.eval_dataloader and not states["global_step"]:
            settings = self.args.eval
            own = {"temperature": settings.temperature, "n_samples_per_prompt": settings.n_samples_per_prompt}
            metrics = self.evaluate(0, **self.generate_kwargs | own)
            require_known_metric(self.args.ckpt.best_metric_key, metrics)
        return states

    def fit(self, global_step: int = 0, **more) -> None:
        super().fit(global_step, **more)
        self._guard.require_trained(self.samples_generator.nothing_kept())

    def evaluate(self, global_step, **generate_kwargs):
        logs = super().evaluate(global_step, **generate_kwargs)
        ours = _pass_at_k(self, generate_kwargs["n_samples_per_prompt"])
        for logger in filter(None, (self.wandb_logger, self.tensorboard_logger)):
            logger.log_eval(global_step, ours)
        say(_eval_text(ours, global_step))
        return {**logs, **ours}


class RiskPOTrainingActor(_RiskPODriver, plain_class(ppo_trainer_async.TrainingActor)):
    """The driver of asynchronous runs; its rollouts come from `RiskPOGenerateSamplesActor`.

    Before it trains on, it waits for an evaluation that is due: a best checkpoint then holds the evaluated weights.
    """

    part = "training driver"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rollout_queue = resume.PutBack(self.rollout_queue)

    def train_step(self, rollout_samples, global_step: int, **more):
        if (evaluated := resume.evaluation_before(self, global_step)) is not None:
            _, step, metrics = evaluated
            self.rollout_slots.put(global_step, block=True)
            for logger in filter(None, (self.wandb_logger, self.tensorboard_logger)):
                logger.log_eval(step, metrics)
            self.save_best_checkpoint(metrics, step, self._states_at(global_step))
        return super().train_step(rollout_samples, global_step, **more)

    def _states_at(self, step: int) -> dict:
        """Return the client state of the step before, also right after a resume."""
        return {**self.resumed, **self._latest_client_states, "global_step": step}

    def init_checkpoint_states(self, **more) -> dict:
        states = super().init_checkpoint_states(**more)
        loader = {**states["data_loader_state_dict"], STEP: states["global_step"]}
        return {**states, "data_loader_state_dict": loader}

    def fit(self, global_step: int = 0, **more) -> None:
        super().fit(global_step, **more)
        self._guard.require_trained()


class RiskPOGenerateSamplesActor(plain_class(ppo_trainer_async.GenerateSamplesActor)):
    """The asynchronous generator, with our handling of missing verdicts and our evaluation metrics."""

    def __init__(self, pretrain, strategy, *args, **kwargs):
        join("generator")
        replace_names(GENERATOR)
        resume.seed_driver(strategy.args)
        super().__init__(pretrain, strategy, *args, **kwargs)
        self.prompts_dataloader.generator = self.samples_generator

    def load_state_dict(self, state_dict, **more):
        state = dict(state_dict)
        self.samples_generator.step_limit.steps = state.pop(STEP)
        super().load_state_dict(state, **more)

    def fit(self, episode: int, total_consumed_prompts: int, **more) -> None:
        try:
            super().fit(episode, total_consumed_prompts, **more)
        except (RunFault, ValueError) as error:  # raised by the training driver, which keeps its last step first
            self.rollout_queue.put((resume.FAULT, error), block=True)
            return
        if fault := self.samples_generator.nothing_kept():
            raise fault

    def _run_eval(self, **more):
        logs = super()._run_eval(**more)
        ours = _pass_at_k(self, self.args.eval.n_samples_per_prompt)
        say(_eval_text(ours))
        return {**logs, **ours}


class RiskPOTrainerAsync(plain_class(ppo_trainer_async.PPOTrainerAsync)):
    """Start the two actors above. The parent looks them up by name, in this actor's own process."""

    def __init__(self, *args, **kwargs):
        join("asynchronous launcher")
        replace_names(LAUNCHER)
        super().__init__(*args, **kwargs)


def without_eval_prefix(key: str, metrics: Mapping[str, float]) -> str:
    """Return the name by which OpenRLHF knows a metric: TensorBoard and docs/metrics.md put `eval/` before it."""
    plain = key.removeprefix("eval/")
    return plain if key not in metrics and plain in metrics else key


def _unknown_metric(key: str, metrics: Mapping[str, float]) -> str:
    return f"{BEST_METRIC} {key or '(not given)'} is none of the evaluation's metrics: {', '.join(sorted(metrics))}"


def require_known_metric(key: str | None, metrics: Mapping[str, float]) -> None:
    """Raise `RunFault` if the evaluation at the start has no metric of the given name."""
    if key and key != "none" and without_eval_prefix(key, metrics) not in metrics:
        cure = f"Give {BEST_METRIC} one of these names, or none, or leave it out"
        raise RunFault(_unknown_metric(key, metrics), cure)


def _pass_at_k(owner, n: int) -> dict[str, float]:
    samples, owner.samples_generator.eval_samples = owner.samples_generator.eval_samples, []
    return evaluation_metrics(samples, owner.eval_dataloader, n)


def _step_text(status: dict, step: int, total: int | None) -> str:
    parts = [f"step {step}{f'/{total}' if total else ''}", f"reward {status.get('rollout/reward_mean', 0):.3f}"]
    if "riskpo/q_alpha" in status:
        parts.append(f"q {status['riskpo/q_alpha']:.2f} {status['riskpo/q_beta']:.2f}")
    if "signal/prompts_all_wrong" in status:
        signal = 1 - status["signal/prompts_all_wrong"] - status["signal/prompts_all_right"]
        parts.append(f"signal {signal:.2f}")
    if "entropy" in status:
        parts.append(f"entropy {status['entropy']:.3f}")
    return " | ".join([*parts, f"{status.get('timing/step_total', 0):.1f} s"])


def _eval_text(metrics: dict, step: int | None = None) -> str:
    values = " | ".join(f"{name} {value:.3f}" for name, value in metrics.items() if re.search(r"/pass@\d+$", name))
    return f"eval{'' if step is None else f' at step {step}'} | {values}"
