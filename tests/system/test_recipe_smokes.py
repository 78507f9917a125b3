"""The recipes as a user starts them with `--smoke`: real engines, real verifiers, two steps.

`paper.sh` runs those of mathematics, for two tables and a figure of the paper; its trainings are shared.
"""

import csv
import os
import re
import subprocess
from pathlib import Path

import pytest
from transformers import AutoProcessor

from riskpo_openrlhf.analysis.paper_tables import TABLES

ROOT = Path(__file__).parents[2]


def recipe(name: str, folder: Path, *words) -> str:
    """Run a recipe with `--smoke` to its end. Return what it printed."""
    run = subprocess.run(
        ["bash", str(ROOT / f"recipes/{name}.sh"), *words, "--smoke"],
        capture_output=True, text=True, timeout=900, env={**os.environ, "RISKPO_CACHE": str(folder / "cache")},
    )  # fmt: skip
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-6000:]
    return output


def check_run(folder: Path, steps: int = 2) -> str:
    """Check what a training left: `steps` steps, a right answer, a model and its card. Return its log."""
    log = (folder / "train.log").read_text()
    rewards = [float(value) for value in re.findall(r"step \d+(?:/\d+)? \| reward ([\d.]+)", log)]
    assert len(rewards) == steps or (steps < 2 and rewards), log[-3000:]
    assert max(rewards) > 0, "no answer was graded right"
    assert (folder / "model/config.json").is_file() and (folder / "model/README.md").is_file()
    assert "VerifierError" not in log and "Failed to fetch reward" not in log
    assert "Generate samples" not in log  # no progress bars in files
    return log


@pytest.mark.system
def test_the_paper_in_small_trains_evaluates_and_writes_its_tables_and_a_figure(tmp_path):
    untrained, out = "DeepSeek-R1-Distill-Qwen-1.5B", tmp_path / "out"
    options = ("--method", "recommended", "--settings", "paper", "--out", str(out))
    output = recipe("paper", tmp_path, "table1", "--rows", untrained, *options)
    output += recipe("paper", tmp_path, "table3", "figure4", "--rows", "0.2 0.8", "RiskPO", *options)
    hard = check_run(out / "train/math_hard-recommended-curves-seed42")
    check_run(out / "train/math_easy-recommended-seed42")
    for source in ("aime24", "aime25", "amc", "math500", "minerva", "olympiadbench"):
        assert len(re.findall(rf"{source}/pass@1 ", hard)) == 2, "at step 0 and at the end"
    for name, label in (("table1", untrained), ("table3", "0.2 0.8")):
        with open(out / f"{name}.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        yours = {(line["row"], line["column"]): float(line["value"]) for line in lines if line["origin"] == "yours"}
        assert yours.keys() == {(label, column) for column in TABLES[name].columns}
        assert any(yours.values()), "no answer was right"
        assert (out / f"{name}.md").read_text() in output
    assert (out / "figure4.png").stat().st_size > 10_000
    card = (out / "train/math_easy-recommended-seed42/model/README.md").read_text()
    assert "| gsm8k_test | 40 | 1 | 0.0 | 24 |" in card, "the evaluation is in the model's card"


@pytest.mark.system
@pytest.mark.parametrize(("task", "method", "source"), [
    ("geometry", "dapo", "geometry3k_test"), ("code", "paper", "livecodebench_v5"),
])  # fmt: skip
def test_a_recipe_smokes(task, method, source, tmp_path):
    output = recipe(task, tmp_path, "--method", method, "--out", str(tmp_path / "run"))
    # DAPO's filter may keep enough for another step, or too little for a second one.
    check_run(tmp_path / "run", 1 if method == "dapo" else 2)
    if task == "geometry":  # what an engine needs to load the model
        assert AutoProcessor.from_pretrained(tmp_path / "run/model").image_processor
    assert f"{source}/pass@1" in output or method == "dapo"
