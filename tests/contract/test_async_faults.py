"""A fault of the asynchronous generator: what was generated before it is trained on, and the last step is kept."""

import pickle
from queue import Queue
from types import SimpleNamespace

import pytest

from riskpo_openrlhf.integration import resume, trainers
from riskpo_openrlhf.integration.contract import plain_class
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.samples import VerifierError


@pytest.mark.parametrize("fault", [VerifierError("no verdict", "mend it"), ValueError("no verdict")])
def test_the_training_driver_raises_the_generators_fault_after_the_rollouts_before_it(fault, monkeypatch):
    queue, done = Queue(), []
    actors = trainers.ppo_trainer_async

    def generate(self, episode, consumed):
        self.rollout_queue.put((["samples"], {"episode": 0}, None, 0.0))
        raise fault

    def train_step(self, samples, step):
        done.append("trained")
        return {}, step + 1

    monkeypatch.setattr(plain_class(actors.GenerateSamplesActor), "fit", generate)
    monkeypatch.setattr(trainers.RiskPOTrainingActor, "train_step", train_step)
    monkeypatch.setattr(trainers.RiskPOTrainingActor, "save_logs_and_checkpoints", lambda self, *more: None)
    monkeypatch.setattr(resume, "keep_last_step", lambda driver: done.append("kept"))
    generator = object.__new__(trainers.RiskPOGenerateSamplesActor)
    generator.rollout_queue = queue
    generator.samples_generator = SimpleNamespace(nothing_kept=lambda: RunFault("x", "y"))
    generator.fit(0, 0)  # returns: an error here would end the run at once, and hide the first cause
    assert queue.queue[-1] == (resume.FAULT, fault)  # Ray's queue takes no bare error of Ray's
    trainer = object.__new__(trainers.RiskPOTrainingActor)
    trainer.rollout_queue, trainer.rollout_slots = resume.PutBack(queue), Queue()
    trainer.args = SimpleNamespace(algo=SimpleNamespace(dynamic_filtering_enable=False))
    with pytest.raises(type(fault), match="no verdict"):
        trainer.fit()
    assert done == ["trained", "kept"]


def test_a_fault_passes_through_the_queue_of_ray():
    fault = pickle.loads(pickle.dumps(VerifierError("no verdict", "mend it")))
    assert isinstance(fault, VerifierError) and str(fault) == "no verdict. mend it"
