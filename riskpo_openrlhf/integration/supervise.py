"""Run a training job in a child process: end it whole, say why it ended, start it again after a fault of machines.

The supervisor imports neither torch nor OpenRLHF's modules. So it answers signals at once, whatever the job does, and
can clean up after a job that was killed. On Linux it adopts every process whose parent dies (PR_SET_CHILD_SUBREAPER):
its descendants are the processes of the job on this machine, those of a Ray cluster that was there before excepted.
Ray ends those when the job's process ends, and vLLM's processes end with their actor (`runtime.end_with_parent`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from riskpo_openrlhf.console import MARK, say
from riskpo_openrlhf.integration import causes, checkpoints, contract
from riskpo_openrlhf.integration.causes import Fault
from riskpo_openrlhf.integration.cluster import absolute_paths
from riskpo_openrlhf.integration.ending import LOOKS_VARIABLE, RECORD_VARIABLE
from riskpo_openrlhf.integration.parser import early_flags
from riskpo_openrlhf.runtime import RUN_VARIABLE

MODULE = "riskpo_openrlhf.cli.train"
# All that ask a process to end. Slurm and others send some of them before a time limit.
CODES = {
    number: 128 + number
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
                   signal.SIGXCPU)
}  # fmt: skip
START_TRIES = 3  # of a fault that another start may mend, such as a port that is taken, whatever --riskpo.max_restarts
LONGEST_WAIT = 60  # seconds between two starts
TERM_SECONDS, KILL_SECONDS = 3, 10
LATE = 60  # seconds beyond --riskpo.stall_timeout after which a job counts as hung that does not end itself
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    """Train by the flags of `sys.argv`, under a supervisor. `--help`, wrong flags and a dry run need none."""
    try:
        contract.check_version()
        flags = early_flags(sys.argv[1:])
    except contract.ContractError as error:
        print(f"{MARK}{error}", file=sys.stderr)
        sys.exit(3)
    if flags["riskpo.dry_run"]:
        from riskpo_openrlhf.integration import launch

        launch.main()
    else:
        absolute_paths(flags)  # as the job does, to find its checkpoints
        sys.exit(Supervisor(sys.argv[1:], flags).run())


class Supervisor:
    """One run: as many jobs as its faults and `--riskpo.max_restarts` ask for.

    Args:
        argv: the flags of the job.
        flags: their values by dotted name, as far as they are known before OpenRLHF is imported.
        command: what runs a job; the flags follow.
    """

    def __init__(self, argv: list[str], flags: dict, command: tuple[str, ...] = (sys.executable, "-m", MODULE)):
        self.argv, self.flags, self.command = list(argv), flags, list(command)
        self.child: subprocess.Popen | None = None
        self.signal: int | None = None
        self.hung: Fault | None = None  # why the job was ended here
        self.before = {} if flags["ckpt.load_enable"] else self._checkpoints()
        self.restarts, self.tries, self.wait = 0, 0, 0
        self.last: Fault | None = None
        self.libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def run(self) -> int:
        """Run to the end. Return the exit code of the whole."""
        if self.libc:
            self.libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in CODES:
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`
                signal.signal(number, self._on_signal)
        while True:
            code, record = self._job()
            if self.signal is not None:
                return self._by_signal()
            if record.get("done"):  # whatever happened when its processes ended
                _say("done", done=True)
                return 0
            if code in (0, 2, 3) and "fault" not in record:
                return code
            told = record.get("fault") or record.get("suspect")
            fault = Fault(**told) if told else self.hung or causes.died(code)
            again = self._again(fault, record.get("steps", 0))
            if not again:
                for line in fault.lines():
                    _say(line)
                return 1
            _say(fault.lines()[0])
            _say(f"restart {again} in {self.wait} s, {self._from()}", restart=again, after_step=record.get("step"))
            self._sleep(self.wait)
            if self.signal is not None:
                return self._by_signal()

    def _again(self, fault: Fault, steps: int) -> str:
        """Return which restart follows a fault, after so many steps of the job; an empty string if none does."""
        last, self.last = self.last, fault
        self.wait = 1 if steps else min(LONGEST_WAIT, max(1, 2 * self.wait))
        if fault.kind == causes.START and not steps and self.tries < START_TRIES:
            self.tries += 1
            return f"{self.tries} of {START_TRIES} of the start"
        if fault.kind == causes.RUN_FAULT or self.restarts >= self.flags["riskpo.max_restarts"]:
            return ""
        if last is not None and not steps and _same(fault, last):
            fault.cause += "; the same fault ended the start before, without a step between"
            return ""
        self.restarts += 1
        return f"{self.restarts} of {self.flags['riskpo.max_restarts']}"

    def _by_signal(self) -> int:
        _say(f"{signal.Signals(self.signal).name}: ended")
        return CODES[self.signal]

    def _job(self) -> tuple[int, dict]:
        """Run one job. Return its exit code and its record, after every process of it has ended."""
        with tempfile.TemporaryDirectory(prefix="riskpo-") as folder:
            path = Path(folder) / "record.json"
            looks, write = os.pipe()
            os.set_blocking(write, False)
            environment = {**os.environ, RECORD_VARIABLE: str(path), RUN_VARIABLE: uuid.uuid4().hex}
            environment[LOOKS_VARIABLE] = str(write)
            parent = os.getpid()

            def die_with_parent() -> None:
                if self.libc:
                    self.libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                    if os.getppid() != parent:  # it died before
                        os._exit(1)

            # A session of its own: Ctrl-C reaches the supervisor alone.
            self.child = subprocess.Popen(
                [*self.command, *self.argv, *(self._resume_flags() if self.last else [])],
                env=environment, start_new_session=True, preexec_fn=die_with_parent, pass_fds=[write],
            )  # fmt: skip
            os.close(write)
            if self.signal is not None:  # it came before there was a child
                self._kill()
            code = self._wait(looks)
            os.close(looks)
            record = json.loads(path.read_text()) if path.exists() else {}
        end_descendants()
        return code, record

    def _wait(self, looks: int) -> int:
        """Wait for the child, and bury the orphans that came to this process. Return the child's exit code.

        `looks`: a pipe through which the child's watcher sends a byte at each look. If none comes for the stall limit
        and `LATE` more, the child is killed. Seconds are counted one by one: when the whole machine is suspended, this
        process is, too.
        """
        limit = self.flags["riskpo.stall_timeout"] + LATE
        watched, quiet, self.hung = limit > LATE, None, None
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG if watched else 0)
            if pid == self.child.pid:
                self.child.returncode = code = os.waitstatus_to_exitcode(status)
                return code
            if pid:
                continue
            if select.select([looks], [], [], 1)[0]:
                watched, quiet = bool(os.read(looks, 65536)), 0  # nothing to read: the child ends, and has closed it
            elif quiet is not None:
                quiet += 1
                if quiet > limit and self.hung is None:
                    self.hung = causes.hung(self.child.pid, quiet)
                    self._kill()

    def _kill(self) -> None:
        # Not politely: in its main thread Ray would answer SIGTERM with a native stack trace.
        with contextlib.suppress(ProcessLookupError):  # it has just ended; `_wait` has yet to say so
            os.kill(self.child.pid, signal.SIGKILL)

    def _on_signal(self, number: int, frame) -> None:
        self.signal = number
        if self.child is not None and self.child.returncode is None:
            self._kill()

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.signal is None and time.monotonic() < until:
            time.sleep(0.1)

    def _checkpoints(self) -> dict[str, int]:
        """Return the checkpoints, also those still to be moved, and when each was changed by the disk's clock."""
        root = Path(self.flags["ckpt.path"])
        actor = root / checkpoints.ACTOR
        found = {tag: actor / tag for tag in checkpoints.tags(actor)}
        for tag in checkpoints.complete(root, (root / checkpoints.CRITIC).is_dir()):
            found[tag] = actor / f"{checkpoints.WRITING}{tag}"
        return {tag: folder.stat().st_mtime_ns for tag, folder in found.items()}

    def _has_checkpoint(self) -> bool:
        """Tell whether this run has a checkpoint. Without `--ckpt.load_enable`, one from before is another run's."""
        return bool(self._checkpoints().items() - self.before.items())

    def _resume_flags(self) -> list[str]:
        # The default name of the logs holds the time of the start.
        flags = ["--logger.wandb.run_name", str(self.flags["logger.wandb.run_name"])]
        return [*flags, "--ckpt.load_enable"] if self._has_checkpoint() else flags

    def _from(self) -> str:
        if self._has_checkpoint():
            return f"from the last checkpoint in {self.flags['ckpt.path']}"
        return "from the beginning: there is no checkpoint yet (--ckpt.save_steps)"


def _say(message: str, **data) -> None:
    """Print a line of ours, if anyone still reads: the exit code counts more."""
    try:
        say(message, **data)
    except OSError:  # Ctrl-C has ended the reader of the pipe, or the disk of the log is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _same(one: Fault, other: Fault) -> bool:
    """Tell whether two faults are one and the same: process numbers and times may differ."""
    return re.sub(r"\d", "", one.cause) == re.sub(r"\d", "", other.cause)


def end_descendants() -> None:
    """End every process that descends from this one: SIGTERM, then SIGKILL."""
    import psutil

    for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        until = time.monotonic() + seconds
        # Again and again: a process may have started another meanwhile, and orphans come to this process.
        left, told = psutil.Process().children(recursive=True), set()
        while left and time.monotonic() < until:
            for process in set(left) - told:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            told.update(left)
            psutil.wait_procs(left, timeout=0.1)
            left = psutil.Process().children(recursive=True)
    if left:
        _say(f"note: processes {', '.join(str(process.pid) for process in left)} of this run do not end; see `ps`")
