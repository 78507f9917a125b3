"""Reproduce tables and figures of the paper, for `recipes/paper.sh`.

An element (`table1`, `figure4`, …) is a list of trainings, their evaluations, and a table or a picture. Elements
share trainings: Figure 4 needs those of Table 1's GRPO and RiskPO. What is finished is skipped, the rest is resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from elements import CURVES, EASY, FIGURES, HARD, TABLES, TRAINED_ON, Distribution, Figure, Row, Training, gpu_hours

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    args = parse()
    jobs = Jobs(args)
    for element in args.elements:
        jobs.announce(element)
    if args.dry_run:
        return jobs.dry_run()
    if not args.smoke and (absent := jobs.absent()):
        say(f"no data: {' '.join(absent)} {'is' if len(absent) == 1 else 'are'} not in {args.data}. Run\n"
            f"  python3 -m riskpo_openrlhf.cli.prepare_data {' '.join(absent)} --out {args.data}\n"
            "or name the folder with --data or RISKPO_DATA")  # fmt: skip
        return 2
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
    add("--rows", nargs="+", metavar="LABEL", help="these rows of the tables alone, e.g. GRPO RiskPO")
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
    add("--dry-run", action="store_true", help="say what would run, and check every training command without a GPU")
    add("--smoke", action="store_true", help="run all of it on a CPU with tiny models and 2 steps a training")
    words = sys.argv[1:]
    place = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:place])
    args.flags = words[place + 1 :]
    if "all" in args.elements:
        args.elements = elements
    for element in args.elements:
        if element not in elements:
            parser.error(f"{element} is not an element of the paper that can be run: {', '.join(elements)}, or all")
    labels = {label for element in args.elements for label in TABLES.get(element, {})}
    if unknown := [label for label in args.rows or [] if label not in labels]:
        parser.error(
            f"--rows {' '.join(unknown)}: the rows are {', '.join(sorted(labels)) or 'none (a figure has no rows)'}"
        )
    args.out = (args.out or ROOT / ("runs/smoke/paper" if args.smoke else "runs/paper")).resolve()
    args.data = args.data.resolve()
    args.engines = args.engines or (1 if args.smoke or args.machines == "1gpu" else 8)
    return args


class Jobs:
    """The trainings and evaluations under one folder, by the settings of one command line."""

    def __init__(self, args: argparse.Namespace):
        self.args = args

    # What an element needs

    def rows(self, element: str) -> dict[str, Row]:
        return {label: row for label, row in TABLES[element].items() if not self.args.rows or label in self.args.rows}

    def trainings(self, element: str) -> list[Training]:
        if element in TABLES:
            models = [model for row in self.rows(element).values() for model in row.values()]
        else:
            models = list(getattr(FIGURES[element], "runs", {}).values())
        return list(dict.fromkeys(model for model in models if isinstance(model, Training)))

    def run_folder(self, training: Training, seed: int) -> Path:
        return self.args.out / "train" / f"{self.of(training).name}-seed{seed}"

    def of(self, training: Training) -> Training:
        """Return the training by the method of `--method`, if it is RiskPO's."""
        return training._replace(method=self.args.method) if training.method == "paper" else training

    def missing(self, element: str) -> Iterator[tuple[Training, int]]:
        for training in self.trainings(element):
            for seed in self.args.seeds:
                if not (self.run_folder(training, seed) / "finished").exists():
                    yield training, seed

    def absent(self) -> list[str]:
        """List the data sets that the elements need and that are not prepared."""
        needed: dict[str, None] = {}
        for element in self.args.elements:
            for training in self.trainings(element):
                needed |= dict.fromkeys(TRAINED_ON[training.recipe])
            if element in TABLES:
                sets = [sets for row in self.rows(element).values() for sets in row]
            elif isinstance(FIGURES[element], Distribution):
                sets = [FIGURES[element].sets]
            else:
                sets = [HARD if run.variant == CURVES else EASY for run in FIGURES[element].runs.values()]
            needed |= dict.fromkeys(name for names in sets for name in names)
        return [name for name in needed if not (self.args.data / f"{name}.jsonl").exists()]

    def announce(self, element: str) -> None:
        """Print what the element needs, and an estimate of the hours."""
        missing, runs = list(self.missing(element)), len(self.trainings(element)) * len(self.args.seeds)
        hours = sum(gpu_hours(training) for training, _ in missing) / self.gpus()
        say(
            f"{element}: {runs} trainings, {runs - len(missing)} finished; about {hours:.0f} hours of training on "
            f"{self.gpus()} GPUs (computed from assumed speeds, not measured), then evaluation"
        )
        for training, seed in missing:
            say(f"    {' '.join(self.command(training, seed))}")

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
        if training.variant == CURVES:
            data = self.data(training.recipe)
            flags += [
                "--eval.dataset",
                ",".join(str(data / f"{name}.jsonl") for name in HARD),
                "--riskpo.eval_at_start",
            ]
            flags += ["--eval.n_samples_per_prompt", "2" if self.args.smoke else "32"]
            if self.args.smoke:  # OpenRLHF cuts the evaluation, too, at --data.max_samples: all rows of six sets
                flags += ["--data.max_samples", "240"]
        flags += self.args.flags
        return [*command, "--", *flags] if flags else command

    def data(self, recipe: str) -> Path:
        """Return the folder of a recipe's data; a smoke run makes its own."""
        if not self.args.smoke:
            return self.args.data
        return Path(os.environ.get("RISKPO_CACHE", ROOT / ".cache")).resolve() / f"smoke-{recipe}"

    def train(self, training: Training, seed: int) -> None:
        folder = self.run_folder(training, seed)
        if folder.exists() and not (folder / "checkpoints").exists():  # cut off before its first checkpoint
            folder.rename(f"{folder}-cut-off-{int(time.time())}")
        call(self.command(training, seed))
        (folder / "finished").touch()

    def dry_run(self) -> int:
        """Dry run every training that is missing. Return 2 if one would be refused."""
        failed = 0
        for training, seed in dict.fromkeys(pair for element in self.args.elements for pair in self.missing(element)):
            command = [word for word in self.command(training, seed) if word not in ("--smoke", "--resume")]
            place = command.index("--") if "--" in command else len(command)
            run = subprocess.run([*command[:place], "--dry-run", *command[place:]], capture_output=True, text=True)
            lines = (run.stdout + run.stderr).strip().splitlines() or [""]
            shown = lines[-1:] if run.returncode == 0 else [line for line in lines if not line.startswith("--")][-8:]
            say(f"{training.name}, seed {seed}: " + "\n    ".join(shown))
            failed += run.returncode != 0
        return 2 if failed else 0

    # Evaluations

    def evaluate(self, model: Training | str, sets: tuple[str, ...], setting: str, seed: int, *flags: str) -> dict:
        """Evaluate a model, or read the finished evaluation. Return its summary."""
        args = self.args
        recipe = model.recipe if isinstance(model, Training) else "math_hard"
        data = self.data(recipe)
        name = self.run_folder(model, seed).name if isinstance(model, Training) else model.split("/")[-1]
        out = args.out / "evaluate" / name / "-".join((setting, *sets))
        path = str(self.run_folder(model, seed) / "model" if isinstance(model, Training) else model)
        if args.smoke:
            path = path if isinstance(model, Training) else str(data / "model")
            flags = ("--runtime", "cpu", "--max_new_tokens", "24", "--max_len", "400")
            flags += () if setting == "paper" else ("--n", "2", "--temperature", "1")
        words = ["--model", path, "--data", ",".join(str(data / f"{name}.jsonl") for name in sets), "--out", str(out)]
        words += ["--setting", setting, "--reward", "riskpo", "--num_engines", str(args.engines), *flags]
        if not (out / "summary.json").exists():
            # Exit code 1 with a summary: no answer could be read. That is a result, and `evaluate` has explained it.
            call([sys.executable, "-m", "riskpo_openrlhf.cli.evaluate", *words], unless=out / "summary.json")
        return json.loads((out / "summary.json").read_text(encoding="utf-8"))

    # Elements

    def make(self, element: str) -> None:
        for training, seed in self.missing(element):
            self.train(training, seed)
        if element in TABLES:
            self.write_table(element)
        elif isinstance(FIGURES[element], Distribution):
            self.draw_distribution(element, FIGURES[element])
        else:
            self.draw(element, FIGURES[element])

    def write_table(self, element: str) -> None:
        from riskpo_openrlhf.analysis import paper_tables

        measured: dict[str, dict[str, dict[str, list[float]]]] = {}
        for label, row in self.rows(element).items():
            for setting in self.args.settings:
                values = measured.setdefault(label, {}).setdefault(setting, {})
                for sets, model in row.items():
                    for seed in self.args.seeds if isinstance(model, Training) else self.args.seeds[:1]:
                        sources = self.evaluate(model, sets, setting, seed)["sources"]
                        for name in sets:
                            values.setdefault(name, []).append(100 * sources[name]["pass@1"])
        table = paper_tables.TABLES[element]
        text = paper_tables.as_markdown(table, measured)
        if self.args.smoke:
            text = f"A smoke run: tiny models, embedded problems. These numbers mean nothing.\n\n{text}"
        (self.args.out / f"{element}.md").write_text(text, encoding="utf-8")
        (self.args.out / f"{element}.csv").write_text(paper_tables.as_csv(table, measured), encoding="utf-8")
        print(f"\n{text}")
        say(f"{element}: {self.args.out / element}.md and .csv")

    def draw(self, element: str, figure: Figure) -> None:
        runs = [
            f"{label}={','.join(str(self.run_folder(run, seed)) for seed in self.args.seeds)}"
            for label, run in figure.runs.items()
        ]
        sources = ["--sources", ",".join(figure.sources)] if figure.sources else []
        self.plot(element, [figure.plot, *runs, *sources])

    def draw_distribution(self, element: str, figure: Distribution) -> None:
        flags = ("--n", "16", "--temperature", "0.8", "--top_p", "1", "--max_new_tokens", "3072")
        if self.args.smoke:
            self.args.data = self.data("math_hard")
        self.evaluate(figure.model, figure.sets, "public", self.args.seeds[0], *flags)
        name = figure.model.split("/")[-1]
        self.plot(
            element, ["logprob", f"{name}={self.args.out / 'evaluate' / name / '-'.join(('public', *figure.sets))}"]
        )

    def plot(self, element: str, words: list[str]) -> None:
        out = self.args.out / f"{element}.png"
        call([sys.executable, "-m", "riskpo_openrlhf.cli.plot", *words, "--out", str(out)])
        say(f"{element}: the paper prints no numbers for this figure; compare with its picture")


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
