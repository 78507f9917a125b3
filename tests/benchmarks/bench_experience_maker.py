"""Our experience maker's advantages against OpenRLHF's own `group_norm`, on the same experiences, in one run.

    python3 tests/benchmarks/bench_experience_maker.py [--responses 5120] [--repeats 5]

Both run `compute_advantages_and_returns` on the driver while every GPU waits; the KL is in the reward, so that tokens
differ. Prints medians over the repeats; the order alternates, so that neither has the warmer machine.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from types import SimpleNamespace

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from riskpo_openrlhf.runtime import cpu

    cpu.prepare_worker()

from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.integration.experience_maker import RiskPOExperienceMaker

GROUP = 10


def strategy(estimator: str, preset: str = "paper") -> SimpleNamespace:
    args = SimpleNamespace(
        train=SimpleNamespace(seed=0),
        rollout=SimpleNamespace(n_samples_per_prompt=GROUP, max_new_tokens=None),
        reward=SimpleNamespace(clip_range=(-10, 10), overlong_buffer_len=None, stop_properly_penalty_coef=None),
        algo=SimpleNamespace(
            advantage=SimpleNamespace(estimator=estimator, gamma=1.0),
            kl=SimpleNamespace(use_loss=False),
            riskpo=SimpleNamespace(preset=preset, **RiskPOConfig.preset(preset).to_dict()),
        ),
        data=SimpleNamespace(max_len=2048),
    )
    return SimpleNamespace(args=args)


def experiences(responses: int, tokens: int, micro_batch: int) -> list[Experience]:
    generator = torch.Generator().manual_seed(tokens)
    rewards = (torch.rand(responses, generator=generator) < 0.4).float()
    lengths = torch.randint(tokens // 4, tokens + 1, (responses,), generator=generator)
    kl = torch.randn(responses, tokens, generator=generator) * 0.01
    mask = torch.arange(tokens) < lengths[:, None]
    made = []
    for index in torch.arange(responses).split(micro_batch):
        made.append(
            Experience(
                index=index.tolist(), action_mask=mask[index], rewards=rewards[index].clone(), scores=rewards[index],
                response_length=lengths[index], kl=kl[index].clone(),
                prompts=[f"{i // GROUP}" for i in index.tolist()],
                labels=[""] * len(index), images=[None] * len(index), info={"reward": rewards[index].clone()},
            )
        )  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=int, default=5120)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--micro_batch", type=int, default=8)
    options = parser.parse_args()
    print(
        f"{options.responses} responses in micro-batches of {options.micro_batch}, {torch.get_num_threads()} threads"
    )
    print(f"{'tokens':>7}  {'group_norm':>11}  {'paper':>16}  {'recommended':>16}")
    for tokens in (256, 1024):
        given = experiences(options.responses, tokens, options.micro_batch)
        seconds = {}
        for repeat in range(options.repeats + 1):
            for name in ("group_norm", "paper", "recommended"):
                seconds_now = run(name, copy.deepcopy(given))
                if repeat:  # the first round warms up
                    seconds.setdefault(name, []).append(seconds_now)
        median = {name: statistics.median(values) for name, values in seconds.items()}
        theirs = median["group_norm"]
        cells = [f"{median[n] * 1e3:6.0f} ms {theirs / median[n]:4.0f} x" for n in ("paper", "recommended")]
        print(f"{tokens:>7}  {theirs * 1e3:>8.0f} ms  {cells[0]:>16}  {cells[1]:>16}")


def maker(name: str) -> RemoteExperienceMaker:
    """Return OpenRLHF's experience maker for `group_norm`, ours for a preset."""
    common = (None, None, None, object(), FixedKLController(0.05))
    if name == "group_norm":
        return RemoteExperienceMaker(*common, strategy(name), None)
    return RiskPOExperienceMaker(*common, strategy("riskpo", name), None)


def run(name: str, given: list[Experience]) -> float:
    ready = maker(name)
    start = time.perf_counter()
    ready.compute_advantages_and_returns(given)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
