"""One job at a time writes into a folder: two that share one would mix their checkpoints and their models."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from riskpo_openrlhf.files import LOCK, lock
from riskpo_openrlhf.integration.faults import Problem

FLAGS = ("ckpt.path", "ckpt.output_dir")
BUSY = "busy"
PATIENCE = 10  # seconds for a job that was killed to be gone
_held: list[IO] = []  # until this process ends, however it ends


def hold(values: dict, process: int) -> Iterator[Problem]:
    """Lock the folders of a job, named by `process`, as long as this process lives. `values`: flags by dotted name.

    Yields a problem for each folder that another job holds. Where no lock can be made, nothing is locked.
    """
    for flag, folder in _folders(values):
        until = time.monotonic() + PATIENCE
        while (file := _locked(folder)) is BUSY and time.monotonic() < until:
            time.sleep(0.5)
        if file is BUSY:
            yield _problem(flag, folder)
        elif file:
            _held.append(file)
            with contextlib.suppress(OSError):  # the disk is full: the lock holds without a name
                file.truncate(0)
                print(f"process {process} on {socket.gethostname()}", file=file, flush=True)


def _locked(folder: Path) -> IO | str | None:
    """Lock a folder. Return the file that holds the lock, `BUSY`, or None where no lock can be made."""
    try:
        return lock(folder)
    except BlockingIOError:
        return BUSY
    except OSError:
        return None


def in_use(values: dict) -> Iterator[Problem]:
    """Find the folders that another job holds, for the dry run: makes and keeps nothing."""
    for flag, folder in _folders(values):
        try:
            with open(folder / LOCK) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _problem(flag, folder)
        except OSError:  # no job was ever here, or there are no locks
            continue


def _folders(values: dict) -> Iterator[tuple[str, Path]]:
    """Yield flag and folder, a folder that several flags name once."""
    seen = set()
    for flag in FLAGS:
        if values[flag] and (folder := Path(values[flag]).resolve()) not in seen:
            seen.add(folder)
            yield flag, folder


def _problem(flag: str, folder: Path) -> Problem:
    try:
        holder = (folder / LOCK).read_text().strip()
    except OSError:
        holder = ""
    return Problem(
        f"--{flag}",
        f" {folder} is in use by another job, {holder or 'unknown'}: wait for its end, or name another folder. If "
        f"that process is gone, delete {folder / LOCK}",
    )
