"""RiskPO inside OpenRLHF on the real engines: Ray, vLLM and DeepSpeed ZeRO-3. Minutes in all."""

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from riskpo_openrlhf import __version__
from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.core.estimator import RiskPOEstimator

OURS = {*RiskPOEstimator(RiskPOConfig()).step(torch.zeros(5, 2), 0).metrics, "clip/low", "clip/high", "entropy"}
THEIRS = {"policy_loss", "ppo_kl", "reward", "actor_lr", "rollout/reward_mean", "timing/generation"}


def test_a_run_on_two_ranks_trains_evaluates_logs_every_metric_and_keeps_the_engine_in_step(train, material):
    job = train(
        "--algo.riskpo.preset", "recommended", "--actor.policy_loss_type", "riskpo",  # a flag beside a preset wins
        "--actor.num_gpus_per_node", 2, "--riskpo.eval_at_start", "--eval.steps", 3,
        "--eval.dataset", material / "heldout.jsonl", "--actor.adam.lr", 4e-4, "--actor.lr_scheduler", "constant",
        "--algo.advantage.is_correction_level", "token",
    ).require_success()  # fmt: skip
    assert job.steps() == [1, 2, 3]
    assert "RiskPO preset recommended; changed: actor.policy_loss_type=riskpo (preset ppo); differs" in job.output
    assert "from the paper in alpha=0.4 (paper 0.2)" in job.output
    scalars = job.scalars()
    for name in OURS | THEIRS:
        assert [step for step, _ in scalars[f"train/{name}"]] == [1, 2, 3], name
    for k in (1, 2, 4):
        assert [step for step, _ in scalars[f"eval/arithmetic/pass@{k}"]] == [0, 3]
    assert scalars["eval/eval_arithmetic_pass4"]  # OpenRLHF's own stays beside ours
    # Weights that never reach vLLM leave it .14 to .32 nats a token away from the trainer's, those that do .0002 to
    # .0046. At 1e-3 <eos> may become likely as the first token; OpenRLHF forbids it there, and the two then differ by
    # up to half a nat with equal weights.
    assert abs(scalars["train/vllm_kl"][-1][1]) < 0.05
    assert _client_state(job.folder, "best_global_step3")["riskpo"]["tracker"]["updates"] == 3
    before, after = (load_file(folder / "model/model.safetensors") for folder in (material, job.folder))
    assert any(not torch.equal(before[name], after[name].to(before[name].dtype)) for name in before)


def test_an_asynchronous_run_with_two_engines_and_two_ranks_trains_so_many_steps_with_kl_as_loss(train):
    job = train(
        "--train.async_enable", "--riskpo.max_steps", 3, "--data.max_samples", 240,
        "--actor.num_gpus_per_node", 2, "--vllm.num_engines", 2,
        "--ref.num_gpus_per_node", 2, "--train.colocate_actor_ref", "--algo.kl.init_coef", 0.01, "--algo.kl.use_loss",
        "--algo.kl.estimator", "k3", "--train.max_epochs", 2, "--ckpt.save_steps", 3, "--logger.wandb.key", "0" * 40,
    ).require_success()  # fmt: skip
    assert job.steps() == [1, 2, 3] and "[riskpo] done" in job.output
    assert (job.folder / "model/model.safetensors").is_file()
    scalars = job.scalars()
    assert all(f"train/{name}" in scalars for name in OURS | THEIRS | {"kl"})
    (wandb,) = job.folder.glob("**/offline-run-*/run-*.wandb")
    assert all(f"train/{name}".encode() in wandb.read_bytes() for name in OURS | THEIRS)
    state = _client_state(job.folder)["riskpo"]
    assert state["config"] == RiskPOConfig().to_dict() and state["tracker"]["updates"] == 3
    assert state["package_version"] == __version__


def test_a_colocated_run_trains_with_dynamic_batching_dynamic_filtering_kl_in_the_reward_and_gmpo(train):
    job = train(
        "--train.colocate_all", "--actor.policy_loss_type", "gmpo", "--train.dynamic_batch_enable",
        "--train.max_tokens_per_gpu", 256, "--algo.dynamic_filtering_enable",
        "--algo.dynamic_filtering_range", 0, 1, "--algo.kl.init_coef", 0.01, "--ref.num_gpus_per_node", 1,
        "--data.max_samples", 200, "--rollout.batch_size", 6, "--riskpo.max_steps", 3,
    ).require_success()  # fmt: skip
    assert job.steps() == [1, 2, 3] and "[riskpo] done" in job.output
    scalars = job.scalars()
    assert all(value > 0 for _, value in scalars["train/dynamic_filtering_pass_rate"])
    assert all(value == 0 for _, value in scalars["train/signal/prompts_all_wrong"])
    assert "train/clip/high" in scalars and all(value > 0 for _, value in scalars["train/entropy"])
    # The KL against the start is 0 at first and enters the return as soon as the policy has moved.
    kl, gap = (dict(scalars["train/kl"]), _difference(scalars, "train/return", "train/riskpo/advantage_mean"))
    assert abs(gap[1]) < 1e-4
    assert any(abs(gap[step]) > 1e-6 for step in kl if step > 1)


def test_a_run_whose_engine_dies_resumes_as_if_it_had_never_been_interrupted_and_refuses_another_bundle_size(
    train, tmp_path, monkeypatch
):
    reward = tmp_path / "reward.py"
    reward.write_text(RECORDING_REWARD)
    # 30 prompts are two rollouts of 12 and a short one of 6 in each episode.
    flags = (
        "--ckpt.save_steps", 1, "--ckpt.max_num", 1, "--data.max_samples", 30, "--train.num_episodes", 2,
        "--train.full_determinism_enable",
    )  # fmt: skip
    through, cut = tmp_path / "through", tmp_path / "cut"

    def run(folder, *more, **options):
        monkeypatch.setenv("RECORD", str(folder) + ".jsonl")
        return train(*flags, *more, folder=folder, reward=reward, **options)

    whole = run(through).require_success()
    died = run(cut, watch=kill_engines_after(3))  # the end of an episode
    assert died.code == 1
    assert "EngineDeadError" in died.output and "[riskpo] done" not in died.output
    saved = saved_state(cut)
    step = saved["global_step"]
    prompts = recorded(str(cut) + ".jsonl", 4 * prompts_until(step))
    (tmp_path / "cut.jsonl").unlink()

    refused = run(cut, "--ckpt.load_enable", "--algo.riskpo.bundle_size", 4)
    assert refused.code == 2 and "--algo.riskpo.bundle_size 4 (checkpoint 5)" in refused.output

    resumed = run(cut, "--ckpt.load_enable").require_success()
    assert f"[riskpo] resumed at step {step}" in resumed.output
    assert resumed.steps() == list(range(step + 1, 7)) and whole.steps() == list(range(1, 7))
    scalars = resumed.scalars()
    used = dict(scalars["train/riskpo/q_beta"])[step + 1]
    assert used == pytest.approx(saved["riskpo"]["tracker"]["values"][1], abs=1e-6)
    # Every value of every step, to the bit: rewards, tracker, losses, gradient norms, log-probabilities of the engine.
    values, expected = (
        {name: dict(points) for name, points in found.items() if "time" not in name and "timing" not in name}
        for found in (scalars, whole.scalars())
    )
    assert values == expected and len(values) > 40 and all(len(values[f"train/{name}"]) == 6 for name in OURS)
    assert by_step([*prompts, *recorded(str(cut) + ".jsonl")]) == by_step(recorded(str(through) + ".jsonl"))


RECORDING_REWARD = """
import json, os
from riskpo_openrlhf.verifiers.reward_func import reward_func as built_in

def reward_func(queries, prompts, labels):
    with open(os.environ["RECORD"], "a") as record:
        record.writelines(json.dumps(prompt) + "\\n" for prompt in prompts)
    return built_in(queries, prompts, labels)
"""


def recorded(path: str, most: int | None = None) -> list[str]:
    """The prompts of the responses that were graded, in their order."""
    return Path(path).read_text().splitlines()[:most]


def prompts_until(step: int) -> int:
    return sum((12, 12, 6)[k % 3] for k in range(step))


def by_step(prompts: list[str]) -> list[list[str]]:
    """The prompts of each step; within one, engines return them in any order."""
    ends = [4 * prompts_until(step) for step in range(7)]
    assert len(prompts) == ends[-1]
    return [sorted(prompts[start:end]) for start, end in zip(ends, ends[1:], strict=False)]


def test_an_asynchronous_run_that_is_killed_in_a_save_resumes_and_its_best_checkpoint_is_what_was_evaluated(
    train, tmp_path, material
):
    def kill_in_third_save(process, log):
        wait_for(log, process, r"\[riskpo\] step 3")
        writing = tmp_path / "checkpoints/_actor/.writing-global_step3"
        until = time.monotonic() + 60
        while not writing.exists() and not (writing.parent / "global_step3").exists() and time.monotonic() < until:
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)

    flags = (
        "--train.async_enable", "--ckpt.save_steps", 1, "--data.max_samples", 72, "--eval.steps", 2,
        "--eval.dataset", material / "heldout.jsonl",
    )  # fmt: skip
    assert train(*flags, watch=kill_in_third_save).code == -signal.SIGKILL
    weights = [
        torch.load(next((tmp_path / "checkpoints/_actor" / tag).glob("*optim_states.pt")), weights_only=False)
        for tag in ("global_step2", "best_global_step2")
    ]
    regular, best = (w["optimizer_state_dict"]["fp32_flat_groups"] for w in weights)
    assert all(torch.equal(a, b) for a, b in zip(regular, best, strict=True))
    resumed = train(*flags, "--ckpt.load_enable").require_success()
    (step,) = map(int, re.findall(r"\[riskpo\] resumed at step (\d+)", resumed.output))
    assert resumed.steps() == list(range(step + 1, 7)) and step in (2, 3)
    assert not list(tmp_path.glob("checkpoints/_actor/.*"))


def saved_state(folder: Path) -> dict:
    state = _client_state(folder)
    assert state["riskpo"]["tracker"]["updates"] == state["global_step"] >= 2
    return state


def test_a_reward_function_that_fails_stops_an_asynchronous_job_with_its_own_error(train, tmp_path):
    reward = tmp_path / "reward.py"
    reward.write_text("def reward_func(queries, prompts, labels):\n    raise KeyError('no gold answer')\n")
    job = train("--train.async_enable", reward=reward)
    assert job.code == 1 and "[riskpo] done" not in job.output
    assert "48 of 48 responses of this rollout have no verdict" in job.output
    assert "KeyError: 'no gold answer'" in job.output


def test_a_dead_engine_ends_an_asynchronous_job_within_a_minute_with_the_cause_last_and_nothing_left(train):
    at, processes = [], []

    def kill_the_actor(process, log):
        wait_for(log, process, r"\[riskpo\] step 2")
        until, actors = time.monotonic() + 20, []
        while not actors and time.monotonic() < until:  # Ray gives an actor its title while it runs a method
            processes[:] = psutil.Process(process.pid).children(recursive=True)
            actors = [each for each in processes if "RiskPORolloutActor" in " ".join(each.cmdline())]
        (actor,) = actors
        at.append(time.monotonic())
        actor.kill()

    job = train("--train.async_enable", "--data.max_samples", 240, watch=kill_the_actor)
    assert job.code == 1 and time.monotonic() - at[0] < 60
    cause, cure = job.output.splitlines()[-2:]
    assert cause.startswith("[riskpo] failed: a vLLM engine died") and "--riskpo.max_restarts" in cure
    assert not psutil.wait_procs(processes, timeout=15)[1]  # vLLM's own processes among them


def kill_engines_after(step: int):
    """Make a `watch` that kills the engines' processes once the job's log has the step."""

    def kill(process, log):
        wait_for(log, process, rf"\[riskpo\] step {step}")
        cores = [p for p in psutil.Process(process.pid).children(recursive=True) if "EngineCore" in p.name()]
        assert cores, "no engine process found"
        for core in cores:
            core.kill()

    return kill


def wait_for(log: Path, process, pattern: str, seconds: float = 300) -> None:
    """Wait until the job's log matches; fails when the job ends or the time is up first."""
    until = time.monotonic() + seconds
    while not re.search(pattern, log.read_text(errors="replace")):
        assert process.poll() is None, log.read_text(errors="replace")[-6000:]
        assert time.monotonic() < until, f"no {pattern!r} within {seconds} s"
        time.sleep(0.2)


def _client_state(folder: Path, tag: str | None = None) -> dict:
    """OpenRLHF's client state in a checkpoint; without a tag, in the one that a resumed run would load."""
    checkpoints = folder / "checkpoints/_actor"
    tag = tag or (checkpoints / "latest").read_text().strip()  # DeepSpeed writes it when a checkpoint is complete
    return torch.load(next((checkpoints / tag).glob("*model_states.pt")), weights_only=False)


def _difference(scalars: dict, one: str, other: str) -> dict[int, float]:
    return {step: value - dict(scalars[other])[step] for step, value in scalars[one]}
