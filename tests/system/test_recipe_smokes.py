"""Every recipe of the paper's tasks as a user starts it with `--smoke`: real engines, real verifiers, two steps."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.system
@pytest.mark.parametrize(
    ("task", "method", "source"),
    [
        ("math_hard", "recommended", "aime24"),
        ("math_easy", "dapo", "math_test"),
        ("geometry", "recommended", "geometry3k_test"),
        ("code", "paper", "livecodebench_v5"),
    ],
)
def test_a_recipe_smokes(task, method, source, tmp_path):
    run = subprocess.run(
        ["bash", str(ROOT / f"recipes/{task}.sh"), "--smoke", "--method", method, "--out", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=600, env={**os.environ, "RISKPO_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-6000:]
    rewards = [float(value) for value in re.findall(r"^step \d+(?:/\d+)? \| reward ([\d.]+)", output, re.MULTILINE)]
    # DAPO's filter may keep enough for another step, or too little for a second one.
    assert len(rewards) == 2 or (method == "dapo" and rewards), output[-3000:]
    assert max(rewards) > 0, "no answer was graded right"
    assert f"{source}/pass@1" in output or method == "dapo"
    assert (tmp_path / "run/model/config.json").is_file()
    log = (tmp_path / "run/train.log").read_text()
    assert "VerifierError" not in log and "Failed to fetch reward" not in log
    assert "Generate samples" not in log  # no progress bars in files
