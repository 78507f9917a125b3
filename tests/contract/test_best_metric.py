"""`--ckpt.best_metric_key` in OpenRLHF's drivers: its name, its absence, and a name that no evaluation gives."""

from types import SimpleNamespace

import pytest

from riskpo_openrlhf.integration import trainers
from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.faults import RunFault

METRICS = {"aime/pass@4": 0.5, "eval_aime_pass1": 0.2}


def driver(kind, key):
    made = object.__new__(kind)
    made.best_eval_metric_key = key
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
