"""Report right answers that a verifier can't use, or uses only in part. `prepare_data --check` asks for each label."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator

from riskpo_openrlhf.verifiers import code, geometry, math
from riskpo_openrlhf.verifiers.code.testcases import read_tests
from riskpo_openrlhf.verifiers.labels import DEFAULT_VERIFIER, read_label

WARNING, ERROR = "warning", "error"
LONG_WORDS = 25  # more are a solution, not an answer

Problems = Iterator[tuple[str, str, str]]  # level, what, cure; the same texts for every label with the same problem


def label_problems(label) -> Problems:
    """Report a label that no verifier of this project can use, or of which it would ignore a part."""
    if not isinstance(label, str):
        cure = "Write every label as a string that is no date; OpenRLHF's loader reads '033' beside a number as 33"
        yield ERROR, f"the label is {type(label).__name__}, not a string", cure
        return
    try:
        verifier, gold = read_label(label)
    except ValueError as error:
        yield ERROR, f"the label can't be used: {first_line(error)}", "See docs/data.md, A row"
        return
    yield from _of_tests(gold) if verifier == "code" else _of_answer(verifier, gold)


def _of_tests(gold: str) -> Problems:
    try:
        tests = read_tests(gold)
    except FileNotFoundError:
        yield ERROR, "the label names a file of tests that is not there", "Prepare the set on this machine"
    except (ValueError, OSError, RecursionError) as error:
        yield ERROR, f"the tests in the label can't be used: {first_line(error)}", "See docs/data.md"
    else:
        if tests["kind"] == "assert":
            yield from _of_check(json.dumps(tests))


@functools.lru_cache(maxsize=4096)
def _of_check(gold: str) -> tuple:
    """Try a check on a program that has nothing in it, where a sandbox works."""
    from riskpo_openrlhf.verifiers.code.sandbox import SandboxError

    try:
        verdict = code.verify("```python\npass\n```", gold)
    except SandboxError:
        return ()
    if verdict.correct:
        return ((ERROR, "the check passes a program that has nothing in it", "Let it call the program and assert"),)
    if verdict.status == "error":
        return ((ERROR, f"the check can't judge a program: {verdict.extracted}", "Repair the check"),)
    return ()


@functools.lru_cache(maxsize=65536)
def _of_answer(verifier: str, gold: str) -> tuple:
    if "####" in gold:
        return ((ERROR, "the gold holds ####: a solution in GSM8K's form", "Take what stands after ####"),)
    if re.search(r"\\f?boxed\b", gold):
        return ((ERROR, "the gold holds \\boxed: a whole solution", "Take the content of the last \\boxed"),)
    if re.match(r"(?i)\s*(?:the )?(?:final )?answer\s*(?:is\b|[:=])", gold):
        return ((ERROR, "the gold says that it is the answer", "Take only what stands behind 'Answer:'"),)
    if len(gold.split()) > LONG_WORDS and len(re.findall(r"\b[A-Za-z]{3,}\b", gold)) > LONG_WORDS // 2:
        return ((WARNING, f"the gold has more than {LONG_WORDS} words: a solution", "Take only its answer"),)
    if _is_label(gold):
        return ((ERROR, "the gold is a JSON text, such as another framework's", "Write the answer in it alone"),)
    verify = {"math": math.verify, "geometry": geometry.verify}[verifier]
    verdict = verify(f"\\boxed{{{gold}}}", gold)
    if not verdict.correct:
        cure = "Write it in usual notation, or leave the row out: no answer to it can be right"
        return ((ERROR, f"the verifier can't read the gold, not even as its own answer ({verdict.status})", cure),)
    number = re.match(r"\s*\$?\s*(-?\d+(?:\.\d+)?)\s*\S", gold)
    if (
        number
        and re.search(r"[A-Za-z一-鿿]", gold[number.end(1) :])
        and verify(f"\\boxed{{{number[1]}}}", gold).correct
    ):
        cure = "Fine for a unit. If it is part of the answer, write the answer so that it is compared"
        return ((WARNING, "the verifier compares only the number of the gold, not the words after it", cure),)
    return ()


def _is_label(gold: str) -> bool:
    """Tell whether a gold would be no mathematical answer if it were the label: it is the JSON of something else."""
    try:
        return read_label(gold) != (DEFAULT_VERIFIER, gold)
    except ValueError:
        return True


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
