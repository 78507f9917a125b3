"""Prepare a data set for OpenRLHF by `prepare`, then remove test problems by `decontaminate_folder`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
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
from riskpo_openrlhf.data.sources import REASONING_GYM, Problem, Skip, Source, file_name
from riskpo_openrlhf.files import lock, write_bytes, write_jsonl
from riskpo_openrlhf.verifiers.labels import read_label, write_label

NO_ANSWER = "no answer can be read"
MOST_WITHOUT_ANSWER = 0.05  # of a training set; more means that the source has changed
EXAMPLES = 3
FORMAT = 2  # raise it when the same source and settings give other rows than before


@dataclass(frozen=True)
class Options:
    """What the user chose. A set is prepared again if an option that matters for it changes."""

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
        """Return the settings that the set's file depends on; they go into its manifest."""
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
    """Write `out/NAME.jsonl`, its images or tests beside it, then its manifest; return the manifest.

    A set whose manifest has these settings and whose files are unchanged is left as it is.

    Raises:
        DataError: the source is not as expected, or can't be reached. Files of an earlier preparation stay.
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
    answers_of: dict[tuple, set[str]] = {}
    known: dict[str, tuple] = {}
    times: Counter[tuple] = Counter()
    n_read = 0
    for record in tqdm(records, desc=source.name, unit=" rows", total=total):
        n_read += 1
        try:
            problem = source.convert(record)
            key = known.get(problem.text)
            if key is None or problem.images:
                row = writer.row(problem)
                key = known[problem.text] = decontaminate.identity(row)
        except Skip as reason:
            dropped[str(reason)] += 1
            continue
        except answers.AnswerError as error:
            if source.role == "test":
                raise DataError(
                    f"{source.name}, record {n_read}: {error}; the source has changed: --revision"
                ) from error
            dropped[NO_ANSWER] += 1
            continue
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{source.name}, record {n_read}: {error}; the source has changed: --revision") from error
        times[key] += 1
        answers_of.setdefault(key, set()).add(_same(problem))
        if key not in rows:
            rows[key] = row
        elif source.role == "test":  # a benchmark keeps its repeated problems
            row = writer.row(problem)
            rows[(*key, str(times[key]))] = row | {"id": f"{row['id']}-{times[key]}"}
    if source.role == "train":
        _leave_out_repeats(rows, answers_of, times, dropped)
    _check_counts(source, n_read, len(rows), dropped, options.accept_row_counts, warn)
    over_long = _over_long(rows, options) if options.tokenizer else []
    if source.role == "train":
        for key in over_long:
            del rows[key]
        dropped[f"more than {options.max_prompt_tokens} tokens"] += len(over_long)
    elif over_long:
        warn(
            f"{source.name}: {len(over_long)} prompts have more than {options.max_prompt_tokens} tokens; a test "
            "set keeps them, but OpenRLHF cuts off the start of a prompt that does not fit"
        )
    if not rows:
        raise DataError(f"{source.name}: no row is left; left out were {dict(dropped)}")
    for row in rows.values():
        check_row(row)
    path = out / f"{source.name}.jsonl"
    manifest = {
        "name": source.name,
        "role": source.role,
        "file": path.name,
        "rows": {"read": n_read, "kept": len(rows)},
        "dropped": {reason: n for reason, n in sorted(dropped.items()) if n},
        "repeated": times.total() - len(times) if source.role == "test" else 0,
        "over_long": len(over_long),
        "verifier": source.verifier,
        "licence": source.licence,
        "source": provenance,
        "settings": settings,
        "decontaminated_against": {},
    }
    with lock(out, wait=True):  # against the decontamination of another process
        write_jsonl(path, rows.values())
        writer.remove_unused(rows.values())
        manifest["sha256"] = sha256(path)
        manifest["beside"] = {"folder": writer.folder.name, "sha256": sha256_of_folder(writer.folder)}
        write_manifest(out, manifest)
    return manifest


def finished(out: Path, name: str, settings: dict) -> dict | None:
    """Return the manifest of a set prepared with these settings and unchanged since; else None."""
    if not manifest_path(out, name).exists():
        return None
    manifest = read_manifests(out)[name]
    path, beside = out / manifest["file"], manifest["beside"]
    same = manifest["settings"] == json.loads(json.dumps(settings)) and path.exists()
    if same and sha256(path) == manifest["sha256"] and sha256_of_folder(out / beside["folder"]) == beside["sha256"]:
        return manifest
    return None


def decontaminate_folder(out: Path, say: Callable = print) -> None:
    """Remove from every training set in a folder the problems of the test sets there; the manifests count them.

    A pair of sets that was compared before and has not changed is not read again. A set whose file is gone is passed
    over. While another process decontaminates the folder, this one waits.
    """
    out = out.absolute()
    if read_manifests(out):
        try:
            held = lock(out, wait=True)
        except OSError:  # a folder that can't be written to: there is nothing to do, or the writing says why
            held = nullcontext()
        with held:
            _decontaminate(out, say)


def _decontaminate(out: Path, say: Callable) -> None:
    manifests = read_manifests(out)
    for name in [name for name, manifest in manifests.items() if not (out / manifest["file"]).exists()]:
        say(f"{manifest_path(out, name)} is there, its {manifests.pop(name)['file']} is not: prepare the set again")
    tests = {name: manifest for name, manifest in manifests.items() if manifest["role"] == "test"}
    for train in (manifest for manifest in manifests.values() if manifest["role"] == "train"):
        path, done = out / train["file"], train["decontaminated_against"]
        changed = sha256(path) != train["sha256"]  # since it was compared
        todo = {name: test for name, test in tests.items() if changed or done.get(name) != test["sha256"]}
        if not todo:
            continue
        rows = list(read_rows(path))
        read = len(rows)
        for name, test in todo.items():
            places = decontaminate.contaminated(rows, read_rows(out / test["file"]))
            if places:
                ids = [rows[place]["id"] for place in places]
                say(f"{train['name']}: removed {len(places)} problems that are in the test set {name}, e.g. {ids[0]}")
                removed = set(places)
                rows = [row for place, row in enumerate(rows) if place not in removed]
                reason = f"in the test set {name}"
                train["dropped"][reason] = train["dropped"].get(reason, 0) + len(places)
                train.setdefault("contaminated", {}).setdefault(name, []).extend(ids[:EXAMPLES])
            done[name] = test["sha256"]
        if len(rows) != read:
            if not rows:
                raise DataError(f"{train['name']}: every problem is in a test set of {out}")
            write_jsonl(path, rows)
        train["rows"]["kept"] = len(rows)
        if not changed:  # else it is whole only if it has become what the manifest says
            train["sha256"] = sha256(path)
        write_manifest(out, train)


class _Writer:
    """Makes rows. Writes images and tests, too big for a row, into the folder `NAME-images` or `NAME-tests`."""

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
        answer, key = problem.answer, problem.key
        if problem.tests is not None:
            key = key or _digest(prompt, _same(problem))
            answer = str(self._write_tests(file_name(key), problem.tests))
        row["label"] = write_label(self.source.verifier, answer)
        row["id"] = f"{self.source.name}/{key or _digest(*decontaminate.identity(row))}"
        return row

    def remove_unused(self, rows: Iterable[dict]) -> None:
        """Delete files of an earlier preparation that no row names."""
        if self.folder.is_dir():
            used = {path for row in rows for path in (*row.get("images", ()), read_label(row["label"])[1])}
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
    """Return a text that is equal for two equal answers."""
    return problem.answer if problem.tests is None else _digest(json.dumps(problem.tests, sort_keys=True))


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:20]


def _records(source: Source, options: Options) -> tuple[Iterator[dict], int | None, dict]:
    """Return the records, their number if known, and their provenance for the manifest."""
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


def _leave_out_repeats(rows: dict, answers_of: dict, times: Counter, dropped: Counter) -> None:
    """Keep the first of several equal problems, and none if their answers differ."""
    for key, different in answers_of.items():
        if len(different) > 1:
            del rows[key]
            dropped["conflicting answers"] += times[key]
        else:
            dropped["repeated"] += times[key] - 1


def _check_counts(source: Source, read: int, kept: int, dropped: Counter, accept: bool, warn: Callable) -> None:
    wrong = []
    for what, number, allowed in (("rows", read, source.rows), ("rows kept", kept, source.kept)):
        if allowed and not allowed[0] <= number <= allowed[1]:
            wrong.append(f"{number:,} {what} instead of {' to '.join(f'{n:,}' for n in dict.fromkeys(allowed))}")
    if dropped[NO_ANSWER] > MOST_WITHOUT_ANSWER * read:
        wrong.append(f"{dropped[NO_ANSWER]:,} of {read:,} without an answer that can be read")
    if wrong and source.exact and not accept:
        raise DataError(
            f"{source.name} ({source.repo}): {'; '.join(wrong)}. The source has changed: take another commit by "
            f"--revision {source.name}=COMMIT, or these rows by --accept_row_counts"
        )
    for text in wrong:
        warn(f"{source.name}: {text}")


def _over_long(rows: dict, options: Options) -> list:
    """Return the keys of rows with too many tokens, counted as OpenRLHF does, after the chat template."""
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
