"""`--riskpo.max_steps`: end training after so many steps of the driver, in both modes."""

from __future__ import annotations

from riskpo_openrlhf.console import say

STEP = "riskpo_step"  # in the loader's state, on its way from the asynchronous driver to the generator


class StepLimit:
    """Count the rollouts that the generator hands out. Each becomes one step of the driver.

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
