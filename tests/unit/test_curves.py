import pytest

pytest.importorskip("tensorboard")
pytest.importorskip("matplotlib")
from torch.utils.tensorboard import SummaryWriter

from riskpo_openrlhf.analysis.curves import draw, load_runs, summary
from riskpo_openrlhf.cli import plot


def write_run(folder, scalars):
    writer = SummaryWriter(log_dir=str(folder))
    for tag, points in scalars.items():
        for step, value in points:
            writer.add_scalar(tag, value, step)
    writer.close()


EVALUATION = {
    "eval/arithmetic/pass@1": [(0, 0.25), (40, 0.375), (80, 0.5)],
    "eval/arithmetic/pass@1_se": [(0, 0.03), (40, 0.03), (80, 0.04)],
    "eval/arithmetic/pass@2": [(0, 0.3), (80, 0.6)],
    "eval/arithmetic/pass@16": [(0, 0.5), (80, 0.75)],
    "train/entropy": [(1, 0.7), (80, 0.4)],
}


def test_a_run_is_read_with_its_standard_errors(tmp_path):
    write_run(tmp_path, EVALUATION)
    (run,) = load_runs([tmp_path])
    assert run.name == tmp_path.name
    curve, errors = run.pass_at()["arithmetic", 1]
    assert list(curve.steps) == [0, 40, 80]
    assert list(errors) == pytest.approx([0.03, 0.03, 0.04])
    assert list(run.pass_at()) == [("arithmetic", 1), ("arithmetic", 16)]


def test_of_the_ks_logged_one_eight_sixteen_and_the_largest_are_shown(tmp_path):
    write_run(tmp_path, {f"eval/arithmetic/pass@{k}": [(0, 0.5)] for k in (1, 2, 4, 8, 16, 32)})
    assert [k for _, k in load_runs([tmp_path])[0].pass_at()] == [1, 8, 16, 32]


def test_the_table_shows_before_after_and_gain_with_its_standard_error(tmp_path):
    write_run(tmp_path / "one", EVALUATION)
    lines = summary(load_runs([tmp_path])).splitlines()
    assert "0.250 ± 0.030" in lines[2] and "0.500 ± 0.040" in lines[2] and "+0.250 ± 0.050" in lines[2]
    assert "0 -> 80" in lines[2]
    assert "+0.250  " in lines[3]  # no standard error was logged for pass@16


def test_the_event_files_of_a_resumed_run_are_one_run_and_the_later_value_counts(tmp_path, monkeypatch):
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


def test_the_figure_is_written_as_png_and_svg_and_says_what_was_not_logged(tmp_path):
    write_run(tmp_path / "run", EVALUATION)
    files = draw(load_runs([tmp_path]), tmp_path / "out" / "curves.png")
    assert [file.name for file in files] == ["curves.png", "curves.svg"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[1].read_text().count("<!-- not logged -->") == 4  # reward, quantiles, signal, length
    assert "Held-out Pass@k" in files[1].read_text()


def test_bad_input_ends_with_2_and_says_what_is_missing(tmp_path, capsys):
    out = str(tmp_path / "curves.png")
    assert plot.main([str(tmp_path / "absent"), "--out", out]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert plot.main([str(tmp_path), "--out", out]) == 2
    assert "no TensorBoard event files" in capsys.readouterr().err
    write_run(tmp_path / "run", EVALUATION)
    assert plot.main([str(tmp_path), "--out", str(tmp_path / "curves.pdf")]) == 2
    assert ".png or .svg" in capsys.readouterr().err
    assert plot.main([str(tmp_path), "--out", out]) == 0
    assert "arithmetic pass@1" in capsys.readouterr().out


def test_a_run_without_evaluation_says_so_in_place_of_a_table(tmp_path):
    write_run(tmp_path / "run", {"train/entropy": [(1, 0.7)]})
    assert "no evaluation" in summary(load_runs([tmp_path]))
