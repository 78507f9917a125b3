"""The recipes' `command.py`: how a training command is finished, and what stops it before it starts."""

import json
import runpy
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "recipes/lib/command.py"
functions = runpy.run_path(str(SCRIPT))


def run(*words):
    return subprocess.run([sys.executable, SCRIPT, *map(str, words)], text=True, capture_output=True)


def finished(*words):
    done = run("finish", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


def test_a_flag_is_taken_out_with_all_its_values_wherever_and_however_it_is_given():
    command = ["train", "--clip", "0.2", "0.3", "--lr", "1e-6", "--clip=0.4", "--switch"]
    assert finished("--without=--clip", "--", *command) == ["train", "--lr", "1e-6", "--switch"]
    assert finished("--without=--switch", "--", "train", "--switch", "--lr", "1") == ["train", "--lr", "1"]
    refused = run("finish", "--without=--other", "--", *command)
    assert refused.returncode == 2 and "--without --other: the recipe does not set it" in refused.stderr
    assert finished("--smoke", "--without=--other", "--", *command) == command


def test_words_with_spaces_and_line_breaks_survive():
    assert finished("--", "train", "--text", "two words\nand a line", "") == [
        "train",
        "--text",
        "two words\nand a line",
        "",
    ]


def test_the_last_of_several_equal_flags_counts():
    value = functions["value"]
    assert value(["--n", "1", "--m", "2", "--n=3"], "--n") == "3" and value(["--n=3", "--n", "1"], "--n") == "1"
    assert value(["--m", "2"], "--n") == ""


@pytest.mark.parametrize(("rows", "batch", "kept"), [(25, 10, 20), (20, 10, None), (9, 10, None), (10, 10, None)])
def test_rows_that_fill_no_rollout_are_left_out_unless_there_is_none(rows, batch, kept, tmp_path):
    half = rows // 2
    for name, count in (("a", half), ("b", rows - half)):
        (tmp_path / f"{name}.jsonl").write_text("{}\n" * count)
    files = f"{tmp_path}/a.jsonl,{tmp_path}/b.jsonl"
    command = ["--data.prompt_dataset", files, "--rollout.batch_size", str(batch)]
    assert finished("--", *command)[4:] == ([] if kept is None else ["--data.max_samples", str(kept)])
    assert finished("--", *command, "--data.max_samples", "3")[4:] == ["--data.max_samples", "3"]


@pytest.mark.parametrize(("evaluated", "kept"), [("20", "20"), ("21", None), ("hub", "20")])
def test_rows_that_fill_no_rollout_stay_if_their_flag_would_cut_the_evaluation(evaluated, kept, tmp_path):
    (tmp_path / "train.jsonl").write_text("{}\n" * 25)
    if evaluated != "hub":
        (tmp_path / "test.jsonl").write_text("{}\n" * int(evaluated))
    test = "owner/name" if evaluated == "hub" else f"{tmp_path}/test.jsonl"
    command = ["--data.prompt_dataset", f"{tmp_path}/train.jsonl", "--rollout.batch_size", "10"]
    done = run("finish", "--", *command, "--eval.dataset", test)
    assert done.stdout.split("\0")[6:-1] == ([] if kept is None else ["--data.max_samples", kept])
    assert ("5 of 25 rows fill no --rollout.batch_size 10" in done.stderr) == (kept is None)


def dry_run(text: str, code: int = 0) -> list[str]:
    return ["check", "--machines", "1gpu 8gpu", "--", sys.executable, "-c", f"print({text!r}); exit({code})"]


def test_the_problems_of_the_dry_run_stop_the_recipe_in_their_own_words():
    report = {"ok": False, "problems": [{"flag": "--a.b", "message": "--a.b 3 is too large"}]}
    stopped = run(*dry_run("noise\n" + json.dumps(report), 2))
    assert stopped.returncode == 2 and stopped.stderr == "recipe: the settings are wrong:\n--a.b 3 is too large\n"


def test_too_few_gpus_stop_the_recipe_and_a_dry_run_that_crashes_is_shown():
    many = run(*dry_run(json.dumps({"ok": True, "problems": [], "gpus": 10_000})))
    assert many.returncode == 2 and "10000 GPUs are needed and here are" in many.stderr and "1gpu 8gpu" in many.stderr
    assert run(*dry_run(json.dumps({"ok": True, "problems": [], "gpus": 0}))).returncode == 0
    crashed = run(*dry_run("KeyError: boom", 1))
    assert crashed.returncode == 2 and "the dry run ended with an error:\nKeyError: boom" in crashed.stderr


@contextmanager
def dashboard(*gpus: int):
    """A server that answers as the dashboard of a Ray cluster with these nodes; the last node is dead."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            nodes = [{"state": "ALIVE", "resources_total": {"CPU": 8, "GPU": n} if n else {"CPU": 8}} for n in gpus]
            nodes.append({"state": "DEAD", "resources_total": {"GPU": 64}})
            found = {"/api/version": {"version": "4"}, "/api/v0/nodes": {"data": {"result": {"result": nodes}}}}
            body = json.dumps(found[self.path.partition("?")[0]]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def submitted(address: str, gpus: int, *flags: str):
    report = json.dumps({"ok": True, "problems": [], "gpus": gpus})
    script = [sys.executable, "-c", f"print({report!r})", *flags]
    return run("check", "--machines", "1gpu 8gpu", "--submit", address, "--", *script)


def test_a_submitted_job_is_compared_with_the_living_nodes_of_the_cluster():
    with dashboard(8, 8, 0) as address:
        assert submitted(address, 16).returncode == 0
        stopped = submitted(address, 17)
        assert stopped.returncode == 2 and f"17 GPUs are needed and the cluster at {address} has 16" in stopped.stderr
        assert "--riskpo.wait_for_gpus SECONDS" in stopped.stderr
        assert submitted(address, 17, "--riskpo.wait_for_gpus", "600").returncode == 0  # the job waits, then refuses


def test_an_address_where_no_dashboard_answers_stops_the_submission_within_30_s():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for address in (f"http://127.0.0.1:{silent.getsockname()[1]}", "http://127.0.0.1:1", "127.0.0.1:8265", "x"):
            start = time.monotonic()
            stopped = submitted(address, 1)
            assert stopped.returncode == 2 and f"no Ray dashboard answers at --submit {address}" in stopped.stderr
            assert "http://HEAD:8265" in stopped.stderr and time.monotonic() - start < 30


def test_relative_paths_become_absolute_and_names_of_the_hub_and_addresses_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    command = [
        "train", "--actor.model_name_or_path", "mine", "--reward.model_name_or_path=./other",
        "--data.prompt_dataset", "a.jsonl,OpenRLHF/prompts", "--reward.remote_url", "http://host/x.py",
        "--ckpt.path", "run/c", "--actor.adam.lr", "1e-6",
    ]  # fmt: skip
    assert functions["absolute"](command) == [
        "train", "--actor.model_name_or_path", f"{tmp_path}/mine", f"--reward.model_name_or_path={tmp_path}/other",
        "--data.prompt_dataset", f"{tmp_path}/a.jsonl,OpenRLHF/prompts", "--reward.remote_url", "http://host/x.py",
        "--ckpt.path", f"{tmp_path}/run/c", "--actor.adam.lr", "1e-6",
    ]  # fmt: skip
    assert functions["absolute"](["train", "--actor.model_name_or_path", "mine/at-hub"])[2] == "mine/at-hub"
    assert functions["absolute"](["train", "--ckpt.path=~/run"])[1] == f"--ckpt.path={Path.home()}/run"
