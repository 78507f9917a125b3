"""Reading runs: TensorBoard files, evaluations, seeds; and the table of `cli.plot`."""

import json

import numpy as np
import pytest

pytest.importorskip("tensorboard")
from torch.utils.tensorboard import SummaryWriter

from riskpo_openrlhf.analysis.curves import default_window, gains, gains_table
from riskpo_openrlhf.analysis.runs import Curve, Run, combine, load_groups, load_runs, moving_mean


def write_run(folder, scalars):
    writer = SummaryWriter(log_dir=str(folder))
    for tag, points in scalars.items():
        for step, value in points:
            writer.add_scalar(tag, value, step)
    writer.close()


def made(name, **curves):
    """A run in memory, of values at steps 0, 1, 2 ..."""
    return Run(name, {f"train/{tag}": Curve(np.arange(len(v)), np.array(v, float)) for tag, v in curves.items()})


SEEDS = (0.2, 0.19), (0.3, 0.2), (0.4, 0.21)  # before, gain
EVALUATION = {
    "eval/arithmetic/pass@1": [(0, 0.25), (40, 0.375), (80, 0.5)],
    "eval/arithmetic/pass@1_se": [(0, 0.03), (40, 0.03), (80, 0.04)],
    "eval/arithmetic/pass@2": [(0, 0.3), (80, 0.6)],
    "eval/arithmetic/pass@16": [(0, 0.5), (80, 0.75)],
    "train/entropy": [(1, 0.7), (80, 0.4)],
}


def test_a_run_is_read_with_half_of_its_95_percent_intervals(tmp_path):
    write_run(tmp_path, EVALUATION)
    (run,) = load_runs([tmp_path])
    assert run.name == tmp_path.name
    assert run.evaluated() == [("arithmetic", 1), ("arithmetic", 2), ("arithmetic", 16)]
    assert list(run.scalars["eval/arithmetic/pass@1"].steps) == [0, 40, 80]
    assert list(run.halves("eval/arithmetic/pass@1")) == pytest.approx(1.96 * np.array([0.03, 0.03, 0.04]), rel=1e-4)
    assert np.isnan(run.halves("eval/arithmetic/pass@16")).all()


def test_the_event_files_of_a_resumed_run_are_one_run_and_the_later_value_counts(tmp_path):
    write_run(tmp_path / "run", {"train/entropy": [(1, 0.9), (2, 0.8)]})
    write_run(tmp_path / "run", {"train/entropy": [(2, 0.5), (3, 0.4)]})
    (run,) = load_runs([tmp_path])
    assert list(run.scalars["train/entropy"].steps) == [1, 2, 3]
    assert list(run.scalars["train/entropy"].values) == pytest.approx([0.9, 0.5, 0.4])


def test_several_runs_are_told_apart_by_their_folders(tmp_path):
    for name in ("a/tb", "b/tb"):
        write_run(tmp_path / name, EVALUATION)
    assert [run.name for run in load_runs([tmp_path])] == ["a/tb", "b/tb"]
    assert [run.name for run in load_runs([tmp_path / "a", tmp_path / "b"])] == ["a/tb", "b/tb"]


def test_folders_under_one_label_are_its_seeds_and_a_folder_alone_stands_for_itself(tmp_path):
    for name in ("a", "b", "lr=1e-5"):
        write_run(tmp_path / name, {"train/entropy": [(1, 0.9)]})
    groups = load_groups([f"two={tmp_path / 'a'},{tmp_path / 'b'}", str(tmp_path / "lr=1e-5")])
    assert {label: len(runs) for label, runs in groups.items()} == {"two": 2, "lr=1e-5": 1}


def test_two_runs_of_one_name_need_labels(tmp_path):
    for name in ("x/run", "y/run"):
        write_run(tmp_path / name, {"train/entropy": [(1, 0.9)]})
    with pytest.raises(ValueError, match="two runs are called run: give each a label"):
        load_groups([str(tmp_path / "x/run"), str(tmp_path / "y/run")])


def test_evaluations_in_folders_named_by_their_steps_are_a_run(tmp_path):
    for step, value in ((40, 0.5), (0, 0.25), (120, 0.75)):
        home = tmp_path / f"global_step{step}" / "evaluation"
        home.mkdir(parents=True)
        metrics = {"pass@1": value, "pass@1_se": 0.1, "n": 4, "logprob_by_reward": {}}
        (home / "summary.json").write_text(json.dumps({"sources": {"amc": metrics}}))
    (run,) = load_runs([tmp_path])
    assert list(run.scalars["eval/amc/pass@1"].steps) == [0, 40, 120]
    assert list(run.scalars["eval/amc/pass@1"].values) == [0.25, 0.5, 0.75]
    assert list(run.halves("eval/amc/pass@1")) == pytest.approx([0.196, 0.196, 0.196], rel=1e-4)


def test_seeds_give_their_mean_and_its_interval_at_the_steps_that_all_have():
    seeds = [made("a", x=[1, 2, 3]), made("b", x=[3, 4]), made("c", y=[0])]
    curve, half = combine(seeds, "train/x")
    assert list(curve.steps) == [0, 1]
    assert list(curve.values) == [2, 3]
    assert list(half) == pytest.approx([12.7062] * 2)  # std of (1, 3) is √2, over √2 seeds; t(0.975) of one degree
    assert combine(seeds, "train/z") is None


def test_seeds_without_a_common_step_are_refused():
    late = Run("b", {"train/x": Curve(np.array([7]), np.array([1.0]))})
    with pytest.raises(ValueError, match="no step of train/x in common"):
        combine([made("a", x=[1]), late], "train/x")


def test_a_window_takes_the_mean_of_the_last_steps_of_training_metrics_only():
    assert list(moving_mean(np.array([4.0, 2, 0, 1]), 2)) == [4, 3, 1, 0.5]
    run = Run("a", {tag: Curve(np.arange(3), np.array([0.0, 1, 2])) for tag in ("train/x", "eval/s/pass@1")})
    assert list(combine([run], "train/x", 3)[0].values) == [0, 0.5, 1]
    assert list(combine([run], "eval/s/pass@1", 3)[0].values) == [0, 1, 2]


def test_the_table_shows_before_after_and_gain_with_95_percent_intervals(tmp_path):
    write_run(tmp_path / "one", EVALUATION)
    rows = gains(load_groups([str(tmp_path)]))
    assert [(row["k"], row["first_step"], row["last_step"]) for row in rows] == [(1, 0, 80), (16, 0, 80)]
    lines = gains_table(rows).splitlines()
    assert "0.250 ± 0.059" in lines[1] and "0.500 ± 0.078" in lines[1] and "+0.250 ± 0.098" in lines[1]
    assert lines[1].endswith("0 -> 80")
    assert "pass@16" in lines[2] and "±" not in lines[2]  # no standard error was logged for it


def test_the_gain_of_several_seeds_has_the_interval_of_their_own_gains():
    tag = "eval/s/pass@1"
    seeds = [Run(str(i), {tag: Curve(np.array([0, 9]), np.array([v, v + g]))}) for i, (v, g) in enumerate(SEEDS)]
    (row,) = gains({"three": seeds})
    assert (row["run"], row["before"], row["gain"]) == ("three (3 seeds)", pytest.approx(0.3), pytest.approx(0.2))
    assert row["before_ci95"] == pytest.approx(4.302653 * 0.1 / 3**0.5)  # std of .2, .3, .4; t of two degrees
    assert row["gain_ci95"] == pytest.approx(4.302653 * 0.01 / 3**0.5)  # std of .19, .2, .21


def test_the_window_is_a_tenth_of_the_longest_run_and_at_most_twenty():
    assert default_window([made("a", x=[0] * 9)]) == 1
    assert default_window([made("a", x=[0] * 60), made("b", x=[0] * 9)]) == 6
    assert default_window([made("a", x=[0] * 999)]) == 20
    assert default_window([]) == 1


def test_a_run_without_evaluation_says_so_in_place_of_a_table(tmp_path):
    write_run(tmp_path / "run", {"train/entropy": [(1, 0.7)]})
    assert "no evaluation" in gains_table(gains(load_groups([str(tmp_path)])))


@pytest.mark.parametrize(
    ("ends", "shown", "last", "note"),
    [
        ((2, 2, 2), "m (3 seeds)", 2, None),
        ((2, None, None), "m (1 of 3 seeds)", 2, None),
        ((3, 1, None), "m (2 of 3 seeds)", 1, "step 1 is the last that all have; the longest run reaches 3"),
    ],
)
def test_the_table_counts_the_seeds_that_were_evaluated_and_says_where_one_ends_early(ends, shown, last, note):
    tag = "eval/s/pass@1"
    seeds = [
        Run(str(i), {} if end is None else {tag: Curve(np.arange(end + 1), np.linspace(0, 0.1 * i + end, end + 1))})
        for i, end in enumerate(ends)
    ]
    (row,) = gains({"m": seeds})
    assert (row["run"], row["last_step"], row["longest"]) == (shown, last, max(end or 0 for end in ends))
    text = gains_table([row])
    assert note in text if note else len(text.splitlines()) == 2
