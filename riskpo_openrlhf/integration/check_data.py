"""How OpenRLHF will read files of one's own: its own loaders run, and what they would pass over in silence is told."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from riskpo_openrlhf.data.decontaminate import normalise
from riskpo_openrlhf.data.instructions import INSTRUCTIONS, bare_problem
from riskpo_openrlhf.data.schema import CALCULATOR, DOUBLE_BRACES, read_manifests
from riskpo_openrlhf.verifiers.code.testcases import read_tests
from riskpo_openrlhf.verifiers.labels import read_label

NOTE, WARNING, ERROR = range(3)
EXTENSIONS = (".json", ".jsonl", ".csv", ".parquet", ".arrow")
HOW_TO_ANSWER = {"math": (r"\boxed", "Answer:"), "geometry": (r"\boxed",), "code": ("```python",)}


@dataclass(frozen=True)
class Finding:
    """`level` 0 is a note, 1 a warning, 2 an error; `what` was found and `cure` says what to do."""

    level: int
    where: str
    what: str
    cure: str

    def __str__(self) -> str:
        return f"[{('note', 'warning', 'error')[self.level]}] {self.where}: {self.what}. {self.cure}."


def check_paths(
    paths: Sequence[str],
    *,
    input_key: str = "prompt",
    label_key: str = "label",
    image_key: str = "images",
    apply_chat_template: bool = True,
    split: str = "train",
    tokenizer: str | None = None,
    max_prompt_tokens: int = 1024,
) -> list[Finding]:
    """What is to be said about these files, as OpenRLHF reads them with these flags; none if all is well.

    Args:
        paths: files, or folders as OpenRLHF takes them; a folder that `prepare_data` wrote stands for its files.
        input_key, label_key, image_key, apply_chat_template: OpenRLHF's `--data.*` of these names.
        split: `--data.prompt_split` or `--eval.split`.
        tokenizer: a model's folder or name; its chat template is applied and its tokens are counted.

    Raises `ModuleNotFoundError` when OpenRLHF is not installed.
    """
    check = _Check(input_key, label_key, image_key, apply_chat_template, split, tokenizer, max_prompt_tokens)
    files = [file for path in paths for file in _expand(Path(path))]
    read = [path for path in files if check.file(path)]
    if len(read) > 1:
        check.together(read)
    if tokenizer is None and read:
        check.add(
            NOTE, "lengths", "not checked", "Give --tokenizer MODEL: OpenRLHF cuts off the start of a long prompt"
        )
    return sorted(check.findings, key=lambda finding: -finding.level)


def _expand(path: Path) -> list[Path]:
    manifests = read_manifests(path) if path.is_dir() else {}
    return [path / manifest["file"] for manifest in manifests.values()] or [path]


class _Check:
    def __init__(self, input_key, label_key, image_key, apply_chat_template, split, tokenizer, max_prompt_tokens):
        import datasets

        datasets.disable_progress_bars()
        self.input_key, self.label_key, self.image_key = input_key, label_key, image_key
        self.chat, self.split, self.max_prompt_tokens = apply_chat_template, split, max_prompt_tokens
        self.tokenizer = None
        if tokenizer:
            from transformers import AutoTokenizer

            self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        data = SimpleNamespace(
            input_key=input_key, label_key=label_key, image_key=image_key, apply_chat_template=apply_chat_template
        )
        self.strategy = SimpleNamespace(
            args=SimpleNamespace(use_ms=False, data=data), print=lambda *_: None, is_rank_0=lambda: False
        )
        self.findings: list[Finding] = []
        self.places: dict[tuple, Counter] = defaultdict(Counter)  # problem -> file -> times

    def add(self, level: int, where, what: str, cure: str) -> None:
        self.findings.append(Finding(level, str(where), what, cure))

    def file(self, path: Path) -> bool:
        """Check one file; False when OpenRLHF can't read it at all."""
        if not path.exists():
            self.add(ERROR, path, "is not there", "Name a file, or a folder")
            return False
        if "," in str(path) or "@" in str(path):
            self.add(ERROR, path, "has a comma or an @ in its name, where OpenRLHF cuts it", "Rename it")
            return False
        if path.is_file() and path.suffix not in EXTENSIONS:
            self.add(ERROR, path, f"is none of {', '.join(EXTENSIONS)}", "Write JSON lines with the ending .jsonl")
            return False
        if not path.is_absolute():
            self.add(NOTE, path, "is not an absolute path", "With `ray job submit` it must be one, on every node")
        try:
            table = self._load(str(path))
        except Exception as error:  # whatever OpenRLHF's loader or the library below it raises is the finding
            self._explain(path, error)
            return False
        return self._columns(path, table) and self._rows(path, table)

    def together(self, paths: list[Path]) -> None:
        """Check what concerns several files."""
        try:
            self._load(",".join(map(str, paths)))
        except Exception as error:
            self.add(
                ERROR,
                "all together",
                f"can't be read as one data set: {_first_line(error)}",
                "Give all files the same columns with the same types",
            )
        shared = Counter()
        for files in self.places.values():
            names = sorted(files)
            shared.update((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
        for (first, second), n in shared.items():
            self.add(
                WARNING,
                f"{first} and {second}",
                f"have {n} problems in common",
                "If you train on one and test on the other, it is a leak; in one --eval.dataset, the same prompt in "
                "both counts for the last one only",
            )

    def _load(self, paths: str):
        try:
            from openrlhf.datasets.utils import blending_datasets
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"--check needs OpenRLHF, whose loaders it runs: {error}") from error
        return blending_datasets(paths, None, self.strategy, dataset_split=self.split)

    def _explain(self, path: Path, error: Exception) -> None:
        if isinstance(error, ModuleNotFoundError):
            raise error
        if isinstance(error, AttributeError) and "select" in str(error):
            cure = "A single file always is the split 'train': leave --data.prompt_split and --eval.split at that"
            self.add(ERROR, path, f"has no split {self.split!r}, and OpenRLHF stops there", cure)
        else:
            cause = error.__cause__ or error
            self.add(
                ERROR,
                path,
                f"can't be read: {_first_line(cause)}",
                "One JSON object a line, all with the same keys and types",
            )

    def _columns(self, path: Path, table) -> bool:
        found = table.column_names
        for flag, key in (("input_key", self.input_key), ("label_key", self.label_key)):
            if key not in found:
                self.add(
                    ERROR, path, f"has no column {key!r}, but {', '.join(found)}", f"Set --data.{flag} to one of them"
                )
        if "datasource" not in found:
            verl = "; data_source is another framework's name for it" if "data_source" in found else ""
            self.add(
                WARNING,
                path,
                f"has no column 'datasource'{verl}",
                "Add it, else all metrics of an evaluation are under 'default'",
            )
        if path.is_dir():
            import datasets

            splits = datasets.get_dataset_split_names(str(path))
            if len(splits) > 1:
                self.add(
                    WARNING,
                    path,
                    f"has the splits {', '.join(splits)}; only {self.split!r} is read",
                    "See --eval.split",
                )
        return self.input_key in found and self.label_key in found

    def _rows(self, path: Path, table) -> bool:
        from openrlhf.datasets.prompts_dataset import PromptDataset

        bad_shape = self._shapes(path, table)
        if bad_shape:
            return False
        template = self.tokenizer or SimpleNamespace(apply_chat_template=_plain_template)
        try:
            read = PromptDataset(table, template, self.strategy)
        except Exception as error:
            self.add(ERROR, path, f"the chat template fails: {_first_line(error)}", "Look at the turns of the prompts")
            return False
        found: dict[tuple[int, str, str], list[int]] = defaultdict(list)
        for place, (prompt, label, images) in enumerate(zip(read.prompts, read.labels, read.images, strict=True)):
            written = _text(table[place][self.input_key])
            for kind in (*self._prompt(prompt, written, label), *self._label(label), *self._images(written, images)):
                found[kind].append(place)
            stems = tuple(str(image)[-200:] for image in _as_list(images))
            self.places[(normalise(bare_problem(written)), *stems)][str(path)] += 1
        for (level, what, cure), places in found.items():
            self.add(level, path, f"{what} ({len(places)} of {len(table)} rows, first: {places[0]})", cure)
        self._whole_file(path, table, read)
        return True

    def _whole_file(self, path: Path, table, read) -> None:
        changed = [(a, b) for a, b in zip(_raw_labels(path, self.label_key), read.labels, strict=False) if a != b]
        if changed:
            before, after = changed[0]
            self.add(
                ERROR,
                path,
                f"{len(changed)} labels change when they are read, e.g. {before!r} becomes {after!r}",
                "Write every label of the file as a string that is no date, or by riskpo_openrlhf's write_label",
            )
        repeated = sum(files[str(path)] - 1 for files in self.places.values() if files[str(path)] > 1)
        if repeated:
            self.add(WARNING, path, f"{repeated} problems are there more than once", "Keep one of each")
        most = max((len(_as_list(images)) for images in read.images), default=0)
        if most:
            self.add(
                NOTE, path, f"has up to {most} images a prompt", f"Set --data.max_images_per_prompt {most} or more"
            )
        sources = Counter(read.datasources)
        self.add(
            NOTE,
            path,
            f"{len(table)} rows are read, of {', '.join(f'{name!r}' for name in sources)}; the first prompt is "
            f"{read.prompts[0][:300]!r}, its label {read.labels[0]!r}",
            "Is it what you expect",
        )

    def _shapes(self, path: Path, table) -> bool:
        kinds = {type(value) for value in table[self.input_key]}
        if not kinds or not kinds <= {str, list}:
            names = ", ".join(sorted(kind.__name__ for kind in kinds)) or "no rows"
            self.add(ERROR, path, f"{self.input_key!r} holds {names}", "A string, or a list of {role, content}")
            return True
        for place, turns in enumerate(table[self.input_key]):
            if isinstance(turns, list):
                if not turns or not all(isinstance(t, dict) and t.get("role") and t.get("content") for t in turns):
                    cure = "Each turn is {role, content}, both not empty"
                    self.add(ERROR, path, f"row {place}: {self.input_key!r} is {str(turns)[:80]!r}", cure)
                    return True
                if not self.chat:
                    self.add(
                        ERROR, path, "prompts are lists of turns", "Add --data.apply_chat_template to your command"
                    )
                    return True
            elif not self.chat and "<image>" in turns:
                self.add(ERROR, path, "prompts have <image>, which stays text", "Add --data.apply_chat_template")
                return True
        return False

    def _prompt(self, prompt: str, written: str, label) -> Iterator[tuple[int, str, str]]:
        if not written.strip():
            yield ERROR, "empty prompt", "Remove the row"
        if DOUBLE_BRACES in written:
            yield ERROR, f"the prompt shows the model {DOUBLE_BRACES}", r"Write \boxed{}"
        elif re.search(r"\{\{\s*[A-Za-z_]{3,}\s*\}\}", written):
            yield WARNING, "a {{placeholder}} is left in the prompt", "Fill it in"
        if CALCULATOR.search(written):
            yield ERROR, "the prompt has <<...=...>>, which gives answers away", "Remove it"
        parts = [name for name, text in INSTRUCTIONS.items() if text.tail and text.tail.strip() in written]
        if len(parts) > 1 or any(written.count(INSTRUCTIONS[name].tail.strip()) > 1 for name in parts):
            yield WARNING, "the prompt says more than once how to answer", "Keep one instruction"
        try:
            verifier = read_label(label)[0]
        except ValueError:
            return
        if not any(sign in prompt for sign in HOW_TO_ANSWER[verifier]):
            signs = " nor ".join(HOW_TO_ANSWER[verifier])
            yield WARNING, f"neither {signs} is in the prompt, which the verifier {verifier!r} looks for", "Ask for it"
        if self.tokenizer is not None:
            n = len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
            if n > self.max_prompt_tokens:
                cure = "OpenRLHF keeps the last tokens only: leave the row out, or raise --data.max_len"
                yield WARNING, f"the prompt has more than {self.max_prompt_tokens} tokens", cure

    def _label(self, label) -> Iterator[tuple[int, str, str]]:
        if not isinstance(label, str):
            yield ERROR, f"the label is {type(label).__name__}, no string", "Write every label as a string"
            return
        try:
            verifier, gold = read_label(label)
        except ValueError as error:
            yield ERROR, f"the label can't be used: {_first_line(error)}", "See riskpo_openrlhf/verifiers/labels.py"
            return
        if verifier == "code" and gold.startswith("/") and not os.path.exists(gold):
            yield ERROR, "the label names a file of tests that is not there", "Prepare the set on this machine"
        elif verifier == "code" and not gold.startswith("/"):
            try:
                read_tests(gold)
            except (ValueError, OSError) as error:
                yield ERROR, f"the tests in the label can't be used: {_first_line(error)}", "See docs/data.md"

    def _images(self, written: str, images) -> Iterator[tuple[int, str, str]]:
        images = _as_list(images)
        if written.count("<image>") != len(images):
            cure = (
                "One <image> in the text for each image" if images else f"Is --data.image_key {self.image_key} right?"
            )
            yield ERROR, f"{written.count('<image>')} times <image>, but {len(images)} images", cure.rstrip("?")
        for image in images:
            if isinstance(image, dict):
                yield ERROR, "an image is an undecoded record, which OpenRLHF passes over", "Store an absolute path"
            if not isinstance(image, str) or image.startswith(("http://", "https://", "data:")):
                continue
            from openrlhf.utils.vlm_utils import _is_base64_image

            if _is_base64_image(image):
                if image.startswith("/"):
                    yield ERROR, "a path is so long that OpenRLHF takes it for base64", "Use a shorter one"
            elif not os.path.isabs(image):
                yield ERROR, "an image's path is not absolute; Ray's workers run in other folders", "Write it in full"
            elif not _opens(image):
                yield ERROR, "an image is not there or can't be opened; OpenRLHF passes over it", "Put it there"


def _text(value) -> str:
    if isinstance(value, str):
        return value
    parts = []
    for turn in value:
        content = turn["content"]
        if isinstance(content, str):
            parts.append(content)
        else:
            parts.extend("<image>" if part.get("type") == "image" else part.get("text") or "" for part in content)
    return "\n".join(parts)


def _plain_template(chat, tokenize=False, add_generation_prompt=True) -> str:
    return _text(chat)


def _as_list(images) -> list:
    if images is None:
        return []
    return [image for image in images if image is not None] if isinstance(images, list) else [images]


def _opens(path: str) -> bool:
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except OSError:
        return False


def _raw_labels(path: Path, key: str) -> list:
    """The labels as they stand in a file of JSON lines; nothing for another file."""
    if path.suffix != ".jsonl":
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line).get(key) for line in file if line.strip()]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
