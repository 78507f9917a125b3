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

BUSY = "busy"
PATIENCE = 10  # seconds for a job that was killed to be gone
_held: list[IO] = []  # until this process ends, however it ends


def hold(values: dict, process: int) -> Iterator[Problem]:
    """Lock the folders of a job, named by `process`, as long as this process lives. `values`: flags by dotted name.

    Yields a problem for each folder that another job holds. Where no lock can be made, nothing is locked.
    """
    for flag, folder, path in _locks(values):
        until = time.monotonic() + PATIENCE
        while (file := _locked(path)) is BUSY and time.monotonic() < until:
            time.sleep(0.5)
        if file is BUSY:
            yield _problem(flag, folder, path)
        elif file:
            _held.append(file)
            with contextlib.suppress(OSError):  # the disk is full: the lock holds without a name
                file.truncate(0)
                print(f"process {process} on {socket.gethostname()}", file=file, flush=True)


def _locked(path: Path) -> IO | str | None:
    """Lock a file. Return what holds the lock, `BUSY`, or None where no lock can be made."""
    try:
        return lock(path.parent, name=path.name)
    except BlockingIOError:
        return BUSY
    except OSError:
        return None


def in_use(values: dict) -> Iterator[Problem]:
    """Find the folders that another job holds, for the dry run: makes and keeps nothing."""
    for flag, folder, path in _locks(values):
        try:
            with open(path) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield _problem(flag, folder, path)
        except OSError:  # no job was ever here, or there are no locks
            continue


def _locks(values: dict) -> Iterator[tuple[str, Path, Path]]:
    """Yield flag, folder and the file to lock. That of the model lies beside its folder, which only a model makes."""
    folder, model = (Path(values[flag] or ".").resolve() for flag in ("ckpt.path", "ckpt.output_dir"))
    if values["ckpt.path"]:
        yield "ckpt.path", folder, folder / LOCK
    if values["ckpt.output_dir"]:
        yield "ckpt.output_dir", model, model.with_name(f".{model.name}{LOCK}")


def _problem(flag: str, folder: Path, path: Path) -> Problem:
    try:
        holder = path.read_text().strip()
    except OSError:
        holder = ""
    return Problem(
        f"--{flag}",
        f" {folder} is in use by another job, {holder or 'unknown'}: wait for its end, or name another folder. If "
        f"that process is gone, delete {path}",
    )
