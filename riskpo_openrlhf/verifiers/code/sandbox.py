"""Run untrusted Python programs on Linux, isolated: they reach their input and output only.

Covered, in two layers. Linux namespaces: no files of the host but system libraries and Python's own, no network, no
other processes, no privileges. In each process: a system call filter (no new processes, no sockets, no signals to
others) and limits of CPU time, memory, output, files and threads. What is left after a run is killed with its PID
namespace. See docs/sandbox.md.

Not covered: bugs of the kernel; side channels (timing, caches, load); Python's and the system's libraries, which a
program can read. The sandbox is no virtual machine: use one if attackers may write the programs.

    python3 -m riskpo_openrlhf.verifiers.code.sandbox    # self-test: does the sandbox work on this machine?

Environment variables: RISKPO_SANDBOX (auto, namespaces, weak), RISKPO_CODE_SANDBOXES (how many at once in this
process; default: cores over RISKPO_CODE_ENGINES, the processes of a node that grade), RISKPO_CODE_PACKAGES (a folder
of packages that programs may import).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import sys
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from riskpo_openrlhf.verifiers.code.boxes import GRACE_SECONDS, Box, SandboxError, fill, in_memory, lend_box
from riskpo_openrlhf.verifiers.environment import number_from

MODES = ("auto", "namespaces", "weak")

# A program that tries what must fail and what must work. It prints the tries that went wrong.
_PROBE = """
import colorsys, json, os, socket, sys, threading  # colorsys: a module that is not loaded yet
secret, port, filtered = json.loads(input())
wrong = []
def refused(name, action):
    try:
        action()
    except (OSError, RuntimeError):
        return
    wrong.append(name)
def crowd():
    for _ in range(100):
        threading.Thread(target=done.wait).start()
refused("it reads the host's files", lambda: open(secret).close())
refused("it reads /etc", lambda: os.listdir("/etc"))
refused("it sees other processes", lambda: os.listdir("/proc/1"))
refused("it writes outside its folder", lambda: open("/written", "w").close())
refused("it writes to Python's files", lambda: open(os.__file__, "a").close())
refused("it reaches the network", lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close())
if filtered:
    refused("it makes processes", os.fork)
    refused("it sends signals", lambda: os.kill(os.getppid(), 9))
else:
    os.kill(1, 9)
if os.getppid() != 1 or os.getuid() == 0 or "RISKPO_PROBE" in os.environ:
    wrong.append("it is not in namespaces of its own")
if "/packages" in sys.path and not os.access("/packages", os.R_OK | os.X_OK):
    wrong.append("it can't read the folder RISKPO_CODE_PACKAGES, which must be open to all users")
open("file", "w").close()
done = threading.Event()
threading.stack_size(1 << 16)
threading.Thread(target=done.wait).start()
refused("it makes as many threads as it likes", crowd)
done.set()
print(json.dumps(wrong))
"""
_lock = threading.Lock()
_CURE = """the sandbox for programs does not work on this machine: {cause}.
It needs Linux 5.14 or newer on x86_64 or aarch64, and one of these: root with CAP_SYS_ADMIN (in a container:
--privileged, or --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined); or user
namespaces for this user (sysctl user.max_user_namespaces > 0, kernel.unprivileged_userns_clone=1, and on Ubuntu
kernel.apparmor_restrict_unprivileged_userns=0). RISKPO_SANDBOX=weak runs programs without isolation: they can then
read this user's files. See docs/sandbox.md; check with `python3 -m riskpo_openrlhf.verifiers.code.sandbox`"""


@dataclass(frozen=True)
class Run:
    """The end of a program's run.

    Attributes:
        code: the exit code; minus the signal's number if a signal ended the program; None at the wall-clock limit.
        output: standard output, or the function's result as JSON.
    """

    code: int | None
    output: bytes


class Sandbox:
    """A program in its sandbox, made by `open_sandbox`."""

    def __init__(self, box: Box, source: int, sink: int, kind: str, memory_bytes: int):
        self._box, self._source, self._sink = box, source, sink
        self._order = {"kind": kind, "memory_bytes": memory_bytes}

    def run(self, input: bytes, *, cpu_seconds: float, wall_seconds: float, filtered: bool = True) -> Run:
        """Run the program once, in a new process and an empty folder. Nothing of the run is left afterwards.

        Args:
            input: what this kind of run reads, see `open_sandbox`.
            cpu_seconds: limit of a process's CPU time, rounded up to whole seconds.
            wall_seconds: limit from start to end by the clock.
            filtered: with the system call filter. False only to test the namespaces and limits behind it.

        Raises `SandboxError` if the sandbox ended, `TimeoutError` if it did not end the run in time.
        """
        fill(self._source, input)
        fill(self._sink, b"")
        self._box.send({**self._order, "cpu": cpu_seconds, "wall": wall_seconds, "filtered": filtered})
        answer = self._box.receive(wall_seconds + GRACE_SECONDS)
        self._box.clean &= answer["clean"]
        return Run(answer["code"], os.pread(self._sink, os.fstat(self._sink).st_size, 0))


@contextlib.contextmanager
def open_sandbox(
    code: str, kind: str = "stdin", *, function: str = "", memory_mb: float = 1024, must_do: bool = False, weak=None
):
    """Open a `Sandbox` for one program, as a context manager. Waits while the allowed number are in use.

    Args:
        code: the program's source.
        kind: what a run does. `stdin`: the program reads the input and writes the output. `functional`: it calls
            `function` with the JSON values of the input, one a line; the output is the result as JSON. `assert`: the
            input is the source of a check, which runs in a process beside the program's; the output is its report.
        function: the function's name, for `functional`.
        memory_mb: limit of a process's address space, in MiB.
        must_do: a text that is Python but does nothing, such as `3`, counts as no Python.
        weak: without namespaces; default: as `mode()` says.

    Raises `SandboxError` if the sandbox does not start.
    """
    weak = mode() == "weak" if weak is None else weak
    packages = os.environ.get("RISKPO_CODE_PACKAGES", "")
    program = {"code": code, "function": function, "must_do": must_do}
    config = {
        "isolated": not weak,
        "visible": _visible() + ([(packages, "/packages")] if packages else []),
        "packages": [packages if weak else "/packages"] if packages else [],
        "folder": "/tmp",  # inside the sandbox
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(_make_slots())
        if weak:
            made = tempfile.TemporaryDirectory(prefix="riskpo-", ignore_cleanup_errors=True)
            config["folder"] = stack.enter_context(made)
        source, sink = (stack.enter_context(in_memory(name)) for name in ("input", "output"))
        box = stack.enter_context(lend_box(config))
        with in_memory("program", json.dumps(program).encode()) as file:
            box.send({}, [file, source, sink])
        yield Sandbox(box, source, sink, kind, int(memory_mb * (1 << 20)))


def mode() -> str:
    """Return `namespaces` or `weak`, by RISKPO_SANDBOX. The first call tests whether the sandbox isolates.

    Raises `ValueError` for an unknown value, and `SandboxError` with cause and cure if the sandbox does not isolate.
    """
    wanted = os.environ.get("RISKPO_SANDBOX", "auto")
    if wanted not in MODES:
        raise ValueError(f"RISKPO_SANDBOX is {wanted!r}; one of: {', '.join(MODES)}")
    with _lock:
        _make_slots()  # here, where one thread at a time passes
        return _working_mode(wanted == "weak")


@functools.cache
def _working_mode(weak: bool) -> str:
    if weak:
        warnings.warn(
            "RISKPO_SANDBOX=weak: programs of the model run with limits but without isolation; they can read and "
            "write this user's files",
            stacklevel=4,
        )
        return "weak"
    try:
        wrong = holes()
    except (OSError, SandboxError) as error:
        raise SandboxError(_CURE.format(cause=error)) from None
    if wrong:
        raise SandboxError(_CURE.format(cause="the self-test's program says: " + "; ".join(dict.fromkeys(wrong))))
    return "namespaces"


def holes() -> list[str]:
    """Run the self-test. Returns what a program can do but must not, with and without the system call filter."""
    wrong: list[str] = []
    with tempfile.NamedTemporaryFile() as secret, socket.create_server(("127.0.0.1", 0)) as server:
        os.chmod(secret.name, 0o644)
        with open_sandbox(_PROBE, weak=False) as sandbox:
            for filtered in (True, False):
                values = [secret.name, server.getsockname()[1], filtered]
                run = sandbox.run(json.dumps(values).encode(), cpu_seconds=10, wall_seconds=20, filtered=filtered)
                if run.code != 0:
                    raise SandboxError(f"the self-test's program ended with {run.code}")
                wrong += json.loads(run.output)
    return wrong


@functools.cache
def _make_slots() -> threading.BoundedSemaphore:
    share = len(os.sched_getaffinity(0)) // number_from("RISKPO_CODE_ENGINES", int, 1)
    return threading.BoundedSemaphore(number_from("RISKPO_CODE_SANDBOXES", int, max(1, share)))


def _after_fork() -> None:
    """Let a forked child wait for nothing that the parent's threads hold."""
    global _lock
    _lock = threading.Lock()
    _make_slots.cache_clear()


os.register_at_fork(after_in_child=_after_fork)


def _visible() -> list[tuple[str, str]]:
    """Return the folders that a program sees, as (path here, path there): those of Python's modules and libraries."""
    python = (f"{sys.base_prefix}/lib", f"{sys.base_exec_prefix}/{sys.platlibdir}", os.path.dirname(os.__file__))
    folders: list[str] = []
    for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", *python):
        if os.path.isdir(folder) and not any(Path(folder).is_relative_to(known) for known in folders):
            folders.append(folder)
    return [(folder, folder) for folder in folders]


if __name__ == "__main__":
    try:
        print(f"programs of the model run in: {mode()}")
    except (ValueError, SandboxError) as error:
        sys.exit(f"error: {error}")
