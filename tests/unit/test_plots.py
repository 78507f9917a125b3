"""What each picture shows, and that it is drawn with its labels."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorboard")
pytest.importorskip("matplotlib")
from torch.utils.tensorboard import SummaryWriter

from riskpo_openrlhf.analysis.curves import FIGURES, Panel, Series, logprob
from riskpo_openrlhf.analysis.draw import draw, inline_svg
from riskpo_openrlhf.analysis.runs import Curve, Run, of_sources
from riskpo_openrlhf.cli import plot
from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.evaluation.logprob import logprob_by_reward
from riskpo_openrlhf.evaluation.summary import summarise

STEPS = np.array([0, 20, 40])


def run(name, lift=0.0, riskpo=True, sources=("amc", "math500"), ks=(1, 2, 8, 16, 32)):
    scalars = {}
    for source in sources:
        for k in ks:
            scalars[f"eval/{source}/pass@{k}"] = Curve(STEPS, np.array([0.1, 0.2, 0.3]) + lift)
            scalars[f"eval/{source}/pass@{k}_se"] = Curve(STEPS, np.array([0.01, 0.02, 0.03]))
        scalars[f"eval/{source}/avg@{ks[-1]}"] = scalars[f"eval/{source}/pass@1"]
    tags = ["rollout/reward_mean", "entropy", *(riskpo * ["risk/mvar", "risk/rvar_lower"])]
    return Run(name, scalars | {f"train/{tag}": Curve(STEPS, np.array([1.0, 2, 3]) + lift) for tag in tags})


GROUPS = {"RiskPO": [run("r0"), run("r1", 0.2)], "GRPO": [run("g0", riskpo=False)]}


def titles(figure, groups=GROUPS):
    return [[panel.title for panel in row] for row in FIGURES[figure](groups, 1)]


def test_figure_1_shows_pass_and_avg_of_all_samples_of_each_source():
    assert titles("learning") == [[f"{s}: Pass@32", f"{s}: Avg@32"] for s in ("amc", "math500")]


def test_figures_4_and_8_show_pass_at_one_eight_and_sixteen_as_the_paper_does():
    assert titles("passk")[0] == ["amc: Pass@1", "amc: Pass@8", "amc: Pass@16"]


def test_figure_7_shows_avg_of_every_source():
    assert titles("avgk") == [["amc: Avg@32", "math500: Avg@32"]]


def test_figure_5_shows_reward_lower_tail_mvar_and_entropy_and_names_who_did_not_log_them():
    (panels,) = FIGURES["dynamics"](GROUPS, 1)
    assert [panel.title for panel in panels] == ["Mean reward", "Lower-tail RVaR", "MVaR", "Entropy"]
    assert [panel.missing for panel in panels] == [[], ["GRPO"], ["GRPO"], []]


def test_figure_6_shows_entropy_and_pass_at_1():
    assert titles("profiles") == [["Entropy", "amc: Pass@1", "math500: Pass@1"]]


def test_other_data_sources_are_left_out_and_an_unknown_one_is_named():
    assert titles("avgk", of_sources(GROUPS, ["math500"])) == [["math500: Avg@32"]]
    assert len(titles("dynamics", of_sources(GROUPS, ["amc"]))[0]) == 4  # training's own curves stay
    with pytest.raises(ValueError, match="no run evaluated aime24; there are: amc, math500"):
        of_sources(GROUPS, ["amc", "aime24"])


def test_a_label_with_seeds_is_their_mean_with_a_band_and_a_single_run_keeps_its_own_band():
    seeds, single = FIGURES["passk"](GROUPS, 1)[0][0].series
    assert (seeds.run, single.run) == ("RiskPO (2 seeds)", "GRPO")
    assert list(seeds.y) == pytest.approx([0.2, 0.3, 0.4])
    assert list(seeds.half) == pytest.approx([1.27062] * 3)  # std √2/10 over √2 seeds, t(0.975) of one degree 12.7062
    assert list(single.half) == pytest.approx([0.0196, 0.0392, 0.0588], rel=1e-4)
    assert FIGURES["dynamics"](GROUPS, 1)[0][0].series[1].half is None


def test_a_smoothed_line_keeps_its_raw_values_beside_it_and_an_evaluation_is_never_smoothed():
    (panels,) = FIGURES["dynamics"](GROUPS, 2)
    seeds, single = panels[0].series
    assert list(single.y) == [1, 1.5, 2.5] and list(single.raw) == [1, 2, 3]
    assert list(seeds.raw) == pytest.approx([1.1, 2.1, 3.1])
    assert FIGURES["dynamics"](GROUPS, 1)[0][0].series[0].raw is None
    assert FIGURES["passk"](GROUPS, 2)[0][0].series[0].raw is None


def test_the_raw_values_are_drawn_pale_behind_the_line(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn, plot_line = [], Axes.plot

    def record(self, x, y=(), **kwargs):
        drawn.append((list(y), kwargs.get("alpha", 1)))
        return plot_line(self, x, y, **kwargs)

    monkeypatch.setattr(Axes, "plot", record)
    draw([[Panel("title", "unit", [Series("r", "", STEPS, STEPS * 1.0, raw=STEPS * 2.0)])]], tmp_path / "f.svg")
    (raw, pale), (line, full) = drawn
    assert raw == [0, 40, 80] and line == [0, 20, 40] and pale < 0.5 < full


def test_the_overview_of_many_sources_shows_pass_at_1_only():
    assert [one.name for one in FIGURES["overview"]({"a": [run("a")]}, 1)[0][0].series] == [
        "amc pass@1",
        "math500 pass@1",
    ]
    single = FIGURES["overview"]({"a": [run("a", sources=("amc",))]}, 1)[0][0]
    assert [one.name for one in single.series] == ["pass@1", "pass@8", "pass@16", "pass@32"]


def evaluation(folder, lift=0.0):
    """A real summary: questions of pass rates 0, 1/4 ... 1, whose log-probability is 0.5 - pass rate from the left."""
    rows = [
        {
            "datasource": source, "id": str(i), "sample": j, "score": float(j < i % 5), "status": "ok",
            "tokens": 3, "truncated": False, "logprob": abs(i % 5 / 4 - 0.5) - 1 + lift,
        }
        for source in ("amc", "math500") for i in range(50) for j in range(4)
    ]  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summarise(rows)))
    return str(folder)


def test_figure_3_is_by_quantile_level_and_figure_9_by_reward_of_each_source(tmp_path):
    (panels,), verdicts = logprob([evaluation(tmp_path / "base")])
    assert [panel.title for panel in panels] == ["all questions", "amc", "math500"]
    assert list(panels[0].regions) == [(0, 0.3), (0.7, 1)]
    by_reward = panels[1].series[0]
    assert by_reward.run == "base"
    assert list(by_reward.x) == pytest.approx([0.05, 0.25, 0.55, 0.75, 0.95])  # bins of 0, 1/4, 1/2, 3/4 and 1
    assert list(by_reward.y) == pytest.approx([-0.5, -0.75, -1, -0.75, -0.5])
    assert verdicts == [{"evaluation": str(tmp_path / "base"), "lower": "holds", "upper": "holds"}]


def test_evaluations_of_several_seeds_are_averaged_bin_by_bin(tmp_path):
    seeds = evaluation(tmp_path / "0"), evaluation(tmp_path / "1", 0.2)
    (panels,), _ = logprob([f"base={','.join(seeds)}"])
    one = panels[1].series[0]
    assert one.run == "base (2 seeds)"
    assert list(one.y) == pytest.approx([-0.4, -0.65, -0.9, -0.65, -0.4])
    assert list(one.half) == pytest.approx([1.27062] * 5)  # seeds 0.2 apart


def test_a_folder_with_no_evaluation_or_several_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds 0 finished evaluations"):
        logprob([str(tmp_path)])
    evaluation(tmp_path / "a"), evaluation(tmp_path / "b")
    with pytest.raises(ValueError, match="holds 2 finished evaluations"):
        logprob([str(tmp_path)])


def test_a_picture_is_written_as_png_and_svg_with_its_legend_caption_and_what_is_missing(tmp_path):
    files = draw(FIGURES["dynamics"](GROUPS, 1), tmp_path / "out" / "figure.png", "what the band is")
    assert [file.name for file in files] == ["figure.png", "figure.svg"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    text = files[1].read_text()
    for label in ("RiskPO (2 seeds)", "GRPO", "Lower-tail RVaR", "not logged: GRPO", "what the band is"):
        assert f"<!-- {label} -->" in text


def test_a_run_has_the_same_colour_in_every_panel_and_not_by_colour_alone(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    looks, plot_line = {}, Axes.plot

    def record(self, x, *args, **kwargs):
        if len(x):
            looks.setdefault(self.get_title(), []).append([kwargs[key] for key in ("color", "linestyle", "marker")])
        return plot_line(self, x, *args, **kwargs)

    monkeypatch.setattr(Axes, "plot", record)
    draw(FIGURES["dynamics"](dict(reversed(GROUPS.items())), 1), tmp_path / "figure.svg")
    assert looks["MVaR"] == looks["Entropy"][1:]  # GRPO, first of the two, has no MVaR
    assert all(a != b for a, b in zip(*looks["Entropy"], strict=True))


def test_a_picture_for_a_page_takes_its_colours_from_there_and_escapes_names():
    svg = inline_svg(Panel("title", "unit <b>", [Series("r", f"<script>{i}$", STEPS, STEPS) for i in range(2)]))
    assert svg.startswith("<svg") and "<script>" not in svg and "unit &lt;b&gt;" in svg
    assert "var(--c0)" in svg and "var(--c1)" in svg and "currentColor" in svg and "#1a1a1a" not in svg


def write_run(folder, points=((1, 0.7),)):
    writer = SummaryWriter(log_dir=str(folder))
    for step, value in points:
        writer.add_scalar("train/entropy", value, step)
        writer.add_scalar("eval/arithmetic/pass@1", value, step)
    writer.close()


def test_without_the_name_of_a_figure_the_overview_is_drawn_and_the_table_printed(tmp_path, capsys):
    write_run(tmp_path / "run")
    out = tmp_path / "curves.png"
    assert plot.main([str(tmp_path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "arithmetic pass@1" in printed and f"Curves: {out}, {out.with_suffix('.svg')}" in printed
    assert out.with_suffix(".svg").read_text().count("<!-- not logged -->") == 4  # reward, scores, signal, length


@pytest.mark.parametrize("figure", ["passk", "dynamics", "profiles"])
def test_the_name_of_a_figure_chooses_it(figure, tmp_path, capsys):
    write_run(tmp_path / "a"), write_run(tmp_path / "b")
    runs = f"ours={tmp_path / 'a'},{tmp_path / 'b'}"
    assert plot.main([figure, runs, "--window", "5", "--out", str(tmp_path / "f.svg")]) == 0
    assert "ours (2 seeds)" in capsys.readouterr().out
    assert "mean of the last 5 steps" in (tmp_path / "f.svg").read_text()


def test_the_picture_of_a_single_run_names_its_settings(tmp_path):
    write_run(tmp_path / "run/tensorboard/riskpo")
    settings = {"format": 1, "flags": {}, "preset": "paper", "config": RiskPOConfig(alpha=0.3).to_dict()}
    (tmp_path / "run/settings.json").write_text(json.dumps(settings))
    assert plot.main([str(tmp_path / "run"), "--out", str(tmp_path / "f.svg")]) == 0
    assert "preset paper, alpha 0.3, beta 0.8, omega 0.5" in (tmp_path / "f.svg").read_text()


def test_with_json_the_gains_are_the_only_output(tmp_path, capsys):
    write_run(tmp_path / "run", ((1, 0.25), (2, 0.5)))
    assert plot.main([str(tmp_path), "--json", "--out", str(tmp_path / "f.png")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["files"] == [str(tmp_path / "f.png"), str(tmp_path / "f.svg")]
    (row,) = printed["rows"]
    assert (row["before"], row["after"], row["gain_ci95"]) == (0.25, 0.5, None)


def test_bad_input_ends_with_2_and_says_what_is_missing(tmp_path, capsys):
    out = str(tmp_path / "curves.png")
    assert plot.main([str(tmp_path / "absent"), "--out", out]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert plot.main([str(tmp_path), "--out", out]) == 2
    assert "no TensorBoard event files" in capsys.readouterr().err
    write_run(tmp_path / "run")
    assert plot.main([str(tmp_path), "--out", str(tmp_path / "curves.pdf")]) == 2
    assert ".png or .svg" in capsys.readouterr().err
    assert plot.main(["avgk", str(tmp_path), "--out", out]) == 2
    assert "none of the runs has an evaluation" in capsys.readouterr().err
    for arguments in (["dynamics"], [str(tmp_path), "--window", "0"]):
        with pytest.raises(SystemExit) as stopped:
            plot.main([*arguments, "--out", out])
        assert stopped.value.code == 2


def without_logprob(folder, *sources):
    """Rewrite an evaluation as if no response of these sources had both a verdict and a log-probability."""
    path = Path(folder) / "summary.json"
    summary = json.loads(path.read_text())
    for one in (summary["sources"][source] for source in sources):
        one["logprob_by_reward"] = logprob_by_reward([], [])
    if len(sources) == len(summary["sources"]):
        summary["logprob_by_reward"] = logprob_by_reward([], [])
    path.write_text(json.dumps(summary))
    return folder


def test_log_probabilities_are_drawn_of_the_sources_and_seeds_that_have_them(tmp_path):
    full, part = evaluation(tmp_path / "0"), without_logprob(evaluation(tmp_path / "1"), "math500")
    (panels,), _ = logprob([part])
    assert [panel.title for panel in panels] == ["all questions", "amc"]
    (panels,), _ = logprob([f"a={full}", f"b={part}", f"c={full},{part}"])
    assert [panel.title for panel in panels] == ["all questions", "amc", "math500"]
    assert [one.run for one in panels[2].series] == ["a", "c (2 seeds)"]
    assert panels[2].missing == ["b", "c (2 seeds) by 1 of 2 seeds"]


def test_an_evaluation_without_log_probabilities_ends_with_2_and_names_the_flag(tmp_path, capsys):
    folder = without_logprob(evaluation(tmp_path / "0"), "amc", "math500")
    assert plot.main(["logprob", folder, "--out", str(tmp_path / "x.png")]) == 2
    assert "--no-logprobs" in capsys.readouterr().err


def test_seeds_that_did_not_log_a_panel_or_end_early_are_named_beside_it():
    short = Run("short", {"train/entropy": Curve(STEPS[:2], np.array([1.0, 2]))})
    (panels,) = FIGURES["dynamics"]({"m": [run("a"), run("b"), short]}, 1)
    assert panels[0].missing == ["m by 1 of 3 seeds"]
    assert panels[3].missing == ["m after step 20 by 1 of 3 seeds"]
