"""Atomic writes: a file is complete or absent, whenever a job is killed. And the lock of a folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from riskpo_openrlhf.tables import to_json

LOCK = ".lock"


@contextmanager
def in_one_step(path: str | os.PathLike) -> Iterator[Path]:
    """Write atomically: yields a temporary path beside `path`, which replaces `path` unless an error is raised."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    with in_one_step(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | os.PathLike, value: dict) -> None:
    """Write JSON for people: indented, NaN as null."""
    write_bytes(path, (to_json(value, indent=2) + "\n").encode())


def write_jsonl(path: str | os.PathLike, rows: Iterable[dict]) -> None:
    """Write a line of JSON a row."""
    with in_one_step(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def existing(folder: str | os.PathLike) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    folder = Path(folder).absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def lock(folder: Path, wait: bool = False, name: str = LOCK) -> IO:
    """Lock a folder, which is made if it is missing, until the returned file is closed or this process ends.

    On a file system without locks this does nothing. Raises `BlockingIOError` if another process has locked the
    folder, unless `wait`. `name`: of the file that is locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / name, "a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            file.close()
            raise
    return file
