"""DeepSpeed's operators are compiled into a folder of this environment, and a lock that a killed job left is removed.

torch's common folder is shared by all environments of a user, which undo each other's work. So do two versions of
ninja, which disagree about what is up to date: this environment's comes first. A job that is killed while it compiles
leaves a file `lock` behind, on which every later job would wait without a word.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from riskpo_openrlhf.console import say

VARIABLE = "TORCH_EXTENSIONS_DIR"
OLD = 1800  # seconds after which a lock is stale that a process of another machine may hold


def prepare() -> None:
    """Choose the folder for this process and those it starts, unless it is set, and remove stale locks in it."""
    if VARIABLE not in os.environ and os.access(sys.prefix, os.W_OK):
        os.environ[VARIABLE] = str(Path(sys.prefix) / "torch_extensions")
        if sys.prefix != sys.base_prefix:
            os.environ["PATH"] = os.pathsep.join(
                (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
            )
    if VARIABLE in os.environ:
        remove_stale_locks(Path(os.environ[VARIABLE]))


def remove_stale_locks(folder: Path) -> None:
    """Remove each lock that no process here holds open, or that is very old if the process may be elsewhere.

    torch keeps the file open while it compiles.
    """
    for lock in [*folder.glob("*/lock"), *folder.glob("*/*/lock")]:
        try:
            age = time.time() - lock.stat().st_mtime
            if _is_open(lock) or (os.environ.get("RAY_ADDRESS") and age < OLD):
                continue
            lock.unlink()
        except FileNotFoundError:  # released meanwhile
            continue
        say(f"note: removed {lock}, which a job that was killed left {age:.0f} s ago")


def _is_open(path: Path) -> bool:
    wanted = str(path.resolve())
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) == wanted:
                return True
        except OSError:  # ended, or another user's
            continue
    return False
