"""Checks that a program passes although it is wrong: a check passes if it ran to its end and its assertions held."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.verifiers.code import verify
from riskpo_openrlhf.verifiers.code.testcases import check_tests

pytestmark = pytest.mark.usefixtures("working_sandbox")


RIGHT = "def f(x):\n    return x + 1\n"
WRONG = {
    "another number": "def f(x):\n    return x + 2\n",
    "wrong for one input": "def f(x):\n    return x + (x != 2)\n",
    "nothing": "def f(x):\n    pass\n",
    **{
        f"raises {name}": f"def f(x):\n    raise {name}\n"
        for name in ("StopIteration", "StopAsyncIteration", "AssertionError", "KeyboardInterrupt", "SystemExit",
                     "GeneratorExit", "Exception", "IndexError", "AttributeError", "BaseException")
    },
    "an error by the name of StopIteration": "class StopIteration(Exception): pass\ndef f(x):\n    raise StopIteration\n",  # noqa: E501
    "leaves": "import os\ndef f(x):\n    os._exit(0)\n",
    "leaves at its import": "import os\nos._exit(0)\n",
    "no function": "x = 1\n",
    "forges an error": "import os\ndef f(x):\n    os.write(3, b'{\"error\": 5}\\n')\n    return x + 2\n",
    "forges a type": "import os\ndef f(x):\n    os.write(3, b'{\"value\": {\"type\": \"zzz\"}}\\n')\n    return x + 2\n",  # noqa: E501
    "patches assertions": "import builtins, unittest\nbuiltins.AssertionError = SystemExit\n"
    "unittest.TestCase.assertEqual = lambda *a: None\ndef f(x):\n    return x + 2\n",
    "writes the report": "import os\nfor file in range(3, 64):\n    try: os.write(file, b'{\"value\": 2}\\n{\"value\": 3}\\n' * 9)\n"  # noqa: E501
    "    except OSError: pass\nos._exit(0)\n",
}  # fmt: skip

# Each tests f(1) == 2 and f(2) == 3.
CASES = "[(1, 2), (2, 3)]"
BODIES = {
    "assertions": "assert f(1) == 2\nassert f(2) == 3, f'{f(2)} is not 3'",
    "all of a map": f"assert all(map(lambda t: f(t[0]) == t[1], {CASES}))",
    "all of a generator": f"assert all(f(a) == b for a, b in {CASES})",
    "a list": "assert [f(x) for x in (1, 2)] == [2, 3]",
    "a list of a map": "assert list(map(f, [1, 2])) == [2, 3]",
    "a zip of a map": "assert [a == b for a, b in zip(map(f, [1, 2]), [2, 3], strict=True)] == [True] * 2",
    "a loop": f"for a, b in {CASES}:\n    assert f(a) == b",
    "a loop over a map": f"n = 0\nfor got, (a, b) in zip(map(f, [1, 2]), {CASES}):\n    assert got == b\n    n += 1\nassert n == 2",  # noqa: E501
    "errors that are caught": f"for a, b in {CASES}:\n    try:\n        assert f(a) == b\n    except Exception as e:\n        print(e)",  # noqa: E501
    "all errors caught": f"try:\n    for a, b in {CASES}:\n        assert f(a) == b\nexcept BaseException:\n    pass",
    "a message that leaves": "import sys\nassert f(1) == 2, sys.exit(0)\nassert f(2) == 3, exit()",
    "a message that ends the process": "import os\nassert f(1) == 2, os._exit(0)\nassert f(2) == 3, os._exit(0)",
    "an exit after a failure": f"import sys\ntry:\n    for a, b in {CASES}:\n        assert f(a) == b\n"
    "except AssertionError:\n    sys.exit(0)",
    "a thread": f"import threading\ndef work():\n    for a, b in {CASES}:\n        assert f(a) == b\n"
    "threading.Thread(target=work).start()",
    "raises": f"for a, b in {CASES}:\n    if f(a) != b:\n        raise ValueError(a)",
    "a failing exit": f"import sys\nfor a, b in {CASES}:\n    if f(a) != b:\n        sys.exit('wrong')",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(1), 2)\n"  # noqa: E501
    "    def test_more(self):\n        self.assertEqual(f(2), 3)\nunittest.main()",
    "unittest below a guard": "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        for a, b in "
    f"{CASES}:\n            with self.subTest(a):\n                self.assertEqual(f(a), b)\n"
    "if __name__ == '__main__':\n    unittest.main(verbosity=2)",
    "unittest whose result is ignored": "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
    f"        for a, b in {CASES}:\n            self.assertEqual(f(a), b)\nunittest.main(exit=False)",
    "a runner whose result is ignored": "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
    f"        for a, b in {CASES}:\n            self.assertEqual(f(a), b)\n"
    "unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T))",
}
ENDINGS = {
    "": "",
    "exit": "\nimport sys\nsys.exit(0)",
    "leave": "\nimport os\nos._exit(0)",
    "raise": "\nraise SystemExit",
    "print": "\nprint('All tests passed')",
}
EARLY = ("import sys\nsys.exit(0)\n", "import os\nos._exit(0)\n", "raise SystemExit\n", "exit()\n", "quit(0)\n")


def graded(program: str, check: str):
    return verify(f"```python\n{program}```", json.dumps({"kind": "assert", "check": check}))


def together(calls):
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda call: graded(*call), calls))


@pytest.mark.parametrize("body", BODIES)
def test_every_form_of_check_passes_the_right_program_and_no_wrong_one(body):
    right, *wrong = together((program, BODIES[body]) for program in (RIGHT, *WRONG.values()))
    assert (right.correct, right.status) == (True, "ok")
    assert [name for name, verdict in zip(WRONG, wrong, strict=True) if verdict.correct] == []
    assert {verdict.status for verdict in wrong} == {"ok"}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(BODIES)), st.sampled_from(sorted(ENDINGS)), st.sampled_from(sorted(WRONG)))
def test_a_check_may_leave_at_its_end_and_still_judges(body, ending, wrong):
    check = BODIES[body] + ENDINGS[ending]
    if body.startswith("unittest") and "exit=False" not in check:
        check = BODIES[body]  # it leaves by itself
    assert graded(RIGHT, check).correct
    assert not graded(WRONG[wrong], check).correct


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(BODIES)), st.sampled_from(EARLY), st.integers(0, 1))
def test_a_check_that_leaves_before_its_end_passes_nothing(body, early, calls):
    check = "f(1)\n" * calls + early + BODIES[body]
    verdict = graded(RIGHT, check)
    assert not verdict.correct and verdict.status == ("ok" if calls else "error")


@pytest.mark.parametrize(
    "check", ["", "pass", "# nothing", "f(1)", "def check(c):\n    c(1)\ncheck(f)", "print(f(1) == 2)", "f(1) == 2",
              "assert True", "f(1)\nassert 'yes'", "assert (f(1) == 2, 'wrong')", "import doctest\ndoctest.testmod()"]
)  # fmt: skip
def test_a_check_that_asserts_nothing_is_refused(check):
    with pytest.raises(ValueError, match="asserts nothing|always true"):
        check_tests({"kind": "assert", "check": check})
    assert graded(RIGHT, check).status == "error"


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ("def test():\n    assert f(1) == 2", "it ended without a call"),
        ("import a_package_that_is_not_there\nassert f(1) == 2", "ModuleNotFoundError"),
        ("assert ''.undefined == f(1)", "AttributeError"),
        ("import unittest\nclass T(unittest.TestCase):\n    pass\nunittest.main()", "it ended without a call"),
    ],
)
def test_a_check_that_never_calls_the_program_gives_no_verdict_and_says_why(check, why):
    verdict = graded(RIGHT, check)
    assert (verdict.correct, verdict.status) == (False, "error") and why in verdict.extracted


def test_an_assertion_that_no_input_reaches_does_not_count_as_held():
    check = "for x in g(3):\n    assert x < 3"
    assert graded("def g(n): return range(n)\n", check).correct
    assert not graded("def g(n): return []\n", check).correct
    assert not graded("def g(n):\n    return iter(())\n", check).correct


VALUES = {
    "Counter('aab')": "{'a': 2, 'b': 1}",
    "Counter([1, 1])": "Counter([1, 1])",
    "OrderedDict(a=1)": "{'a': 1}",
    "defaultdict(list, {1: [2]})": "{1: [2]}",
    "deque([1, 2])": "deque([1, 2])",
    "b'ab'": "b'ab'",
    "bytearray(b'ab')": "b'ab'",
    "range(3)": "range(3)",
    "{1: {2, 3}}": "{1: {3, 2}}",
    "1 + 2j": "1 + 2j",
    "10 ** 5000": "10 ** 5000",
    "__import__('fractions').Fraction(1, 3)": "__import__('fractions').Fraction(2, 6)",
}


@pytest.mark.parametrize("value", VALUES)
def test_a_check_sees_values_of_the_standard_library(value):
    good, bad = f"def f():\n    return {value}\n", "def f():\n    return None\n"
    check = f"assert f() == {VALUES[value]}"
    assert graded(good, check).correct and not graded(bad, check).correct


ITERATORS = ["(i * i for i in range(n))", "map(lambda i: i * i, range(n))", "iter([i * i for i in range(n)])",
             "(a * b for a, b in zip(range(n), range(n)))", "takewhile(lambda x: x < n * n - n, (i * i for i in count()))"]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("made", ITERATORS)
def test_a_check_reads_iterators_item_by_item(made):
    right, short = f"def f(n):\n    return {made}\n", "def f(n):\n    return iter([0, 1])\n"
    for check in ("assert list(f(4)) == [0, 1, 4, 9]", "it = f(4)\nassert [next(it) for _ in range(4)] == [0, 1, 4, 9]",  # noqa: E501
                  "assert sorted(f(4)) == [0, 1, 4, 9]"):  # fmt: skip
        assert graded(right, check).correct, check
        assert not graded(short, check).correct, check


def test_an_endless_iterator_is_read_as_far_as_the_check_wants():
    check = "assert list(islice(f(), 3)) == [1, 2, 4]"
    assert graded("def f():\n    n = 1\n    while True:\n        yield n\n        n *= 2\n", check).correct


@pytest.mark.parametrize("name", ["gcd", "add", "count", "search", "median", "pow", "copy", "f",
                                  "Counter", "deepcopy", "merge", "digits"])  # fmt: skip
def test_a_check_calls_the_function_of_the_program_although_a_standard_module_has_one_of_its_name(name):
    check = f"assert {name}(1, 2) == 'one of its own'"
    right = f"def {name}(a, b):\n    return 'one of its own'\n"
    if name == "pow":  # a builtin stays the builtin
        check, right = "assert pow(g(), 2) == 9", "def g():\n    return 3\n"
    other = "def other(a, b):\n    return 'one of its own'\n"
    both = f"{check}\nassert other(1, 2) == 'one of its own'"
    assert graded(right, check).correct and graded(right + other, both).correct or name in ("Counter", "deepcopy")
    assert not graded(other, check).correct and not graded(other, both).correct


IN_PLACE = {  # an argument, what the function does to it, what it is then
    "list": ("[3, 1, 2]", "a.sort()", "[1, 2, 3]"),
    "list of lists": ("[[1], [2]]", "a.reverse(); a[0][0] = 9", "[[9], [1]]"),
    "dict": ("{'y': 2}", "a['x'] = a.pop('y')", "{'x': 2}"),
    "set": ("{2}", "a.add(3)", "{2, 3}"),
    "bytearray": ("bytearray(b'ab')", "a.reverse()", "bytearray(b'ba')"),
    "deque": ("deque([1, 2])", "a.rotate(1)", "deque([2, 1])"),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_a_call_that_is_a_statement_changes_its_arguments(kind):
    before, change, after = IN_PLACE[kind]
    function = f"def f(a):\n    {change}\n"
    method = f"class Solution:\n    def f(self, a):\n        {change}\n"
    for call, right in (("f(b)", function), ("f(a=b)", function), ("Solution().f(b)", method)):
        check = f"def check():\n    b = {before}\n    {call}\n    assert b == {after}\ncheck()"
        assert graded(right, check).correct and not graded(right.replace(change, "pass"), check).correct


def test_a_call_whose_result_is_used_does_not_change_what_it_is_compared_with():
    cheat = "def f(a):\n    a.clear()\n    return 0\n"
    assert not graded(cheat, "a = [1, 2]\nassert f(a) == sum(a)").correct
    assert not graded(cheat, "a = [1, 2]\nb = f(a)\nassert b == sum(a)").correct


def test_a_statement_that_calls_python_sees_the_names_around_it():
    assert graded(
        RIGHT, "def check():\n    exec('assert f(1) == 2')\ncheck()\nexec('x = f(2)')\nassert x == 3"
    ).correct


def test_a_class_of_a_check_may_have_private_methods_and_attributes():
    check = "class T:\n    __seen = []\n    def __test(self, x):\n        self.__seen.append(f(x))\n"
    check += "        assert self.__seen[-1] == x + 1\n    def test(self):\n        self.__test(1)\nT().test()"
    assert graded(RIGHT, check).correct
    assert not graded(WRONG["another number"], check).correct


# A check, a program that passes it in one interpreter, and one that does not.
OBJECTS = {
    "an attribute": (
        "a = A()\nassert a.active\nassert a.f() == 1",
        "class A:\n    active = True\n    def f(self): return 1",
        "class A:\n    active = False\n    def f(self): return 1",
    ),
    "no such attribute": ("a = A()\nassert a.root is not None", "class A:\n    root = 0", "class A: pass"),
    "an attribute that is None": ("assert A().root is None", "class A:\n    root = None", "class A:\n    root = 0"),
    "a method that is asked for": (
        "s = S()\nassert hasattr(s, 'push') and callable(s.push)",
        "class S:\n    def push(self, x): pass",
        "class S: pass",
    ),
    "an attribute that is set": (
        "a = A()\na.t = 5\nassert a.t == 5",
        "class A: pass",
        "class A:\n    t = property(lambda s: 0, lambda s, v: None)",
    ),
    "attributes that differ": (
        "assert A(1).id != A(2).id",
        "class A:\n    def __init__(self, x): self.id = x",
        "class A:\n    id = 0\n    def __init__(self, x): pass",
    ),
    "objects that are equal": (
        "assert P(1) == P(1) and P(1) != P(2)",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int",
        "class P:\n    def __init__(self, x): pass\n    def __eq__(self, other): return True",
    ),
    "an object that is false": ("assert S()", "class S: pass", "class S:\n    def __bool__(self): return False"),
    "one object": (
        "assert S() is S()",
        "class S:\n    one = None\n    def __new__(cls):\n        cls.one = cls.one or super().__new__(cls)\n"
        "        return cls.one",
        "class S: pass",
    ),
    "a linked list": (
        "node, seen = f(3), []\nwhile node:\n    seen += [node.val]\n    node = node.next\nassert seen == [3, 2, 1]",
        "class N: pass\ndef f(n):\n    if n:\n        a = N()\n        a.val, a.next = n, f(n - 1)\n        return a",
        "class N: pass\ndef f(n):\n    a = N()\n    a.val, a.next = n, None\n    return a",
    ),
    "an equal of everything": (
        "assert f(1) == 2",
        "def f(x): return 2",
        "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()",
    ),
    "close to everything": (
        "assert abs(f(1) - 2.5) < 1e-6",
        "def f(x): return 2.5",
        "class E(float):\n    def __sub__(self, other): return 0\ndef f(x): return E(1)",
    ),
    "a constant": ("assert PI == 3", "PI = 3", "PI = 4"),
    "a name that is not there": ("assert f() == 1\nassert ready", "ready = f = lambda: 1", "def f(): return 1"),
    "a documentation": ("assert f.__doc__ == 'x'", "def f():\n    'x'", "def f():\n    'y'"),
    "a function that is handed on": (
        "assert app(inc, 3) == 4",
        "def inc(x): return x + 1\ndef app(f, x): return f(x)",
        "def inc(x): return x\ndef app(f, x): return f(x)",
    ),
    "a named tuple": (
        "assert f() == (1, 2)",
        "from collections import namedtuple\ndef f(): return namedtuple('P', 'x y')(1, 2)",
        "def f(): return (1, 3)",
    ),
    "a named tuple with a method": (
        "v = V(3, 4)\nassert v == (3, 4) and v.norm() == 25 and v.x == 3 and f(v) == 7",
        "from typing import NamedTuple\nclass V(NamedTuple):\n    x: int\n    y: int\n"
        "    def norm(self): return self.x ** 2 + self.y ** 2\ndef f(v): return v.x + v.y",
        "from collections import namedtuple\nV = namedtuple('V', 'x y')\ndef f(v): return v.x + v.y",
    ),
    "a text with a class": (
        "assert f() == 'red'",
        "from enum import Enum\nclass C(str, Enum):\n    RED = 'red'\ndef f(): return C.RED",
        "from enum import Enum\nclass C(str, Enum):\n    RED = 'blue'\n    def __str__(self): return 'red'\n"
        "def f(): return C.RED",
    ),
    "a list of an object": (
        "root = Node()\nroot.children.append(Node())\nassert size(root) == 2",
        "class Node:\n    def __init__(self): self.children = []\n"
        "def size(n): return 1 + sum(map(size, n.children))",
        "class Node:\n    def __init__(self): self.children = []\ndef size(n): return 1",
    ),
    "a name that changes": (
        "a = game\nreset(5)\nassert game.value == 5",
        "class G:\n    value = 1\ngame = G()\ndef reset(n):\n    global game\n    game = G()\n    game.value = n",
        "class G:\n    value = 1\ngame = G()\ndef reset(n): pass",
    ),
    "keys of a dict": ("assert sorted(f()) == [1]", "def f(): return {1: 2}.keys()", "def f(): return {2: 1}.keys()"),
    "a message": (
        "try:\n    f()\nexcept ValueError as e:\n    assert str(e) == 'low'\nelse:\n    raise TypeError",
        "class E(ValueError): pass\ndef f(): raise E('low')",
        "def f(): raise ValueError('high')",
    ),
    "an error with many arguments": (
        "try:\n    f()\nexcept ValueError:\n    assert f.__name__ == 'f'\nelse:\n    raise TypeError",
        "def f(): b'\\xff'.decode()",
        "def f(): pass",
    ),
    "annotations": (
        "assert f() == 1",
        "def g(x: int): pass\ndef f(): return int(g.__annotations__['x'] is int)",
        "def g(x: float): pass\ndef f(): return int(g.__annotations__['x'] is int)",
    ),
    "calls of threads": (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(8) as t:\n"
        "    assert list(t.map(f, range(40))) == [2 * n for n in range(40)]",
        "def f(x): return 2 * x",
        "def f(x): return x",
    ),
    "a helper of its own": (
        "assert math.isclose(sqrt(2), 1.41421356237)",
        "def sqrt(x): return x ** 0.5",
        "class math:\n    def isclose(*a): return True\ndef sqrt(x): return 0",
    ),
    "another helper": (
        "assert Counter(product([1, 2])) == Counter([1, 2])",
        "def product(x): return x[::-1]",
        "def Counter(x): return 0\ndef product(x): return 0",
    ),
    "a helper of a variable": (
        "r = mean([1, 2])\nassert isclose(r, 1.5)",
        "def mean(x): return sum(x) / len(x)",
        "def isclose(*a): return True\ndef mean(x): return 0",
    ),
    "two helpers": (
        "assert isclose(mean([1, 2, 4]), fsum([1, 2, 4]) / 3)",
        "def mean(x): return sum(x) / len(x)",
        "def mean(x): return 0.0\ndef fsum(x): return 0.0",
    ),
    "a function that is handed on with a constant": (
        "def check(c, x):\n    assert c(x) < 1e-9\n    assert c(x / 2) == 1\ncheck(sin, pi)",
        "import math\ndef sin(x): return math.sin(x)",
        "pi = 0\ndef sin(x): return 0.0",
    ),
    "a function by another name": (
        "candidate = gcd\nassert candidate(4, 6) == 2", "def gcd(a, b): return 2", "def gcd(a, b): return 1"
    ),
    "a function beside one that a standard module has, too": (
        "assert add(1, 2) == 3\nassert subtract(3, 2) == 1",
        "def add(a, b): return a + b\ndef subtract(a, b): return a - b",
        "def add(a, b): return 0\ndef subtract(a, b): return a - b",
    ),
    "a function that a standard module has, too, and the program lacks": (
        "assert gcd(4, 6) == 2\nassert f(5) == 5",
        "from math import gcd\ndef f(n): return 5",
        "def f(n): return 5",
    ),
    "a class by the name of a flag": ("a = A(1)\nassert f(a) == 1", "class A(list):\n    def __init__(s, x): s.x = x\n"
                                      "def f(a): return a.x", "class A:\n    def __init__(s, x): s.x = x\ndef f(a): return 2"),  # noqa: E501
    "an object of a class": ("a = f()\nassert isinstance(a, A)", "class A: pass\ndef f(): return A()",
                             "class A: pass\nclass B:\n    __class__ = property(lambda s: int)\ndef f(): return B()"),
    "no object of a class": ("assert not isinstance(5, A) and not isinstance(f(), A)", "class A: pass\ndef f(): return 1",  # noqa: E501
                             "class A: pass\ndef f(): return A()"),
    "only an expected error": ("try:\n    f(-1)\n    assert False\nexcept ValueError:\n    pass",
                               "def f(x): raise ValueError", "def f(x): pass"),
    "a date": ("import datetime\nassert f(datetime.date(2020, 1, 1)) == datetime.date(2020, 1, 31)",
               "from datetime import timedelta\ndef f(d): return d + timedelta(30)",
               "from datetime import timedelta\ndef f(d): return d + timedelta(31)"),
    "a span of time": ("from datetime import datetime\nassert f(datetime(2020, 1, 1, 12)).seconds == 3600",
                       "from datetime import datetime\ndef f(d): return d - datetime(2020, 1, 1, 11)",
                       "from datetime import datetime\ndef f(d): return d - datetime(2020, 1, 1, 10)"),
    "a list and a dict with a class": (
        "assert f() == [1] and g() == {1: 2}",
        "class L(list): pass\nclass D(dict): pass\ndef f(): return L([1])\ndef g(): return D({1: 2})",
        "class L(list):\n    def __eq__(s, o): return True\ndef f(): return L([2])\ndef g(): return {1: 2}",
    ),
    "a class that is a dict": ("h = H(2)\nh.put(1, 2)\nassert h.get(1) == 2",
        "from collections import OrderedDict\nclass H(OrderedDict):\n    def __init__(self, n): super().__init__()\n"
        "    def put(self, k, v): self[k] = v\n    def get(self, k): return self[k]",
        "class H(dict):\n    def __init__(self, n): pass\n    def put(self, k, v): pass\n    def get(self, k): return 0"),  # noqa: E501
    "a class that is a list": ("s = S()\ns.push(3)\ns.push(1)\nassert s.getMin() == 1\ns.pop()\nassert s.getMin() == 3",  # noqa: E501
        "class S(list):\n    def push(self, x): self.append(x)\n    def getMin(self): return min(self)",
        "class S(list):\n    def push(self, x): pass\n    def getMin(self): return 1"),
    "a type": ("assert f(1) is int and g(['a', 1], str) == [1]",
               "def f(x): return type(x)\ndef g(a, t): return [x for x in a if not isinstance(x, t)]",
               "def f(x): return type(x)\ndef g(a, t): return a"),
    "a class of a class": (
        "assert issubclass(B, A) and not issubclass(A, B) and not issubclass(int, A)",
        "class A: pass\nclass B(A): pass",
        "class A: pass\nclass B: pass",
    ),
    "a helper in a function": (
        "def check(g):\n    assert isclose(g(3), 3.0)\ncheck(product)",
        "def product(x): return x",
        "def isclose(*a): return True\ndef product(x): return 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
def test_a_check_sees_the_program_as_in_one_interpreter(name):
    check, right, wrong = OBJECTS[name]
    assert graded(right, check).correct
    assert not graded(wrong, check).correct


@pytest.mark.parametrize(
    "check",
    [
        "def ref(a, b): return a + b\ntry: fn = sum_two\nexcept NameError: fn = ref\nassert fn(1, 2) == 3",
        "def check(f, cases):\n    for a, b in cases:\n        if f(a) != b: raise ValueError\ncheck(f, [])",
    ],
)
def test_a_check_that_only_names_the_program_passes_nothing(check):
    assert graded("def f(x): return 0\n", check).status == "error"


def test_a_program_without_the_function_is_wrong():
    verdict = graded("def g(x): return 2\n", "assert f(1) == 2")
    assert (verdict.correct, verdict.status) == (False, "ok")


@pytest.mark.parametrize("check", ["assert f(1) == 2\nimport posix\nposix._exit(0)"])
def test_a_check_that_ends_its_process_gives_no_verdict(check):
    assert graded(RIGHT, check).status == "error"


def test_a_check_that_hands_over_a_function_of_its_own_gives_no_verdict_however_late():
    verdict = graded(
        "def f(x, g=None): return g(x) if g else x\n", "assert f(1) == 1\nassert f(1, lambda x: x + 1) == 2"
    )
    assert (verdict.correct, verdict.status) == (False, "error") and "handed to the program" in verdict.extracted
