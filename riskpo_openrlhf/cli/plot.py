"""Draw pictures of runs: `python3 -m riskpo_openrlhf.cli.plot [FIGURE] RUN... --out FILE.png`.

FIGURE  overview  what to look at first (the default)
        learning  Pass@n and Avg@n of every data source (Figure 1 of the paper)
        passk     Pass@k for k = 1, 8, 16 (Figures 4 and 8)
        avgk      Avg@n (Figure 7)
        dynamics  mean reward, lower-tail RVaR, MVaR and entropy (Figure 5)
        profiles  entropy and Pass@1 (Figure 6)
        logprob   log-probability by mean reward, of evaluations (Figures 3 and 9)
RUN     a folder at or above a run's TensorBoard files, or LABEL=FOLDER[,FOLDER...] with one folder a seed
"""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("runs", nargs="+", metavar="[FIGURE] RUN", help="see above")
    parser.add_argument("--out", required=True, metavar="FILE", help="FILE.png or FILE.svg; both are written")
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="draw training metrics as means of the last N steps (default: a tenth of all steps, at most 20; 1: raw)",
    )
    parser.add_argument(
        "--sources", metavar="NAMES", help="draw only these data sources, joined by commas (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of the table")
    args = parser.parse_args(argv)
    if args.window is not None and args.window < 1:
        parser.error(f"--window {args.window} is not allowed: 1 or more")
    try:
        return _plot(args, parser)
    except ModuleNotFoundError as error:
        print(f"plot: {error.name} is missing: pip install 'riskpo-openrlhf[analysis]'", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"plot: {error}", file=sys.stderr)
    return 2


def _plot(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from riskpo_openrlhf.analysis import curves
    from riskpo_openrlhf.analysis.draw import draw
    from riskpo_openrlhf.analysis.runs import load_groups, of_sources
    from riskpo_openrlhf.settings import find_settings
    from riskpo_openrlhf.tables import to_json

    figure, runs = "overview", args.runs
    if runs[0] in (*curves.FIGURES, "logprob"):
        figure, *runs = runs
    if not runs:
        parser.error(f"{figure}: name at least one RUN")
    if figure == "logprob":
        panels, found = curves.logprob(runs)
        text = "\n".join(
            f"{one['evaluation']}: Assumption 1, lower tail {one['lower']}, upper tail {one['upper']}" for one in found
        )
        caption = "band: 95 % interval, over seeds or else over questions; shaded: the tails of Assumption 1"
    else:
        groups = load_groups(runs)
        if args.sources:
            groups = of_sources(groups, args.sources.split(","))
        every = [run for group in groups.values() for run in group]
        window = args.window or curves.default_window(every)
        panels, found = curves.FIGURES[figure](groups, window), curves.gains(groups)
        text = curves.gains_table(found)
        caption = "band: 95 % interval, over seeds where a line is a mean of several, else over problems"
        if window > 1:
            caption = f"training metrics: mean of the last {window} steps over the pale values of each step; {caption}"
        if len(every) == 1 and (settings := find_settings(every[0].home)):
            caption = f"{settings}; {caption}"
    files = [str(file) for file in draw(panels, args.out, caption)]
    if args.json:
        print(to_json({"figure": figure, "files": files, "rows": found}))
    else:
        print(f"{text}\n\n{'Curves' if figure == 'overview' else 'Picture'}: {', '.join(files)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
