"""The verifiers by HTTP: the same verdicts, in batches, within limits."""

import math
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi.testclient import TestClient

from riskpo_openrlhf.verifiers import server
from riskpo_openrlhf.verifiers.labels import write_label
from riskpo_openrlhf.verifiers.server import create_app

PROMPT = "Q: "
GRADED = {"rewards": 0.0, "scores": 0.0, "extra_logs": {}, "error": None}


def batch(*pairs: tuple[str, str]) -> dict:
    """`(response, gold)` pairs as OpenRLHF posts them."""
    return {
        "query": [PROMPT + response for response, _ in pairs],
        "prompts": [PROMPT] * len(pairs),
        "labels": [write_label("math", gold) for _, gold in pairs],
    }


@pytest.fixture(scope="module")
def client():
    with TestClient(create_app(threads=4, max_items=8, max_bytes=20_000)) as client:
        yield client


def test_one_response_gets_numbers_and_several_get_lists(client):
    one = client.post("/get_reward", json=batch(("\\boxed{2}", "2"))).json()
    assert one["rewards"] == one["scores"] == 1.0 and one["error"] is None
    assert one["extra_logs"] == {"verifier/no_answer": 0.0, "verifier/unparsable": 0.0, "verifier/timeout": 0.0}
    three = client.post("/get_reward", json=batch(("\\boxed{2}", "2"), ("\\boxed{3}", "2"), ("no", "2"))).json()
    assert three["rewards"] == three["scores"] == [1.0, 0.0, 0.0]
    assert three["extra_logs"]["verifier/no_answer"] == [0.0, 0.0, 1.0]


def test_a_response_without_a_verdict_has_score_nan_and_the_reason_and_spares_the_others(client):
    request = batch(("\\boxed{2}", "2"), ("\\boxed{2}", "2"))
    request["labels"][1] = '{"verifier": "chemistry", "gold": "H2O"}'
    answer = client.post("/get_reward", json=request).json()
    assert answer["scores"][0] == 1.0 and math.isnan(answer["scores"][1]) and answer["rewards"] == [1.0, 0.0]
    assert "chemistry" in answer["error"][1]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (dict(content=b"not json"), 422),
        (dict(json={"query": ["a"], "prompts": ["a"]}), 422),
        (dict(json={"query": ["a"], "prompts": ["a"], "labels": []}), 422),
        (dict(json={"query": [], "prompts": [], "labels": []}), 422),
        (dict(json=batch(*[("\\boxed{2}", "2")] * 9)), 413),
        (dict(json=batch(("x" * 30_000, "2"))), 413),
    ],
    ids=["no-json", "no-labels", "lengths", "empty", "too-many", "too-large"],
)
def test_bad_and_oversized_requests_are_refused_with_a_reason(client, request_, status):
    answer = client.post("/get_reward", **request_)
    assert answer.status_code == status and answer.json()["detail"]


def test_a_request_without_a_length_is_cut_off_at_the_limit(client):
    def endless():
        for _ in range(1000):
            yield b"x" * 1000

    assert client.post("/get_reward", content=endless()).status_code == 413


def test_slow_answers_do_not_hold_up_easy_ones(client, monkeypatch):
    monkeypatch.setattr(server, "_graded", lambda query, *_: time.sleep(4 * ("slow" in query)) or GRADED)
    with ThreadPoolExecutor(20) as threads:
        slow = [threads.submit(client.post, "/get_reward", json=batch(("slow", "2"))) for _ in range(8)]
        time.sleep(0.2)
        begin = time.monotonic()
        easy = [threads.submit(client.post, "/get_reward", json=batch(("easy", "2"))) for _ in range(8)]
        assert all(call.result().status_code == 200 for call in easy)
        assert time.monotonic() - begin < 3 and not any(call.done() for call in slow)


def test_health_grades_an_answer_and_says_when_it_can_not(client, monkeypatch):
    assert client.get("/health").json()["status"] == "ok"
    monkeypatch.setattr("riskpo_openrlhf.verifiers.server.grade", lambda *_: 1 / 0)
    answer = client.get("/health")
    assert answer.status_code == 503 and "ZeroDivisionError" in answer.json()["detail"]


def test_the_command_serves_many_clients_at_once_and_ends_on_a_signal():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "riskpo_openrlhf.cli.serve_verifiers", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(300):
                try:
                    assert httpx.get(url + "/health", timeout=30).status_code == 200
                    break
                except httpx.ConnectError:
                    assert server.poll() is None, server.stderr.read().decode()
                    time.sleep(0.1)

            def ask(i):
                return httpx.post(url + "/get_reward", json=batch((f"\\boxed{{{i}}}", "3")), timeout=60).json()[
                    "scores"
                ]

            with ThreadPoolExecutor(8) as threads:
                assert list(threads.map(ask, range(8))) == [float(i == 3) for i in range(8)]
        finally:
            server.terminate()
        assert server.wait(timeout=30) in (0, -15)


def test_bad_limits_are_refused_by_name(capsys):
    from riskpo_openrlhf.cli.serve_verifiers import main

    with pytest.raises(SystemExit) as stopped:
        main(["--threads", "0"])
    assert stopped.value.code == 2 and "--threads 0 is not allowed" in capsys.readouterr().err
