"""Replace a vLLM engine that dies, while the rest of a synchronous run stays.

Ray starts the engine's actor again under the same handle (`max_restarts`). The new process has the weights of the
model's files and no place in the weight sync. The driver notices where it needs the engines: before and in a rollout,
and before a weight sync. A death within the weight sync ends the run: the policy's half of it can't be taken back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from riskpo_openrlhf.console import say
from riskpo_openrlhf.integration.watch import beat

SECONDS = 900.0  # for the start of an engine
KNOWN, NEW, BROKEN = "known", "new", "broken"  # what an engine says of itself


def replaceable(args) -> bool:
    """Tell whether engines are replaced: if restarts are allowed, and the driver itself makes the rollouts."""
    return args.riskpo.max_restarts > 0 and not args.train.async_enable and not args.vllm.sync_with_ray


def is_a_death(error: RayError) -> bool:
    """Tell whether this is the death of an engine's actor, or of a process of vLLM under it."""
    return isinstance(error, RayActorError) or "EngineDeadError" in str(error)


class Engines:
    """The engines of a run. Args: their handles, the group of policy workers, `--riskpo.reward_timeout`."""

    def __init__(self, engines: list, policy, reward_timeout: float):
        self._engines, self._policy, self._reward_timeout = engines, policy, reward_timeout

    def mend(self) -> bool:
        """Wait for engines that start again, and let them join the weight sync. Return whether there were any.

        If so, they need the policy's weights. Raises `RayActorError` if an engine does not come back.
        """
        begin = time.monotonic()
        new = [engine for engine in self._engines if self._state(engine) == NEW]
        if new:
            ray.get(self._policy.async_run_method(method_name="join_engines"))
            ray.get([engine.begin_run.remote(self._reward_timeout, True) for engine in new])
            seconds = time.monotonic() - begin
            text = f"a vLLM engine died: {len(new)} of {len(self._engines)} were replaced within {seconds:.0f} s"
            say(text, replaced=len(new))
        return bool(new)

    def _state(self, engine) -> str:
        until = time.monotonic() + SECONDS
        while True:
            try:
                state = ray.get(engine.state.remote())
                if state != BROKEN:
                    return state
                ray.kill(engine, no_restart=False)
            except ActorUnavailableError:  # Ray is starting it
                if time.monotonic() > until:
                    raise
            beat("an engine's start")
            time.sleep(0.5)


class Replay(Iterator):
    """An iterator that can begin again: what it gave comes once more before anything new."""

    def __init__(self, source: Iterator):
        self._source, self._given, self._next = source, [], 0

    def __next__(self):
        if self._next == len(self._given):
            self._given.append(next(self._source))
        self._next += 1
        return self._given[self._next - 1]

    def begin_again(self) -> None:
        self._next = 0

    def left(self) -> list:
        """Return what was given before it began again, and not since."""
        return self._given[self._next :]
