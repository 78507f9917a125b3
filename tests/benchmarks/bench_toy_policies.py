"""Which levels, bundle size and bundling keep more Pass@16 and entropy than GRPO at matched Pass@1, in how many steps.

    python3 tests/benchmarks/bench_toy_policies.py [--worlds tab lin] [--seeds 12] [--ablations]

Toy policies choose one of ANSWERS answers; nearly half of the questions start almost unsolved. Every method trains by
plain policy gradient from the same policies, with the same order of questions and uniforms to sample by, at the same
rate. Updates are normalised, so a constant scale of the advantages plays no part. Pass@k is exact, not sampled.

    tab   a logit for each answer of each question, so that none helps another; measured on the training questions
    lin   log-linear, parameters shared by questions of a kind; measured on questions never trained on
    conf  the same with fewer parameters, and kinds that agree less; measured on the training questions

RiskPO's rows are named by alpha/beta/omega: counterfactual credit, group-std, and stratified bundles of B = 5 unless
they say otherwise; `mean` and `std-mean` are group-mean and group-std-mean in place of group-std. MaxRL has GRPO's
advantage over the group's mean in place of its std (arXiv:2602.02710). The control has neither bundles nor quantiles:
GRPO's advantage times (1 - the pass rate of the group's other half). With B = 1, a batch has GRPO's advantages times
one number: its steps show what a drift of scale does. Differences are from GRPO in the same seed, where Pass@1 first
crosses the level, interpolated between steps; in brackets the standard error over seeds. Seeds in which either method
doesn't get there in LIMIT steps are left out: few `seeds` are the lucky ones. A minute or two on one core. Toys say
where a knob pulls, not how far in a language model.

--ablations: the paper's own, of preset `paper` after LIMIT steps, next to its figures; in brackets 95 % intervals.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from riskpo_openrlhf import RiskPOConfig, RiskPOEstimator
from riskpo_openrlhf.evaluation.intervals import interval

QUESTIONS, ANSWERS = 300, 24  # questions to train on; answer 0 is the right one
P, G, LIMIT = 60, 10, 130  # questions a step, responses a question, steps at most
MEASURES = ("Pass@8", "Pass@16", "entropy", "unsolved in 32")  # and steps


def start_rates(rng: np.random.Generator) -> np.ndarray:
    """Pass rates [QUESTIONS] before training, rising: 45 % under .05, the others anywhere from there to .9."""
    hard = int(0.45 * QUESTIONS)
    rates = np.exp(rng.uniform(np.log(0.002), np.log(0.05), hard)), rng.uniform(0.05, 0.9, QUESTIONS - hard)
    return np.sort(np.concatenate(rates))


def draw_table(seed: int) -> tuple[np.ndarray]:
    """Start logits [QUESTIONS, ANSWERS]."""
    rng = np.random.default_rng(100 + seed)
    rates, wrong = start_rates(rng), rng.normal(0, 1.5, (QUESTIONS, ANSWERS - 1))
    right = np.log(rates / (1 - rates) * np.exp(wrong).sum(1))
    return (np.concatenate([right[:, None], wrong], axis=1),)


def draw_kinds(seed: int, kinds: int, width: int, agree: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Start logits [N, ANSWERS] and features [N, ANSWERS, width]; N = 2 QUESTIONS, the second half is held out.

    Questions of a kind share features, but for `noise`, and in a share `agree` of them the right answer.
    """
    rng = np.random.default_rng(500 + seed)
    every = np.arange(2 * QUESTIONS)
    kind = rng.integers(0, kinds, len(every))
    ease = rng.normal(size=kinds)[kind] + rng.normal(size=len(every))
    rates = np.empty(len(every))
    for half in np.split(every, 2):
        rates[half[ease[half].argsort()]] = start_rates(rng)
    usual = rng.integers(0, ANSWERS, kinds)[kind]
    right = np.where(rng.random(len(every)) < agree, usual, rng.integers(0, ANSWERS, len(every)))
    logits = rng.normal(0, 1.5, (len(every), ANSWERS))
    logits[every, right] = -np.inf
    logits[every, right] = np.log(rates / (1 - rates) * np.exp(logits).sum(1))
    of_answer, of_kind, own = (rng.normal(size=(n, ANSWERS, width)) for n in (1, kinds, len(every)))
    features = (0.5 * of_answer + of_kind[kind] + noise * own) / np.sqrt(width)
    place = np.tile(np.arange(ANSWERS), (len(every), 1))  # the right answer changes places with answer 0
    place[every, right], place[:, 0] = 0, right
    return np.take_along_axis(logits, place, 1), np.take_along_axis(features, place[:, :, None], 1)


class Tabular:
    """Policies `logits [S, QUESTIONS, ANSWERS]` of S seeds, moved by the gradient over its running norm."""

    def __init__(self, rate: float, logits: Tensor):
        self.rate, self.table = rate, logits.clone()
        self.square, self.steps = torch.zeros(len(logits)), 0

    def logits(self, at: tuple) -> Tensor:
        return self.table[at]  # `at` indexes seeds and questions

    def update(self, at: tuple, gradient: Tensor) -> None:
        self.steps += 1
        self.square.lerp_(gradient.square().sum((1, 2)), 0.05)
        norm = (self.square / (1 - 0.95**self.steps)).sqrt() + 1e-8
        self.table[at] += self.rate * gradient / norm[:, None, None]


class LogLinear:
    """Policies `logits + features w` of S seeds; `w [S, width]` starts at 0 and is moved by Adam."""

    def __init__(self, rate: float, logits: Tensor, features: Tensor):
        self.start, self.features = logits, features
        self.w = torch.zeros(len(logits), features.shape[-1])
        self.adam = torch.optim.Adam([self.w], lr=rate, betas=(0.9, 0.99), maximize=True)

    def logits(self, at: tuple) -> Tensor:
        return self.start[at] + torch.einsum("spad,sd->spa", self.features[at], self.w)

    def update(self, at: tuple, gradient: Tensor) -> None:
        self.w.grad = torch.einsum("spad,spa->sd", self.features[at], gradient) / (P * G)
        self.adam.step()


SEEN, UNSEEN = slice(QUESTIONS), slice(QUESTIONS, None)
WORLDS = {  # policies, learning rate, what draws their start, questions measured, levels of Pass@1 (rising)
    "tab": (Tabular, 2, draw_table, SEEN, (0.35, 0.5)),
    "lin": (LogLinear, 0.05, partial(draw_kinds, kinds=25, width=128, agree=0.9, noise=0.3), UNSEEN, (0.35, 0.5)),
    "conf": (LogLinear, 0.1, partial(draw_kinds, kinds=40, width=96, agree=0.7, noise=0.5), SEEN, (0.35, 0.42)),
}


def grpo(r: Tensor) -> Tensor:
    return (r - r.mean(2, keepdim=True)) / (r.std(2, keepdim=True) + 1e-9)


def control(r: Tensor) -> Tensor:
    failed = [1 - half.mean(2, keepdim=True).expand_as(half) for half in r.split(G // 2, dim=2)]
    return grpo(r) * torch.cat(failed[::-1], dim=2)


riskpo = partial(RiskPOConfig, bundling="stratified", credit="counterfactual", normalization="group-std")
METHODS = {  # a function of rewards [S, P, G] that gives advantages [S, P, G], or the settings of RiskPO
    "GRPO": grpo,
    "Dr.GRPO": lambda r: r - r.mean(2, keepdim=True),
    "random .4/.9/.5": riskpo(0.4, 0.9, 0.5, bundling="random"),
    ".4/.9/.5": riskpo(0.4, 0.9, 0.5),
    ".2/.8/.5": riskpo(0.2, 0.8, 0.5),
    ".2/.8/5": riskpo(0.2, 0.8, 5),
    ".5/.9/2": riskpo(0.5, 0.9, 2),
    ".6/.95/1": riskpo(0.6, 0.95, 1),
    ".6/.95/2": riskpo(0.6, 0.95, 2),
    ".6/.95/5": riskpo(0.6, 0.95, 5),
    ".6/.95/2, B = 1": riskpo(0.6, 0.95, 2, bundle_size=1),
    ".6/.95/2, B = 3": riskpo(0.6, 0.95, 2, bundle_size=3),
    ".6/.95/2, B = 10": riskpo(0.6, 0.95, 2, bundle_size=10),
    "mean .4/.99/.5": riskpo(0.4, 0.99, 0.5, normalization="group-mean"),
    "mean .6/.95/2": riskpo(0.6, 0.95, 2, normalization="group-mean"),
    "std-mean .4/.99/.5": riskpo(0.4, 0.99, 0.5, normalization="group-std-mean"),
    "std-mean .6/.99/1": riskpo(0.6, 0.99, 1, normalization="group-std-mean"),
    "std-mean, no risk": riskpo(0.001, 0.999, 0, normalization="group-std-mean", bundling="random", bundle_size=1),
    "MaxRL": lambda r: (r - r.mean(2, keepdim=True)) / r.mean(2, keepdim=True).clamp(min=1 / G),
    "control": control,
}
# The ablations of arXiv:2510.00911 (Tables 3, 4, 5, Figure 6): what differs from alpha .2, beta .8, omega .5, B = 5,
# and the average accuracy that it reports, in per cent.
ABLATIONS = {
    "paper": ({}, 68.25),
    "alpha .1": ({"alpha": 0.1}, 66.90),
    "alpha .3": ({"alpha": 0.3}, 67.50),
    "alpha .4": ({"alpha": 0.4}, 67.60),
    "beta .6": ({"beta": 0.6}, 67.25),
    "beta .7": ({"beta": 0.7}, 67.75),
    "beta .9": ({"beta": 0.9}, 66.95),
    "B = 1": ({"bundle_size": 1}, 65.80),
    "B = 2": ({"bundle_size": 2}, 67.20),
    "B = 3": ({"bundle_size": 3}, 67.65),
    "B = 10": ({"bundle_size": 10}, 66.65),
    "omega 0": ({"omega": 0}, 67.20),
    "omega .1": ({"omega": 0.1}, 67.55),
    "omega 1": ({"omega": 1}, 67.85),
    "risk-seeking": ({"profile": "seeking"}, None),
}
MATCHED = 0.4


def measure(logits: Tensor) -> Tensor:
    """`[S, 5]`: Pass@1 and MEASURES, means over questions."""
    log_p = logits.log_softmax(-1)
    wrong, entropy = 1 - log_p[..., 0].exp(), -(log_p.exp() * log_p).sum(-1)
    return torch.stack([1 - wrong, 1 - wrong**8, 1 - wrong**16, entropy, wrong**32], dim=-1).mean(1)


def train(policy, seeds: int, measured: slice, last_level: float, method: Callable | RiskPOConfig) -> np.ndarray:
    """`[steps + 1, S, 5]`: what `measure` gives before each step, until all S seeds have reached the last level."""
    estimators = [RiskPOEstimator(method, seed) for seed in range(seeds)] if isinstance(method, RiskPOConfig) else []
    generators = [torch.Generator().manual_seed(7000 + seed) for seed in range(seeds)]
    record, arrived = [], torch.zeros(seeds, dtype=torch.bool)
    for step in range(LIMIT + 1):
        record.append(measure(policy.logits((slice(None), measured))))
        arrived |= record[-1][:, 0] >= last_level
        if arrived.all():
            break
        if step % (QUESTIONS // P) == 0:
            epoch = torch.stack([torch.randperm(QUESTIONS, generator=g) for g in generators]).split(P, dim=1)
        ids = epoch[step % (QUESTIONS // P)]
        at = torch.arange(seeds)[:, None], ids
        pi = policy.logits(at).softmax(-1)  # [S, P, ANSWERS]
        uniforms = torch.stack([torch.rand(P, G, generator=g) for g in generators])
        answers = torch.searchsorted(pi.cumsum(-1), uniforms).clamp_(max=ANSWERS - 1)
        r = (answers == 0).float()
        if estimators:
            steps = (e.step(r[s], step, keys=[str(i) for i in ids[s].tolist()]) for s, e in enumerate(estimators))
            A = torch.stack([result.advantages for result in steps])
        else:
            A = method(r)
        # A grad log pi by the logits, summed over responses.
        policy.update(at, torch.zeros_like(pi).scatter_add_(2, answers, A) - A.sum(2, keepdim=True) * pi)
    return torch.stack(record).numpy()


def at_level(record: np.ndarray, level: float) -> np.ndarray:
    """`[S, 5]`: MEASURES and steps where Pass@1 first crosses `level`, NaN for a seed in which it never does."""
    after, seeds = (record[:, :, 0] >= level).argmax(0), np.arange(record.shape[1])
    low, high = record[after - 1, seeds], record[after, seeds]
    part = (level - low[:, :1]) / (high[:, :1] - low[:, :1])
    values = np.concatenate([low + part * (high - low), after[:, None] - 1 + part], axis=1)[:, 1:]
    return np.where(after[:, None] > 0, values, np.nan)


def print_table(records: dict[str, np.ndarray], title: str, level: float) -> None:
    print(f"\n{title}\n\n| method |", *(f"Δ{name} |" for name in (*MEASURES, "steps")), "seeds |\n" + "|---" * 7 + "|")
    for method, record in records.items():
        values, sign = at_level(record, level), ""
        if method != "GRPO":
            values, sign = values - at_level(records["GRPO"], level), "+"
        values = values[~np.isnan(values).any(1)]
        n = len(values)
        mean, error = (values.mean(0), values.std(0, ddof=1) / n**0.5) if n > 1 else np.full((2, 5), np.nan)
        cells = zip(mean, error, (3, 3, 3, 3, 1), strict=True)
        print(f"| {method} |", *(f"{m:{sign}.{d}f} ({e:.{d}f}) |" for m, e, d in cells), f"{n} |", flush=True)


def print_ablations(records: dict[str, np.ndarray], title: str) -> None:
    """Means of the last five steps, and entropy where Pass@1 is MATCHED; every row but the first less the first."""
    print(f"\n{title}\n\n| setting | the paper's average | Pass@1 | Pass@16 | entropy | entropy at Pass@1 {MATCHED} |")
    print("|---" * 6 + "|")
    columns = {  # [S, 4]
        setting: np.column_stack([record[-5:, :, [0, 2, 3]].mean(0), at_level(record, MATCHED)[:, 2]])
        for setting, record in records.items()
    }
    first, base = next(iter(columns.items()))
    for setting, values in columns.items():
        theirs, sign = ABLATIONS[setting][1], ""
        if setting != first:
            values, sign, theirs = values - base, "+", theirs and theirs - ABLATIONS[first][1]
        told = "-" if theirs is None else f"{theirs:{sign}.2f}"
        cells = (interval(column) for column in values.T)
        print(f"| {setting} | {told} |", *(f"{mean:{sign}.3f} ({half:.3f}) |" for mean, half, _ in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=["tab", "lin"])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--ablations", action="store_true", help="the paper's, instead of the levels")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds {args.seeds} is too few: a standard error needs at least 2")
    torch.set_num_threads(1)
    logging.getLogger("riskpo_openrlhf").setLevel(logging.ERROR)  # weak starts are wanted here
    for name in args.worlds:
        Policy, rate, draw, measured, levels = WORLDS[name]
        start = [torch.tensor(np.stack(a)).float() for a in zip(*map(draw, range(args.seeds)), strict=True)]
        if args.ablations:
            settings = {name: RiskPOConfig(**changed) for name, (changed, _) in ABLATIONS.items()}
            records = {m: train(Policy(rate, *start), args.seeds, measured, np.inf, A) for m, A in settings.items()}
            print_ablations(records, f"{name} after {LIMIT} steps; from the second row on less the first")
            continue
        records = {m: train(Policy(rate, *start), args.seeds, measured, levels[-1], A) for m, A in METHODS.items()}
        for level in levels:
            print_table(records, f"{name} at Pass@1 = {level}; GRPO's row holds its own values", level)


if __name__ == "__main__":
    main()
