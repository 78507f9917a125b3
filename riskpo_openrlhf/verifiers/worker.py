"""The program of a worker process of `killable.py`: call one function for each request, until stdin ends.

    python -P -m riskpo_openrlhf.verifiers.worker PACKAGE.MODULE:FUNCTION SECONDS WALL_SECONDS MEGABYTES

A request is a line of JSON on stdin: the list of the function's arguments. The reply is a line of JSON on stdout:
`["ok", value]` or `["error", text]`. The first request is the warm-up; its reply says that everything is loaded.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import signal
import sys

OUT_OF_MEMORY = 77  # exit status


def main(function: str, seconds: str, wall_seconds: str, megabytes: str) -> None:
    """Serve requests until stdin ends. A request that exceeds its memory or time ends the process."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # so that the function's own output is no reply
    memory, hard = int(megabytes) * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The kernel ends this process when a request has used its CPU time. The caller kills it at the limit by the clock;
    # the alarm is for a caller that is dead. The signals' default action ends the process even inside a long
    # computation in C, where no Python handler would run.
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    allowed, wall = float(seconds), math.ceil(float(wall_seconds)) + 1
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    for number, line in enumerate(sys.stdin.buffer):
        if number == 1:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # only errors of the start are read
        signal.alarm(wall if number else 0)
        signal.setitimer(signal.ITIMER_PROF, allowed if number else 0)
        try:
            reply = json.dumps(["ok", call(*json.loads(line))])
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # the process can't be trusted any more
        except Exception as error:
            if number == 0:
                raise
            reply = json.dumps(["error", f"{type(error).__name__}: {error}"[:200]])
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(reply + "\n")
        replies.flush()
        if _resident() * 2 > memory:
            return  # caches have grown: a fresh process replaces this one


def _resident() -> int:
    """Return the resident memory in bytes. Not from `getrusage`, whose maximum includes the parent's."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main(*sys.argv[1:])
