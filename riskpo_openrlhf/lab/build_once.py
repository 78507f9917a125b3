"""Build a folder once. It is complete or absent, even if the program is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def build_once(folder: str | os.PathLike, build: Callable[[Path], None]) -> bool:
    """Call `build` to fill `folder`, unless the folder exists. Return True if it was built now.

    `build` writes to a temporary folder beside it, which is then renamed.
    """
    folder = Path(folder)
    if folder.is_dir():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        build(temporary)
        temporary.chmod(0o755)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another process has built the same folder meanwhile
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True
