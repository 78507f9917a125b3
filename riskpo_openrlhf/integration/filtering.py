"""Dynamic filtering that keeps nothing, or what it should not: told while the run can still be mended."""

from __future__ import annotations

from math import inf

from riskpo_openrlhf.console import say
from riskpo_openrlhf.integration.faults import RunFault

RANGE = "--algo.dynamic_filtering_range"


class FilterWatch:
    """Watch the scores of the responses that OpenRLHF's dynamic filtering judges by groups.

    Args:
        allowed: `--algo.dynamic_filtering_range`; a group whose mean score lies between the two is kept.
        rollout: prompts of a rollout.
        group: responses a prompt. They come one after the other.
    """

    def __init__(self, allowed: tuple[float, float], rollout: int, group: int):
        self._allowed, self._rollout, self._group = allowed, rollout, group
        self._low, self._high, self._sum = inf, -inf, 0.0
        self._scores = self._dropped = self._dropped_in_a_row = 0
        self.kept = 0  # groups
        self._told_range = False

    def add(self, score: float) -> None:
        """Add the score of the next response, NaN without a verdict."""
        self._scores, self._sum = self._scores + 1, self._sum + score
        if score == score:
            self._low, self._high = min(self._low, score), max(self._high, score)
        if self._scores % self._group:
            return
        kept = self._allowed[0] < self._sum / self._group < self._allowed[1]
        self._sum = 0.0
        self.kept, self._dropped = self.kept + kept, self._dropped + (not kept)
        self._dropped_in_a_row = 0 if kept else self._dropped_in_a_row + 1
        groups = self.kept + self._dropped
        if groups >= self._rollout and not self._told_range and not self._range_fits():
            self._told_range = True
            say(f"warning: {self._found()}. {self._cure()}")
        if self._dropped_in_a_row and self._dropped_in_a_row % self._rollout == 0:
            say(f"warning: dynamic filtering dropped {self._dropped_in_a_row} groups in a row; {self._found()}")

    def _range_fits(self) -> bool:
        return self._allowed[0] <= self._low and self._high <= self._allowed[1]

    def _found(self) -> str:
        groups = self.kept + self._dropped
        low, high = self._allowed
        if self._low > self._high:
            scores = "no response has a verdict"
        elif self._low == self._high:
            scores = f"every score is {self._low:g}"
        else:
            scores = f"scores are {self._low:g} to {self._high:g}"
        return f"{scores}, {RANGE} {low:g} {high:g} dropped {self._dropped} of {groups} groups"

    def _cure(self) -> str:
        if self._low >= self._high:
            return "Look at the reward function: no two responses differ in it"
        if not self._range_fits():
            return (
                f"A group is kept if its mean lies between the two values, so give the scores' own bounds: {RANGE} "
                f"{self._low:g} {self._high:g}"
            )
        return "All groups are all right or all wrong: take easier or harder data, or leave the filter out"

    def nothing_kept(self) -> RunFault | None:
        """Return the fault of a run in which every group was filtered away; None if one was kept or none came."""
        if self.kept or not self._dropped:
            return None
        return RunFault(f"nothing was trained: every group was filtered away; {self._found()}", self._cure())
