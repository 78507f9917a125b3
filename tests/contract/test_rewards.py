"""OpenRLHF's own executor loads our reward file by its path, and talks to our service."""

import asyncio
import re
import threading
from pathlib import Path

import pytest
import uvicorn
from openrlhf.utils.agent import SingleTurnAgentExecutor

from riskpo_openrlhf.verifiers import reward_func
from riskpo_openrlhf.verifiers.labels import write_label
from riskpo_openrlhf.verifiers.server import create_app

PAGE = Path(__file__).parents[2] / "docs" / "verifiers.md"
QUERY = ["Q: \\boxed{7}<|im_end|>"], ["Q: "], [write_label("math", "7")]


def test_the_reward_file_is_loaded_by_its_path_and_called_in_a_thread():
    executor = SingleTurnAgentExecutor(str(Path(reward_func.__file__)))
    (result,) = asyncio.run(executor._fetch_rewards_via_func(*QUERY))
    assert result["rewards"] == result["scores"] == 1.0


@pytest.mark.parametrize(
    ("response", "score", "logged"),
    [("3 + 4 = 7<|im_end|>", 1.0, 0.0), ("7 or 8", 0.0, 0.0), ("<think>7</think> seven", 0.0, 1.0)],
)
def test_the_reward_function_of_the_documentation_works_as_printed(response, score, logged, tmp_path):
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    file = tmp_path / "reward.py"
    file.write_text(source)
    executor = SingleTurnAgentExecutor(str(file))
    (result,) = asyncio.run(executor._fetch_rewards_via_func(["Q: " + response], ["Q: "], ["7"]))
    assert result == {"rewards": score, "scores": score, "extra_logs": {"no_number": logged}}


@pytest.fixture
def url():
    server = uvicorn.Server(uvicorn.Config(create_app(threads=2), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/get_reward"
    server.should_exit = True
    thread.join()


def test_the_service_answers_openrlhfs_client_with_numbers(url):
    executor = SingleTurnAgentExecutor([url])
    (result,) = asyncio.run(executor._fetch_rewards_via_http(*QUERY))
    assert result["rewards"] == result["scores"] == 1.0
    assert all(isinstance(value, float) for value in result["extra_logs"].values())


def test_a_missing_verdict_crosses_the_wire_as_nan_with_its_reason(url):
    executor = SingleTurnAgentExecutor([url])
    queries, prompts, _ = QUERY
    (result,) = asyncio.run(executor._fetch_rewards_via_http(queries, prompts, [""]))
    assert result["scores"] != result["scores"] and "label" in result["error"]
