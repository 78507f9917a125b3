"""Methods against each other on the quickstart's problems: `python3 -m riskpo_openrlhf.cli.compare --suite NAME`.

Runs recipes/quickstart_cpu.sh by each method, learning rate and seed, one run at a time. What is finished is not run
again: stop it and start the same command to go on. Ends with the table of docs/results.md: every method at its best
rate against the baseline, paired by seed, at the last step and at matched Pass@1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean

from riskpo_openrlhf.analysis.paired import common_level, differences
from riskpo_openrlhf.analysis.runs import Run, load_runs

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart_cpu.sh"
SUITES = {
    "methods": ("grpo", "paper", "recommended", "dr_grpo", "dapo", "gspo", "gpg", "gmpo"),
    "riskpo": ("grpo", "paper", "recommended"),
}
RATES = ("2e-5", "5e-5", "1e-4")
SOURCE = "arithmetic"
PASS = f"eval/{SOURCE}/pass@1"
TAGS = (
    PASS, f"eval/{SOURCE}/pass@8", f"eval/{SOURCE}/pass@16", f"eval/{SOURCE}/response_length",
    "train/entropy", "train/risk/rvar_lower", "train/risk/mvar", "train/signal/prompts_all_wrong",
)  # fmt: skip
GUESS = 330  # seconds of a run of 80 steps on two cores, before one is finished


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--suite", choices=SUITES, default="riskpo", help="which methods")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="other methods than the suite's")
    parser.add_argument("--baseline", default="grpo", help="what the others are compared with")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rates", nargs="+", default=list(RATES), metavar="LR", help="the same grid for every method")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--report", action="store_true", help="only the table, of what is finished")
    args = parser.parse_args(argv)
    methods = args.methods or SUITES[args.suite]
    if args.baseline not in methods or args.seeds < 1 or args.steps < 1:
        parser.error(f"--baseline must be one of {', '.join(methods)}; --seeds and --steps at least 1")
    if not RECIPE.is_file():
        parser.error(f"{RECIPE} is not there: run this from a checkout of the project")
    jobs = [(m, rate, seed) for seed in range(args.seeds) for rate in args.rates for m in methods]
    if not args.report and not _run_all(jobs, args):
        return 1
    finished = {job: _folder(args, job) for job in jobs if _finished(_folder(args, job))}
    text = report(finished, methods, args.baseline)
    print(text)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{'-'.join(methods)}.txt").write_text(text + "\n")
    return 0


def report(finished: dict[tuple[str, str, int], Path], methods, baseline: str) -> str:
    """The table of all finished runs: (method, rate, seed) -> folder."""
    runs = {job: load_runs([folder / "tensorboard"])[0] for job, folder in finished.items()}
    best = {method: _best_rate(runs, method) for method in methods}
    lines = []
    for method in methods:
        chosen = {seed: run for (name, rate, seed), run in runs.items() if (name, rate) == (method, best[method])}
        base = {seed: run for (name, rate, seed), run in runs.items() if (name, rate) == (baseline, best[baseline])}
        if not chosen:
            lines.append(f"{method}: no finished run")
            continue
        last = mean(float(run.scalars[PASS].values[-1]) for run in chosen.values())
        lines.append(f"{method}: rate {best[method]}, {len(chosen)} seeds, Pass@1 {last:.3f} at the end")
        seeds = sorted(chosen.keys() & base.keys())
        if method == baseline or not seeds:
            continue
        pairs = [(chosen[seed], base[seed]) for seed in seeds]
        level = common_level(pairs, PASS)
        for title, at in (("at the last step", None), (f"at Pass@1 {level:.3f}", level)):
            lines.append(f"  less {baseline} {title}, {len(seeds)} seeds")
            for tag, difference in differences(pairs, TAGS, PASS, at).items():
                if tag != PASS or at is None:
                    lines.append(f"    {tag:32} {difference}")
    return "\n".join(lines)


def _best_rate(runs: dict[tuple[str, str, int], Run], method: str) -> str | None:
    """The rate with the highest mean Pass@1 at the end, over its seeds."""
    finals: dict[str, list[float]] = {}
    for (name, rate, _), run in runs.items():
        if name == method:
            finals.setdefault(rate, []).append(float(run.scalars[PASS].values[-1]))
    return max(finals, key=lambda rate: mean(finals[rate]), default=None)


def _run_all(jobs, args) -> bool:
    """Whether every job is finished in the end."""
    open_jobs = [job for job in jobs if not _finished(_folder(args, job))]
    for number, job in enumerate(open_jobs):
        left = (len(open_jobs) - number) * _seconds_a_run(args)
        print(f"compare: {len(jobs) - len(open_jobs) + number} of {len(jobs)} runs are finished; about "
              f"{left / 60:.0f} min to go; now {' '.join(map(str, job))}", flush=True)  # fmt: skip
        method, rate, seed = job
        folder = _folder(args, job)
        if folder.exists():  # cut off: a run of minutes is not worth resuming
            folder.rename(folder.with_name(f"{folder.name}-cut-off-{time.time_ns()}"))
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = ["bash", str(RECIPE), "--method", method, "--seed", str(seed), "--steps", str(args.steps)]
        command += ["--out", str(folder), "--", "--actor.adam.lr", rate]
        start = time.monotonic()
        with open(folder.with_name(folder.name + ".log"), "w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        if code:
            print(f"compare: {' '.join(command)} ended with {code}: see {log.name}", file=sys.stderr)
            return False
        temporary = folder / ".finished.json"
        temporary.write_text(json.dumps({"seconds": time.monotonic() - start}))
        os.replace(temporary, folder / "finished.json")
    return True


def _folder(args, job) -> Path:
    method, rate, seed = job
    return args.out.absolute() / f"{args.steps}-steps" / method / rate / f"seed{seed}"


def _finished(folder: Path) -> bool:
    return (folder / "finished.json").is_file()


def _seconds_a_run(args) -> float:
    files = args.out.absolute().glob(f"{args.steps}-steps/*/*/seed*/finished.json")
    times = [json.loads(file.read_text())["seconds"] for file in files]
    return mean(times) if times else GUESS * args.steps / 80


if __name__ == "__main__":
    sys.exit(main())
