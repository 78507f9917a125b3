"""The problems of an evaluation, and the settings by which each benchmark is sampled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class EvaluationError(RuntimeError):
    """The evaluation can't continue; the message says what to do. Finished samples stay on disk."""


class InputError(EvaluationError):
    """What the flags ask for can't be done, whenever it is tried: nothing was begun."""


class Problem(NamedTuple):
    """One row of the data, named by `datasource` and `id`; `prompt` is a text or a list of chat turns."""

    datasource: str
    id: str
    prompt: str | list
    label: str
    images: tuple[str, ...] = ()


class Sampling(NamedTuple):
    """How a benchmark is sampled: `n` responses a problem, of at most `max_new_tokens`; `source` says who does so."""

    temperature: float
    top_p: float
    n: int
    max_new_tokens: int
    source: str


_R1, _OPEN_R1 = "DeepSeek-R1, README", "open-r1, README"
_QWEN_MATH = "Qwen2.5-Math, evaluation/"
_CURVERL = "CurveRL, evaluation with verl"
SAMPLING = {
    "aime24": Sampling(0.6, 0.95, 64, 32_768, _R1),
    "aime25": Sampling(0.6, 0.95, 64, 32_768, _R1),
    "amc": Sampling(0.6, 0.95, 64, 32_768, _R1),
    "math500": Sampling(0.6, 0.95, 4, 32_768, _OPEN_R1),
    "minerva": Sampling(0.6, 0.95, 16, 4_096, _CURVERL),
    "olympiadbench": Sampling(0.6, 0.95, 16, 4_096, _CURVERL),
    "gsm8k_test": Sampling(0.0, 1.0, 1, 2_048, _QWEN_MATH),
    "math_test": Sampling(0.0, 1.0, 1, 2_048, _QWEN_MATH),
    "geometry3k_test": Sampling(0.6, 0.95, 1, 2_048, "EasyR1, geometry3k"),
    "livecodebench_v5": Sampling(0.8, 1.0, 4, 32_768, "Archer"),
    "livecodebench_release_v5": Sampling(0.6, 0.95, 16, 32_768, _OPEN_R1),
    "arithmetic": Sampling(1.0, 1.0, 16, 32, "the quickstart of this project"),
}
OTHERS = Sampling(0.6, 0.95, 8, 4_096, "no public settings known")
# What the paper's tables seem to use (docs/evaluation.md, "As in the paper"): one greedy answer of 3,072 tokens.
PAPER = Sampling(0.0, 1.0, 1, 3_072, "RiskPO, the authors' scripts")
SETTINGS = ("public", "paper")


def read_problems(paths: Iterable[Path], input_key: str | None, label_key: str) -> list[Problem]:
    """Read problems from JSON-lines files, as `prepare_data` writes them or with other keys.

    A row without `id` is named by its file and line. A row without `datasource` gets OpenRLHF's, `default`. Null is
    as good as absent. `images` is a list, or one path, as in OpenRLHF.

    Args:
        input_key: the prompt's key; None takes `prompt`, or else `input`.
        label_key: the label's key.

    Raises:
        InputError: a file is missing, empty or not JSON lines; a field is missing or not a string; two problems
            of one data source have the same id.
    """
    problems: dict[tuple[str, str], Problem] = {}
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # and not at U+2028 within a text
        except UnicodeDecodeError as error:
            raise InputError(f"--data {path} is no JSON-lines text in UTF-8 ({error}): convert it") from error
        except OSError as error:
            raise InputError(f"--data {path} can't be read: {error.strerror or error}") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"--data {path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{where} is not JSON ({error}): write one object a line") from error
            problem = _problem(row, input_key, label_key, f"{path.stem}:{number}", where)
            if problems.setdefault(problem[:2], problem) is not problem:
                raise InputError(
                    f"{where}: the id {problem.id!r} comes twice in {problem.datasource!r}: make ids unique"
                )
    if not problems:
        raise InputError(f"--data {', '.join(map(str, paths))} holds no problems")
    return list(problems.values())


def _problem(row, input_key: str | None, label_key: str, default_id: str, where: str) -> Problem:
    if not isinstance(row, dict):
        raise InputError(f"{where} is not an object: write one JSON object a line")
    input_key = input_key or ("prompt" if "prompt" in row else "input")
    for key, flag, kinds in ((input_key, "--input_key", (str, list)), (label_key, "--label_key", (str,))):
        if not isinstance(row.get(key), kinds) or not row[key]:
            raise InputError(
                f"{where}: {key!r} is {str(row.get(key))[:60]!r}; {flag} must name a field with a text"
                + (" or a list of chat turns" if list in kinds else ", numbers as text too")
                + f". The row has: {', '.join(row)}"
            )
    there = {key: value for key, value in row.items() if value is not None}
    images = row.get("images") or ()
    return Problem(
        str(there.get("datasource", "default")),
        str(there.get("id", default_id)),
        row[input_key],
        row[label_key],
        (images,) if isinstance(images, str) else tuple(images),
    )


def digest(problems: Sequence[Problem]) -> str:
    """Hash the problems. Two evaluations have equal digests if they hold the same problems, in any order."""
    lines = sorted(json.dumps(problem, ensure_ascii=False) for problem in problems)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def choose_sampling(problems: Iterable[Problem], overrides: dict, setting: str = "public") -> dict[str, Sampling]:
    """Choose the settings of each data source, and replace them by the `overrides` that are not None.

    Args:
        setting: "public" takes those of `SAMPLING`, by benchmark; "paper" takes `PAPER` for every data source.

    Raises `InputError` for a value out of bounds, and for greedy decoding with more than one response.
    """
    changes = {name: value for name, value in overrides.items() if value is not None}
    chosen = {}
    for source in sorted({problem.datasource for problem in problems}):
        known = PAPER if setting == "paper" else SAMPLING.get(source, OTHERS)
        sampling = known._replace(**changes)
        if changes:
            sampling = sampling._replace(source=f"{known.source}; given here: {', '.join(changes)}")
        for flag, good, rule in (
            ("temperature", sampling.temperature >= 0, "0 or more"),
            ("top_p", 0 < sampling.top_p <= 1, "over 0 and at most 1"),
            ("n", sampling.n >= 1, "1 or more"),
            ("max_new_tokens", sampling.max_new_tokens >= 1, "1 or more"),
        ):
            if not good:
                raise InputError(f"--{flag} {getattr(sampling, flag)} is not allowed: {rule}")
        if sampling.temperature == 0 and sampling.n > 1:
            raise InputError(
                f"{source}: greedy decoding (temperature 0) gives {sampling.n} equal responses; take --n 1, or sample "
                "with e.g. --temperature 0.6 --top_p 0.95"
            )
        chosen[source] = sampling
    return chosen


def sample_seed(seed: int, problem: Problem) -> int:
    """Compute the seed of a problem's first response. Response j adds j, as vLLM's own `n=…, seed=…` does."""
    name = f"{seed}/{problem.datasource}/{problem.id}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
