"""What the submitting process tells its supervisor, and what it does if nothing can be told."""

import json
import os
import subprocess
import sys

import pytest

END = """
import sys, types
sys.modules["ray"] = types.SimpleNamespace(shutdown=lambda: None)
from riskpo_openrlhf.integration import ending
from riskpo_openrlhf.integration.causes import Fault
ending.note(step=3)
for _ in range(100000):
    ending.looked()
if sys.argv[1] == "done":
    ending.done()
elif sys.argv[1] == "done, and Ray hangs":
    import atexit, time
    ending.END_SECONDS = 1
    atexit.register(time.sleep, 1000)
    ending.done()
else:
    ending.fail(Fault("the cause", "mend it"))
"""


def end(path, how: str) -> tuple[int, list[str], int]:
    """Return exit code, lines, and the number of looks that arrived."""
    looks, write = os.pipe()
    os.set_blocking(write, False)
    environment = {**os.environ, "RISKPO_RECORD": str(path), "RISKPO_LOOKS": str(write)}
    done = subprocess.run(
        [sys.executable, "-c", END, how], env=environment, pass_fds=[write], capture_output=True, text=True, timeout=60
    )
    os.close(write)
    with open(looks, "rb") as file:
        return done.returncode, done.stdout.splitlines(), len(file.read())


def test_the_record_holds_the_fault_and_the_supervisor_prints_it(tmp_path):
    code, lines, looks = end(tmp_path / "record.json", "fail")
    assert (code, lines) == (1, []) and looks > 1000  # a pipe that is full is no obstacle
    fault = {"cause": "the cause", "cure": "mend it", "kind": "infrastructure"}
    assert json.loads((tmp_path / "record.json").read_text()) == {"step": 3, "fault": fault}


@pytest.mark.parametrize(
    ("how", "code", "lines"),
    [
        ("fail", 1, ["[riskpo] failed: the cause", "[riskpo] cure: mend it"]),
        ("done", 0, ['[riskpo] done {"done": true}']),
    ],
)
def test_where_no_record_can_be_written_the_process_itself_has_the_last_word(how, code, lines):
    assert end("/proc/self/record.json", how)[:2] == (code, lines)


def test_a_run_that_is_done_ends_although_ray_does_not(tmp_path):
    assert end(tmp_path / "record.json", "done, and Ray hangs")[:2] == (0, [])
    assert json.loads((tmp_path / "record.json").read_text())["done"]
