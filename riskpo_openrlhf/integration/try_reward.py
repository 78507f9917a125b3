"""Import a reward file or an agent file in a process of its own, and call its reward function on one row.

`python3 -m riskpo_openrlhf.integration.try_reward FILE reward|agent` prints one line of JSON on the last line:
`{"fault": text, "note": text}`. It reads the row from its input: `{"prompt": ..., "label": ...}` or `null`. A file of
the user's may print, hang or exit, so `find_fault` runs it with a time limit.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from typing import NamedTuple

from riskpo_openrlhf.integration.user_files import AGENT, REWARD, module_from_spec

_NO_GPU = re.compile("No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device")  # torch's words
LOADED = b'{"loaded": true}'
SECONDS = 120  # to import the file and to answer once


class Tried(NamedTuple):
    """What is wrong with a file, and what may be: it was called with an empty response. "" if nothing is."""

    fault: str = ""
    note: str = ""


def find_fault(path: str, kind: str, row: dict | None = None, seconds: float = SECONDS) -> Tried:
    """Say what is wrong with a file. Nothing is if it asks for the GPU that it does not get here.

    Args:
        kind: "reward" for `reward_func(queries, prompts, labels)`, "agent" for the class `AgentExecutor`.
        row: the prompt and label to call the reward function with; None only imports the file.
    """
    command = [sys.executable, "-m", __name__ if __name__ != "__main__" else __spec__.name, path, kind]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, input=json.dumps(row),
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        if LOADED in (late.stdout or b""):
            return Tried(note=f"did not answer within {seconds:g} s on the first row of the data")
        return Tried(f"did not load within {seconds:g} s")
    try:
        tried = Tried(**json.loads(run.stdout.strip().splitlines()[-1]))
        return Tried() if _NO_GPU.search(tried.fault + tried.note) else tried
    except (IndexError, ValueError, TypeError):
        last = (run.stderr.strip().splitlines() or ["nothing was printed"])[-1]
        return Tried(f"ended its process with exit code {run.returncode}: {last[:200]}")


def _try(path: str, kind: str, row: dict | None) -> Tried:
    spec = importlib.util.spec_from_file_location(REWARD if kind == "reward" else AGENT, path)
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        return Tried(f"can't be imported: {_named(error)}")
    if kind == "agent":
        from openrlhf.utils.agent import AgentExecutorBase

        found = getattr(module, "AgentExecutor", None)
        if not (inspect.isclass(found) and issubclass(found, AgentExecutorBase)):
            return Tried("has no class `AgentExecutor` that inherits from openrlhf.utils.agent.AgentExecutorBase")
        return Tried()
    function = getattr(module, "reward_func", None)
    if not callable(function):
        return Tried("has no function `reward_func(queries, prompts, labels)`")
    if misfit := _misfit(function):
        return Tried(misfit)
    if row is None:
        return Tried()
    print("\n" + LOADED.decode(), flush=True)
    from riskpo_openrlhf.integration.rewards import RewardError, read_reward

    try:
        value = function([row["prompt"]], [row["prompt"]], [row["label"]])
        if inspect.isawaitable(value):

            async def answer():
                return await value

            value = asyncio.run(answer())
    except Exception as error:
        return Tried(note=f"fails on the first row of the data, with an empty response: {_named(error)}")
    try:
        read_reward(value, "reward_func")
    except RewardError as error:
        return Tried(f"gives no verdict on the first row of the data: {error}")
    return Tried()


def _misfit(function) -> str:
    """Say why a function can't take what OpenRLHF gives; "" if it can, or does not tell."""
    try:
        inspect.signature(function).bind([], [], [])
    except TypeError as error:
        return f"can't be called as `reward_func(queries, prompts, labels)`: {error}"
    except ValueError:
        pass  # without a signature
    return ""


def _named(error: Exception) -> str:
    place = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {error}{place}"


if __name__ == "__main__":
    found = _try(sys.argv[1], sys.argv[2], json.load(sys.stdin))
    print("\n" + json.dumps(found._asdict()), flush=True)
    os._exit(0)  # threads of the user's must not keep it alive
