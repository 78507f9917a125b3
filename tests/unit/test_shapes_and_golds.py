"""Test sets in public shapes, files that a label may name, and what the check says of right answers."""

import gzip
import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.data.golds import label_problems
from riskpo_openrlhf.verifiers.code import shapes, testcases, verify
from riskpo_openrlhf.verifiers.code.testcases import FOLDERS_VARIABLE, read_tests
from riskpo_openrlhf.verifiers.labels import read_label, write_label

# --- shapes ------------------------------------------------------------------------------------------------------

NUMBERS = st.lists(st.tuples(st.integers(-99, 99), st.integers(1, 99)), min_size=1, max_size=3)
ADD = "a, b = map(int, input().split())\nprint(a + b)"
TWO_LINES = "print(int(input()) + int(input()))"
FUNCTION = "class Solution:\n    def add(self, a, b):\n        return a + b"
LIST = "def add(a, b):\n    return [a + b]"


def shaped(kind: str, pairs) -> tuple[object, str]:
    """(the test set of a sum in a public shape, a right program)."""
    sums = [a + b for a, b in pairs]
    case = [
        {"input": f"{a} {b}\n", "output": f"{s}\n", "testtype": "stdin"} for (a, b), s in zip(pairs, sums, strict=True)
    ]
    functional = [
        {"input": f"{a}\n{b}", "output": f"{s}", "testtype": "functional"}
        for (a, b), s in zip(pairs, sums, strict=True)
    ]
    stdin = {"inputs": [f"{a} {b}\n" for a, b in pairs], "outputs": [f"{s}\n" for s in sums]}
    return {
        "apps, stdin": (stdin, ADD),
        "apps, a row": ({"question": "Add.", "input_output": json.dumps(stdin), "difficulty": "easy"}, ADD),
        "taco, lists of lines": ({"inputs": [[f"{a}", f"{b}"] for a, b in pairs], "outputs": [[f"{s}"] for s in sums]}, TWO_LINES),  # noqa: E501
        "apps, a function": ({"fn_name": "add", "inputs": [list(p) for p in pairs], "outputs": [[s] for s in sums]}, FUNCTION),  # noqa: E501
        "apps, a function of a list": ({"fn_name": "add", "inputs": [list(p) for p in pairs], "outputs": [[s] for s in sums]}, LIST),  # noqa: E501
        "apps, plain results": ({"fn_name": "add", "inputs": [list(p) for p in pairs], "outputs": sums}, FUNCTION),
        "prime and verl": ({"fn_name": "add", "inputs": [f"{a}\n{b}" for a, b in pairs], "outputs": [f"{s}" for s in sums]}, FUNCTION),  # noqa: E501
        "no function": (stdin | {"fn_name": None}, ADD),
        "prime, assertions": ({"assert_case": [f"assert add({a}, {b}) == {a + b}" for a, b in pairs]}, LIST.replace("[a + b]", "a + b")),  # noqa: E501
        "mbpp": ([f"assert add({a}, {b}) == {a + b}" for a, b in pairs], LIST.replace("[a + b]", "a + b")),
        "mbpp, with imports": (["import math", *(f"assert(add({a}, {b}) == math.ceil({a + b}))" for a, b in pairs)], LIST.replace("[a + b]", "a + b")),  # noqa: E501
        "livecodebench, decoded": (case, ADD),
        "livecodebench, a function": ([c | {"metadata": {"func_name": "add"}} for c in functional], FUNCTION),
        "livecodebench, a row": ({"public_test_cases": json.dumps(case), "private_test_cases": "[]", "metadata": "{}"}, ADD),  # noqa: E501
        "livecodebench, a row of a function": (
            {"public_test_cases": json.dumps(functional), "private_test_cases": json.dumps(functional),
             "metadata": '{"func_name": "add"}'}, FUNCTION),
        "livecodebench, metadata as text": ([c | {"metadata": '{"func_name": "add"}'} for c in functional], FUNCTION),
        "prime, calls": ([c | {"testtype": "functional", "fn_name": "add"} for c in functional], FUNCTION),
        "humaneval": ({"entry_point": "add", "test": "def check(candidate):\n" + "\n".join(
            f"    assert candidate({a}, {b}) == {a + b}" for a, b in pairs)}, LIST.replace("[a + b]", "a + b")),
        "leetcode": ({"entry_point": "Solution().add", "input_output": [], "test": "def check(candidate):\n" + "\n".join(  # noqa: E501
            f"    assert candidate(a={a}, b={b}) == {a + b}" for a, b in pairs)}, FUNCTION),
        "archer": ({"functional": "\n".join(f"assert Solution().add({a}, {b}) == {a + b}" for a, b in pairs)}, FUNCTION),  # noqa: E501
    }[kind]  # fmt: skip


SHAPES = ["apps, stdin", "apps, a row", "taco, lists of lines", "apps, a function", "apps, a function of a list",
          "apps, plain results", "prime and verl", "no function", "prime, assertions", "mbpp", "mbpp, with imports", "livecodebench, decoded",  # noqa: E501
          "livecodebench, a function", "livecodebench, a row", "livecodebench, a row of a function", "archer",
          "livecodebench, metadata as text", "prime, calls", "humaneval", "leetcode"]  # fmt: skip


@pytest.mark.parametrize("kind", SHAPES)
@settings(max_examples=3, deadline=None)
@given(pairs=NUMBERS)
def test_a_public_shape_is_read_as_it_is(kind, pairs):
    tests, program = shaped(kind, pairs)
    label = json.dumps(tests)
    assert read_label(label) == ("code", label)
    assert read_label(write_label("code", label)) == ("code", label)
    assert verify(f"```python\n{program}\n```", label).correct
    assert not verify(f"```python\n{program.replace('+', '-')}\nprint(1.5)\n```", label).correct


@pytest.mark.parametrize(
    "tests",
    [
        {"inputs": ["1"], "outputs": []},
        {"inputs": "1", "outputs": "1"},
        {"inputs": [{"a": 1}], "outputs": ["1"]},
        {"inputs": [], "outputs": []},
        {"inputs": ["x"], "outputs": ["1"], "fn_name": "f"},
        {"input_output": ""},
        {"assert_case": ["print(1)"]},
        [{"input": "1", "output": "1", "testtype": "functional"}],
        [{"input": "1", "output": "1", "metadata": [1]}],
        {"assert_case": [1]},
        {"test": 1, "entry_point": None},
        {"public_test_cases": [{"input": "1", "output": "1"}], "private_test_cases": "[]", "metadata": "{}"},
    ],
)
def test_a_public_shape_with_something_else_in_it_is_an_error(tests):
    with pytest.raises(ValueError):
        read_tests(json.dumps(tests))
    assert verify("```python\npass\n```", json.dumps(tests)).status == "error"


# --- files -------------------------------------------------------------------------------------------------------


def test_a_label_names_regular_files_of_tests_only_and_nothing_is_read_of_others(tmp_path, monkeypatch):
    content = json.dumps({"kind": "stdin", "tests": [{"input": "", "output": "1"}]})
    good, packed = tmp_path / "a.json", tmp_path / "a.json.gz"
    good.write_text(content)
    packed.write_bytes(gzip.compress(content.encode()))
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "text.txt").write_text(content)
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b" " * 300_000))
    assert read_tests(str(good)) == read_tests(str(packed)) == json.loads(content)
    monkeypatch.setattr(testcases, "MAX_BYTES", 100_000)
    refused = ["/dev/zero", "/dev/stdin", "/etc/passwd", "/proc/self/environ", *map(str, (
        tmp_path / "pipe.json", tmp_path / "zero.json", tmp_path / "folder.json", tmp_path / "text.txt", bomb))]  # fmt: skip  # noqa: E501
    begin = time.monotonic()
    for name in refused:
        with pytest.raises((ValueError, OSError)) as error:
            read_tests(name)
        assert "root:" not in str(error.value)
        assert verify("```python\nprint(1)\n```", name).status == "error"
    assert time.monotonic() - begin < 5
    with pytest.raises(ValueError, match="no regular file"):
        read_tests(str(tmp_path / "pipe.json"))


def test_a_folder_can_be_named_below_which_files_of_tests_must_be(tmp_path, monkeypatch):
    content = json.dumps({"kind": "stdin", "tests": [{"input": "", "output": "1"}]})
    (tmp_path / "data").mkdir()
    for name in ("data/a.json", "b.json"):
        (tmp_path / name).write_text(content)
    (tmp_path / "data" / "link.json").symlink_to(tmp_path / "b.json")
    monkeypatch.setenv(FOLDERS_VARIABLE, f"{tmp_path}/data")
    assert read_tests(f"{tmp_path}/data/a.json")
    for name in ("b.json", "data/../b.json", "data/link.json"):
        with pytest.raises(ValueError, match="not below RISKPO_CODE_TESTS"):
            read_tests(f"{tmp_path}/{name}")


# --- golds -------------------------------------------------------------------------------------------------------


def levels(label) -> list[str]:
    return [level for level, _, _ in label_problems(label)]


@settings(max_examples=30, deadline=None)
@given(st.one_of(st.integers(-999, 9999).map(str), st.builds(lambda a, b: f"\\frac{{{a}}}{{{b}}}", st.integers(1, 99), st.integers(2, 99)),  # noqa: E501
                 st.sampled_from(["3\\sqrt{2}", "x^2+1", "(1, 2)", "[0, \\infty)", "0.25", "\\text{Monday}", "A", "x=3", "50\\%"])))  # fmt: skip  # noqa: E501
def test_a_right_answer_in_usual_notation_gets_no_complaint(gold):
    assert levels(gold) == levels(write_label("math", gold)) == []


SOLUTION = "First we add the two numbers that the problem gives, then we double what we have, and so the total of all the apples in both of the baskets must be equal to "  # noqa: E501


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 999), st.sampled_from(["#### {}", "so #### {}", "\\boxed{{{}}}", "Thus $\\boxed{{{}}}$.", "Answer: {}",  # noqa: E501
       "The answer is {}", '{{"ground_truth": "{}"}}', '{{"style": "rule", "answer": {}}}', '["{}"]', '{{"verifier": "math", "gold": "{}", "x": 1}}',  # noqa: E501
       "\\frac{{{}}}{{", SOLUTION + "{}."]))  # fmt: skip
def test_a_solution_another_frameworks_json_and_what_can_not_be_read_are_reported(number, form):
    assert levels(form.format(number)), form


def test_words_after_a_number_that_are_not_compared_are_reported():
    (problem,) = label_problems("12 apples")
    assert problem[0] == "warning" and "only the number" in problem[1]


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("assert f(1) == 2", None),
        ("pass", "asserts nothing"),
        ("import nowhere\nassert f(1) == 2", "No module named 'nowhere'"),
        ("try:\n    f(1)\nexcept Exception:\n    pass\nelse:\n    raise ValueError", "without a call"),
        ("def test():\n    assert f(1) == 2", "without a call"),
        ("assert is_same_list(f([1]), [1])", "is_same_list, which it does not define"),
        ("def is_same_list(a, b): return a == b\nassert is_same_list(f([1]), [1])", None),
    ],
)
def test_a_check_that_can_not_judge_is_reported(check, says):
    found = list(label_problems(write_label("code", json.dumps({"kind": "assert", "check": check}))))
    assert (found == []) is (says is None)
    assert says is None or says in found[0][1]


def test_a_missing_file_of_tests_is_reported(tmp_path):
    ((level, what, _),) = label_problems(write_label("code", str(tmp_path / "no.json")))
    assert level == "error" and "not there" in what


def test_every_shape_that_is_listed_is_one():
    assert all(shapes.is_test_set(shaped(kind, [(1, 2)])[0]) for kind in SHAPES)
    assert not any(map(shapes.is_test_set, [None, 3, "x", [], {}, [1, 2], ["a"], {"inputs": 1}, {"kind": "x"}]))
