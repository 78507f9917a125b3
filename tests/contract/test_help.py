"""`--help` of every command: no GPU, and no package that only a training needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from riskpo_openrlhf import cli

COMMANDS = sorted(path.stem for path in Path(cli.__path__[0]).glob("[a-z]*.py"))
HEAVY = ("torch", "ray", "vllm", "deepspeed", "flash_attn", "transformers", "datasets", "numpy", "scipy", "matplotlib")
WITHOUT_HEAVY = """
import runpy, sys
heavy = set(sys.argv[2].split())
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
module = sys.argv[1]
sys.argv[1:] = ["--help"]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_works_where_no_heavy_package_can_be_imported(command):
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_HEAVY, f"riskpo_openrlhf.cli.{command}", " ".join(HEAVY)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-1500:]
    assert run.stdout.startswith("usage: ") and "--" in run.stdout.partition("\n")[2]


def test_help_of_training_has_openrlhfs_flags_and_ours():
    command = [sys.executable, "-m", "riskpo_openrlhf.cli.train", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert all(
        flag in text for flag in ("--actor.adam.lr", "--vllm.num_engines", "--algo.riskpo.alpha", "--riskpo.dry_run")
    )
