"""What a hostile program can't do. Each attack has bounds of its own: the machine survives a sandbox that fails."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from riskpo_openrlhf.verifiers.code import boxes, sandbox
from riskpo_openrlhf.verifiers.code.guest_tasks import DISK_BYTES, OUTPUT_BYTES, THREADS
from riskpo_openrlhf.verifiers.code.sandbox import SandboxError, holes, open_sandbox

# `attempt` prints what an action gives, or the name of the error.
ATTEMPT = """
import ctypes, os, signal, socket, sys, threading, time
def attempt(action):
    try:
        print(action())
    except BaseException as error:
        print(type(error).__name__)
"""
BOTH = pytest.mark.parametrize("filtered", [True, False], ids=["filter", "namespaces alone"])


@pytest.fixture(scope="module", autouse=True)
def works():
    try:
        sandbox.mode()
    except SandboxError as error:
        pytest.skip(str(error))


def run(code: str, given: str = "", *, cpu=5, wall=10, memory_mb=256, filtered=True, times=1, **options):
    """The last of some runs of one program, in one sandbox."""
    with open_sandbox(ATTEMPT + code, memory_mb=memory_mb, **options) as box:
        for _ in range(times):
            last = box.run(given.encode(), cpu_seconds=cpu, wall_seconds=wall, filtered=filtered)
    return last


def printed(code: str, *args, **options) -> list[str]:
    ended = run(code, *args, **options)
    assert ended.code == 0, ended
    return ended.output.decode().splitlines()


# --- a program that behaves --------------------------------------------------------------------------------------


def test_a_program_reads_its_input_and_writes_its_output():
    assert run("print(sum(map(int, sys.stdin)))", "1\n2\n").output == b"3\n"
    assert run("sys.stdout.buffer.write(sys.stdin.buffer.read())", "é\0").output == "é\0".encode()
    assert run("print(open(0).read(), end='')", "no end of line").output == b"no end of line"
    assert printed("print(__name__, sys.argv, input('? '))", "1") == ["? __main__ ['answer.py'] 1"]


def test_what_a_program_ends_with_is_flushed():
    assert printed("threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()") == ["late"]
    assert printed("import atexit; atexit.register(print, 'last'); sys.exit('reason')") == ["last"]
    assert printed("file = open(1, 'w', closefd=False); file.write('kept')") == ["kept"]


def test_a_program_that_reads_nothing_ends_all_the_same():
    assert printed("print(1)", "x" * (1 << 20)) == ["1"]


def test_every_run_begins_with_an_empty_folder_and_nothing_of_the_run_before():
    code = "print(os.listdir(), globals().get('left'))\nleft = 1\nos.makedirs('a/b'); open('a/f', 'w').write('x')"
    assert printed(code, times=3) == ["[] None"]


def test_the_standard_library_is_there_and_threads_work():
    code = "import concurrent.futures, decimal, fractions, numbers, sqlite3, asyncio, multiprocessing.pool\n"
    code += "with concurrent.futures.ThreadPoolExecutor(4) as pool: print(sum(pool.map(abs, range(-9, 0))))\n"
    code += "async def f(): return 7\nprint(asyncio.run(f()))\n"
    code += "with multiprocessing.pool.ThreadPool(2) as pool: print(sum(pool.map(abs, range(-9, 0))))"
    assert printed(code) == ["45", "7", "45"]


def test_packages_of_a_folder_can_be_imported(monkeypatch, tmp_path):
    (tmp_path / "helper.py").write_text("value = 3")
    tmp_path.chmod(0o700)
    monkeypatch.setenv("RISKPO_CODE_PACKAGES", str(tmp_path))
    assert all("RISKPO_CODE_PACKAGES" in wrong for wrong in holes())  # root's folder, which others can't read
    tmp_path.chmod(0o755)
    assert printed("import helper; print(helper.value)") == ["3"]


# --- time, memory, output, disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["while True: pass", "10 ** 10 ** 9"])
def test_a_program_that_computes_too_long_is_killed(code):
    started = time.monotonic()
    assert run(code, cpu=1, wall=3).code in (-signal.SIGKILL, None)
    assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    "code",
    [
        "time.sleep(60)",
        "threading.Thread(target=time.sleep, args=(60,)).start()",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)",
        "signal.pause()",
    ],
)
def test_a_program_that_waits_is_killed_at_the_wall_limit(code):
    assert run(code, wall=0.3).code is None


def test_memory_beyond_the_limit_ends_the_program():
    code = "x = []\nfor _ in range(200): x.append(bytearray(b'x') * (1 << 20))\nprint('all of it')"
    ended = run(code, memory_mb=100)
    assert ended.code != 0 and b"all" not in ended.output


def test_memory_that_no_limit_of_address_space_counts_is_not_there():
    code = "attempt(lambda: os.memfd_create('x'))\nlibc = ctypes.CDLL(None)\nprint(libc.shmget(0, 1 << 20, 0o1600))"
    assert printed(code) == ["PermissionError", "-1"]


def test_endless_output_ends_the_program_and_is_cut():
    started = time.monotonic()
    ended = run("for _ in range(1000): print('x' * (1 << 18))", times=2)
    assert ended.code != 0 and len(ended.output) <= OUTPUT_BYTES
    assert time.monotonic() - started < 10


def test_the_output_file_can_be_made_no_larger_by_other_means():
    code = "attempt(lambda: os.ftruncate(1, 1 << 40))\nattempt(lambda: os.posix_fallocate(1, 0, 1 << 40))"
    assert printed(code) == ["OSError", "OSError"]


def test_the_disk_is_small_and_emptied():
    code = """
print(os.listdir())
def fill():
    for i in range(100):
        with open(f'{i}', 'wb') as file:
            file.write(b'x' * (4 << 20))
attempt(fill)
print(sum(os.path.getsize(name) for name in os.listdir()))
"""
    empty, error, size = printed(code, times=2)
    assert (empty, error) == ("[]", "OSError") and int(size) <= DISK_BYTES


def test_files_without_content_are_counted_too():
    assert printed("attempt(lambda: [open(f'{i}', 'w').close() for i in range(20000)])", times=2) == ["OSError"]


def test_a_folder_that_can_not_be_emptied_fails_the_next_run_and_not_the_sandbox():
    assert run("os.mkdir('d'); open('d/f', 'w').close(); os.chmod('d', 0)", times=2).code == 1


@pytest.mark.parametrize(
    "code",
    [
        "def f(n): return f(n + 1)\nf(0)",
        "sys.setrecursionlimit(10 ** 9)\ndef f(n): return f(n + 1)\nf(0)",
        "x = []\nfor _ in range(10 ** 5): x = [x]\nprint(repr(x))",
        "ctypes.string_at(0)",
        "os.abort()",
        "os._exit(3)",
        "raise ValueError",
    ],
)
def test_a_crash_is_no_success(code):
    assert run(code, cpu=2, wall=5, memory_mb=60).code != 0


def test_deep_recursion_within_reason_works():
    assert printed("def f(n): return n and 1 + f(n - 1)\nprint(f(40000))") == ["40000"]


# --- processes and signals ---------------------------------------------------------------------------------------


BOMB = """
made = 0
try:
    for _ in range(300):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
"""


def test_a_fork_bomb_makes_no_process():
    assert printed(BOMB, times=2) == ["0"]


def test_without_the_filter_a_fork_bomb_stays_below_the_limit_of_processes_and_is_gone_with_the_run():
    started = time.monotonic()
    made = printed(BOMB, filtered=False, times=2, memory_mb=64)
    assert 0 < int(made[0]) < THREADS
    assert time.monotonic() - started < 5


def test_threads_are_limited():
    code = """
threading.stack_size(1 << 16)
def crowd():
    for _ in range(300):
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
attempt(crowd)
print(threading.active_count() < 64)
"""
    assert printed(code) == ["RuntimeError", "True"]


def test_no_other_program_can_be_started():
    code = "import subprocess\nattempt(lambda: subprocess.run(['/bin/true']))\nattempt(lambda: os.execv('/x', ['x']))"
    assert printed(code) == ["PermissionError", "PermissionError"]


@BOTH
def test_signals_reach_nobody(filtered):
    code = "for pid in (1, os.getppid(), -1):\n  for number in (2, 9, 15, 19): attempt(lambda: os.kill(pid, number))\n"
    code += "print('here', os.getppid())"
    assert printed(code, filtered=filtered, times=2)[-1] == "here 1"


def test_a_daemon_does_not_outlive_the_run():
    code = """
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
for _ in range(1000):
    os.write(1, b'x')
    time.sleep(0.01)
"""
    with open_sandbox(ATTEMPT + code) as box:
        assert box.run(b"", cpu_seconds=1, wall_seconds=5, filtered=False).code == 0
        size = os.fstat(box._sink).st_size
        time.sleep(0.2)
        assert os.fstat(box._sink).st_size == size


def test_the_sandbox_dies_with_the_process_that_made_it(tmp_path):
    code = "from riskpo_openrlhf.verifiers.code import boxes, sandbox\n"
    code += "with sandbox.open_sandbox('import time; time.sleep(20)', weak=False) as box:\n"
    code += "    print(boxes._zygote._process.pid, flush=True)\n"
    code += "    box.run(b'', cpu_seconds=1, wall_seconds=20)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as maker:
        zygote = Path(f"/proc/{int(maker.stdout.readline())}")
        time.sleep(0.3)
        processes = [zygote]
        for process in processes:  # it grows: the launcher, PID 1 of the sandbox, the program
            children = (process / f"task/{process.name}/children").read_text().split()
            processes += [Path(f"/proc/{child}") for child in children]
        assert len(processes) == 4
        maker.kill()

    def alive():
        return [p for p in processes if p.exists() and "\nState:\tZ" not in (p / "status").read_text()]

    deadline = time.monotonic() + 5
    while alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive()


def test_it_works_in_a_process_that_ignores_and_blocks_the_signals_of_children():
    code = "import signal\nfrom riskpo_openrlhf.verifiers.code.sandbox import open_sandbox\n"
    code += "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    code += "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})\n"
    code += "with open_sandbox('print(7)', weak=False) as box: print(box.run(b'', cpu_seconds=5, wall_seconds=9))\n"
    assert "code=0, output=b'7" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


# --- the host ----------------------------------------------------------------------------------------------------


@BOTH
def test_nothing_of_the_host_can_be_read(monkeypatch, tmp_path, filtered):
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    monkeypatch.setenv("HIDDEN_KEY", "hidden")
    paths = [secret, Path.home(), "/home", "/etc/passwd", "/proc/1/environ", "/proc/self/environ", "/proc", "/sys"]
    paths += [Path(sandbox.__file__), Path.cwd(), "/run", "/var", "/mnt"]
    code = "\n".join(
        f"attempt(lambda: os.listdir({str(p)!r}) if os.path.isdir({str(p)!r}) else open({str(p)!r}).read())"
        for p in paths
    )
    shared, *lines = printed(f"print(os.listdir('/dev/shm'))\n{code}\nprint(sorted(os.environ))", filtered=filtered)
    assert shared == "[]"
    hidden = [i for i, line in enumerate(lines[:-1]) if line != "FileNotFoundError"]
    # Python may lie below the home folder; then its path is there, and nothing beside it.
    assert [paths[i] for i in hidden] in ([], [Path.home()])
    assert all(len(eval(lines[i])) == 1 for i in hidden)
    assert "hidden" not in " ".join(lines)
    assert not {"HIDDEN_KEY", "PATH", "USER"}.intersection(eval(lines[-1]))


@BOTH
def test_nothing_but_its_folder_can_be_written(filtered):
    code = "for p in ('/x', '/dev/x', '/usr/lib/x', os.__file__, '/lib/x'): attempt(lambda: open(p, 'a'))\n"
    code += "attempt(lambda: os.chmod('/', 0o777))\nattempt(lambda: os.remove(os.__file__))\nprint(os.getcwd())"
    *errors, folder = printed(code, filtered=filtered)
    assert folder == "/tmp" and set(errors) <= {"OSError", "PermissionError", "FileNotFoundError"}


@BOTH
def test_links_lead_nowhere(filtered):
    code = "for target in ('/etc/passwd', '../../../etc/passwd', '/proc/1/root/etc/passwd'):\n"
    code += "  os.symlink(target, 'link'); attempt(lambda: open('link')); os.remove('link')\n"
    code += "attempt(lambda: os.link(os.__file__, 'hard'))\nprint('etc' in os.listdir('/../..'))"
    assert printed(code, filtered=filtered) == ["FileNotFoundError"] * 3 + ["OSError", "False"]


@BOTH
def test_there_is_no_network(filtered):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        code = f"attempt(lambda: socket.create_connection({address!r}, timeout=1))\n"
        code += "attempt(lambda: socket.create_connection(('192.0.2.1', 80), timeout=1))\n"
        code += "attempt(lambda: socket.getaddrinfo('localhost.example', 80))"
        assert set(printed(code, filtered=filtered)) <= {"PermissionError", "OSError", "gaierror"}


def test_there_are_no_privileges_and_no_way_to_gain_any():
    code = """
libc = ctypes.CDLL(None, use_errno=True)
print(os.getuid() > 0, os.getgroups() in ([], [65534]))
for action in (
    lambda: libc.unshare(0x10000000), lambda: libc.unshare(0x20000), lambda: libc.chroot(b'/tmp'),
    lambda: libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None), lambda: libc.ptrace(16, 1, 0, 0),
    lambda: libc.setuid(0), lambda: libc.syscall(425, 1, 0), lambda: libc.syscall(435, 0, 0),
):
    attempt(action)
"""
    assert printed(code) == ["True True"] + ["-1"] * 8


def test_the_program_has_no_file_of_its_judge():
    code = "found = []\nfor fd in range(3, 2000):\n  try: os.fstat(fd); found.append(fd)\n  except OSError: pass\n"
    assert printed(code + "print(found)") == ["[]"]


def test_the_self_test_finds_no_hole_here_and_sees_one_that_is_made(monkeypatch, tmp_path):
    assert holes() == []
    real = sandbox._visible
    monkeypatch.setattr(sandbox, "_visible", lambda: [*real(), ("/etc", "/etc")])
    assert holes() == ["it reads /etc"] * 2


def test_the_self_test_is_a_command_that_says_the_mode_and_nothing_else():
    command = [sys.executable, "-m", "riskpo_openrlhf.verifiers.code.sandbox"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "programs of the model run in: namespaces\n", "")


# --- one sandbox, many programs ----------------------------------------------------------------------------------


@pytest.fixture
def fresh():
    """No idle sandbox before the test; a function that runs a program and tells in which sandbox."""
    while boxes._idle:
        boxes._idle.pop().close()

    def used(code: str, **options):
        with open_sandbox(ATTEMPT + code) as box:
            box.run(b"", cpu_seconds=1, wall_seconds=options.pop("wall", 5), **options)
            return box._box

    return used


LEAVE = """
import builtins, json, random, resource
sys.left = builtins.left = os.environ['LEFT'] = 'left'
sys.path.append('/left'); sys.modules['left'] = sys; json.left = print.__self__.left = 1
os.umask(0o777); resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10)); sys.setrecursionlimit(99)
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); os.chdir('/')
random.seed(1); socket.setdefaulttimeout(1); threading.stack_size(1 << 16); builtins.print = builtins.open = None
"""
LOOK = """
import json, random, resource
seen = [name for where in (vars(sys), vars(__import__('builtins')), os.environ, sys.modules, vars(json)) for name in where]
print([name for name in seen if name.lower() == 'left'], '/left' in sys.path, os.umask(0), os.getpriority(0, 0), os.getcwd(),
      resource.getrlimit(resource.RLIMIT_NOFILE)[0], sys.getrecursionlimit(), signal.getsignal(signal.SIGTERM).name,
      len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), os.listdir(), random.random() == random.Random(1).random(),
      socket.getdefaulttimeout(), threading.stack_size(), threading.active_count())
"""  # noqa: E501


def test_a_program_finds_nothing_of_the_one_before_it_in_the_same_sandbox(fresh):
    before = printed(LOOK)
    box = fresh(LEAVE)
    assert boxes._idle == [box]
    assert printed(LOOK) == before and boxes._idle == [box]


def test_flags_and_locks_of_open_files_do_not_reach_the_next_program(fresh):
    look = "import fcntl\nprint([fcntl.fcntl(n, fcntl.F_GETFL) for n in range(3)])\n"
    look += "attempt(lambda: fcntl.flock(open('/dev/null'), fcntl.LOCK_EX | fcntl.LOCK_NB))"
    before = printed(look)
    box = fresh("import fcntl\nfor n in range(3):\n    fcntl.fcntl(n, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)\n"
                "    fcntl.flock(n, fcntl.LOCK_EX)")  # fmt: skip
    assert boxes._idle == [box]
    assert printed(look) == before and before[1] == "None" and boxes._idle == [box]


OF_OTHERS = {
    "a limit of the supervisor": "resource.prlimit(1, resource.RLIMIT_FSIZE, (0, 0))",
    "its own limit by its number": "resource.prlimit(os.getpid(), resource.RLIMIT_FSIZE, (0, 0))",
    "a priority": "os.setpriority(os.PRIO_PROCESS, 1, 19)",
    "a priority of all of the user": "os.setpriority(os.PRIO_USER, 0, 19)",
    "a priority of all of the group": "os.setpriority(os.PRIO_PGRP, 0, 19)",
    "a scheduler": "os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))",
    "a processor": "os.sched_setaffinity(1, {0})",
    "signals of a file": "fcntl.fcntl(a, fcntl.F_SETOWN, 1)",
    "another signal of a file": "fcntl.fcntl(a, 10, 9)",  # F_SETSIG
    "signals of a file to a thread": "fcntl.fcntl(a, 15, bytes(8))",  # F_SETOWN_EX
    "signals of a socket": "fcntl.ioctl(a, 0x8901, bytes(4))",  # FIOSETOWN
    "a hint that stays with the folder": "fcntl.fcntl(os.open('.', 0), 1036, bytes([3, *bytes(7)]))",  # F_SET_RW_HINT
    "an attribute of the output, which no limit counts": "os.setxattr(1, 'user.left', b'x')",
    "an attribute of the folder": "os.setxattr('.', 'user.left', b'x')",
    "an attribute of a link": "os.setxattr('.', 'user.left', b'x', follow_symlinks=False)",
}


@pytest.mark.parametrize("attempt", OF_OTHERS)
def test_a_program_can_change_and_signal_no_other_process_and_leave_no_attribute(attempt):
    code = f"""
import fcntl, os, resource, socket
a, b = socket.socketpair()
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
fcntl.fcntl(a, fcntl.F_SETFL, os.O_NONBLOCK)
try:
    {OF_OTHERS[attempt]}
except PermissionError:
    print("refused")
"""
    assert run(code).output == b"refused\n"


def test_a_program_prints_the_same_order_of_a_set_each_time(fresh):
    code = "print(*{chr(97 + n) * 3 for n in range(20)})"
    first = printed(code)
    assert boxes._idle
    boxes._close_all()
    assert printed(code) == first


def test_programs_of_contests_may_ask_for_a_larger_stack():
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_STACK, (1 << 28, resource.RLIM_INFINITY))
sys.setrecursionlimit(1 << 20)
print(resource.getrlimit(resource.RLIMIT_STACK)[0])
"""
    assert run(code).output == b"268435456\n"


SEARCH = """
import ctypes, os
libc = ctypes.CDLL(None)
libc.sbrk.restype, libc.write.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
out, into = os.pipe()
page, found, misses = libc.sbrk(0), [], 0
while misses < 64:
    page -= 4096
    if libc.write(into, page, 4096) > 0:
        misses = 0
        text = os.read(out, 4096)
        found += [text[at:at + 24] for at in range(4096) if text.startswith(b"edisni"[::-1] + b" the program", at)]
    else:
        misses += 1
print(len(found))
"""


def test_no_program_finds_the_source_of_an_earlier_one_in_its_memory(fresh):
    first = fresh("x = [\n" + "    'inside the program',\n" * 200 + "]\n")
    assert boxes._idle == [first]
    assert printed(SEARCH) == ["0"]
    assert boxes._idle == [first]


TRACES = {
    "a file": "open('left', 'w').write('x')",
    "a file that is gone": "open('left', 'w').close(); os.remove('left')",
    "a file that is gone, the folder's times set back": "t = os.stat('.')\nopen('x', 'w').close()\nos.remove('x')\n"
    "os.utime('.', ns=(t.st_atime_ns, t.st_mtime_ns))",
    "a mode": "os.chmod('.', 0o500)",
    "a mode that was set back": "os.chmod('.', 0); os.chmod('.', 0o700)",
    "times": "os.utime('.')",
    "a crash": "os.abort()",
    "an end by its limit": "while True: pass",
    "an end by the clock": "time.sleep(60)",
}


@pytest.mark.parametrize("trace", TRACES)
def test_no_other_program_gets_a_sandbox_in_which_a_trace_could_be(trace, fresh):
    assert fresh("print(1)") in boxes._idle
    box = fresh(TRACES[trace], wall=2)
    assert box not in boxes._idle
    assert fresh("print(1)") is not box


def test_without_the_filter_a_sandbox_is_not_used_again(fresh):
    assert fresh("print(1)", filtered=False) not in boxes._idle


def test_a_sandbox_that_died_while_idle_is_replaced(fresh):
    fresh("print(1)")
    boxes._zygote._process.kill()
    boxes._zygote._process.wait()
    time.sleep(0.3)
    assert printed("print(2)") == ["2"]


RUN = (
    "import os, signal\nfrom riskpo_openrlhf.verifiers.code import boxes, sandbox\n"
    "def run(n):\n    with sandbox.open_sandbox(f'print({n})', weak=False) as b:\n"
    "        return b.run(b'', cpu_seconds=5, wall_seconds=9).output\n"
)


def test_a_child_that_is_forked_while_all_sandboxes_are_in_use_waits_for_none(monkeypatch):
    monkeypatch.setenv("RISKPO_CODE_SANDBOXES", "1")
    code = RUN + "with sandbox.open_sandbox('print(1)', weak=False):\n    child = os.fork()\n    if not child:\n"
    code += "        signal.alarm(20)\n        assert run(2) == b'2\\n'\n        os._exit(0)\n"
    code += "assert os.waitpid(child, 0)[1] == 0 and run(3) == b'3\\n'\n"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).returncode == 0


def test_a_child_that_is_forked_during_the_self_test_waits_for_no_thread_of_its_parent():
    code = RUN + "import threading, time\nsandbox.holes = lambda: time.sleep(1) or []\n"
    code += "threading.Thread(target=sandbox.mode).start()\n"
    code += "while not sandbox._lock.locked():\n    time.sleep(0.001)\n"
    code += "child = os.fork()\nif not child:\n    signal.alarm(20)\n    sandbox.mode()\n    os._exit(0)\n"
    code += "assert os.waitpid(child, 0)[1] == 0"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).returncode == 0


def test_a_forked_child_has_sandboxes_of_its_own(fresh):
    code = RUN + "mine = run(1), boxes._zygote._process.pid\nchild = os.fork()\n"
    code += "if not child:\n    assert run(2) == b'2\\n' and boxes._zygote._process.pid != mine[1]\n    os._exit(0)\n"
    code += "assert os.waitpid(child, 0)[1] == 0 and run(3) == b'3\\n' and boxes._zygote._process.pid == mine[1]\n"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).returncode == 0


# --- the sandbox itself ------------------------------------------------------------------------------------------


def test_no_more_sandboxes_than_allowed_are_in_use_at_once(monkeypatch):
    slots, times = threading.BoundedSemaphore(1), []
    monkeypatch.setattr(sandbox, "_make_slots", lambda: slots)

    def work():
        with open_sandbox("import time; time.sleep(0.1)") as box:
            started = time.monotonic()
            box.run(b"", cpu_seconds=1, wall_seconds=5)
            times.append((started, time.monotonic()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    assert all(end <= start for (_, end), (start, _) in zip(times, times[1:], strict=False))


def test_an_unknown_mode_is_an_error_that_lists_the_known_ones(monkeypatch):
    monkeypatch.setenv("RISKPO_SANDBOX", "jail")
    with pytest.raises(ValueError, match="'jail'; one of: auto, namespaces, weak"):
        sandbox.mode()


def test_a_machine_that_can_not_isolate_is_an_error_with_cause_and_cure(monkeypatch):
    monkeypatch.setattr(sandbox, "holes", lambda: ["it reads the host's files"])
    with pytest.raises(SandboxError, match="(?s)it reads the host's files.*--privileged.*RISKPO_SANDBOX=weak"):
        sandbox._working_mode.__wrapped__(False)


def test_a_sandbox_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setattr(sandbox, "_visible", lambda: [("/nowhere", "/nowhere")])
    with pytest.raises(SandboxError, match="mount /nowhere: No such file"), open_sandbox("print(1)"):
        pass


def test_the_weak_mode_is_announced_and_still_has_filter_and_limits(monkeypatch):
    sandbox._working_mode.cache_clear()
    monkeypatch.setenv("RISKPO_SANDBOX", "weak")
    monkeypatch.setenv("HIDDEN_KEY", "hidden")
    with pytest.warns(UserWarning, match="without isolation"):
        assert sandbox.mode() == "weak"
    sandbox._working_mode.cache_clear()
    code = "attempt(os.fork)\nattempt(lambda: os.kill(os.getppid(), 0))\nattempt(socket.socket)\n"
    code += "attempt(lambda: bytearray(1 << 30))\nprint('HIDDEN_KEY' in os.environ, os.listdir())"
    assert printed(code, weak=True) == ["PermissionError"] * 3 + ["MemoryError", "False []"]
    assert run("time.sleep(60)", wall=0.5, weak=True).code is None
