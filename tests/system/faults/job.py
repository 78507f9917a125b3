"""A training job of the tiny model on the CPU, to be broken by hand: its command, its processes, its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

# How the titles of processes begin. Ray names an actor that runs a method after the class that defines the method.
ENGINE_CORE = ("VLLM::EngineCore",)
ENGINE_ACTOR = ("ray::RiskPORolloutActor", "ray::RolloutRayActor")
POLICY = ("ray::RiskPOPolicyActor", "ray::PolicyModelActor")
DRIVER = ("ray::RiskPOTrainer", "ray::PPOTrainer.")
TRAINING_DRIVER = ("ray::RiskPOTrainingActor", "ray::TrainingActor")
GENERATOR = ("ray::RiskPOGenerateSamplesActor", "ray::GenerateSamplesActor")
HEAD, RAYLET = ("gcs_server",), ("raylet",)  # names of programs
LAUNCHER = ("ray::RiskPOTrainerAsync", "ray::PPOTrainerAsync")


def material(folder: Path) -> Path:
    """Put the model and the problems there, once."""
    if not (folder / "train.jsonl").exists():
        from riskpo_openrlhf.files import write_jsonl
        from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, as_data, problems
        from riskpo_openrlhf.lab.tiny_model import MODELS, shipped

        shutil.copytree(shipped(MODELS["mixed"]), folder / "model", dirs_exist_ok=True)
        write_jsonl(folder / "train.jsonl", as_data(problems(CHARACTER_KINDS, 240, 0)))
    return folder


def command(where: Path, folder: Path, *flags) -> list[str]:
    """Return the command of a job whose files are in `folder`; `flags` win. `where`: the material."""
    words = [
        sys.executable, "-m", "riskpo_openrlhf.cli.train", "--riskpo.runtime", "cpu",
        "--algo.advantage.estimator", "riskpo",
        "--actor.model_name_or_path", where / "model", "--data.prompt_dataset", where / "train.jsonl",
        "--data.input_key", "input", "--data.label_key", "label", "--reward.remote_url", "riskpo",
        "--actor.num_gpus_per_node", 1, "--vllm.num_engines", 1, "--ds.zero_stage", 3,
        "--rollout.batch_size", 12, "--rollout.n_samples_per_prompt", 4, "--rollout.micro_batch_size", 8,
        "--train.batch_size", 24, "--train.micro_batch_size", 4, "--rollout.max_new_tokens", 6,
        "--data.max_len", 48, "--data.max_samples", 120, "--actor.adam.lr", 1e-4,
        "--ckpt.path", folder / "checkpoints", "--ckpt.output_dir", folder / "model", "--ckpt.save_steps", 1,
        "--logger.tensorboard_dir", folder / "tensorboard", "--logger.wandb.run_name", "run", *flags,
    ]  # fmt: skip
    return list(map(str, words))


class Job:
    """A running job. Its output is in `log`."""

    def __init__(self, words: list[str], folder: Path, name: str = "job", address: str = ""):
        folder.mkdir(parents=True, exist_ok=True)
        self.words = words
        self.log = folder / f"{name}.log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", "WANDB_MODE": "offline"}
        environment.pop("RAY_ADDRESS", None)
        environment |= {"RAY_ADDRESS": address} if address else {}
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                words, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environment, start_new_session=True,
                # A shell starts what it runs in the background deaf to SIGINT.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
        self.known: dict[int, psutil.Process] = {}

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Return the job's processes, itself excepted, and remember them."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.known.update((process.pid, process) for process in found)
        return found

    def find(self, title: tuple[str, ...]) -> list[psutil.Process]:
        """Return the processes whose title, or whose program's name, starts with one of these."""
        titles = {process: _title(process.pid) for process in self.processes()}
        return [
            process for process, found in titles.items()
            if found.startswith(title) or found.partition(" ")[0].rpartition("/")[2].startswith(title)
        ]  # fmt: skip

    def wait_for(self, condition: Callable[[], object], seconds: float, pause: float = 0.05):
        """Wait until `condition` gives something true, and return it. Raises TimeoutError, also if the job ends."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := condition():
                return found
            if self.process.poll() is not None:
                raise TimeoutError(f"the job ended with {self.process.returncode} before the fault")
            time.sleep(pause)
        raise TimeoutError(f"nothing to break within {seconds} s")

    def until_step(self, step: int, seconds: float = 420) -> None:
        self.wait_for(lambda: f"[riskpo] step {step}" in self.text(), seconds, 0.2)

    def during(self, title: tuple[str, ...], method: str, seconds: float = 420) -> psutil.Process:
        """Wait until an actor runs this method, and return its process."""
        process = self.wait_for(lambda: self.find(title), seconds, 0.5)[0]
        self.wait_for(lambda: method in _title(process.pid), seconds, 0.002)
        return process

    def end(self, seconds: float) -> float:
        """Wait for the end. Return the seconds it took; kill the job and return -1 if it takes longer."""
        start = time.monotonic()
        try:
            self.process.wait(seconds)
            return time.monotonic() - start
        except subprocess.TimeoutExpired:
            self.processes()
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return -1.0

    def leftovers(self, seconds: float = 15) -> list[str]:
        """Return the titles of the processes that are still there after so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(map(_lives, self.known.values())):
            time.sleep(0.2)
        return [_title(pid) or process.name() for pid, process in self.known.items() if _lives(process)]

    def kill_leftovers(self) -> None:
        for process in filter(_lives, self.known.values()):
            process.kill()


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
