"""The quickstart's model and problems: `python3 -m riskpo_openrlhf.lab.prepare_quickstart --out DIR`.

Makes DIR/model (a link to a folder named after the model's settings, kept for the next time), DIR/train.jsonl and
DIR/heldout.jsonl. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from riskpo_openrlhf.files import write_jsonl
from riskpo_openrlhf.lab.arithmetic import CHAT_KINDS, check_disjoint, problems

HELDOUT_SEED = 1  # an expression belongs to one split for good, so a training seed of 1 is no harm
EVAL_SAMPLES = 16
BINS = (0, 0.05, 0.2, 0.4, 0.6, 0.8, 1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", choices=("tiny", "micro", "mixed", "smollm2"), default="tiny")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and the problems")
    parser.add_argument("--train", type=int, help="training problems (default: 4800, with smollm2 960)")
    parser.add_argument("--heldout", type=int, help="held-out problems (default: 160, with smollm2 60)")
    parser.add_argument("--seed", type=int, default=0, help="draws the training problems and the model's weights")
    args = parser.parse_args(argv)
    try:
        heldout = _write_problems(args)
        prepare = _prepare_smollm2 if args.model == "smollm2" else _prepare_tiny
        folder = prepare(args, heldout)
        _link(args.out / "model", folder)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        print(f"prepare_quickstart: {error}", file=sys.stderr)
        return 2
    print(f"Ready: {args.out / 'model'}")
    return 0


def _write_problems(args) -> list[dict[str, str]]:
    if args.model == "smollm2":
        kinds, style, n_train, n_heldout = CHAT_KINDS, "chat", 960, 60
    else:
        from riskpo_openrlhf.lab.tiny_model import MODELS

        kinds, style, n_train, n_heldout = MODELS[args.model].kinds, "short", 4800, 160
    train = problems(kinds, n_train if args.train is None else args.train, args.seed, style=style)
    n_heldout = n_heldout if args.heldout is None else args.heldout
    heldout = problems(kinds, n_heldout, HELDOUT_SEED, split="heldout", style=style, unique=True)
    check_disjoint(train, heldout)
    for name, rows in (("train", train), ("heldout", heldout)):
        write_jsonl(args.out / f"{name}.jsonl", rows)
        print(f"{len(rows)} problems in {args.out / name}.jsonl, e.g. {rows[0]['input']!r} -> {rows[0]['label']!r}")
    return heldout


def _prepare_tiny(args, heldout: list[dict[str, str]]) -> Path:
    from riskpo_openrlhf.lab.tiny_model import MODELS, build_once, grade, load, save_tiny_model

    settings = replace(MODELS[args.model], seed=args.seed)
    folder, start = args.out / f"{args.model}-{settings.digest()}", time.monotonic()
    if not build_once(folder, lambda temporary: save_tiny_model(temporary, settings)):
        print(f"The warm-started model is there already: {folder}")
        return folder
    print(f"Warm start took {time.monotonic() - start:.0f} s. Held-out problems, {EVAL_SAMPLES} samples each:")
    _report(grade(*load(folder), heldout, EVAL_SAMPLES))
    return folder


def _prepare_smollm2(args, heldout: list[dict[str, str]]) -> Path:
    from riskpo_openrlhf.lab.smollm2 import save_smollm2
    from riskpo_openrlhf.lab.tiny_model import build_once

    folder = args.out / "smollm2-135m-instruct"
    if not build_once(folder, save_smollm2):
        print(f"The model is there already: {folder}")
    return folder


def _report(correct: np.ndarray) -> None:
    from riskpo_openrlhf.evaluation.passk import pass_at_k_summary

    summary = pass_at_k_summary(correct, (1, 8, EVAL_SAMPLES))
    print("  " + ", ".join(f"Pass@{k} {mean:.3f} ± {error:.3f}" for k, (mean, error) in summary.items()))
    counts, _ = np.histogram(correct.mean(axis=1), BINS)
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
