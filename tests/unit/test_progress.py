import contextlib
import io
import subprocess
import sys

import pytest

from riskpo_openrlhf import console
from riskpo_openrlhf.cli.progress import follow
from riskpo_openrlhf.console import SECONDS


def said(message, **data):
    """A line as `console.say` prints it, with Ray's name of the process before it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        console.say(message, **data)
    return f"(PPOTrainer pid=7) {out.getvalue()}"


STEPS = [said(f"step {i}/25 | reward 0.{i:02d} | 2.7 s", step=i, steps=25) for i in range(1, 26)]
DONE = said("done", done=True)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(text, log):
    command = [sys.executable, "-m", "riskpo_openrlhf.cli.progress", "--log", str(log)]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def test_off_a_terminal_a_step_every_30_seconds_the_last_one_and_all_messages_are_shown():
    log, out = io.StringIO(), io.StringIO()
    lines = ["noise\n", said("RiskPO preset recommended"), *STEPS, said("eval at step 20 | a/pass@1 0.4"), DONE]
    assert SECONDS == 30
    assert follow(lines, log, out, clock=lambda: 4 * log.getvalue().count("| reward"))  # a step takes 4 s
    shown = out.getvalue().splitlines()
    assert [line.split()[1] for line in shown if line.startswith("step")] == ["1/25", "9/25", "17/25", "25/25"]
    assert "RiskPO preset recommended" in shown and "eval at step 20 | a/pass@1 0.4" in shown and "done" in shown
    assert "noise" not in out.getvalue() and "{" not in out.getvalue()
    assert log.getvalue() == "".join(lines)


def test_on_a_terminal_a_bar_carries_the_text_of_the_last_step():
    out = Terminal()
    assert follow([*STEPS, DONE], io.StringIO(), out)
    assert "25/25" in out.getvalue() and "reward 0.25 | 2.7 s" in out.getvalue()


def test_colours_and_names_that_ray_puts_before_a_line_are_no_obstacle():
    out = io.StringIO()
    assert not follow(["\x1b[36m(X pid=1)\x1b[0m [riskpo] resumed at step 40\x1b[0m\n"], io.StringIO(), out)
    assert out.getvalue().splitlines() == ["resumed at step 40"]


def test_a_job_that_ends_early_shows_the_last_lines_of_its_log_and_fails(tmp_path):
    log = tmp_path / "deep" / "train.log"
    result = run("".join(f"line {i}\n" for i in range(100)) + "ValueError: boom\n", log)
    assert result.returncode == 1
    assert "ValueError: boom" in result.stderr and str(log) in result.stderr
    assert "line 99" in result.stderr and "line 76" in result.stderr and "line 75\n" not in result.stderr
    assert log.read_text().count("\n") == 101


def test_the_bars_of_other_programs_do_not_crowd_the_error_out(tmp_path):
    bar = "\x1b[36m(RiskPOTrainer pid=7)\x1b[0m \nGenerate samples:  40%|████      | 24/60 [00:01<00:01]\x1b[A\n"
    result = run("(RiskPOTrainer pid=7) ValueError: boom\n" + bar * 40, tmp_path / "train.log")
    assert result.returncode == 1
    assert "ValueError: boom" in result.stderr and "Generate samples" not in result.stderr
    assert (tmp_path / "train.log").read_text().count("Generate samples") == 40


def test_a_job_that_is_done_succeeds(tmp_path):
    result = run("".join(STEPS) + DONE, tmp_path / "train.log")
    assert result.returncode == 0, result.stderr
    assert "step 25/25" in result.stdout


def test_carriage_returns_of_other_bars_end_a_line(tmp_path):
    result = run(f"Generate samples: 10%\rGenerate samples: 20%\r{DONE}", tmp_path / "train.log")
    assert result.returncode == 0
    assert (tmp_path / "train.log").read_text().splitlines()[-1] == DONE.strip()


def test_a_message_that_only_talks_of_being_done_does_not_end_the_job_well(tmp_path):
    assert run("[riskpo] done\n" + said("done with braces {'done': true}"), tmp_path / "train.log").returncode == 1


@pytest.mark.parametrize("text", ["plain", "braces {x} and {'a': 1}", 'half an object {"a":', 'two {"a" 1} {"b"}'])
@pytest.mark.parametrize("data", [{}, {"step": 3, "steps": None}, {"nested": [1, {"deep": "}"}], "text": 'a "b"'}])
def test_what_is_said_is_read_back(text, data):
    assert console.read(said(text, **data)) == (text, data)


def test_lines_of_others_are_not_ours():
    assert console.read("reward 0.4\n") is None and console.read("") is None


def test_off_a_terminal_a_bar_of_any_program_is_a_line_every_30_seconds_and_a_short_one_is_silent():
    program = """
import io, tqdm, tqdm.auto, tqdm.std
from riskpo_openrlhf import console
for _ in range(2000):
    console.lines_not_bars()
now = 0.0
tqdm.std.time = lambda: now
for kind, steps in ((tqdm.tqdm, 100), (tqdm.auto.tqdm, 100), (tqdm.tqdm, 29)):
    bar = kind(total=steps, desc="Generate samples")
    for _ in range(steps):
        now += 1
        bar.update()
        bar.set_postfix(prompts=steps)  # as OpenRLHF's bar, which so refreshes for every prompt
    bar.close()
terminal = io.StringIO()
terminal.isatty = lambda: True
list(tqdm.trange(3, file=terminal))
assert "3/3" in terminal.getvalue() and "\\r" in terminal.getvalue()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [line for line in result.stderr.splitlines() if line]
    assert [line.split("|")[2].split()[0] for line in lines] == ["30/100", "60/100", "90/100", "100/100"] * 2
    assert "\r" not in result.stderr and result.stdout == ""
