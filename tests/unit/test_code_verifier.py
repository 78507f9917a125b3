"""The code verifier: right and wrong programs, cheats, the program in the response, the comparison of outputs."""

import asyncio
import gzip
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest

from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.code import sandbox, verify
from riskpo_openrlhf.verifiers.code.extract import extract_programs
from riskpo_openrlhf.verifiers.code.outputs import same_output, same_result

ADD = {"kind": "stdin", "tests": [{"input": f"{i} 2\n", "output": f"{i + 2}\n"} for i in range(3)]}
PAIR = {
    "kind": "functional",
    "function": "pair",
    "tests": [{"input": '[3, 1]\n"a"', "output": '[[1, "a"], [3, "a"]]'}, {"input": '[]\n"b"', "output": "[]"}],
}
LARGEST = {
    "kind": "assert",
    "check": """
def check(candidate):
    assert candidate(a=[2, 9], k=1) == 9
    assert candidate(a=[5], k=1) == 5

check(Solution().pick)""",
}


KINDS = {"stdin": ADD, "functional": PAIR, "assert": LARGEST}


pytestmark = pytest.mark.usefixtures("working_sandbox")


def graded(program: str, tests: dict, **limits):
    return verify(f"So it is:\n```python\n{program}\n```\n", json.dumps(tests | limits))


def outcome(program: str, tests: dict, **limits) -> tuple[bool, str]:
    verdict = graded(program, tests, **limits)
    return verdict.correct, verdict.status


def outcomes(programs: dict[str, str], **limits) -> dict[tuple[str, str], tuple[bool, str]]:
    """The outcome of each program on each kind of tests, several at once: most of them only wait or start."""
    with ThreadPoolExecutor(8) as threads:
        keys = list(product(programs, KINDS))
        found = threads.map(lambda key: outcome(programs[key[0]], KINDS[key[1]], **limits), keys)
        return dict(zip(keys, found, strict=True))


RIGHT, WRONG = (True, "ok"), (False, "ok")

# --- right and wrong programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", ADD),
        ("print(sum(map(int, open(0).read().split())), end='')", ADD),
        ("def main():\n    print(sum(map(int, stdin())))\nstdin = lambda: sys.stdin.read().split()\n"
         "if __name__ == '__main__':\n    main()", ADD),
        ("print(sum(map(int, input().split())) + 0.0)\nexit(1)", ADD),
        ("import threading\nthreading.Thread(target=lambda: print(sum(map(int, input().split())))).start()", ADD),
        ("__builtins__.print(sum(map(int, getattr(__builtins__, 'input')().split())))", ADD),
        ("class Solution:\n  def __init__(self):\n    self.pair = lambda xs, s: [[x, s] for x in sorted(xs)]", PAIR),
        ("class Solution: pass\ndef pair(xs, s):\n    return [[x, s] for x in sorted(xs)]", PAIR),
        ("class Solution:\n  def pair(self, xs: List[int], s: str):\n    return [(x, s) for x in sorted(xs)]", PAIR),
        ("def pair(xs, s):\n    print('debugging')\n    return [[x, s] for x in sorted(xs)]", PAIR),
        ("class Solution:\n  def pick(self, a: List[int], k: int) -> int:\n    return nlargest(k, a)[-1]", LARGEST),
        ("def pick(a, k):\n  return sorted(a)[-k]", LARGEST | {"check": LARGEST["check"].replace("Solution().", "")}),
    ],
)  # fmt: skip
def test_a_right_program_is_right(program, tests):
    assert outcome(program, tests) == RIGHT


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("print(2)", ADD),
        ("a, b = map(int, input().split())\nprint(a + b, 'is the sum')", ADD),
        ("print(sum(map(int, input().split())))\nraise ValueError", ADD),
        ("print(sum(map(int, input().split())))\nprint()\nprint('x')", ADD),
        ("", ADD | {"tests": [{"input": "", "output": "1"}]}),
        ("def pair(xs, s):\n    return [[x, s] for x in xs]", PAIR),
        ("def other(xs, s):\n    return []", PAIR),
        ("def pair(xs):\n    return []", PAIR),
        ("class Solution:\n    def pick(self, a, k):\n        return 9", LARGEST),
        ("class Solution:\n    def pick(self, a, k):\n        raise AssertionError", LARGEST),
        ("def pick(a, k):\n    return sorted(a)[-k]", LARGEST),
    ],
)
def test_a_wrong_program_is_wrong(program, tests):
    assert outcome(program or "pass", tests) == WRONG


def test_all_tests_must_pass_and_the_first_failure_ends_the_run():
    tests = {"kind": "stdin", "tests": [{"input": "", "output": "2"}] * 500}
    assert outcome("print(1)", tests) == WRONG  # 500 runs would take seconds
    assert (
        outcome("print(input())", {"kind": "stdin", "tests": [{"input": str(i), "output": "1"} for i in (1, 2)]})
        == WRONG
    )


@pytest.mark.parametrize("kind", ["stdin", "functional"])
def test_a_test_may_have_another_right_output(kind):
    tests = {"kind": kind, "tests": [{"input": "", "output": "1", "or": "2"}]}
    tests |= {"function": "f"} if kind == "functional" else {}
    for value, expected in ((1, RIGHT), (2, RIGHT), (3, WRONG)):
        assert outcome(f"def f(): return {value}\nprint({value})", tests) == expected


def test_the_program_is_in_the_verdict():
    assert graded("print( 1 )", ADD).extracted == "print( 1 )\n"


@pytest.mark.parametrize(
    "program", ["print(", "def f(:\n  pass", "x = 1\n y = 2", "x = '\0'", "(" * 5000 + ")" * 5000]
)
def test_what_is_not_python_is_unparsable(program):
    assert outcome(program, ADD) == (False, "unparsable")


WITHOUT_BOUNDS = {
    "endless": "while True: pass",
    "asleep": "import time; time.sleep(60)",
    "memory": "x = [bytearray(b'x') * (1 << 20) for _ in range(2000)]",
    "crash": "import ctypes; ctypes.string_at(0)",
    "output": "for _ in range(10000): print('x' * (1 << 18))",
}


@pytest.fixture(scope="module")
def outcomes_without_bounds():
    slots = threading.BoundedSemaphore(8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RISKPO_CODE_WALL_SECONDS", "2")
        patch.setattr(sandbox, "_make_slots", lambda: slots)
        return outcomes(WITHOUT_BOUNDS, time_limit=1, memory_mb=200)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WITHOUT_BOUNDS)
def test_a_program_without_bounds_is_wrong(name, kind, outcomes_without_bounds):
    assert outcomes_without_bounds[name, kind] == WRONG


def test_a_test_set_that_takes_longer_than_the_wall_limit_is_wrong(monkeypatch):
    monkeypatch.setenv("RISKPO_CODE_WALL_SECONDS", "0.5")
    program = "import time\ntime.sleep(0.1)\nprint(1)\n"
    verdict = graded(program, {"kind": "stdin", "tests": [{"input": "", "output": "1"}] * 50})
    assert verdict == Verdict(False, "ok", program + "\n")
    assert outcome(program, {"kind": "stdin", "tests": [{"input": "", "output": "1"}]}) == RIGHT


@pytest.mark.parametrize("variable", ["RISKPO_CODE_WALL_SECONDS", "RISKPO_CODE_SANDBOXES"])
def test_an_environment_variable_that_makes_no_sense_is_named(variable, monkeypatch):
    sandbox._make_slots.cache_clear()
    monkeypatch.setenv(variable, "-1")
    with pytest.raises(ValueError, match=f"{variable}='-1' is not allowed: .* above 0"):
        graded("print(1)", ADD)


@pytest.mark.parametrize(("engines", "programs"), [(None, 8), ("1", 8), ("3", 2), ("9", 1)])
def test_the_engines_of_a_node_share_its_cores(engines, programs, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(8))
    monkeypatch.delenv("RISKPO_CODE_SANDBOXES", raising=False)
    if engines:
        monkeypatch.setenv("RISKPO_CODE_ENGINES", engines)
    assert sandbox._make_slots.__wrapped__()._initial_value == programs


# --- cheating ----------------------------------------------------------------------------------------------------


def answering(value: str) -> str:
    """The functions that the tests call, with this expression or statement for their result."""
    line = value if value.startswith("raise") else f"return {value}"
    return f"\nclass Solution:\n    def pick(self, *_, **__): {line}\n    def pair(self, *_, **__): {line}\n"


def equal_to_all(base: str) -> str:
    return f"class Always({base}):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\n"


CHEATS = {
    "leaves at once": "import os\nprint('passed')\nos._exit(0)",
    "exits": "import sys\nprint('All tests passed!')\nsys.exit(0)",
    "exits when it is over": "import atexit, os\natexit.register(os._exit, 0)" + answering("None"),
    "leaves within the call": "import os" + answering("os._exit(0)"),
    "exits within the call": answering("raise SystemExit(0)"),
    "equals everything": equal_to_all("object") + answering("Always()"),
    "a list that equals everything": equal_to_all("list") + answering("Always()"),
    "an int that equals everything": equal_to_all("int") + answering("Always()"),
    "defines the check": "def check(candidate): pass" + answering("1"),
    "patches json": """
import json
json.dumps = lambda *a, **k: 'true'
json.loads = lambda *a, **k: True
"""
    + answering("1"),
    "patches builtins": """
import builtins
builtins.AssertionError = Exception
builtins.all = lambda x: True
builtins.exec = builtins.compile = lambda *a, **k: None
"""
    + answering("1"),
    "patches its judge": """
import sys
for module in list(sys.modules.values()):
    for name in ('check', 'plain', 'encode', 'decode', 'main', 'system'):
        if hasattr(module, name):
            setattr(module, name, lambda *a, **k: True)
"""
    + answering("1"),
    "writes the verdict": """
import os
for file in range(3, 64):
    for text in (b'{"value": 9}\\n{"value": 5}\\n', b'true\\n', b'{"code": 0}\\n'):
        try:
            os.write(file, text)
        except OSError:
            pass
os._exit(0)
""",
    "looks for the tests": """
import gc, sys
needle = 'etadidnac tressa'  # backwards, not to find itself
def texts(x):
    if isinstance(x, str): yield x
    elif isinstance(x, (list, tuple)): yield from (y for y in x if isinstance(y, str))
    elif isinstance(x, dict): yield from (y for y in x.values() if isinstance(y, str))
held = gc.get_objects() + [x for o in gc.get_objects() if isinstance(o, dict) for x in list(o.values())]
frame = sys._getframe()
while frame:
    held += frame.f_locals.values()
    frame = frame.f_back
found = any(''.join(reversed(needle)) in text for o in held for text in texts(o))
class Solution:
    def pick(self, a, k): return max(a) if found else None
""",
}


@pytest.fixture(scope="module")
def outcomes_of_cheats():
    return outcomes(CHEATS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHEATS)
def test_a_program_that_cheats_is_wrong(name, kind, outcomes_of_cheats):
    assert outcomes_of_cheats[name, kind] == WRONG


def test_a_check_sees_plain_values_with_their_types_and_calls_objects_of_the_program():
    program = """
class Counter:
    def __init__(self, start): self.n = start
    def add(self, k): self.n += k; return self.n
def pair(): return (1, {2: {3, None}}, [1.5, "é", True])
def shown(counter): return counter.n
def fails(): raise KeyError("x")
"""
    check = """
counter = Box(3)
assert counter.add(4) == 7 and counter.add(k=1) == 8 and Box(0).add(1) == 1
assert pair() == (1, {2: {3, None}}, [1.5, "é", True]) and pair() != [1, {2: {3, None}}, [1.5, "é", True]]
assert shown(counter) == 8
try:
    fails()
except KeyError:
    pass
else:
    raise AssertionError
assert isclose(1.0, 1.0)
"""
    tests = {"kind": "assert", "check": check}
    assert outcome(program.replace("class Counter", "class Box"), tests) == RIGHT
    assert outcome(program.replace("class Counter", "class Box").replace("+= k", "+= k + 1"), tests) == WRONG


def test_a_program_can_not_replace_the_tools_of_a_check():
    tests = {"kind": "assert", "check": "assert abs(half(3) - 1.5) < 1e-6 and isclose(half(5), 2.5)"}
    assert outcome("def half(n): return n / 2", tests) == RIGHT
    assert outcome("def half(n): return 0\ndef abs(x): return 0\ndef isclose(a, b): return True", tests) == WRONG


# --- how it is called --------------------------------------------------------------------------------------------


def test_verdicts_come_from_many_threads_at_once():
    async def many():
        response = "```python\nprint(sum(map(int, input().split())))\n```"
        wrong = "```python\nprint(0)\n```"
        calls = [asyncio.to_thread(verify, r, json.dumps(ADD)) for r in (response, wrong) * 4]
        return await asyncio.gather(*calls)

    assert [v.correct for v in asyncio.run(many())] == [True, False] * 4


@pytest.mark.parametrize("name", ["tests.json", "tests.json.gz"])
def test_the_test_set_may_be_a_file(tmp_path, name):
    text = json.dumps(ADD).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    response = "```python\nprint(sum(map(int, input().split())))\n```"
    assert verify(response, str(tmp_path / name)).correct


@pytest.mark.parametrize("gold", ["/nowhere/tests.json", "{", "{}", '{"kind": "stdin", "tests": []}', "[" * 100000])
def test_a_test_set_that_can_not_be_read_gives_no_verdict(gold):
    assert verify("```python\nprint(1)\n```", gold).status == "error"


def test_a_sandbox_that_fails_gives_no_verdict(monkeypatch):
    monkeypatch.setattr(sandbox, "_visible", lambda: [("/nowhere", "/nowhere")])
    assert outcome("print(1)", ADD) == (False, "error")


def test_a_machine_without_sandbox_is_an_error_that_stops_the_job(monkeypatch):
    sandbox._working_mode.cache_clear()
    monkeypatch.setattr(sandbox, "holes", lambda: ["why"])
    with pytest.raises(sandbox.SandboxError, match="why"):
        graded("print(1)", ADD)


# --- the answer in the response ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\na\n```", "a\n"),
        ("```py\na\n```", "a\n"),
        ("```Python3\na\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("``` python \r\na\n```", "a\n"),
        ("```python\na\n```\nthen\n```python\nb\n```", "b\n"),
        ("```python\na\n```\nprints\n```text\n1\n```", "a\n"),
        ("```python\na\n```\nin C:\n```cpp\nint x;\n```\nDone.", "a\n"),
        ("<think>```python\na\n```</think>\n```python\nb\n```", "b\n"),
        ("```python\na\n```</think>\nthe end\n```python\nb\n```", "b\n"),
        ("1. So:\n   ```python\n   if a:\n       b\n   ```", "if a:\n    b\n"),
        ("<think>```python\na\n```", None),
        ("<think>a</think><think>```python\na\n```", None),
        ("<think>```python\na\n```</think> It is a.", None),
        ("```python\na", None),
        ("print(1)", None),
        ("```cpp\nint x;\n```", None),
        ("```python\n```", None),
        ("", None),
    ],
)
def test_the_program_is_the_last_python_block_after_the_thinking(response, program):
    assert extract_programs(response)[:1] == [program] * (program is not None)
    if program is None:
        assert verify(response, json.dumps(ADD)).status == "no_answer"


# --- comparison --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("3\n", "3", True),
        ("\n 3  \n\n", "3", True),
        ("1 2\n3", "1 2\n3\n", True),
        ("1  2", "1 2", True),
        ("1 2 \r\n3", "1 2\n3", True),
        ("1.0", "1", True),
        ("1e3 -0", "1000 0", True),
        ("0.10001", "0.1", False),
        ("50000000000000001", "50000000000000000", False),
        ("a  b", "a b", False),
        ("Yes", "YES", False),
        ("1\n2", "1 2", False),
        ("1 2 3", "1 2", False),
        ("1\n\n2", "1\n2", False),
        ("", "", True),
        ("", "0", False),
        ("nan", "1", False),
        ("sNaN", "1", False),
        ("1e999999999", "1", False),
    ],
)
def test_outputs_are_compared_line_by_line_and_numbers_as_decimals(output, expected, same):
    assert same_output(output, expected) is same


@pytest.mark.parametrize(
    ("result", "expected", "same"),
    [
        ("[1, 2]", "[1,2]", True),
        ("1.0", "1", True),
        ("true", "1", True),
        ("0.30000000000000004", "0.3", True),
        ("0.3001", "0.3", False),
        ('{"a": [1]}', '{"a": [1]}', True),
        ("null", "null", True),
        ("NaN", "NaN", False),
        ("", "null", False),
        ("\ufffd", "null", False),
        ("[" * 1000, "[]", False),
        ("1" + "0" * 5000, "1", False),
    ],
)
def test_results_are_compared_as_values(result, expected, same):
    assert same_result(result, expected) is same
