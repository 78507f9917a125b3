"""Pictures of runs: `python3 -m riskpo_openrlhf.cli.plot [FIGURE] RUN... --out FILE.png`.

FIGURE  overview  what to look at first (this, if none is named)
        learning  Pass@n and Avg@n of every data source (Figure 1 of the paper)
        passk     Pass@k for k = 1, 8, 16 (Figures 4 and 8)
        avgk      Avg@n (Figure 7)
        dynamics  mean reward, lower-tail RVaR, MVaR and entropy (Figure 5)
        profiles  entropy and Pass@1 (Figure 6)
        logprob   log-probability by mean reward, of evaluations (Figures 3 and 9)
RUN     a folder with TensorBoard files, searched through, or LABEL=FOLDER[,FOLDER...], one folder a seed
"""

from __future__ import annotations

import argparse
import sys

from riskpo_openrlhf.analysis.curves import FIGURES, logprob, summary
from riskpo_openrlhf.analysis.draw import draw
from riskpo_openrlhf.analysis.runs import load_groups

BAND = "band: ± 1 standard error, over seeds where a line is a mean of several, else over problems"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="[FIGURE] RUN", help="see above")
    parser.add_argument("--out", required=True, metavar="FILE", help="FILE.png or FILE.svg; both are written")
    parser.add_argument(
        "--window", type=int, default=1, metavar="N", help="moving mean of training metrics over N steps (default: 1)"
    )
    args = parser.parse_args(argv)
    figure, runs = "overview", args.runs
    if runs[0] in (*FIGURES, "logprob"):
        figure, *runs = runs
    if not runs or args.window < 1:
        parser.error(f"{figure} of which RUN?" if not runs else f"--window {args.window} must be at least 1")
    try:
        if figure == "logprob":
            rows, text = logprob(runs)
            caption = "band: ± 1 standard error, over seeds or else over questions; shaded: the tails of Assumption 1"
        else:
            groups = load_groups(runs)
            rows, text = FIGURES[figure](groups, args.window), summary(groups)
            caption = (f"training metrics: mean of the last {args.window} steps; " if args.window > 1 else "") + BAND
        files = draw(rows, args.out, caption)
    except (OSError, ValueError) as error:
        print(f"plot: {error}", file=sys.stderr)
        return 2
    print(f"{text}\n\n{'Curves' if figure == 'overview' else 'Picture'}: {', '.join(map(str, files))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
