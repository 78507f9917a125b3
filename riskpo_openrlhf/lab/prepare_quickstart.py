"""Prepare the quickstart's model and problems: `python3 -m riskpo_openrlhf.lab.prepare_quickstart --out DIR`.

Makes DIR/model (a link to a folder that later calls reuse), DIR/train.jsonl and DIR/heldout.jsonl. Nothing is
downloaded.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from riskpo_openrlhf.console import lines_not_bars
from riskpo_openrlhf.data import reasoning
from riskpo_openrlhf.files import write_jsonl
from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, as_data, problems
from riskpo_openrlhf.lab.build_once import build_once

CHOICES = ("mixed", "micro", "smollm2")
# For SmolLM2-135M-Instruct: tasks of reasoning-gym on which it is right about one time in eight at temperature 1.
CHAT_TASKS = (
    "basic_arithmetic:min_terms=2,max_terms=2,max_digits=1,allow_negation=False,allow_parentheses=False",
    "basic_arithmetic:min_terms=2,max_terms=2,max_digits=2,allow_negation=False,allow_parentheses=False",
    "gcd:max_value=30",
)
ASK = "Answer:"
CHAT_TRAIN, CHAT_HELDOUT = 900, 240  # as many different problems as every seed has
HELDOUT_SEED = 1  # an expression belongs to one split for good, so the training seed may be 1 too
BINS = (0, 0.05, 0.2, 0.4, 0.6, 0.8, 1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--model", choices=CHOICES, default="mixed", help="which model (default: mixed)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and the problems")
    parser.add_argument("--train", type=int, default=3600, help="training problems (default: 3600)")
    parser.add_argument("--heldout", type=int, default=120, help="held-out problems (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="draws the training problems (default: 0)")
    parser.add_argument(
        "--model_seed", type=int, default=0, help="draws the weights and the warm start of mixed or micro (default: 0)"
    )
    args = parser.parse_args(argv)
    lines_not_bars()
    try:
        heldout = _write_problems(args)
        folder = _prepare_smollm2(args) if args.model == "smollm2" else _prepare_tiny(args, heldout)
        _link(args.out / "model", folder)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        print(f"prepare_quickstart: {error}", file=sys.stderr)
        return 2
    print(f"Ready: {args.out / 'model'}")
    return 0


def _write_problems(args) -> list[dict[str, str]]:
    if args.model == "smollm2":
        train = chat_problems(args.train, args.seed, "train")
        heldout = chat_problems(args.heldout, HELDOUT_SEED, "test")
    else:
        train = problems(CHARACTER_KINDS, args.train, args.seed)
        heldout = problems(CHARACTER_KINDS, args.heldout, HELDOUT_SEED, split="heldout", unique=True)
    for name, rows in (("train", train), ("heldout", heldout)):
        write_jsonl(args.out / f"{name}.jsonl", as_data(rows, None if args.model == "smollm2" else "math"))
        print(f"{len(rows)} problems in {args.out / name}.jsonl, e.g. {rows[0]['input']!r} -> {rows[0]['answer']!r}")
    return heldout


def chat_problems(count: int, seed: int, split: str) -> list[dict[str, str]]:
    """Draw different problems. More training problems than there are means several rounds of them."""
    different = min(count, CHAT_TRAIN) if split == "train" else count
    if different > CHAT_HELDOUT and split == "test":
        raise ValueError(f"--heldout {count}: SmolLM2's tasks have {CHAT_HELDOUT} problems that are held out")
    rows = [
        {"input": f"{row['question'].strip()} {ASK}", "answer": row["answer"]}
        for row in reasoning.problems(CHAT_TASKS, different, seed, split)
    ]
    return (rows * (count // different + 1))[:count]


def _prepare_tiny(args, heldout: list[dict[str, str]]) -> Path:
    from riskpo_openrlhf.lab.tiny_model import MODELS, save_tiny_model, shipped

    settings, start = replace(MODELS[args.model], seed=args.model_seed), time.monotonic()
    folder, source = args.out / f"{args.model}-{settings.digest()}", shipped(settings)
    if source:
        build_once(folder, lambda temporary: shutil.copytree(source, temporary, dirs_exist_ok=True))
    elif build_once(folder, lambda temporary: save_tiny_model(temporary, settings)):
        print(f"Warm start took {time.monotonic() - start:.0f} s.")
    _report(folder, heldout)
    return folder


def _prepare_smollm2(args) -> Path:
    from riskpo_openrlhf.lab.smollm2 import save_smollm2

    folder = args.out / "smollm2-135m-instruct"
    build_once(folder, save_smollm2)
    return folder


def _report(folder: Path, heldout: list[dict[str, str]]) -> None:
    from riskpo_openrlhf.lab.tiny_model import answer_probabilities, load

    right = answer_probabilities(*load(folder), heldout)
    print(f"The model before training, exact: Pass@1 {right.mean():.3f}, Pass@16 {1 - ((1 - right) ** 16).mean():.3f}")
    counts, _ = np.histogram(right, BINS)
    print("  problems by pass rate: " + ", ".join(
        f"{low:g} to {high:g}: {count}" for low, high, count in zip(BINS, BINS[1:], counts, strict=False)
    ))  # fmt: skip


def _link(link: Path, folder: Path) -> None:
    """Point `link` at its neighbour `folder`, in one step. Raises `OSError` if something else has that name."""
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link} exists and is not a link of ours: move it away or choose another --out")
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.symlink_to(folder.name, target_is_directory=True)
    os.replace(temporary, link)


if __name__ == "__main__":
    sys.exit(main())
