"""Cost of the driver's part of a step by the number of responses: ours beside OpenRLHF's own, in one run.

    python3 tests/benchmarks/bench_driver.py [--sizes 5120 20480 ...] [--tokens 16] [--micro_batch 8]

Each size runs in a process of its own. Times are CPU seconds of one thread, so that other work on the machine does not
count; memory is what the process holds at most during the call, above what it held before. Columns:

    sample      one response to one `Experience`, OpenRLHF's and with ours (per response; at most 20,480 are made)
    group_norm  OpenRLHF's `compute_advantages_and_returns` for GRPO
    paper, ...  the same by RiskPO's preset, metrics of every kind included
    estimator   `RiskPOEstimator.step` alone, of the preset before it
    send        OpenRLHF: the experiences serialized by Ray, as `ray.put` does it, for 8 ranks; bytes a response

OpenRLHF sets RAY_ENABLE_ZERO_COPY_TORCH_TENSORS=1, and so does this script; with 0, Ray pickles tensors.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, os.path.dirname(__file__))
from bench_experience_maker import GROUP, experiences, maker, strategy
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.core.estimator import RiskPOEstimator
from riskpo_openrlhf.integration.samples import RiskPOSamplesGenerator

PRESETS = ("paper", "recommended")
SIZES = (5_120, 20_480, 81_920, 327_680, 1_048_320)
RANKS = 8


class Measured:
    """CPU seconds and peak memory in MB of a block."""

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is held now
        self._held, self._start = _memory("VmRSS"), time.thread_time()
        return self

    def __exit__(self, *_):
        self.seconds, self.mb = time.thread_time() - self._start, _memory("VmHWM") - self._held


def _memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def measure(responses: int, tokens: int, micro_batch: int) -> dict:
    torch.set_num_threads(1)
    found = {"responses": responses, "tokens": tokens, **samples(min(responses, 20_480), tokens)}
    given = experiences(responses, tokens, micro_batch)
    for experience in given:  # what else travels to the ranks
        experience.sequences = torch.zeros(len(experience.index), tokens + 1, dtype=torch.long)
        experience.attention_mask = torch.ones_like(experience.sequences)
        experience.action_log_probs = torch.zeros(len(experience.index), tokens)
    for name in ("group_norm", *PRESETS):
        copied, ready = copy.deepcopy(given), maker(name)
        with Measured() as cost:
            ready.compute_advantages_and_returns(copied)
        found[name], found[f"{name}_mb"] = cost.seconds, cost.mb
        found[f"{name}_bytes"], send = pickled(copied)
        if name == "group_norm":
            found["send"] = send
        del copied, ready
    rewards = torch.cat([e.rewards for e in given]).view(-1, GROUP)
    keys = [f"{i}\x1f\x1fNone" for i in range(len(rewards))]
    for preset in PRESETS:
        estimator = RiskPOEstimator(RiskPOConfig.preset(preset), 0)
        with Measured() as cost:
            estimator.step(rewards, 0, None, keys)
        found[f"{preset}_estimator"], found[f"{preset}_estimator_mb"] = cost.seconds, cost.mb
    return found


def pickled(given: list) -> tuple[float, float]:
    """Return bytes a response and CPU seconds, in a part for each rank, as `async_run_method_batch` sends them."""
    from ray._private.serialization import SerializationContext

    context = SerializationContext(SimpleNamespace())  # its worker is asked about references only
    size, start, part = 0, time.thread_time(), -(-len(given) // RANKS)
    for first in range(0, len(given), part):
        size += context.serialize(given[first : first + part]).total_bytes
    return size / sum(len(e.index) for e in given), time.thread_time() - start


def samples(responses: int, tokens: int) -> dict:
    """Measure responses as the engines return them to experiences: seconds a response, theirs and ours."""
    answers = [
        {
            "prompt": f"{i // GROUP}", "label": "", "images": None, "mm_train_inputs": None, "rollout_log_probs": None,
            "observation_tokens": list(range(tokens + 1)), "action_ranges": [(1, tokens + 1)], "truncated": False,
            "reward": float(i % 3 == 0), "scores": float(i % 3 == 0), "extra_logs": {"parsed": 1.0},
        }
        for i in range(responses)
    ]  # fmt: skip
    found = {}
    for name, generator in (("theirs", SamplesGenerator), ("ours", RiskPOSamplesGenerator)):
        of = strategy("riskpo")
        of.args.reward.remote_url = "riskpo"
        of.args.rollout.batch_size = responses // GROUP
        of.args.algo.dynamic_filtering_enable, of.args.train.agent_func_path = False, None
        of.args.riskpo = SimpleNamespace(max_steps=None, eval_max_new_tokens=None)
        made = generator(of, None, None, None, [])
        with Measured() as cost:
            for answer in answers:
                made._process_response_into_experience(answer)
        found[f"sample_{name}"] = cost.seconds / responses
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="responses a step, multiples of 10")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16], help="tokens a response")
    parser.add_argument("--micro_batch", type=int, default=8)
    parser.add_argument("--one", action="store_true", help="measure the first size in this process, print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.sizes[0], options.tokens[0], options.micro_batch)))
        return
    print(
        "| responses | tokens | sample, µs: OpenRLHF, with ours | group_norm, s | "
        + " | ".join(f"{p}, s (of group_norm) | its estimator, s, MB" for p in PRESETS)
        + " | send, s | bytes a response: group_norm, paper | memory, MB: group_norm, paper, recommended |\n"
        + "|---" * 11
        + "|"
    )
    for size in options.sizes:
        for tokens in options.tokens:
            command = [sys.executable, __file__, "--one", "--sizes", size, "--tokens", tokens]
            command += ["--micro_batch", options.micro_batch]
            environment = {"RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1", **os.environ}
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
            if done.returncode:
                sys.exit(done.stderr)
            print(row(json.loads(done.stdout.splitlines()[-1])), flush=True)


def row(f: dict) -> str:
    ours = " | ".join(
        f"{f[p]:.3f} ({f[p] / f['group_norm']:.2f}) | {f[f'{p}_estimator']:.3f}, {f[f'{p}_estimator_mb']:.0f}"
        for p in PRESETS
    )
    memory = ", ".join(f"{f[f'{name}_mb']:.0f}" for name in ("group_norm", *PRESETS))
    return (
        f"| {f['responses']:,} | {f['tokens']} | {f['sample_theirs'] * 1e6:.0f}, {f['sample_ours'] * 1e6:.0f} | "
        f"{f['group_norm']:.3f} | {ours} | {f['send']:.3f} | {f['group_norm_bytes']:.0f}, {f['paper_bytes']:.0f} | "
        f"{memory} |"
    )


if __name__ == "__main__":
    main()
