"""The warnings of a run on both sides of each threshold, and the page that shows them."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorboard")
pytest.importorskip("matplotlib")
from torch.utils.tensorboard import SummaryWriter

from riskpo_openrlhf.analysis import health
from riskpo_openrlhf.analysis.cures import CURES
from riskpo_openrlhf.analysis.folder import generated_samples, read_log
from riskpo_openrlhf.analysis.report import write_report
from riskpo_openrlhf.analysis.runs import Curve, Run
from riskpo_openrlhf.cli import report
from riskpo_openrlhf.config import RiskPOConfig

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def state(name, alpha=0.2, beta=0.8, **metrics):
    """The state of one check for training metrics, `rollout__reward_mean=[...]`."""
    scalars = {
        f"train/{tag.replace('__', '/')}": Curve(np.arange(1, len(values) + 1), np.array(values, float))
        for tag, values in metrics.items()
    }
    (found,) = [one for one in health.check(Run("run", scalars), alpha, beta) if one.name == name]
    return found.state


def two(first, last, n=40):
    """`n` values, the second half at another level."""
    return [first] * (n // 2) + [last] * (n // 2)


@pytest.mark.parametrize(
    ("name", "metric", "fine", "warning"),
    [
        ("Optimizer steps", "update__steps", [0, 2, 0], [0, 0, 0]),
        ("Unchanged weights", "update__weights_changed", [0, 1], [0, 0]),
        ("Gradient norm", "actor_grad_norm", two(0, 0.1), two(1, 0)),
        ("Gradient norm", "actor_grad_norm", [0.1], [np.inf]),
        ("Entropy collapse", "entropy", two(1, 0.21), two(1, 0.19)),
        ("Rising length", "rollout__response_length_mean", two(100, 149), two(100, 151)),
        ("Truncated responses", "rollout__truncated_rate", two(0.9, 0.09), two(0, 0.11)),
        ("Falling reward", "rollout__reward_mean", two(0.5, 0.46), two(0.5, 0.44)),
        ("Tracker off its level: alpha", "riskpo__coverage_alpha", [0, 0.58] * 10, [0, 0.62] * 10),
        ("Tracker off its level: beta", "riskpo__coverage_beta", two(0, 0.71), two(0.8, 0.69)),
        ("Prompts without signal", "signal__grpo_zero_share", two(1, 0.79), two(0, 0.81)),
        ("Huge advantages", "riskpo__advantage_abs_max", [50], [1, 50.1, 1]),
        ("Verifier errors", "verifier__error_share", [0, 0, 0], [0, 0.01, 0]),
    ],
)
def test_each_check_is_fine_within_its_threshold_and_warns_beyond_it(name, metric, fine, warning):
    assert state(name, **{metric: fine}) == health.FINE
    assert state(name, **{metric: warning}) == health.WARNING
    assert state(name, **{metric: [*fine[:-1], np.nan]}) == health.WARNING
    assert state(name) == health.UNKNOWN


def test_a_trend_is_not_judged_before_there_are_steps_enough():
    assert state("Entropy collapse", entropy=[1] * 5 + [0] * 4) == health.UNKNOWN
    assert state("Entropy collapse", entropy=[1] * 5 + [0] * 5) == health.WARNING
    assert state("Tracker off its level: alpha", riskpo__coverage_alpha=[1] * 19) == health.UNKNOWN
    assert state("Falling reward", rollout__reward_mean=[1] * 10 + [0] * 9) == health.UNKNOWN


def test_the_reward_may_fall_within_its_noise_and_may_have_been_higher_only_for_a_moment():
    noisy = [0.9, 0.1] * 20
    assert state("Falling reward", rollout__reward_mean=[*noisy[:20], *np.array(noisy[:20]) * 0.85]) == health.FINE
    assert state("Falling reward", rollout__reward_mean=[0.3] * 20 + [0.6] + [0.3] * 40) == health.FINE


def test_the_tracker_is_judged_by_the_run_s_own_levels():
    assert state("Tracker off its level: alpha", alpha=0.4, riskpo__coverage_alpha=[0.4] * 20) == health.FINE
    assert state("Tracker off its level: alpha", alpha=0.2, riskpo__coverage_alpha=[0.4] * 20) == health.WARNING


@pytest.mark.parametrize(("last", "expected"), [(0.45, health.FINE), (0.43, health.WARNING)])
def test_a_fall_of_pass_at_k_counts_beyond_its_95_percent_interval(last, expected):
    steps = np.array([0, 20])
    scalars = {
        "eval/amc/pass@1": Curve(steps, np.array([0.2, 0.9])),
        "eval/amc/pass@1_se": Curve(steps, np.array([0.01, 0.01])),
        "eval/amc/pass@16": Curve(steps, np.array([0.54, last])),
        "eval/amc/pass@16_se": Curve(
            steps, np.array([0.03, 0.04])
        ),  # together 0.05, and 1.96 times that in the interval
    }
    (found,) = [one for one in health.check(Run("run", scalars), 0.2, 0.8) if one.name == "Falling Pass@k"]
    assert found.state == expected
    assert found.found == f"amc pass@16 0.540 at first, {last:.3f} at last (difference ± 0.098)"


def test_every_check_has_a_cure_and_every_cure_a_heading_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}
    assert {one.cure for one in health.check(Run("run", {}), 0.2, 0.8)} == set(CURES)
    for cure in CURES.values():
        assert cure.anchor in anchors and len(cure.text) > 40


def test_the_log_gives_the_last_step_whether_the_job_is_done_and_its_messages(tmp_path):
    lines = ["\x1b[36m(Trainer pid=1)\x1b[0m [riskpo] note: x", "noise", '[riskpo] step 1/2 {"step": 1, "steps": 2}']
    (tmp_path / "train.log").write_text("\n".join([*lines, '[riskpo] any words {"step": 2, "steps": 2}', "last"]))
    log = read_log(tmp_path)
    assert (log.step, log.steps, log.done, log.messages, log.tail[-1]) == (2, 2, False, ["note: x"], "last")
    with open(tmp_path / "train.log", "a") as file:
        file.write('\n[riskpo] all well {"done": true}\n')
    assert read_log(tmp_path).done


def write_run(folder, tags=("rollout/reward_mean", "entropy"), n=40, text=None):
    writer = SummaryWriter(log_dir=str(folder / "tensorboard" / "riskpo"))
    for step in range(1, n + 1):
        for tag in tags:
            writer.add_scalar(f"train/{tag}", 0.5, step)
        if text:  # as OpenRLHF writes it
            writer.add_text("train/generated_samples", f"Sample:\\n{text} {step}\\n\\nReward: {step % 2:.4f}", step)
    writer.close()
    return folder


def test_sample_answers_are_spread_over_the_run_with_their_rewards(tmp_path):
    write_run(tmp_path, n=11, text="2+2=\n4")
    samples = generated_samples(tmp_path / "tensorboard" / "riskpo", number=3)
    assert [sample.text for sample in samples] == ["2+2=\n4 1", "2+2=\n4 6", "2+2=\n4 11"]
    assert [sample.reward for sample in samples] == [1, 0, 1]
    assert generated_samples(write_run(tmp_path / "none") / "tensorboard" / "riskpo") == []


class Tags(HTMLParser):
    """The tags of a page, and everything it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.fetched = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.fetched += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]
        assert not any(key.startswith("on") for key, _ in attributes)


ALL = [
    "rollout/reward_mean",
    "rollout/response_length_mean",
    "rollout/truncated_rate",
    "entropy",
    "clip/low",
    "clip/high",
]
ALL += [f"riskpo/{x}" for x in ("mvar", "rvar_lower", "q_alpha", "q_beta", "score_mean", "share_lower")]
ALL += [f"riskpo/{x}" for x in ("coverage_alpha", "coverage_beta", "advantage_mean", "advantage_abs_max")]
ALL += ["signal/prompts_all_wrong", "signal/grpo_zero_share", "verifier/error_share", "timing/step_total"]


def hostile_run(folder):
    """A run whose every text is hostile."""
    write_run(folder, ALL, text=HOSTILE)
    writer = SummaryWriter(log_dir=str(folder / "tensorboard" / "riskpo"))
    for step in (0, 40):
        writer.add_scalar(f"eval/{HOSTILE}/pass@1", 0.5, step)
    writer.close()
    (folder / "train.log").write_text(f"[riskpo] RiskPO preset {HOSTILE}\n[riskpo] step 3/4{HOSTILE}\n{HOSTILE}")
    settings = {"format": 1, "flags": {"x.y": HOSTILE, HOSTILE: 1, "logger.wandb.key": "(hidden)"}, "preset": HOSTILE}
    settings |= {"config": RiskPOConfig(alpha=0.3).to_dict(), "versions": {HOSTILE: HOSTILE}}
    (folder / "settings.json").write_text(json.dumps(settings))
    home = folder / "evaluation"
    home.mkdir()
    metrics = {"pass@1": 0.5, "pass@1_se": None, "response_length": None, "truncated": 0.0}
    (home / "summary.json").write_text(json.dumps({"sources": {HOSTILE: metrics}}))
    row = {"datasource": HOSTILE, "id": HOSTILE, "sample": 0, "response": HOSTILE + "\ud800\x00", "score": None}
    (home / "samples.jsonl").write_text(json.dumps(row) + '\n{"cut off')
    return folder


def test_text_of_a_run_never_becomes_markup_and_the_page_fetches_nothing(tmp_path):
    write_report(hostile_run(tmp_path / "run"), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("&lt;script&gt;") >= 10
    page = Tags(text)
    assert not page.tags & {"script", "img", "iframe", "link", "b"}
    assert page.fetched == []
    assert "default-src 'none'" in text


def test_the_page_of_a_complete_run_has_every_section_its_warnings_and_nothing_missing(tmp_path, capsys):
    hostile_run(tmp_path / "run")
    assert report.main([str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "Warning: Verifier errors: verifier/error_share 0.5 (threshold: over 0 at any step)" in printed
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for title in ("Learning", "Quantile tracker", "Signal and verifier", "Advantages and policy update"):
        assert f">{title}</h2>" in text
    for panel in (
        "Training reward",
        "Coverage",
        "Prompts without a difference",
        "Verifier statuses",
        "Clipped tokens",
    ):
        assert f"<h3>{panel}</h3><svg" in text
    assert "<strong>⚠ Verifier errors.</strong> verifier/error_share 0.5. " in text
    assert CURES["verifier"].text.replace("'", "&#39;") in text and f"#{CURES['verifier'].anchor}<" in text
    assert "Not logged by this run: Gradient norm." in text
    assert "has 0.3 and 0.8 of the scores below its quantiles" in text  # the run's own levels, not the paper's
    assert "--algo.riskpo.alpha</code></td><td><code>0.3</code>" in text and "the paper's, whatever" not in text
    assert "(hidden)" in text and "--algo.riskpo.released" not in text  # which is no flag
    assert "rollout, step 1, prompt and answer:\nreward 1" in text and "no verdict" in text


def test_the_page_of_a_baseline_says_what_was_not_logged(tmp_path):
    checks = write_report(write_run(tmp_path / "grpo"), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Not logged by this run: Coverage, Quantiles and mean score, Bundles by region." in text
    assert "No check warns." in text
    assert "None found, neither in the TensorBoard files nor" in text
    assert "This run has no settings.json" in text and "No train.log tells whether" in text
    assert {one.state for one in checks if "Tracker" in one.name} == {health.UNKNOWN}


def test_the_report_of_a_run_that_failed_before_its_first_step_says_so(tmp_path, capsys):
    (tmp_path / "train.log").write_text("[riskpo] RiskPO preset paper\nRunFault: the disk is full. Make room\n")
    SummaryWriter(log_dir=str(tmp_path / "started" / "tensorboard")).close()
    (tmp_path / "started" / "train.log").write_text("")
    for folder in (tmp_path / "started", tmp_path):
        if folder == tmp_path:
            shutil.rmtree(tmp_path / "started")
        assert report.main([str(folder)]) == 0
        assert "Warning: Training steps: no step was made" in capsys.readouterr().out
    assert "RunFault: the disk is full" in (tmp_path / "report.html").read_text()


def test_evaluations_of_steps_alone_are_no_run_that_failed():
    curve = Curve(np.array([0, 40]), np.array([0.1, 0.2]))
    states = [health.check(Run("run", {tag: curve}), 0.2, 0.8)[0].state for tag in ("eval/a/pass@1", "train/entropy")]
    assert states == [health.UNKNOWN, health.FINE]


def test_several_runs_or_none_end_with_2_and_say_what_to_name(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "no TensorBoard event files" in capsys.readouterr().err
    write_run(tmp_path / "a", n=1), write_run(tmp_path / "b", n=1)
    assert report.main([str(tmp_path)]) == 2
    assert "holds 2 runs (a/tensorboard/riskpo, b/tensorboard/riskpo): name one" in capsys.readouterr().err


def test_a_run_without_settings_says_that_its_levels_are_assumed(tmp_path):
    write_run(tmp_path / "old", ALL)
    write_report(tmp_path / "old", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "These are the paper&#39;s levels: there is no settings.json" in text


def test_the_levels_of_the_settings_decide_about_the_tracker(tmp_path):
    write_run(tmp_path / "run", ["riskpo/coverage_alpha"])  # 0.5 at every step
    settings = {"format": 1, "flags": {}, "preset": "paper", "config": RiskPOConfig(alpha=0.45).to_dict()}
    states = []
    for _ in range(2):
        checks = write_report(tmp_path / "run", tmp_path / "page.html")
        states += [one.state for one in checks if one.name == "Tracker off its level: alpha"]
        (tmp_path / "run/settings.json").write_text(json.dumps(settings))
    assert states == [health.WARNING, health.FINE]


def test_with_json_the_checks_and_their_cures_are_the_only_output(tmp_path, capsys):
    hostile_run(tmp_path / "run")
    assert report.main([str(tmp_path / "run"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["report"] == str(tmp_path / "run/report.html")
    (found,) = [one for one in printed["checks"] if one["name"] == "Verifier errors"]
    assert found["state"] == "warning" and found["cure"] == CURES["verifier"].text


def test_a_broken_sample_ends_with_2_and_names_its_line(tmp_path, capsys):
    folder = hostile_run(tmp_path / "run") / "evaluation/samples.jsonl"
    folder.write_text("broken\n" + folder.read_text())
    assert report.main([str(tmp_path / "run")]) == 2
    assert "samples.jsonl, line 1 is not a sample" in capsys.readouterr().err


def test_a_run_that_went_on_after_its_end_and_died_is_not_done(tmp_path):
    def line(step):
        return f'[riskpo] step {step} {{"step": {step}, "steps": 3}}'

    done = '[riskpo] done {"done": true}'
    for lines, expected in (
        ([line(1), line(2), done], True),
        ([line(1), done, line(1)], True),  # Ray's copy of the last line may come late
        ([line(1), done, line(2)], False),
        ([line(1), done, line(2), line(3), done], True),
    ):
        (tmp_path / "train.log").write_text("\n".join(lines))
        assert read_log(tmp_path).done is expected, lines
