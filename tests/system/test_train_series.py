"""Two runs one after another on the same, colocated engines and ranks. The second starts from its own model."""

import os
import re
import subprocess
import sys
from pathlib import Path

from riskpo_openrlhf.lab import compare_methods as compare
from riskpo_openrlhf.lab.methods_table import read_records


def test_a_run_after_a_ruined_one_starts_from_its_own_model_on_the_same_engines(tmp_path):
    command = [
        sys.executable, "-m", "riskpo_openrlhf.lab.compare_methods", "--methods", "grpo", "recommended",
        "--rates", "3e-2", "--seeds", "1", "--steps", "9", "--out", str(tmp_path / "out"),
        "--", "--train.colocate_all",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    job = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment, text=True, capture_output=True, timeout=540
    )
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
    assert "Versus grpo, at matched Pass@1" in job.stdout
    ruined, other = read_records(tmp_path / "out" / "runs.jsonl").values()
    start, end = ruined.curves[f"{compare.SAMPLED}/pass@1"][1]
    assert start > 0.15 and end < 0.1  # such a rate leaves nothing of the model
    assert abs(other.curves[f"{compare.SAMPLED}/pass@1"][1][0] - start) < 0.04
    for record in (ruined, other):  # what engines sample and what the checkpoints' weights say
        sampled, exact = (record.curves[f"{source}/pass@1"][1] for source in (compare.SAMPLED, compare.EXACT))
        assert abs(sampled[0] - exact[0]) < 0.06 and abs(sampled[-1] - exact[-1]) < 0.06
    # RiskPO's advantages in OpenRLHF's own loss, as the recipe `recommended` has it
    assert {"train/riskpo/q_alpha", "train/entropy", "train/ppo_clip_ratio"} <= other.curves.keys()
    logs = {path.parts[-4]: path.read_text() for path in (tmp_path / "out").glob("*/*/*/*/train.log")}
    assert "init_process_group" in logs["recommended"]  # new ranks' weights find the engines
    assert len(set(re.findall(r"RiskPORolloutActor pid=(\d+)", "".join(logs.values())))) == 1  # one engine for both
