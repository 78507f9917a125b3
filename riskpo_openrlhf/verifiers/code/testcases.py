"""Test sets for programs: the format that `verifiers.code` reads, and decoders of the data sources' formats.

The format is plain JSON, of three kinds:

    {"kind": "stdin", "tests": [{"input": "1 2\\n", "output": "3\\n"}]}
    {"kind": "functional", "function": "twoSum", "tests": [{"input": "[2, 7]\\n9", "output": "[0, 1]"}]}
    {"kind": "assert", "check": "def check(candidate): ...\\n\\ncheck(Solution().pick)"}

`functional` is LiveCodeBench's convention. `input` holds the positional arguments, one JSON value a line; `output` is
one JSON value. The function is a method of a class `Solution`, or a plain function. `assert` is Archer's convention:
Python source that raises if the program is wrong. Optional in each: `time_limit` (seconds a test) and `memory_mb`.
"""

from __future__ import annotations

import ast
import base64
import gzip
import json
import pickletools
import zlib
from pathlib import Path

from riskpo_openrlhf.verifiers.code.outputs import read_json

KINDS = ("stdin", "functional", "assert")
MAX_DECODED_BYTES = 1 << 29

# A pickled string and nothing else: these opcodes can neither load a global nor call anything.
_STRING_OPCODES = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_HARMLESS_OPCODES = _STRING_OPCODES | {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}


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
            except (ValueError, RecursionError) as error:
                raise ValueError(f"test {i} of {tests['function']}: not JSON: {error}") from None
    return tests


def _check_check(source: str) -> None:
    """Raise `ValueError` unless the source is Python in which something can fail."""
    try:
        compile(source, "check", "exec")
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"`check` is not Python source: {error}") from None
    tests = [node.test for node in nodes if isinstance(node, ast.Assert)]
    if any(isinstance(test, ast.Tuple) and test.elts for test in tests):
        raise ValueError("`check` asserts a tuple, which is always true: write `assert a, b` without brackets")
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = [getattr(function, "attr", getattr(function, "id", "")) for function in called]
    may_fail = any(name.lower().startswith(("assert", "fail")) or name in ("exit", "_exit") for name in names)
    asserts = any(not (isinstance(test, ast.Constant) and test.value) for test in tests)
    if not (asserts or may_fail or any(isinstance(node, ast.Raise) for node in nodes) or "unittest" in source):
        raise ValueError("`check` asserts nothing, so every program would pass: let it raise if a program is wrong")


def read_tests(gold: str) -> dict:
    """Read the test set that a label names: its JSON text, or the absolute path of a `.json` or `.json.gz` file.

    Raises `OSError` for a file that can't be read, `ValueError` for a bad test set.
    """
    if gold.startswith("/"):
        raw = Path(gold).read_bytes()
        gold = (gzip.decompress(raw) if gold.endswith(".gz") else raw).decode()
    return check_tests(json.loads(gold))


def decode_livecodebench(public: str, private: str, metadata: str) -> dict:
    """Decode the test set of one LiveCodeBench problem, public tests first.

    Args:
        public: `public_test_cases`, a JSON list of `{"input", "output", "testtype"}`.
        private: `private_test_cases`, the same list, or base64 of zlib of a pickle of its JSON text. No unpickler
            reads the pickle, so it can't run code. Unpacked it may have 512 MiB.
        metadata: a JSON object, with `func_name` for a functional problem.

    Raises `ValueError` for anything else.
    """
    if not private.lstrip().startswith("["):
        private = _pickled_string(_inflate(base64.b64decode(private, validate=True)))
    name = json.loads(metadata or "{}").get("func_name")
    return _from_livecodebench(json.loads(public) + json.loads(private), name)


def decode_archer(ground_truth: str) -> dict:
    """Decode the test set of one row of Archer's code data, from the JSON text `reward_model["ground_truth"]`.

    Three shapes: `{"functional": source}`, `{"inputs": [...], "outputs": [...]}`, and a list of LiveCodeBench's tests,
    each with its `metadata`. Raises `ValueError` for anything else.
    """
    truth = json.loads(ground_truth)
    if isinstance(truth, list) and truth:
        return _from_livecodebench(truth, (truth[0].get("metadata") or {}).get("func_name"))
    if isinstance(truth, dict) and isinstance(truth.get("functional"), str):
        return check_tests({"kind": "assert", "check": truth["functional"]})
    if isinstance(truth, dict) and {"inputs", "outputs"} <= truth.keys():
        inputs, outputs = truth["inputs"], truth["outputs"]
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise ValueError("`inputs` and `outputs` must be lists of one length")
        tests = [{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=True)]
        return check_tests({"kind": "stdin", "tests": tests})
    raise ValueError("a ground truth has `functional`, or `inputs` and `outputs`, or is a list of tests")


def _from_livecodebench(cases: list, function: str | None) -> dict:
    kind = "functional" if function else "stdin"
    wrong = {case.get("testtype") for case in cases} - {kind}
    if wrong:
        raise ValueError(f"func_name is {function!r}, so all tests should be {kind!r}; found {wrong}")
    tests = {"kind": kind, "tests": [{"input": case["input"], "output": case["output"]} for case in cases]}
    return check_tests(tests | ({"function": function} if function else {}))


def _inflate(data: bytes) -> bytes:
    """Unpack zlib data of at most `MAX_DECODED_BYTES`. Raises `ValueError`."""
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, MAX_DECODED_BYTES)
    except zlib.error as error:
        raise ValueError(f"private tests are not zlib data: {error}") from None
    if not unpacker.eof:
        raise ValueError(f"private tests are cut off, or have more than {MAX_DECODED_BYTES:,} bytes when unpacked")
    return unpacked


def _pickled_string(data: bytes) -> str:
    """Return the string of a pickle that holds one string and nothing else. Raises `ValueError` for any other."""
    operations = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(data)]
    refused = {name for name, _ in operations} - _HARMLESS_OPCODES
    strings = [argument for name, argument in operations if name in _STRING_OPCODES]
    if refused or len(strings) != 1:
        raise ValueError(f"private tests must be one pickled string; found {len(strings)}, and {sorted(refused)}")
    return strings[0]
