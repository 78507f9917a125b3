"""The vLLM engine's actor: it loads the user's files, and keeps what its processes say when they die."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import sys

import pytest

pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

from openrlhf.trainer.ray.vllm_engine import _load_agent_executor
from openrlhf.utils.agent import SingleTurnAgentExecutor

from riskpo_openrlhf.integration.rollout_actor import RiskPORolloutActor
from riskpo_openrlhf.integration.try_reward import find_fault
from riskpo_openrlhf.integration.user_files import AGENT, REWARD, module_from_spec
from riskpo_openrlhf.runtime import ERROR_FILE, ERROR_VARIABLE, vllm_plugin

FILE = """
from __future__ import annotations
from dataclasses import dataclass, fields
from typing import ClassVar
from openrlhf.utils.agent import SingleTurnAgentExecutor
from my_neighbour import VALUE

@dataclass
class Verdict:
    kind: ClassVar[str] = "x"
    score: float = VALUE

class AgentExecutor(SingleTurnAgentExecutor):
    pass

def reward_func(queries, prompts, labels):
    return {"rewards": [Verdict().score * len(fields(Verdict))], "scores": [Verdict().score]}
"""


@pytest.fixture
def user_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in (REWARD, AGENT, "my_neighbour"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "my_neighbour.py").write_text("VALUE = 0.5")
    path = tmp_path / "my_reward.py"
    path.write_text(FILE)
    return str(path)


def test_openrlhfs_loaders_take_files_with_dataclasses_and_neighbours(user_file, monkeypatch):
    monkeypatch.setattr(importlib.util, "module_from_spec", module_from_spec)
    assert SingleTurnAgentExecutor(user_file).reward_func([""], [""], [""])["rewards"] == [0.5]
    assert _load_agent_executor(user_file) is not None
    assert find_fault(user_file, "reward", {"prompt": "1+1=", "label": "2"}) == ("", "")
    assert find_fault(user_file, "agent") == ("", "")


def log_as_an_engine_process_does(errors: list[tuple[str, str]]) -> None:
    vllm_plugin()
    for message, error in errors:
        try:
            raise IndexError(error)
        except IndexError:
            logging.getLogger("vllm.v1.engine.core").exception(message)


@pytest.mark.parametrize("own", [True, False])
def test_the_actor_knows_the_first_error_of_a_process_that_died(monkeypatch, own):
    actor = object.__new__(RiskPORolloutActor)
    actor._errors = os.memfd_create(ERROR_FILE if own else "another")
    monkeypatch.setenv(ERROR_VARIABLE, f"/proc/{os.getpid()}/fd/{actor._errors}")
    errors = [
        ("Invocation of save method failed", "the engine lives"),
        ("WorkerProc hit an exception.", "index 18 is out\nof bounds"),
        ("EngineCore encountered a fatal error.", "see above"),
    ]
    process = multiprocessing.get_context("fork").Process(target=log_as_an_engine_process_does, args=(errors,))
    process.start()
    process.join()
    assert process.exitcode == 0
    # With another name it is another process's file, whose number was used again.
    assert actor._root_cause() == (" root cause: IndexError: index 18 is out of bounds" if own else "")
    os.close(actor._errors)
