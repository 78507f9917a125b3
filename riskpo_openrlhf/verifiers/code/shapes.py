"""Read public test sets: APPS, TACO, PRIME and verl, LiveCodeBench, MBPP, HumanEval and Archer.

    {"inputs": [...], "outputs": [...], "fn_name": ...}         APPS, TACO, PRIME, verl; also as text in `input_output`
    {"assert_case": ["assert ..."]}, ["assert ..."]             PRIME; MBPP, with imports among the asserts or without
    {"public_test_cases", "private_test_cases", "metadata"}     a row of LiveCodeBench
    [{"input", "output", "testtype", "metadata"}]               its decoded tests
    {"functional": "source of a check"}                         Archer
    {"test": "def check(candidate): ...", "entry_point"}        HumanEval, LeetCodeDataset

`convert` makes each of them what `testcases.check_tests` accepts.
"""

from __future__ import annotations

import base64
import json
import pickletools
import re
import zlib

MAX_BYTES = 1 << 29  # of a test set, when unpacked

# A pickled string and nothing else: these opcodes can neither load a global nor call anything.
_STRING_OPCODES = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_HARMLESS_OPCODES = _STRING_OPCODES | {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}

_LIVECODEBENCH = {"public_test_cases", "private_test_cases"}
_HUMANEVAL = {"test", "entry_point"}
_ASSERT, _STATEMENT = re.compile(r"(?m)^\s*assert\b"), re.compile(r"\s*(?:(?:assert|import|from)\b|$)")


def is_test_set(value) -> bool:
    """Tell whether a JSON value is a test set, in our shape or in a public one."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return all(map(_STATEMENT.match, value)) and any(map(_ASSERT.search, value))
    if isinstance(value, list):
        return all(isinstance(item, dict) and {"input", "output"} <= item.keys() for item in value)
    if not isinstance(value, dict):
        return False
    known = ({"kind", "tests"}, {"kind", "check"}, {"inputs", "outputs"}, _LIVECODEBENCH, _HUMANEVAL)
    alone = ("functional", "assert_case", "input_output")
    return any(fields <= value.keys() for fields in known) or any(field in value for field in alone)


def convert(value):
    """Return a test set in our shape. A value of no public shape is returned unchanged; `check_tests` refuses it.

    Raises `ValueError` for a public shape that holds something else than it should.
    """
    try:
        return _converted(value) if is_test_set(value) else value
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not in the form that its fields promise: {type(error).__name__}: {error}") from None


def _converted(value) -> dict:
    if isinstance(value, list):
        if isinstance(value[0], str):
            return {"kind": "assert", "check": "\n".join(value)}
        metadata = value[0].get("metadata") or {}
        metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
        return _from_cases(value, metadata.get("func_name") or value[0].get("fn_name"))
    if "kind" in value:
        return value
    if _HUMANEVAL <= value.keys():
        return {"kind": "assert", "check": f"{value['test']}\n\ncheck({value['entry_point']})"}
    if value.get("input_output"):
        content = value["input_output"]
        return convert(json.loads(content) if isinstance(content, str) else content)
    if _LIVECODEBENCH <= value.keys():
        return decode_livecodebench(
            value["public_test_cases"] or "[]", value["private_test_cases"] or "[]", value.get("metadata") or "{}"
        )
    if "functional" in value:
        return {"kind": "assert", "check": value["functional"]}
    if value.get("assert_case"):
        return {"kind": "assert", "check": "\n".join(value["assert_case"])}
    return _from_lists(value.get("inputs"), value.get("outputs"), value.get("fn_name"))


def _from_lists(inputs, outputs, function: str | None) -> dict:
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError("`inputs` and `outputs` must be lists of one length")
    if not function:
        tests = [{"input": _text(i), "output": _text(o)} for i, o in zip(inputs, outputs, strict=True)]
        return {"kind": "stdin", "tests": tests}
    tests = [_call(i, o) for i, o in zip(inputs, outputs, strict=True)]
    return {"kind": "functional", "function": function, "tests": tests}


def _text(value) -> str:
    """Return the text of an input or output, which APPS and TACO also give as a list of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"an input or output is {str(value)[:60]!r}; it must be a text, or a list of lines")
    return value


def _call(arguments, result) -> dict:
    """Return the test of a function. Texts hold JSON, one argument a line; APPS has a list of arguments instead.

    APPS wraps a result in a list, and accepts both forms; so does this.
    """
    lines = arguments if isinstance(arguments, str) else "\n".join(map(json.dumps, arguments))
    if isinstance(arguments, str):
        return {"input": lines, "output": result if isinstance(result, str) else json.dumps(result)}
    if isinstance(result, list) and len(result) == 1:
        return {"input": lines, "output": json.dumps(result[0]), "or": json.dumps(result)}
    return {"input": lines, "output": json.dumps(result)}


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
    return _from_cases(json.loads(public) + json.loads(private), name)


def _from_cases(cases: list, function: str | None) -> dict:
    kind = "functional" if function else "stdin"
    wrong = {case.get("testtype", kind) for case in cases} - {kind}
    if wrong:
        raise ValueError(f"func_name is {function!r}, so all tests should be {kind!r}; found {wrong}")
    tests = {"kind": kind, "tests": [{"input": case["input"], "output": case["output"]} for case in cases]}
    return tests | ({"function": function} if function else {})


def _inflate(data: bytes) -> bytes:
    """Unpack zlib data of at most `MAX_BYTES`. Raises `ValueError`."""
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"private tests are not zlib data: {error}") from None
    if not unpacker.eof:
        raise ValueError(f"private tests are cut off, or have more than {MAX_BYTES:,} bytes when unpacked")
    return unpacked


def _pickled_string(data: bytes) -> str:
    """Return the string of a pickle that holds one string and nothing else. Raises `ValueError` for any other."""
    operations = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(data)]
    refused = {name for name, _ in operations} - _HARMLESS_OPCODES
    strings = [argument for name, argument in operations if name in _STRING_OPCODES]
    if refused or len(strings) != 1:
        raise ValueError(f"private tests must be one pickled string; found {len(strings)}, and {sorted(refused)}")
    return strings[0]
