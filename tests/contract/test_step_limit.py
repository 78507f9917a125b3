"""`--riskpo.max_steps` in OpenRLHF's own loops, with engines and optimizer left out."""

import threading
from queue import Queue
from types import SimpleNamespace

import pytest
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.integration import trainers
from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.samples import RiskPOSamplesGenerator, StepLimit, total_steps

EPISODE = 3  # rollouts


def make_args(max_steps=None, **riskpo):
    return SimpleNamespace(
        algo=SimpleNamespace(
            advantage=SimpleNamespace(estimator="riskpo"),
            riskpo=SimpleNamespace(preset="paper", **RiskPOConfig().to_dict()),
            dynamic_filtering_enable=False,
        ),
        riskpo=SimpleNamespace(
            max_steps=max_steps, eval_at_start=False, reward_timeout=600.0, **{"eval_max_new_tokens": None, **riskpo}
        ),
        train=SimpleNamespace(num_episodes=4, full_determinism_enable=False),
        eval=SimpleNamespace(steps=float("inf"), dataset=None),
        ckpt=SimpleNamespace(load_enable=False, path="nowhere"),
        rollout=SimpleNamespace(batch_size=1, n_samples_per_prompt=1),
    )


@pytest.fixture
def make_generator(monkeypatch):
    """A generator of ours; OpenRLHF's part of it gives one sample a rollout and `EPISODE` rollouts an episode."""

    def rollouts(self, **generate_kwargs):
        self.made = getattr(self, "made", 0) + 1
        return [SimpleNamespace(info={})], None, 1, self.made % EPISODE == 0

    monkeypatch.setattr(SamplesGenerator, "generate_samples", rollouts)
    return lambda args: RiskPOSamplesGenerator(SimpleNamespace(args=args), range(EPISODE), None, None, [])


@pytest.fixture
def driver_parts(monkeypatch):
    """Attributes that both drivers' loops read; the steps they make are in `steps`."""
    steps = []
    monkeypatch.setattr(trainers._RiskPODriver, "train_step", lambda self, samples, step: ({}, step + 1))
    monkeypatch.setattr(
        trainers._RiskPODriver, "save_logs_and_checkpoints", lambda self, step, *states: steps.append(step)
    )
    shared = dict(
        _riskpo=False, wandb_logger=None, tensorboard_logger=None, generate_kwargs={}, eval_dataloader=None,
        _guard=SimpleNamespace(require_trained=lambda *faults: None), broadcast_to_vllm=lambda: None,
        restore_best_checkpoint_state=lambda states: None,
    )  # fmt: skip
    return steps, shared


class Loader:
    loaded = None

    def __len__(self):
        return EPISODE

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        self.loaded = state


def resumed_at(step, monkeypatch):
    states = {"episode": 0, "global_step": step, "total_consumed_prompts": step, "data_loader_state_dict": {"at": 1}}
    for theirs in (trainers.ppo_trainer.PPOTrainer, trainers.ppo_trainer_async.TrainingActor):
        monkeypatch.setattr(plain_class(theirs), "init_checkpoint_states", lambda self: dict(states))


def run_synchronous(args, generator, shared):
    trainer = object.__new__(trainers.RiskPOTrainer)
    trainer.__dict__ = {**shared, "args": args, "samples_generator": generator, "prompts_dataloader": Loader()}
    trainer.fit()


def run_asynchronous(args, generator, shared):
    queues = dict(rollout_queue=Queue(1), rollout_slots=Queue(1), _partial_rollout=True)
    queues["rollout_slots"].put(0)
    driver = object.__new__(trainers.RiskPOTrainingActor)
    driver.__dict__ = {**shared, **queues, "args": args}
    maker = object.__new__(trainers.RiskPOGenerateSamplesActor)
    maker.__dict__ = {**shared, **queues, "args": args, "samples_generator": generator, "prompts_dataloader": Loader()}
    states = driver.init_checkpoint_states()
    if states["global_step"]:  # as `PPOTrainerAsync.fit` does
        maker.load_state_dict(states["data_loader_state_dict"])
        assert maker.prompts_dataloader.loaded == {"at": 1}
    thread = threading.Thread(target=maker.fit, args=(0, 0), daemon=True)
    thread.start()
    driver.fit(states["global_step"])
    thread.join(10)
    assert not thread.is_alive()


MODES = pytest.mark.parametrize("run", [run_synchronous, run_asynchronous])


@MODES
@pytest.mark.parametrize("limit", [1, EPISODE - 1, EPISODE, 2 * EPISODE + 1, 100, None])
def test_a_run_makes_as_many_steps_as_asked_for_or_as_its_episodes_have(
    run, limit, make_generator, driver_parts, monkeypatch
):
    steps, shared = driver_parts
    run(args := make_args(limit), make_generator(args), shared)
    assert steps == list(range(1, 1 + min(limit or 100, 4 * EPISODE)))


@MODES
def test_a_resumed_run_counts_on(run, make_generator, driver_parts, monkeypatch):
    steps, shared = driver_parts
    resumed_at(4, monkeypatch)
    run(args := make_args(6), make_generator(args), shared)
    assert steps == [5, 6]
    run(args := make_args(4), make_generator(args), shared)
    assert steps == [5, 6]  # none was left


def test_the_number_of_steps_that_is_shown_is_the_smaller_one_and_too_few_episodes_are_told(capsys):
    assert [total_steps(make_args(limit), 3) for limit in (None, 5, 12)] == [12, 5, 12]
    assert "note" not in capsys.readouterr().out
    assert total_steps(make_args(20), 3) == 12
    assert "12 steps in 4 episodes, fewer than --riskpo.max_steps 20" in capsys.readouterr().out
    args = make_args()
    args.rollout.batch_size = 2
    assert total_steps(args, 3) == 8  # the second step of an episode has one prompt
    args.algo.dynamic_filtering_enable = True
    assert total_steps(args, 3) is None


def test_the_end_of_the_steps_is_told_once(capsys):
    limit = StepLimit(2)
    assert [limit.reached() for limit.steps in (1, 2, 2)] == [False, True, True]
    assert capsys.readouterr().out.count("--riskpo.max_steps 2 is reached") == 1


def test_evaluations_take_their_own_length_and_training_keeps_its_own(make_generator, monkeypatch):
    asked = []
    monkeypatch.setattr(
        SamplesGenerator, "generate_eval_samples", lambda self, **kwargs: asked.append(kwargs["max_new_tokens"]) or []
    )
    make_generator(make_args(eval_max_new_tokens=7)).generate_eval_samples(max_new_tokens=3)
    make_generator(make_args()).generate_eval_samples(max_new_tokens=3)
    assert asked == [7, 3]
