"""Test sets for programs: the format that `verifiers.code` reads. `shapes.py` converts public ones to it.

The format is plain JSON, of three kinds:

    {"kind": "stdin", "tests": [{"input": "1 2\\n", "output": "3\\n"}]}
    {"kind": "functional", "function": "twoSum", "tests": [{"input": "[2, 7]\\n9", "output": "[0, 1]"}]}
    {"kind": "assert", "check": "def check(candidate): ...\\n\\ncheck(Solution().pick)"}

`functional` is LiveCodeBench's convention. `input` holds the positional arguments, one JSON value a line; `output` is
one JSON value. The function is a method of a class `Solution`, or a plain function. `assert` is Archer's convention:
Python source that raises if the program is wrong.

Each may have `time_limit` (seconds a test) and `memory_mb`. The first two may have `tolerance`, by how much real
numbers may differ (`outputs.py`). A test may have `or`, another right output.
"""

from __future__ import annotations

import ast
import functools
import gzip
import json
import os
import stat
from pathlib import Path

from riskpo_openrlhf.verifiers.code.outputs import read_json
from riskpo_openrlhf.verifiers.code.shapes import MAX_BYTES, convert

KINDS = ("stdin", "functional", "assert")
FOLDERS_VARIABLE = "RISKPO_CODE_TESTS"
_COMPARERS = {"is_same_list", "is_same_tree"}  # of LeetCodeDataset, which a user of its rows adds
MAX_KEPT = 1 << 24  # characters of a test set that is kept for the next response


def check_tests(tests: dict) -> dict:
    """Return the test set. Raises `ValueError`, which says what is wrong, if `verifiers.code` can't grade with it."""
    if not isinstance(tests, dict) or tests.get("kind") not in KINDS:
        kind = tests.get("kind") if isinstance(tests, dict) else type(tests).__name__
        raise ValueError(f"a test set is an object with `kind` one of {', '.join(KINDS)}, not {kind!r}")
    kind = tests["kind"]
    own = {"stdin": {"tests"}, "functional": {"tests", "function"}, "assert": {"check"}}[kind]
    allowed = {"kind", "time_limit", "memory_mb", *own} | ({"tolerance"} if "tests" in own else set())
    if not own <= tests.keys() <= allowed:
        raise ValueError(f"a test set of kind {kind!r} has the fields {sorted(allowed)}, this one {sorted(tests)}")
    for name in ("time_limit", "memory_mb"):
        value = tests.get(name, 1)
        if type(value) not in (int, float) or not 0 < value < 1e6:
            raise ValueError(f"{name} {value!r} is not allowed: a number above 0")
    tolerance = tests.get("tolerance", 0)
    if type(tolerance) not in (int, float) or not 0 <= tolerance < 1:
        raise ValueError(f"tolerance {tolerance!r} is not allowed: a number from 0, exact, to below 1")
    if kind == "assert":
        _check_check(tests["check"])
        return tests
    if kind == "functional" and not (isinstance(tests["function"], str) and tests["function"].isidentifier()):
        raise ValueError(f"function {tests['function']!r} is not the name of a function")
    if not isinstance(tests["tests"], list) or not tests["tests"]:
        raise ValueError("`tests` is a list of at least one test")
    for i, test in enumerate(tests["tests"]):
        types = {k: type(v) for k, v in test.items() if k != "or"} if isinstance(test, dict) else None
        if types != {"input": str, "output": str} or not isinstance(test.get("or", ""), str):
            raise ValueError(f"test {i} must have the strings `input` and `output`, may have `or`, and nothing else")
        if kind == "functional":
            lines = [line for line in test["input"].split("\n") if line.strip()]
            try:
                for text in (*lines, test["output"], test.get("or", "0")):
                    read_json(text)
            except (ValueError, ArithmeticError, RecursionError) as error:
                raise ValueError(f"test {i} of {tests['function']}: not JSON: {error}") from None
    return tests


def _check_check(source: str) -> None:
    """Raise `ValueError` unless the source is Python in which something can fail."""
    try:
        tree = ast.parse(source)
        compile(tree, "check", "exec")
        nodes = list(ast.walk(tree))
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"`check` is not Python source: {error}") from None
    tests = [node.test for node in nodes if isinstance(node, ast.Assert)]
    if any(isinstance(test, ast.Tuple) and test.elts for test in tests):
        raise ValueError("`check` asserts a tuple, which is always true: write `assert a, b` without brackets")
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = [getattr(function, "attr", getattr(function, "id", "")) for function in called]
    may_fail = any(name.lower().startswith(("assert", "fail")) or name in ("exit", "_exit") for name in names)
    asserts = any(not (isinstance(test, ast.Constant) and test.value) for test in tests)
    defined = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    if lacking := sorted(_COMPARERS & set(names) - defined):
        raise ValueError(
            f"`check` compares by {lacking[0]}, which it does not define, so a program could: define it there"
        )
    if not (asserts or may_fail or any(isinstance(node, ast.Raise) for node in nodes) or "unittest" in source):
        raise ValueError("`check` asserts nothing, so every program would pass: let it raise if a program is wrong")


def read_tests(gold: str) -> dict:
    """Read the test set that a label names: its JSON text, or the absolute path of a `.json` or `.json.gz` file.

    The JSON may have any of the public shapes that `shapes.py` knows. Raises `OSError` for a file that can't be read,
    and `ValueError` for a path that is refused and for a bad test set.
    """
    text = _read_file(gold) if gold.startswith("/") else gold
    return _parsed(text) if len(text) <= MAX_KEPT else _parsed.__wrapped__(text)


@functools.lru_cache(maxsize=8)  # a label is read for each of its responses
def _parsed(text: str) -> dict:
    return check_tests(convert(json.loads(text)))


def _read_file(name: str) -> str:
    """Return the text of a file of tests. Others wrote the labels, so they can't name just any file."""
    path = Path(name).resolve(strict=True)
    if not path.name.endswith((".json", ".json.gz")):
        raise ValueError(f"{name} is refused: a file of tests ends in .json or .json.gz")
    folders = [Path(folder).resolve() for folder in os.environ.get(FOLDERS_VARIABLE, "").split(":") if folder]
    if folders and not any(path.is_relative_to(folder) for folder in folders):
        raise ValueError(f"{name} is refused: it is not below {FOLDERS_VARIABLE}={os.environ[FOLDERS_VARIABLE]}")
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(file, "rb") as raw:
        state = os.fstat(file)
        if not stat.S_ISREG(state.st_mode):
            raise ValueError(f"{name} is refused: it is no regular file")
        with gzip.open(raw) if path.name.endswith(".gz") else raw as content:
            text = content.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"{name} is refused: it has more than {MAX_BYTES:,} bytes")
    return text.decode()
