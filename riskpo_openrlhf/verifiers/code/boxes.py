"""Start sandboxes from `guest.py`, reuse them for one program after another, and end them.

A sandbox is reused only if its supervisor reports after every run that no trace can be left (`guest.py`,
`Supervisor`): the program ended by itself, and its folder was never changed. Any other sandbox ends with its program.
A sandbox runs one program at a time, and one run of it at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 30
GRACE_SECONDS = 10
_SCRIPT = Path(__file__).with_name("guest.py")


class SandboxError(RuntimeError):
    """The sandbox failed, not the program in it."""


class Box:
    """A sandbox that runs one program after another. `clean`: none of them can have left a trace."""

    def __init__(self, config: dict):
        self.config, self.clean = config, config["isolated"]
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, in_memory("settings", json.dumps(config).encode()) as settings:
            _zygote.open([theirs.fileno(), settings])
        try:
            reply = self.receive(START_SECONDS)
            if "failed" in reply:
                raise SandboxError(reply["failed"])
        except BaseException:
            self.close()
            raise

    def send(self, message: dict, files: Sequence[int] = ()) -> None:
        with contextlib.suppress(BrokenPipeError):  # it ended; `receive` says why
            socket.send_fds(self.control, [json.dumps(message).encode()], files)

    def receive(self, seconds: float) -> dict:
        """Read the supervisor's next message, over a socket that programs do not have."""
        self.clean, clean = False, self.clean  # no other program gets a sandbox that is late or has ended
        self.control.settimeout(seconds)
        try:
            message = self.control.recv(1 << 16)
        except TimeoutError:
            raise TimeoutError(f"the sandbox gave no answer within {seconds:.0f} s") from None
        except ConnectionError:
            message = b""
        if not message:
            raise SandboxError(f"the sandbox ended: {_zygote.errors()}")
        self.clean = clean
        return json.loads(message)

    def ended(self) -> bool:
        """Tell whether it ended while nobody used it."""
        self.control.setblocking(False)
        try:
            return not self.control.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """End everything in the sandbox, and wait until it is gone."""
        with contextlib.suppress(OSError), self.control:
            self.control.shutdown(socket.SHUT_WR)
            self.control.settimeout(GRACE_SECONDS)
            while self.control.recv(1 << 16):
                pass


class _Zygote:
    """The process of `guest.py` that makes sandboxes, started once for this process and again if it has ended."""

    def __init__(self):
        self._lock, self._host, self._process, self._errors = threading.Lock(), None, None, None

    def open(self, files: list[int]) -> None:
        """Make a sandbox with these files: the socket to it, and its settings."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            socket.send_fds(self._host, [b"+"], files)

    def _start(self) -> None:
        self.forget()
        libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._host, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._errors = os.memfd_create("errors")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-S", "-B", "-X", "utf8", str(_SCRIPT)],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env={
                    "HOME": "/tmp", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1",
                    "PYTHONHASHSEED": "0",  # the order of a set, and so a verdict, is the same each time
                    **libraries,
                },
                cwd="/",
                start_new_session=True,
            )  # fmt: skip

    def errors(self) -> str:
        """Return the end of what the zygote and its launchers wrote about their end."""
        size = os.fstat(self._errors).st_size
        return os.pread(self._errors, 4096, max(0, size - 4096)).decode(errors="replace").strip()

    def forget(self) -> None:
        """Close our ends of the sockets. The zygote and its sandboxes end when no process holds them."""
        if self._process:
            self._host.close()
            os.close(self._errors)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_SECONDS)
            self._process = None


_zygote = _Zygote()
_idle: list[Box] = []  # clean ones, for the next programs


def _after_fork() -> None:
    """Give a forked child sandboxes of its own. If it held our sockets, they would outlive this process."""
    global _zygote
    if _zygote._process:
        _zygote._process.returncode = 0  # another process waits for it
    _zygote.forget()
    _zygote = _Zygote()
    while _idle:
        _idle.pop().control.close()


def _close_all() -> None:
    while _idle:
        _idle.pop().close()
    _zygote.forget()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)


@contextlib.contextmanager
def lend_box(config: dict):
    """Lend a sandbox of these settings: one that only clean programs have used, or a new one."""
    box, done = _take(config) or Box(config), False
    try:
        yield box
        done = True
    finally:
        if done and box.clean:
            _idle.append(box)
        else:
            box.close()


def _take(config: dict) -> Box | None:
    with contextlib.suppress(IndexError):  # none is left; other threads take them too
        while (box := _idle.pop()).config != config or box.ended():
            box.close()
        return box


@contextlib.contextmanager
def in_memory(name: str, content: bytes = b""):
    """Make a file in memory, which has no path."""
    file = os.memfd_create(name)
    try:
        fill(file, content)
        yield file
    finally:
        os.close(file)


def fill(file: int, content: bytes) -> None:
    """Replace the content of a file, and go to its start."""
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    while content:
        content = content[os.write(file, content) :]
