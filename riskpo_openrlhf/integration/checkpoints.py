"""Checkpoints on disk: one that counts is whole, whenever a job is killed. Files only; no torch, no OpenRLHF.

    CKPT_PATH/_actor/global_step5/            a checkpoint; `_critic` beside it in runs with a critic
                     /.writing-global_step6/  being written by all ranks; its manifest comes last
                     /.deleting-global_step4/ on its way out
                     /latest                  the name of the newest checkpoint

A checkpoint is written under another name. When all parts are complete, `latest` is replaced, the parts are moved (the
critic's first), and only then are old ones deleted. `finish` does that and may be repeated after a kill at any moment.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from riskpo_openrlhf.files import write_bytes, write_json
from riskpo_openrlhf.integration.faults import RunFault

ACTOR, CRITIC = "_actor", "_critic"
WRITING, DELETING, PROBE = ".writing-", ".deleting-", ".shared-"
MANIFEST, METRIC, LATEST = "manifest.json", "metric.json", "latest"
TAG = re.compile(r"(best_)?global_step\d+")  # any other folder is not ours to delete
FORMAT = 1


def parts(root: Path, critic: bool) -> list[Path]:
    """Return the folders that a checkpoint of this run has a part in; the actor's, which decides, comes last."""
    return [root / CRITIC, root / ACTOR] if critic else [root / ACTOR]


def read_manifest(folder: Path) -> dict | None:
    """Read what was written last into a checkpoint: sizes of its files, ranks, fingerprints. None without one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest if manifest.get("format") == FORMAT else None


def seal(folder: Path, ranks: int, fingerprints: dict | None = None) -> None:
    """Write the manifest of a checkpoint whose files are complete, after they are on the disk."""
    files = {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder)}
    for name in files:
        descriptor = os.open(folder / name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    write_json(
        folder / MANIFEST, {"format": FORMAT, "files": files, "ranks": ranks, "fingerprints": fingerprints or {}}
    )


def damage(folder: Path) -> str | None:
    """Say why a checkpoint can't be resumed; None if it is whole.

    Without a manifest (OpenRLHF wrote it, or an earlier release), `metric.json`, which OpenRLHF writes last, counts.
    """
    if not folder.is_dir():
        return "there is no such folder"
    manifest = read_manifest(folder)
    if manifest is None:
        if not (folder / METRIC).is_file():
            return f"its writing was interrupted: it has no {MANIFEST}"
        empty = [path.name for path in _files(folder) if path.stat().st_size == 0]
        return f"{empty[0]} is empty" if empty else None
    for name, size in manifest["files"].items():
        try:
            found = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes and had {size}"
    return None


def read_latest(folder: Path) -> str | None:
    """Return the name in `latest`, or None."""
    try:
        return (folder / LATEST).read_text().strip() or None
    except (OSError, ValueError):
        return None


def choose(root: Path, critic: bool) -> tuple[str | None, list[str]]:
    """Return the checkpoint to resume from, None for the beginning, and lines that say what was passed over.

    The one that `latest` names, else the newest one that is whole in every part.
    """
    actor, lines = root / ACTOR, []
    latest = read_latest(actor)
    found = sorted(tags(actor), key=lambda tag: (_step(tag), (actor / tag).stat().st_mtime), reverse=True)
    if latest and latest not in found:
        lines.append(f"checkpoint {actor / latest}, which `latest` names, does not exist")
    for tag in [latest] * (latest in found) + [tag for tag in found if tag != latest]:
        for part in parts(root, critic):
            if problem := damage(part / tag):
                lines.append(f"checkpoint {part / tag} is not used: {problem}")
                break
        else:
            if lines:
                lines.append(f"the newest whole checkpoint is {tag}: the run resumes from it")
            return tag, lines
    return None, [*lines, f"there is no whole checkpoint in {root}: the run starts from the beginning"]


def recover(root: Path, critic: bool, max_num: int, max_mem: float) -> list[str]:
    """Finish or remove what an interrupted run has left. Return lines that say so. Call it before `choose`."""
    lines = [f"checkpoint {tag} was complete but not yet moved: moved now" for tag in complete(root, critic)]
    finish(root, critic, max_num, max_mem)
    for part in filter(Path.is_dir, parts(root, True)):
        for path in list(part.iterdir()):
            if path.name.startswith((WRITING, DELETING)):
                lines += [f"removed {path}: its writing was interrupted"] * path.name.startswith(WRITING)
                shutil.rmtree(path)
            elif path.name.startswith((f".{LATEST}.", PROBE)):
                path.unlink()
        if part.name == CRITIC:
            for tag in set(tags(part)) - set(tags(root / ACTOR)):  # moved without the actor's, or left by a deletion
                lines.append(f"removed {part / tag}: the actor has none of that name")
                _delete(part / tag)
    return lines


def finish(root: Path, critic: bool, max_num: int, max_mem: float) -> list[str]:
    """Replace `latest`, move each complete `.writing-` folder to its name, then delete old checkpoints.

    `max_mem` in GiB. Returns the names that were moved. Repeats nothing that is done.
    """
    moved = complete(root, critic)
    for tag in moved:
        point_latest(root, critic, tag)
        for part in parts(root, critic):
            new = part / f"{WRITING}{tag}"
            if new.is_dir():
                if (part / tag).exists():
                    _set_aside(part / tag)
                os.rename(new, part / tag)
        _rotate(root, critic, tag, max_num, max_mem)
    return moved


def point_latest(root: Path, critic: bool, tag: str | None) -> None:
    """Let `latest` of every part name this checkpoint, each in one step. None: remove it."""
    for part in parts(root, critic):
        if tag is None:
            (part / LATEST).unlink(missing_ok=True)
        elif read_latest(part) != tag:
            write_bytes(part / LATEST, tag.encode())


def require_space(folder: Path, tag: str, guess: int) -> None:
    """Refuse to begin a checkpoint that the disk has no room for. Raises `RunFault`.

    It needs as much as the newest whole one in `folder`, or `guess` bytes if there is none.
    """
    sizes = [size for found in tags(folder) if (size := _size(folder / found))]
    needed = int(1.02 * max(sizes)) if sizes else guess
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise disk_full(folder, tag, f"it needs {_gib(needed)} and {_gib(free)} are free")


def convert(checkpoint: Path, universal: Path) -> None:
    """Make DeepSpeed's universal checkpoint of one: a file of each parameter, which any number of ranks can load."""
    shutil.rmtree(universal, ignore_errors=True)
    words = ["--input_folder", checkpoint, "--output_folder", universal, "--num_extract_workers", "1"]
    tool = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *words, "--num_merge_workers", "1"]
    done = subprocess.run(tool, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (universal.parent / "latest_universal").unlink(missing_ok=True)  # this program loads by name
    if done.returncode:
        raise RunFault(
            f"checkpoint {checkpoint} can't be converted for another number of ranks: {done.stdout[-2000:]}",
            "Resume with as many ranks as wrote it, or mend what DeepSpeed's ds_to_universal says above",
        )


def disk_full(folder: Path, tag: str, detail: str) -> RunFault:
    """Make the fault of a checkpoint that found no room."""
    whole = [found for found in tags(folder) if not damage(folder / found)]
    kept = f"kept: {', '.join(sorted(whole, key=_step))}" if whole else "there is no earlier checkpoint"
    return RunFault(
        f"{os.strerror(errno.ENOSPC)}: checkpoint {tag} can't be written to {folder}: {detail}; {kept}",
        "Free space, or set --ckpt.path to a larger disk, --ckpt.max_num lower or --ckpt.save_steps higher, "
        "and resume with --ckpt.load_enable",
    )


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Tell whether an error of writing means a full disk. torch's writer says `unexpected pos` and no more."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "unexpected pos" in str(error) or "No space left" in str(error) or "file write failed" in str(error)


def require_writable(folder: Path, error: BaseException) -> None:
    """Raise the disk's own error if nothing can be written, other than on a full disk: torch's writer hides it."""
    if isinstance(error, OSError):
        return
    try:
        (folder / f"{PROBE}write").write_bytes(b"1")
    except OSError as reason:
        if not is_disk_full(reason, folder):
            raise reason from error


def complete(root: Path, critic: bool) -> list[str]:
    """Return names of checkpoints that are complete in every part and still to be moved, oldest first."""
    names = [path.name for path in (root / ACTOR).glob(f"{WRITING}*") if _whole(path)]
    if critic:  # its part may have been moved already
        parts_of = ((name, root / CRITIC / name, root / CRITIC / name.removeprefix(WRITING)) for name in names)
        names = [name for name, part, moved in parts_of if _whole(part if part.exists() else moved)]
    return sorted((name.removeprefix(WRITING) for name in names), key=_step)


def _whole(folder: Path) -> bool:
    return read_manifest(folder) is not None and damage(folder) is None


def _rotate(root: Path, critic: bool, newest: str, max_num: int, max_mem: float) -> None:
    """Delete old checkpoints by OpenRLHF's order (no metric, worst metric, oldest), never the newest.

    A best checkpoint is deleted by the next best one, and by nothing else.
    """
    actor = root / ACTOR
    others = [tag for tag in tags(actor) if tag != newest]
    if newest.startswith("best"):
        for tag in [tag for tag in others if tag.startswith("best")]:
            _delete_everywhere(root, critic, tag)
    regular = [tag for tag in others if not tag.startswith("best")]
    for tag in [tag for tag in regular if damage(actor / tag)]:  # never counted
        _delete_everywhere(root, critic, tag)
        regular.remove(tag)
    regular.sort(key=lambda tag: (_metric(actor / tag) is not None, _metric(actor / tag) or 0.0, _age(actor / tag)))
    over = 0 if newest.startswith("best") else len(regular) + 1 - max(max_num, 1)
    while regular and (over > 0 or sum(_size(actor / tag) for tag in tags(actor)) > max_mem * 1024**3):
        _delete_everywhere(root, critic, regular.pop(0))
        over -= 1


def _delete_everywhere(root: Path, critic: bool, tag: str) -> None:
    for part in reversed(parts(root, critic)):  # the actor's first: without it the critic's is no checkpoint
        if (part / tag).is_dir():
            _delete(part / tag)


def _delete(folder: Path) -> None:
    shutil.rmtree(_set_aside(folder))


def _set_aside(folder: Path) -> Path:
    """Rename a checkpoint in one step, so that a half-deleted one does not look like one."""
    target = folder.with_name(f"{DELETING}{folder.name}")
    if target.exists():
        shutil.rmtree(target)
    os.rename(folder, target)
    return target


def tags(part: Path) -> list[str]:
    """Return the names of a part's checkpoints, whole or not."""
    if not part.is_dir():
        return []
    return [path.name for path in part.iterdir() if path.is_dir() and TAG.fullmatch(path.name)]


def _step(tag: str) -> int:
    number = re.search(r"(\d+)$", tag)
    return int(number.group(1)) if number else -1


def _age(folder: Path) -> int:
    return (folder / MANIFEST if (folder / MANIFEST).exists() else folder).stat().st_mtime_ns


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _metric(folder: Path) -> float | None:
    try:
        value = json.loads((folder / METRIC).read_text())["metric_value"]
        return None if value is None else float(value)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _gib(size: int) -> str:
    return f"{size / 1024**3:.3g} GiB"
