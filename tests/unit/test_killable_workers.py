"""Worker processes that can be killed: deadlines, deaths, limits, and that nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from riskpo_openrlhf.verifiers import killable
from riskpo_openrlhf.verifiers.killable import MAX_REQUEST, WorkerError, WorkerPool


@pytest.fixture
def pool_of():
    pools = []

    def make(function, warm_up=(), **kwargs):
        pools.append(WorkerPool(function, warm_up, **{"size": 1, **kwargs}))
        return pools[-1]

    yield make
    for pool in pools:
        pids = pool.pids()
        pool.close()
        assert wait_until(lambda pids=pids: not any(map(runs, pids)))


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_calls_from_many_threads_get_their_own_results(pool_of):
    pool = pool_of("math:factorial", (3,), size=2)
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(pool.call, range(200)))
    product = 1
    for n, result in enumerate(results):
        product *= max(n, 1)
        assert result == ("ok", product)
    assert len(pool.pids()) <= 2


def test_an_exception_of_the_function_is_an_error_and_the_worker_goes_on(pool_of):
    pool = pool_of("math:sqrt", (1,))
    assert pool.call(4) == ("ok", 2.0)
    pids = pool.pids()
    status, text = pool.call(-1)
    assert status == "error" and text.startswith("ValueError")
    assert pool.call(9) == ("ok", 3.0) and pool.pids() == pids


def test_a_call_that_waits_past_the_limit_by_the_clock_is_killed_and_the_next_one_is_answered(pool_of):
    pool = pool_of("time:sleep", (0,), seconds=0.1)
    pool.call(0)
    (pid,) = pool.pids()
    begin = time.monotonic()
    assert pool.call(60) == ("timeout", None)
    assert 1 <= time.monotonic() - begin < 3
    assert not runs(pid)
    assert pool.call(0) == ("ok", None)


def test_a_deadline_holds_in_code_that_keeps_the_interpreter_busy(pool_of):
    pool = pool_of("builtins:pow", (2, 3), seconds=0.5)
    assert pool.call(7, 10**9) == ("timeout", None)
    assert pool.call(2, 5) == ("ok", 32)


def test_the_deadline_counts_the_time_of_the_worker_and_not_that_of_others(pool_of):
    """Half a second of work, with two others on every processor: more than a second by the clock."""
    pool = pool_of("builtins:pow", (2, 3), seconds=1.0)
    pool.call(2, 3)
    work, taken = 1 << 16, 0.0
    while taken < 0.5:
        work = int(work * 1.3)
        begin = time.process_time()
        pow(7, work)
        taken = time.process_time() - begin
    busy = [sys.executable, "-c", "while True: pass"]
    crowd = [subprocess.Popen(busy, start_new_session=True) for _ in range(2 * len(os.sched_getaffinity(0)))]
    try:
        time.sleep(0.5)
        begin = time.monotonic()
        assert pool.call(7, work)[0] == "error"  # it was computed: its digits are too many for JSON
        assert time.monotonic() - begin > 1.0
    finally:
        for process in crowd:
            process.kill()
            process.wait()


def test_the_start_of_a_worker_does_not_count_against_the_deadline(pool_of):
    # The warm-up takes longer than a call may.
    pool = pool_of("time:sleep", (0.7,), seconds=0.5)
    assert pool.call(0) == ("ok", None)


def test_a_worker_that_was_killed_while_idle_is_replaced(pool_of):
    pool = pool_of("math:factorial", (3,), size=2)
    pool.call(3)
    for pid in pool.pids():
        os.kill(pid, signal.SIGKILL)
    assert pool.call(4) == ("ok", 24)


def test_a_call_whose_worker_is_killed_is_made_again(pool_of):
    pool = pool_of("time:sleep", (0,), seconds=10)
    pool.call(0)
    (pid,) = pool.pids()
    threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()
    assert pool.call(0.5) == ("ok", None)
    assert pid not in pool.pids()


def test_a_call_that_ends_two_workers_is_an_error(pool_of):
    pool = pool_of("os:kill", (0, 0))
    status, text = pool.call(0, signal.SIGKILL)  # process 0: everybody in the worker's group, which is itself
    assert status == "error" and "two workers" in text
    assert pool.call(0, 0) == ("ok", None)


def test_a_call_that_takes_all_memory_says_so_and_the_next_one_is_answered(pool_of):
    pool = pool_of("operator:mul", (2, 3), megabytes=128)
    assert pool.call("x" * 1000, 10**6) == ("memory", None)
    assert pool.call(3, 4) == ("ok", 12)


def test_a_worker_whose_memory_has_grown_to_half_of_its_limit_is_replaced_between_calls(pool_of):
    pool = pool_of("os:putenv", ("A", "B"), megabytes=96)  # the C library keeps what it is given
    pool.call("A", "B")
    pids = {*pool.pids()}
    for number in range(1_500):
        assert pool.call(f"NAME{number}", "x" * 60_000) == ("ok", None)
        pids |= {*pool.pids()}
    assert 2 <= len(pids) <= 5


def test_the_memory_of_the_caller_does_not_count(pool_of):
    large = b"x" * 200_000_000
    pool = pool_of("operator:mul", (2, 3), megabytes=128)
    pool.call(2, 3)
    pids = pool.pids()
    assert pool.call(3, 4) == ("ok", 12) and pool.pids() == pids
    del large


def test_a_result_that_is_no_json_is_an_error(pool_of):
    status, text = pool_of("operator:pow", (2, 3)).call(-1, 0.5)
    assert status == "error" and "complex is not JSON" in text


def test_a_worker_that_can_not_start_is_reported_with_its_output(pool_of):
    pool = pool_of("no_such_module:function")
    with pytest.raises(WorkerError, match="No module named 'no_such_module'"):
        pool.call()
    with pytest.raises(WorkerError, match="no_such_module"):  # the next caller is told as well, and not left waiting
        pool.call()


def test_a_worker_that_is_never_ready_is_reported(pool_of):
    with pytest.raises(WorkerError, match="not ready after 0.5 s"):
        pool_of("time:sleep", (60,), start_seconds=0.5).call(0)


def test_a_request_that_is_too_large_is_refused(pool_of):
    with pytest.raises(ValueError, match=str(MAX_REQUEST)):
        pool_of("builtins:len", ("",)).call("x" * MAX_REQUEST)


@pytest.mark.parametrize("knob", ["size", "seconds", "megabytes", "start_seconds"])
def test_a_knob_that_makes_no_sense_is_named(knob):
    with pytest.raises(ValueError, match=f"{knob} 0"):
        WorkerPool("math:sqrt", **{knob: 0})


@pytest.mark.parametrize("variable", [killable.WORKERS_VARIABLE, killable.SECONDS_VARIABLE])
def test_an_environment_variable_that_makes_no_sense_is_named(variable, monkeypatch):
    monkeypatch.setenv(variable, "many")
    with pytest.raises(ValueError, match=variable):
        killable.shared_pool("math:hypot", (1,))


def test_the_environment_variables_set_size_and_deadline(monkeypatch):
    monkeypatch.setenv(killable.WORKERS_VARIABLE, "3")
    monkeypatch.setenv(killable.SECONDS_VARIABLE, "1.5")
    pool = killable.shared_pool("math:hypot", (1,))
    assert killable.shared_pool("math:hypot") is pool
    assert (pool.size, pool.seconds) == (3, 1.5)
    assert wait_until(lambda: len(pool.pids()) == 3)
    pool.close()
    del killable._shared["math:hypot"]


def test_a_worker_sees_no_secrets_of_the_environment(pool_of, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert pool_of("os:getenv", ("PATH",)).call("HF_TOKEN") == ("ok", None)


def test_a_closed_pool_refuses_calls_and_leaves_no_process(pool_of):
    pool = pool_of("time:sleep", (0,), size=2, seconds=30)
    pool.call(0)
    with ThreadPoolExecutor(2) as threads:
        busy = [threads.submit(pool.call, 20) for _ in range(2)]
        assert wait_until(lambda: len(pool.pids()) == 2)
        time.sleep(0.3)
        pids = pool.pids()
        pool.close()
        for call in busy:
            with pytest.raises(WorkerError, match="closed"):
                call.result(10)
    assert wait_until(lambda: not any(map(runs, pids)))
    with pytest.raises(WorkerError, match="closed"):
        pool.call(0)


def test_no_file_is_left_open_after_timeouts(pool_of):
    pool = pool_of("time:sleep", (0,), seconds=0.1)
    pool.call(0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        pool.call(60)
    assert pool.call(0) == ("ok", None)
    assert len(os.listdir("/proc/self/fd")) <= before


PARENT = """
import os, sys, threading, time
from riskpo_openrlhf.verifiers.killable import WorkerPool
pool = WorkerPool("time:sleep", (0,), size=2, seconds=0.5)
threads = [threading.Thread(target=pool.call, args=(0.3,)) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def parent(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PARENT + code], stdout=subprocess.PIPE, text=True)


def pids_of(process: subprocess.Popen, count: int) -> list[int]:
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == count
    return pids


def test_workers_end_with_their_parent_however_it_ends():
    ends = parent("print(*pool.pids(), flush=True)\n")
    is_killed = parent(
        "threading.Thread(target=pool.call, args=(600,)).start()\n"
        "time.sleep(0.2)\n"
        "print(*pool.pids(), flush=True)\n"
        "time.sleep(60)\n"
    )
    idle, busy = pids_of(ends, 2), pids_of(is_killed, 2)
    assert all(map(runs, busy))
    is_killed.kill()
    is_killed.wait()
    assert ends.wait(10) == 0
    assert wait_until(lambda: not any(map(runs, idle + busy)))


def test_a_forked_child_has_workers_of_its_own_and_does_not_keep_the_parents_alive():
    process = parent(
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        "mine = pool.pids()\n"
        "if os.fork() == 0:\n"
        "    print(os.getpid(), *mine, flush=True)\n"
        "    signal.sigtimedwait({signal.SIGUSR1}, 60)\n"
        "    assert pool.call(0) == ('ok', None)\n"
        "    print(*pool.pids(), flush=True)\n"
        "    os._exit(0)\n"
        "assert pool.call(0) == ('ok', None) and pool.pids() == mine\n"
        "os.kill(os.getpid(), 9)\n"
    )
    child, *mine = pids_of(process, 3)
    assert process.wait(20) == -signal.SIGKILL
    assert wait_until(lambda: not any(map(runs, mine))) and runs(child)
    os.kill(child, signal.SIGUSR1)
    own = {int(pid) for pid in process.stdout.readline().split()}
    assert own and not own & set(mine)
    assert wait_until(lambda: not runs(child))
