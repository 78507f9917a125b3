"""What a child in the sandbox does: run a program, call a function of it, or serve it to a check, and the check.

`guest.py` imports this file before it leaves the host. It imports no other file of ours.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import collections
import contextlib
import decimal
import fractions
import gc
import io
import json
import mmap
import os
import sys
import threading
import types
from _sitebuiltins import Quitter

UNPARSABLE = 65  # exit code of a child whose program is not Python
OUTPUT_BYTES, DISK_BYTES = 32 << 20, 64 << 20  # limits of standard output and any file, and of /tmp
THREADS = 64
RUNS: mmap.mmap  # a supervisor's and its children's: 1 once one runs the program, whose exit codes mean nothing

# LiveCodeBench's checker puts this in front of every program. Here these names are builtins, unless they are already.
PRELUDE = """
from string import *; from re import *; from datetime import *; from collections import *; from heapq import *
from bisect import *; from copy import *; from math import *; from random import *; from statistics import *
from itertools import *; from functools import *; from operator import *; from io import *; from json import *
from typing import *
import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools
import operator, io, sys, json
"""

MODULE = types.ModuleType("__main__")  # what a program or a check becomes; a child changes its copy only
USUAL: set[str] = set()  # the names of the prelude, which are builtins here
END = os._exit


def add_usual_names() -> None:
    """Add to the builtins what programs take for granted."""
    builtins.exit, builtins.quit = Quitter("exit", ""), Quitter("quit", "")  # as without python -S
    usual: dict = {}
    exec(PRELUDE, usual)
    USUAL.update(usual.keys() - vars(builtins).keys())
    for name in USUAL:
        setattr(builtins, name, usual[name])


def leave(code: int) -> None:
    """End a child as the interpreter ends, without its work of freeing every object that the zygote made."""
    try:
        threading._shutdown()  # waits for threads
        atexit._run_exitfuncs()
        if sys.stdout and not getattr(sys.stdout, "closed", False):
            sys.stdout.flush()
        vars(MODULE).clear()  # closes files and finalizes objects
        for file in filter(is_file, gc.get_objects()):  # without those that the zygote froze
            with contextlib.suppress(Exception):
                file.flush()
    except BaseException:
        code = 120  # as the interpreter does
    END(code)


def is_file(value) -> bool:
    return issubclass(type(value), (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom))


def make_flag() -> None:
    """Make the flag of one sandbox. Whatever was made before the supervisor was forked, all sandboxes would share."""
    global RUNS
    RUNS = mmap.mmap(-1, 1)


def load(config: dict, name: str) -> types.ModuleType:
    """Run the program as a module of this name."""
    try:
        code = compile(config["code"], "answer.py", "exec", dont_inherit=True)
        if config["must_do"] and is_idle(config["code"]):
            END(UNPARSABLE)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        END(UNPARSABLE)
    RUNS[0] = 1
    RUNS.close()  # here only: the program can't take it back
    sys.argv = ["answer.py"]
    MODULE.__name__, MODULE.__file__, MODULE.__builtins__ = name, "answer.py", builtins
    sys.modules[name] = MODULE
    exec(code, vars(MODULE))
    return MODULE


def outcome(code: int | None, codes: list[int | None]) -> int | None:
    """Return the exit code of a run, of the last of its children: `UNPARSABLE` only if no program ran."""
    runs, RUNS[0] = RUNS[0], 0
    return (1 if runs else UNPARSABLE) if UNPARSABLE in codes else code


def is_idle(source: str) -> bool:
    """Tell whether a text that is Python does nothing, such as the printed line `3` or `yes, 7`."""
    body = ast.parse(source).body
    bare = all(isinstance(s, ast.Expr) or isinstance(s, ast.AnnAssign) and not s.value for s in body)
    return bare and not any(isinstance(node, (ast.Call, ast.Await)) for s in body for node in ast.walk(s))


def run_program(config: dict) -> None:
    load(config, "__main__")


def call_function(config: dict) -> None:
    values = [json.loads(line) for line in sys.stdin.read().split("\n") if line.strip()]
    module, name = load(config, "answer"), config["function"]
    solution = getattr(module, "Solution", None)
    is_plain = hasattr(module, name) and not hasattr(solution, name)
    owner = module if is_plain else solution()
    result = json.dumps(getattr(owner, name)(*values), default=plain)
    with open(3, "w") as file:
        file.write(result)


def plain(value):
    """Return what JSON has in place of a value that is not JSON's. Raises `TypeError` if there is no such thing."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode()
    if is_iterator(value) or isinstance(value, (collections.deque, range, *VIEWS)):
        return list(value)
    if isinstance(value, (decimal.Decimal, fractions.Fraction)):
        return int(value) if value == int(value) else float(value)
    if hasattr(value, "tolist"):  # arrays
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no JSON value")


VIEWS = (type({}.keys()), type({}.values()), type({}.items()))


def is_iterator(value) -> bool:
    """Tell whether a value is an iterator of Python's own: a generator, `map`, `zip`, those of itertools."""
    return isinstance(value, collections.abc.Iterator) and type(value).__module__ in ("builtins", "itertools")
