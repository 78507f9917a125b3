"""The script that `sandbox.py` starts: it makes the sandbox and runs programs in it. It imports no file of ours.

Three roles, each a process. The launcher leaves the host's namespaces and forks. The supervisor, PID 1 in the new
namespaces, gives up all privileges and waits for orders. An order is one run: the supervisor forks a child with limits
and the system call filter, in which the program runs, waits for its end, and kills what is left. No expected output
gets here, except in a `check`, which runs in a child of its own. Program and check share no memory; only plain values
pass between them.
"""

from __future__ import annotations

import builtins
import ctypes
import fcntl
import gc
import json
import math
import os
import resource
import shutil
import signal
import socket
import sys
import time
import types
from _sitebuiltins import Quitter

UNPARSABLE = 65  # exit code of a child whose program is not Python

# LiveCodeBench's checker puts this in front of every program. Names of builtins stay the builtins.
PRELUDE = """
from string import *; from re import *; from datetime import *; from collections import *; from heapq import *
from bisect import *; from copy import *; from math import *; from random import *; from statistics import *
from itertools import *; from functools import *; from operator import *; from io import *; from json import *
from typing import *
import string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools
import operator, io, sys, json
"""

# System calls that a computing program does not need: name, number on x86_64, on aarch64 (-: not there).
DENIED = """
fork 57 -; vfork 58 -; execve 59 221; execveat 322 281; kill 62 129; tkill 200 130; tgkill 234 131;
rt_sigqueueinfo 129 138; rt_tgsigqueueinfo 297 240; ptrace 101 117; process_vm_readv 310 270;
process_vm_writev 311 271; kcmp 312 272; socket 41 198; memfd_create 319 279; shmget 29 194; msgget 68 186;
semget 64 190; mq_open 240 180; userfaultfd 323 282; bpf 321 280; perf_event_open 298 241; add_key 248 217;
request_key 249 218; keyctl 250 219; unshare 272 97; setns 308 268; mount 165 40; umount2 166 39; pivot_root 155 41;
chroot 161 51; name_to_handle_at 303 264; open_by_handle_at 304 265; fanotify_init 300 262
"""
# Reported as not there: pidfd_*, io_uring_*, new mount calls, clone3, process_madvise, and all from 442 on.
ABSENT = (*range(424, 436), 438, 440)
FIRST_UNKNOWN = 442
ARCHITECTURES = {"x86_64": (0xC000003E, 1, 56), "aarch64": (0xC00000B7, 2, 220)}  # audit id, column above, clone

CLONE_NEWNS, CLONE_NEWUSER, CLONE_THREAD = 0x20000, 0x10000000, 0x10000
# mount, cgroup, uts, ipc, pid and net
NAMESPACES = CLONE_NEWNS | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 4096, 16384, 1 << 18, 2
READ_ONLY, NOSUID, NODEV, AT_FDCWD, AT_RECURSIVE, MOUNT_SETATTR = 1, 2, 4, -100, 0x8000, 442
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38

libc = ctypes.CDLL(None, use_errno=True)


def system(name: str, *arguments, what: str = "") -> None:
    """Call a C library function. Raises `OSError`, with its name and `what`, unless it returns 0."""
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if getattr(libc, name)(*values):
        code = ctypes.get_errno()
        raise OSError(code, f"{name} {what}".strip() + ": " + os.strerror(code))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [text and text.encode() for text in (source, target, kind, options)]
    system("mount", *texts[:3], flags, texts[3], what=source or target)


def restrict(target: str, attributes: int, recursive: bool = True) -> None:
    """Add attributes to the mount at `target` and to those below it."""
    attr = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    path, size = target.encode(), ctypes.sizeof(attr)
    system("syscall", MOUNT_SETATTR, AT_FDCWD, path, flags, ctypes.byref(attr), size, what="mount_setattr")


# --- leaving the host -------------------------------------------------------------------------------------------


def leave_host(config: dict) -> None:
    """Enter new namespaces, a root folder of libraries only, and another user. Returns in the new PID 1 only."""
    uid = 60000 + os.getpid() % 5000  # a user that runs nothing else: the limit of processes counts by user
    root = os.geteuid() == 0 and is_mapped(uid)
    if root:
        try:
            system("unshare", NAMESPACES)
        except PermissionError:
            become(uid)
            root = False
    if not root:
        owner, group = os.geteuid(), os.getegid()
        system("unshare", NAMESPACES | CLONE_NEWUSER)
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {owner} 1"), ("gid_map", f"{uid} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    child = 0
    signal.signal(signal.SIGTERM, lambda *_: child and os.kill(child, signal.SIGKILL))
    child = os.fork()
    if child:
        os.close(0)
        os.close(1)
        os._exit(os.waitpid(child, 0)[1] and 1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # PID 1 gets no signal from its children without a handler
    new_root(config, uid)
    socket.sethostname("sandbox")
    if root:
        become(uid)


def is_mapped(uid: int) -> bool:
    """Tell whether this user exists in the namespace of the machine or container."""
    with open("/proc/self/uid_map") as file:
        return any(int(first) <= uid < int(first) + int(length) for first, _, length in map(str.split, file))


def become(uid: int) -> None:
    system("setgroups", 0, None)
    system("setresgid", uid, uid, uid)
    system("setresuid", uid, uid, uid)
    system("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self stays root's


def new_root(config: dict, uid: int) -> None:
    """Mount a read-only root of system libraries and Python's, with an empty, small, writable /tmp."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")  # any folder that exists everywhere
    os.chdir("/proc")
    for source, target in config["visible"]:
        here = "." + target
        os.makedirs(os.path.dirname(here), exist_ok=True)
        if os.path.islink(source):
            os.symlink(os.readlink(source), here)
            continue
        os.makedirs(here, exist_ok=True)
        mount(source, here, None, MS_BIND | MS_REC)
        restrict(here, READ_ONLY | NOSUID | NODEV)
    os.makedirs("./dev")
    open("./dev/null", "w").close()
    mount("/dev/null", "./dev/null", None, MS_BIND)
    os.mkdir("./tmp")
    size = f"size={config['disk_bytes']},nr_inodes=4096,mode=700,uid={uid},gid={uid}"
    mount("tmpfs", "./tmp", "tmpfs", MS_NOSUID | MS_NODEV, size)
    system("pivot_root", b".", b".")
    system("umount2", b".", MNT_DETACH)
    restrict("/", READ_ONLY | NOSUID | NODEV, recursive=False)
    os.chdir("/tmp")


def drop_privileges() -> None:
    """Give up all capabilities and the way to gain any; refuse debuggers; end with the parent."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    system("capset", ctypes.byref(header), ctypes.byref(none))
    system("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    system("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    system("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def system_call_filter() -> ctypes.Structure:
    """Return the seccomp program: `DENIED` gives EPERM, `ABSENT` gives ENOSYS, and clone makes threads only."""
    architecture, column, clone = ARCHITECTURES[os.uname().machine]
    allow, denied, absent, kill = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    numbers = [row.split()[column] for row in DENIED.split(";")]
    steps = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    for number in (int(n) for n in numbers if n != "-"):
        steps += [(equal, 0, 1, number), (give, 0, 0, denied)]
    for number in ABSENT:
        steps += [(equal, 0, 1, number), (give, 0, 0, absent)]
    steps += [(at_least, 0, 1, FIRST_UNKNOWN), (give, 0, 0, absent)]
    steps += [(equal, 0, 3, clone), (load, 0, 0, 16), (any_bit, 1, 0, CLONE_THREAD), (give, 0, 0, denied)]
    steps += [(give, 0, 0, allow)]

    class Step(ctypes.Structure):
        _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint16), ("steps", ctypes.POINTER(Step))]

    return Program(len(steps), (Step * len(steps))(*steps))


# --- the supervisor ---------------------------------------------------------------------------------------------


class Supervisor:
    """Run one program, once for each order `{"cpu", "wall", "filtered"}`; each is answered by `{"code"}`.

    The code is the program's exit code; minus the signal's number if a signal ended it; None at the wall-clock limit.
    """

    def __init__(self, config: dict, source: int, sink: int):
        self.config = config
        self.source, self.sink = source, sink  # input and output of a run
        self.null = os.open("/dev/null", os.O_RDWR)
        self.filter = system_call_filter()
        builtins.exit, builtins.quit = Quitter("exit", ""), Quitter("quit", "")  # as without python -S
        self.prelude: dict = {}
        exec(PRELUDE, self.prelude)
        for name in dir(builtins):
            self.prelude.pop(name, None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        gc.freeze()  # a child's garbage collector must not touch, and so copy, what is here now

    def run(self, order: dict) -> int | None:
        for entry in os.scandir("."):
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
        os.lseek(self.source, 0, os.SEEK_SET)
        if self.config["kind"] == "stdin":
            children = [self.start(order, self.run_program, [self.source, self.sink, self.null])]
        elif self.config["kind"] == "functional":
            children = [self.start(order, self.call_function, [self.source, self.null, self.null, self.sink])]
        else:
            ours, theirs = socket.socketpair()
            children = [self.start(order, self.serve, [self.null, self.null, self.null, theirs.fileno()])]
            children += [self.start(order, self.check, [self.source, self.null, self.null, ours.fileno()])]
            ours.close()
            theirs.close()
        return self.wait(children, order["wall"])

    def wait(self, children: list[int], seconds: float) -> int | None:
        """Wait for the last of the children. Returns its exit code; no child, nor a child's child, is left then."""
        deadline, codes = time.monotonic() + seconds, {}
        while children[-1] not in codes and (left := deadline - time.monotonic()) > 0:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                codes[pid] = os.waitstatus_to_exitcode(status)
            else:
                signal.sigtimedwait({signal.SIGCHLD}, left)
        code = codes.get(children[-1])
        try:
            for pid in set(children) - codes.keys():
                os.kill(pid, signal.SIGKILL)
            if os.getpid() == 1:  # everything left in this PID namespace; never on the host
                os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            while True:
                pid, status = os.wait()
                codes[pid] = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            return UNPARSABLE if UNPARSABLE in map(codes.get, children) else code

    def start(self, order: dict, task, files: list[int]) -> int:
        """Fork a child that runs the task with limits, the filter, and these files as 0, 1, 2, …"""
        pid = os.fork()
        if pid:
            return pid
        code = 1  # no exception may reach the loop of the supervisor, whose copy this is
        try:
            self.confine(order, files)
            task()
            code = 0
        except SystemExit:
            code = 0
        except BaseException:
            pass
        raise SystemExit(code)  # the interpreter's own end: waits for threads, runs atexit, flushes all files

    def confine(self, order: dict, files: list[int]) -> None:
        for target, file in enumerate([fcntl.fcntl(file, fcntl.F_DUPFD, 100) for file in files]):
            os.dup2(file, target)
        os.closerange(len(files), 256)
        sys.stdin, sys.stdout, sys.stderr = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8"), open(2, "w")
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        system("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        limits = {"CPU": math.ceil(order["cpu"]), "AS": self.config["memory_bytes"], "CORE": 0, "NOFILE": 64}
        limits |= {"FSIZE": self.config["output_bytes"], "STACK": 64 << 20, "MEMLOCK": 0, "MSGQUEUE": 0}
        if self.config["isolated"]:
            limits["NPROC"] = self.config["processes"]  # on the host this counts all processes of the user
        for name, limit in limits.items():
            kind = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(kind)[1]
            limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (limit, limit))
        sys.setrecursionlimit(50000)
        if order["filtered"]:
            system("prctl", PR_SET_SECCOMP, 2, ctypes.byref(self.filter), 0, 0)

    # --- in a child ---------------------------------------------------------------------------------------------

    def load(self, name: str) -> types.ModuleType:
        """Run the program as a module of this name."""
        try:
            code = compile(self.config["code"], "answer.py", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            os._exit(UNPARSABLE)
        sys.argv = ["answer.py"]
        module = sys.modules[name] = types.ModuleType(name)
        vars(module).update(self.prelude)
        exec(code, vars(module))
        return module

    def run_program(self) -> None:
        self.load("__main__")

    def call_function(self) -> None:
        values = [json.loads(line) for line in sys.stdin.read().split("\n") if line.strip()]
        module, name = self.load("answer"), self.config["function"]
        owner = module.Solution() if hasattr(getattr(module, "Solution", None), name) else module
        result = json.dumps(plain(getattr(owner, name)(*values)))
        with open(3, "w") as file:
            file.write(result)

    def serve(self) -> None:
        """Serve the program's side of a check: call what is asked for and reply with the result."""
        objects: list = []
        stream = socket.socket(fileno=3).makefile("rw")
        module = self.load("answer")
        for line in stream:
            path, positional, named = decode(json.loads(line), objects.__getitem__)
            try:
                target = objects[path[0]] if isinstance(path[0], int) else getattr(module, path[0])
                for name in path[1:]:
                    target = getattr(target, name)
                reply = {"value": encode(target(*positional, **named), objects)}
            except Exception as error:
                reply = {"error": type(error).__name__}
            stream.write(json.dumps(reply) + "\n")
            stream.flush()

    def check(self) -> None:
        """Run the check's side: names that it does not define are the program's."""
        source, stream = sys.stdin.read(), socket.socket(fileno=3).makefile("rw")

        class Names(dict):
            def __missing__(self, name):
                if hasattr(builtins, name) or name.startswith("__"):
                    raise KeyError(name)
                return Remote(stream, [name])

        exec(compile(source, "check.py", "exec"), Names(self.prelude, __name__="__main__"))


class Remote:
    """A function, class or object in the program's process."""

    def __init__(self, stream, path: list):
        self._stream, self._path = stream, path

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return Remote(self._stream, [*self._path, name])

    def __call__(self, *positional, **named):
        request = [self._path, list(positional), named]
        self._stream.write(json.dumps(encode(request, None)) + "\n")
        self._stream.flush()
        line = self._stream.readline()
        if not line.endswith("\n"):
            os._exit(1)  # the program's process ended; not an exception, which the check might catch
        reply = json.loads(line)
        if "error" in reply:
            kind = getattr(builtins, str(reply["error"]), None)
            raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else RuntimeError)("in the program")
        return decode(reply["value"], lambda index: Remote(self._stream, [int(index)]))


def encode(value, objects: list | None):
    """Return `value` as JSON that keeps exact types. No plain value: it stays here, in `objects`; its number goes."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [encode(item, objects) for item in value]
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [encode(item, objects) for item in value]}
    if kind is dict:
        return {"dict": [[encode(k, objects), encode(v, objects)] for k, v in value.items()]}
    if kind is Remote and len(value._path) == 1 and isinstance(value._path[0], int):
        return {"object": value._path[0]}
    if objects is None:
        raise TypeError(f"a {kind.__name__} can't be handed to the program")
    objects.append(value)
    return {"object": len(objects) - 1}


def decode(value, find):
    """Undo `encode`; `find` returns the object of a number. Raises for anything else."""
    if isinstance(value, list):
        return [decode(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "object":
        return find(content)
    return {"tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict}[kind](decode(i, find) for i in content)


def plain(value):
    """Return a value of JSON's own types, exactly; tuples become lists. Raises `TypeError` for any other."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (list, tuple):
        return [plain(item) for item in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: plain(item) for key, item in value.items()}
    raise TypeError(f"a {kind.__name__} is no JSON value")


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, which is inherited, children can't be waited for
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    system("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    control = open(0, "rb", closefd=False)
    config = json.loads(control.readline())

    def answer(message: dict) -> None:
        os.write(1, json.dumps(message).encode() + b"\n")

    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # if memory runs out, this is killed first
        if config["isolated"]:
            leave_host(config)
        else:
            os.chdir(config["folder"])
        drop_privileges()
        sys.path.extend(config["packages"])
        files = [os.dup(int(number)) for number in sys.argv[1:]]  # low numbers, which each child closes
        os.closerange(int(sys.argv[1]), int(sys.argv[2]) + 1)
        supervisor = Supervisor(config, *files)
        os.dup2(supervisor.null, 2)
    except (OSError, KeyError) as error:
        answer({"failed": str(error)})
        os._exit(1)
    answer({"ready": True})
    for line in control:
        try:
            code = supervisor.run(json.loads(line))
        except (OSError, RecursionError):  # the program left a folder that can't be emptied
            code = 1
        answer({"code": code})
    os._exit(0)


if __name__ == "__main__":
    main()
