"""Write a report of a run on one self-contained page: `python3 -m riskpo_openrlhf.cli.report RUN [--out report.html]`.

A run that has saved its model gets a model card, too: model/README.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from riskpo_openrlhf.evaluation.problems import EvaluationError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or one with its TensorBoard files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page to write (default: RUN/report.html)")
    parser.add_argument("--json", action="store_true", help="print the checks as one line of JSON")
    args = parser.parse_args(argv)
    try:
        return _report(args.run, args.out or args.run / "report.html", args.json)
    except ModuleNotFoundError as error:
        print(f"report: {error.name} is missing: pip install 'riskpo-openrlhf[analysis]'", file=sys.stderr)
    except (OSError, ValueError, EvaluationError) as error:
        print(f"report: {error}", file=sys.stderr)
    return 2


def _report(run: Path, out: Path, as_json: bool) -> int:
    from riskpo_openrlhf.analysis.cures import CURES
    from riskpo_openrlhf.analysis.health import WARNING
    from riskpo_openrlhf.analysis.model_card import write_model_card
    from riskpo_openrlhf.analysis.report import write_report
    from riskpo_openrlhf.tables import to_json

    checks, card = write_report(run, out), write_model_card(run)
    if as_json:
        rows = [{**vars(check), "cure": CURES[check.cure].text} for check in checks]
        print(to_json({"report": str(out), "model_card": card and str(card), "checks": rows}))
        return 0
    for check in checks:
        if check.state == WARNING:
            print(f"Warning: {check.name}: {check.found} (threshold: {check.limit})")
            print(f"  {CURES[check.cure].text}")
    print(f"Report: {out}" + (f"   Model card: {card}" if card else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
