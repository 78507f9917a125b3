"""Print what a quickstart's training gained: `python3 -m riskpo_openrlhf.lab.quickstart_result RUN --method NAME`."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from riskpo_openrlhf.analysis.runs import eval_tag, load_runs
from riskpo_openrlhf.lab.arithmetic import DATASOURCE

TAG = eval_tag(DATASOURCE, 1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--method", required=True, help="the run's method, a file of recipes/methods")
    args = parser.parse_args(argv)
    try:
        print(result(args.run, args.method))
    except (OSError, ValueError) as error:
        print(f"quickstart_result: {error}", file=sys.stderr)
        return 2
    return 0


def result(folder: Path, method: str) -> str:
    """Describe Pass@1 before and after training, and whose method it was.

    Raises:
        FileNotFoundError: the folder has no TensorBoard files.
        ValueError: fewer than two evaluations were logged.
    """
    (run,) = load_runs([folder / "tensorboard"])
    curve = run.scalars.get(TAG)
    if curve is None or len(curve.steps) < 2:
        raise ValueError(
            f"{folder}/tensorboard has {0 if curve is None else 1} evaluations: before and after are needed"
        )
    values, halves = curve.values, run.halves(TAG)
    lines = [
        f"Held-out Pass@1: {values[0]:.3f} ± {halves[0]:.3f} before training, {values[-1]:.3f} ± {halves[-1]:.3f} "
        f"after {curve.steps[-1]} steps: {values[-1] - values[0]:+.3f} ± {math.hypot(halves[0], halves[-1]):.3f}. "
        "(± is a 95 % interval over problems; the two evaluations count as independent.)"
    ]
    if method == "recommended":
        lines.append(
            "The method `recommended` is this project's, not the paper's. --method paper trains by the paper's method."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
