"""A resumed run equals one that was never interrupted: the driver's part of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy
import ray
import torch

from riskpo_openrlhf.console import say

KL_KEY = "riskpo_kl_coef"  # in the client state of OpenRLHF's checkpoints
FAULT = "fault"  # and an error: an item of the queue. Ray's queue takes no bare error of Ray's
_LOADER, _BUFFERED, _DRAWN = "loader", "buffered", "drawn"
BEGINNING = {"episode": 0, "global_step": 0, "total_consumed_prompts": 0, "data_loader_state_dict": {}}


def seed_driver(args) -> None:
    """Seed this process by `--train.seed`, before the data loaders are made: their order is drawn then.

    OpenRLHF seeds its workers only.
    """
    random.seed(args.train.seed)
    numpy.random.seed(args.train.seed % 2**32)
    torch.manual_seed(args.train.seed)


class PromptLoader:
    """OpenRLHF's loader of prompts, with two things in its state that OpenRLHF would lose.

    The end of an episode: a short last step leaves a used-up loader, and OpenRLHF would draw a whole episode again.
    Prompts in the generator's buffer (`--rollout.vllm_generate_batch_size` above `--rollout.batch_size`): they have
    left the loader, but no step has used them. A resumed run generates for them first.
    """

    def __init__(self, loader):
        self.loader = loader
        self.drawn = 0  # prompts, in all episodes
        self.generator = None  # OpenRLHF's samples generator, set by its owner
        self._first: list | None = None  # what the first iteration after a resume begins with
        self._ended = False  # and whether it ends there

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        first, self._first = self._first or [], None
        ended, self._ended = self._ended, False
        yield from first
        if not ended:
            for batch in self.loader:
                self.drawn += 1
                yield batch

    def state_dict(self) -> dict:
        return {_LOADER: self.loader.state_dict(), _BUFFERED: self._buffered(), _DRAWN: self.drawn}

    def load_state_dict(self, state: dict) -> None:
        if _LOADER not in state:  # a checkpoint by OpenRLHF, or by an earlier release
            state = {_LOADER: state, _BUFFERED: [], _DRAWN: state.get("_num_yielded", 0)}
        self.loader.load_state_dict(state[_LOADER])
        self.drawn = state[_DRAWN]
        self._first, self._ended = state[_BUFFERED], state[_LOADER].get("_iterator_finished", False)

    def _buffered(self) -> list[tuple]:
        """Return one batch of OpenRLHF's loader for each prompt in the generator's buffer."""
        buffer = getattr(self.generator, "_sample_buffer", None) or []
        group = self.generator.args.rollout.n_samples_per_prompt if buffer else 1
        return [(None, sample.prompts, sample.labels, sample.images) for sample in buffer[::group]]


def saved(driver, client_states: dict | None) -> dict:
    """Add to the client state what OpenRLHF's drivers would lose: the best metric too, where they save none."""
    best = {
        "best_eval_metric_key": driver.best_eval_metric_key,
        "best_eval_metric_value": driver.best_eval_metric_value,
        "latest_eval_metric_value": driver._latest_eval_metric_value,
    }
    return {**(client_states or {}), **best, KL_KEY: float(driver.kl_ctl.value)}


def restored(driver, states: dict | None) -> dict:
    """Return the states to go on from, the beginning if a checkpoint was not found; set the KL's coefficient."""
    if not states or "episode" not in states:
        return dict(BEGINNING)
    if KL_KEY in states and driver.args.algo.kl.target:  # a fixed coefficient is the flag's
        driver.kl_ctl.value = states[KL_KEY]
    return states


def keep_last_step(driver) -> None:
    """Save a checkpoint of the last step if none was saved, and the weights are still those. Called at a fault."""
    if driver.unsaved is None or driver.args.ckpt.disable_ds:
        return
    (step, states), driver.unsaved = driver.unsaved, None
    tag, states = f"global_step{step}", saved(driver, states)  # an evaluation may have come since
    metric = {
        "metric_value": states["latest_eval_metric_value"],
        "metric_key": states.get("checkpoint_metric_key") or states["best_eval_metric_key"] or None,
    }
    save = {"method_name": "save_checkpoint", "tag": tag, **metric}
    try:
        refs = driver.actor_model_group.async_run_method(client_states=states, **save)
        if driver.critic_model_group is not None:
            refs += driver.critic_model_group.async_run_method(**save)
        ray.get(refs)
        driver.finish_checkpoints()
    except Exception as error:  # the fault itself is what the run ends with
        say(f"step {step} could not be kept: {type(error).__name__}: {error}")
    else:
        say(f"step {step} is kept as checkpoint {tag} in {driver.args.ckpt.path}: resume with --ckpt.load_enable")


def start_logging_after(driver, step: int) -> None:
    """Let TensorBoard drop what an interrupted run logged after `step` into the same folder."""
    if driver.tensorboard_logger:
        from torch.utils.tensorboard import SummaryWriter

        logger = getattr(driver.tensorboard_logger, "_logger", driver.tensorboard_logger)  # `SafeLogger` holds it
        logger.writer.close()
        logger.writer = SummaryWriter(log_dir=logger.writer.log_dir, purge_step=step + 1)


class PutBack:
    """A queue whose reader can put items back in `front`. A fault of the writer is raised when its turn comes."""

    def __init__(self, queue):
        self.queue, self.front = queue, []

    def get(self, **options):
        item = self.front.pop(0) if self.front else self.queue.get(**options)
        if _is_fault(item):
            raise item[1]
        return item


def evaluation_before(driver, step: int) -> tuple | None:
    """Wait for the evaluation of the weights after `step`, if one is due. Return `("eval", step, metrics)` or None.

    OpenRLHF's asynchronous driver trains on meanwhile, and saves the next step's weights as the best checkpoint.
    Rollouts that come first are put back. There is no evaluation if the generator is done or has failed.
    """
    steps = driver.args.eval.steps
    if not driver.args.eval.dataset or steps in (-1, float("inf")) or not step or step % steps:
        return None
    rollouts = driver.rollout_queue
    if any(map(_is_the_end, rollouts.front)):
        return None
    while True:
        item = rollouts.queue.get(block=True)
        if isinstance(item, tuple) and item[0] == "eval":
            return item
        rollouts.front.append(item)
        if _is_the_end(item):
            return None


def _is_fault(item) -> bool:
    return isinstance(item, tuple) and item[0] == FAULT


def _is_the_end(item) -> bool:
    return isinstance(item, str) or _is_fault(item)  # "done"
