"""The check for one GPU, `tests/gpu/run.sh`: its smallest part without a card, and its word where there is none."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from riskpo_openrlhf.config import PRESETS

SCRIPT = Path(__file__).parents[1] / "gpu/check.py"


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return end.value.code


def test_losses_and_estimator_hold_without_a_card_and_the_results_are_kept(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--device", "cpu", "--parts", "a", "--out", tmp_path / "report.json") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    names = [check["check"] for check in report["checks"] if check["ok"]]
    assert report["card"] == "CPU" and len(names) == len(report["checks"]) == 6 + len(PRESETS)
    assert f"{len(names)} of {len(names)} checks hold on CPU" in capsys.readouterr().out


def test_a_check_that_does_not_hold_ends_with_1(monkeypatch, capsys):
    monkeypatch.setattr("riskpo_openrlhf.core.losses.gpg_loss", lambda *args: 1 / 0)
    assert run(monkeypatch, "--device", "cpu", "--parts", "a") == 1
    assert "FAILED a  losses: error ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="a card is there")
def test_without_a_card_it_says_so_and_ends_with_0(monkeypatch, capsys):
    assert run(monkeypatch) == 0
    assert capsys.readouterr().out.startswith("skipped: torch finds no CUDA device here.")
