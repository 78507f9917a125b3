"""The comparison of methods: matched Pass@1, pairs of seeds, intervals; and what the command runs and skips."""

import argparse
import json
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorboard")
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.tensorboard import SummaryWriter

from riskpo_openrlhf.analysis.runs import Curve, Run
from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.evaluation.intervals import interval
from riskpo_openrlhf.files import lock
from riskpo_openrlhf.lab import compare_methods as compare
from riskpo_openrlhf.lab import methods_table as comparison
from riskpo_openrlhf.lab import train_series
from riskpo_openrlhf.lab.paired import at_end, common_level, differences, reached, rising, value_at

PASS = "heldout/arithmetic/pass@1"
SOURCE = "heldout/arithmetic", "train/entropy"


def curve(*values, every=10):
    return Curve(np.arange(len(values)) * every, np.array(values, float))


def test_students_interval_by_hand():
    assert interval([1, 2, 3]) == pytest.approx((2, 4.30265 / 3**0.5, 3), rel=1e-5)
    assert interval([1, nan, 3])[2] == 2
    assert comparison.text(interval([1, 2, 3])) == "+2.000 ± 2.484"
    assert comparison.text(interval([5])) == "+5.000 (one seed)" and comparison.text(interval([nan])) == ""
    assert interval([5])[0] == 5 and isnan(interval([5]).half) and isnan(interval([]).mean)


def test_a_level_is_reached_between_two_evaluations_on_a_straight_line():
    assert reached(curve(0.2, 0.3, 0.5), 0.4) == pytest.approx(15)
    assert reached(curve(0.4, 0.5), 0.4) == 0 and isnan(reached(curve(0.2, 0.3), 0.4))


def test_a_number_is_read_from_means_of_neighbours_between_steps():
    noisy = curve(1, 4, 1, 4)  # means: 2.5, 2, 3, 2.5
    assert [value_at(noisy, step) for step in (0, 10, 20, 30)] == [2.5, 2, 3, 2.5]
    assert value_at(noisy, 15) == 2.5 and value_at(noisy, 99) == 2.5 and isnan(value_at(noisy, nan))
    assert at_end(curve(9, 1, 2)) == 1.5


def test_a_noisy_peak_is_not_where_a_level_is_first_reached():
    noisy = curve(0.1, 0.4, 0.2, 0.3)
    assert rising(noisy.values) == pytest.approx([0.1, 0.3, 0.3, 0.3])
    assert reached(noisy, 0.3) == pytest.approx(10) and isnan(reached(noisy, 0.35))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_the_rising_curve_rises_keeps_the_mean_and_leaves_a_rising_curve_alone(values):
    found = rising(np.array(values))
    assert (np.diff(found) >= -1e-12).all() and found.mean() == pytest.approx(np.mean(values), abs=1e-9)
    assert rising(np.sort(values)) == pytest.approx(np.sort(values), abs=1e-12)


def test_at_matched_pass_at_1_a_slower_method_is_read_later():
    fast = Run("fast", {"p": curve(0.1, 0.3, 0.5), "entropy": curve(1.0, 0.6, 0.2)})
    slow = Run("slow", {"p": curve(0.1, 0.2, 0.3), "entropy": curve(1.0, 0.9, 0.8), "own": curve(1, 1, 1)})
    pairs = [(slow, fast), (slow, fast)]
    assert common_level(pairs[0], "p") == pytest.approx(0.3)
    matched = differences(pairs, ["entropy", "own"], "p")
    # slow is there at step 20: (.9 + .8) / 2; fast at step 10: (1 + .6 + .2) / 3
    assert matched["steps"].mean == pytest.approx(10) and matched["entropy"].mean == pytest.approx(0.85 - 0.6)
    assert matched["entropy"].half == pytest.approx(0) and "own" not in matched
    assert differences(pairs, ["entropy"])["entropy"].mean == pytest.approx(0.85 - 0.4)


def test_every_pair_is_matched_at_a_level_of_its_own():
    low = Run("low", {"p": curve(0.1, 0.2, 0.3), "e": curve(3.0, 3.0, 3.0)})
    high = Run("high", {"p": curve(0.5, 0.6, 0.7), "e": curve(0.0, 6.0, 6.0)})
    higher = Run("higher", {"p": curve(0.5, 0.7, 0.9), "e": curve(1.0, 1.0, 1.0)})
    # low against itself, and high at .7 (step 20: 6) against higher at .7 (step 10: 1), ten steps earlier
    found = differences([(low, low), (high, higher)], ["e"], "p")
    assert found["e"].mean == pytest.approx((0 + 5) / 2) and found["steps"].mean == pytest.approx((0 + 10) / 2)


def record(method, seed, lift=0.0, rate="1e-4"):
    curves = {
        PASS: [[0, 15, 30], [0.2, 0.25 + lift, 0.3 + lift]],
        "train/entropy": [[8, 23], [0.9, 0.8 - lift]],
    }
    return comparison.Record(method, rate, seed, 30, "mixed", 60.0, curves)


def test_training_curves_are_kept_as_means_between_evaluations():
    steps = np.arange(1, 8)
    run = Run("r", {PASS: curve(0.2, 0.3, every=3), "train/entropy": Curve(steps, steps.astype(float)),
                    "train/timing/step_total": curve(1, 2), "eval/a/pass@1_se": curve(1, 2)})  # fmt: skip
    kept = comparison.curves_of(run)
    assert kept == {PASS: [[0, 3], [0.2, 0.3]], "train/entropy": [[2, 5.5], [2, 5.5]]}


def test_records_survive_a_kill_in_the_middle_of_a_line(tmp_path):
    file = tmp_path / "deep" / "runs.jsonl"
    first, second = record("grpo", 0), record("grpo", 1)
    comparison.append_record(file, first)
    with open(file, "a") as out:
        out.write('{"method": "gr')
    assert comparison.read_records(file) == {first.key: first}
    comparison.append_record(file, second)
    assert list(comparison.read_records(file).values()) == [first, second]
    file.write_text("no record\n" + file.read_text())
    with pytest.raises(ValueError, match="line 1 is no record"):
        comparison.read_records(file)


def test_the_best_rate_is_that_of_the_last_two_evaluations():
    peak = comparison.Record("m", "high", 0, 30, "micro", 1, {"p": [[0, 1, 2], [0.9, 0.2, 0.2]]})
    steady = comparison.Record("m", "low", 0, 30, "micro", 1, {"p": [[0, 1, 2], [0.1, 0.3, 0.3]]})
    assert comparison.best_rate([peak, steady], "p") == "low" and comparison.best_rate([], "p") is None


def test_tables_by_hand():
    methods = {
        "grpo": [record("grpo", s) for s in (0, 1)],
        "new": [record("new", s, 0.05) for s in (0, 1)],
        "none": [],
    }
    text = comparison.tables(methods, "grpo", {"Pass@1": PASS, "entropy": "train/entropy"}, PASS)
    end, less, matched = text.split("Versus grpo")
    assert "| grpo | 1e-4 | 2 | 0.275 ± 0.000 | 0.850 ± 0.000 |" in end and "| none | no finished run |" in end
    assert "| new | +0.050 ± 0.000 | -0.025 ± 0.000 |" in less
    # both means of two values: .85 of grpo, .825 of new, wherever they are read
    assert "| new | 0.300 | 2 | -15 ± 0 | -0.025 ± 0.000 |" in matched


def test_tables_at_given_levels_are_of_the_seeds_that_reach_them():
    methods = {"grpo": [record("grpo", s) for s in (0, 1)], "new": [record("new", 0, 0.05), record("new", 1, -0.04)]}
    text = comparison.tables(methods, "grpo", {"Pass@1": PASS, "entropy": "train/entropy"}, PASS, (0.25, 0.3))
    _, _, low, high = text.split("Versus grpo")
    assert low.startswith(", at Pass@1 = 0.25:") and high.startswith(", at Pass@1 = 0.3:")
    # grpo is at .25 at step 15, at .3 at 30; new at .25 at 7.5 and, with the other seed, at 27, and never at .3
    assert "| new | 0.250 | 2 | +2 ± 124 |" in low and "| new | 0.300 | 1 | -15 (one seed) |" in high


def test_the_picture_shows_pass_at_16_against_pass_at_1_and_needs_no_run_of_a_method():
    done = record("grpo", 0)
    done.curves["heldout/arithmetic/pass@16"] = [[0, 15, 30], [0.5, 0.55, 0.6]]
    (_, (entropy, way), tails) = comparison.pictures({"grpo": [done], "none": []}, *SOURCE)
    assert [list(way.series[0].x), list(way.series[0].y)] == [[0.2, 0.25, 0.3], [0.5, 0.55, 0.6]]
    assert len(entropy.series) == len(way.series) == 1
    (_, (_, way), _) = comparison.pictures({"paper,alpha=0.5,beta=0.999,omega=0,constant=false": [done]}, *SOURCE)
    assert way.series[0].run == "1: paper,alpha=0.5,beta=0.999,omega…"  # a legend as wide as the page would be cut
    alike = {f"paper,alpha=0.5,beta=0.999,omega={omega}": [done] for omega in (0, 1)}
    (_, (_, way), _) = comparison.pictures(alike, *SOURCE)
    assert len(way.series) == 2


def test_a_method_is_a_recipe_with_knobs_and_flags():
    assert compare.split_method("grpo") == ("grpo", [])
    name, flags = compare.split_method("paper,omega=2,actor.eps_clip=0.3")
    assert (name, flags) == ("paper", ["--algo.riskpo.omega", "2", "--actor.eps_clip", "0.3"])
    for wrong, why in (("nothing", "no recipes/methods/nothing.sh"), ("paper,omega", "not KNOB=VALUE")):
        with pytest.raises(ValueError, match=why):
            compare.split_method(wrong)


def test_every_suite_names_recipes_and_settings_that_riskpo_accepts():
    for methods in compare.SUITES.values():
        for method in methods:
            name, flags = compare.split_method(method)
            changes = dict(zip(flags[::2], flags[1::2], strict=True))
            knobs = {flag.removeprefix(compare.FLAG_PREFIX): json.loads(text) if text[0] in "0123456789tf" else text
                     for flag, text in changes.items()}  # fmt: skip
            if knobs:
                RiskPOConfig.preset(name, **knobs)


class Series:
    """Stands for the process that trains: writes the curves of the runs that it is given; their settings decide."""

    def __init__(self, command, **kwargs):
        self.returncode, self.ran = None, []
        for line in Path(command[-1]).read_text().splitlines():
            job = json.loads(line)
            flags = dict(zip(job["flags"][::2], job["flags"][1::2], strict=True))
            method, rate, seed = flags["--logger.wandb.run_name"], flags["--actor.adam.lr"], int(flags["--train.seed"])
            self.runs.append((method, rate, seed))
            folder = Path(job["folder"])
            if method == "gspo":
                self.returncode = 1
                break
            lift = {"grpo": 0.0, "recommended": 0.1}[method] + (0.02 if rate == "5e-5" else 0) + seed / 100
            with SummaryWriter(f"{folder}/tensorboard/run") as writer:
                for step in (0, 20, 40):
                    writer.add_scalar(PASS, 0.2 + lift * step / 40, step)
                    writer.add_scalar(PASS.replace("pass@1", "entropy"), 1 - lift, step)
            (folder / "finished.json").write_text('{"seconds": 600}')
        else:
            self.returncode = 0

    def poll(self):
        return self.returncode

    def wait(self):
        return self.returncode

    def terminate(self):
        pass


@pytest.fixture
def trained(monkeypatch):
    runs = []

    def recipe(args, environment, *more):
        words = dict(zip(more[1::2], more[2::2], strict=False))
        return "\n".join(("--train.seed", words["--seed"], *more[more.index("--") + 1 :])) if "--print" in more else ""

    monkeypatch.setattr(Series, "runs", runs, raising=False)
    monkeypatch.setattr(compare.subprocess, "Popen", Series)
    monkeypatch.setattr(compare, "_recipe", recipe)
    monkeypatch.setattr(compare, "_exact_curves", lambda name, start, checkpoints: {})  # the curves have them already
    return runs


def arguments(tmp_path, *more):
    return ["--methods", "grpo", "recommended", "--rates", "2e-5", "5e-5", "--out", str(tmp_path), *more]


def test_all_rates_run_with_the_first_seed_and_the_best_one_with_the_others(trained, tmp_path, capsys):
    assert compare.main(arguments(tmp_path, "--seeds", "3")) == 0
    assert len(trained) == len(set(trained)) == 8
    assert [run for run in trained if run[2] > 0] == [
        (method, "5e-5", seed) for seed in (1, 2) for method in ("grpo", "recommended")
    ]
    text = capsys.readouterr().out
    assert "| recommended | 5e-5 | 3 | 0.298 ± 0.019 |" in text and "| recommended | +0.075 ± 0.000 |" in text
    assert compare.main(arguments(tmp_path, "--seeds", "3")) == 0 and len(trained) == 8
    capsys.readouterr()
    assert compare.main(arguments(tmp_path, "--seeds", "3", "--report")) == 0 and capsys.readouterr().out in text


def test_a_run_that_was_cut_off_is_run_again_from_its_start(trained, tmp_path):
    folder = tmp_path / "mixed-60-steps/grpo/2e-5/seed0"
    folder.mkdir(parents=True)
    (folder / "half.log").write_text("")
    assert compare.main(arguments(tmp_path, "--seeds", "1")) == 0
    assert len(trained) == 4 and not (folder / "half.log").exists() and (folder / "finished.json").is_file()


def test_exact_pass_at_k_is_of_the_start_and_every_checkpoint_in_order(tmp_path, monkeypatch):
    start, checkpoints = tmp_path / "model", tmp_path / "checkpoints"
    rates = {start: [0.0, 0.5], checkpoints / "global_step5_hf": [0.5, 0.5]}
    rates[checkpoints / "global_step10_hf"] = [0.5, 1.0]
    for folder in rates:
        folder.mkdir(parents=True)
    monkeypatch.setattr("riskpo_openrlhf.lab.tiny_model.load", lambda folder: (folder, None))
    monkeypatch.setattr(
        "riskpo_openrlhf.lab.tiny_model.answer_probabilities", lambda folder, _, rows: np.array(rates[folder])
    )
    monkeypatch.setattr(
        "riskpo_openrlhf.lab.tiny_model.entropy_and_length", lambda folder, _, prompts, n: (sum(rates[folder]), n)
    )
    curves = compare._exact_curves("micro", start, checkpoints)
    names = {*(f"pass@{k}" for k in compare.EXACT_KS), "entropy", "response_length"}
    assert set(curves) == {f"heldout/arithmetic/{name}" for name in names}
    assert list(curves["heldout/arithmetic/entropy"].values) == [0.5, 1, 1.5]
    assert list(curves[PASS].steps) == [0, 5, 10] and list(curves[PASS].values) == [0.25, 0.5, 0.75]
    assert list(curves["heldout/arithmetic/pass@2"].values) == [0.375, 0.75, 0.875]


def test_small_models_are_measured_by_their_checkpoints_and_smollm2_by_its_engines(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "_recipe", lambda args, environment, *more: "\n".join(more[more.index("--") + 1 :]))
    for model, exact in (("micro", True), ("mixed", True), ("smollm2", False)):
        args = argparse.Namespace(model=model, out=tmp_path, steps=60, flags=["--train.colocate_all"])
        flags = compare._flags(args, {}, ("grpo,eval.steps=30", "1e-4", 0))
        assert ("--ckpt.save_hf" in flags) == exact and ("Pass@256" in compare._columns(args)) == exact
        assert flags[flags.index("--ckpt.save_steps") + 1] == ("5" if exact else "-1")
        assert flags[flags.index("--eval.steps") + 1] == ("60" if exact else "20")
        # What is asked for comes last, and counts.
        assert flags[-3:] == ["--eval.steps", "30", "--train.colocate_all"]


def test_a_failed_run_stops_the_comparison_with_its_log(trained, tmp_path, capsys):
    code = compare.main(["--methods", "grpo", "gspo", "--rates", "1e-4", "--seeds", "1", "--out", str(tmp_path)])
    output = capsys.readouterr()
    assert code == 1 and "gspo 1e-4 0 ended with 1" in output.err and "seed0/train.log" in output.err
    assert "1 of 2 runs are finished; about 10 min to go" in output.out
    assert len(comparison.read_records(tmp_path / "runs.jsonl")) == 1


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--methods", "paper", "--baseline", "grpo"], "--baseline must be one of paper"),
        (["--methods", "nothing"], "no recipes/methods/nothing.sh"),
        (["grpo", "recommended"], "grpo recommended: name methods behind --methods"),
        (["--levels", "0.5", "60"], "--levels 0.5 60.0: values of Pass@1 lie between 0 and 1"),
    ],
)
def test_bad_arguments_are_refused(more, why, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        compare.main([*more, "--out", str(tmp_path)])
    assert stopped.value.code == 2 and why in capsys.readouterr().err


def test_a_recipe_that_fails_is_told_with_its_last_words():
    with pytest.raises(ValueError, match="ended with 2: .*--steps 0, --heldout 7: .*--steps at least 1"):
        compare._recipe(argparse.Namespace(model="micro", steps=0, heldout=7), None, "--print")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"folder": "a", "flags": ["--train.async_enable"]}', "--train.async_enable: such runs can't share"),
        ('{"folder": "a"}', "is no list of runs: KeyError: 'flags'"),
        ("no json", "is no list of runs"),
        (None, "is no list of runs: FileNotFoundError"),
    ],
)
def test_runs_that_cannot_share_engines_are_refused(text, why, tmp_path, capsys):
    file = tmp_path / "jobs.jsonl"
    if text is not None:
        file.write_text(text + "\n")
    with pytest.raises(SystemExit) as stopped:
        train_series.main([str(file)])
    assert stopped.value.code == 2 and why in capsys.readouterr().err


def test_a_second_comparison_in_the_same_folder_stops_and_touches_nothing(trained, tmp_path, capsys):
    running = tmp_path / "mixed-60-steps/grpo/2e-5/seed0"
    running.mkdir(parents=True)
    with lock(tmp_path):  # as the first one holds it
        with pytest.raises(SystemExit) as stopped:
            compare.main(arguments(tmp_path))
        assert stopped.value.code == 2 and running.is_dir() and not trained
        assert "is in use by another compare_methods: wait for its end" in capsys.readouterr().err
        assert compare.main(arguments(tmp_path, "--report")) == 0
