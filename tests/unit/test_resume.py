"""The driver's part of a resume: prompts in their order, and evaluations of the weights that they belong to."""

import pickle
from contextlib import nullcontext
from itertools import islice
from queue import Queue
from types import SimpleNamespace

import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from riskpo_openrlhf.integration import resume


def loader(prompts: int, seed: int = 3) -> resume.PromptLoader:
    """A loader as OpenRLHF makes it: one prompt a batch, shuffled."""
    resume.seed_driver(SimpleNamespace(train=SimpleNamespace(seed=seed)))
    rows = [(["source"], [f"prompt {i}"], [f"label {i}"], [None]) for i in range(prompts)]
    return resume.PromptLoader(StatefulDataLoader(rows, 1, shuffle=True, collate_fn=lambda rows: rows[0]))


def steps(prompts, batch: int, episodes: int, episode: int = 0):
    """Draw as OpenRLHF's drivers do: yield (episode, prompts of the step) after each full or short batch."""
    for now in range(episode, episodes):
        rows = iter(prompts)
        while drawn := [row[1][0] for row in islice(rows, batch)]:
            exhausted = len(drawn) < batch
            yield now, drawn
            if exhausted:
                break


@pytest.mark.parametrize("prompts, batch", [(12, 4), (10, 4), (3, 4), (4, 4), (9, 2)])
@pytest.mark.parametrize("episodes", [1, 3])
def test_a_run_interrupted_after_any_step_draws_what_one_that_ran_through_draws(prompts, batch, episodes):
    whole = [drawn for _, drawn in steps(loader(prompts), batch, episodes)]
    assert [drawn for _, drawn in steps(loader(prompts), batch, episodes)] == whole, "not the same by one seed"
    for cut in range(1, len(whole) + 1):
        first, drawn = loader(prompts), []
        for episode, of_step in islice(steps(first, batch, episodes), cut):
            drawn.append(of_step)
            state = pickle.dumps((episode, first.state_dict()))
        torch.manual_seed(99)  # whatever the new process has drawn before
        second = loader(prompts, seed=11)
        episode, state = pickle.loads(state)
        second.load_state_dict(state)
        assert second.drawn == first.drawn
        drawn += [of_step for _, of_step in steps(second, batch, episodes, episode)]
        assert drawn == whole, f"interrupted after step {cut}"


def test_another_seed_draws_another_order():
    orders = [[drawn for _, drawn in steps(loader(12, seed), 4, 1)] for seed in (1, 2)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("left", [0, 5])
def test_prompts_in_the_generators_buffer_come_first_and_none_is_lost(left):
    """With `left` prompts in the loader, or none: then the episode ends behind the buffer."""
    first = loader(12)
    drawn = [row[1][0] for row in islice(iter(first), 12 - left if left else None)]
    sample = [SimpleNamespace(prompts=[p], labels=["l"], images=[None]) for p in drawn[-3:] for _ in range(2)]
    first.generator = SimpleNamespace(
        _sample_buffer=sample, args=SimpleNamespace(rollout=SimpleNamespace(n_samples_per_prompt=2))
    )
    second = loader(12, seed=5)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    again = [row[1][0] for row in second]
    assert again[:3] == drawn[-3:]
    assert sorted(drawn[:-3] + again) == sorted(f"prompt {i}" for i in range(12))
    assert len(list(second)) == 12  # the next episode


def test_a_checkpoint_of_openrlhfs_own_loader_is_read():
    first = loader(6)
    drawn = [row[1][0] for row in islice(iter(first.loader), 4)]
    second = loader(6, seed=5)
    second.load_state_dict(first.loader.state_dict())
    assert sorted(drawn + [row[1][0] for row in second]) == sorted(f"prompt {i}" for i in range(6))


def driver(queue, every=2):
    evaluation = SimpleNamespace(dataset="heldout.jsonl", steps=every)
    return SimpleNamespace(args=SimpleNamespace(eval=evaluation), rollout_queue=resume.PutBack(queue))


def test_an_evaluation_that_is_due_is_waited_for_and_rollouts_keep_their_order():
    queue = Queue()
    for item in (("rollout", 5), ("rollout", 6), ("eval", 4, {"pass": 1.0}), ("rollout", 7)):
        queue.put(item)
    trainer = driver(queue)
    assert resume.evaluation_before(trainer, 3) is None and queue.qsize() == 4  # none is due
    assert resume.evaluation_before(trainer, 4) == ("eval", 4, {"pass": 1.0})
    assert [trainer.rollout_queue.get(block=True) for _ in range(3)] == [("rollout", k) for k in (5, 6, 7)]


@pytest.mark.parametrize("end", ["done", (resume.FAULT, ValueError("no verdict"))])
def test_a_generator_that_is_done_or_has_failed_is_not_waited_for_and_its_fault_comes_last(end):
    queue = Queue()
    queue.put(("rollout", 5))
    queue.put(end)
    trainer = driver(queue)
    assert resume.evaluation_before(trainer, 4) is None
    assert resume.evaluation_before(trainer, 6) is None
    assert trainer.rollout_queue.get(block=True) == ("rollout", 5)
    with nullcontext() if end == "done" else pytest.raises(ValueError, match="no verdict"):
        assert trainer.rollout_queue.get(block=True) == "done"


@pytest.mark.parametrize("steps", [-1, float("inf")])
def test_without_evaluations_nothing_is_waited_for(steps):
    assert resume.evaluation_before(driver(Queue(), steps), 4) is None
