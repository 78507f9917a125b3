"""Every line that a job prints for people: its mark, and the data in it that programs read; and progress in files.

    [riskpo] step 3/80 | reward 0.412 | 2.7 s {"step": 3, "steps": 80}

The text before the JSON object is for people and may change at any time. Programs take the object alone. It travels on
the line itself, since standard output is the one channel that every job has: Ray forwards it from whatever node the
driver runs on, also under `ray job submit`, where no folder need be shared.
"""

from __future__ import annotations

import json
import re
import sys
from typing import NamedTuple

MARK = "[riskpo] "
SECONDS = 30  # between two lines of progress off a terminal
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Line(NamedTuple):
    """One of our lines: the text for people, and the data for programs."""

    text: str
    data: dict


def say(message: str, **data) -> None:
    """Print one line with our mark. `data`, if given, follows as a JSON object."""
    suffix = f" {json.dumps(data)}" if data else ""
    print(f"{MARK}{message}{suffix}", flush=True)


def plain(line: str) -> str:
    """Remove colours and the line's end."""
    return _COLOUR.sub("", line).rstrip()


def read(line: str) -> Line | None:
    """Read a line that `say` printed; None for any other. Ray may have put the process's name before the mark."""
    _, mark, message = plain(line).partition(MARK)
    if not mark:
        return None
    for found in re.finditer(r' \{"', message):
        try:
            return Line(message[: found.start()], json.loads(message[found.start() :]))
        except ValueError:
            continue
    return Line(message, {})


def lines_not_bars() -> None:
    """Turn each tqdm bar of this process that is off a terminal into a line every 30 s; a shorter bar says nothing.

    A Ray worker is never on a terminal: each of ours calls this (`launch.replace_names`).
    """
    from tqdm import tqdm

    init, printer, refresh = tqdm.__init__, tqdm.status_printer, tqdm.refresh
    if init.__name__ == "init_of_lines":  # called before
        return

    def init_of_lines(bar, *args, **options):
        if not (options.get("file") or sys.stderr).isatty():
            options = {"delay": SECONDS, "mininterval": SECONDS, "maxinterval": SECONDS, **options}
        init(bar, *args, **options)

    def line_printer(file):
        return printer(file) if file.isatty() else lambda text: print(text, file=file, flush=True)

    def refresh_of_lines(bar, *args, **options):
        # `set_postfix` and `set_description` refresh at once, whatever the interval.
        if not bar.disable and not bar.fp.isatty():
            if bar._time() - bar.last_print_t < SECONDS:
                return None
            bar.last_print_t = bar._time()
        return refresh(bar, *args, **options)

    tqdm.__init__, tqdm.status_printer = init_of_lines, staticmethod(line_printer)
    tqdm.refresh = refresh_of_lines
