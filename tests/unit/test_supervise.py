"""The supervisor with small jobs in place of training: exit codes, signals, leftovers, restarts. Real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from riskpo_openrlhf.integration.causes import INFRASTRUCTURE, RUN_FAULT, START
from riskpo_openrlhf.integration.supervise import Supervisor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")

SUPERVISE = """
import json, sys
from riskpo_openrlhf.integration.supervise import Supervisor
from riskpo_openrlhf.integration import supervise
supervise.LATE = 2
flags = {"riskpo.max_restarts": int(sys.argv[2]), "ckpt.path": sys.argv[3], "logger.wandb.run_name": "run",
         "ckpt.load_enable": False, "riskpo.stall_timeout": float(sys.argv[4])}
sys.exit(Supervisor(["--flag"], flags, (sys.executable, sys.argv[1])).run())
"""
PREAMBLE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
here = Path(__file__).parent
with open(here / "starts", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
start = len((here / "starts").read_text().splitlines())
def tell(**fields):
    Path(os.environ["RISKPO_RECORD"]).write_text(json.dumps(fields))
def fault(cause, kind="infrastructure", **more):
    tell(fault={"cause": cause, "cure": "mend it", "kind": kind}, **more)
    os._exit(1)
def orphan():
    # in a session of its own, deaf to SIGTERM, with a parent that ends: as Ray starts its processes
    code = ("import os, signal, sys, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\nopen(sys.argv[1], 'w').write(str(os.getpid()))\\n"
            "time.sleep(1000)")
    subprocess.run([sys.executable, "-c", code, str(here / "orphan")])
    while not (here / "orphan").exists() or not (here / "orphan").read_text():
        time.sleep(.01)
"""


class Run:
    def __init__(self, folder: Path, job: str, restarts: int = 0, stall: float = 0):
        (folder / "job.py").write_text(PREAMBLE + job)
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, folder / "job.py", str(restarts), folder / "checkpoints",
             str(stall)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            # A shell starts what it runs in the background deaf to SIGINT and SIGQUIT, nohup to SIGHUP.
            preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL)
                                for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)],
        )  # fmt: skip

    def end(self) -> list[str]:
        output, _ = self.process.communicate(timeout=60)
        self.code = self.process.returncode
        return output.splitlines()

    def starts(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "starts").read_text().splitlines()]

    def wait_for(self, name: str) -> int:
        path, until = self.folder / name, time.monotonic() + 30
        while not path.exists() or not path.read_text():
            assert time.monotonic() < until and self.process.poll() is None
            time.sleep(0.01)
        return int(path.read_text())


@pytest.fixture
def run(tmp_path):
    runs = []

    def start(*args, **kwargs) -> Run:
        runs.append(Run(tmp_path, *args, **kwargs))
        return runs[-1]

    yield start
    for each in runs:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def gone(pid: int, seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("code", [0, 2, 3])
def test_a_job_that_ends_by_itself_keeps_its_exit_code_and_its_output(run, code):
    job = run(f"print('its own line', *sys.argv[1:])\nsys.exit({code})")
    assert job.end() == ["its own line --flag"] and job.code == code


def test_a_fault_is_the_last_two_lines_and_exit_code_1(run):
    job = run("print('before')\nfault('the disk is full', 'run')", restarts=3)
    assert job.end() == ["before", "[riskpo] failed: the disk is full", "[riskpo] cure: mend it"]
    assert job.code == 1 and len(job.starts()) == 1  # a fault of the run is never restarted


def test_a_job_that_is_killed_is_explained_too(run):
    job = run("os.kill(os.getpid(), signal.SIGSEGV)")
    lines = job.end()
    assert job.code == 1 and "[riskpo] failed: the submitting process ended by SIGSEGV (signal 11)" in lines[-2]


@pytest.mark.parametrize("end", ["sys.exit(0)", "fault('x', 'run')", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_process_of_a_job_outlives_it_however_it_ends(run, end):
    job = run(f"orphan()\n{end}")
    job.end()
    assert gone(int((job.folder / "orphan").read_text()), 0.1)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131), (signal.SIGUSR1, 138),
     (signal.SIGUSR2, 140), (signal.SIGXCPU, 152)],
)  # fmt: skip
def test_a_signal_ends_the_job_whole_with_one_line(run, number, code):
    job = run("signal.signal(signal.SIGTERM, signal.SIG_IGN)\norphan()\ntime.sleep(1000)", restarts=3)
    orphan = job.wait_for("orphan")
    start = time.monotonic()
    job.process.send_signal(number)
    assert job.end() == [f"[riskpo] {signal.Signals(number).name}: ended"] and job.code == code
    assert time.monotonic() - start < 15 and gone(orphan, 0.1) and len(job.starts()) == 1


def test_a_job_that_ends_by_itself_without_a_word_is_not_blamed_on_memory(run):
    job = run("sys.exit(1)")
    lines = job.end()
    assert job.code == 1 and "ended by itself, with exit code 1" in lines[-2] and "memory" not in lines[-1]


def test_what_the_job_suspected_before_it_ended_without_a_word_is_the_cause(run):
    job = run("tell(suspect={'cause': 'no head', 'cure': 'mend it', 'kind': 'infrastructure'})\nsys.exit(1)")
    assert job.end() == ["[riskpo] failed: no head", "[riskpo] cure: mend it"]


LOOKS = """
def look(times):
    for _ in range(times):
        os.write(int(os.environ['RISKPO_LOOKS']), b'.')
        time.sleep(.2)
"""


def test_a_job_whose_watcher_stands_still_is_ended_with_its_processes(run):
    job = run(f"{LOOKS}orphan()\nlook(5)\nos.kill(os.getpid(), signal.SIGSTOP)", stall=1)
    lines = job.end()
    assert job.code == 1 and "stood still: no look of its watcher for 4 s" in lines[-2] and "SIGSTOP" in lines[-1]
    assert gone(int((job.folder / "orphan").read_text()), 0.1)


@pytest.mark.parametrize("stall", [0, 1])
def test_a_job_is_not_ended_without_a_limit_or_before_its_first_look_or_while_it_looks(run, stall):
    job = run(f"{LOOKS}time.sleep(5)\nlook(25 if {stall} else 1)\ntime.sleep(0 if {stall} else 5)", stall=stall)
    assert job.end() == [] and job.code == 0


def test_a_machine_that_is_suspended_as_a_whole_goes_on(run):
    job = run(f"{LOOKS}(here / 'job').write_text(str(os.getpid()))\nlook(50)", stall=1)
    pid = job.wait_for("job")
    time.sleep(1)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(job.process.pid, number)
        os.kill(pid, number)
        time.sleep(6 if number == signal.SIGSTOP else 0)
    assert job.end() == [] and job.code == 0


def test_a_killed_supervisor_takes_its_job_along(run):
    job = run("(here / 'job').write_text(str(os.getpid()))\ntime.sleep(1000)")
    pid = job.wait_for("job")
    job.process.kill()
    assert gone(pid)


@pytest.mark.parametrize("end", ["sys.exit(0)", "os.abort()"])
def test_done_is_the_last_line_whatever_the_processes_print_when_they_end(run, end):
    job = run(f"tell(done=True)\nprint('leaked function', flush=True)\n{end}", restarts=1)
    assert job.end() == ["leaked function", '[riskpo] done {"done": true}']
    assert job.code == 0 and len(job.starts()) == 1


def test_a_fault_of_machines_restarts_from_the_checkpoint_with_the_same_name_of_the_logs(run, tmp_path):
    save = "(here / 'checkpoints/_actor/global_step1').mkdir(parents=True, exist_ok=True)"
    job = run(f"{save}\nif start < 3: fault(f'part {{start}} died', steps=1, step=start)\nprint('done')", restarts=2)
    lines = job.end()
    assert job.code == 0 and lines[-1] == "done"
    assert job.starts() == [["--flag"], *[["--flag", "--logger.wandb.run_name", "run", "--ckpt.load_enable"]] * 2]
    restarts = [line for line in lines if "restart " in line]
    assert "restart 1 of 2 in 1 s, from the last checkpoint in" in restarts[0] and "restart 2 of 2" in restarts[1]


HALF = "(here / 'checkpoints/{}/.writing-global_step1').mkdir(parents=True, exist_ok=True)"
SEALED = f"""
from riskpo_openrlhf.integration import checkpoints
{HALF.format("_actor")}
{HALF.format("_critic")}
(here / 'checkpoints/_actor/.writing-global_step1/metric.json').touch()
checkpoints.seal(here / 'checkpoints/_actor/.writing-global_step1', 1)
"""


@pytest.mark.parametrize("another", [False, True], ids=["no checkpoint", "a checkpoint of another run"])
@pytest.mark.parametrize(
    "leaves", ["pass", HALF.format("_actor"), SEALED],
    ids=["nothing", "its first, half written", "its first, without the critic's part"],
)  # fmt: skip
def test_without_a_checkpoint_of_its_own_a_restart_begins_at_the_beginning_and_says_so(run, tmp_path, another, leaves):
    if another:
        (tmp_path / "checkpoints/_actor/global_step9").mkdir(parents=True)
        os.utime(tmp_path / "checkpoints/_actor/global_step9", (1e9, 1e9))
    job = run(f"{leaves}\nif start == 1: fault('a part died', steps=1)", restarts=1)
    lines = job.end()
    assert job.code == 0 and job.starts()[1] == ["--flag", "--logger.wandb.run_name", "run"]
    assert any("from the beginning: there is no checkpoint yet (--ckpt.save_steps)" in line for line in lines)


@pytest.mark.parametrize(
    ("restarts", "steps", "kind", "starts"),
    [(0, 0, INFRASTRUCTURE, 1), (9, 0, INFRASTRUCTURE, 2), (2, 1, INFRASTRUCTURE, 3), (9, 1, RUN_FAULT, 1),
     (0, 0, START, 4), (0, 1, START, 1)],
    ids=["no restarts", "the same fault without a step", "all used up", "not of machines", "port taken",
         "port taken later"],
)  # fmt: skip
def test_a_fault_that_repeats_ends_the_run_as_soon_as_a_restart_is_no_use(run, restarts, steps, kind, starts):
    job = run(f"fault(f'process {{os.getpid()}} died', {kind!r}, steps={steps})", restarts=restarts)
    lines = job.end()
    assert job.code == 1 and len(job.starts()) == starts
    assert "failed: process" in lines[-2] and lines[-1] == "[riskpo] cure: mend it"


def test_the_waits_between_restarts_without_a_step_double(run):
    job = run("fault('abcd'[start - 1] + ' died') if start < 4 else sys.exit(0)", restarts=9)
    lines = [line for line in job.end() if "restart " in line]
    assert [line.split(" in ")[1].split(" s")[0] for line in lines] == ["1", "2", "4"] and job.code == 0


def test_a_signal_while_a_restart_waits_ends_the_run(run):
    job = run("fault('abcdef'[start - 1] + ' died')", restarts=9)
    while len(job.starts() if (job.folder / "starts").exists() else []) < 3:
        time.sleep(0.05)
    job.process.send_signal(signal.SIGTERM)
    assert job.end()[-1] == "[riskpo] SIGTERM: ended" and job.code == 143


def test_a_signal_to_a_job_that_has_just_ended_raises_nothing():
    supervisor = Supervisor([], {"ckpt.load_enable": True, "riskpo.stall_timeout": 0})
    supervisor.child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitpid(supervisor.child.pid, 0)  # as `_wait` does, before it notes the exit code
    supervisor._on_signal(signal.SIGTERM, None)
    assert supervisor.signal == signal.SIGTERM


PARENT = """
import multiprocessing, os, sys, time
def child(path):
    from riskpo_openrlhf.runtime import RUN_VARIABLE, vllm_plugin
    os.environ.update({RUN_VARIABLE: "run"} if sys.argv[2] == "ours" else {})
    vllm_plugin()
    open(path, "w").write(str(os.getpid()))
    time.sleep(1000)
if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=child, args=(sys.argv[1],)).start()
    time.sleep(1000)
"""


@pytest.mark.parametrize("whose", ["ours", "another's"])
def test_a_vllm_process_of_ours_ends_with_the_process_that_started_it(tmp_path, whose):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {name: value for name, value in os.environ.items() if name != "RISKPO_RUN"}
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", tmp_path / "pid", whose], env=environment)
    until = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    if whose == "ours":
        assert gone(child)
    else:
        assert not gone(child, 2)
        os.kill(child, signal.SIGKILL)
