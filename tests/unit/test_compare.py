"""The comparison of methods: matched Pass@1, pairs of seeds, intervals; and what the command runs and skips."""

import json
import subprocess
from math import isnan, nan

import numpy as np
import pytest

pytest.importorskip("tensorboard")
from torch.utils.tensorboard import SummaryWriter

from riskpo_openrlhf.analysis.paired import common_level, differences, interval, reached, value_at
from riskpo_openrlhf.analysis.runs import Curve, Run
from riskpo_openrlhf.cli import compare


def curve(*values, every=10):
    return Curve(np.arange(len(values)) * every, np.array(values, float))


def test_students_interval_by_hand():
    assert interval([1, 2, 3]) == pytest.approx((2, 4.303 / 3**0.5, 3))
    assert interval([1, nan, 3])[2] == 2
    assert str(interval([1, 2, 3])) == "+2.000 ± 2.484" and str(interval([5])) == "+5.000 (one seed)"
    assert interval([5])[0] == 5 and isnan(interval([5]).half) and isnan(interval([]).mean)


def test_a_level_is_reached_between_two_evaluations_on_a_straight_line():
    assert reached(curve(0.2, 0.3, 0.5), 0.4) == pytest.approx(15)
    assert reached(curve(0.4, 0.3), 0.4) == 0 and isnan(reached(curve(0.2, 0.3), 0.4))
    assert value_at(curve(0, 1), 5) == 0.5 and isnan(value_at(curve(0, 1), 12)) and isnan(value_at(curve(0, 1), nan))


def test_at_matched_pass_at_1_a_slower_method_is_read_later():
    fast = Run("fast", {"p": curve(0.1, 0.3, 0.5), "entropy": curve(1.0, 0.6, 0.2)})
    slow = Run("slow", {"p": curve(0.1, 0.2, 0.3), "entropy": curve(1.0, 0.9, 0.8), "own": curve(1, 1, 1)})
    pairs = [(slow, fast), (slow, fast)]
    level = common_level(pairs, "p")
    assert level == pytest.approx(0.3)
    matched = differences(pairs, ["entropy", "own"], "p", level)
    assert matched["steps"].mean == pytest.approx(10) and matched["entropy"].mean == pytest.approx(0.2)
    assert matched["entropy"].half == pytest.approx(0) and "own" not in matched
    assert differences(pairs, ["entropy"], "p")["entropy"].mean == pytest.approx(0.6)


@pytest.fixture
def quickstart(monkeypatch):
    """Stands for the recipe: writes the curves of a run whose method, rate and seed decide them."""
    ran = []

    def run(command, **kwargs):
        method, seed, out, rate = (command[command.index(flag) + 1] for flag in
                                   ("--method", "--seed", "--out", "--actor.adam.lr"))  # fmt: skip
        ran.append((method, rate, int(seed)))
        if method == "broken":
            return subprocess.CompletedProcess(command, 1)
        lift = {"grpo": 0.0, "recommended": 0.1}[method] + (0.02 if rate == "5e-5" else 0) + int(seed) / 100
        with SummaryWriter(f"{out}/tensorboard/run") as writer:
            for step in (0, 20, 40):
                writer.add_scalar(compare.PASS, 0.2 + lift * step / 40, step)
                writer.add_scalar("train/entropy", 1 - lift, step)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(compare.subprocess, "run", run)
    return ran


def arguments(tmp_path, *more):
    return [
        "--methods",
        "grpo",
        "recommended",
        "--rates",
        "2e-5",
        "5e-5",
        "--seeds",
        "2",
        "--out",
        str(tmp_path),
        *more,
    ]


def test_every_method_rate_and_seed_runs_once_and_the_best_rate_is_compared(quickstart, tmp_path, capsys):
    assert compare.main(arguments(tmp_path)) == 0
    assert len(quickstart) == len(set(quickstart)) == 8
    text = capsys.readouterr().out
    assert "recommended: rate 5e-5, 2 seeds, Pass@1 0.325 at the end" in text
    assert "grpo: rate 5e-5, 2 seeds, Pass@1 0.225" in text
    assert f"{compare.PASS:32} +0.100 ± 0.000" in text and "less grpo at Pass@1 0.220" in text
    assert compare.main(arguments(tmp_path)) == 0 and len(quickstart) == 8


def test_a_run_that_was_cut_off_is_set_aside_and_run_again(quickstart, tmp_path):
    assert compare.main(arguments(tmp_path)) == 0
    folder = tmp_path / "80-steps/grpo/2e-5/seed1"
    (folder / "finished.json").unlink()
    assert compare.main(arguments(tmp_path)) == 0
    assert quickstart[8:] == [("grpo", "2e-5", 1)] and (folder / "finished.json").is_file()
    assert len(list(folder.parent.glob("seed1-cut-off-*"))) == 1


def test_a_failed_run_stops_the_comparison_with_its_log(quickstart, tmp_path, capsys):
    code = compare.main(["--methods", "broken", "--baseline", "broken", "--seeds", "1", "--out", str(tmp_path)])
    assert code == 1 and len(quickstart) == 1
    error = capsys.readouterr().err
    assert "ended with 1" in error and "seed0.log" in error


def test_the_time_to_go_is_that_of_finished_runs(tmp_path, quickstart, capsys):
    folder = tmp_path / "80-steps/grpo/2e-5/seed0"
    folder.mkdir(parents=True)
    (folder / "finished.json").write_text(json.dumps({"seconds": 600}))
    compare.main(["--methods", "broken", "grpo", "--rates", "2e-5", "--seeds", "1", "--out", str(tmp_path)])
    assert "1 of 2 runs are finished; about 10 min to go" in capsys.readouterr().out


def test_a_baseline_that_is_not_among_the_methods_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        compare.main(["--methods", "paper", "--baseline", "grpo"])
    assert stopped.value.code == 2 and "--baseline must be one of paper" in capsys.readouterr().err
