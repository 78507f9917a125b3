"""The script that `sandbox.py` starts: it makes sandboxes and runs programs in them.

Four roles, each a process. The zygote is started once: an interpreter with the usual modules loaded, which holds no
program and no secret. For each sandbox it forks a launcher. The launcher leaves the host's namespaces, forks the
supervisor, and kills it as soon as the host lets go of the sandbox. The supervisor, PID 1 in the new namespaces, gives
up all privileges and waits for orders. An order is one run: the supervisor forks a child with limits and the system
call filter, in which the program runs, waits for its end, and kills what is left. The supervisor runs no line of a
program. It tells the host after each run whether a trace could be left; then no other program gets this sandbox.

No expected output gets here, except in a `check`, which runs in a child of its own. `guest_tasks.py` and
`guest_check.py` are what children do.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import math
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from importlib import import_module

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
tasks, checks = import_module("guest_tasks"), import_module("guest_check")
del sys.path[0]

CONTROL, SOURCE, SINK, PROGRAM = 3, 4, 5, 6  # files of a launcher and a supervisor

# System calls that a computing program does not need: name, number on x86_64, on aarch64 (-: not there).
DENIED = """
fork 57 -; vfork 58 -; execve 59 221; execveat 322 281; kill 62 129; tkill 200 130; tgkill 234 131;
rt_sigqueueinfo 129 138; rt_tgsigqueueinfo 297 240; ptrace 101 117; process_vm_readv 310 270;
process_vm_writev 311 271; kcmp 312 272; socket 41 198; memfd_create 319 279; shmget 29 194; msgget 68 186;
semget 64 190; mq_open 240 180; userfaultfd 323 282; bpf 321 280; perf_event_open 298 241; add_key 248 217;
request_key 249 218; keyctl 250 219; unshare 272 97; setns 308 268; mount 165 40; umount2 166 39; pivot_root 155 41;
chroot 161 51; name_to_handle_at 303 264; open_by_handle_at 304 265; fanotify_init 300 262; setpriority 141 140;
ioprio_set 251 30; sched_setparam 142 118; sched_setscheduler 144 119; sched_setaffinity 203 122;
sched_setattr 314 274; migrate_pages 256 238; move_pages 279 239; setxattr 188 5; lsetxattr 189 6; fsetxattr 190 7
"""
# Denied for values of an argument at a place (!: all but it): limits of others, the signals and the hints of a file.
DENIED_FOR = "prlimit64 302 261 0 !0; fcntl 72 25 1 8 10 15 1036; ioctl 16 29 1 0x8901 0x8902"
# Reported as not there: pidfd_*, io_uring_*, new mount calls, clone3, process_madvise, and all from 442 on.
ABSENT = (*range(424, 436), 438, 440)
FIRST_UNKNOWN = 442
ARCHITECTURES = {"x86_64": (0xC000003E, 1, 56), "aarch64": (0xC00000B7, 2, 220)}  # audit id, column above, clone

CLONE_NEWNS, CLONE_NEWUSER, CLONE_THREAD = 0x20000, 0x10000000, 0x10000
# mount, cgroup, uts, ipc, pid and net
NAMESPACES = CLONE_NEWNS | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
MS_NOSUID, MS_NODEV, MS_NOATIME, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 1024, 4096, 16384, 1 << 18, 2
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


def launch(files: list[int]) -> None:
    """Make one sandbox: enter new namespaces, a root folder of libraries only, and another user, and serve there.

    Args:
        files: the socket to the host, and the file that holds the sandbox's settings.
    """
    keep_files([null := os.open("/dev/null", os.O_RDWR), null, 2, *files, null, null])
    try:
        config = json.loads(os.pread(SOURCE, os.fstat(SOURCE).st_size, 0))
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # if memory runs out, this is killed first
        uid = 60000 + os.getpid() % 5000  # a user that runs nothing else: the limit of processes counts by user
        root = config["isolated"] and leave_host(uid)
        system("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        child = os.fork()
        if child:
            keep(child)
        if config["isolated"]:
            new_root(config, uid)
            socket.sethostname("sandbox")
            if root:
                become(uid)
        else:
            os.chdir(config["folder"])
        drop_privileges()
        sys.path.extend(config["packages"])
        supervisor = Supervisor(config)
        os.dup2(0, 2)
    except (OSError, KeyError) as error:
        answer({"failed": str(error)})
        os._exit(1)
    answer({"ready": True})
    host = socket.socket(fileno=CONTROL)
    while True:
        message, files, _, _ = socket.recv_fds(host, 1 << 16, 3)
        if not message:
            os._exit(0)
        if files:
            supervisor.take(files)
            continue
        try:
            code, clean = supervisor.run(json.loads(message))
        except (OSError, RecursionError):  # the program left a folder that can't be emptied
            code, clean = 1, False
        answer({"code": code, "clean": clean})


def keep_files(files: list[int]) -> None:
    """Make these files 0, 1, 2, …, and close all others."""
    for target, file in enumerate([fcntl.fcntl(file, fcntl.F_DUPFD, 40) for file in files]):
        os.dup2(file, target)
    os.closerange(len(files), 256)


def answer(message: dict) -> None:
    os.write(CONTROL, json.dumps(message).encode())


def keep(child: int) -> None:
    """Wait until PID 1 ends or the host lets go of the sandbox, then end both."""
    events = select.poll()
    events.register(CONTROL, select.POLLRDHUP)
    events.register(os.pidfd_open(child), select.POLLIN)
    events.poll()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os._exit(0)


def leave_host(uid: int) -> bool:
    """Enter new namespaces, but for the PID namespace, which children enter. Tells whether root's power is left."""
    if os.geteuid() == 0 and is_mapped(uid):
        try:
            system("unshare", NAMESPACES)
            return True
        except PermissionError:
            become(uid)
    owner, group = os.geteuid(), os.getegid()
    system("unshare", NAMESPACES | CLONE_NEWUSER)
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {owner} 1"), ("gid_map", f"{uid} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    return False


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
    os.symlink("/tmp", "./dev/shm")  # for named semaphores: pools of threads have one
    os.mkdir("./tmp")
    size = f"size={tasks.DISK_BYTES},nr_inodes=4096,mode=700,uid={uid},gid={uid}"
    mount("tmpfs", "./tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOATIME, size)
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
    for row in map(str.split, DENIED_FOR.split(";")):
        place, *values = row[3:]
        verdicts = [(give, 0, 0, denied), (give, 0, 0, allow)]
        body = [(load, 0, 0, 16 + 8 * int(place))]
        for left, value in reversed([*enumerate(reversed(values))]):
            body += [(equal, left, int(left == 0), int(value.lstrip("!"), 0))]
        body += verdicts[::-1] if values[0].startswith("!") else verdicts
        steps += [(equal, 0, len(body), int(row[column])), *body]
    steps += [(equal, 0, 3, clone), (load, 0, 0, 16), (any_bit, 1, 0, CLONE_THREAD), (give, 0, 0, denied)]
    steps += [(give, 0, 0, allow)]

    class Step(ctypes.Structure):
        _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint16), ("steps", ctypes.POINTER(Step))]

    return Program(len(steps), (Step * len(steps))(*steps))


# --- the supervisor ---------------------------------------------------------------------------------------------


class Supervisor:
    """Run one program after the other, each once for each order `{"kind", "memory_bytes", "cpu", "wall", "filtered"}`.

    An order is answered by `{"code", "clean"}`. The code is the program's exit code; minus the signal's number if a
    signal ended it; None at the wall-clock limit. `clean`: the program ended by itself and never changed its folder,
    the only thing that outlives a run. The supervisor never reads a program: children inherit its memory.
    """

    def __init__(self, config: dict):
        self.filter = system_call_filter()
        tasks.make_flag()
        limits = {"CORE": 0, "NOFILE": 64, "STACK": 64 << 20, "MEMLOCK": 0, "MSGQUEUE": 0, "FSIZE": tasks.OUTPUT_BYTES}
        if config["isolated"]:
            limits["NPROC"] = tasks.THREADS  # on the host this counts all processes of the user
        for name, most in limits.items():
            limit(getattr(resource, f"RLIMIT_{name}"), most, soft=name == "STACK")  # programs of contests raise it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self.fresh = self.folder()
        # Made here, not by each child: they stand for the files 0, 1 and 2, whatever these are.
        sys.stdin, sys.stdout, sys.stderr = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8"), open(2, "w")
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr

    def take(self, files: list[int]) -> None:
        """Take the next program: the files that hold it, its input and its output."""
        for target, file in zip((PROGRAM, SOURCE, SINK), files, strict=True):
            os.dup2(file, target)
        for file in files:
            os.close(file)

    def folder(self) -> tuple:
        """Return the state of the folder. Whatever is done to it, or in it, changes the time in it."""
        state = os.stat(".")
        return state.st_ctime_ns, state.st_mode, os.listdir()

    def run(self, order: dict) -> tuple[int | None, bool]:
        for entry in os.scandir("."):
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
        os.lseek(SOURCE, 0, os.SEEK_SET)
        if order["kind"] == "stdin":
            children = [self.start(order, tasks.run_program, [SOURCE, SINK, 0])]
        elif order["kind"] == "functional":
            children = [self.start(order, tasks.call_function, [SOURCE, 0, 0, SINK])]
        else:
            ours, theirs = socket.socketpair()
            children = [self.start(order, checks.serve, [0, 0, 0, theirs.fileno()])]
            children += [self.start(order, checks.check, [SOURCE, 0, 0, ours.fileno(), SINK])]
            ours.close()
            theirs.close()
        code = self.wait(children, order["wall"])
        return code, order["filtered"] and code is not None and code >= 0 and self.folder() == self.fresh

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
        with contextlib.suppress(ProcessLookupError):
            for pid in set(children) - codes.keys():
                os.kill(pid, signal.SIGKILL)
            if os.getpid() == 1:  # everything left in this PID namespace; never on the host
                os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.wait()
                codes[pid] = os.waitstatus_to_exitcode(status)
        return tasks.outcome(code, [codes.get(pid) for pid in children])

    def start(self, order: dict, task, files: list[int]) -> int:
        """Fork a child that runs the task with limits, the filter, and these files as 0, 1, 2, …"""
        pid = os.fork()
        if pid:
            return pid
        code = 1  # no exception may reach the loop of the supervisor, whose copy this is
        try:
            program = json.loads(os.pread(PROGRAM, os.fstat(PROGRAM).st_size, 0))
            self.confine(order, files)
            task(program)
            code = 0
        except SystemExit:
            code = 0
        except BaseException:
            pass
        tasks.leave(code)

    def confine(self, order: dict, files: list[int]) -> None:
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)  # one of its own: flags and locks stay with an open file
        keep_files(files)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        system("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        limit(resource.RLIMIT_CPU, math.ceil(order["cpu"]))
        limit(resource.RLIMIT_AS, order["memory_bytes"])
        sys.setrecursionlimit(50000)
        sys.set_int_max_str_digits(0)  # the limit of CPU time is enough
        if order["filtered"]:
            system("prctl", PR_SET_SECCOMP, 2, ctypes.byref(self.filter), 0, 0)


def limit(kind: int, most: int, soft: bool = False) -> None:
    """Set a limit of this process and of those that it forks; `soft`: they may raise it."""
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, hard if soft else most))


# --- the zygote -------------------------------------------------------------------------------------------------


def main() -> None:
    """Fork a launcher for every message on the socket that is file 0, with the two files that come with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # PID 1 gets no signal from its children without a handler
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, which is inherited, children can't be waited for
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    tasks.add_usual_names()
    gc.collect()
    gc.freeze()  # a child's garbage collector must not touch, and so copy, what is here now
    host = socket.socket(fileno=0)
    while True:
        message, files, _, _ = socket.recv_fds(host, 1, 2)
        if not message:
            os._exit(0)
        if not os.fork():
            try:
                launch(files)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            os._exit(1)
        for file in files:
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main()
