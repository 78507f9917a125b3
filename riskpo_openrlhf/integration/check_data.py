"""Check data files by OpenRLHF's own loaders, and report what those loaders would silently ignore.

`read_files` serves the start of a job and the dry run: it reports what would stop training. `check_paths` serves
`prepare_data --check`: it also looks at every row.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from riskpo_openrlhf.data.golds import first_line
from riskpo_openrlhf.data.schema import read_manifests
from riskpo_openrlhf.integration.check_rows import ERROR, LEVELS, NOTE, WARNING, RowCheck
from riskpo_openrlhf.integration.final_flags import names

if TYPE_CHECKING:
    import datasets

KEYS = ("input_key", "label_key", "image_key", "apply_chat_template", "input_template")
IMAGES = "images"  # OpenRLHF's default of --data.image_key
SAMPLE = 1000  # prompts that are looked at through the tokenizer
EXTENSIONS = (".json", ".jsonl", ".csv", ".parquet", ".arrow")


@dataclass(frozen=True)
class Finding:
    """One result of a check: how bad it is, where it is, what it is, and the cure.

    `level` is `NOTE`, `WARNING` or `ERROR`. `flag` is the flag that names the file, e.g. `data.prompt_dataset`.
    """

    level: int
    where: str
    what: str
    cure: str
    flag: str | None = None

    @property
    def message(self) -> str:
        return f"{self.where}: {self.what}. {self.cure}."

    def __str__(self) -> str:
        return f"[{LEVELS[self.level]}] {self.message}"


class DataFiles(NamedTuple):
    """What would stop a job (`findings`, errors only), and what is in the files.

    `rows`: prompts to train on, before `--data.max_samples`; `evaluated`: those of the evaluation; None if a data set
    is on the hub. `first`: prompt and label of the first row, as text; `prompts`: those to train on, in rows; None
    without a file.
    """

    findings: list[Finding]
    rows: int | None
    evaluated: int | None
    first: dict | None
    prompts: datasets.Dataset | None


def read_files(values: Mapping) -> DataFiles:
    """Load the local files of `--data.prompt_dataset` and `--eval.dataset`. A data set on the hub is not loaded.

    Args:
        values: OpenRLHF's flags by dotted name, e.g. `{"data.input_key": "prompt", ...}`.

    Raises `ModuleNotFoundError` without OpenRLHF.
    """
    found, counts, first, prompts = [], [], None, None
    for flag, split in (("data.prompt_dataset", "data.prompt_split"), ("eval.dataset", "eval.split")):
        files = names(values[flag])
        training = flag == "data.prompt_dataset"
        most = max(1, values["data.max_samples"]) if training else 1e8
        seed = values["train.seed"] if training else 42  # with probabilities it decides how many rows are drawn
        reader = Reader({key: values[f"data.{key}"] for key in KEYS}, values[split], split, flag, most, seed)
        with _quiet():
            for address in filter(_is_unreadable_address, files):
                reader.add(ERROR, address, "is not a local file", "Download it first, and give the file")
            local = [Path(name) for name in files if is_local(name) and "://" not in name]
            tables = {path: table for path in local if (table := reader.read(path)) is not None}
            for path, table in tables.items():
                reader.images(path, table, values["data.max_images_per_prompt"])
            joined = None
            if len(tables) == len(files) and tables:
                joined = reader.together(files, values["data.prompt_probs"] if training else None)
        counts.append(None if joined is None else len(joined))
        if training and joined:
            label = values["data.label_key"]
            first = {
                "prompt": str(joined[0][values["data.input_key"]]),
                "label": str(joined[0][label]) if label else "",
            }
            prompts = joined.select_columns([values["data.input_key"]])
            if values["data.max_images_per_prompt"] > 0:
                reader.image_column(joined)
        found += reader.findings
    return DataFiles([finding for finding in found if finding.level == ERROR], *counts, first, prompts)


def rendered(values: Mapping, prompts: datasets.Dataset, tokenizer) -> list[str]:
    """Return prompts as the engines get them: all, or about `SAMPLE`, evenly. Raises what a chat template raises."""
    from openrlhf.datasets.prompts_dataset import PromptDataset

    some = prompts.select(range(0, len(prompts), -(-len(prompts) // SAMPLE)))
    reader = Reader({key: values[f"data.{key}"] for key in KEYS} | {"label_key": None}, None)
    return PromptDataset(some, tokenizer, reader.strategy, values["data.input_template"]).prompts


def check_paths(
    paths: Sequence[str],
    *,
    input_key: str = "prompt",
    label_key: str | None = "label",
    image_key: str = "images",
    apply_chat_template: bool = True,
    split: str = "train",
    tokenizer: str | None = None,
    max_prompt_tokens: int = 1024,
) -> list[Finding]:
    """Load files as OpenRLHF does with these flags, and report on the files and on every row, errors first.

    Args:
        paths: files, or folders as OpenRLHF takes them. A folder that `prepare_data` wrote stands for its files.
        input_key, label_key, image_key, apply_chat_template: OpenRLHF's `--data.*` of these names.
        split: `--data.prompt_split` or `--eval.split`.
        tokenizer: a model's folder or name. Its chat template is applied and its tokens are counted.

    Raises `ModuleNotFoundError` without OpenRLHF.
    """
    keys = (input_key, label_key, image_key, apply_chat_template, None)
    reader = Reader(dict(zip(KEYS, keys, strict=True)), split)
    if tokenizer:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    rows = RowCheck(reader, tokenizer, max_prompt_tokens)
    with _quiet():
        files = [file for path in paths for file in _expand(Path(path))]
        loaded = [path for path in files if (table := reader.read(path)) is not None and rows.check(path, table)]
        if len(loaded) > 1:
            reader.together(map(str, loaded))
    rows.report_shared()
    if not tokenizer and loaded:
        cure = "Give --tokenizer MODEL: OpenRLHF cuts off the start of a long prompt"
        reader.add(NOTE, "lengths", "not checked", cure)
    return sorted(reader.findings, key=lambda finding: -finding.level)


class Reader:
    """Load files by OpenRLHF's loader, and collect findings about files, columns and the shape of prompts."""

    def __init__(
        self, keys: Mapping, split: str | None, split_flag: str = "data.prompt_split", flag: str | None = None,
        most_rows=1e8, seed: int = 42,
    ):  # fmt: skip
        """`keys`: the flags `--data.*` that `KEYS` names. `flag` goes into the findings."""
        self.data = SimpleNamespace(**keys)
        self.split, self.split_flag, self.flag, self.most_rows, self.seed = split, split_flag, flag, most_rows, seed
        args = SimpleNamespace(use_ms=False, data=self.data)
        self.strategy = SimpleNamespace(args=args, print=lambda *_: None, is_rank_0=lambda: False)
        self.findings: list[Finding] = []

    def add(self, level: int, where, what: str, cure: str) -> None:
        self.findings.append(Finding(level, str(where), what, cure, self.flag))

    def read(self, path: Path):
        """Return the rows that OpenRLHF would train on, or None after an error."""
        problem = _bad_name(path)
        if problem:
            self.add(ERROR, path, *problem)
            return None
        if not path.is_absolute():
            self.add(NOTE, path, "is not an absolute path", "With `ray job submit` it must be one, on every node")
        try:
            table = self._load(str(path))
        except ModuleNotFoundError:
            raise
        except Exception as error:  # whatever OpenRLHF's loader or the library below it raises is the finding
            self.add(ERROR, path, *self._explain(error))
            return None
        if not len(table):
            self.add(ERROR, path, "has no rows", "Put problems into it, or leave it out")
            return None
        return table if self._columns(path, table) and self._shapes(path, table) else None

    def images(self, path: Path, table, most: int) -> None:
        """Report prompts with more images than `--data.max_images_per_prompt` lets in."""
        there = _most_images(table, self.data.image_key)
        if there > most:
            what = f"a prompt has {there} image{'s' * (there > 1)}, and --data.max_images_per_prompt is {most}"
            self.add(ERROR, path, what, f"Set --data.max_images_per_prompt {there}")

    def image_column(self, table) -> None:
        """Report a name of the column of images that was given, and that no file has."""
        key = self.data.image_key
        if key not in (IMAGES, *table.column_names):
            what = f"no file has that column, but {', '.join(table.column_names)}"
            self.add(ERROR, f"--data.image_key {key}", what, "Name the column of the images, or leave it out")

    def together(self, paths: Sequence[str], probabilities: str | None = None):
        """Return the files as one data set, or report that they can't become one and return None."""
        if probabilities and not _are_probabilities(probabilities, len(paths)):
            what = "is not one number above 0 for each file, 1 together"
            cure = "Give one probability for each file of --data.prompt_dataset"
            self.add(ERROR, f"--data.prompt_probs {probabilities}", what, cure)
            return None
        try:
            return self._load(",".join(paths), probabilities)
        except Exception as error:
            what = f"can't be read as one data set: {first_line(error)}"
            self.add(ERROR, "all together", what, "Give all files the same columns with the same types")
        return None

    def _load(self, paths: str, probabilities: str | None = None):
        try:
            from openrlhf.datasets.utils import blending_datasets
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"the check of data files runs OpenRLHF's loaders: {error}") from error
        return blending_datasets(
            paths, probabilities, self.strategy, self.seed, max_count=self.most_rows, dataset_split=self.split
        )

    def _explain(self, error: Exception) -> tuple[str, str]:
        """Return what is wrong with a file that did not load, and the cure."""
        cause = first_line(error.__cause__ or error)
        if isinstance(error, AttributeError) and "select" in str(error):
            cure = f"A single file always is the split 'train': leave --{self.split_flag} at that"
            return f"has no split {self.split!r}, and OpenRLHF stops there", cure
        empty = ("corresponds to no data", "BatchSize must be greater than 0", "No columns to parse")
        if isinstance(error, StopIteration) or any(text in cause for text in empty):
            return "has no rows", "Put problems into it, or leave it out"
        return f"can't be read: {cause}", "One JSON object a line, all with the same keys and types"

    def _columns(self, path: Path, table) -> bool:
        there = table.column_names
        missing = [key for key in ("input_key", "label_key") if getattr(self.data, key) not in (None, *there)]
        for key in missing:
            what = f"has no column {getattr(self.data, key)!r}, but {', '.join(there)}"
            self.add(ERROR, path, what, f"Set --data.{key} to one of them")
        if "datasource" not in there:
            verl = "; data_source is another framework's name for it" if "data_source" in there else ""
            cure = "Add it, else all metrics of an evaluation are under 'default'"
            self.add(WARNING, path, f"has no column 'datasource'{verl}", cure)
        if path.is_dir():
            import datasets

            splits = datasets.get_dataset_split_names(str(path))
            if len(splits) > 1:
                what = f"has the splits {', '.join(splits)}; only {self.split!r} is read"
                self.add(WARNING, path, what, f"See --{self.split_flag}")
        return not missing

    def _shapes(self, path: Path, table) -> bool:
        """Report prompts that OpenRLHF can't turn into text with these flags, or only into an empty one."""
        kinds, bare = set(), not self.data.apply_chat_template and not self.data.input_template
        for place, prompt in enumerate(table[self.data.input_key]):
            kinds.add(type(prompt).__name__)
            problem = None
            if not isinstance(prompt, (str, list)):
                problem = (
                    f"{self.data.input_key!r} holds {', '.join(sorted(kinds))}",
                    "A string, or a list of {role, content}",
                )
            elif isinstance(prompt, list) and not (prompt and all(map(_is_turn, prompt))):
                cure = "Each turn is {role, content}, both not empty"
                problem = f"row {place}: {self.data.input_key!r} is {str(prompt)[:80]!r}", cure
            elif isinstance(prompt, list) and not self.data.apply_chat_template:
                problem = "prompts are lists of chat turns", "Add --data.apply_chat_template to your command"
            elif bare and not prompt:
                problem = f"row {place}: {self.data.input_key!r} is empty", "Remove the row: vLLM ends the run at it"
            elif not self.data.apply_chat_template and "<image>" in prompt:
                problem = "prompts have <image>, which stays text", "Add --data.apply_chat_template"
            if problem:
                self.add(ERROR, path, *problem)
                return False
        return True


@contextmanager
def _quiet():
    """Keep the progress bars and log lines of `datasets` out of a report that says the same in plain words."""
    import datasets

    bars, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


def _bad_name(path: Path) -> tuple[str, str] | None:
    """Return what is wrong with a path before anything is read, and the cure; None if it is fine."""
    if "," in str(path) or "@" in str(path):
        return "has a comma or an @ in its name, where OpenRLHF cuts it", "Rename it"
    if not path.exists():
        return "no such file", "Name a file or a folder; riskpo_openrlhf.cli.prepare_data writes both"
    if path.is_file() and path.suffix not in EXTENSIONS:
        return f"is none of {', '.join(EXTENSIONS)}", "Write JSON lines with the ending .jsonl"
    return None


def _are_probabilities(text: str, count: int) -> bool:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return False
    return len(numbers) == count and all(number > 0 for number in numbers) and abs(sum(numbers) - 1) < 1e-8


def _is_unreadable_address(name: str) -> bool:
    """Tell an address that OpenRLHF does not read. A file at one of these addresses is loaded by `datasets`."""
    return "://" in name and not (name.startswith(("hf://", "http")) and Path(name).suffix in EXTENSIONS)


def is_local(name: str) -> bool:
    """Tell a path from a name on the hub."""
    return name.startswith((".", "/", "~")) or os.path.exists(name) or Path(name).suffix in EXTENSIONS


def _is_turn(turn) -> bool:
    """Tell whether this is {role, content}. An empty system prompt switches off the template's own."""
    return isinstance(turn, dict) and bool(turn.get("role")) and bool(turn.get("content") or turn["role"] == "system")


def _expand(path: Path) -> list[Path]:
    manifests = read_manifests(path) if path.is_dir() else {}
    return [path / manifest["file"] for manifest in manifests.values()] or [path]


def _most_images(table, key: str) -> int:
    """Count the images of the prompt that has most, without decoding any."""
    if key not in table.column_names:
        return 0
    import pyarrow as pa
    import pyarrow.compute as compute

    column = table.select_columns([key]).with_format("arrow")[:][key]
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return compute.max(compute.list_value_length(column)).as_py() or 0
    return int(column.null_count < len(column))
