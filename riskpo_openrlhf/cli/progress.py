"""A training job's progress in one line: `TRAINING 2>&1 | python3 -m riskpo_openrlhf.cli.progress --log FILE`.

Lines with `[riskpo] step i/n | ...` move a bar (off a terminal: a line every 10 steps), other `[riskpo] ` lines are
shown, everything goes to the log. Ends with 1, and the log's last lines, unless `[riskpo] done` came.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

MARK = "[riskpo] "
TAIL = 25
EVERY = 10
_STEP = re.compile(r"step (\d+)(?:/(\d+))?(?: \| (.*))?$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Empty but for Ray's name of the process, or another program's bar: they would crowd the error out of the tail.
_NOISE = re.compile(r"(\([^()]*pid=[^()]*\))?\s*$|.*\d%\|")


def follow(lines: Iterable[str], log: TextIO, out: TextIO) -> bool:
    """Show the progress of `lines` on `out` and copy every line to `log`; True when the job said it was done."""
    bar, done = None, False
    terminal = out.isatty()
    try:
        for line in lines:
            log.write(line if line.endswith("\n") else line + "\n")
            log.flush()
            # Ray puts the process's name before a line, in colours: the mark can stand anywhere.
            _, mark, message = _COLOUR.sub("", line).rstrip().partition(MARK)
            if not mark:
                continue
            step = _STEP.match(message)
            if not step:
                done = done or message == "done"
                tqdm.write(message, file=out)
            elif terminal:
                now, total = int(step[1]), int(step[2]) if step[2] else None
                if bar is None:
                    bar = tqdm(total=total, initial=now - 1, desc="Training", file=out, dynamic_ncols=True)
                bar.set_postfix_str(step[3] or "", refresh=False)
                bar.update(now - bar.n)
                bar.refresh()
            elif int(step[1]) % EVERY == 0 or step[1] in ("1", step[2]):
                print(message, file=out, flush=True)
    finally:
        if bar is not None:
            bar.close()
    return done


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--log", type=Path, required=True, help="file that receives every line")
    path = parser.parse_args(argv).log
    path.parent.mkdir(parents=True, exist_ok=True)
    # Ray and tqdm may write bytes that are not UTF-8; a bar's carriage return ends a line too.
    sys.stdin.reconfigure(errors="replace")
    with open(path, "a", encoding="utf-8") as log:  # of a resumed run the earlier part stays
        try:
            done = follow(sys.stdin, log, sys.stdout)
        except KeyboardInterrupt:
            print(f"Interrupted. The log so far: {path}", file=sys.stderr)
            return 130
    if done:
        return 0
    with open(path, encoding="utf-8") as log:
        plain = (_COLOUR.sub("", line) for line in log)
        tail = deque((line for line in plain if not _NOISE.match(line)), maxlen=TAIL)
    print(f"\nThe job ended before it was done. The last lines of its output:\n\n{''.join(tail)}", file=sys.stderr)
    print(f"The full log: {path}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
