"""How the submitting process of a run ends: its exit code, its last lines, and what it tells its supervisor.

The supervisor (`supervise.py`) names a file in RISKPO_RECORD. It is JSON, written atomically: `step`, the last step
that was made; `steps`, how many this process made; `fault`, with cause, cure and kind; `done`; `suspect`, the fault
that a death without a word would be due to. Through the pipe in RISKPO_LOOKS goes a byte for each look of the watcher.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import traceback
from dataclasses import asdict
from types import SimpleNamespace

from riskpo_openrlhf.console import say
from riskpo_openrlhf.files import write_json
from riskpo_openrlhf.integration.causes import INFRASTRUCTURE, LOST_CONNECTION, Fault, explain
from riskpo_openrlhf.integration.watch import Watcher, death

RECORD_VARIABLE, LOOKS_VARIABLE = "RISKPO_RECORD", "RISKPO_LOOKS"
END_SECONDS = 60.0  # for Ray to end its processes after the training
LOG_SECONDS = 1.0  # for the last lines of other processes, which Ray hands on
# Taken out of the environment at once: Ray's processes are not the submitting process.
_record = {"path": os.environ.pop(RECORD_VARIABLE, "")}
_looks = int(os.environ.pop(LOOKS_VARIABLE, -1))
if _looks >= 0:
    os.set_inheritable(_looks, False)  # it closes with this process
_fields: dict = {}
_folders: list[str] = []


def note(**fields) -> bool:
    """Tell the supervisor. Return False if there is none, or if the disk of the temporary folder takes nothing."""
    with _noting:
        _fields.update(fields)
        if not _record["path"]:
            return False
        try:
            write_json(_record["path"], _fields)
        except OSError:
            return False
    return True


def process() -> int:
    """Return the process that a signal to this run should go to: the supervisor, else this one."""
    return os.getppid() if _record["path"] else os.getpid()


def looked() -> None:
    """Tell the supervisor that the watcher lives."""
    with contextlib.suppress(OSError):  # nobody supervises, or nobody reads at the moment
        os.write(_looks, b".")


def done() -> None:
    """Say that the run has trained. A supervisor prints it when all processes have ended, so that it comes last."""
    if not note(done=True):
        say("done", done=True)
    sys.stdout.flush()
    timer = threading.Timer(END_SECONDS, os._exit, (0,))  # Ray's own end waits for ever for a head that hangs
    timer.daemon = True
    timer.start()


_noting = threading.Lock()
_ending = threading.Lock()  # taken for good by the thread that ends this process


def last_words(kind, error, trace) -> None:
    """End this process by `fail` after an error that nothing caught, with its traceback before the last lines."""
    if issubclass(kind, KeyboardInterrupt):
        return sys.__excepthook__(kind, error, trace)
    if _ending.locked():  # the watcher ends the run: what Ray raises here meanwhile is a consequence
        threading.Event().wait()
    traceback.print_exception(kind, error, trace)
    fault = explain(error, _folders)
    if fault.kind == INFRASTRUCTURE:
        # A lost connection is often what the survivors of a death see: the death is the cause. Ray needs longest to
        # learn of a dead node: five missed health checks, 3 s apart.
        fault = death(_folders, 20 if fault.cause.startswith(LOST_CONNECTION) else 3) or fault
    time.sleep(LOG_SECONDS)
    fail(fault)


def watch_run(args: SimpleNamespace) -> None:
    """Watch the parts of the run until this process ends. `args`: OpenRLHF's final flags, nested."""
    _folders[:] = [folder for folder in (args.ckpt.path, args.ckpt.output_dir, args.logger.tensorboard_dir) if folder]
    watcher = Watcher(fail, args.riskpo.stall_timeout, note, looked, tuple(_folders))
    atexit.register(watcher.stop)  # runs before Ray's own, which was registered before
    watcher.start()


def fail(fault: Fault) -> None:
    """End this process with exit code 1. Without a supervisor, end Ray and print the last lines first.

    The first call wins: a later one, from another thread, waits for the end.
    """
    _ending.acquire()
    if not note(fault=asdict(fault)):
        _shut_down_ray()
        for line in fault.lines():
            say(line)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _shut_down_ray(seconds: float = 10) -> None:
    import ray

    # Ray may wait for a process that does not answer: it gets `seconds`.
    thread = threading.Thread(target=ray.shutdown, daemon=True)
    thread.start()
    thread.join(seconds)
