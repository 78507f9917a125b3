"""Learning curves and a before/after table: `python3 -m riskpo_openrlhf.cli.plot RUN_DIR... --out curves.png`."""

from __future__ import annotations

import argparse
import sys

from riskpo_openrlhf.analysis.curves import draw, load_runs, summary


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder with TensorBoard files, searched through")
    parser.add_argument("--out", required=True, metavar="FILE", help="FILE.png or FILE.svg; both are written")
    args = parser.parse_args(argv)
    try:
        runs = load_runs(args.runs)
        files = draw(runs, args.out)
    except (OSError, ValueError) as error:
        print(f"plot: {error}", file=sys.stderr)
        return 2
    print(summary(runs))
    print(f"\nCurves: {', '.join(map(str, files))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
