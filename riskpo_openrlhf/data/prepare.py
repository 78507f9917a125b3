"""From a source to a file that OpenRLHF reads: `prepare` one set, then `check_leaks` over all of a folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from riskpo_openrlhf.data import answers, decontaminate, hub, reasoning
from riskpo_openrlhf.data.instructions import INSTRUCTIONS
from riskpo_openrlhf.data.schema import (
    DataError,
    check_row,
    manifest_path,
    read_manifests,
    read_rows,
    sha256,
    sha256_of_folder,
    write_manifest,
)
from riskpo_openrlhf.data.sources import REASONING_GYM, Leave, Problem, Source, file_name
from riskpo_openrlhf.files import write_bytes, write_jsonl
from riskpo_openrlhf.verifiers.labels import write_label

BAD_GOLD = "no answer can be read"
MOST_BAD_GOLDS = 0.05  # of a training set; more means that the source has changed
EXAMPLES = 3
FORMAT = 1  # raised when the same source and settings give other rows than before


@dataclass(frozen=True)
class Options:
    """What the user chose; a set is prepared again when one of them that bears on it changes."""

    instruction: str | None = None
    copies: str | None = None
    revision: str | None = None
    tokenizer: str | None = None
    max_prompt_tokens: int = 1024
    accept_row_counts: bool = False
    tasks: tuple[str, ...] = ("chain_sum",)
    count: int | None = None
    seed: int = 0

    def that_matter(self, source: Source) -> dict:
        """The settings that the set's file depends on, as they go into its manifest."""
        settings = asdict(self) | {"tasks": list(self.tasks), "instruction": self.instruction_for(source)}
        settings["revision"] = self.revision or source.revision
        settings["format"] = FORMAT
        del settings["accept_row_counts"]
        made = {"tasks", "count", "seed"}
        fetched = {"copies", "revision"}
        left_out = fetched if source.repo == REASONING_GYM else made
        if self.tokenizer is None:
            left_out = left_out | {"tokenizer", "max_prompt_tokens"}
        return {key: value for key, value in settings.items() if key not in left_out}

    def instruction_for(self, source: Source) -> str:
        fits = self.instruction is not None and source.verifier in INSTRUCTIONS[self.instruction].verifiers
        return self.instruction if fits else source.instruction


def prepare(source: Source, out: Path, options: Options, *, force: bool = False, warn: Callable = print) -> dict:
    """Write `out/NAME.jsonl`, its images or tests beside it, and then its manifest; returns the manifest.

    A set whose manifest has these settings and whose files are unchanged is left as it is.

    Raises:
        DataError: the source is not as expected, or can't be reached; what was there before is still there.
    """
    out = out.absolute()
    if "," in str(out) or "@" in str(out):
        raise DataError(f"--out {out} contains a comma or an @, where OpenRLHF cuts the name of a data set: rename it")
    settings = options.that_matter(source)
    if not force and (done := finished(out, source.name, settings)):
        return done
    instruction = INSTRUCTIONS[settings["instruction"]]
    assert source.verifier in instruction.verifiers
    records, total, provenance = _records(source, options)
    writer = _Writer(source, out, instruction)
    dropped: Counter[str] = Counter()
    rows: dict[tuple, dict] = {}
    golds_of: dict[tuple, set[str]] = {}
    known: dict[str, tuple] = {}
    times: Counter[tuple] = Counter()
    repeated = n_read = 0
    for record in tqdm(records, desc=source.name, unit=" rows", total=total):
        n_read += 1
        try:
            problem = source.convert(record)
            key = known.get(problem.text)
            if key is None or problem.images:
                row = writer.row(problem)
                key = known[problem.text] = decontaminate.identity(row)
        except Leave as reason:
            dropped[str(reason)] += 1
            continue
        except answers.BadGold as error:
            if source.role == "test":
                raise DataError(
                    f"{source.name}, record {n_read}: {error}; the source has changed: --revision"
                ) from error
            dropped[BAD_GOLD] += 1
            continue
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{source.name}, record {n_read}: {error}; the source has changed: --revision") from error
        times[key] += 1
        golds_of.setdefault(key, set()).add(_same(problem))
        if key not in rows:
            rows[key] = row
        elif source.role == "test":  # the benchmark is what it is: kept, and told
            row = writer.row(problem)
            rows[(*key, str(times[key]))] = row | {"id": f"{row['id']}-{times[key]}"}
            repeated += 1
    if source.role == "train":
        _leave_out_repeats(rows, golds_of, times, dropped)
    _check_counts(source, n_read, len(rows), dropped, options.accept_row_counts, warn)
    over_long = _over_long(rows, options) if options.tokenizer else []
    if source.role == "train":
        for key in over_long:
            del rows[key]
        dropped[f"more than {options.max_prompt_tokens} tokens"] += len(over_long)
    elif over_long:
        warn(
            f"{source.name}: {len(over_long)} prompts have more than {options.max_prompt_tokens} tokens; they stay, "
            "as the benchmark is what it is, but OpenRLHF cuts off the start of a prompt that does not fit"
        )
    if not rows:
        raise DataError(f"{source.name}: no row is left; left out were {dict(dropped)}")
    for row in rows.values():
        check_row(row)
    path = out / f"{source.name}.jsonl"
    write_jsonl(path, rows.values())
    writer.remove_unused(rows.values())
    manifest = {
        "name": source.name,
        "role": source.role,
        "file": path.name,
        "sha256": sha256(path),
        "rows": {"read": n_read, "kept": len(rows)},
        "dropped": {reason: n for reason, n in sorted(dropped.items()) if n},
        "repeated": repeated,
        "over_long": len(over_long),
        "verifier": source.verifier,
        "licence": source.licence,
        "source": provenance,
        "settings": settings,
        "beside": {"folder": writer.folder.name, "sha256": sha256_of_folder(writer.folder)},
        "checked_against": {},
    }
    write_manifest(out, manifest)
    return manifest


def finished(out: Path, name: str, settings: dict) -> dict | None:
    """The manifest of a set that is there with these settings, every file as it was written; else None."""
    if not manifest_path(out, name).exists():
        return None
    manifest = read_manifests(out)[name]
    path, beside = out / manifest["file"], manifest["beside"]
    same = manifest["settings"] == json.loads(json.dumps(settings)) and path.exists()
    if same and sha256(path) == manifest["sha256"] and sha256_of_folder(out / beside["folder"]) == beside["sha256"]:
        return manifest
    return None


def check_leaks(out: Path, say: Callable = print) -> None:
    """Take out of every training set in a folder what is in a test set there; the manifests count it.

    Pairs that were checked before and have not changed are not read again.
    """
    out = out.absolute()
    manifests = read_manifests(out)
    tests = {name: manifest for name, manifest in manifests.items() if manifest["role"] == "test"}
    for train in (manifest for manifest in manifests.values() if manifest["role"] == "train"):
        todo = {name: test for name, test in tests.items() if train["checked_against"].get(name) != test["sha256"]}
        if not todo:
            continue
        path = out / train["file"]
        rows = list(read_rows(path))
        for name, test in todo.items():
            places = decontaminate.leaked(rows, read_rows(out / test["file"]))
            if places:
                ids = [rows[place]["id"] for place in places]
                say(f"{train['name']}: {len(places)} problems are in {name} too and were taken out, e.g. {ids[0]}")
                taken = set(places)
                rows = [row for place, row in enumerate(rows) if place not in taken]
                reason = f"in the test set {name}"
                train["dropped"][reason] = train["dropped"].get(reason, 0) + len(places)
                train.setdefault("leaks", {}).setdefault(name, []).extend(ids[:EXAMPLES])
            train["checked_against"][name] = test["sha256"]
        if len(rows) != train["rows"]["kept"]:
            if not rows:
                raise DataError(f"{train['name']}: every problem is in a test set of {out}")
            write_jsonl(path, rows)
            train["rows"]["kept"] = len(rows)
            train["sha256"] = sha256(path)
        write_manifest(out, train)


class _Writer:
    """Makes rows, and writes what is too big for a row, images or tests, into the folder `NAME-images` or `-tests`."""

    def __init__(self, source: Source, out: Path, instruction):
        self.source, self.instruction = source, instruction
        self.folder = out / f"{source.name}-{'tests' if source.verifier == 'code' else 'images'}"

    def row(self, problem: Problem) -> dict:
        if not isinstance(problem.text, str) or not problem.text.strip():
            raise ValueError("the problem is empty")
        prompt = self.instruction.add(problem.text)
        row = {"prompt": [{"role": "user", "content": prompt}], "label": "", "datasource": self.source.name}
        if problem.images:
            row["images"] = [str(self._write_image(data)) for data in problem.images]
        gold, key = problem.gold, problem.key
        if problem.tests is not None:
            key = key or _digest(prompt, _same(problem))
            gold = str(self._write_tests(file_name(key), problem.tests))
        row["label"] = write_label(self.source.verifier, gold)
        row["id"] = f"{self.source.name}/{key or _digest(*decontaminate.identity(row))}"
        return row

    def remove_unused(self, rows: Iterable[dict]) -> None:
        """Delete what an earlier preparation left in the folder and no row names."""
        if self.folder.is_dir():
            used = {path for row in rows for path in (*row.get("images", ()), json.loads(row["label"])["gold"])}
            for path in self.folder.iterdir():
                if str(path) not in used:
                    path.unlink()

    def _write_image(self, data: bytes) -> Path:
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            image.load()
            pixels = image.convert("RGBA")
            path = self.folder / f"{_digest(str(pixels.size), pixels.tobytes())}.png"
            if not path.exists():
                if image.format != "PNG":
                    buffer = io.BytesIO()
                    pixels.convert("RGB").save(buffer, "PNG")
                    data = buffer.getvalue()
                write_bytes(path, data)
        return path

    def _write_tests(self, key: str, tests: dict) -> Path:
        path = self.folder / f"{key}.json.gz"
        write_bytes(path, gzip.compress(json.dumps(tests).encode(), compresslevel=6, mtime=0))
        return path


def _same(problem: Problem) -> str:
    """What is equal for two equal answers."""
    return problem.gold if problem.tests is None else _digest(json.dumps(problem.tests, sort_keys=True))


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:20]


def _records(source: Source, options: Options) -> tuple[Iterator[dict], int | None, dict]:
    """The records, their number if it is known, and where they are from, for the manifest."""
    if source.repo == REASONING_GYM:
        count = {"train": 4800, "test": 160}[source.role] if options.count is None else options.count
        made = reasoning.problems(options.tasks, count, options.seed, source.split)
        return made, count, {"package": REASONING_GYM, "version": version("reasoning-gym"), "split": source.split}
    copy = hub.fetch(
        source.repo,
        source.split,
        config=source.config,
        files=source.files,
        revision=options.revision or source.revision,
        copies=Path(options.copies) if options.copies else None,
    )
    provenance = {
        "repo": source.repo,
        "config": source.config,
        "split": source.split,
        "revision": copy.revision,
        "files": {path.name: path.stat().st_size for path in copy.files},
    }
    total = hub.count_records(copy.files)
    return hub.records(copy.files, source.columns, source.repo), total, provenance


def _leave_out_repeats(rows: dict, golds_of: dict, times: Counter, dropped: Counter) -> None:
    """Keep the first of several equal problems, and none whose answers contradict each other."""
    for key, golds in golds_of.items():
        if len(golds) > 1:
            del rows[key]
            dropped["conflicting answers"] += times[key]
        else:
            dropped["repeated"] += times[key] - 1


def _check_counts(source: Source, read: int, kept: int, dropped: Counter, accept: bool, warn: Callable) -> None:
    wrong = []
    for what, number, allowed in (("rows", read, source.rows), ("rows kept", kept, source.kept)):
        if allowed and not allowed[0] <= number <= allowed[1]:
            wrong.append(f"{number:,} {what} instead of {' to '.join(f'{n:,}' for n in dict.fromkeys(allowed))}")
    if dropped[BAD_GOLD] > MOST_BAD_GOLDS * read:
        wrong.append(f"{dropped[BAD_GOLD]:,} of {read:,} without an answer that can be read")
    if wrong and source.exact and not accept:
        raise DataError(
            f"{source.name} ({source.repo}): {'; '.join(wrong)}. The source has changed: take another commit by "
            f"--revision {source.name}=COMMIT, or these rows by --accept_row_counts"
        )
    for text in wrong:
        warn(f"{source.name}: {text}")


def _over_long(rows: dict, options: Options) -> list:
    """Keys of the rows with too many tokens, counted as OpenRLHF does: chat template, then no further special ones."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(f"--tokenizer {options.tokenizer} has no chat template: name the model that will be trained")
    found = []
    for key, row in tqdm(rows.items(), desc="tokens", unit=" prompts"):
        text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) > options.max_prompt_tokens:
            found.append(key)
    return found
