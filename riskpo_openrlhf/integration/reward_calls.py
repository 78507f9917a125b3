"""Ask for the reward of a response: a function in a thread, a server, an agent's step. Each has a time limit.

OpenRLHF has none: a function that never returns, or a server that never answers, would hold the job for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import json
import os
import threading
from collections.abc import Awaitable
from math import isnan

import aiohttp

from riskpo_openrlhf.integration.rewards import RewardError, describe, no_verdict_step, read_reward, read_step
from riskpo_openrlhf.integration.watch import beat

SECONDS = 600.0
THREADS = min(32, (os.cpu_count() or 1) + 4)  # as many calls at once as OpenRLHF's `asyncio.to_thread` makes
TRIES, PAUSE = 5, 1.0  # requests to a server that fails, seconds between them; as OpenRLHF
TIMEOUT_FLAG = "--riskpo.reward_timeout"


class RewardCalls:
    """The calls for rewards of one engine. Puts itself in place of the executor's own.

    `seconds` is the limit of one call. `last_error` tells why the latest response without a verdict has none.
    """

    def __init__(self, executor):
        self.seconds, self.last_error = SECONDS, ""
        self._executor = executor
        self._slots = asyncio.Semaphore(THREADS)
        self._unanswered, self._answered, self._gave_up = 0, float("-inf"), float("-inf")
        self._loop_of_coroutines: asyncio.AbstractEventLoop | None = None
        if hasattr(executor, "_fetch_rewards_via_func"):
            executor._fetch_rewards_via_func = self._keeping_errors(self._by_function)
            executor._fetch_rewards_via_http = self._keeping_errors(self._by_server)
        if inspect.isclass(getattr(executor, "agent_instance_cls", None)):
            executor.agent_instance_cls = _guarded(executor.agent_instance_cls, self)

    def _keeping_errors(self, ask):
        """Make OpenRLHF's method of `ask`. OpenRLHF logs its exception at INFO and goes on without a reward."""

        async def fetch_rewards(queries, prompts, labels):
            try:
                answer = await ask(queries, prompts, labels)
            except Exception as error:
                self.note(error)
                raise
            finally:
                beat("reward")
            if error := answer.get("error") or ("the reward was NaN" if isnan(answer["scores"]) else ""):
                self.last_error = error
            return [answer]

        return fetch_rewards

    def note(self, error: BaseException) -> None:
        """Keep an error as the latest; those that we raise speak for themselves."""
        self.last_error = str(error) if isinstance(error, RewardError) else f"{type(error).__name__}: {error}"

    async def within(self, awaitable: Awaitable, source: str):
        """Await with the time limit. Does not wait for what ignores its cancellation. Raises `RewardError`."""
        task = asyncio.ensure_future(awaitable)
        done, _ = await asyncio.wait({task}, timeout=self.seconds)
        if not done:
            task.cancel()
            raise RewardError(self._too_late(source))
        return task.result()

    def _too_late(self, source: str) -> str:
        return f"no answer within {self.seconds:g} s from {source} ({TIMEOUT_FLAG})"

    async def _by_function(self, queries, prompts, labels) -> dict:
        """Call the reward function in a thread of its own. Waiting for other calls does not count for the limit.

        A thread that hangs can't be ended. It is left behind, does not keep the process from ending, and another takes
        its place. When as many calls as run at once have hung in a row, and no other was answered meanwhile, the calls
        that waited for them are given up: each would hang in its turn.
        """
        function, loop = self._executor.reward_func, asyncio.get_running_loop()
        source = source_of(function)
        came = loop.time()
        async with self._slots:
            if came <= self._gave_up:
                raise RewardError(f"{self._too_late(source)}, call after call")
            answer, began = loop.create_future(), loop.time()
            work = contextvars.copy_context().run, (self._call, function, (queries, prompts, labels), loop, answer)
            threading.Thread(target=work[0], args=work[1], name="reward", daemon=True).start()
            try:
                value, error = await self.within(answer, source)
            except RewardError:
                self._unanswered += began > self._answered
                if self._unanswered >= THREADS:
                    self._gave_up = loop.time()
                raise
            self._unanswered, self._answered = 0, loop.time()
        if isinstance(error, Exception):
            raise error
        if error is not None:  # such as SystemExit, which would end the engine
            raise RewardError(f"{type(error).__name__}: {error}")
        return read_reward(value, source)

    def _call(self, function, arguments, loop, answer) -> None:
        """Call the function in this thread; its result or its exception goes to `answer`, as a pair."""
        try:
            value = function(*arguments)
            if inspect.isawaitable(value):  # `async def`
                value = asyncio.run_coroutine_threadsafe(_awaited(value), self._coroutines()).result()
            outcome = value, None
        except BaseException as error:  # also SystemExit, or a time-out that is no Exception
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(lambda: answer.done() or answer.set_result(outcome))

    def _coroutines(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of asynchronous reward functions. It never holds up the engine's own."""
        if self._loop_of_coroutines is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="reward loop", daemon=True).start()
            self._loop_of_coroutines = loop
        return self._loop_of_coroutines

    async def _by_server(self, queries, prompts, labels) -> dict:
        """Post to the next server, again if it fails. The limit holds for all tries together."""
        url = next(self._executor._reward_endpoint_cycle)
        request = {"query": queries, "prompts": prompts, "labels": labels}
        return read_reward(await self.within(_posted(url, request), url), url)


async def _posted(url: str, request: dict):
    for attempt in range(TRIES):
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
                async with session.post(url, json=request) as response:
                    text = await response.text(errors="replace")
            if response.status >= 400:
                raise RewardError(f"{url} answered with status {response.status}: {text[:200]!r}")
            try:
                return json.loads(text)
            except ValueError:
                raise RewardError(f"{url} answered with what is no JSON: {text[:200]!r}") from None
        except (aiohttp.ClientError, OSError, RewardError) as error:
            if attempt == TRIES - 1:
                if isinstance(error, RewardError):
                    raise
                raise RewardError(f"{url} can't be asked: {type(error).__name__}: {error}") from error
            await asyncio.sleep(PAUSE)


async def _awaited(value: Awaitable):
    return await value


def source_of(function) -> str:
    """Name a reward function for messages: `reward_func of my_reward.py`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name} of {os.path.basename(code.co_filename)}" if code else name


def _guarded(agent: type, calls: RewardCalls) -> type:
    """Make a class of agents whose `reset` and `step` have the time limit and are checked.

    An agent that fails, or answers in a wrong shape, ends its episode without a verdict.
    """

    class Guarded(agent):
        _failed = False

        async def reset(self, states, **more):
            source = f"{agent.__name__}.reset"
            try:
                result = await calls.within(super().reset(states, **more), source)
                if not isinstance(result, dict) or not isinstance(result.get("observation"), str):
                    raise RewardError(f"{source} returned {describe(result)}; expected a dictionary with observation")
                return result
            except Exception as error:
                calls.note(error)
                self._failed = True
                return states

        async def step(self, states, **more):
            source = f"{agent.__name__}.step"
            if self._failed:
                return no_verdict_step()
            try:
                return read_step(await calls.within(super().step(states, **more), source), source)
            except Exception as error:
                calls.note(error)
                return no_verdict_step()

    Guarded.__name__, Guarded.__qualname__ = agent.__name__, agent.__qualname__
    return Guarded
