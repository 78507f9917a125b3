"""Test sets of programs: the format, and the encodings of the data sources."""

import base64
import json
import os
import pickle
import zlib

import pytest

from riskpo_openrlhf.verifiers.code import shapes
from riskpo_openrlhf.verifiers.code.shapes import convert, decode_livecodebench
from riskpo_openrlhf.verifiers.code.testcases import check_tests

ADD = {"kind": "stdin", "tests": [{"input": "1 2\n", "output": "3\n"}]}
PAIR = {"kind": "functional", "function": "pair", "tests": [{"input": '[3]\n"a"', "output": '[[3, "a"]]'}]}
LARGEST = {"kind": "assert", "check": "assert Solution().pick(a=[2, 9], k=1) == 9"}

CASES = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]


def packed(value, protocol=4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_livecodebench_tests_are_public_ones_and_private_ones_of_any_pickle_protocol(protocol):
    private = json.dumps([case | {"input": "é" * 300} for case in CASES], ensure_ascii=False)
    for text in (packed(private, protocol), private):
        tests = decode_livecodebench(json.dumps(CASES), text, "{}")
        expected = [{"input": "1 2\n", "output": "3\n"}, {"input": "é" * 300, "output": "3\n"}]
        assert tests == {"kind": "stdin", "tests": expected}


def test_livecodebench_functional_tests_name_their_function():
    cases = [{"input": "[1]\n2", "output": "3", "testtype": "functional"}]
    tests = decode_livecodebench(json.dumps(cases), packed("[]"), '{"func_name": "add"}')
    assert tests == {"kind": "functional", "function": "add", "tests": [{"input": "[1]\n2", "output": "3"}]}


class Runs:
    def __reduce__(self):
        return os.mkdir, ("pickle-was-here",)


@pytest.mark.parametrize("value", [Runs(), [Runs()], os.system, b"[]", 3, ["[]"], ("[]",), None])
def test_a_pickle_of_anything_but_one_string_is_refused_and_runs_nothing(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="one pickled string"):
        decode_livecodebench("[]", packed(value), "{}")
    assert not any(tmp_path.iterdir())


def test_a_zip_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(shapes, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        decode_livecodebench("[]", packed(" " * 2000), "{}")


@pytest.mark.parametrize(
    "private", ["!", "AAAA", packed("[]")[:-8], packed("{"), base64.b64encode(zlib.compress(b"x")).decode()]
)
def test_private_tests_that_can_not_be_read_are_an_error(private):
    with pytest.raises(ValueError):
        check_tests(decode_livecodebench(json.dumps(CASES), private, "{}"))


def test_archers_three_shapes_are_read():
    assert convert({"functional": LARGEST["check"]}) == LARGEST
    stdin = {"kind": "stdin", "tests": [{"input": "1 2\n", "output": "3\n"}]}
    assert convert({"inputs": ["1 2\n"], "outputs": ["3\n"]}) == stdin
    assert convert([CASES[0] | {"metadata": {}}]) == stdin
    case = {"input": "1\n2", "output": "3", "testtype": "functional", "metadata": {"func_name": "add"}}
    assert convert([case])["function"] == "add"


@pytest.mark.parametrize(
    "truth", ["{}", "[]", "3", '{"inputs": ["1"], "outputs": []}', '{"inputs": [1], "outputs": ["1"]}', "{"]
)
def test_an_archer_row_of_another_shape_is_an_error(truth):
    with pytest.raises(ValueError):
        check_tests(convert(json.loads(truth)))


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ([], "kind"),
        ({"kind": "pytest"}, "one of stdin, functional, assert, not 'pytest'"),
        ({"kind": "stdin"}, "has the fields"),
        (ADD | {"timelimit": 3}, "timelimit"),
        (ADD | {"time_limit": 0}, "time_limit 0 is not allowed"),
        (ADD | {"memory_mb": True}, "memory_mb True"),
        (ADD | {"tests": []}, "at least one"),
        (ADD | {"tests": [{"input": "1"}]}, "test 0"),
        (ADD | {"tests": [{"input": 1, "output": "1"}]}, "test 0"),
        (PAIR | {"function": "a.b"}, "'a.b' is not the name"),
        (PAIR | {"tests": [{"input": "1\nx", "output": "1"}]}, "not JSON"),
        ({"kind": "assert", "check": "def"}, "not Python"),
        ({"kind": "assert", "check": None}, "not Python"),
    ],
)
def test_a_bad_test_set_is_refused_with_what_is_wrong(tests, message):
    with pytest.raises(ValueError, match=message):
        check_tests(tests)


def test_limits_of_a_test_set_are_allowed():
    tests = ADD | {"time_limit": 2.5, "memory_mb": 512}
    assert check_tests(tests) is tests
