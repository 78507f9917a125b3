"""Watch a run from its submitting process: no part may die or stand still without an end of the run.

Each of our actors calls `join` once and `beat` at each piece of progress. A thread of the actor writes the latest beat
into Ray's key-value store, where the submitting process reads it, on whatever node the actor is. The same thread
answers with its process's Python stacks when it is asked. So no beat waits for the network, no further process is
needed, and a part that hangs in Python code still answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from riskpo_openrlhf.console import say
from riskpo_openrlhf.integration.causes import PARTS, Fault, explain_text, no_head
from riskpo_openrlhf.runtime import RUN_VARIABLE

SECONDS = 1.0  # between two looks
GRACE = 8.0  # for Ray to raise the death of a part where the run waits for it, with all that it knows
STACKS = 10.0  # for the parts to answer with their stacks
FRAMES = 14  # of each thread
ANSWER = 3.0  # seconds for one answer of Ray's head
SUSPENDED = 30.0  # seconds between two looks, more than the slowest look takes
FAILURES = 20  # looks without an answer, one after the other, after which Ray's head counts as gone
_NAMESPACE = b"riskpo"
_IDLE = ("threading.py", "queue.py", "selectors.py", "concurrent/futures/thread.py", "_monitor.py", "socket.py",
         "tqdm/", "integration/watch.py", "multiprocessing/", "ray/_private", "grpc/", "logging/handlers.py",
         "torch/_inductor", "prometheus_client", "tensorboard/summary/writer", "socketserver.py")  # fmt: skip


class _Part:
    """This process's place in the run: its name, its latest beat, and the thread that passes it on."""

    def __init__(self) -> None:
        self.name = ""
        self.fault: Callable[[], str] = str
        self.latest = {"what": "start", "count": 0, "step": None}

    def run(self, key: str, store: _Store) -> None:
        written = answered = told = None
        while True:
            try:
                fault = self.fault()
                if fault and fault != told:
                    store.put(f"fault/{key}", {"pid": os.getpid(), "text": fault})
                    told = fault
                latest = self.latest
                if latest is not written:
                    store.put(f"beat/{key}", {"part": self.name, "pid": os.getpid(), **latest})
                    written = latest
                asked = store.get("ask")
                if asked and asked != answered:
                    store.put(f"stack/{key}", {"part": self.name, "pid": os.getpid(), "stack": stacks()})
                    answered = asked
            except Exception:  # Ray's head does not answer, which the watcher tells; the next round tries again
                written = None
            time.sleep(SECONDS)


class _Store:
    """Ray's key-value store, for the keys of this job. Each call raises an error if Ray's head does not answer."""

    def __init__(self) -> None:
        import ray
        from ray.experimental.internal_kv import internal_kv_get_gcs_client

        self.job = ray.get_runtime_context().get_job_id()
        self.head = internal_kv_get_gcs_client()

    def put(self, key: str, value: dict) -> None:
        name, text = f"{self.job}/{key}".encode(), json.dumps(value).encode()
        self.head.internal_kv_put(name, text, True, _NAMESPACE, timeout=ANSWER)

    def get(self, key: str) -> dict | None:
        value = self.head.internal_kv_get(f"{self.job}/{key}".encode(), _NAMESPACE, timeout=ANSWER)
        return json.loads(value) if value else None

    def all(self, prefix: str) -> dict[str, dict]:
        names = self.head.internal_kv_keys(f"{self.job}/{prefix}".encode(), _NAMESPACE, timeout=ANSWER)
        found = self.head.internal_kv_multi_get(names, _NAMESPACE, timeout=ANSWER) if names else {}
        return {name.decode(): json.loads(value) for name, value in found.items()}

    def actors(self, state: str) -> list:
        """Return Ray's records of this job's actors in a state: messages of type `ActorTableData`."""
        import ray

        async def ask() -> dict:
            job = ray.JobID(bytes.fromhex(self.job))
            return await self.head.async_get_all_actor_info(job_id=job, actor_state_name=state, timeout=ANSWER)

        return list(asyncio.run(ask()).values())


_part = _Part()


def join(name: str, fault: Callable[[], str] = str) -> None:
    """Make this process a part of the watched run. A second call does nothing.

    `fault` is asked each second. What it returns tells, in words that `causes.TABLE` knows, that this part can't go on
    although its process lives.
    """
    if _part.name:
        return
    import ray

    _part.name, _part.fault = name, fault
    store = _Store()
    # vLLM's processes, which this one starts, end with it: `runtime.end_with_parent`.
    os.environ.setdefault(RUN_VARIABLE, store.job)
    key = ray.get_runtime_context().get_actor_id() or str(os.getpid())
    threading.Thread(target=_part.run, args=(key, store), name="riskpo-watch", daemon=True).start()


def beat(what: str, step: int | None = None) -> None:
    """Note progress: `what` is being done. `step`: the number of the last whole step, where it is known."""
    latest = _part.latest
    step = latest["step"] if step is None else step
    _part.latest = {"what": what, "count": latest["count"] + 1, "step": step}


def stacks() -> str:
    """Return the Python stacks of this process's threads, without those that wait for work."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    parts = []
    for ident, frame in sys._current_frames().items():
        summary = traceback.extract_stack(frame)
        idle = all(any(mark in f"{line.filename}" for mark in _IDLE) for line in summary)
        if ident == threading.get_ident() or (idle and ident != main):
            continue
        lines = [f"    {line.filename}:{line.lineno} {line.name}: {line.line}" for line in summary[-FRAMES:]]
        parts.append("\n".join([f"  thread {names.get(ident, ident)}:", *lines]))
    return "\n".join(parts)


class Watcher:
    """The thread of the submitting process that ends a run of which a part is dead or which stands still.

    Args:
        end: called with the fault; it does not return.
        stall: seconds without progress after which the run ends; 0 never. A tenth of it gives a warning.
        tell: called with what the supervisor should know: `step` and `steps` after each step; `suspect`, what a death
            without a word would be due to, or None.
        looked: called at each look.
        folders: where the run writes.
    """

    def __init__(
        self,
        end: Callable[[Fault], None],
        stall: float,
        tell: Callable[..., None],
        looked: Callable[[], None] = lambda: None,
        folders: Sequence[str] = (),
    ):
        self.end, self.stall, self.tell, self.looked, self.folders = end, stall, tell, looked, folders
        self.counts: dict[str, int] = {}
        self.seen: dict[str, float] = {}  # part -> when its count last changed
        self.last = time.monotonic()
        self.step, self.steps = None, 0
        self.warned = False
        self.dead_since: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="riskpo-watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop watching: from now on parts may end."""
        self._stopped.set()

    def _run(self) -> None:
        store = _Store()
        failures, before = 0, time.monotonic()
        while not self._stopped.wait(SECONDS):
            now = time.monotonic()
            self.stood_still(now - before)
            before = now
            self.looked()
            try:
                self.look(store.all("beat/"), deaths(store), lambda: ask_for_stacks(store))
                if failures:
                    self.tell(suspect=None)
                failures = 0
            except Exception as error:
                failures += 1
                if self._stopped.is_set():
                    return
                fault = no_head(error)
                if failures == 1:  # Ray itself may end this process, without a word of ours
                    self.tell(suspect=asdict(fault))
                if failures == FAILURES:
                    self.end(fault)

    def stood_still(self, seconds: float) -> None:
        """Leave out a time between two looks that is too long for a look: the machine was suspended, its parts too."""
        if seconds > SUSPENDED:
            self.last += seconds

    def look(self, beats: dict[str, dict], dead: list[str], ask: Callable[[], dict[str, dict]]) -> None:
        """Judge the run once. `beats`: by part; `dead`: what Ray says of parts that died; `ask` returns stacks."""
        now = time.monotonic()
        for key, latest in beats.items():
            if latest["count"] != self.counts.get(key):
                self.counts[key], self.seen[key] = latest["count"], now
                self.last, self.warned = now, False
            if latest["step"] is not None and (self.step is None or latest["step"] > self.step):
                self.step, self.steps = latest["step"], self.steps + 1
                self.tell(step=self.step, steps=self.steps)
        if dead:
            self.dead_since = self.dead_since or now
            if now - self.dead_since > GRACE and not self._stopped.is_set():
                self.end(explain_text(dead[0], self.folders))
            return
        quiet = now - self.last
        if self.stall and quiet > self.stall / 10 and not self.warned:
            self.warned = True
            say(f"no progress for {quiet:.0f} s; the run ends at --riskpo.stall_timeout {self.stall:g}. "
                + "; ".join(self._waiting(beats, now)))  # fmt: skip
        if self.stall and quiet > self.stall and not self._stopped.is_set():
            answers = ask()
            for key, latest in beats.items():
                answer = answers.get(key.replace("/beat/", "/stack/"), {}).get("stack") or (
                    "  no answer: the process is stopped, or hangs outside Python"
                )
                print(f"{latest['part']} (process {latest['pid']}), last progress {latest['what']}:\n{answer}",
                      flush=True)  # fmt: skip
            self.end(Fault(
                f"no progress for {quiet:.0f} s (--riskpo.stall_timeout {self.stall:g}): "
                + "; ".join(self._waiting(beats, now)),
                "the stacks above show what each part waits for; raise --riskpo.stall_timeout if a step may take "
                "that long",
            ))  # fmt: skip

    def _waiting(self, beats: dict[str, dict], now: float) -> Iterator[str]:
        for key, latest in sorted(beats.items(), key=lambda item: item[1]["part"]):
            yield f"{latest['part']}: {latest['what']}, {now - self.seen.get(key, now):.0f} s ago"
        if not beats:
            yield "no part has started: Ray may lack the CPUs or GPUs that the run asks for (`ray status`)"


def ask_for_stacks(store: _Store) -> dict[str, dict]:
    """Ask every part for its Python stacks. Return what came within `STACKS` seconds."""
    store.put("ask", {"at": time.time()})
    parts, until = len(store.all("beat/")), time.monotonic() + STACKS
    while time.monotonic() < until:
        time.sleep(SECONDS / 2)
        if len(store.all("stack/")) >= parts:
            break
    return store.all("stack/")


def deaths(store: _Store, states: tuple[str, ...] = ("DEAD",)) -> list[str]:
    """Return what is known of each part that died: its actor, as Ray says, or what it can't go on without."""
    # A dead actor first: a broken connection to it may have ended another part's processes.
    return dead_actors(store, states) + [fault["text"] for fault in store.all("fault/").values()]


def dead_actors(store: _Store, states: tuple[str, ...] = ("DEAD",)) -> list[str]:
    """Return what Ray says of each actor of this job that died, other than by the run's own will."""
    found = []
    for actor in (one for state in states for one in store.actors(state)):
        cause, own_error = actor.death_cause, actor.death_cause.creation_task_failure_context
        text = str(cause)
        if not text.strip() or any(reason in text for reason in ("OUT_OF_SCOPE", "REF_DELETED", "RAY_KILL")):
            continue
        if own_error.formatted_exception_string:
            text = f"error raised in its creation task\n{own_error.formatted_exception_string}"
        name = actor.class_name.rpartition(".")[2]
        about = f"ActorDiedError: class_name: {name} pid: {actor.pid} ip: {actor.address.ip_address}"
        # What died first is the cause; who died with its owner is a consequence.
        found.append((name not in PARTS, "OWNER_DIED" in text, actor.end_time, f"{about}\n{text}"))
    return [text for *_, text in sorted(found)]


def death(folders, seconds: float) -> Fault | None:
    """Return the cause of the first death of a part, if one is known within `seconds`."""
    import ray

    if not ray.is_initialized():
        return None
    until = time.monotonic() + seconds
    try:
        store = _Store()
        # An engine that Ray starts again, too: the run needed the one that died.
        while not (dead := deaths(store, ("DEAD", "RESTARTING"))) and time.monotonic() < until:
            time.sleep(SECONDS / 4)
    except Exception:  # Ray's head is gone: what is known already must do
        return None
    return explain_text(dead[0], folders) if dead else None
