"""Find the files of a data set on the hub, in its cache or in a folder of copies, and stream their records.

`huggingface_hub` downloads, and `datasets` decides which files are a split. Records are read here: types are not
guessed (a string stays a string, an image its bytes) and no file is held in memory as a whole.
"""

from __future__ import annotations

import json
import posixpath
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from riskpo_openrlhf.data.schema import DataError

SUFFIXES = (".parquet", ".jsonl", ".json")
FULL_SHA = re.compile(r"[0-9a-f]{40}")


class Copy(NamedTuple):
    """The files of one split. `revision`: their commit, None for a folder of copies."""

    files: list[Path]
    revision: str | None


def fetch(
    repo: str,
    split: str,
    *,
    config: str | None = None,
    files: Sequence[str] = (),
    revision: str | None = None,
    copies: Path | None = None,
) -> Copy:
    """Return the files of one split of a data set. Download them unless the hub's cache has them.

    Args:
        repo: `OWNER/NAME`.
        config: the hub's name for a subset; needed if a data set has several.
        files: globs of the files, if they are not those of a split.
        revision: a commit, also abbreviated, or a branch; None is `main`.
        copies: read `copies/OWNER/NAME` and nothing else.

    Raises:
        DataError: not reachable, missing, or without such files; the message says what to do.
    """
    if copies is not None:
        folder = Path(copies, repo).absolute()
        if not folder.is_dir():
            raise DataError(f"--from {copies}: {folder} is not there; put a copy of the data set {repo} into it")
        patterns = files or _patterns(folder, repo, config, split)
        return Copy(_resolve(folder, repo, patterns, split), None)
    try:
        revision = _commit(repo, revision)
        if not files:
            folder = _snapshot(repo, revision, ["README.md"])
            revision = folder.name
            files = _patterns(folder, repo, config, split)
        folder = _snapshot(repo, revision, files or [f"*{suffix}" for suffix in SUFFIXES])
    except _hub_errors() as error:
        raise DataError(
            f"{repo} at revision {revision or 'main'} can't be downloaded ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}): {_cure()}"
        ) from error
    return Copy(_resolve(folder, repo, files, split), folder.name)


def count_records(files: Iterable[Path]) -> int | None:
    """Return the number of records if the files declare it (parquet), else None."""
    import pyarrow.parquet as parquet

    files = list(files)
    if any(path.suffix != ".parquet" for path in files):
        return None
    return sum(parquet.read_metadata(path).num_rows for path in files)


def records(files: Iterable[Path], columns: Sequence[str], where: str = "") -> Iterator[dict]:
    """Yield every record with these columns only. Raises `DataError` if a column is missing or a file is broken."""
    readers = {".parquet": _from_parquet, ".jsonl": _from_lines, ".json": _from_json}
    for path in files:
        try:
            yield from readers[path.suffix](path, columns)
        except KeyError as error:
            raise DataError(
                f"{where or path}: {error.args[0]}; the source is not what it was: try --revision"
            ) from error
        except (ValueError, OSError) as error:
            raise DataError(f"{path} can't be read: {error}; delete it and download it again") from error


def _cure() -> str:
    """Return what to do where a download is not possible."""
    from huggingface_hub import constants

    ways = ["set HF_ENDPOINT to a mirror", "set HF_HUB_OFFLINE=1 with HF_HOME at a cache that has the data set"]
    if constants.HF_HUB_OFFLINE:
        ways = ["HF_HUB_OFFLINE is set: unset it to download", "set HF_HOME to a cache that has the data set"]
    return "; or ".join([*ways, "give --from a folder with copies, DIR/OWNER/NAME/..."])


def _snapshot(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import constants, snapshot_download

    # The library keeps finished files, resumes after a lost connection, and checks sizes.
    where = {"repo_type": "dataset", "revision": revision, "local_files_only": constants.HF_HUB_OFFLINE}
    return Path(snapshot_download(repo, allow_patterns=list(patterns), **where))


def _commit(repo: str, revision: str | None) -> str | None:
    """Return the full commit of an abbreviated one, which the hub refuses; anything else unchanged."""
    if revision is None or FULL_SHA.fullmatch(revision) or not re.fullmatch(r"[0-9a-f]{6,39}", revision):
        return revision
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="dataset"), "snapshots")
    known = [path.name for path in cache.glob(f"{revision}*")]
    if not known and constants.HF_HUB_OFFLINE:
        raise DataError(f"{repo} at revision {revision} is not in the cache: {_cure()}")
    if not known:
        known = [c.commit_id for c in HfApi().list_repo_commits(repo, repo_type="dataset")]
    for commit in known:
        if commit.startswith(revision):
            return commit
    raise DataError(f"{repo} has no commit {revision}...: take another one by --revision NAME=COMMIT, or NAME=main")


def _hub_errors() -> tuple[type[Exception], ...]:
    import httpx
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

    return (httpx.HTTPError, HfHubHTTPError, EntryNotFoundError, OfflineModeIsEnabled, OSError)


def _patterns(folder: Path, repo: str, config: str | None, split: str) -> list[str]:
    """Return the globs of a split as README.md declares them; none if it declares nothing."""
    from datasets.data_files import sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData, metadata_load

    readme = folder / "README.md"
    metadata = metadata_load(readme) if readme.exists() else None
    configs = MetadataConfigs.from_dataset_card_data(DatasetCardData(**metadata or {}))
    if not any("data_files" in entry for entry in configs.values()):
        return []
    name = config or configs.get_default_config_name()
    if "data_files" not in configs.get(name, ()):
        raise DataError(f"{repo} has no config {name or 'default'!r}, but {', '.join(configs)}: try --revision")
    splits = sanitize_patterns(configs[name]["data_files"])
    if split not in splits:
        raise DataError(f"{repo}, config {name}, has no split {split!r}, but {', '.join(splits)}: try --revision")
    return [posixpath.join(configs[name].get("data_dir", ""), pattern) for pattern in splits[split]]


def _resolve(folder: Path, repo: str, patterns: Sequence[str], split: str) -> list[Path]:
    """Return the files of the patterns, sorted by name; without patterns, the files that are named after the split."""
    from datasets.data_files import DataFilesList, get_data_patterns

    try:
        patterns = patterns or get_data_patterns(str(folder))[split]
        found = DataFilesList.from_patterns(patterns, base_path=str(folder), allowed_extensions=list(SUFFIXES))
    except (FileNotFoundError, KeyError):
        found = []
    if not found:
        there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in SUFFIXES)
        what = ", ".join(patterns) or f"a split {split!r}"
        raise DataError(f"{repo} has no file for {what} in {folder}; there is: {', '.join(there) or 'nothing'}")
    return sorted(map(Path, set(found)))


def _require(columns: Sequence[str], found: Iterable[str], path: Path) -> None:
    found = list(found)
    missing = [column for column in columns if column not in found]
    if missing:
        raise KeyError(f"{path.name} has no column {', '.join(missing)}, but {', '.join(found)}")


def _from_parquet(path: Path, columns: Sequence[str]) -> Iterator[dict]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        _require(columns, file.schema_arrow.names, path)
        for batch in file.iter_batches(batch_size=1024, columns=list(columns)):
            yield from batch.to_pylist()


def _from_lines(path: Path, columns: Sequence[str]) -> Iterator[dict]:
    with open(path, encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                record = json.loads(line)
                _require(columns, record, path)
                yield {column: record[column] for column in columns}


def _from_json(path: Path, columns: Sequence[str]) -> Iterator[dict]:
    """Stream a list of records, `{column: {row: value}}` as pandas writes it, or JSON lines."""
    import ijson

    with open(path, "rb") as file:
        start = file.read(1000)
    mark = len(BOM_UTF8) if start.startswith(BOM_UTF8) else 0
    start = start[mark:].lstrip()
    by_column = re.match(rb'\{\s*"[^"]+"\s*:\s*\{\s*"\d+"\s*:', start)
    if not start.startswith(b"[") and not by_column:
        yield from _from_lines(path, columns)
        return
    # By column: each column has its own reader at the same row, so the file is read several times and never held.
    handles = [open(path, "rb") for _ in (columns if by_column else "1")]
    for file in handles:
        file.seek(mark)
    try:
        if not by_column:
            for record in ijson.items(handles[0], "item", use_float=True):
                _require(columns, record, path)
                yield {column: record[column] for column in columns}
            return
        readers = [ijson.kvitems(file, name, use_float=True) for file, name in zip(handles, columns, strict=True)]
        for cells in zip(*readers, strict=True):  # ValueError also when a column is missing
            if len({row for row, _ in cells}) > 1:
                raise ValueError(f"its columns are not in the same order: {[row for row, _ in cells]}")
            yield {column: value for column, (_, value) in zip(columns, cells, strict=True)}
    except ijson.JSONError as error:
        raise ValueError(f"no JSON: {error}") from error
    finally:
        for file in handles:
            file.close()
