"""Compare methods and settings on small arithmetic: `python3 -m riskpo_openrlhf.lab.compare_methods --suite NAME`.

Trains the same small model by each method, learning rate and seed, one run at a time. Ray and the engines stay up
(`lab.train_series`). A method is NAME or NAME,KNOB=VALUE,...: a file of recipes/methods with some of RiskPO's knobs
(`omega=2`) or any other flag (`actor.eps_clip=0.3`) changed. With several rates, the first seed tries them all; each
method then runs the other seeds at its best rate. OUT/runs.jsonl holds the finished runs. To resume, start the same
command: finished runs are skipped. Prints tables in Markdown, with 95 % intervals: every method, and its difference
from the baseline on the same seeds, at the end and at matched Pass@1.
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
from statistics import mean

import numpy as np

from riskpo_openrlhf.analysis.draw import draw
from riskpo_openrlhf.analysis.runs import Curve, load_runs
from riskpo_openrlhf.config import FLAG_PREFIX
from riskpo_openrlhf.files import lock, write_jsonl
from riskpo_openrlhf.lab.methods_table import (
    CAPTION,
    Record,
    append_record,
    best_rate,
    curves_of,
    pictures,
    read_records,
    tables,
)

CHECKOUT = Path(__file__).parents[2]
RECIPE = CHECKOUT / "recipes" / "quickstart_cpu.sh"
METHODS = ("grpo", "recommended", "paper", "dr_grpo", "maxrl", "dapo", "gspo", "gpg", "gmpo")
# RiskPO without risk: an advantage that is never positive, and bundles with a plain baseline.
REWARD_LESS_1 = "paper,bundle_size=1,quantile_source=batch,alpha=0.2,beta=0.9,omega=0"
BUNDLE_SCORE = "paper,alpha=0.5,beta=0.999,omega=0,constant=false"
SUITES = {
    "methods": (*METHODS, REWARD_LESS_1, BUNDLE_SCORE),
    "riskpo": ("grpo", "paper", "recommended"),
    # The ablations of arXiv:2510.00911: Table 3, Table 4, Table 5 and Figure 6.
    "levels": ("paper", *(f"paper,alpha={a},beta={b}" for a, b in
               ((0.1, 0.8), (0.3, 0.8), (0.4, 0.8), (0.2, 0.6), (0.2, 0.7), (0.2, 0.9)))),
    "bundles": ("paper", *(f"paper,bundle_size={size}" for size in (1, 2, 3, 10))),
    "omega": ("paper", *(f"paper,omega={omega}" for omega in (0, 0.1, 1))),
    "profile": ("paper", "paper,profile=seeking"),
}  # fmt: skip
RATES = ("1e-4", "2e-4", "4e-4")
# Measured by the engines' samples, and for the small models from their checkpoints, without sampling error.
SAMPLED, EXACT = "eval/arithmetic", "heldout/arithmetic"
EXACT_KS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
EXACT_PROBLEMS, EXACT_EVERY = 1000, 5  # steps
# Seconds a step, with evaluations: the estimate until the first run has finished.
GUESS = {"mixed": 1.5, "micro": 1.5, "smollm2": 60.0}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=__doc__.split("\n\n")[1], allow_abbrev=False
    )
    parser.add_argument("--suite", choices=SUITES, default="riskpo", help="which methods (default: riskpo)")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="these methods instead of the suite's")
    parser.add_argument("--baseline", help="what the others are compared with (default: the first method)")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, 0 to N-1 (default: 5)")
    parser.add_argument("--steps", type=int, default=60, help="training steps of a run (default: 60)")
    rates = f"learning rates, the same for every method (default: {' '.join(RATES)})"
    parser.add_argument("--rates", nargs="+", default=list(RATES), metavar="LR", help=rates)
    parser.add_argument(
        "--model", choices=tuple(GUESS), default="mixed", help="model of recipes/quickstart_cpu.sh (default: mixed)"
    )
    parser.add_argument("--heldout", type=int, help="problems of the evaluation (default: 160; smollm2: 36)")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="output folder (default: runs/compare)")
    parser.add_argument("--report", action="store_true", help="train nothing; print the tables of the finished runs")
    parser.add_argument(
        "--levels", nargs="+", type=float, default=[], metavar="PASS@1",
        help="match at these values of Pass@1 (default: the highest that both runs of a pair reach)",
    )  # fmt: skip
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the curves, as FILE.png and FILE.svg")
    parser.add_argument(
        "flags", nargs="*", metavar="-- FLAGS", help="training flags for every run; give them an --out of their own"
    )
    args = parser.parse_args(argv)
    args.methods = list(dict.fromkeys(args.methods or SUITES[args.suite]))
    args.baseline = args.baseline or args.methods[0]
    if args.flags and not args.flags[0].startswith("--"):
        parser.error(f"{' '.join(args.flags)}: name methods behind --methods, and training flags behind --")
    if args.baseline not in args.methods or args.seeds < 1 or args.steps < 1:
        parser.error(f"--baseline must be one of {' '.join(args.methods)}; --seeds and --steps at least 1")
    if not all(0 < level < 1 for level in args.levels):
        parser.error(f"--levels {' '.join(map(str, args.levels))}: values of Pass@1 lie between 0 and 1")
    if not RECIPE.is_file():
        parser.error(f"{RECIPE} is not there: run this from a checkout of the project")
    args.out = args.out.absolute()
    try:
        for method in args.methods:
            split_method(method)
        # With several rates, seed 0 comes first: it chooses the rate of the others.
        rounds = (range(1), range(1, args.seeds)) if len(args.rates) > 1 else (range(args.seeds),)
        if not args.report:
            with lock(args.out):  # a second process would take the run that goes on for one that was cut off
                if not all(_run(seeds, args) for seeds in rounds):
                    return 1
        records = read_records(args.out / "runs.jsonl")
        chosen = {method: _chosen(records, method, args) for method in args.methods}
        if args.picture:
            draw(pictures(chosen, _source(args), _entropy(args)), args.picture, CAPTION)
    except BlockingIOError:
        parser.error(
            f"--out {args.out} is in use by another compare_methods: wait for its end, or name another folder; "
            "--report prints the tables of the runs that are finished"
        )
    except ValueError as error:
        parser.error(str(error))
    print(tables(chosen, args.baseline, _columns(args), f"{_source(args)}/pass@1", args.levels))
    return 0


def _exact(args) -> bool:
    return args.model != "smollm2"


def _source(args) -> str:
    return EXACT if _exact(args) else SAMPLED


def _entropy(args) -> str:
    return f"{EXACT}/entropy" if _exact(args) else "train/entropy"


def _columns(args) -> dict[str, str]:
    source = _source(args)
    return {
        "Pass@1": f"{source}/pass@1",
        "Pass@16": f"{source}/pass@16",
        "solved in 32": f"{source}/pass@32",
        **({"Pass@256": f"{source}/pass@256"} if source == EXACT else {}),
        "entropy": _entropy(args),
        "lower RVaR": "train/risk/rvar_lower",
        "length": f"{EXACT}/response_length" if source == EXACT else "train/rollout/response_length_mean",
    }


def split_method(text: str) -> tuple[str, list[str]]:
    """Split `NAME,KNOB=VALUE,...` into the recipe's name and flags. Raises `ValueError` for a malformed one."""
    name, *changes = text.split(",")
    flags = []
    for change in changes:
        knob, mark, value = change.partition("=")
        if not (knob and mark and value):
            raise ValueError(f"{text}: {change!r} is not KNOB=VALUE")
        flags += [f"--{knob}" if "." in knob else FLAG_PREFIX + knob, value]
    if not (CHECKOUT / "recipes" / "methods" / f"{name}.sh").is_file():
        raise ValueError(f"{text}: there is no recipes/methods/{name}.sh")
    return name, flags


def _jobs(seeds: range, args, records) -> list[tuple[str, str, int]]:
    """List (method, rate, seed): every rate with seed 0, the best rate of each method with the others."""
    best = {method: _best_rate(records, method, args) or args.rates[0] for method in args.methods}
    first = [(method, rate, 0) for rate in args.rates for method in args.methods if 0 in seeds]
    return first + [(method, best[method], seed) for seed in seeds if seed > 0 for method in args.methods]


def _best_rate(records, method: str, args) -> str | None:
    return best_rate(_of(records, method, args, {0}), f"{_source(args)}/pass@1")


def _of(records, method: str, args, seeds) -> list[Record]:
    return [
        record
        for record in records.values()
        if (record.method, record.steps, record.model) == (method, args.steps, args.model)
        and record.rate in args.rates
        and record.seed in seeds
    ]


def _chosen(records, method: str, args) -> list[Record]:
    """Return the runs of a method at the rate that is best for it with the first seed."""
    rate = _best_rate(records, method, args)
    return [record for record in _of(records, method, args, range(args.seeds)) if record.rate == rate]


def _run(seeds: range, args) -> bool:
    """Run what is not finished of some seeds. Return whether all is finished in the end."""
    records = read_records(args.out / "runs.jsonl")
    wanted = _jobs(seeds, args, records)
    jobs = [job for job in wanted if (*job, args.steps, args.model) not in records]
    if not jobs:
        return True
    threads = str(os.cpu_count()) if args.model == "smollm2" else "1"
    environment = {**os.environ, "RISKPO_CACHE": str(args.out / "data"), "OMP_NUM_THREADS": threads}
    for seed in sorted({seed for _, _, seed in jobs}):
        print(f"compare: model and problems of seed {seed}", flush=True)
        _recipe(args, environment, "--prepare", *_seeds(seed))
    rows = [{"folder": str(_folder(args, job)), "flags": _flags(args, environment, job)} for job in jobs]
    write_jsonl(args.out / "jobs.jsonl", rows)
    for job in jobs:  # remove what was cut off: a run of minutes is not worth resuming
        shutil.rmtree(_folder(args, job), ignore_errors=True)
    command = [sys.executable, "-m", "riskpo_openrlhf.lab.train_series", str(args.out / "jobs.jsonl")]
    child = subprocess.Popen(command, env=environment, cwd=CHECKOUT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the training ends as well
    try:
        for number, job in enumerate(jobs):
            finished = len(wanted) - len(jobs) + number
            times = [r.seconds for r in records.values() if (r.steps, r.model) == (args.steps, args.model)]
            left = (len(jobs) - number) * (mean(times) if times else GUESS[args.model] * args.steps)
            print(f"compare: {finished} of {len(wanted)} runs are finished; about {left / 60:.0f} min to go; "
                  f"now {' '.join(map(str, job))}", flush=True)  # fmt: skip
            done = _folder(args, job) / "finished.json"
            while not done.is_file():
                if child.poll() is not None and not done.is_file():
                    print(f"compare: {' '.join(map(str, job))} ended with {child.returncode}: see "
                          f"{done.parent / 'train.log'}", file=sys.stderr)  # fmt: skip
                    return False
                time.sleep(1)
            record = _record(args, job, json.loads(done.read_text())["seconds"])
            append_record(args.out / "runs.jsonl", record)
            records[record.key] = record
        return child.wait() == 0
    finally:
        child.terminate()
        child.wait()


def _record(args, job, seconds: float) -> Record:
    method, rate, seed = job
    (run,) = load_runs([_folder(args, job) / "tensorboard"])
    if _exact(args):
        run.scalars.update(_exact_curves(args.model, _data(args, seed) / "model", _folder(args, job) / "checkpoints"))
    return Record(method, rate, seed, args.steps, args.model, round(seconds, 1), curves_of(run))


def _exact_curves(name: str, start: Path, checkpoints: Path) -> dict[str, Curve]:
    """Measure Pass@k, entropy and length of the folder `start` and of every checkpoint, on held-out problems."""
    from transformers.utils.logging import disable_progress_bar

    from riskpo_openrlhf.lab.arithmetic import problems
    from riskpo_openrlhf.lab.prepare_quickstart import HELDOUT_SEED
    from riskpo_openrlhf.lab.tiny_model import MODELS, exact_metrics, load

    disable_progress_bar()  # one a checkpoint
    kinds = MODELS[name].kinds
    rows = problems(kinds, EXACT_PROBLEMS, HELDOUT_SEED, split="heldout", unique=True)
    folders = {int(re.search(r"\d+", folder.name)[0]): folder for folder in checkpoints.glob("global_step*_hf")}
    folders[0] = start
    steps = np.array(sorted(folders))
    found = [exact_metrics(*load(folders[step]), rows, EXACT_KS) for step in steps]
    return {f"{EXACT}/{name}": Curve(steps, np.array([each[name] for each in found])) for name in found[0]}


def _seeds(seed: int) -> list[str]:
    """A seed of the comparison is a model, its problems and its rollouts."""
    return ["--seed", str(seed), "--model-seed", str(seed)]


def _data(args, seed: int) -> Path:
    return args.out / "data" / f"quickstart-{args.model}-seed{seed}"


def _folder(args, job) -> Path:
    method, rate, seed = job
    return args.out / f"{args.model}-{args.steps}-steps" / method / rate / f"seed{seed}"


def _flags(args, environment, job) -> list[str]:
    method, rate, seed = job
    name, changes = split_method(method)
    flags = ["--actor.adam.lr", rate, "--logger.wandb.run_name", method]
    flags += ["--ckpt.best_metric_key", "none", "--ckpt.disable_ds"]
    if _exact(args):  # the engines' own evaluation is only there to be compared with
        flags += ["--ckpt.save_hf", "--ckpt.save_steps", str(EXACT_EVERY)]
        flags += ["--eval.steps", str(args.steps), "--eval.n_samples_per_prompt", "8"]
    else:
        flags += ["--ckpt.save_steps", "-1", "--eval.steps", str(max(1, args.steps // 3))]
    flags += [*changes, *args.flags]
    out = ["--out", str(_folder(args, job))]
    printed = _recipe(args, environment, "--print", *_seeds(seed), "--method", name, *out, "--", *flags)
    return printed.splitlines()


def _recipe(args, environment, *more: str) -> str:
    """Return what the recipe prints. Raises `ValueError` with its last words if it fails."""
    heldout = [] if args.heldout is None else ["--heldout", str(args.heldout)]
    command = ["bash", str(RECIPE), "--model", args.model, "--steps", str(args.steps), *heldout, *more]
    found = subprocess.run(command, env=environment, text=True, capture_output=True)
    if found.returncode:
        raise ValueError(f"{' '.join(command)} ended with {found.returncode}: {found.stderr.strip()[-500:]}")
    return found.stdout


if __name__ == "__main__":
    sys.exit(main())
