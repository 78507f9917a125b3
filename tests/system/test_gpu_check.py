"""Parts b and c of `tests/gpu/run.sh` with all that needs no card; part a is in tests/unit/test_gpu_check.py."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_check_for_a_card_trains_resumes_and_evaluates_without_one(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    words = ["--device", "cpu", "--parts", "b", "c", "--out", tmp_path / "report.json"]
    check = subprocess.run(
        ["bash", ROOT / "tests/gpu/run.sh", *map(str, words)], env=environment, timeout=900, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert check.returncode == 0, check.stdout[-6000:]
    checks = json.loads((tmp_path / "report.json").read_text())["checks"]
    assert all(each["ok"] for each in checks)
    assert sorted(each["part"] for each in checks) == ["b"] * 3 + ["c"] * 4
