"""Show a training job's progress: `TRAINING 2>&1 | python3 -m riskpo_openrlhf.cli.progress --log FILE`.

Every line goes to the log. Of the lines of this package (`console.py`), one that holds a step moves a progress bar;
where the output is no terminal, such a line is printed every 30 s. The others are printed unchanged. Exit code 0: the
job said that it was done; else 1, with the last lines of the log.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from riskpo_openrlhf import console

TAIL = 25
# Empty but for Ray's name of the process, or another program's bar: they would crowd the error out of the tail.
_NOISE = re.compile(r"(\([^()]*pid=[^()]*\))?\s*$|.*\d%\|")


def follow(lines: Iterable[str], log: TextIO, out: TextIO, clock: Callable[[], float] = time.monotonic) -> bool:
    """Show the progress of `lines` on `out` and copy every line to `log`. Return True if the job was done."""
    from tqdm import tqdm

    bar, done, shown, terminal = None, False, -console.SECONDS, out.isatty()
    try:
        for line in lines:
            log.write(line if line.endswith("\n") else line + "\n")
            log.flush()
            said = console.read(line)
            if said is None:
                continue
            done = done or bool(said.data.get("done"))
            if "step" not in said.data:
                tqdm.write(said.text, file=out)
                continue
            step, steps = said.data["step"], said.data.get("steps")
            if terminal:
                if bar is None:
                    bar = tqdm(total=steps, initial=step - 1, desc="Training", file=out, dynamic_ncols=True)
                bar.set_postfix_str(said.text.partition(" | ")[2], refresh=False)
                bar.update(step - bar.n)
                bar.refresh()
            elif clock() - shown >= console.SECONDS or step == steps:
                print(said.text, file=out, flush=True)
                shown = clock()
    finally:
        if bar is not None:
            bar.close()
    return done


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--log", type=Path, required=True, help="file to write every line to")
    path = parser.parse_args(argv).log
    path.parent.mkdir(parents=True, exist_ok=True)
    # Ray and tqdm may write bytes that are not UTF-8; a bar's carriage return ends a line too.
    sys.stdin.reconfigure(errors="replace")
    with open(path, "a", encoding="utf-8") as log:  # a resumed run keeps its earlier lines
        try:
            done = follow(sys.stdin, log, sys.stdout)
        except KeyboardInterrupt:
            print(f"Interrupted. The log so far: {path}", file=sys.stderr)
            return 130
    if done:
        return 0
    with open(path, encoding="utf-8") as log:
        lines = map(console.plain, log)
        tail = deque((line for line in lines if not _NOISE.match(line)), maxlen=TAIL)
    print("\nThe job ended before it was done. The last lines of its output:\n", *tail, sep="\n", file=sys.stderr)
    print(f"\nThe full log: {path}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
