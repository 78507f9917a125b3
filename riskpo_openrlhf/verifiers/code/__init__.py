"""Grade a response that holds a Python program: run it on every test in a sandbox. All tests must pass.

What happens to a program, one file for each step (docs/sandbox.md says what the sandbox covers):

    extract.py      find the program in the response: the last block that is Python
    testcases.py    read the test set that the label names
    run_tests.py    run the program on the tests, in order, until one fails
    sandbox.py      isolate the program, so that it reaches its input and output only; guest.py runs inside, and
                    boxes.py lets several programs use one sandbox in turn
    outputs.py      compare an output with the expected one
"""

from __future__ import annotations

from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.code.extract import extract_programs
from riskpo_openrlhf.verifiers.code.testcases import read_tests
from riskpo_openrlhf.verifiers.environment import number_from


def verify(response: str, gold: str) -> Verdict:
    """Run the program of a response on the tests, in order, until one fails.

    Args:
        response: the text that the model wrote, without prompt and special tokens.
        gold: a test set as `testcases.py` describes it: JSON text, or the absolute path of its file.

    Returns:
        A verdict with the program in `extracted`, or the reason if there is no verdict. Status `ok`: the program is
        right or wrong; too slow, out of memory, crashed or killed is wrong. `no_answer`: no Python block after the
        thinking. `unparsable`: not Python. `timeout`: the sandbox did not end the run in time. `error`: the test set
        can't be read, or the sandbox failed.

    Raises:
        SandboxError: no sandbox works on this machine; the message says what to do.
        ValueError: a RISKPO_… environment variable has a value that is not allowed.
    """
    # Only here: whoever grades mathematics needs no sandbox, and `-m …code.sandbox` must not find it loaded already.
    from riskpo_openrlhf.verifiers.code.run_tests import CheckError, run_tests
    from riskpo_openrlhf.verifiers.code.sandbox import SandboxError, mode

    seconds = number_from("RISKPO_CODE_WALL_SECONDS", float, 30.0)
    try:
        tests = read_tests(gold)
    except (OSError, ValueError, RecursionError) as error:
        return Verdict(False, "error", f"the test set can't be read: {error}")
    programs = extract_programs(response)
    if not programs:
        return Verdict(False, "no_answer")
    mode()  # raises if no sandbox works here
    for program in programs:
        try:
            correct, status = run_tests(program, tests, seconds, must_do=len(programs) > 1)
        except TimeoutError as error:
            return Verdict(False, "timeout", f"the sandbox failed: {error}")
        except (OSError, SandboxError) as error:
            return Verdict(False, "error", f"the sandbox failed: {error}")
        except CheckError as error:
            return Verdict(False, "error", f"the test set can't be used: {error}")
        if status != "unparsable":
            return Verdict(correct, status, program)
    return Verdict(False, "unparsable", programs[0])
