"""Check the rows of a data set: prompts, labels for our verifiers, images, lengths and repeats."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from riskpo_openrlhf.data.decontaminate import normalise
from riskpo_openrlhf.data.golds import first_line, label_problems
from riskpo_openrlhf.data.instructions import INSTRUCTIONS, bare_problem
from riskpo_openrlhf.data.schema import CALCULATOR, DOUBLE_BRACES
from riskpo_openrlhf.verifiers.labels import read_label

NOTE, WARNING, ERROR = range(3)
LEVELS = ("note", "warning", "error")
HOW_TO_ANSWER = {"math": (r"\boxed", "Answer:"), "geometry": (r"\boxed",), "code": ("```python",)}

Problems = Iterator[tuple[int, str, str]]  # level, what, cure


class RowCheck:
    """Check every row of the files that load: instructions, labels for our verifiers, images, lengths, repeats.

    Findings go to `reader.add`. `tokenizer`: counts tokens and applies its chat template, or None.
    """

    def __init__(self, reader, tokenizer, max_prompt_tokens: int):
        self.reader, self.tokenizer, self.max_prompt_tokens = reader, tokenizer, max_prompt_tokens
        self.places: dict[tuple, Counter] = defaultdict(Counter)  # problem -> file -> times

    def check(self, path: Path, table) -> bool:
        from openrlhf.datasets.prompts_dataset import PromptDataset

        reader = self.reader
        template = self.tokenizer or SimpleNamespace(apply_chat_template=_plain_template)
        try:
            read = PromptDataset(table, template, reader.strategy)
        except Exception as error:  # a chat template is a program of the model's author
            what = f"the chat template fails: {first_line(error)}"
            reader.add(ERROR, path, what, "Look at the turns of the prompts")
            return False
        found: dict[tuple[int, str, str], list[int]] = defaultdict(list)
        for place, (prompt, label, images) in enumerate(zip(read.prompts, read.labels, read.images, strict=True)):
            written = plain_text(table[place][reader.data.input_key])
            problems = (
                *prompt_problems(prompt, written, label),
                *self._length(prompt),
                *((LEVELS.index(level), what, cure) for level, what, cure in label_problems(label)),
                *image_problems(written, images, reader.data.image_key),
            )
            for problem in problems:
                found[problem].append(place)
            stems = tuple(str(image)[-200:] for image in as_list(images))
            self.places[(normalise(bare_problem(written)), *stems)][str(path)] += 1
        for (level, what, cure), places in found.items():
            reader.add(level, path, f"{what} ({len(places)} of {len(table)} rows, first: {places[0]})", cure)
        self._summary(path, read)
        self._ids(path, table)
        return True

    def _ids(self, path: Path, table) -> None:
        times = Counter(table["id"] if "id" in table.column_names else ())
        if repeated := [name for name, n in times.items() if n > 1 and name is not None]:
            what = f"{len(repeated)} ids are there more than once, e.g. {str(repeated[0])[:80]!r}"
            self.reader.add(WARNING, path, what, "Make ids unique: `evaluate` names problems by them")

    def report_shared(self) -> None:
        """Report problems that two files have in common."""
        shared = Counter()
        for files in self.places.values():
            names = sorted(files)
            shared.update((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
        cure = (
            "If you train on one and test on the other, decontaminate; in one --eval.dataset, the same prompt in "
            "both counts for the last one only"
        )
        for (first, second), n in shared.items():
            self.reader.add(WARNING, f"{first} and {second}", f"have {n} problems in common", cure)

    def _length(self, prompt: str) -> Problems:
        if not self.tokenizer:
            return
        if len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"]) > self.max_prompt_tokens:
            cure = "OpenRLHF keeps the last tokens only: leave the row out, or raise --data.max_len"
            yield WARNING, f"the prompt has more than {self.max_prompt_tokens} tokens", cure

    def _summary(self, path: Path, read) -> None:
        repeated = sum(files[str(path)] - 1 for files in self.places.values() if files[str(path)] > 1)
        if repeated:
            self.reader.add(WARNING, path, f"{repeated} problems are there more than once", "Keep one of each")
        most = max((len(as_list(images)) for images in read.images), default=0)
        if most:
            cure = f"Set --data.max_images_per_prompt {most} or more"
            self.reader.add(NOTE, path, f"has up to {most} images a prompt", cure)
        sources = ", ".join(map(repr, Counter(read.datasources)))
        example = f"the first prompt is {read.prompts[0][:300]!r}, its label {str(read.labels[0])[:300]!r}"
        what = f"{len(read.prompts)} rows are read, of {sources}; {example}"
        self.reader.add(NOTE, path, what, "Compare both with what you expect")


def prompt_problems(prompt: str, written: str, label) -> Problems:
    """Report traps of a prompt. `prompt`: after the chat template; `written`: as the file has it."""
    if not written.strip():
        yield ERROR, "empty prompt", "Remove the row"
    if DOUBLE_BRACES in written:
        yield ERROR, f"the prompt shows the model {DOUBLE_BRACES}", r"Write \boxed{}"
    elif re.search(r"\{\{\s*[A-Za-z_]{3,}\s*\}\}", written):
        yield WARNING, "a {{placeholder}} is left in the prompt", "Fill it in"
    if CALCULATOR.search(written):
        yield ERROR, "the prompt has <<...=...>>, which gives answers away", "Remove it"
    tails = [instruction.tail.strip() for instruction in INSTRUCTIONS.values() if instruction.tail]
    if sum(written.count(tail) for tail in tails) > 1:
        yield WARNING, "the prompt says more than once how to answer", "Keep one instruction"
    try:
        verifier = read_label(label)[0]
    except ValueError:  # `label_problems` reports it
        return
    if not any(sign in prompt for sign in HOW_TO_ANSWER[verifier]):
        signs = " nor ".join(HOW_TO_ANSWER[verifier])
        yield WARNING, f"neither {signs} is in the prompt, which the verifier {verifier!r} looks for", "Ask for it"


def image_problems(written: str, images, image_key: str) -> Problems:
    """Report images that OpenRLHF would not find, or would silently ignore."""
    images = as_list(images)
    if written.count("<image>") != len(images):
        missing = f"Check --data.image_key {image_key}"
        cure = "One <image> in the text for each image" if images else missing
        yield ERROR, f"{written.count('<image>')} times <image>, but {len(images)} images", cure
    for image in images:
        if isinstance(image, dict):
            yield ERROR, "an image is an undecoded record, which OpenRLHF ignores", "Store an absolute path"
        if not isinstance(image, str) or image.startswith(("http://", "https://", "data:")):
            continue
        from openrlhf.utils.vlm_utils import _is_base64_image

        if _is_base64_image(image):
            if image.startswith("/"):
                yield ERROR, "a path is so long that OpenRLHF takes it for base64", "Use a shorter one"
        elif not os.path.isabs(image):
            yield ERROR, "an image's path is not absolute; Ray's workers run in other folders", "Write it in full"
        elif not _opens(image):
            yield ERROR, "an image is not there or can't be opened; OpenRLHF ignores it", "Put it there"


def plain_text(prompt: str | list) -> str:
    """Join the text of a prompt's turns, `<image>` for each image."""
    if isinstance(prompt, str):
        return prompt
    parts = []
    for turn in prompt:
        content = turn["content"]
        if isinstance(content, str):
            parts.append(content)
        else:
            parts.extend("<image>" if part.get("type") == "image" else part.get("text") or "" for part in content)
    return "\n".join(parts)


def as_list(images) -> list:
    """Return a row's images as a list without gaps."""
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


def _plain_template(chat, tokenize=False, add_generation_prompt=True) -> str:
    return plain_text(chat)
