"""Reproduce tables and figures of the paper, for `recipes/paper.sh`.

An element (`table1`, `figure4`, …) is a list of trainings, their evaluations, and a table or a picture. Elements
share trainings: Figure 4 needs those of Table 1's GRPO and RiskPO. What is finished is skipped, the rest is resumed.
Files under `--out`: `train/RUN` with `evaluation/SETTING`, `untrained/MODEL/SETTING-SETS`, `table1.md`, `figure4.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from math import nan
from pathlib import Path
from typing import NamedTuple

import elements as paper
from elements import FIGURES, SIXTEEN, TABLES, Distribution, Figure, Row, Training

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # where the package is not installed
DRY = "[riskpo] dry run: "
SUMMARY = "summary.json"  # of a finished evaluation
SMOKE_MINUTES = {"training": 1, "evaluation": 0.5}  # on two free cores


def main() -> int:
    args = parse()
    jobs = Jobs(args)
    jobs.announce()
    if not args.smoke and (absent := jobs.absent()):
        say(f"no data: {' '.join(absent)} {'is' if len(absent) == 1 else 'are'} not in {args.data}. Run\n"
            f"  python3 -m riskpo_openrlhf.cli.prepare_data {' '.join(absent)} --out {args.data}\n"
            "or name the folder with --data or RISKPO_DATA")  # fmt: skip
        return 2
    if args.dry_run:
        return jobs.dry_run()
    for element in args.elements:
        jobs.make(element)
    return 0


def parse() -> argparse.Namespace:
    elements = [*TABLES, *FIGURES]
    parser = argparse.ArgumentParser(
        prog="paper.sh",
        description="Reproduce tables and figures of the paper.",
        allow_abbrev=False,
        epilog="What follows -- goes to every training, and wins over the recipe's flags.",
    )
    add = parser.add_argument
    add("elements", nargs="+", metavar="ELEMENT", help=f"{', '.join(elements)}, or all")
    add(
        "--rows",
        nargs="+",
        metavar="LABEL",
        help="these rows of the tables, and these runs of the figures, alone; e.g. GRPO RiskPO",
    )
    add(
        "--seeds",
        nargs="+",
        type=int,
        default=[42],
        metavar="N",
        help="training seeds (default: 42); several give intervals",
    )
    add(
        "--settings",
        nargs="+",
        choices=("paper", "public"),
        default=["paper", "public"],
        help="how to evaluate (default: both)",
    )
    add("--machines", default="8gpu", help="as for the recipes (default: 8gpu)")
    add("--engines", type=int, default=None, help="vLLM engines of an evaluation (default: the GPUs of one node)")
    add(
        "--method",
        default="paper",
        help="the method of RiskPO's runs (default: paper), e.g. recommended, released-math",
    )
    add("--easy_model", metavar="MODEL", help="train this model on easy mathematics (default: the recipe's)")
    add("--data", type=Path, default=Path(os.environ.get("RISKPO_DATA", ROOT / "data")), help="folder of prepare_data")
    add("--out", type=Path, help="folder of runs, evaluations, tables and pictures (default: runs/paper)")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--dry-run", action="store_true", help="say what would run, and check every training command without a GPU"
    )
    modes.add_argument(
        "--smoke",
        action="store_true",
        help="run it on a CPU with tiny models, two steps a training, and of a table one row of each kind",
    )
    words = sys.argv[1:]
    place = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:place])
    args.flags = words[place + 1 :]
    if "all" in args.elements:
        args.elements = elements
    for element in args.elements:
        if element not in elements:
            parser.error(f"{element} is not an element of the paper that can be run: {', '.join(elements)}, or all")
    labels = {element: list(labels_of(element)) for element in args.elements}
    for element, some in labels.items():
        if args.rows and some and not set(some) & set(args.rows):
            parser.error(f"--rows {' '.join(args.rows)}: those of {element} are {', '.join(map(repr, some))}")
    if unknown := set(args.rows or []) - {label for some in labels.values() for label in some}:
        parser.error(f"--rows {' '.join(sorted(unknown))}: not a row or run of {', '.join(labels)}")
    args.out = (args.out or ROOT / ("runs/smoke/paper" if args.smoke else "runs/paper")).resolve()
    args.data = args.data.resolve()
    args.engines = args.engines or (1 if args.smoke or args.machines == "1gpu" else 8)
    return args


def labels_of(element: str) -> dict:
    """Return the rows of a table or the runs of a figure by label; nothing for Figures 3 and 9."""
    return TABLES.get(element) or getattr(FIGURES.get(element), "runs", {})


class Evaluation(NamedTuple):
    """An evaluation: of a training's model or of an untrained one, on data sets, by a named setting."""

    model: Training | str
    sets: tuple[str, ...]
    setting: str
    seed: int


class Jobs:
    """The trainings and evaluations under one folder, by the settings of one command line."""

    def __init__(self, args: argparse.Namespace):
        self.args = args

    # What an element needs

    def chosen(self, element: str) -> dict[str, Row] | dict[str, Training]:
        """Return the rows of a table or the runs of a figure that the command line asks for."""
        wanted = self.args.rows or (self.args.smoke and paper.SMOKE_ROWS.get(element))
        return {label: row for label, row in labels_of(element).items() if not wanted or label in wanted}

    def trainings(self, element: str) -> list[tuple[Training, int]]:
        """List the trainings of an element, once for each seed."""
        found = self.chosen(element).values()
        models = [model for row in found for model in row.values()] if element in TABLES else found
        unique = dict.fromkeys(model for model in models if isinstance(model, Training))
        return [(training, seed) for training in unique for seed in self.args.seeds]

    def evaluations(self, element: str) -> list[Evaluation]:
        """List the evaluations of an element. Most figures have none: their runs evaluate while they train."""
        if element not in TABLES:
            figure, seed = FIGURES[element], self.args.seeds[0]
            return [Evaluation(figure.model, figure.sets, SIXTEEN, seed)] if isinstance(figure, Distribution) else []
        return [
            Evaluation(model, sets, setting, seed)
            for row in self.chosen(element).values()
            for setting in self.args.settings
            for sets, model in row.items()
            for seed in (self.args.seeds if isinstance(model, Training) else self.args.seeds[:1])
        ]

    def run_folder(self, training: Training, seed: int) -> Path:
        training, model = self.of(training), self.args.easy_model
        parts = [training.name, *([Path(model).name] if model and training.recipe == "math_easy" else [])]
        return self.args.out / "train" / f"{'-'.join(parts)}-seed{seed}"

    def evaluation_folder(self, job: Evaluation) -> Path:
        if isinstance(job.model, Training):  # where the run's report and model card find it
            return self.run_folder(job.model, job.seed) / "evaluation" / job.setting
        return self.args.out / "untrained" / Path(job.model).name / "-".join((*job.setting.split(), *job.sets))

    def of(self, training: Training) -> Training:
        """Return the training by the method of `--method`, if it is RiskPO's."""
        return training._replace(method=self.args.method) if training.method == "paper" else training

    def absent(self) -> list[str]:
        """List the data sets that the elements need and that are not prepared."""
        needed: dict[str, None] = {}
        for element in self.args.elements:
            for training, _ in self.trainings(element):
                sets = paper.HARD if training.variant == paper.CURVES else paper.TESTED_ON[training.recipe]
                needed |= dict.fromkeys((*paper.TRAINED_ON[training.recipe], *sets))
            for job in self.evaluations(element):
                needed |= dict.fromkeys(job.sets)
        return [name for name in needed if not (self.args.data / f"{name}.jsonl").exists()]

    # What will run

    def announce(self) -> None:
        """Print what will run, on which machines and for how long. What several elements need is counted once."""
        hours: Counter[str] = Counter()
        disk, named = 0.0, set()
        for element in self.args.elements:
            trainings = {self.run_folder(*pair): pair for pair in self.trainings(element)}
            evaluations = {self.evaluation_folder(job): job for job in self.evaluations(element)}
            todo = [folder for folder in (*trainings, *evaluations) if not finished(folder)]
            notes = [
                counted(len(trainings), "training"), counted(len(evaluations), "evaluation"),
                f"{len(trainings) + len(evaluations) - len(todo)} finished", f"{len(named & set(todo))} named above",
            ]  # fmt: skip
            say(f"{element}: {', '.join(note for note in notes if not note.startswith('0 '))}")
            groups: Counter[str] = Counter()
            for folder in todo:
                if folder in named:
                    continue
                named.add(folder)
                if pair := trainings.get(folder):
                    taken = self.hours(paper.training_hours(self.of(pair[0])), "training", hours)
                    disk += paper.training_disk(pair[0])
                    say(f"  train {folder.name}{taken}\n    {' '.join(self.command(*pair))}")
                else:
                    job = evaluations[folder]
                    taken = self.hours(paper.evaluation_hours(job.setting, job.sets), "evaluation", hours)
                    how = f"{SIXTEEN} a problem" if job.setting == SIXTEEN else f"setting {job.setting}"
                    groups[f"{', '.join(job.sets)}: {how}{taken}"] += 1
            for what, models in groups.items():
                say(f"  evaluate {counted(models, 'model')} on {what}{' each' * (models > 1 and ' h' in what)}")
        if not named:
            say("nothing is left to train or to evaluate")
        elif self.args.smoke:
            say(f"together about {hours.total():.0f} minutes on two free cores")
        else:
            say(f"together about {hours['training']:.0f} hours of training and {hours['evaluation']:.0f} of evaluation"
                f" on {self.gpus()} GPUs of 80 GB (--machines {self.args.machines}), and {disk:.0f} GB of disk; "
                "computed from assumed speeds, not measured")  # fmt: skip

    def hours(self, gpu_hours: float, kind: str, total: Counter) -> str:
        """Add to the total: hours on the GPUs, or minutes of a smoke run. Return what to print of it."""
        if self.args.smoke:
            total[kind] += SMOKE_MINUTES[kind]
            return ""
        total[kind] += gpu_hours / self.gpus()
        return f", {max(gpu_hours / self.gpus(), 0.1):.1f} h"

    def gpus(self) -> int:
        if self.args.machines.startswith("nodes"):
            return int(os.environ.get("NODES", 2)) * int(os.environ.get("GPUS_PER_NODE", 8))
        return 1 if self.args.machines == "1gpu" else 8

    # Trainings

    def command(self, training: Training, seed: int) -> list[str]:
        """Return the recipe's command. A run that was cut off is resumed."""
        folder, training = self.run_folder(training, seed), self.of(training)
        command = ["bash", str(ROOT / f"recipes/{training.recipe}.sh"), "--method", training.method]
        command += ["--machines", self.args.machines, "--data", str(self.args.data), "--seed", str(seed)]
        command += ["--out", str(folder)]
        if (folder / "checkpoints").exists():
            command.append("--resume")
        if self.args.smoke:
            command.append("--smoke")
        if self.args.easy_model and training.recipe == "math_easy":
            command += ["--model", self.args.easy_model]
        flags = list(training.flags)
        if training.variant == paper.CURVES or training.recipe == "math_easy":  # curves begin at the untrained model
            flags.append("--riskpo.eval_at_start")
        if training.variant == paper.CURVES:
            files = ",".join(str(self.data(training.recipe) / f"{name}.jsonl") for name in paper.HARD)
            flags += ["--eval.dataset", files, "--eval.n_samples_per_prompt", "2" if self.args.smoke else "32"]
            if self.args.smoke:  # OpenRLHF cuts the evaluation, too, at --data.max_samples: all rows of six sets
                flags += ["--data.max_samples", "240", "--riskpo.max_steps", "2"]
        flags += self.args.flags
        return [*command, "--", *flags] if flags else command

    def data(self, recipe: str) -> Path:
        """Return the folder of a recipe's data; a smoke run makes its own."""
        if not self.args.smoke:
            return self.args.data
        return Path(os.environ.get("RISKPO_CACHE", ROOT / ".cache")).resolve() / f"smoke-{recipe.split('_')[0]}"

    def train(self, training: Training, seed: int) -> None:
        folder = self.run_folder(training, seed)
        if folder.exists() and not (folder / "checkpoints").exists():  # cut off before its first checkpoint
            folder.rename(f"{folder}-cut-off-{int(time.time())}")
        call(self.command(training, seed))
        (folder / "finished").touch()

    def dry_run(self) -> int:
        """Dry run every training that is missing. Return 2 if one would be refused."""
        pairs = {self.run_folder(*pair): pair for element in self.args.elements for pair in self.trainings(element)}
        pairs = {folder: pair for folder, pair in pairs.items() if not finished(folder)}
        say(f"checking {len(pairs)} training commands, about 20 seconds each")
        failed = 0
        for folder, pair in pairs.items():
            command = [word for word in self.command(*pair) if word != "--resume"]
            place = command.index("--") if "--" in command else len(command)
            run = subprocess.run([*command[:place], "--dry-run", *command[place:]], capture_output=True, text=True)
            lines = [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith("--")]
            told = [line.removeprefix(DRY) for line in lines if line.startswith(DRY)]
            say(f"  {folder.name}: " + "\n    ".join(told or lines[-8:] or [f"exit code {run.returncode}"]))
            failed += run.returncode != 0
        say(f"{failed} of {len(pairs)} commands would be refused" if failed else "no command was refused")
        return 2 if failed else 0

    # Evaluations

    def evaluate(self, job: Evaluation) -> dict:
        """Run an evaluation, or read it if it is finished. Return its summary."""
        args, out = self.args, self.evaluation_folder(job)
        trained = isinstance(job.model, Training)
        data = self.data(job.model.recipe if trained else "math_hard")
        model = str(self.run_folder(job.model, job.seed) / "model" if trained else job.model)
        flags = ["--setting", job.setting]
        if job.setting == SIXTEEN:
            flags = [word for name, value in paper.DISTRIBUTION.items() for word in (f"--{name}", str(value))]
        if args.smoke:
            model = model if trained else str(data / "model")
            if not data.exists():  # else a training has made it
                call([sys.executable, "-m", "riskpo_openrlhf.lab.smoke", "--task", "math", "--out", str(data)])
            flags += ["--runtime", "cpu", "--max_new_tokens", "24", "--max_len", "400"]
            flags += ["--n", "2", "--temperature", "1"] if job.setting == "public" else []
        files = ",".join(str(data / f"{name}.jsonl") for name in job.sets)
        words = ["--model", model, "--data", files, "--out", str(out), "--reward", "riskpo"]
        words += ["--num_engines", str(args.engines), *flags]
        if not finished(out):
            # Exit code 1 with a summary: no answer could be read. That is a result, and `evaluate` has explained it.
            call([sys.executable, "-m", "riskpo_openrlhf.cli.evaluate", *words], unless=out / SUMMARY)
        return json.loads((out / SUMMARY).read_text(encoding="utf-8"))

    # Elements

    def make(self, element: str) -> None:
        """Run what is missing, and write the table or the picture."""
        for training, seed in self.trainings(element):
            if not finished(self.run_folder(training, seed)):
                self.train(training, seed)
        summaries = {job: self.evaluate(job) for job in self.evaluations(element)}
        if element in TABLES:
            self.write_table(element, summaries)
        elif isinstance(FIGURES[element], Distribution):
            figure, (job,) = FIGURES[element], summaries
            self.plot(element, ["logprob", f"{Path(figure.model).name}={self.evaluation_folder(job)}"])
        else:
            self.draw(element, FIGURES[element])

    def write_table(self, element: str, summaries: dict[Evaluation, dict]) -> None:
        """Write the table beside the paper's numbers, and the evaluations into the model cards."""
        from riskpo_openrlhf.analysis import paper_tables
        from riskpo_openrlhf.analysis.model_card import write_model_card

        measured: dict[str, dict[str, dict[str, list[float]]]] = {}
        for label, row in self.chosen(element).items():
            for job, summary in summaries.items():
                if row.get(job.sets) == job.model:
                    values = measured.setdefault(label, {}).setdefault(job.setting, {})
                    for name in job.sets:  # NaN, shown as a dash, where no response has a verdict
                        values.setdefault(name, []).append(100 * summary["sources"][name].get("pass@1", nan))
        table = paper_tables.TABLES[element]
        text = paper_tables.as_markdown(table, measured)
        if self.args.smoke:
            text = f"A smoke run: tiny models, embedded problems. These numbers mean nothing.\n\n{text}"
        (self.args.out / f"{element}.md").write_text(text, encoding="utf-8")
        (self.args.out / f"{element}.csv").write_text(paper_tables.as_csv(table, measured), encoding="utf-8")
        for pair in self.trainings(element):
            write_model_card(self.run_folder(*pair))
        print(f"\n{text}")
        say(f"{element}: {self.args.out / element}.md and .csv")

    def draw(self, element: str, figure: Figure) -> None:
        runs = [
            f"{label}={','.join(str(self.run_folder(run, seed)) for seed in self.args.seeds)}"
            for label, run in self.chosen(element).items()
        ]
        sources = ["--sources", ",".join(figure.sources)] if figure.sources else []
        self.plot(element, [figure.plot, *runs, *sources])

    def plot(self, element: str, words: list[str]) -> None:
        out = self.args.out / f"{element}.png"
        call([sys.executable, "-m", "riskpo_openrlhf.cli.plot", *words, "--out", str(out)])
        say(f"{element}: the paper prints no numbers for this figure; compare with its picture")


def finished(folder: Path) -> bool:
    """Say whether the training or the evaluation of a folder is finished."""
    return (folder / "finished").exists() or (folder / SUMMARY).exists()


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def call(command: list[str], unless: Path | None = None) -> None:
    """Run a command. End with its exit code if it fails, unless the file `unless` is there then."""
    code = subprocess.run(command).returncode
    if code and not (unless and unless.exists()):
        say(f"exit code {code} of: {' '.join(command)}\nStart the same command again to resume.")
        sys.exit(code if code > 0 else 128 - code)


def say(text: str) -> None:
    print(f"paper: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
