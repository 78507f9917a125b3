"""A vLLM engine that dies in a synchronous run is replaced, and everything else stays."""

import os
import signal
import sys
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent / "faults"))
import job as jobs
from job import DRIVER, ENGINE_ACTOR, ENGINE_CORE, POLICY, Job

from riskpo_openrlhf.analysis.runs import load_runs


def test_engines_that_die_are_replaced_with_the_policys_weights_and_the_policy_stays(tmp_path):
    where = jobs.material(tmp_path / "material")
    # A rate at which an engine with the weights of the start would stand out in vllm_kl.
    flags = ["--vllm.num_engines", 2, "--riskpo.max_restarts", 2, "--actor.adam.lr", 3e-3, "--ckpt.save_steps", 100]
    flags += ["--algo.advantage.is_correction_level", "token"]
    job = Job(jobs.command(where, tmp_path, *flags), tmp_path)
    try:
        job.until_step(2)
        kept = [job.find(title)[0] for title in (DRIVER, POLICY)]
        (one, two) = job.find(ENGINE_ACTOR)
        os.kill(two.pid, signal.SIGKILL)
        job.until_step(4)
        (core,) = (core for core in job.find(ENGINE_CORE) if core in one.children(recursive=True))
        os.kill(core.pid, signal.SIGKILL)
        job.until_step(6)
        assert all(map(psutil.Process.is_running, kept))
        assert job.end(240) >= 0
    finally:
        job.kill_leftovers()
    text = job.text()
    assert job.process.returncode == 0, text[-4000:]
    assert text.count("were replaced within") == 2
    assert [text.count(f"[riskpo] step {step}/10 ") for step in range(1, 11)] == [1] * 10
    assert not job.leftovers()
    (run,) = load_runs([tmp_path / "tensorboard"])
    assert max(map(abs, run.scalars["train/vllm_kl"].values)) < 0.05
