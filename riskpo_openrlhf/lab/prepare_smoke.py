"""What a recipe's `--smoke` trains: `python3 -m riskpo_openrlhf.lab.prepare_smoke --task math_hard --out DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, help="the recipe's task")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and the data; kept if there")
    args = parser.parse_args(argv)
    from riskpo_openrlhf.lab.smoke import save_smoke
    from riskpo_openrlhf.lab.tiny_model import build_once

    try:
        made = build_once(args.out, lambda folder: save_smoke(args.task, folder, args.out))
    except (OSError, ValueError) as error:
        print(f"prepare_smoke: {error}", file=sys.stderr)
        return 2
    print(f"{'Made' if made else 'There already'}: a tiny model and embedded problems in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
