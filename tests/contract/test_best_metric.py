"""`--ckpt.best_metric_key` in OpenRLHF's drivers: its name, its absence, and a name that no evaluation gives."""

from types import SimpleNamespace

import pytest

from riskpo_openrlhf.integration import resume, trainers, watch
from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.faults import RunFault

METRICS = {"aime/pass@4": 0.5, "eval_aime_pass1": 0.2}


def driver(kind, key):
    made = object.__new__(kind)
    made.best_eval_metric_key, made.best_eval_metric_value, made._latest_eval_metric_value = key, float("-inf"), None
    return made


@pytest.mark.parametrize("kind", [trainers.RiskPOTrainer, trainers.RiskPOTrainingActor])
@pytest.mark.parametrize(
    ("key", "found", "told"),
    [
        ("eval/aime/pass@4", "aime/pass@4", False),
        ("aime/pass@4", "aime/pass@4", False),
        ("", "eval_aime_pass1", False),
        ("none", None, False),
        ("eval/aime/pass@8", None, True),
    ],
)
def test_a_best_checkpoint_is_chosen_by_the_metric_that_the_flag_names(kind, key, found, told, capsys):
    assert driver(kind, key)._detect_eval_metric_key(METRICS) == found
    assert ("is none of the evaluation's metrics: aime/pass@4" in capsys.readouterr().out) == told


@pytest.mark.parametrize(
    ("key", "kept"), [("", 0.6), ("eval_aime_pass1", 0.6), ("aime/pass@4", float("-inf")), ("none", float("-inf"))]
)
def test_a_resumed_run_keeps_the_best_value_unless_the_flag_names_another_metric(key, kept, capsys):
    trainer = driver(trainers.RiskPOTrainer, key)
    trainer.restore_best_checkpoint_state({"best_eval_metric_key": "eval_aime_pass1", "best_eval_metric_value": 0.6})
    assert trainer.best_eval_metric_value == kept
    assert trainer.best_eval_metric_key == (key or "eval_aime_pass1")
    assert ("chosen anew" in capsys.readouterr().out) == (kept < 0 and key != "none")


@pytest.mark.parametrize("evaluated", ["before", "since"])
def test_a_step_that_is_kept_at_a_fault_carries_the_best_metric(evaluated, monkeypatch):
    monkeypatch.setattr("ray.get", lambda refs: refs)
    monkeypatch.setattr(watch._part, "latest", watch._part.latest)  # the step is noted there, for this test alone
    saved = []

    class Group:
        def async_run_method(self, method_name, **options):
            saved.append((method_name, options))
            return []

    trainer = driver(trainers.RiskPOTrainer, "")
    trainer.args = SimpleNamespace(
        ckpt=SimpleNamespace(save_steps=10, disable_ds=False, path="there"), logger=SimpleNamespace(logging_steps=1)
    )
    trainer.wandb_logger = trainer.tensorboard_logger = trainer.critic_model_group = None
    trainer.actor_model_group, trainer._riskpo, trainer.kl_ctl = Group(), False, SimpleNamespace(value=0.0)
    states, best = {"episode": 0, "global_step": 7}, ({"eval_aime_pass1": 0.6}, 7, {})
    if evaluated == "before":
        trainer.save_best_checkpoint(*best)
    trainer.save_logs_and_checkpoints(7, {}, states)
    if evaluated == "since":
        trainer.save_best_checkpoint(*best)
    saved.clear()
    resume.keep_last_step(trainer)
    (name, kept), finished = saved
    assert name == "save_checkpoint" and kept["tag"] == "global_step7" and finished[0] == "finish_checkpoints"
    assert (kept["metric_key"], kept["metric_value"]) == ("eval_aime_pass1", 0.6)
    resumed = driver(trainers.RiskPOTrainer, "")
    resumed.restore_best_checkpoint_state(kept["client_states"])
    assert resumed.best_eval_metric_value == 0.6


@pytest.mark.parametrize("key", ["eval/aime/pass@4", "none", ""])
def test_the_evaluation_at_the_start_refuses_a_metric_that_it_does_not_give(key, monkeypatch):
    states = {"global_step": 0, "episode": 0, "total_consumed_prompts": 0, "data_loader_state_dict": {}}
    monkeypatch.setattr(plain_class(trainers.ppo_trainer.PPOTrainer), "init_checkpoint_states", lambda self: states)
    monkeypatch.setattr(trainers.RiskPOTrainer, "evaluate", lambda self, step, **more: METRICS)
    trainer = driver(trainers.RiskPOTrainer, key)
    trainer.args = SimpleNamespace(
        ckpt=SimpleNamespace(load_enable=False, path="nowhere", best_metric_key=key),
        riskpo=SimpleNamespace(eval_at_start=True), algo=SimpleNamespace(kl=SimpleNamespace(target=None)),
        eval=SimpleNamespace(temperature=1.0, n_samples_per_prompt=4),
    )  # fmt: skip
    trainer.samples_generator = SimpleNamespace(step_limit=SimpleNamespace(steps=0))
    trainer._guard, trainer.eval_dataloader, trainer.generate_kwargs = SimpleNamespace(), [0], {}
    trainer.init_checkpoint_states()
    trainer.args.ckpt.best_metric_key = "aime/pass@8"
    with pytest.raises(RunFault, match="--ckpt.best_metric_key aime/pass@8"):
        trainer.init_checkpoint_states()


def test_a_best_metric_may_have_tensorboards_prefix_and_an_unknown_one_is_told_with_those_that_exist():
    metrics = {"aime/pass@4": 0.5, "eval_aime_pass1": 0.2, "eval/odd": 1.0, "odd": 0.0}
    assert trainers.without_eval_prefix("eval/aime/pass@4", metrics) == "aime/pass@4"
    assert trainers.without_eval_prefix("eval/eval_aime_pass1", metrics) == "eval_aime_pass1"
    assert trainers.without_eval_prefix("eval/odd", metrics) == "eval/odd"
    assert trainers.without_eval_prefix("eval/aime/pass@8", metrics) == "eval/aime/pass@8"
    for known in ("", None, "none", *metrics, "eval/aime/pass@4"):
        trainers.require_known_metric(known, metrics)
    with pytest.raises(RunFault, match=r"key aime/pass@8 is none .*: aime/pass@4, eval/odd, eval_aime_pass1, odd"):
        trainers.require_known_metric("aime/pass@8", metrics)
