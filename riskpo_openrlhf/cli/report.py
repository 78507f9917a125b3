"""One self-contained page on one run: `python3 -m riskpo_openrlhf.cli.report RUN [--out report.html]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from riskpo_openrlhf.analysis.health import WARNING
from riskpo_openrlhf.analysis.report import write_report


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or one with its TensorBoard files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/report.html")
    args = parser.parse_args(argv)
    out = args.out or args.run / "report.html"
    try:
        checks = write_report(args.run, out)
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    for check in checks:
        if check.state == WARNING:
            print(f"Warning: {check.name}: {check.found} (threshold: {check.limit})")
    print(f"Report: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
