"""Check one row of a data set: its prompt, its label for our verifiers, its images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from riskpo_openrlhf.data.instructions import INSTRUCTIONS
from riskpo_openrlhf.data.schema import CALCULATOR, DOUBLE_BRACES
from riskpo_openrlhf.verifiers.code.testcases import read_tests
from riskpo_openrlhf.verifiers.labels import read_label

NOTE, WARNING, ERROR = range(3)
LEVELS = ("note", "warning", "error")
HOW_TO_ANSWER = {"math": (r"\boxed", "Answer:"), "geometry": (r"\boxed",), "code": ("```python",)}

Problems = Iterator[tuple[int, str, str]]  # level, what, cure


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


def label_problems(label) -> Problems:
    """Report a label that no verifier of this project can use."""
    if not isinstance(label, str):
        cure = "Write every label as a string that is no date; OpenRLHF's loader reads '033' beside a number as 33"
        yield ERROR, f"the label is {type(label).__name__}, not a string", cure
        return
    try:
        verifier, answer = read_label(label)
    except ValueError as error:
        yield ERROR, f"the label can't be used: {first_line(error)}", "See docs/data.md, A row"
        return
    if verifier == "code" and answer.startswith("/") and not os.path.exists(answer):
        yield ERROR, "the label names a file of tests that is not there", "Prepare the set on this machine"
    elif verifier == "code" and not answer.startswith("/"):
        try:
            read_tests(answer)
        except (ValueError, OSError) as error:
            yield ERROR, f"the tests in the label can't be used: {first_line(error)}", "See docs/data.md"


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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def _opens(path: str) -> bool:
    from PIL import Image

    try:
        with Image.open(path):
            return True
    except OSError:
        return False
