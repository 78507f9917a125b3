"""Run a program on its tests.

The judge is out of the program's reach. For tests of kind `stdin` and `functional` the expected outputs never enter
the sandbox: the program gives an output, and the comparison happens here. For kind `assert` the check runs in the
sandbox, but in a process of its own. It calls the program's functions over a pipe, which carries values of Python's
own types. So a result that claims to equal everything, a patched builtin and an early exit are wrong answers.

Not covered: a program that knows the tests' outputs from its training, and what `sandbox.py` does not cover.
"""

from __future__ import annotations

import json
import time

from riskpo_openrlhf.verifiers.code.guest_tasks import UNPARSABLE
from riskpo_openrlhf.verifiers.code.outputs import same_output, same_result, tolerance_of
from riskpo_openrlhf.verifiers.code.sandbox import Run, open_sandbox

TIME_LIMIT = 6.0  # seconds a test: LiveCodeBench's
MEMORY_MB = 1024


class CheckError(Exception):
    """The check of a test set can't judge a program; the message says why."""


def run_tests(program: str, tests: dict, seconds: float, must_do: bool = False) -> tuple[bool, str]:
    """Run the tests in order until one fails. Returns whether all pass, and the verdict's status.

    Args:
        program: Python source.
        tests: a test set that `testcases.check_tests` accepts.
        seconds: for all tests together; a program that has not passed them by then is wrong.
        must_do: a program that does nothing counts as no program.

    Raises:
        SandboxError, OSError: the sandbox fails.
        TimeoutError: it does not end a run in time.
        CheckError: the check of the test set failed before it called the program, or never called it.
    """
    kind, limit, tolerance = tests["kind"], tests.get("time_limit", TIME_LIMIT), tolerance_of(tests)
    cases = tests.get("tests", [{"input": tests.get("check")}])
    options = {"function": tests.get("function", ""), "memory_mb": tests.get("memory_mb", MEMORY_MB)}
    with open_sandbox(program, kind, must_do=must_do, **options) as sandbox:
        deadline = time.monotonic() + seconds
        for case in cases:
            left = deadline - time.monotonic()
            if left <= 0:
                return False, "ok"
            # A check makes many calls in one run. Others: twice the CPU time, for a machine under load.
            cpu, wall = (left, left) if kind == "assert" else (limit, min(2 * limit + 1, left))
            run = sandbox.run(case["input"].encode(errors="replace"), cpu_seconds=cpu, wall_seconds=wall)
            if run.code == UNPARSABLE:
                return False, "unparsable"
            if run.code != 0 or not _passes(run, kind, case, tolerance):
                return False, "ok"
    return True, "ok"


def _passes(run: Run, kind: str, case: dict, tolerance: float | None) -> bool:
    if kind != "assert":
        output = run.output.decode(errors="replace")
        same = same_output if kind == "stdin" else same_result
        return any(same(output, case[key], tolerance) for key in ("output", "or") if key in case)
    if not run.output:
        raise CheckError("`check` can't judge a program, because it ends its process")
    report = json.loads(run.output)
    if not report["asked"]:
        raise CheckError(f"`check` can't judge a program: {report['error'] or 'it ended without a call'}")
    return report["held"]
