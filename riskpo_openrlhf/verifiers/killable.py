"""Call a function in worker processes that can be killed, because a computer algebra system may never return.

A time-out inside the process is not enough. Signals work in the main thread only. A long computation in C holds the
interpreter's lock, so nothing else in the process runs meanwhile. Workers are started afresh, not forked: the caller
is a Ray actor with threads and CUDA contexts. `worker.py` is the program of a worker. Standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref

from riskpo_openrlhf.verifiers.environment import number_from
from riskpo_openrlhf.verifiers.worker import OUT_OF_MEMORY

WORKERS_VARIABLE = "RISKPO_VERIFIER_WORKERS"
SECONDS_VARIABLE = "RISKPO_VERIFIER_SECONDS"
WALL = 10  # times the CPU time, that a call may take by the clock: on a machine under load, or if it waits
MAX_REQUEST = 65_536  # bytes; fits into an empty pipe, so writing it does not block

_INHERITED = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME")  # other variables may hold secrets
_CLOSED = "the pool of workers is closed"
_pools: weakref.WeakSet = weakref.WeakSet()


class WorkerError(RuntimeError):
    """A worker can't be started; the message says why."""


class WorkerPool:
    """Call one function in worker processes, from any thread.

    Args:
        function: `package.module:function`. Arguments and result must be JSON.
        warm_up: arguments of a first call. The worker has started when this call returns.
        size: number of workers.
        seconds: CPU time of one call; a worker that takes more is killed, as is one that takes `WALL` times this by
            the clock. With `patience`, waiting and working may together take `seconds` and `patience` by the clock.
        megabytes: limit of a worker's address space, and so of its memory.
        start_seconds: time limit of a worker's start, warm-up included.
        patience: seconds to wait for a free worker; None: without limit.
    """

    def __init__(
        self,
        function: str,
        warm_up: tuple = (),
        *,
        size: int = 2,
        seconds: float = 3.0,
        megabytes: int = 512,
        start_seconds: float = 120.0,
        patience: float | None = None,
    ):
        for name, value in dict(size=size, seconds=seconds, megabytes=megabytes, start_seconds=start_seconds).items():
            if not value > 0:
                raise ValueError(f"{name} {value!r} is not allowed: a number above 0")
        self.function, self.warm_up, self.size = function, warm_up, size
        self.seconds, self.megabytes, self.start_seconds = seconds, megabytes, start_seconds
        self.patience = patience
        self.wall = WALL * seconds if patience is None else seconds + patience
        self._closed = False
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        # One place per worker. None: there is none, and the next caller starts one.
        self._places: queue.LifoQueue = queue.LifoQueue()
        self._workers: set[_Worker] = set()
        for _ in range(self.size):
            self._places.put(None)

    def call(self, *arguments) -> tuple[str, object]:
        """Call the function once, within the time limit. Waiting for a free worker is limited by `patience`.

        Returns:
            `("ok", result)`; `("timeout", None)`; `("memory", None)` if the call ran out of memory in two workers;
            `("error", text)` if the function raised, or the call ended two workers in another way.

        Raises:
            WorkerError: no worker can be started, or the pool is closed.
            ValueError: the request is larger than `MAX_REQUEST`.
        """
        request = json.dumps(arguments).encode() + b"\n"
        if len(request) > MAX_REQUEST:
            raise ValueError(f"the request has {len(request)} bytes; allowed are {MAX_REQUEST}")
        deaths: list[int] = []
        while len(deaths) < 2:
            asked = time.monotonic()
            try:
                worker = self._places.get(timeout=self.patience)
            except queue.Empty:
                return "timeout", None
            waited = 0 if self.patience is None else time.monotonic() - asked
            try:
                if self._closed:
                    raise WorkerError(_CLOSED)
                worker = worker or self._start()
                if worker.process.poll() is not None:  # it died while idle, so this request is not the cause
                    self._replace(worker)
                    continue
                worker.send(request)
                reply = worker.receive(self.wall - waited)
            except TimeoutError:
                self._replace(worker)
                return "timeout", None
            except EOFError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(1)  # its own exit status says more than that of our kill
                self._replace(worker)
                if worker.process.returncode == -signal.SIGPROF:  # the limit of CPU time
                    return "timeout", None
                deaths.append(worker.process.returncode)
            except BaseException:
                # Not started, or interrupted: a late reply must not go to another caller.
                self._places.put(None)
                if worker:
                    self._end(worker)
                raise
            else:
                self._places.put(worker)
                return reply[0], reply[1]
        if OUT_OF_MEMORY in deaths:
            return "memory", None
        return "error", f"two workers died of this request, with exit status {deaths[0]} and {deaths[1]}"

    def start(self) -> None:
        """Start the workers of a pool that is not used yet, in the background."""
        for _ in self._idle():
            self._replace(None)

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        return sorted(worker.process.pid for worker in tuple(self._workers))

    def close(self) -> None:
        """End all workers, busy ones too. The pool can't be used again."""
        self._closed = True
        for worker in self._idle():
            if worker:
                self._end(worker)
            self._places.put(None)
        for worker in tuple(self._workers):
            worker.signal_end()  # the thread that waits for its reply sees its end and cleans up

    def _idle(self) -> list[_Worker | None]:
        taken = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._places.get_nowait())
        return taken

    def _start(self) -> _Worker:
        worker = _Worker(self)
        self._workers.add(worker)
        try:
            worker.wait_until_ready(self.warm_up, self.start_seconds)
        except BaseException:
            self._end(worker)
            if self._closed:
                raise WorkerError(_CLOSED) from None
            raise
        return worker

    def _end(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        worker.kill()

    def _replace(self, worker: _Worker | None) -> None:
        """Kill the worker and start another in the background. If that fails, the next caller gets the error."""
        if worker:
            self._end(worker)

        def start():
            fresh = None
            try:
                if not self._closed:
                    fresh = self._start()
            except WorkerError:
                pass
            finally:
                self._places.put(fresh)
            if fresh and self._closed:
                self._end(fresh)

        threading.Thread(target=start, name="verifier-worker-start", daemon=True).start()


class _Worker:
    """One process and the pipes to it."""

    def __init__(self, pool: WorkerPool):
        self._errors = tempfile.TemporaryFile()
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "riskpo_openrlhf.verifiers.worker", pool.function]
            + [str(pool.seconds), str(pool.wall), str(pool.megabytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        self._received = bytearray()

    def wait_until_ready(self, warm_up: tuple, seconds: float) -> None:
        try:
            self.send(json.dumps(warm_up).encode() + b"\n")
            self.receive(seconds)
        except (EOFError, TimeoutError) as error:
            reason = f"was not ready after {seconds:g} s" if isinstance(error, TimeoutError) else "ended"
            self._errors.seek(0)
            output = self._errors.read()[-4000:].decode(errors="replace").strip()
            raise WorkerError(f"a verifier's worker process {reason} at its start; its output:\n{output}") from None

    def send(self, request: bytes) -> None:
        try:
            self.process.stdin.write(request)
            self.process.stdin.flush()
        except (OSError, ValueError):  # it died, or was killed by `close`
            raise EOFError from None

    def receive(self, seconds: float) -> list:
        """Return the next reply. Raises `TimeoutError`, or `EOFError` if the process has ended."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        try:
            pipe = self.process.stdout.fileno()
            poll.register(pipe, select.POLLIN)
            while not self._received.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    raise TimeoutError
                part = os.read(pipe, 65_536)
                if not part:
                    raise EOFError
                self._received += part
        except TimeoutError:
            raise
        except (OSError, ValueError):
            raise EOFError from None
        reply, self._received = self._received, bytearray()
        return json.loads(reply)

    def signal_end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process, unless it has ended by itself. Its own exit status is kept."""
        self.signal_end()
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        """Close our ends of the pipes. The process ends when no process holds them."""
        for file in (self.process.stdin, self.process.stdout, self._errors):
            with contextlib.suppress(OSError):  # closing flushes, and the process may be gone
                file.close()


def shared_pool(function: str, warm_up: tuple = (), patience: float | None = None) -> WorkerPool:
    """Return this process's pool for a function. The first call makes it and, without `patience`, starts its workers.

    The environment variables `RISKPO_VERIFIER_WORKERS` (default: a quarter of the cores, 2 to 8) and
    `RISKPO_VERIFIER_SECONDS` (default: 3) set its size and time limit. Raises `ValueError` for a value that is no
    number above 0.
    """
    with _shared_lock:
        if function not in _shared:
            _shared[function] = WorkerPool(
                function,
                warm_up,
                size=number_from(WORKERS_VARIABLE, int, min(8, max(2, (os.cpu_count() or 1) // 4))),
                seconds=number_from(SECONDS_VARIABLE, float, 3.0),
                patience=patience,
            )
            if patience is None:
                _shared[function].start()
        return _shared[function]


_shared: dict[str, WorkerPool] = {}
_shared_lock = threading.Lock()


def _close_all() -> None:
    for pool in tuple(_pools):
        pool.close()


def _after_fork() -> None:
    """Give a forked child workers of its own. If it held our pipes, the parent's workers would outlive the parent."""
    global _shared_lock
    _shared_lock = threading.Lock()
    for pool in tuple(_pools):
        for worker in tuple(pool._workers):
            worker.forget()
            worker.process.returncode = 0  # another process waits for it
        pool._reset()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork)
