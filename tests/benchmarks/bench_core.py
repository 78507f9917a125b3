"""Time and memory of `RiskPOEstimator.step` against a plain loop over responses that does the same maths.

    python tests/benchmarks/bench_core.py

The loop is written with Python numbers, without the metrics that `step` also computes. On the smallest batch it is
given the estimator's own draws, and both must agree. Memory is the peak of live torch tensors during a step, less what
the step returns, as a multiple of the float32 rewards' own bytes. Exit code 1 if a bar is missed.

Times of two machines do not compare, so a step is measured in plain loops of the same run. BEFORE holds the same
numbers of the implementation in chunks (commit fdfd583), whose bar was three times the rewards' memory.
"""

from __future__ import annotations

import gc
import math
import random
import sys
import time
from functools import partial
from hashlib import blake2b

import torch
from torch.profiler import ProfilerActivity, profile

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.core.bundles import draw_layout
from riskpo_openrlhf.core.estimator import RiskPOEstimator

SHAPES = ((512, 10), (4096, 16), (16384, 16), (65536, 16))
# (loops a step takes the place of at 512 x 10, memory by shape)
BEFORE = {
    "paper": (4.0, (7.4, 2.8, 2.8, 2.5)),
    "recommended": (4.7, (7.9, 3.1, 3.1, 2.8)),
}
SLOWER = 1.5  # times the time before, at 512 x 10
POWER = (
    1.15  # time grows as this power of the number of responses, from the second batch (out of the caches) to the last
)
MEMORY = 16.0  # times the rewards'
LOOP_LIMIT = 300_000  # above this many responses, the loop is timed on a part of the batch


def make_batch(P: int, G: int) -> tuple[torch.Tensor, list[str]]:
    generator = torch.Generator().manual_seed(P)
    rewards = (torch.rand(P, G, generator=generator) < torch.rand(P, 1, generator=generator)).float()
    return rewards, [f"question {i}" for i in range(P)]


def loop_step(rewards, keys, config, seed, step, drawn=None):
    """`RiskPOEstimator.step` on a first batch, for the two presets, one response at a time.

    `drawn`: (order of prompts, xi, for each part the prompts by question set) to use instead of drawing them.
    """
    P, G, B = len(rewards), len(rewards[0]), config.bundle_size
    if drawn is None:
        order = sorted(range(P), key=lambda i: blake2b(f"{seed}/{step}/{keys[i]}".encode(), digest_size=8).digest())
        rng = random.Random(f"{seed}/{step}")
        xi = [rng.sample(range(G), G) for _ in range(P)]
    else:
        order, xi, orders = drawn
    r = [[rewards[p][g] for g in row] for p, row in zip(order, xi, strict=True)]
    stratified = config.bundling == "stratified"
    halves = (range(G // 2), range(G // 2, G)) if stratified else (range(G),)
    parts, sample = [], []
    for half, columns in enumerate(halves):
        by_set = list(range(P))
        if drawn is not None:
            by_set = orders[half]
        elif stratified:
            by_set.sort(key=lambda i: sum(r[i][j] for j in halves[1 - half]))
            cut, short = B * rng.randint(0, P // B), P % B
            by_set = by_set[:cut] + by_set[cut + short :] + by_set[cut : cut + short]
        sets = [by_set[start : start + B] for start in range(0, P, B)]
        scores = []
        for members in sets:
            scale = B / len(members)
            scores.append([scale * sum(r[i][j] for i in members) for j in columns])
            if len(members) == B:
                sample.extend(scores[-1])
        parts.append((columns, sets, scores))

    sample.sort()
    q_alpha, q_beta = (linear_quantile(sample, level) for level in (config.alpha, config.beta))

    def u(x):
        return -(1 + config.omega) * max(q_alpha - x, 0) + max(x - q_alpha, 0) - max(x - q_beta, 0)

    A = [[0.0] * G for _ in range(P)]
    for columns, sets, scores in parts:
        for members, row in zip(sets, scores, strict=True):
            scale = B / len(members)
            for i in members:
                if config.credit == "uniform":
                    for place, j in enumerate(columns):
                        A[order[i]][xi[i][j]] = (u(row[place]) + q_alpha - q_beta) / scale
                    continue
                others = [row[place] - scale * r[i][j] for place, j in enumerate(columns)]
                weight = sum(u(S + scale) - u(S) for S in others) / scale / len(columns)
                right = sum(r[i])
                divisor = group_std_mean(right / G)
                for j in columns:
                    A[order[i]][xi[i][j]] = (r[i][j] - (right - r[i][j]) / (G - 1)) * weight * 0.5 / divisor
    return A


def linear_quantile(ordered, level):
    place = level * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (ordered[math.ceil(place)] - ordered[low]) * (place - low)


def group_std_mean(p):
    """Of a group of pass rate p."""
    return p * math.sqrt(2 * (1 - p)) if 0 < p < 1 else 0.5


def one_step(config, rewards, keys):
    return RiskPOEstimator(config).step(rewards, 0, keys=keys)


def check_agreement(preset: str) -> None:
    rewards, keys = make_batch(*SHAPES[0])
    config = RiskPOConfig.preset(preset)
    valid = torch.ones_like(rewards, dtype=torch.bool)
    layout = draw_layout(rewards, valid, config.bundling, config.bundle_size, 0, 0, keys)
    drawn = layout.prompts.tolist(), layout.xi.tolist(), [part.order.tolist() for part in layout.parts]
    expected = torch.tensor(loop_step(rewards.tolist(), keys, config, 0, 0, drawn))
    actual = RiskPOEstimator(config).step(rewards, 0, keys=keys).advantages
    assert torch.allclose(actual, expected, atol=1e-5), f"{preset}: the loop and the estimator disagree"


def seconds(work, repeats: int) -> float:
    """CPU seconds of the best of some runs: the machine is seldom idle."""
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def peak_bytes(work) -> int:
    """Peak bytes of torch tensors during `work`, less those that it returns."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        result = work()
    live = peak = 0
    records = [event for event in run.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(records, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert records, "this torch reports no memory events"
    return peak - sum(t.numel() * t.element_size() for t in (result.advantages, result.bundle, result.scores))


def main() -> int:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32 rewards, binary\n")
    print("| preset | P x G | step | ns a response | loops a step | before | memory | before |")
    print("|---|---|---|---|---|---|---|---|")
    missed = []
    for preset, (loops_before, memory_before) in BEFORE.items():
        check_agreement(preset)
        config, times = RiskPOConfig.preset(preset), []
        for (P, G), before in zip(SHAPES, memory_before, strict=True):
            rewards, keys = make_batch(P, G)
            part, smallest = min(P, LOOP_LIMIT // G), not times
            work = partial(one_step, config, rewards, keys)
            work()
            taken = seconds(work, 60 if smallest else 6)
            loop = seconds(partial(loop_step, rewards[:part].tolist(), keys, config, 0, 0), 10 if smallest else 2)
            loops, memory = loop * P / part / taken, peak_bytes(work) / (rewards.numel() * 4)
            times.append(taken)
            print(
                f"| {preset} | {P} x {G} | {taken * 1e3:.1f} ms | {taken / (P * G) * 1e9:.0f} | {loops:.1f} "
                f"| {loops_before if smallest else ''} | {memory:.1f}x | {before:.1f}x |"
            )
            if smallest and loops < loops_before / SLOWER:
                missed.append(f"{preset}: {loops_before / loops:.2f} times the time before, the bar is {SLOWER}")
            if memory > MEMORY:
                missed.append(f"{preset}, {P} x {G}: memory {memory:.1f} times the rewards', the bar is {MEMORY:g}")
        (P, G), (Q, H) = SHAPES[1], SHAPES[-1]
        power = math.log(times[-1] / times[1]) / math.log(Q * H / (P * G))
        print(f"| {preset} | | | power {power:.2f} | | | | |")
        if power > POWER:
            missed.append(f"{preset}: time grows as the power {power:.2f} of the responses, the bar is {POWER}")
    print(f"\nloops a step: plain loops in the time of a step; above {LOOP_LIMIT} responses timed on a part.")
    print(
        f"bars: {SLOWER} times the time before at 512 x 10; power {POWER}; memory {MEMORY:g} times (before: 3 times)."
    )
    print("\n".join(f"MISSED {text}" for text in missed) or "all bars held")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
