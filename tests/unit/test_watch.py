"""The watcher's judgement: what is progress, what is a stall, what a death. Its clock is the test's."""

import threading

import pytest

from riskpo_openrlhf.integration import watch
from riskpo_openrlhf.integration.watch import Watcher, stacks


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    return clock


class Ended(BaseException):
    pass


def watcher(stall: float = 100) -> tuple[Watcher, list]:
    steps = []

    def end(fault):
        raise Ended(fault)

    return Watcher(end, stall, lambda **told: steps.append(told)), steps


def beats(**counts) -> dict:
    return {
        f"01/beat/{name}": {"part": name, "pid": 7, "what": "generation", "count": count, "step": None}
        for name, count in counts.items()
    }


def test_progress_of_any_part_keeps_the_run_going_and_silence_of_all_ends_it(clock, capsys):
    judge, _ = watcher()
    for tick in range(40):  # 400 s: one part stands, the other goes on
        clock.now += 9
        judge.look(beats(driver=1, engine=tick), [], dict)
    assert "no progress" not in capsys.readouterr().out
    clock.now += 11
    judge.look(beats(driver=1, engine=39), [], dict)
    judge.look(beats(driver=1, engine=39), [], dict)
    (warning,) = capsys.readouterr().out.splitlines()
    assert warning.startswith("[riskpo] no progress for 11 s; the run ends at --riskpo.stall_timeout 100. driver: ")
    clock.now += 90
    answers = {"01/stack/driver": {"stack": "  thread MainThread:\n    x.py:1 get"}}
    with pytest.raises(Ended) as ended:
        judge.look(beats(driver=1, engine=39), [], lambda: answers)
    (fault,) = ended.value.args
    assert "no progress for 101 s (--riskpo.stall_timeout 100): driver: generation" in fault.cause
    assert "engine: generation, 101 s ago" in fault.cause
    text = capsys.readouterr().out
    assert "driver (process 7), last progress generation:\n  thread MainThread:\n    x.py:1 get" in text
    assert "engine (process 7), last progress generation:\n  no answer: the process is stopped" in text


def test_a_timeout_of_0_never_ends_a_run(clock):
    judge, _ = watcher(stall=0)
    judge.look(beats(driver=1), [], dict)
    clock.now += 1e9
    judge.look(beats(driver=1), [], dict)


def test_a_run_whose_parts_never_start_says_so(clock):
    judge, _ = watcher()
    clock.now += 101
    with pytest.raises(Ended) as ended:
        judge.look({}, [], dict)
    assert "no part has started: Ray may lack the CPUs or GPUs" in ended.value.args[0].cause


def test_a_death_ends_the_run_if_ray_does_not_raise_it_in_time(clock):
    judge, _ = watcher()
    dead = ["ActorDiedError: class_name: RiskPOPolicyActor pid: 5 ip: 10.0.0.1\nWorker exit detail: End of file"]
    for _ in range(2):
        judge.look(beats(driver=1), dead, dict)
        clock.now += watch.GRACE
    clock.now += 1
    with pytest.raises(Ended) as ended:
        judge.look(beats(driver=2), dead, dict)
    assert ended.value.args[0].cause.startswith("a policy worker died (process 5) without a word")


def test_steps_are_told_once_each_and_counted(clock):
    judge, steps = watcher()
    for step in (None, 4, 4, 5, 5):
        seen = beats(driver=clock.now)
        seen["01/beat/driver"]["step"] = step
        judge.look(seen, [], dict)
        clock.now += 1
    assert steps == [{"step": 4, "steps": 1}, {"step": 5, "steps": 2}]


def test_a_machine_that_was_suspended_for_longer_than_the_limit_goes_on(clock):
    judge, _ = watcher()
    judge.look(beats(driver=1), [], dict)
    clock.now += 500
    judge.stood_still(500)
    judge.look(beats(driver=1), [], dict)
    judge.stood_still(1)  # an ordinary time between two looks counts
    clock.now += 101
    with pytest.raises(Ended):
        judge.look(beats(driver=1), [], dict)


class Head(watch._Store):
    """Ray's head that answers some of the calls: `answers` says which."""

    def __init__(self, answers):
        self.job, self.answers = "01", iter(answers)

    def all(self, prefix: str) -> dict:
        if prefix == "beat/" and not next(self.answers):
            raise TimeoutError("Deadline Exceeded")
        return {}

    def actors(self, state: str) -> list:
        return []


def looks(monkeypatch, answers) -> tuple[list, list]:
    """Let a watcher look as often as there are answers. Return what it told, and the faults that it ended with."""
    monkeypatch.setattr(watch, "SECONDS", 0)
    monkeypatch.setattr(watch, "_Store", lambda: Head(answers))
    told, ends, seen = [], [], []

    def looked():
        seen.append(1)
        if len(seen) == len(answers) or ends:
            judge.stop()

    judge = Watcher(ends.append, 0, lambda **fields: told.append(fields), looked)
    judge._run()
    assert ends or len(seen) == len(answers)
    return told, ends


def test_a_head_that_never_answers_ends_the_run(monkeypatch):
    _, ends = looks(monkeypatch, [True] + [False] * (watch.FAILURES + 2))
    assert [end.cause for end in ends] == [
        "Ray's head process (gcs_server) does not answer: TimeoutError: Deadline Exceeded"
    ]
    assert "gcs_server.out" in ends[0].cure


def test_a_head_that_answers_again_does_not_end_it_and_is_no_suspect_any_more(monkeypatch):
    told, ends = looks(monkeypatch, ([False] * (watch.FAILURES - 1) + [True]) * 3)
    assert not ends and [fields["suspect"] is None for fields in told] == [False, True] * 3


def test_stacks_show_where_a_thread_waits_and_leave_out_idle_ones():
    hang, started = threading.Event(), threading.Event()

    def reward_func_that_hangs():
        started.set()
        hang.wait()

    thread = threading.Thread(target=reward_func_that_hangs, name="reward", daemon=True)
    idle = threading.Thread(target=hang.wait, name="idle", daemon=True)
    thread.start()
    idle.start()
    started.wait()
    text = stacks()
    hang.set()
    assert "thread reward:" in text and "reward_func_that_hangs: hang.wait()" in text and "idle" not in text
