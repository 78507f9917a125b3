"""The samples of an evaluation on disk, appended line by line, so that a killed run loses no finished sample.

A folder holds `evaluation.json`, `samples.jsonl` and, in the end, `summary.json`. A sample is `{"datasource", "id",
"sample", "response", "score", "status", "tokens", "truncated", "logprob", "extra_logs"}`. `sample` counts from 0,
`score` is null without a verdict, `status` is one of `verifiers.STATUSES`, `tokens` is the response's length, and
`logprob` the mean log-probability of its tokens under the model (temperature 1). Status `error` comes with the reason,
`error`.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from riskpo_openrlhf.evaluation.problems import EvaluationError, InputError
from riskpo_openrlhf.files import in_one_step, lock, write_json

SETTINGS, SAMPLES, SUMMARY = "evaluation.json", "samples.jsonl", "summary.json"
FIELDS = "datasource id sample response score status tokens truncated logprob extra_logs".split()
Key = tuple[str, str, int]


class SampleStore:
    """The folder of one evaluation, open for writing; `rows` holds key -> sample without its text.

    Raises `EvaluationError` if another process has the folder open, or if it holds samples of other settings.
    """

    def __init__(self, folder: Path, settings: dict):
        try:
            self._lock = lock(folder)
        except BlockingIOError as error:
            raise EvaluationError(f"--out {folder} is in use by another evaluation") from error
        _check_settings(folder, settings)
        path = folder / SAMPLES
        path.touch()
        whole = _whole_length(path)
        if whole < path.stat().st_size:  # the last line was cut when the process was killed
            os.truncate(path, whole)
        self.rows = {key: row for key, row, _ in read_samples(path)}
        self._file = open(path, "a", encoding="utf-8")

    def finished(self, key: Key) -> bool:
        """Tell whether a sample is there with a verdict. One whose verifier failed is made again."""
        return key in self.rows and self.rows[key]["status"] != "error"

    def add(self, samples: Iterable[dict]) -> None:
        """Append samples and return once they are on disk."""
        for sample in samples:
            self._file.write(json.dumps(sample, ensure_ascii=False) + "\n")
            self.rows[key_of(sample)] = _without_text(sample)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        self._lock.close()


def key_of(sample: dict) -> Key:
    return sample["datasource"], sample["id"], sample["sample"]


def read_samples(path: Path) -> Iterator[tuple[Key, dict, str]]:
    """Yield (key, sample without its text, line) for each line. If a key comes twice, the later line counts.

    Raises `EvaluationError` for a line that is not a sample, unless it is the last one and was cut.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                sample = json.loads(line)
                yield key_of(sample), _without_text(sample), line.decode()
            except (ValueError, KeyError, TypeError) as error:
                raise EvaluationError(
                    f"{path}, line {number} is not a sample ({type(error).__name__}: {error}): remove that line and "
                    "run the evaluation again; it makes the sample again"
                ) from error


def write_parquet(folder: Path) -> Path:
    """Copy `samples.jsonl` to `samples.parquet`, each sample once, `extra_logs` as JSON text."""
    import pyarrow
    import pyarrow.parquet

    types = dict.fromkeys(("datasource", "id", "response", "status", "extra_logs"), pyarrow.string())
    types |= {"sample": pyarrow.int64(), "tokens": pyarrow.int64(), "truncated": pyarrow.bool_()}
    types |= {"score": pyarrow.float64(), "logprob": pyarrow.float64()}
    schema = pyarrow.schema([(name, types[name]) for name in FIELDS])
    last = {key: number for number, (key, _, _) in enumerate(read_samples(folder / SAMPLES))}
    path = folder / "samples.parquet"
    numbered = enumerate(read_samples(folder / SAMPLES))
    samples = (json.loads(line) for number, (key, _, line) in numbered if last[key] == number)
    rows = ({**sample, "extra_logs": json.dumps(sample["extra_logs"])} for sample in samples)
    with in_one_step(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        while batch := list(islice(rows, 4096)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
    return path


def read_settings(folder: Path) -> dict:
    """Read the settings of an evaluation. Raises `InputError` if the folder holds none."""
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no evaluation ({error}): name the --out folder of one") from error


def _check_settings(folder: Path, settings: dict) -> None:
    if not (folder / SETTINGS).exists():
        if (folder / SAMPLES).exists():
            raise InputError(f"--out {folder} has a {SAMPLES} but no {SETTINGS}: choose another folder")
        write_json(folder / SETTINGS, settings)
        return
    there, here = dict(_flat(read_settings(folder))), dict(_flat(settings))
    changed = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    if changed:
        lines = "".join(f"\n  {name}: {there.get(name)!r} there, {here.get(name)!r} now" for name in changed)
        raise InputError(
            f"--out {folder} holds an evaluation with other settings:{lines}\nChoose another folder, or restore these "
            "settings to resume it."
        )


def _flat(value, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _whole_length(path: Path) -> int:
    """Count the bytes up to the end of the last complete line."""
    if not path.stat().st_size:
        return 0
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.rfind(b"\n") + 1


def _without_text(sample: dict) -> dict:
    return {name: value for name, value in sample.items() if name not in ("response", "extra_logs")}
