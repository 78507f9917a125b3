"""Train on Ray clusters of several nodes on this machine, and compare what the driver computes.

    python3 tests/system/cluster.py [--only one together two colocated asynchronous partial two_each four] [--steps N]

Every job has the same seed, prompts and rewards. A reward depends on the prompt alone, so it is the same whatever the
engines answer, and every step trains on all prompts. Groups arrive in another order in each job. Advantages and
tracker must not depend on that, nor on the number of nodes, ranks and engines: all `riskpo/*`, `risk/*` and `signal/*`
metrics of a step are compared with those of the first job, to the last bit. `together` and `two` have the same ranks
and engines on one node and on two: compare their `step_seconds`. On demand; a job takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

PREFIXES = ("riskpo/", "risk/", "signal/")
PROMPTS = 12
# name -> nodes, GPUs a node, flags
JOBS = {
    "one": (1, 2, ["--actor.num_nodes", 1, "--actor.num_gpus_per_node", 1, "--vllm.num_engines", 1]),
    "together": (1, 4, ["--actor.num_nodes", 1, "--actor.num_gpus_per_node", 2, "--vllm.num_engines", 2]),
    "two": (2, 2, ["--actor.num_nodes", 2, "--actor.num_gpus_per_node", 1, "--vllm.num_engines", 2]),
    "colocated": (
        2, 1,
        ["--actor.num_nodes", 2, "--actor.num_gpus_per_node", 1, "--vllm.num_engines", 2, "--train.colocate_all"],
    ),
    "asynchronous": (
        2, 2,
        ["--actor.num_nodes", 2, "--actor.num_gpus_per_node", 1, "--vllm.num_engines", 2, "--train.async_enable"],
    ),
    "partial": (
        2, 1,
        ["--actor.num_nodes", 1, "--actor.num_gpus_per_node", 1, "--vllm.num_engines", 1, "--train.async_enable",
         "--train.partial_rollout_enable"],
    ),
    "two_each": (2, 3, ["--actor.num_nodes", 2, "--actor.num_gpus_per_node", 2, "--vllm.num_engines", 2]),
    "four": (4, 2, ["--actor.num_nodes", 4, "--actor.num_gpus_per_node", 1, "--vllm.num_engines", 4]),
}  # fmt: skip
REWARD = """
import zlib

def reward_func(queries, prompts, labels):
    scores = [float(zlib.crc32(prompt.encode()) % 3 > 0) for prompt in prompts]
    return {"rewards": scores[0], "scores": scores[0], "extra_logs": {}}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def cluster(nodes: int, gpus: int, folder: Path, environment: dict, others: dict | None = None):
    """Start a head and `nodes` - 1 other nodes with `gpus` pretend GPUs each. Yield its address and its processes.

    `others`: the environment of the other nodes, if it is another one.
    """
    ray, address, started = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"], "", []
    port = free_port()
    address = f"127.0.0.1:{port}"
    resources = ["--num-gpus", str(gpus), "--num-cpus", str(gpus + 4), "--object-store-memory", "200000000"]
    temporary = tempfile.mkdtemp(prefix="rn", dir="/tmp")  # short: Ray's sockets lie in it
    try:
        for node in range(nodes):
            where = ["--head", "--port", str(port), "--node-ip-address", "127.0.0.1", "--include-dashboard", "false",
                     "--temp-dir", temporary, "--ray-client-server-port",
                     str(free_port())] if node == 0 else ["--address", address]  # fmt: skip
            with open(folder / f"node{node}.log", "wb") as log:
                started.append(subprocess.Popen(
                    [*ray, *where, *resources], env=others if node and others else environment,
                    stdout=log, stderr=log, start_new_session=True,
                ))  # fmt: skip
            # One after another: nodes that start at the same moment on one machine take each other's ports.
            wait_for_start(folder / f"node{node}.log")
        yield address, started
    finally:
        for process in started:
            end(process)
        shutil.rmtree(temporary, ignore_errors=True)


def wait_for_start(log: Path, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while "Ray runtime started" not in log.read_text(errors="replace"):
        if time.monotonic() > limit:
            raise SystemExit(f"a node did not start within {seconds} s: {log}")
        time.sleep(0.2)


def end(process: subprocess.Popen) -> None:
    """Kill a node: every process of its session."""
    import psutil

    try:
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for each in family:
        try:
            os.kill(each.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def command(folder: Path, steps: int, flags: list) -> list[str]:
    return list(map(str, [
        sys.executable, "-m", "riskpo_openrlhf.cli.train", "--riskpo.runtime", "cpu",
        "--algo.advantage.estimator", "riskpo", "--actor.model_name_or_path", folder.parent / "model",
        "--data.prompt_dataset", folder.parent / "train.jsonl", "--data.input_key", "input",
        "--data.label_key", "label", "--reward.remote_url", folder.parent / "reward.py", "--ds.zero_stage", 3,
        "--rollout.batch_size", PROMPTS, "--rollout.n_samples_per_prompt", 4, "--rollout.micro_batch_size", 4,
        "--train.batch_size", 24, "--train.micro_batch_size", 2, "--rollout.max_new_tokens", 6,
        "--data.max_len", 48, "--data.max_samples", PROMPTS, "--train.num_episodes", steps,
        "--actor.adam.lr", 1e-4, "--train.seed", 7, "--riskpo.wait_for_gpus", 90,
        "--ckpt.path", folder / "checkpoints", "--ckpt.output_dir", folder / "model",
        "--logger.tensorboard_dir", folder / "tensorboard", *flags,
    ]))  # fmt: skip


def values(folder: Path) -> dict[tuple[int, str], float]:
    """(step, metric) -> value, of what the driver computes."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for file in folder.glob("tensorboard/**/events.*"):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            name = tag.removeprefix("train/")
            if name.startswith(PREFIXES):
                found.update({(event.step, name): event.value for event in events.Scalars(tag)})
    return found


def main() -> int:
    """Run the command. Returns its exit code: 1 if a job failed or a value differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep logs and folders there")
    args = parser.parse_args()
    base = args.out or Path(tempfile.mkdtemp(prefix="riskpo-cluster-"))
    material(base)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    first, wrong = None, 0
    for name in args.only:
        nodes, gpus, flags = JOBS[name]
        folder = base / name
        folder.mkdir()
        with cluster(nodes, gpus, folder, environment) as (address, _):
            start = time.monotonic()
            with open(folder / "train.log", "wb") as log:
                code = subprocess.call(
                    command(folder, args.steps, flags), env={**environment, "RAY_ADDRESS": address},
                    stdout=log, stderr=log, cwd=folder, timeout=900,
                )  # fmt: skip
        found = values(folder)
        steps = sorted({step for step, _ in found})
        first = found if first is None else first
        differ = sorted({key for key in first.keys() | found.keys() if first.get(key) != found.get(key)})
        wrong += bool(code or differ or len(steps) != args.steps)
        log = (folder / "train.log").read_text(errors="replace")
        times = [float(found) for found in re.findall(r"\[riskpo\] step .* \| ([\d.]+) s", log)]
        print(json.dumps({
            "job": name, "nodes": nodes, "exit": code, "seconds": round(time.monotonic() - start), "steps": len(steps),
            "step_seconds": statistics.median(times) if times else None,
            "values": len(found), "differ": len(differ), "first": [*differ[:3]],
        }), flush=True)  # fmt: skip
    print(f"logs: {base}")
    return 1 if wrong else 0


def material(base: Path) -> None:
    """Write the small model that the laboratory ships, the prompts and the reward file."""
    from riskpo_openrlhf.files import write_jsonl
    from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, as_data, problems
    from riskpo_openrlhf.lab.tiny_model import MODELS, shipped

    base.mkdir(parents=True, exist_ok=True)
    shutil.copytree(shipped(MODELS["mixed"]), base / "model", dirs_exist_ok=True)
    write_jsonl(base / "train.jsonl", as_data(problems(CHARACTER_KINDS, PROMPTS, 0)))
    (base / "reward.py").write_text(REWARD)


if __name__ == "__main__":
    sys.exit(main())
