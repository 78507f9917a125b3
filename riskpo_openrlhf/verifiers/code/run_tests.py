"""Run a program on its tests.

The judge is out of the program's reach. For tests of kind `stdin` and `functional` the expected outputs never enter
the sandbox: the program gives an output, and the comparison happens here. For kind `assert` the check runs in the
sandbox, but in a process of its own. It calls the program's functions over a pipe that carries plain values only. So a
result that claims to equal everything, a patched builtin and an early exit are wrong answers.

Not covered: a program that knows the tests' outputs from its training, and what `sandbox.py` does not cover.
"""

from __future__ import annotations

import time

from riskpo_openrlhf.verifiers.code.guest import UNPARSABLE
from riskpo_openrlhf.verifiers.code.outputs import same_output, same_result
from riskpo_openrlhf.verifiers.code.sandbox import open_sandbox

TIME_LIMIT = 6.0  # seconds a test: LiveCodeBench's
MEMORY_MB = 1024


def run_tests(program: str, tests: dict, seconds: float) -> tuple[bool, str]:
    """Run the tests in order until one fails. Returns whether all pass, and the verdict's status.

    Args:
        program: Python source.
        tests: a test set that `testcases.check_tests` accepts.
        seconds: for all tests together; a program that has not passed them by then is wrong.

    Raises `SandboxError` or `OSError` if the sandbox fails, `TimeoutError` if it does not end a run in time.
    """
    kind, limit = tests["kind"], tests.get("time_limit", TIME_LIMIT)
    cases = tests.get("tests", [{"input": tests.get("check"), "output": ""}])
    options = {"function": tests.get("function", ""), "memory_mb": tests.get("memory_mb", MEMORY_MB)}
    with open_sandbox(program, kind, **options) as sandbox:
        deadline = time.monotonic() + seconds
        for case in cases:
            left = deadline - time.monotonic()
            if left <= 0:
                return False, "ok"
            # A check makes many calls in one run. Others: twice the CPU time, for a machine under load.
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
