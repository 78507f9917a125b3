"""The watch on a real Ray: beats, stacks and deaths of real actors."""

import os
import signal
import subprocess
import sys
import time

import psutil

SCRIPT = """
import os, signal, sys, time
import ray
from riskpo_openrlhf.integration import ending, watch
from types import SimpleNamespace

@ray.remote(num_cpus=0)
class RiskPOPolicyActor:
    def __init__(self, name):
        watch.join(name)
    def fit(self):
        watch.beat("training", step=3)
        return os.getpid()
    def hang_here(self):
        time.sleep(1000)
    async def nothing(self):
        pass

    def lose_the_engine(self):
        time.sleep(2)
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1234")

@ray.remote(num_cpus=0)
class Engine:  # its actor lives on
    def __init__(self):
        watch.join("vLLM engine", lambda: "EngineDeadError: class_name: RiskPORolloutActor pid: 5")
    def wait(self):
        pass

@ray.remote(num_cpus=0)
class RiskPORolloutActor:
    def __init__(self):
        raise ValueError("max_model_len 100000 is greater than 64")

ray.init(num_cpus=2, include_dashboard=False, address="local")
sys.excepthook = ending.last_words
stall = 20 if sys.argv[1] == "stands" else 600
args = SimpleNamespace(ckpt=SimpleNamespace(path=sys.argv[2], output_dir=""),
                       logger=SimpleNamespace(tensorboard_dir=""), riskpo=SimpleNamespace(stall_timeout=stall))
ending.watch_run(args)
first, second = RiskPOPolicyActor.remote("policy worker 0"), RiskPOPolicyActor.remote("policy worker 1")
ended = RiskPOPolicyActor.remote("ended by the run itself")
pids = ray.get([first.fit.remote(), second.fit.remote(), ended.fit.remote()])
del ended
if sys.argv[1] == "killed":  # while the run waits for another part, as in asynchronous mode
    os.kill(pids[1], signal.SIGKILL)
    ray.get(first.hang_here.remote())
elif sys.argv[1] == "start":
    engine = RiskPORolloutActor.remote()
    ray.get(first.hang_here.remote())
elif sys.argv[1] == "inside":
    engine = Engine.remote()
    ray.get([engine.wait.remote(), first.lose_the_engine.remote()])
elif sys.argv[1] == "raised":
    os.kill(pids[1], signal.SIGKILL)
    ray.get(second.hang_here.remote())
else:
    ray.get(first.hang_here.remote())
"""


def run(tmp_path, case: str, seconds: float) -> list[str]:
    """Run one case in a process of its own. Return its lines; it must end with exit code 1 and leave nothing."""
    (tmp_path / "run.py").write_text(SCRIPT)
    log = tmp_path / f"{case}.log"
    environment = {**os.environ, "RAY_DEDUP_LOGS": "0"}
    environment.pop("RAY_ADDRESS", None)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, tmp_path / "run.py", case, tmp_path], stdout=output, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        known = {}
        until = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < until:
            known.update((each.pid, each) for each in psutil.Process(process.pid).children(recursive=True))
            time.sleep(0.2)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"{case}: no end within {seconds} s:\n{log.read_text()[-3000:]}")
    assert process.returncode == 1, log.read_text()[-3000:]
    _, alive = psutil.wait_procs(known.values(), timeout=15)
    assert not alive
    return log.read_text().splitlines()


def test_a_part_that_dies_ends_the_run_that_waits_for_another_part(tmp_path):
    lines = run(tmp_path, "killed", 120)
    assert lines[-2].startswith("[riskpo] failed: a policy worker died (process ") and "oom" in lines[-1]


def test_a_part_that_fails_in_its_start_ends_the_run_with_its_own_error_last(tmp_path):
    lines = run(tmp_path, "start", 120)
    assert "[riskpo] failed: a vLLM engine failed in its start: ValueError: max_model_len 100000 is" in lines[-2]


def test_a_death_that_ray_raises_is_told_in_the_same_words(tmp_path):
    lines = run(tmp_path, "raised", 120)
    assert lines[-2].startswith("[riskpo] failed: a policy worker died") and lines[-1].startswith("[riskpo] cure: ")


def test_an_engines_own_process_that_dies_is_the_cause_and_not_the_connection_that_broke_with_it(tmp_path):
    lines = run(tmp_path, "inside", 120)
    assert lines[-2] == "[riskpo] failed: a process of a vLLM engine died" and "oom" in lines[-1]


def test_a_run_that_stands_still_ends_with_the_stack_of_each_part(tmp_path):
    lines = run(tmp_path, "stands", 120)
    text = "\n".join(lines)
    assert any("hang_here: time.sleep(1000)" in line for line in lines)
    assert "policy worker 0 (process " in text and "policy worker 1 (process " in text
    assert "[riskpo] no progress for" in text and "failed: no progress for" in lines[-2]
    assert "policy worker 1: training" in lines[-2] and "the stacks above" in lines[-1]
