import io
import subprocess
import sys

from riskpo_openrlhf.cli.progress import follow

STEPS = [f"(PPOTrainer pid=7) [riskpo] step {i}/25 | reward 0.{i:02d} | 2.7 s\n" for i in range(1, 26)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(text, log):
    command = [sys.executable, "-m", "riskpo_openrlhf.cli.progress", "--log", str(log)]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def test_off_a_terminal_every_tenth_step_and_all_messages_are_shown():
    log, out = io.StringIO(), io.StringIO()
    lines = ["noise\n", "[riskpo] RiskPO preset recommended\n", *STEPS, "[riskpo] eval at step 20 | a/pass@1 0.4\n"]
    assert follow([*lines, "[riskpo] done\n"], log, out)
    shown = out.getvalue().splitlines()
    assert [line for line in shown if line.startswith("step")] == [
        f"step {i}/25 | reward 0.{i:02d} | 2.7 s" for i in (1, 10, 20, 25)
    ]
    assert "RiskPO preset recommended" in shown and "eval at step 20 | a/pass@1 0.4" in shown
    assert "noise" not in out.getvalue()
    assert log.getvalue() == "".join([*lines, "[riskpo] done\n"])


def test_on_a_terminal_a_bar_carries_the_text_of_the_last_step():
    out = Terminal()
    assert follow([*STEPS, "[riskpo] done\n"], io.StringIO(), out)
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
    result = run("".join(STEPS) + "[riskpo] done\n", tmp_path / "train.log")
    assert result.returncode == 0, result.stderr
    assert "step 25/25" in result.stdout


def test_carriage_returns_of_other_bars_end_a_line(tmp_path):
    result = run("Generate samples: 10%\rGenerate samples: 20%\r[riskpo] done\n", tmp_path / "train.log")
    assert result.returncode == 0
    assert (tmp_path / "train.log").read_text().splitlines()[-1] == "[riskpo] done"
