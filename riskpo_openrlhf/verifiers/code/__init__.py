"""Grades a response that holds a Python program: it is run on every test, in a sandbox, and all must pass.

The judge is out of the program's reach. For tests of kind `stdin` and `functional` the expected outputs never enter
the sandbox: the program gives an output, the comparison is made here. For kind `assert` the check runs in the sandbox,
but in a process of its own, which calls the program's functions over a pipe that carries plain values only; so a
result that claims to equal everything, a patched builtin or an early exit are wrong answers. What is not covered: a
program that finds the tests' outputs in its own training, and what `sandbox.py` does not cover.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
import time
from decimal import Decimal

from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.code.guest import UNPARSABLE
from riskpo_openrlhf.verifiers.code.sandbox import SandboxError, mode, open_sandbox
from riskpo_openrlhf.verifiers.code.testcases import read_tests
from riskpo_openrlhf.verifiers.response import after_thinking

TIME_LIMIT = 6.0  # seconds a test: LiveCodeBench's
MEMORY_MB = 1024
WALL_SECONDS = 30.0

_BLOCK = re.compile(r"```([^\n`]*)\n(.*?)```", re.DOTALL)
_LANGUAGES = {"", "python", "python3", "py", "py3"}


def verify(response: str, gold: str, *, wall_seconds: float | None = None) -> Verdict:
    """Run the response's program on the tests, in their order, until one fails.

    Args:
        response: what the model wrote, without prompt and special tokens.
        gold: a test set as `verifiers.testcases` describes it: JSON text, or the absolute path of its file.
        wall_seconds: for all tests together, waiting for a sandbox not counted; by default RISKPO_CODE_WALL_SECONDS
            or 30. A program that is not done by then is wrong.

    Returns:
        A verdict with the program in `extracted`, or the reason where there is no verdict. A program that is too slow,
        needs too much memory, crashes or is killed is wrong, its status `ok`. `no_answer`: no Python block after the
        thinking; `unparsable`: not Python; `timeout`: the sandbox did not end the run in time; `error`: the test set
        can't be read or the sandbox failed.

    Raises:
        SandboxError: no sandbox works on this machine; the message says what to do.
        ValueError: a RISKPO_... variable of the environment has a value that is not allowed.
    """
    if wall_seconds is None:
        wall_seconds = float(os.environ.get("RISKPO_CODE_WALL_SECONDS", WALL_SECONDS))
    try:
        tests = read_tests(gold)
    except (OSError, ValueError, RecursionError) as error:
        return Verdict(False, "error", f"the test set can't be read: {error}")
    code = extract_code(response)
    if code is None:
        return Verdict(False, "no_answer")
    mode()  # raises if no sandbox works here
    try:
        correct, status = _passes(code, tests, wall_seconds)
    except (OSError, SandboxError) as error:  # a TimeoutError is an OSError
        return Verdict(
            False, "timeout" if isinstance(error, TimeoutError) else "error", f"the sandbox failed: {error}"
        )
    return Verdict(correct, status, code)


def extract_code(response: str) -> str | None:
    """The last fenced block that is Python or has no language, after the last `</think>`; None if there is none."""
    answer = after_thinking(response)
    if answer is None:
        return None
    blocks = [code for language, code in _BLOCK.findall(answer) if language.strip().lower() in _LANGUAGES]
    return textwrap.dedent(blocks[-1]) if blocks and blocks[-1].strip() else None


def same_output(output: str, expected: str) -> bool:
    """LiveCodeBench's rule: the same lines, spaces around text and lines apart, or lines of the same numbers.

    The numbers of a line are compared as decimals, exactly (`1.0` is `1`; `0.1` is not `0.10001`).
    """
    output, expected = output.strip(), expected.strip()
    if output.count("\n") != expected.count("\n"):
        return False
    return all(map(_same_line, output.split("\n"), expected.split("\n")))


def _same_line(line: str, expected: str) -> bool:
    line, expected = line.strip(), expected.strip()
    if line == expected:
        return True
    numbers = expected.split()
    try:
        return [Decimal(n) for n in line.split(None, len(numbers))] == [Decimal(n) for n in numbers]
    except ArithmeticError:
        return False


def same_result(output: bytes, expected: str) -> bool:
    """Whether a function's result, as JSON, equals the expected one as Python says: 1 is 1.0 and True."""
    if len(output) > 8 * len(expected) + 1024:  # the same value can't be that much longer
        return False
    try:
        return json.loads(output) == json.loads(expected)
    except (ValueError, RecursionError):
        return False


def _passes(code: str, tests: dict, wall_seconds: float) -> tuple[bool, str]:
    """(all tests pass, status)."""
    kind, limit = tests["kind"], tests.get("time_limit", TIME_LIMIT)
    cases = tests.get("tests", [{"input": tests.get("check"), "output": ""}])
    options = {"function": tests.get("function", ""), "memory_mb": tests.get("memory_mb", MEMORY_MB)}
    with open_sandbox(code, kind, **options) as sandbox:
        deadline = time.monotonic() + wall_seconds
        for case in cases:
            left = deadline - time.monotonic()
            if left <= 0:
                return False, "ok"
            # A check has many calls in one run. Waiting is not computing: twice the time, for a machine under load.
            cpu, wall = (left, left) if kind == "assert" else (limit, min(2 * limit + 1, left))
            run = sandbox.run(case["input"].encode(), cpu_seconds=cpu, wall_seconds=wall)
            if run.code == UNPARSABLE:
                return False, "unparsable"
            if run.code != 0:
                return False, "ok"
            if kind == "functional" and not same_result(run.output, case["output"]):
                return False, "ok"
            if kind == "stdin" and not same_output(run.output.decode(errors="replace"), case["output"]):
                return False, "ok"
    return True, "ok"
