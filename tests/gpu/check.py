"""Check the package on one GPU, in three sizes. See run.sh; `check.py --help` lists the options."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
TOKENS = {"cuda": 16_384, "cpu": 512}  # of a micro-batch in part b
RESPONSES = 10


class Checks:
    """The results: each check has a name, whether it held, and the numbers that show it."""

    def __init__(self):
        self.results: list[dict] = []

    def add(self, part: str, name: str, holds: bool, **numbers) -> None:
        self.results.append({"part": part, "check": name, "ok": bool(holds), **numbers})
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in numbers.items()
        )
        print(f"{'ok    ' if holds else 'FAILED'} {part}  {name}{f': {shown}' if shown else ''}", flush=True)

    def run(self, part: str, check: Callable, *args) -> None:
        """Run a check. An exception is a failed check; the others go on."""
        try:
            check(self, *args)
        except Exception as error:
            self.add(part, check.__name__, False, error=f"{type(error).__name__}: {error}"[:800])


# Part a: the core


def losses(checks: Checks, device: str) -> None:
    from riskpo_openrlhf.core.losses import gmpo_loss, gpg_loss, sequence_clipped_loss

    generator = torch.Generator().manual_seed(0)
    old = -3 * torch.rand(64, 256, generator=generator, dtype=torch.float64)
    drift = 0.2 * torch.randn(64, 1, generator=generator, dtype=torch.float64)  # so that some responses are clipped
    new = old + drift + 0.05 * torch.randn(64, 256, generator=generator, dtype=torch.float64)
    mask = torch.arange(256) < torch.randint(1, 257, (64, 1), generator=generator)
    advantages = torch.randn(64, 1, generator=generator, dtype=torch.float64).expand(64, 256)

    def value_and_gradient(loss, place, dtype):
        moved = new.to(place, dtype).requires_grad_()
        terms = loss(moved, *(each.to(place, dtype) for each in (old, advantages)), mask.to(place))
        total = (terms.loss.float() if dtype != torch.float64 else terms.loss).mul(mask.to(place)).sum()
        (gradient,) = torch.autograd.grad(total, moved)
        return total.item(), gradient.cpu().double()

    for loss in (sequence_clipped_loss, gmpo_loss, gpg_loss):
        value, gradient = value_and_gradient(loss, "cpu", torch.float64)
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
            got, slope = value_and_gradient(loss, device, dtype)
            off = (slope - gradient).norm().item() / gradient.norm().item()
            finite = math.isfinite(got) and bool(slope.isfinite().all())
            # In bf16 a ratio near a clip's edge may fall on its other side: compare the whole gradient.
            holds = (
                finite
                and abs(got - value) <= tolerance * abs(value) + tolerance
                and (off < tolerance or dtype == torch.bfloat16)
            )
            checks.add(
                "a", f"{loss.__name__} in {str(dtype)[6:]}", holds, value=got, expected=value, gradient_error=off
            )


def estimator(checks: Checks, device: str) -> None:
    from riskpo_openrlhf.config import PRESETS, RiskPOConfig
    from riskpo_openrlhf.core.estimator import RiskPOEstimator

    rewards = (torch.rand(64, 10, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    for preset in PRESETS:
        here, there = (RiskPOEstimator(RiskPOConfig.preset(preset), seed=0) for _ in range(2))
        for step in range(2):
            expected = here.step(rewards, step).advantages
            got = there.step(rewards.to(device), step).advantages
            difference = (got.cpu() - expected).abs().max().item()
        checks.add("a", f"estimator, preset {preset}, rewards on {device}", difference < 1e-5, difference=difference)


# Part b: OpenRLHF's policy worker, in a process of its own


def policy_worker(checks: Checks, device: str, folder: Path, stage: int, fp32_sums: bool) -> None:
    """Train one step under ZeRO: finite metrics, moved weights, memory against the estimate, sleep and reload."""
    from riskpo_openrlhf.integration import memory

    dynamic = stage == 3
    tokens = TOKENS[device]
    flags = ["--ds.zero_stage", stage, "--train.batch_size", RESPONSES, "--train.micro_batch_size", 1]
    flags += ["--rollout.batch_size", RESPONSES // 2, "--rollout.n_samples_per_prompt", 2, "--actor.adam.lr", 0.01]
    flags += ["--actor.lr_warmup_ratio", 0]  # the first step of a warm-up has a rate of 0
    if fp32_sums:
        flags += ["--ds.grad_accum_dtype", "fp32"]
    if dynamic:
        flags += ["--train.dynamic_batch_enable", "--train.max_tokens_per_gpu", tokens]
    args = final_flags(folder, device, flags)
    import openrlhf.utils.deepspeed
    from openrlhf.utils import get_strategy

    from riskpo_openrlhf.integration.policy_loss import RiskPOPolicyActor
    from riskpo_openrlhf.integration.strategy import RiskPOStrategy

    openrlhf.utils.deepspeed.DeepspeedStrategy = RiskPOStrategy  # as `launch.REPLACED` does

    name = f"ZeRO {stage}{', sums in fp32' if fp32_sums else ''}"
    worker = RiskPOPolicyActor(1, 0, None, None)
    worker.init_model_from_pretrained(get_strategy(args), str(folder), max_steps=10, vllm_engines=None)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = parameters(worker)
    worker.append(experience(worker, device, TOKENS[device] // RESPONSES * 2 if dynamic else TOKENS[device] // 8))
    if device == "cuda":
        worker.reload_states()  # a new worker sleeps
    status = worker.fit(kl_ctl=0)
    moved = (parameters(worker) - before).abs().max().item()
    wrong = [key for key, value in status.items() if isinstance(value, float) and not math.isfinite(value)]
    numbers = {
        "loss": status["policy_loss"],
        "gradient_norm": float(status["actor_grad_norm"]),
        "entropy": status["entropy"],
    }
    checks.add(
        "b",
        f"{name}: a step has finite metrics and moves the weights",
        not wrong and moved > 0,
        moved=moved,
        **numbers,
    )
    if device == "cuda" and dynamic:
        size, values = memory.model_size(memory.read_config(str(folder))), flat(args)
        expected = memory.estimate(values, size).training - memory.CONTEXTS
        peak = torch.cuda.max_memory_allocated() / memory.GIB
        checks.add(
            "b",
            f"{name}: peak memory is within a tenth of the estimate",
            abs(peak / expected - 1) < 0.1,
            peak=peak,
            estimate=expected,
        )
        awake = torch.cuda.memory_allocated()
        worker.offload_states()
        asleep = torch.cuda.memory_allocated() / memory.GIB
        worker.reload_states()
        back = torch.cuda.memory_allocated() / awake
        again = (parameters(worker) - before).abs().max().item()
        checks.add(
            "b",
            f"{name}: sleep frees the states and reload brings them back",
            asleep < expected / 4 and again == moved and abs(back - 1) < 0.05,
            asleep=asleep,
            share_that_is_back=back,
        )


def model(folder: Path, device: str) -> None:
    """Write a random Qwen2 in bfloat16: of 1.8 billion parameters for a card, else tiny."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from riskpo_openrlhf.lab.character_tokenizer import build_tokenizer
    from riskpo_openrlhf.lab.save_model import save_model

    large = device == "cuda"
    tokenizer = build_tokenizer(4096)
    sizes = (151_936, 1536, 8960, 28, 12, 2) if large else (len(tokenizer), 64, 128, 2, 4, 2)
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
    )
    config = Qwen2Config(
        **dict(zip(names, sizes, strict=True)), tie_word_embeddings=False, max_position_embeddings=32_768,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    with torch.device(device):
        network = Qwen2ForCausalLM(config)
    save_model(folder, network, tokenizer)


def final_flags(folder: Path, device: str, flags: list):
    """Let OpenRLHF's parser and our checks finish a command line, as a dry run does. Return its nested flags."""
    data = folder / "data.jsonl"
    data.write_text('{"input": "1+1=", "label": "2"}\n' * 64)
    words = [
        "--algo.advantage.estimator", "riskpo", "--actor.model_name_or_path", folder, "--data.prompt_dataset", data,
        "--data.input_key", "input", "--data.label_key", "label", "--reward.remote_url", "riskpo",
        "--vllm.num_engines", 1, "--actor.num_gpus_per_node", 1, "--train.colocate_all",
        "--vllm.enable_sleep", "--ds.enable_sleep",
        "--actor.gradient_checkpointing_enable", "--rollout.max_new_tokens", 16, "--data.max_len", 64,
        "--ckpt.path", folder / "checkpoints", "--ckpt.output_dir", folder / "trained",
        *(["--riskpo.runtime", "cpu"] if device == "cpu" else ["--ds.packing_samples"]), *flags,
    ]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-m", "riskpo_openrlhf.cli.train", *map(str, words), "--riskpo.dry_run", "json"],
        capture_output=True, text=True,
    )  # fmt: skip
    if not run.stdout:
        raise RuntimeError(f"the dry run ended with {run.returncode}: {run.stderr[-600:]}")
    report = json.loads(run.stdout.splitlines()[-1])
    if not report["ok"]:
        raise RuntimeError(f"the dry run refused the command: {report['problems']}")
    from openrlhf.utils.config import hierarchize

    return hierarchize(argparse.Namespace(**report["flags"]))


def flat(args) -> dict:
    from riskpo_openrlhf.integration.final_flags import flat as flatten

    return flatten(args)


def parameters(worker) -> torch.Tensor:
    """Return a sample of the weights, [at most 4096]."""
    import deepspeed

    weight = next(worker.actor.model.parameters())
    with deepspeed.zero.GatheredParameters([weight], enabled=hasattr(weight, "ds_id")):
        return weight.detach().flatten()[:4096].float().cpu().clone()


def experience(worker, device: str, length: int):
    """Make a rollout of random tokens with the worker's own log-probabilities, and alternating advantages."""
    from openrlhf.trainer.ppo_utils.experience import Experience

    n = RESPONSES
    vocabulary = worker.actor.model.module.config.vocab_size
    sequences = torch.randint(8, vocabulary, (n, length), generator=torch.Generator().manual_seed(0))
    mask, actions = torch.ones(n, length, dtype=torch.long), torch.ones(n, length - 1, dtype=torch.bool)
    rows = [worker.forward(sequences[i : i + 1], actions[i : i + 1], mask[i : i + 1]) for i in range(n)]
    sign = torch.tensor([1.0, -1.0]).repeat(n // 2)
    lengths = torch.full((n,), float(length))
    return Experience(
        sequences=sequences, attention_mask=mask, action_mask=actions, action_log_probs=torch.cat(rows),
        advantages=sign[:, None].expand(n, length - 1).clone(), returns=sign[:, None].expand(n, length - 1).clone(),
        rewards=sign.clamp(min=0), scores=sign.clamp(min=0), response_length=lengths, total_length=lengths,
        truncated=torch.zeros(n), index=list(range(n)), prompts=[""] * n, labels=[""] * n,
        info={"reward": sign.clamp(min=0)},
    )  # fmt: skip


# Part c: whole jobs


def whole_job(checks: Checks, device: str) -> None:
    """Train five steps with the flags of `--machines 1gpu`, resume for a step, evaluate. Compare engine and actor.

    On a card the first job runs without CUDA graphs, the others with them.
    """
    from riskpo_openrlhf.files import write_jsonl
    from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, as_data, problems
    from riskpo_openrlhf.lab.tiny_model import MODELS, shipped

    folder = Path(tempfile.mkdtemp(prefix="riskpo-gpu-job-"))
    write_jsonl(folder / "train.jsonl", as_data(problems(CHARACTER_KINDS, 240, 0)))
    machine = subprocess.run(
        ["bash", "-c", f"source {ROOT}/recipes/machines/1gpu.sh && printf '%s\\n' \"${{machine_flags[@]}}\""],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    packed = [
        "--ds.packing_samples",
        "--train.dynamic_batch_enable",
        "--train.max_tokens_per_gpu",
        4096,
        "--rollout.max_tokens_per_gpu",
        4096,
    ]
    common = [
        "--algo.advantage.estimator", "riskpo", "--actor.model_name_or_path", shipped(MODELS["mixed"]),
        "--data.prompt_dataset", folder / "train.jsonl", "--data.input_key", "input", "--data.label_key", "label",
        "--reward.remote_url", "riskpo", *machine, "--ds.zero_stage", 3, *packed,
        "--algo.advantage.is_correction_level", "token",  # logs vllm_kl
        "--rollout.batch_size", 12, "--rollout.n_samples_per_prompt", 4, "--train.batch_size", 24,
        "--rollout.max_new_tokens", 6, "--data.max_len", 48, "--actor.adam.lr", 1e-4,
        "--ckpt.path", folder / "checkpoints", "--ckpt.output_dir", folder / "model", "--ckpt.save_steps", 1,
        "--logger.tensorboard_dir", folder / "tensorboard",
        *(["--riskpo.runtime", "cpu"] if device == "cpu" else []),
    ]  # fmt: skip
    for what, steps, flags in (
        ("trains without CUDA graphs", 5, ["--vllm.enforce_eager"]),
        ("resumes, with CUDA graphs on a card", 6, ["--ckpt.load_enable"]),
    ):
        start = time.monotonic()
        # The same data for both: a run is not resumed with another number of prompts.
        code, output = train([*common, "--data.max_samples", 72, "--riskpo.max_steps", steps, *flags])
        reached = max(map(int, re.findall(r"\[riskpo\] step (\d+)", output)), default=0)
        checks.add(
            "c",
            what,
            code == 0 and reached == steps,
            exit_code=code,
            step=reached,
            seconds=time.monotonic() - start,
        )
        if code:
            print(output[-3000:])
            return
    kl = [abs(value) for value in scalars(folder / "tensorboard", "train/vllm_kl")]
    checks.add(
        "c",
        "the engine has the actor's weights",
        bool(kl) and max(kl) < 0.05,
        largest_vllm_kl=max(kl, default=math.nan),
    )
    words = ["--model", folder / "model", "--data", folder / "train.jsonl", "--n", 2, "--json"]
    command = [sys.executable, "-m", "riskpo_openrlhf.cli.evaluate", *map(str, words)]
    evaluated = subprocess.run(command, capture_output=True, text=True)
    result = json.loads(evaluated.stdout.splitlines()[-1]) if evaluated.returncode == 0 else {}
    passed = result.get("overall", {}).get("pass@1", math.nan)
    checks.add("c", "evaluates", evaluated.returncode == 0 and passed > 0, pass_at_1=passed)


def train(flags: list) -> tuple[int, str]:
    environment = {**os.environ, "RAY_DEDUP_LOGS": "0"}
    run = subprocess.run(
        [sys.executable, "-m", "riskpo_openrlhf.cli.train", *map(str, flags)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip
    return run.returncode, run.stdout


def scalars(folder: Path, tag: str) -> list[float]:
    from riskpo_openrlhf.analysis.runs import load_runs

    return [value for run in load_runs([folder]) if tag in run.scalars for value in run.scalars[tag].values]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--parts", nargs="+", choices=("a", "b", "c"), default=["a", "b", "c"], help="default: all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: what needs no card, in small")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch finds no CUDA device here. --device cpu checks what needs none.")
        return 0
    card = torch.cuda.get_device_name(0) if args.device == "cuda" else "CPU"
    print(f"{card}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    if args.device == "cpu" and "c" in args.parts:
        from riskpo_openrlhf.runtime import cpu

        cpu.prepare_driver()
    checks = Checks()
    if "a" in args.parts:
        checks.run("a", losses, args.device)
        checks.run("a", estimator, args.device)
    if "b" in args.parts:
        folder = Path(tempfile.mkdtemp(prefix="riskpo-gpu-"))
        alone(checks, model, folder, args.device)
        for stage, fp32_sums in ((3, False), (3, True), (2, False)):
            alone(checks, part_b, args.device, folder, stage, fp32_sums)
    if "c" in args.parts:
        checks.run("c", whole_job, args.device)
    failed = [result for result in checks.results if not result["ok"]]
    print(f"{len(checks.results) - len(failed)} of {len(checks.results)} checks hold on {card}")
    if args.out:
        report = {
            "card": card,
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d"),
            "checks": checks.results,
        }
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


def alone(checks: Checks, check: Callable, *args) -> None:
    """Call `check` in a process of its own, take over its results, and show its output if one failed.

    DeepSpeed keeps state in its process, and a card that this process has used is lost to a forked one.
    """
    with tempfile.NamedTemporaryFile("w+") as output:
        with ProcessPoolExecutor(1, get_context("spawn"), quiet, (output.name, list(sys.path))) as child:
            try:
                found = child.submit(check, *args).result() or []
            except Exception as error:
                found = [{"check": check.__name__, "ok": False, "error": f"{type(error).__name__}: {error}"[:400]}]
        if not all(result["ok"] for result in found):
            print(Path(output.name).read_text()[-3000:])
    for result in found:
        checks.add("b", result.pop("check"), result.pop("ok"), **{k: v for k, v in result.items() if k != "part"})


def quiet(output: str, path: list[str]) -> None:
    sys.path[:] = path
    log = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)


def part_b(device: str, folder: Path, stage: int, fp32_sums: bool) -> list[dict]:
    if device == "cpu":
        from riskpo_openrlhf.runtime import cpu

        cpu.prepare_driver()
    checks = Checks()
    checks.run("b", policy_worker, device, folder, stage, fp32_sums)
    sys.stdout.flush()
    return checks.results


if __name__ == "__main__":
    sys.exit(main())
