"""Define the rows and manifests of prepared files. Files are written atomically.

A row is `{"prompt": [{"role": "user", "content": ...}], "label": ..., "datasource": ..., "id": ...}`, all strings, and
with images `"images": [absolute paths]`. OpenRLHF reads it with `--data.input_key prompt --data.label_key label
--data.apply_chat_template`. The manifest beside the file says where the rows come from and what was left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from riskpo_openrlhf.files import write_json
from riskpo_openrlhf.verifiers.labels import read_label

# OpenRLHF takes a longer string of letters, digits and slashes for an image in base64.
MOST_PATH_CHARACTERS = 256
DOUBLE_BRACES = r"\boxed{{}}"  # what "\boxed{{}}" becomes when it is written outside an f-string
CALCULATOR = re.compile(r"<<[^<>\n]*=[^<>\n]*>>")  # GSM8K's annotations, which hold the answer


class DataError(ValueError):
    """The data are not as expected; the message says what to do."""


def check_row(row: dict) -> None:
    """Raise `DataError` if a row breaks the schema or holds a trap that OpenRLHF would not notice."""
    prompt, images = row.get("prompt"), row.get("images", [])
    where = f"row {row.get('id')!r}"
    for key in ("label", "datasource", "id"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise DataError(f"{where}: {key} is {row.get(key)!r}; it must be a non-empty string")
    if not isinstance(prompt, list) or not prompt or not all(isinstance(turn.get("content"), str) for turn in prompt):
        raise DataError(f"{where}: prompt is {str(prompt)[:80]!r}; it must be a list of turns with a string content")
    read_label(row["label"])
    text = "\n".join(turn["content"] for turn in prompt)
    if not text.strip():
        raise DataError(f"{where}: the prompt is empty")
    if DOUBLE_BRACES in text or CALCULATOR.search(text):
        raise DataError(f"{where}: the prompt contains {DOUBLE_BRACES} or a <<...=...>> that gives the answer away")
    if text.count("<image>") != len(images):
        raise DataError(f"{where}: {text.count('<image>')} times <image> in the prompt, but {len(images)} images")
    for image in images:
        if not os.path.isabs(image) or len(image) > MOST_PATH_CHARACTERS:
            raise DataError(f"{where}: image {image!r} must be an absolute path of at most 256 characters")


def read_rows(path: Path) -> Iterator[dict]:
    with open(path, encoding="utf-8-sig") as file:
        yield from map(json.loads, file)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """Return one digest of the names and contents of all files in a folder, which may be missing."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
    return digest.hexdigest()


def manifest_path(out: Path, name: str) -> Path:
    return out / f"{name}.manifest.json"


def write_manifest(out: Path, manifest: dict) -> None:
    write_json(manifest_path(out, manifest["name"]), manifest)


def read_manifests(out: Path) -> dict[str, dict]:
    """Return {name: manifest} of every set in a folder. Raises `DataError` for a manifest that can't be read."""
    found = {}
    for path in sorted(out.glob("*.manifest.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found[manifest["name"]] = manifest
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} can't be read ({error}): delete it and prepare the set again") from error
    return found
