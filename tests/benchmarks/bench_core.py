"""Time and memory of `RiskPOEstimator.step` against a plain loop over responses that does the same maths.

    python tests/benchmarks/bench_core.py

The loop is written with Python numbers, without the metrics that `step` also computes. On the smallest batch it is
given the estimator's own draws, and both must agree. Memory is the peak of live torch tensors, and of Python objects,
during a step, less what the step returns, as a multiple of the float32 rewards' own bytes.
"""

from __future__ import annotations

import gc
import math
import random
import time
import tracemalloc
from functools import partial
from hashlib import blake2b

import torch
from torch.profiler import ProfilerActivity, profile

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.core.bundles import draw_layout
from riskpo_openrlhf.core.estimator import RiskPOEstimator

SHAPES = ((512, 10), (4096, 16), (16384, 16), (65536, 16))
PRESETS = ("paper", "recommended")
LOOP_LIMIT = 300_000  # above this many responses, the loop is timed on a part of the batch
TENSOR_LOOP_LIMIT = 8_000  # the same for the loop that reads rewards out of the tensor one by one


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
    """The best of some runs: the machine is seldom idle."""
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def peak_bytes(work) -> tuple[int, int]:
    """Peak bytes of (torch tensors, Python objects) during `work`, less the tensors that it returns."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        result = work()
    live = peak = 0
    records = [event for event in run.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(records, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    assert records, "this torch reports no memory events"
    returned = sum(t.numel() * t.element_size() for t in (result.advantages, result.bundle, result.scores))
    del result
    tracemalloc.start()
    work()
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - returned, python


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32 rewards, binary")
    header = (
        "preset",
        "P x G",
        "step",
        "ns/response",
        "growth",
        "floats",
        "/ step",
        "elements",
        "/ step",
        "tensors",
        "Python",
    )
    print("{:<12} {:>10} {:>10} {:>12} {:>7} {:>10} {:>8} {:>10} {:>8} {:>8} {:>7}".format(*header))
    for preset in PRESETS:
        check_agreement(preset)
        config, first = RiskPOConfig.preset(preset), None
        for P, G in SHAPES:
            rewards, keys = make_batch(P, G)

            part = min(P, LOOP_LIMIT // G)
            work = partial(one_step, config, rewards, keys)
            work()
            taken = seconds(work, 10 if P * G < 10**5 else 5)
            loop = seconds(partial(loop_step, rewards[:part].tolist(), keys, config, 0, 0), 2) * P / part
            few = min(P, TENSOR_LOOP_LIMIT // G)
            tensor_loop = seconds(partial(loop_step, list(rewards[:few]), keys, config, 0, 0), 1) * P / few
            each = taken / (P * G) * 1e9
            first = first or each
            tensors, python = (size / (rewards.numel() * 4) for size in peak_bytes(work))
            print(
                f"{preset:<12} {f'{P} x {G}':>10} {taken * 1e3:>7.1f} ms {each:>12.0f} {each / first:>6.2f}x "
                f"{loop:>8.2f} s {loop / taken:>7.1f}x {tensor_loop:>8.1f} s {tensor_loop / taken:>7.0f}x "
                f"{tensors:>7.2f}x {python:>6.2f}x"
            )
    print(
        "growth: time per response against the smallest batch. floats: the loop over Python numbers, taken out of the"
    )
    print("tensor beforehand and not put back. elements: the same loop over the tensor's elements.")
    print(f"Above {LOOP_LIMIT} and {TENSOR_LOOP_LIMIT} responses, the two loops are timed on a part and scaled up.")
    print("tensors, Python: peak extra memory of a step beyond what it returns, as multiples of the rewards' bytes.")


if __name__ == "__main__":
    main()
