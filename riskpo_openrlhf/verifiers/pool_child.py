"""The process behind `verifiers/pool.py`: calls one function, again and again, until its pipe is closed.

    python -P -m riskpo_openrlhf.verifiers.pool_child PACKAGE.MODULE:FUNCTION SECONDS MEGABYTES

A request is a line of JSON on stdin, the list of the function's arguments; the reply a line of JSON on stdout,
`["ok", value]` or `["error", text]`. The first request is the warm-up; its reply says that all is loaded.
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


def main(function: str, seconds: str, megabytes: str) -> None:
    """Serve requests until stdin ends. A request that takes all its memory or time ends the process."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what the function prints must not look like a reply
    memory, hard = int(megabytes) * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Whoever asked kills us at the deadline. This is for the case that it is dead itself: the default action of the
    # signal ends the process even in the middle of a long computation in C, where no Python handler would run.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    allowed = math.ceil(float(seconds)) + 1
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    for number, line in enumerate(sys.stdin.buffer):
        if number == 1:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # only the start's errors are read by anyone
        signal.alarm(allowed if number else 0)
        try:
            reply = json.dumps(["ok", call(*json.loads(line))])
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # what is left of the process can't be trusted
        except Exception as error:
            if number == 0:
                raise
            reply = json.dumps(["error", f"{type(error).__name__}: {error}"[:200]])
        signal.alarm(0)
        replies.write(reply + "\n")
        replies.flush()
        if _resident() * 2 > memory:
            return  # the caches of a long life: a fresh process takes the place


def _resident() -> int:
    """Bytes. Not `getrusage`: its maximum begins with that of the process that started this one."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main(*sys.argv[1:])
