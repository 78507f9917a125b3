"""Rewards through OpenRLHF's own executors: every shape, errors, time limits, agents, servers."""

import asyncio
import contextvars
import functools
import json
import math
import random
import re
import subprocess
import sys
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor, SingleTurnAgentExecutor

from riskpo_openrlhf.integration import watch
from riskpo_openrlhf.integration.reward_calls import THREADS, TRIES, RewardCalls, source_of
from riskpo_openrlhf.integration.rewards import TAKEN, RewardError, clean_logs, number, read_reward
from riskpo_openrlhf.lab.tiny_model import build_tiny_tokenizer

ONE = [
    lambda x: x, float, np.float32, np.float64, np.array, torch.tensor, lambda x: [x], lambda x: (x,),
    lambda x: np.array([x]), lambda x: torch.tensor([[x]]), lambda x: Decimal(str(x)),
]  # fmt: skip
NO_NUMBER = [
    None,
    "1.0",
    "yes",
    b"1",
    1j,
    torch.tensor(1j),
    10**400,
    object(),
    [],
    [1.0, 0.0],
    torch.zeros(2),
    np.zeros((2, 2)),
    [None],
    ["a"],
    {1, 2},
]


@pytest.mark.parametrize("one", ONE)
@pytest.mark.parametrize(
    "shape", [lambda x: x, lambda x: {"scores": x}, lambda x: {"score": x}, lambda x: {"rewards": x},
              lambda x: {"reward": x}, lambda x: [{"score": x}], lambda x: ({"score": x},),
              lambda x: {"rewards": x, "scores": x, "extra_logs": None}],
)  # fmt: skip
def test_every_shape_with_one_clear_meaning_is_taken(one, shape):
    value = random.choice([0.0, 1.0, -0.25, 3.0])
    assert read_reward(shape(one(value)), "f") == {"scores": value, "rewards": value, "extra_logs": {}}


@pytest.mark.parametrize("junk", NO_NUMBER, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("shape", [lambda x: x, lambda x: {"scores": x}, lambda x: [{"reward": x}], lambda x: (x,)])
def test_any_other_return_is_refused_by_its_type_and_its_source(junk, shape):
    with pytest.raises(RewardError, match=r"reward_func of my\.py returned .*; expected a number, or a dictionary"):
        read_reward(shape(junk), "reward_func of my.py")


@pytest.mark.parametrize("value", [math.inf, -math.inf])
@pytest.mark.parametrize("one", ONE)
def test_an_infinite_reward_is_refused_and_nan_is_no_verdict(one, value):
    with pytest.raises(RewardError, match="infinite"):
        read_reward({"scores": one(value), "rewards": 0.0}, "f")
    assert math.isnan(read_reward(one(math.nan), "f")["scores"])


def test_logs_of_any_shape_become_numbers_by_name(capsys):
    rng = random.Random(0)

    def anything(depth=0):
        made = rng.choice([*NO_NUMBER, math.nan, math.inf, 2, True, np.float32(0.5), torch.tensor([3.0])])
        return {rng.choice(["a", 7, "", None]): anything(depth + 1)} if depth < 3 and rng.random() < 0.3 else made

    for _ in range(300):
        logs = clean_logs(rng.choice([{i: anything() for i in range(4)}, anything()]), "f")
        assert all(isinstance(name, str) and number(value) == value for name, value in logs.items())
    assert clean_logs({"a": {"b": 1, "c": {"d": True}}, "e": None}, "f") == {"a/b": 1, "a/c/d": 1}
    capsys.readouterr()
    for _ in range(3):
        clean_logs({"why": "because"}, "g")
    assert capsys.readouterr().out.count("extra_logs['why'] of g is str 'because', left out") == 1


def test_a_log_with_the_name_of_another_metric_gets_a_prefix():
    name = random.choice(sorted(TAKEN))
    assert clean_logs({name: 1.0, "own": 2.0}, "f") == {f"extra_logs/{name}": 1.0, "own": 2.0}


def executor_of(function, tmp_path=None):
    executor = SingleTurnAgentExecutor(["http://127.0.0.1:1/none"])
    executor.reward_func = function
    return executor, RewardCalls(executor)


def ask(executor, calls=1):
    """The answers to as many calls at once; an exception where one was raised."""

    async def all_of_them():
        made = (executor._fetch_rewards_via_func([str(i)], ["p"], ["l"]) for i in range(calls))
        return await asyncio.gather(*made, return_exceptions=True)

    return asyncio.run(all_of_them())


def test_a_function_and_an_asynchronous_one_give_the_same_rewards_for_all_calls():
    async def asynchronous(queries, prompts, labels):
        await asyncio.sleep(0.01)
        return [int(queries[0])]

    for function in (asynchronous, lambda queries, prompts, labels: int(queries[0])):
        answers = ask(executor_of(function)[0], 3 * THREADS)
        assert [answer["scores"] for (answer,) in answers] == list(range(3 * THREADS))


def test_calls_run_in_the_engine_s_context_each_is_progress_and_no_more_run_at_once_than_there_are_threads():
    running, most, lock, name = 0, 0, threading.Lock(), contextvars.ContextVar("name")

    def reward_func(queries, prompts, labels):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.1)
        with lock:
            running -= 1
        return name.get()

    name.set(0.5)
    before = watch._part.latest["count"]
    answers = ask(executor_of(reward_func)[0], 3 * THREADS)
    assert [answer["scores"] for (answer,) in answers] == [0.5] * 3 * THREADS
    assert most <= THREADS and watch._part.latest == {"what": "reward", "count": before + 3 * THREADS, "step": None}


def raising(error):
    def reward_func(queries, prompts, labels):
        raise error

    return reward_func


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising(KeyError("no gold")), "KeyError: 'no gold'"),
        (raising(SystemExit(3)), "SystemExit: 3"),
        (raising(StopIteration()), "StopIteration"),
        (lambda queries: 1.0, "TypeError: .*positional argument"),
        (lambda *lists: [1.0, 2.0], "returned list of 2 .float. for one response"),
        (lambda *lists: math.nan, "the reward was NaN"),
        (lambda *lists: {"scores": math.nan, "error": "the verifier timed out"}, "^the verifier timed out$"),
    ],
)
def test_an_error_of_the_function_is_kept_and_the_next_call_works(function, message):
    executor, calls = executor_of(function)
    ask(executor)
    assert re.search(message, calls.last_error), calls.last_error
    executor.reward_func = lambda *lists: 1.0
    assert ask(executor)[0][0]["scores"] == 1.0


def test_a_function_that_hangs_is_given_up_after_its_time_and_waiting_for_a_thread_does_not_count():
    def slow(queries, prompts, labels):
        time.sleep(0.4)
        return 1.0

    executor, calls = executor_of(slow)
    calls.seconds = 1.0
    assert [a["scores"] for (a,) in ask(executor, 4 * THREADS)] == [1.0] * 4 * THREADS  # 1.6 s in all

    executor, calls = executor_of(lambda *lists: threading.Event().wait())
    calls.seconds = 0.5
    start = time.monotonic()
    answers = ask(executor, 10 * THREADS)
    assert time.monotonic() - start < 2 and all(isinstance(answer, RewardError) for answer in answers)
    assert "no answer within 0.5 s from <lambda> of test_reward_calls.py (--riskpo.reward_timeout)" in str(answers[0])
    executor.reward_func = lambda *lists: 1.0
    assert ask(executor, THREADS)[0][0]["scores"] == 1.0  # the threads that hang hold no place


def test_an_answer_that_comes_after_its_time_is_dropped():
    unhandled, late = [], threading.Event()

    def slow(queries, prompts, labels):
        late.wait(20)
        return 1.0

    async def ask_twice():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: unhandled.append(context["message"]))
        executor, calls = executor_of(slow)
        calls.seconds = 0.3
        with pytest.raises(RewardError, match="no answer within 0.3 s"):
            await executor._fetch_rewards_via_func(["q"], ["p"], ["l"])
        calls.seconds = 30.0
        late.set()
        return await executor._fetch_rewards_via_func(["q"], ["p"], ["l"])

    assert asyncio.run(ask_twice())[0]["scores"] == 1.0 and unhandled == []


def test_a_wrapped_function_is_named_by_the_file_that_it_was_written_in():
    assert source_of(functools.lru_cache(raising)) == "raising of test_reward_calls.py"
    assert source_of(functools.partial(raising)) == "partial"


def test_one_response_in_three_that_hangs_costs_the_others_nothing_but_time():
    def sometimes(queries, prompts, labels):
        return threading.Event().wait() if int(queries[0]) % 3 == 0 else 1.0

    executor, calls = executor_of(sometimes)
    calls.seconds = 3.0  # a busy machine may take half a second to start a thread
    answers = ask(executor, 3 * THREADS)
    assert [isinstance(answer, RewardError) for answer in answers] == [i % 3 == 0 for i in range(3 * THREADS)]


def test_a_thread_that_hangs_does_not_keep_the_process_from_ending():
    code = """
import asyncio, threading
from openrlhf.utils.agent import SingleTurnAgentExecutor
from riskpo_openrlhf.integration.reward_calls import RewardCalls
executor = SingleTurnAgentExecutor(["http://127.0.0.1:1/none"])
calls = RewardCalls(executor)
calls.seconds = 0.5
async def hang(*lists):
    threading.Event().wait()
for function in (lambda *lists: threading.Event().wait(), hang):
    executor.reward_func = function
    try:
        asyncio.run(executor._fetch_rewards_via_func(["q"], ["p"], ["l"]))
    except Exception as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and run.stdout.count("no answer within 0.5 s") == 2, run.stderr[-2000:]


@pytest.fixture
def server():
    """A server that answers what `server.answer(request)` gives: (status, body), or hangs for a number of seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = made.answer(request)
            if isinstance(answer, float):
                released.wait(answer)
                return
            status, body = answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode(errors="surrogateescape"))

        def log_message(self, *args):
            pass

    made, released = ThreadingHTTPServer(("127.0.0.1", 0), Handler), threading.Event()
    made.daemon_threads = True
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    released.set()
    made.shutdown()
    made.server_close()


def ask_server(url, seconds=600.0):
    executor = SingleTurnAgentExecutor([url])
    calls = RewardCalls(executor)
    calls.seconds = seconds
    try:
        return asyncio.run(executor._fetch_rewards_via_http(["q"], ["p"], ["l"]))[0]
    except RewardError:
        return calls.last_error


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((200, '{"rewards": 0.5}'), 0.5),
        ((200, "[0.5]"), 0.5),
        ((200, '{"rewards": [0.5], "scores": [0.5]}'), 0.5),
        ((200, '{"rewards": [0.5, 1]}'), "returned dict with rewards .rewards: list of 2"),
        ((200, '{"rewards": null, "error": "no label"}'), "reports: no label"),
        ((200, "<html>busy</html>"), "answered with what is no JSON: '<html>busy"),
        ((500, "Traceback: oh"), "answered with status 500: 'Traceback: oh'"),
        ((200, "\udcff"), "answered with what is no JSON: '\ufffd'"),
        (20.0, "no answer within 1 s from http://127.0.0.1"),
    ],
    ids=str,
)
def test_what_a_server_answers_is_read_or_told(answer, found, server, monkeypatch):
    monkeypatch.setattr("riskpo_openrlhf.integration.reward_calls.PAUSE", 0.01)
    server.answer = lambda request: answer
    got = ask_server(f"http://127.0.0.1:{server.server_port}/r", 1.0 if isinstance(answer, float) else 600.0)
    if isinstance(found, float):
        assert got["scores"] == got["rewards"] == found
    else:
        assert re.search(found, got) and "can't be asked" not in got, got


def test_a_server_that_fails_once_is_asked_again_and_one_that_is_down_is_named(server, monkeypatch):
    monkeypatch.setattr("riskpo_openrlhf.integration.reward_calls.PAUSE", 0.01)
    answers = [(503, "busy"), (200, "garbage"), (200, "1.0")]
    server.answer = lambda request: answers.pop(0)
    assert ask_server(f"http://127.0.0.1:{server.server_port}/r")["scores"] == 1.0
    answers = [(503, "busy")] * (TRIES - 1) + [(200, "0.5")]
    assert ask_server(f"http://127.0.0.1:{server.server_port}/r")["scores"] == 0.5 and TRIES == 5  # as OpenRLHF
    assert "http://127.0.0.1:1/r can't be asked: ClientConnectorError" in ask_server("http://127.0.0.1:1/r")


def run_agent(steps, reset=None, seconds=600.0):
    """One episode through OpenRLHF's executor; `steps` are what the agent's `step` returns, or raises."""
    answers = list(steps)

    class Agent(AgentInstanceBase):
        def __init__(self, *args, **kwargs):
            pass

        async def reset(self, states, **kwargs):
            return states if reset is None else await reset() if callable(reset) else reset

        async def step(self, states, **kwargs):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return await answer() if callable(answer) else answer

    class Engine:
        async def generate(self, tokens, params, multi_modal_data=None):
            output = SimpleNamespace(
                token_ids=tokenizer("7")["input_ids"], text="7", finish_reason="stop", logprobs=None
            )
            return SimpleNamespace(outputs=[output])

    tokenizer, executor = build_tiny_tokenizer(), MultiTurnAgentExecutor(Agent)
    calls = RewardCalls(executor)
    assert executor.agent_instance_cls is not Agent and executor.agent_instance_cls.__name__ == "Agent"
    calls.seconds = seconds
    params = SimpleNamespace(max_tokens=8, logprobs=None)
    return asyncio.run(executor.execute("1+1=", "2", params, 64, tokenizer, Engine())), calls.last_error


def step(**changes):
    return {
        "rewards": torch.tensor(1.0),
        "environment_feedback": "1",
        "done": False,
        "extra_logs": {"a": [1], "b": "no number"},
        **changes,
    }


def test_the_steps_of_an_agent_add_up_whatever_the_shape_of_their_rewards():
    response, error = run_agent([step(rewards=0.5), step(rewards=[0.25]), step(rewards=np.float32(1), done=True)])
    assert (response["reward"], response["scores"], error) == (1.75, 1.75, "")
    assert response["extra_logs"] == {"a": 1.0}
    response, _ = run_agent([step(scores=[0.0], done=True, environment_feedback=None)])
    assert (response["reward"], response["scores"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ValueError("the game crashed"), "ValueError: the game crashed"),
        (None, "Agent.step returned None; expected a dictionary"),
        ({"rewards": 1.0}, "Agent.step returned dict with rewards; it lacks `done`"),
        (step(rewards="won"), "str 'won'"),
        (step(environment_feedback=3), "returned int 3 as environment_feedback"),
        (lambda: asyncio.sleep(60), "no answer within 0.5 s from Agent.step"),
    ],
)
def test_an_agent_that_fails_ends_its_episode_without_a_verdict(answer, message):
    response, error = run_agent([step(), answer], seconds=0.5)
    assert number(response["reward"]) is None and number(response["scores"]) is None
    assert message in error
    assert len(response["action_ranges"]) == 2  # what it said stays


def test_a_step_that_takes_too_long_is_cancelled():
    cancelled = asyncio.Event()

    async def step_that_hangs():
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def too_long():
        _, calls = executor_of(None)
        calls.seconds = 0.2
        with pytest.raises(RewardError, match="no answer within 0.2 s from Agent.step"):
            await calls.within(step_that_hangs(), "Agent.step")
        await asyncio.wait_for(cancelled.wait(), timeout=10)

    asyncio.run(too_long())


def test_an_agent_whose_reset_fails_has_no_verdict():
    response, error = run_agent([step(done=True)], reset={"text": "x"})
    assert number(response["reward"]) is None and "Agent.reset returned dict with text" in error
    response, error = run_agent([step(done=True)], reset=lambda: asyncio.sleep(60), seconds=0.5)
    assert number(response["reward"]) is None and "no answer within 0.5 s from Agent.reset" in error
