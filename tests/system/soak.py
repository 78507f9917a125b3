"""Look for leaks: train the tiny model for thousands of steps and print how every part of the job grows.

    python3 tests/system/soak.py --mode sync --steps 2000 --folder soak-sync
    python3 tests/system/soak.py --read soak-sync

A step is as small as OpenRLHF allows, since what a step leaves behind does not depend on its size. Every `--every`
seconds the script reads memory, open files and threads of each process of the job, and the bytes in Ray's object
store. They go to `FOLDER/samples.jsonl`. Memory is the resident set: the proportional one, which divides shared pages
among their users, also moves with other jobs of the machine.

The table shows the growth per 1,000 steps, with a 95 % interval: the samples after the first tenth of the steps become
ten blocks, and a line goes through the blocks' means. The second figure is the growth over the last half.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from scipy import stats

ROWS = 800  # prompts an episode
PROMPTS, RESPONSES = 4, 2
BLOCKS = 10
WARM_UP = 0.1
QUANTITIES = ("rss", "shm", "files", "threads")


def command(folder: Path, mode: str, steps: int) -> list[str]:
    from riskpo_openrlhf.files import write_jsonl
    from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, as_data, problems
    from riskpo_openrlhf.lab.tiny_model import MODELS, shipped

    shutil.copytree(shipped(MODELS["mixed"]), folder / "start")
    write_jsonl(folder / "train.jsonl", as_data(problems(CHARACTER_KINDS, ROWS, 0)))
    flags = [
        "--riskpo.runtime", "cpu", "--algo.advantage.estimator", "riskpo", "--algo.riskpo.bundle_size", 2,
        "--actor.model_name_or_path", folder / "start", "--data.prompt_dataset", folder / "train.jsonl",
        "--data.input_key", "input", "--data.label_key", "label", "--reward.remote_url", "riskpo",
        "--actor.num_gpus_per_node", 1, "--vllm.num_engines", 1, "--ds.zero_stage", 3, "--actor.adam.lr", 1e-6,
        "--rollout.batch_size", PROMPTS, "--rollout.n_samples_per_prompt", RESPONSES,
        "--rollout.micro_batch_size", PROMPTS * RESPONSES, "--train.batch_size", PROMPTS * RESPONSES,
        "--train.micro_batch_size", PROMPTS * RESPONSES, "--rollout.max_new_tokens", 6, "--data.max_len", 48,
        "--data.max_samples", ROWS, "--train.num_episodes", -(-steps * PROMPTS // ROWS), "--riskpo.max_steps", steps,
        "--ckpt.path", folder / "checkpoints", "--ckpt.output_dir", folder / "model",
        "--logger.tensorboard_dir", folder / "tensorboard",
    ]  # fmt: skip
    flags += ["--train.async_enable"] if mode == "async" else []
    return [sys.executable, "-m", "riskpo_openrlhf.cli.train", *map(str, flags)]


def soak(folder: Path, mode: str, steps: int, every: float, minutes: float) -> int:
    """Run the job and sample it. Returns its exit code, or 0 if it was ended after `minutes`."""
    folder.mkdir(parents=True)
    log = folder / "job.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    environment.pop("RAY_ADDRESS", None)
    with open(log, "wb") as output:
        job = subprocess.Popen(
            command(folder.absolute(), mode, steps), stdout=output, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
    until, names = time.monotonic() + 60 * minutes, {}
    try:
        with open(folder / "samples.jsonl", "w") as samples:
            while job.poll() is None and time.monotonic() < until:
                time.sleep(every)
                if step := last_step(log):
                    sample = {"step": step, "time": time.time(), "processes": processes(job.pid, names)}
                    sample["object_store_mb"] = object_store_mb(job.pid)
                    samples.write(json.dumps(sample) + "\n")
                    samples.flush()
    finally:
        ended = job.poll()
        if ended is None:
            os.killpg(job.pid, signal.SIGTERM)
            try:
                job.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(job.pid, signal.SIGKILL)
    return ended or 0


def last_step(log: Path) -> int:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 100_000))
        steps = re.findall(rb"\[riskpo\] step (\d+)", file.read())
    return int(steps[-1]) if steps else 0


def processes(job: int, names: dict[int, str]) -> dict[str, dict]:
    """Measure each process of the job. `names`: what each was called so far; Ray's workers rename themselves."""
    found = {}
    for process in [psutil.Process(job), *psutil.Process(job).children(recursive=True)]:
        try:
            title = " ".join(process.cmdline())
            if process.pid == job:
                name = "submitting process"
            elif match := re.search(r"ray::(\w+)|(VLLM::\w+)|(gcs_server|raylet|agent|log_monitor|monitor)\b", title):
                name = next(filter(None, match.groups()))
            else:
                name = Path(title.split(" ")[0]).name or process.name()
            if process.pid not in names or name != "IDLE":
                names[process.pid] = name
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            sizes = {key: int(size) / 1024 for key, size in re.findall(r"^(\w+): +(\d+) kB", rollup, re.M)}
            found[str(process.pid)] = {
                "name": names[process.pid], "rss": sizes["Rss"], "pss": sizes["Pss"], "shm": sizes["Pss_Shmem"],
                "files": process.num_fds(), "threads": process.num_threads(),
            }  # fmt: skip
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            pass  # it ended meanwhile
    return found


def object_store_mb(job: int) -> float | None:
    """Ask Ray for the bytes of living objects. None without an answer: the machine is busy, or the job has ended."""
    try:
        titles = [" ".join(process.cmdline()) for process in psutil.Process(job).children(recursive=True)]
        address = next(match[1] for title in titles if (match := re.search(r"--gcs-address=(\S+)", title)))
    except (psutil.NoSuchProcess, StopIteration):
        return None
    code = (
        "import sys; from ray._private.internal_api import get_memory_info_reply, get_state_from_address\n"
        "print(get_memory_info_reply(get_state_from_address(sys.argv[1])).store_stats.object_store_bytes_used)"
    )
    try:
        answer = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=60)
        return int(answer.stdout.split()[-1]) / 2**20
    except (subprocess.TimeoutExpired, IndexError, ValueError):
        return None


def growth(steps: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Fit growth per 1,000 steps: (slope, half of its 95 % interval), over the means of `BLOCKS` blocks."""
    parts = np.array_split(np.arange(len(steps)), BLOCKS)
    line = stats.linregress([steps[part].mean() for part in parts], [values[part].mean() for part in parts])
    error = np.nan_to_num(line.stderr)  # NaN where nothing changes at all
    return 1000 * line.slope, 1000 * error * stats.t.ppf(0.975, BLOCKS - 2)


def report(folder: Path) -> str:
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    last = samples[-1]["step"]
    samples = [sample for sample in samples if sample["step"] >= WARM_UP * last]
    if len(samples) < 2 * BLOCKS:
        raise SystemExit(f"{folder} holds {len(samples)} samples after the warm-up: {2 * BLOCKS} are needed")
    throughout = set.intersection(*(set(sample["processes"]) for sample in samples))
    rows = [("whole job", lambda sample, quantity: sum(p[quantity] for p in sample["processes"].values()))]
    end = samples[-1]["processes"]
    for pid in sorted(throughout, key=lambda pid: (end[pid]["name"], int(pid))):
        rows.append((end[pid]["name"], lambda sample, quantity, pid=pid: sample["processes"][pid][quantity]))
    steps = np.array([sample["step"] for sample in samples])
    lines = [
        f"{last} steps, {len(samples)} samples from step {steps[0]} on, "
        f"{(samples[-1]['time'] - samples[0]['time']) / 60:.0f} min; growth per 1,000 steps; last half in brackets",
        "",
        "| process | memory now, MB | memory, MB | shared memory, MB | open files | threads |",
        "|---|---|---|---|---|---|",
    ]
    half = steps >= steps[-1] / 2
    for name, read in rows:
        cells = []
        for quantity in QUANTITIES:
            values = np.array([read(sample, quantity) for sample in samples])
            cells.append(_cell(steps, values, half))
        lines.append(f"| {name} | {read(samples[-1], 'rss'):.0f} | " + " | ".join(cells) + " |")
    store = [
        (sample["step"], sample["object_store_mb"]) for sample in samples if sample["object_store_mb"] is not None
    ]
    if len(store) >= 2 * BLOCKS:
        at, values = np.array(store).T
        lines += ["", f"Ray's object store: {values[-1]:.2f} MB now, at most {values.max():.2f}; "
                  f"growth {_cell(at, values, at >= at[-1] / 2)} MB"]  # fmt: skip
    return "\n".join(lines)


def _cell(steps, values, half) -> str:
    slope, interval = growth(steps, values)
    text = f"{slope:+.2f} ± {interval:.2f}"
    return text + (f" ({growth(steps[half], values[half])[0]:+.2f})" if half.sum() >= BLOCKS else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--mode", choices=["sync", "async"], default="sync")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=float, default=20, help="seconds between samples")
    parser.add_argument("--minutes", type=float, default=600, help="end the job after this time; the table is printed")
    parser.add_argument("--folder", type=Path, help="new folder for the job and its samples")
    parser.add_argument("--read", type=Path, metavar="FOLDER", help="print the table of a soak that ran")
    args = parser.parse_args()
    if args.read:
        print(report(args.read))
        return 0
    if not args.folder or args.folder.exists():
        parser.error("--folder must name a new folder")
    code = soak(args.folder, args.mode, args.steps, args.every, args.minutes)
    print(report(args.folder))
    return code


if __name__ == "__main__":
    sys.exit(main())
