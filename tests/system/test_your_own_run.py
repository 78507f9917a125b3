"""The commands of docs/your-own-run.md as they are printed, on the real engines; and the README's by its dry run."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/your-own-run.md").read_text(encoding="utf-8")
SECONDS = 900


def bash(script: str, folder: Path, code: int = 0) -> str:
    """What a script printed, from a folder; fails unless it ends with `code`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["HF_HUB_OFFLINE"] = "0"  # the dry runs name models of the hub, and load none
    environment.pop("RAY_ADDRESS", None)
    job = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, timeout=SECONDS, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert job.returncode == code, job.stdout[-6000:]
    return job.stdout


def test_own_data_and_an_own_reward_function_are_checked_trained_on_reported_and_evaluated_as_printed(tmp_path):
    blocks = re.findall(r"^```(?:python|bash)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    commands = []
    for block in blocks:
        if found := re.match(r"# (\w+\.\w+)\n", block):
            (tmp_path / found.group(1)).write_text(block)
        elif not block.startswith("import"):
            commands.append(block)
    *commands, dry_run, on_gpus = commands
    assert on_gpus.split(" #")[0].rstrip() == dry_run.splitlines()[-1].split(" --riskpo.dry_run")[0]
    printed = bash("\n".join([*commands, dry_run]), tmp_path)
    assert printed.count("OpenRLHF will read this as it is.") == 3
    assert printed.count("[riskpo] dry run: ok") == 2
    assert [int(step) for step in re.findall(r"\[riskpo\] step (\d+)", printed)] == [1, 2, 3]
    assert "[riskpo] done" in printed
    assert (tmp_path / "runs/first/report.html").stat().st_size > 10_000
    logs = b"".join(path.read_bytes() for path in (tmp_path / "runs/first/tensorboard").rglob("events.*"))
    assert b"train/letters/no_box" in logs
    for name in ("before", "after"):
        assert len((tmp_path / f"results/{name}/samples.jsonl").read_text().splitlines()) == 40
    assert re.search(r"pass@4|Pass@4", printed.split("[riskpo] done")[1])


def test_the_readmes_command_lacks_nothing_but_its_data(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^(python3 -m riskpo_openrlhf\.cli\.train (?:.*\\\n)+.*)$", readme, re.MULTILINE)
    problems = re.findall(r"\[riskpo\] dry run: (.*)", bash(f"{command} --riskpo.dry_run", tmp_path, code=2))
    preset, _, memory, no_data, _ = problems
    assert preset.startswith("RiskPO preset recommended; differs from the paper in alpha=0.4")
    assert "/data/train.jsonl: no such file" in no_data
    assert re.match(r"about \d+ GiB a card in training .*\(computed, not measured\)$", memory)
