"""Real training jobs on a machine without a GPU: the command that users run, in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

JOB_SECONDS = 600


@dataclass
class Job:
    """A finished training job: its exit code, everything it printed and its folder."""

    code: int
    output: str
    folder: Path

    def steps(self) -> list[int]:
        return [int(step) for step in re.findall(r"\[riskpo\] step (\d+)", self.output)]

    def scalars(self) -> dict[str, list[tuple[int, float]]]:
        """Tag -> (step, value) of the job's TensorBoard files."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        values = {}
        for file in sorted(self.folder.glob("tensorboard/**/events.*")):
            events = EventAccumulator(str(file), size_guidance={"scalars": 0})
            events.Reload()
            for tag in events.Tags()["scalars"]:
                values.setdefault(tag, []).extend((e.step, e.value) for e in events.Scalars(tag))
        return {tag: sorted(points) for tag, points in values.items()}

    def require_success(self) -> Job:
        assert self.code == 0, self.output[-6000:]
        return self


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Path:
    """A folder with the small model that the laboratory ships, and arithmetic problems."""
    from riskpo_openrlhf.files import write_jsonl
    from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, as_data, problems
    from riskpo_openrlhf.lab.tiny_model import MODELS, shipped

    folder = tmp_path_factory.mktemp("material")
    shutil.copytree(shipped(MODELS["mixed"]), folder / "model")
    write_jsonl(folder / "train.jsonl", as_data(problems(CHARACTER_KINDS, 240, 0)))
    write_jsonl(folder / "heldout.jsonl", as_data(problems(CHARACTER_KINDS, 24, 1, split="heldout")))
    return folder


@pytest.fixture
def train(material, tmp_path):
    """`train(*flags, folder=…, reward=…)` runs one job to its end; flags given here win over the defaults."""
    started = []

    def run(*flags: str, folder: Path = tmp_path, reward: Path | None = None, watch=None) -> Job:
        reward = reward or "riskpo"
        command = [
            sys.executable, "-m", "riskpo_openrlhf.cli.train", "--riskpo.runtime", "cpu",
            "--algo.advantage.estimator", "riskpo",
            "--actor.model_name_or_path", material / "model", "--data.prompt_dataset", material / "train.jsonl",
            "--data.input_key", "input", "--data.label_key", "label", "--reward.remote_url", reward,
            "--actor.num_gpus_per_node", 1, "--vllm.num_engines", 1, "--ds.zero_stage", 3,
            "--rollout.batch_size", 12, "--rollout.n_samples_per_prompt", 4, "--rollout.micro_batch_size", 8,
            "--train.batch_size", 24, "--train.micro_batch_size", 4, "--rollout.max_new_tokens", 6,
            "--data.max_len", 48, "--data.max_samples", 36, "--actor.adam.lr", 1e-4,
            "--eval.temperature", 1, "--eval.n_samples_per_prompt", 4,
            "--ckpt.path", folder / "checkpoints", "--ckpt.output_dir", folder / "model",
            "--logger.tensorboard_dir", folder / "tensorboard", "--logger.wandb.run_name", f"run{len(started)}",
            *flags,
        ]  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", "WANDB_MODE": "offline"}
        environment.pop("RAY_ADDRESS", None)
        log = folder / f"job{len(started)}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environment,
                start_new_session=True,
            )  # fmt: skip
            started.append(process)
            if watch is not None:
                watch(process, log)
            try:
                code = process.wait(timeout=JOB_SECONDS)
            except subprocess.TimeoutExpired:
                _end(process)
                pytest.fail(f"the job did not end within {JOB_SECONDS} s:\n{log.read_text(errors='replace')[-6000:]}")
        return Job(code, log.read_text(errors="replace"), folder)

    yield run
    for process in started:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(autouse=True)
def _without_gpu():
    if torch.cuda.is_available():
        pytest.skip("these jobs are for the CPU runtime")
