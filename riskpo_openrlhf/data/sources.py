"""List the data sets that `prepare_data` knows: where each is, and how a record becomes a problem."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from riskpo_openrlhf.data import answers
from riskpo_openrlhf.data.instructions import INSTRUCTIONS, code_prompt
from riskpo_openrlhf.verifiers.code.shapes import convert, decode_livecodebench
from riskpo_openrlhf.verifiers.code.testcases import check_tests

REASONING_GYM = "reasoning-gym"  # a package in place of a repository


class Skip(Exception):
    """This record does not belong to the set. The message is the reason; the manifest counts it."""


@dataclass(frozen=True)
class Problem:
    """One problem without its instruction. `images`: each file's bytes. `tests` grade a program, not an answer."""

    text: str
    answer: str = ""
    images: tuple[bytes, ...] = ()
    tests: dict | None = None
    key: str = ""


@dataclass(frozen=True)
class Source:
    """One data set on the hub.

    `columns`: the only ones that are read. `rows`: the least and most records that there must be; `kept`: the same
    after repeats and the like are left out. `exact`: other numbers are an error, otherwise a warning. `files`: globs,
    if the files are not those of a split. `revision`: a commit, None for `main`.
    """

    name: str
    role: str
    repo: str
    split: str
    columns: tuple[str, ...]
    convert: Callable[[dict[str, Any]], Problem]
    rows: tuple[int, int]
    licence: str
    instruction: str = "answer"
    verifier: str = "math"
    config: str | None = None
    files: tuple[str, ...] = ()
    revision: str | None = None
    kept: tuple[int, int] | None = None
    exact: bool = True


def _dapo(record) -> Problem:
    (turn,) = record["prompt"]
    answer = answers.text(record["reward_model"]["ground_truth"])
    try:
        answer = answers.integer(answer)  # so that "033" and "33" are no conflict
    except answers.AnswerError:
        pass
    return Problem(INSTRUCTIONS["answer"].remove(turn["content"]), answer)


def _problem(question: str, answer: str, read: Callable[[Any], str]) -> Callable[[dict[str, Any]], Problem]:
    """Convert records with a question in one column and an answer, which `read` reads, in another."""
    return lambda record: Problem(record[question], read(record[answer]))


def _olympiad(record) -> Problem:
    (answer,) = record["final_answer"]  # one string, also where it holds several answers
    context, unit = ((record[key] or "").strip() for key in ("context", "unit"))
    text = f"{context}\n\n{record['question']}" if context else record["question"]
    return Problem(
        f"{text}\n\nThe unit of the answer is {unit}." if unit else text, answers.text(answer.replace("$", ""))
    )


def _geometry(record) -> Problem:
    return Problem(
        record["problem"], answers.text(record["answer"]), tuple(image["bytes"] for image in record["images"])
    )


def _archer(record) -> Problem:
    if any(turn["role"] not in ("system", "user") for turn in record["prompt"]):
        raise ValueError("the prompt has a turn of the assistant")
    text = "\n\n".join(turn["content"] for turn in record["prompt"]).strip()
    if "```python" not in text:  # it does not say yet how to answer
        text = code_prompt(text)
    return Problem(text, tests=_with_tolerance(convert(json.loads(record["reward_model"]["ground_truth"])), text))


def _livecodebench(record) -> Problem:
    tests = decode_livecodebench(record["public_test_cases"], record["private_test_cases"], record["metadata"])
    text = code_prompt(record["question_content"], record["starter_code"])
    return Problem(text, tests=_with_tolerance(tests, text), key=record["question_id"])


def _with_tolerance(tests: dict, text: str) -> dict:
    """Return the checked test set, with the error of real numbers that the problem's text allows, if it allows one."""
    tests = check_tests(tests)
    says = re.search(r"(?:absolute|relative) (?:or (?:absolute|relative) )?error\b(.{0,150})", text, re.DOTALL | re.I)
    power = says and re.search(r"10\s*\^?\s*\{?\s*[-−]\s*\{?(\d{1,2})|\b1e-0?(\d{1,2})", says[1])
    if power and "tests" in tests:
        return tests | {"tolerance": float(f"1e-{power[1] or power[2]}")}
    return tests


def _livecodebench_v5(record) -> Problem:
    if not "2024-08-01" <= record["contest_date"][:10] <= "2025-02-01":
        raise Skip("contest not from 2024-08-01 to 2025-02-01")
    return _livecodebench(record)


_MATH = dict(
    repo="DigitalLearningGmbH/MATH-lighteval", columns=("problem", "solution"), licence="MIT", instruction="boxed",
    convert=_problem("problem", "solution", answers.last_boxed), revision="92ace7ed",
)  # fmt: skip
_GSM8K = dict(
    repo="openai/gsm8k", config="main", columns=("question", "answer"), licence="MIT", instruction="boxed",
    convert=_problem("question", "answer", answers.after_hashes), revision="740312a",
)  # fmt: skip
_GEOMETRY = dict(
    repo="hiyouga/geometry3k", columns=("images", "problem", "answer"), convert=_geometry, licence="MIT",
    instruction="boxed", verifier="geometry",
)  # fmt: skip
_INTEGER = dict(columns=("problem", "answer"), convert=_problem("problem", "answer", answers.integer))
_LIVECODEBENCH = dict(
    repo="livecodebench/code_generation_lite", split="test", rows=(880, 880), licence="CC, unspecified",
    files=("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl"),
    columns=("question_content", "question_id", "contest_date", "starter_code", "public_test_cases",
             "private_test_cases", "metadata"),
    instruction="code", verifier="code", revision="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
)  # fmt: skip
_REASONING_GYM = dict(
    repo=REASONING_GYM, columns=("question", "answer"), convert=_problem("question", "answer", answers.integer),
    rows=(1, 1_000_000), licence="Apache-2.0", instruction="boxed",
)  # fmt: skip

_ALL = (
    Source(
        "dapo_math_17k", "train", "BytedTsinghua-SIA/DAPO-Math-17k", "train", ("prompt", "reward_model"), _dapo,
        rows=(1_791_700, 1_791_700), kept=(17_000, 17_500), exact=False, licence="Apache-2.0",
        revision="65877096c24ffa7abc4e4fa5edb95cf3413a5674",
    ),
    Source("math_train", "train", split="train", rows=(7_500, 7_500), **_MATH),
    Source("gsm8k_train", "train", split="train", rows=(7_473, 7_473), **_GSM8K),
    Source("geometry3k_train", "train", split="train", rows=(2_101, 2_101), **_GEOMETRY),
    Source(
        "archer_code", "train", "Fate-Zero/ArcherCodeR-Dataset", "train", ("prompt", "reward_model"), _archer,
        files=("train/archercoder-1.5b-train.json",), rows=(6_600, 6_800), exact=False, licence="MIT",
        instruction="code", verifier="code",
    ),
    Source("aime24", "test", "HuggingFaceH4/aime_2024", "train", rows=(30, 30), licence="none declared", **_INTEGER),
    Source(
        "aime25", "test", "math-ai/aime25", "test", rows=(30, 30), licence="Apache-2.0",
        revision="563bb8404243c5f09de6ec262f2db674fe5bce9b", **_INTEGER,
    ),
    Source("amc", "test", "AI-MO/aimo-validation-amc", "train", rows=(83, 83), licence="Apache-2.0", **_INTEGER),
    Source(
        "math500", "test", "HuggingFaceH4/MATH-500", "test", ("problem", "answer"),
        _problem("problem", "answer", answers.text), rows=(500, 500), licence="MIT", revision="6e4ed1a2",
    ),
    Source(
        "minerva", "test", "math-ai/minervamath", "test", ("question", "answer"),
        _problem("question", "answer", answers.text), rows=(272, 272), licence="none declared",
    ),
    Source(
        "olympiadbench", "test", "Hothan/OlympiadBench", "train", ("question", "final_answer", "context", "unit"),
        _olympiad, config="OE_TO_maths_en_COMP", rows=(674, 675), licence="Apache-2.0",
    ),
    Source("gsm8k_test", "test", split="test", rows=(1_319, 1_319), **_GSM8K),
    Source("math_test", "test", split="test", rows=(5_000, 5_000), **_MATH),
    Source("geometry3k_test", "test", split="test", rows=(601, 601), **_GEOMETRY),
    Source("livecodebench_v5", "test", convert=_livecodebench_v5, kept=(279, 279), **_LIVECODEBENCH),
    Source("livecodebench_release_v5", "test", convert=_livecodebench, **_LIVECODEBENCH),
    Source("reasoning_gym_train", "train", split="train", **_REASONING_GYM),
    Source("reasoning_gym_test", "test", split="test", **_REASONING_GYM),
)  # fmt: skip
SOURCES = {source.name: source for source in _ALL}


def file_name(key: str) -> str:
    """Return a source's key as a file name."""
    return re.sub(r"[^\w.-]", "_", key)
