"""Kill random parts of a run at random moments, and measure what it costs.

    python3 tests/system/faults/chaos.py [--steps 300] [--kills 10] [--async] [--seed 0] [--out DIR] [--skip-calm]

Prints the effective training time ratio (time of the steps that count, over wall time), the seconds from each fault to
the next new step, and the mean reward of the last third of the steps beside that of the same run without faults.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from riskpo_openrlhf import console
from riskpo_openrlhf.files import write_jsonl
from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, as_data, problems
from riskpo_openrlhf.lab.tiny_model import MODELS, shipped

sys.path.insert(0, str(Path(__file__).parent))
import job as jobs
from job import DRIVER, ENGINE_ACTOR, ENGINE_CORE, GENERATOR, POLICY, TRAINING_DRIVER, Job

PROMPTS = 12
_SECONDS = re.compile(r"\| ([\d.]+) s$")
_REWARD = re.compile(r"\| reward ([\d.-]+)")


class Reader(threading.Thread):
    """Follows a job's log and notes when each line of ours came."""

    def __init__(self, job: Job):
        super().__init__(daemon=True)
        self.job, self.lines = job, []  # (time, text, data)
        self.start()

    def run(self) -> None:
        with open(self.job.log, encoding="utf-8", errors="replace") as file:
            line = ""
            while True:
                line += file.readline()
                if not line.endswith("\n"):  # not whole yet
                    if self.job.process.poll() is not None:
                        return
                    time.sleep(0.05)
                    continue
                if said := console.read(line):
                    self.lines.append((time.monotonic(), said.text, said.data))
                line = ""

    def steps(self) -> list[tuple[float, int, float, float]]:
        """Return (time, step, seconds, reward) of each step line."""
        found = []
        for at, text, data in list(self.lines):
            if "step" in data:
                found.append((at, data["step"], float(_SECONDS.search(text)[1]), float(_REWARD.search(text)[1])))
        return found

    def last(self) -> int:
        return max((step for _, step, *_ in self.steps()), default=0)


def run(where: Path, folder: Path, args, kills: int) -> dict:
    """Run one job, with so many kills. Return what was measured."""
    shutil.rmtree(folder, ignore_errors=True)
    draw = random.Random(args.seed)
    flags = ["--data.max_samples", args.steps * PROMPTS, "--riskpo.max_restarts", 3 * kills, "--ckpt.max_num", 2]
    flags += ["--train.async_enable"] if args.asynchronous else []
    start = time.monotonic()
    job = Job(jobs.command(where, folder, *flags), folder)
    reader, faults = Reader(job), []
    titles = [ENGINE_CORE, ENGINE_ACTOR, POLICY]
    titles += [GENERATOR, TRAINING_DRIVER] if args.asynchronous else [DRIVER]
    for number in range(kills):
        target = 1 + (args.steps - 2) * (number + draw.random()) / kills
        reached = faults[-1]["step"] + 1 if faults else 1
        while job.process.poll() is None and reader.last() < max(reached, target):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 2 * statistics.median(each[2] for each in reader.steps()) if reader.steps() else 0))
        if job.process.poll() is not None:
            break
        title = draw.choice(titles)
        try:
            victim = draw.choice(job.wait_for(lambda title=title: job.find(title), 300))
            os.kill(victim.pid, signal.SIGKILL)
        except (TimeoutError, ProcessLookupError):
            print(f"no {title[0]} to kill", flush=True)
            continue
        faults.append({"part": title[0], "step": reader.last(), "at": time.monotonic()})
    job.process.wait()
    wall = time.monotonic() - start
    reader.join(5)
    steps = reader.steps()
    counted = {step: (seconds, reward) for _, step, seconds, reward in steps}  # the last time that it was made
    rewards = [counted[step][1] for step in sorted(counted)][-max(1, len(counted) // 3) :]
    waits = []
    for fault in faults:
        after = [at for at, step, *_ in steps if at > fault["at"] and step > fault["step"]]
        waits.append(round(after[0] - fault["at"], 1) if after else None)
    times = [wait for wait in waits if wait is not None]
    return {
        "code": job.process.returncode, "steps": len(counted), "kills": [fault["part"] for fault in faults],
        "restarts": sum("restart" in data for _, _, data in reader.lines),
        "replaced": sum(data.get("replaced", 0) for _, _, data in reader.lines), "wall": round(wall, 1),
        "useful": round(sum(seconds for seconds, _ in counted.values()), 1),
        "ratio": round(sum(seconds for seconds, _ in counted.values()) / wall, 3),
        "repeated_steps": len(steps) - len(counted), "seconds_to_next_step": waits,
        "median": statistics.median(times) if times else None, "max": max(times, default=None),
        "final_reward": round(statistics.mean(rewards), 4) if rewards else None,
        "final_reward_se": round(statistics.stdev(rewards) / len(rewards) ** 0.5, 4) if len(rewards) > 1 else None,
        "left": job.leftovers(), "last": job.text().splitlines()[-2:] if job.process.returncode else [],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--async", dest="asynchronous", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "riskpo-chaos")
    parser.add_argument("--skip-calm", action="store_true", help="leave out the run without faults")
    args = parser.parse_args()
    where = args.out.absolute() / "material"
    shutil.copytree(shipped(MODELS["mixed"]), where / "model", dirs_exist_ok=True)
    write_jsonl(where / "train.jsonl", as_data(problems(CHARACTER_KINDS, args.steps * PROMPTS, 0)))
    results = {"chaos": run(where, args.out.absolute() / "chaos", args, args.kills)}
    print(json.dumps({"chaos": results["chaos"]}), flush=True)
    if not args.skip_calm:
        results["calm"] = run(where, args.out.absolute() / "calm", args, 0)
        print(json.dumps({"calm": results["calm"]}), flush=True)
    ok = all(not each["code"] and each["steps"] == args.steps and not each["left"] for each in results.values())
    sys.exit(not ok)


if __name__ == "__main__":
    main()
