"""Break real jobs by hand, one row of docs/reliability.md at a time, and print what happens.

    python3 tests/system/faults/matrix.py [--only WORDS ...] [--resume] [--out DIR] [--list]

For each row: seconds from the fault to the end, exit code, last lines, processes left after 15 s, and with --resume
whether the last checkpoint resumes. Takes one to two minutes a row. Linux only; disk rows need root, for a tmpfs.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1]))
import job as jobs
from cluster import cluster
from job import (
    DRIVER,
    ENGINE_ACTOR,
    ENGINE_CORE,
    GENERATOR,
    HEAD,
    LAUNCHER,
    POLICY,
    RAYLET,
    TRAINING_DRIVER,
    Job,
)

SLOW = "import time\ndef reward_func(queries, prompts, labels):\n    time.sleep(.3)\n    return [{}]\n"
ONE = '{"rewards": float(len(q) % 2), "scores": float(len(q) % 2), "extra_logs": {}} for q in queries'
REWARDS = {
    "slow": SLOW.format(ONE),
    "hangs": "import time\ndef reward_func(queries, prompts, labels):\n    time.sleep(100000)\n",
    "raises": "def reward_func(queries, prompts, labels):\n    raise ValueError('the grader lost its key')\n",
    "fails later": "calls = []\n\ndef reward_func(queries, prompts, labels):\n    calls.append(1)\n"
    "    if len(calls) > 150:\n        raise ValueError('the grader lost its key')\n    return 1.0\n",
    "late": SLOW.format(ONE).replace(".3", "8"),
    "nan": SLOW.format(ONE).replace("float(len(q) % 2)", "float('nan')"),
    "inf": SLOW.format(ONE).replace("float(len(q) % 2)", "float('inf')"),
    "same": SLOW.format(ONE).replace("float(len(q) % 2)", "1.0"),
}
ASYNC = ("--train.async_enable",)
TWO = ("--actor.num_gpus_per_node", 2)
NO_SAVES = ("--ckpt.save_steps", -1)
LONG = ("--train.num_episodes", 30)
STALL = ("--riskpo.stall_timeout", 60)


@dataclass
class Row:
    """One fault. `breaks` waits for the moment and breaks the job; None: the job breaks by itself."""

    name: str
    breaks: Callable[[Job], None] | None = None
    flags: tuple = ()
    reward: str = ""
    code: int = 1
    owner: str = "watch"  # which other part of the work decides the outcome
    disk: str = ""  # the folder of the job that is a small tmpfs
    server: str = ""  # what the reward server does
    resumable: bool = True
    known: list = field(default_factory=list)


def kill(title: tuple[str, ...], number: int = signal.SIGKILL, step: int = 1, during: str = "", which: int = 0):
    """Return what sends a signal to a part after a step, or while a policy worker runs the method `during`."""

    def breaks(job: Job) -> None:
        if step:
            job.until_step(step)
        if during:
            job.during(POLICY, during)
        victims = job.wait_for(lambda: job.find(title)[which:], 300, 0.01)
        job.processes()
        os.kill(victims[0].pid, number)

    return breaks


def send(number: int, step: int = 1, seconds: float = 0):
    """Return what sends a signal to the submitting process, after a step or so many seconds after the start."""

    def breaks(job: Job) -> None:
        if step:
            job.until_step(step)
        time.sleep(seconds)
        job.processes()
        os.kill(job.process.pid, number)

    return breaks


def start_a_second(job: Job) -> None:
    """Start the same job once more, in the same folders. Raises TimeoutError unless it is refused."""
    job.until_step(1)
    second = Job(job.words, job.log.parent, "second")
    second.process.wait(120)
    holder = f"is in use by another job, process {job.process.pid} on {socket.gethostname()}"
    if second.process.returncode != 2 or second.text().count(holder) != 2:
        raise TimeoutError(f"the second job was not refused: {second.text()[-500:]}")


SYNC_WEIGHTS, SAVES = "broadcast_to_vllm", "save_checkpoint"  # methods of a policy worker
ROWS = [
    Row("engine process killed in generation", kill(ENGINE_CORE)),
    Row("engine actor killed in generation", kill(ENGINE_ACTOR)),
    Row("engine actor killed in generation, asynchronous", kill(ENGINE_ACTOR), ASYNC),
    Row("engine process killed in generation, asynchronous", kill(ENGINE_CORE), ASYNC),
    Row("engine actor killed in the weight sync", kill(ENGINE_ACTOR, during=SYNC_WEIGHTS)),
    Row("engine process killed in the weight sync", kill(ENGINE_CORE, during=SYNC_WEIGHTS)),
    Row("engine actor killed in its start", kill(ENGINE_ACTOR, step=0), resumable=False),
    Row("engine process killed in its start", kill(ENGINE_CORE, step=0), resumable=False),
    # Refused before it starts: the model has 64 positions.
    Row("engine that would fail in its own start", None, ("--data.max_len", 100000), code=2, resumable=False),
    Row("policy worker killed in generation", kill(POLICY)),
    Row("policy worker killed in the weight sync", kill(POLICY, during=SYNC_WEIGHTS)),
    Row("policy worker killed in a save", kill(POLICY, during=SAVES), owner="ckpt"),
    Row("policy worker killed in its start", kill(POLICY, step=0), resumable=False),
    Row("one of two policy workers killed", kill(POLICY, which=1), TWO),
    Row("one of two policy workers stopped", kill(POLICY, signal.SIGSTOP, which=1), (*TWO, *STALL)),
    Row("engine process stopped", kill(ENGINE_CORE, signal.SIGSTOP), STALL),
    Row("driver killed", kill(DRIVER)),
    Row("driver killed in a save", kill(DRIVER, during=SAVES)),
    Row("generator killed, asynchronous", kill(GENERATOR), ASYNC),
    Row("training driver killed, asynchronous", kill(TRAINING_DRIVER), ASYNC),
    Row("launcher killed, asynchronous", kill(LAUNCHER), ASYNC),
    Row("generator stopped, asynchronous", kill(GENERATOR, signal.SIGSTOP), (*ASYNC, *STALL)),
    Row("Ray's head stopped", kill(HEAD, signal.SIGSTOP), LONG),
    Row("Ray's head stopped in the last steps", kill(HEAD, signal.SIGSTOP), ("--data.max_samples", 36), code=0),
    Row("Ray's head killed", kill(HEAD)),
    Row("Ray's node process killed", kill(RAYLET)),
    Row("second job in the same folders", start_a_second, ("--data.max_samples", 240), code=0),
    Row("reward function hangs", None, ("--riskpo.reward_timeout", 10), "hangs", owner="guards", resumable=False),
    Row("reward function raises", None, (), "raises", owner="guards", resumable=False),
    # The last good step is kept as a checkpoint.
    Row("reward function fails later", None, NO_SAVES, "fails later", owner="guards", resumable=False),
    Row("reward function fails later, asynchronous", None, (*ASYNC, *NO_SAVES), "fails later", owner="guards",
        resumable=False),
    Row("reward function answers late", None, (*STALL, "--data.max_samples", 24), "late", code=0),
    Row("reward server down", None, STALL, owner="guards", server="down", resumable=False),
    Row("reward server slow", None, STALL, owner="guards", server="slow", resumable=False),
    Row("reward server answers garbage", None, STALL, owner="guards", server="garbage", resumable=False),
    Row("disk full at a checkpoint", None, (), disk="checkpoints"),
    Row("disk full at the log", None, ("--data.max_samples", 36), disk="tensorboard", code=0),
    Row("NaN rewards", None, (), "nan", owner="guards", resumable=False),
    Row("infinite rewards", None, (), "inf", owner="guards", resumable=False),
    Row("every group filtered", None,
        ("--algo.dynamic_filtering_enable", "--algo.dynamic_filtering_range", 0, 1, "--data.max_samples", 36), "same",
        owner="guards", resumable=False),
    Row("SIGINT", send(signal.SIGINT), code=130),
    Row("SIGINT, asynchronous", send(signal.SIGINT), ASYNC, code=130),
    Row("SIGTERM", send(signal.SIGTERM), code=143),
    Row("SIGTERM, asynchronous", send(signal.SIGTERM), ASYNC, code=143),
    Row("SIGTERM in the start", send(signal.SIGTERM, 0, 15), code=143, resumable=False),
    Row("SIGTERM in the first second", send(signal.SIGTERM, 0, 1), code=143, resumable=False),
    Row("SIGKILL of the submitting process", send(signal.SIGKILL), code=-9),
    Row("ray job stop"),
    Row("node lost"),
    Row("node cut off"),
    Row("SIGKILL of the submitting process in the start", send(signal.SIGKILL, 0, 15), code=-9, resumable=False),
]  # fmt: skip


@contextmanager
def small_disk(folder: Path, wanted: str):
    """Mount a tmpfs that fills up in the run: room for one checkpoint and a half, or for nothing but a header."""
    if not wanted:
        yield
        return
    place = folder / wanted
    place.mkdir(parents=True)
    size = "2m" if wanted == "checkpoints" else "4k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def reward_server(kind: str):
    """Yield the URL of a reward server that is down, slow, or answers garbage."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            if kind == "slow":
                time.sleep(100000)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>not JSON</html>")

        def log_message(self, *args):
            pass

    if kind == "down":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        return
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run(row: Row, out: Path, limit: float, resume: bool) -> dict:
    """Run one row. Return what happened."""
    folder = out / re.sub(r"\W+", "-", row.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    flags = list(row.flags)
    # Steps that are long enough to be broken: the step's line reaches this script a moment later.
    if reward := row.reward or ("slow" if row.breaks else ""):
        (folder / "reward.py").write_text(REWARDS[reward])
        flags += ["--reward.remote_url", folder / "reward.py"]
    where = jobs.material(out / "material")
    with small_disk(folder, row.disk), reward_server(row.server) as url:
        flags += ["--reward.remote_url", url] if row.server else []
        job = Job(jobs.command(where, folder, *flags), folder)
        try:
            if row.breaks:
                row.breaks(job)
                note = ""
                seconds = job.end(limit)
            else:  # the fault is there from the beginning: count from the last part's start
                note = " (from the start of the job)"
                seconds = job_end_watched(job, 540)
        except TimeoutError as error:
            job.end(0)
            return {"row": row.name, "ok": False, "error": str(error), "last": job.text().splitlines()[-3:]}
    left = job.leftovers()
    job.kill_leftovers()
    text = job.text().replace("\r", "\n")
    last = [line for line in text.splitlines() if line.strip()][-2:]
    result = {
        "row": row.name, "seconds": round(seconds, 1), "note": note, "code": job.process.returncode,
        "expected": row.code, "left": left, "last": [line[:400] for line in last], "owner": row.owner,
        "native": "*** SIG" in text or "stack trace" in text.lower(),
    }  # fmt: skip
    whole = job.process.returncode == row.code and not left
    result["ok"] = whole and (row.code != 1 or last[-1].startswith("[riskpo] cure: "))
    if resume and row.resumable and not row.disk:
        again = Job(jobs.command(where, folder, *flags, "--ckpt.load_enable"), folder, "resumed")
        again.end(420)
        found = re.search(r"\[riskpo\] resumed at step (\d+)", again.text())
        result["resumed"] = int(found[1]) if found and again.process.returncode == 0 else again.text()[-300:]
    return result


def ray_job_stop(out: Path) -> dict:
    """Submit a job to a cluster of its own, and stop it after its first step by `ray job stop`."""
    folder = out / "ray-job-stop"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ports = []
    for _ in range(4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    port, dashboard, agent, client = ports
    ray = Path(sys.executable).with_name("ray")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    temporary = tempfile.mkdtemp(prefix="r")  # sockets: the path must be short
    head = Job(
        [ray, "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}", "--num-gpus=2",
         f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}", "--num-cpus=8",
         f"--temp-dir={temporary}", "--include-dashboard=true", "--disable-usage-stats"], folder, "head",
    )  # fmt: skip

    def call(*words, check=True) -> str:
        done = subprocess.run([ray, "job", *words[:1], "--address", f"http://127.0.0.1:{dashboard}", *words[1:]],
                              env=environment, text=True, capture_output=True, timeout=180)  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout + done.stderr

    try:
        command = jobs.command(jobs.material(out / "material"), folder)
        until = time.monotonic() + 180
        while True:
            try:
                call("submit", "--submission-id", "job", "--no-wait", "--", *command)
                break
            except (RuntimeError, subprocess.TimeoutExpired):
                if time.monotonic() > until:
                    raise
                time.sleep(3)
        head.wait_for(lambda: "[riskpo] step 1" in call("logs", "job"), 420, 2)
        start = time.monotonic()
        call("stop", "job", check=False)
        titles = (*ENGINE_CORE, *ENGINE_ACTOR, *POLICY, *DRIVER, f"{sys.executable} -m riskpo_openrlhf")

        def left() -> list[str]:
            return [t for p in head.processes() if (t := jobs._title(p.pid)).startswith(titles)]

        while left() and time.monotonic() - start < 60:
            time.sleep(0.2)
        seconds = time.monotonic() - start
        status, last = call("status", "job"), call("logs", "job").splitlines()[-2:]
        return {"row": "ray job stop", "seconds": round(seconds, 1), "left": left(), "last": last,
                "status": "stopped" in status, "owner": "watch",
                "ok": "stopped" in status and not left()}  # fmt: skip
    finally:
        head.processes()
        os.killpg(head.process.pid, signal.SIGTERM)
        head.end(20)
        head.kill_leftovers()
        shutil.rmtree(temporary, ignore_errors=True)


def node(out: Path, number: int, limit: float) -> dict:
    """Train on a cluster of two nodes. End the node that has the engine, or let it freeze as one that is cut off."""
    name = "node lost" if number == signal.SIGKILL else "node cut off"
    folder = out / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
        # As docs/clusters.md has it: a node that does not answer counts as lost after 30 s, not after 65.
        "RAY_health_check_timeout_ms": "3000", "RAY_health_check_failure_threshold": "5",
    }  # fmt: skip
    with cluster(2, 1, folder, environment) as (address, nodes):
        flags = ("--riskpo.wait_for_gpus", 90)
        job = Job(jobs.command(jobs.material(out / "material"), folder, *flags), folder, address=address)
        job.until_step(1)
        second = psutil.Process(nodes[1].pid)
        family = [second, *second.children(recursive=True)]
        engine = any(jobs._title(process.pid).startswith(ENGINE_ACTOR) for process in family)
        if not engine:  # then it has the policy worker
            assert any(jobs._title(process.pid).startswith(POLICY) for process in family)
        for process in family:
            process.send_signal(number)
        seconds = job.end(limit)
        left = job.leftovers()
    last = [line[:400] for line in job.text().splitlines() if line.strip()][-2:]
    ok = job.process.returncode == 1 and "node" in last[0] and last[1].startswith("[riskpo] cure: ") and not left
    return {"row": name, "seconds": round(seconds, 1), "code": job.process.returncode, "left": left, "last": last,
            "had": "engine" if engine else "policy worker", "owner": "watch", "ok": ok}  # fmt: skip


def job_end_watched(job: Job, limit: float) -> float:
    """Wait for the end, and remember the processes meanwhile."""
    start = time.monotonic()
    while job.process.poll() is None and time.monotonic() - start < limit:
        job.processes()
        time.sleep(0.5)
    return time.monotonic() - start if job.process.poll() is not None else job.end(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="rows whose name holds one of these words")
    parser.add_argument("--resume", action="store_true", help="resume from each row's last checkpoint")
    parser.add_argument("--limit", type=float, default=150, help="seconds from the fault to the end, at most")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "riskpo-faults")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    rows = [row for row in ROWS if row.name in args.only]  # one whole name, or words
    rows = rows or [row for row in ROWS if not args.only or any(word in row.name for word in args.only)]
    if args.list:
        print("\n".join(f"{row.name} ({row.owner})" for row in rows))
        return
    out = args.out.absolute()
    special = {
        "ray job stop": lambda: ray_job_stop(out),
        "node lost": lambda: node(out, signal.SIGKILL, args.limit),
        "node cut off": lambda: node(out, signal.SIGSTOP, args.limit),
    }
    results = []
    for row in rows:
        result = special[row.name]() if row.name in special else run(row, out, args.limit, args.resume)
        results.append(result)
        print(json.dumps(result), flush=True)
        with open(args.out / "results.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({**result, "load": os.getloadavg()[0]}) + "\n")
    wrong = [result["row"] for result in results if not result["ok"]]
    print(f"{len(results) - len(wrong)} of {len(results)} rows as they should be" + "".join(f"\n  {w}" for w in wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
