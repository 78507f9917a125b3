"""Advantages and losses against each other in a plain loop without engines: 20 s a run on the small transformer.

    python3 tests/benchmarks/bench_plain_loop.py --data runs/mixed/data [--rates 2e-4 4e-4] [--seeds 4] [--methods ...]
    python3 tests/benchmarks/bench_plain_loop.py --model smollm2 --data runs/smollm2/data --rates 6e-5 --processes 2

Use it to choose what `lab.compare_methods` then runs on the real stack. It has the same starts, kinds of problems,
clip and optimiser, other draws, and two updates a rollout. `mixed` trains in float32 by 60 prompts x 10 responses a
step, and is measured exactly. `smollm2` trains in bfloat16 with float32 master weights by 30 x 10 responses of at most
16 tokens, with an update for each half of the prompts. It is measured by 16 responses to each of 120 problems. A step
takes half a minute on one core that multiplies bfloat16.
`--data` holds the models that `lab.compare_methods` makes for its seeds; SmolLM2 is the same for all of them.

A method is NAME or NAME,KNOB=VALUE,...: a rule for a group (grpo, dr_grpo, maxrl, rs_grpo, pass_at_k; each with its
paper below), or a preset of RiskPO with some knobs changed, or one of `ideas.py`. The loss is PPO's, which clips the
ratio of each token, or with `loss=sequence` Eq. 3, which clips that of the response; `clip=` changes the clip of 0.2.
`epochs=5` goes five times over a fifth of the problems.

Finished runs are in --out and are not run again; one call at a time may write there. Prints the tables of
`lab.compare_methods`: differences from --baseline by seed, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from math import comb
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch
from chat_task import SmolLM2, padded_log_probs, written
from ideas import IDEAS
from torch import Tensor
from tqdm import tqdm

from riskpo_openrlhf import RiskPOConfig, RiskPOEstimator
from riskpo_openrlhf.analysis.draw import draw
from riskpo_openrlhf.core.losses import sequence_clipped_loss
from riskpo_openrlhf.core.metrics import score_metrics
from riskpo_openrlhf.lab import tiny_model
from riskpo_openrlhf.lab.arithmetic import problems
from riskpo_openrlhf.lab.methods_table import CAPTION, Record, append_record, curves_of, pictures, read_records, tables
from riskpo_openrlhf.lab.prepare_quickstart import HELDOUT_SEED

RISK = RiskPOConfig.preset("paper")  # the levels of the measures of risk that are logged


class Mixed:
    """The small transformer in float32, measured without sampling error."""

    prompts, responses, tokens, steps, every = 60, 10, 8, 75, 5
    columns = {"Pass@1": "pass@1", "Pass@16": "pass@16", "solved in 32": "pass@32", "entropy": "entropy"}
    match, device = "pass@1", "cpu"

    def __init__(self, folder: Path, seed: int, count: int, heldout_seed: int = HELDOUT_SEED):
        self.model, self.tokenizer = tiny_model.load(folder)
        kinds = tiny_model.MODELS["mixed"].kinds
        self.rows = problems(kinds, count, seed + 1)
        self.heldout = problems(kinds, 1000, heldout_seed, split="heldout", unique=True)

    def ask(self, row: dict[str, str]) -> str:
        return row["input"]

    def right(self, text: str, row: dict[str, str]) -> bool:
        return text == tiny_model.boxed(row["answer"])

    def sample(self, prompts: list[str], n: int) -> tuple[Tensor, dict]:
        return tiny_model.generate(self.model, self.tokenizer, prompts, n, self.tokens)[0], {}

    def batches(self, A: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
        return ((len(half), [half]) for half in torch.randperm(len(A)).chunk(2))

    def log_probs(self, prompts: list[str], tokens: Tensor, of: Tensor) -> Tensor:
        self.tokenizer.padding_side = "left"
        asked = self.tokenizer(prompts, return_tensors="pt", padding=True)
        return padded_log_probs(self.model, asked, tokens, written(tokens, self.tokenizer), of)

    def measured(self) -> dict[str, float]:
        return tiny_model.exact_metrics(self.model, self.tokenizer, self.heldout, (1, 8, 16, 32, 256))


STARTS: dict[tuple[Path, int], dict[str, float]] = {}
TASKS = {"mixed": Mixed, "smollm2": SmolLM2}


def grpo(r: Tensor) -> Tensor:
    """arXiv:2402.03300."""
    return dr_grpo(r) / (r.std(1, keepdim=True) + 1e-9)


def dr_grpo(r: Tensor) -> Tensor:
    """arXiv:2503.20783."""
    return r - r.mean(1, keepdim=True)


def maxrl(r: Tensor) -> Tensor:
    """arXiv:2602.02710: over the mean, 0 if nobody is right."""
    return dr_grpo(r) / r.mean(1, keepdim=True).clamp(min=1 / r.shape[1])


def rs_grpo(r: Tensor, b: float = 2.0) -> Tensor:
    """arXiv:2509.24261: risk-seeking, (exp(b r) / mean exp(b r) - 1) / b."""
    weight = (b * r).exp()
    return (weight / weight.mean(1, keepdim=True) - 1) / b


def pass_at_k(r: Tensor, k: int = 4) -> Tensor:
    """arXiv:2508.10751, analytic: what a response's groups of k score on average (1 if any is right), standardised."""
    n, out = r.shape[1], torch.zeros_like(r)
    for row, A in zip(r, out, strict=True):
        wrong = n - int(row.sum())
        rho = 1 - comb(wrong, k) / comb(n, k)
        if 0 < rho < 1:
            of_wrong = 1 - rho - comb(wrong - 1, k - 1) / comb(n - 1, k - 1)
            A.copy_(torch.where(row > 0, 1 - rho, of_wrong) / (rho * (1 - rho)) ** 0.5)
    return out


GROUP_RULES = {rule.__name__: rule for rule in (grpo, dr_grpo, maxrl, rs_grpo, pass_at_k)}
# The preset's levels and division before it took today's: one change at a time.
STD = "recommended,alpha=0.6,beta=0.95,omega=2,normalization=group-std"
METHODS = (
    "grpo", "grpo,loss=sequence", "maxrl", "maxrl,loss=sequence", "rs_grpo", "pass_at_k",
    f"{STD},loss=sequence", f"{STD},loss=sequence,clip=0.07", STD, "recommended,alpha=0.6,beta=0.95,omega=2",
    "recommended,normalization=group-mean", "recommended",
)  # fmt: skip


def parse(method: str) -> tuple[str, str, float, int, dict]:
    """`NAME,KNOB=VALUE,...` -> name, loss, clip, epochs, and RiskPO's knobs in their types."""
    name, *changes = method.split(",")
    values = dict(change.split("=") for change in changes)
    loss, clip, epochs = values.pop("loss", "token"), float(values.pop("clip", 0.2)), int(values.pop("epochs", 1))
    if loss not in ("token", "sequence"):
        raise ValueError(f"{method}: loss={loss} is not token or sequence")
    if name in {**GROUP_RULES, **IDEAS} and values:
        raise ValueError(f"{method}: a rule for a group has no knobs but loss, clip and epochs")
    types = {knob: type(default) for knob, default in RiskPOConfig().to_dict().items()}
    if wrong := [knob for knob in values if types.get(knob, bool) is bool]:
        raise ValueError(f"{method}: {wrong[0]} can't be changed here")
    return name, loss, clip, epochs, {knob: types[knob](value) for knob, value in values.items()}


def advantages_by(name: str, knobs: dict, seed: int) -> Callable[[Tensor, int, list[str]], Tensor]:
    """A function of rewards `[P, G]`, step and prompts that gives advantages `[P, G]`."""
    if name in IDEAS:
        return IDEAS[name](seed)
    if name in GROUP_RULES:
        return lambda r, step, keys: GROUP_RULES[name](r)
    estimator = RiskPOEstimator(RiskPOConfig.preset(name, **knobs), seed)
    return lambda r, step, keys: estimator.step(r, step, keys=keys).advantages


def token_loss(log_probs: Tensor, old: Tensor, A: Tensor, mask: Tensor, clip: float) -> Tensor:
    """PPO's clipped loss of each token [N, T]."""
    ratio = (log_probs - old).exp()
    return -torch.min(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A) * mask


def train(data: Path, model: str, method: str, rate: str, seed: int, steps: int, heldout_seed: int) -> Record:
    started = time.monotonic()
    name, loss, clip, epochs, knobs = parse(method)
    advantages = advantages_by(name, knobs, seed)
    folder = folder_of(data, model, seed)
    task = TASKS[model](folder, seed, steps * TASKS[model].prompts // epochs, heldout_seed)
    rows, parameters = task.rows * epochs, list(task.model.parameters())
    master = [p.detach().clone().float() for p in parameters]
    optimizer = torch.optim.AdamW(master, lr=float(rate), betas=(0.9, 0.95), weight_decay=0.0)
    curves: dict[str, list[tuple[int, float]]] = {}
    for step in range(steps + 1):
        if not parent_process().is_alive():
            raise SystemExit(1)
        if step % task.every == 0:
            torch.manual_seed(1000 * seed + step)
            found = task.measured() if step else measured_start(task, folder, heldout_seed)
            # All that a run leaves if it is cut off.
            print(f"{method} {rate} seed {seed} step {step}: {found}", flush=True)
            for tag, value in found.items():
                curves.setdefault(tag, []).append((step, value))
        if step == steps:
            break
        torch.manual_seed(1000 * seed + step)
        batch = rows[step * task.prompts : (step + 1) * task.prompts]
        prompts = [task.ask(row) for row in batch]
        tokens, logged = task.sample(prompts, task.responses)
        texts = task.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        right = [task.right(text, batch[i // task.responses]) for i, text in enumerate(texts)]
        r = torch.tensor(right).float().view(-1, task.responses)
        A = advantages(r, step, [row["input"] for row in batch]).view(-1, 1).to(task.device)
        update(task, optimizer, master, prompts, tokens, A, loss, clip)
        for tag, value in {**logged, **risk_of(r)}.items():
            curves.setdefault(f"train/{tag}", []).append((step + 1, value))
    kept = {
        tag: [[float(step) for step, _ in points], [float(f"{value:.5g}") for _, value in points]]
        for tag, points in curves.items() if model == "smollm2" or not tag.startswith("train/")
    }  # fmt: skip
    return Record(method, rate, seed, steps, model, round(time.monotonic() - started, 1), kept)


def measured_start(task, folder: Path, heldout_seed: int) -> dict[str, float]:
    """Measure the model before training: the same numbers for all methods, so once in this process."""
    if (folder, heldout_seed) not in STARTS:
        torch.manual_seed(0)
        STARTS[folder, heldout_seed] = task.measured()
    return STARTS[folder, heldout_seed]


def risk_of(r: Tensor) -> dict[str, float]:
    """The measures of the paper's Figure 5, of bundles of 5 in the order of the rollout."""
    scores = r.T.reshape(r.shape[1], -1, RISK.bundle_size).sum(2).flatten().double()
    found = score_metrics(scores, RISK.alpha, RISK.beta, RISK.omega)
    return {f"risk/{name}": found[f"riskpo/{name}"] for name in ("mvar", "rvar_lower")}


def update(task, optimizer, master, prompts, tokens: Tensor, A: Tensor, loss: str, clip: float) -> None:
    """Two updates, each on half of the responses `tokens [N, T]` with advantages `A [N, 1]`, as the task cuts them."""
    mask, parameters = written(tokens, task.tokenizer), list(task.model.parameters())
    old = torch.zeros(tokens.shape, device=task.device)
    halves = list(task.batches(A))
    with torch.no_grad():
        for of in (of for _, batches in halves[1:] for of in batches):
            old[of] = task.log_probs(prompts, tokens, of)
    for number, (count, batches) in enumerate(halves):
        for p in master:
            p.grad = torch.zeros_like(p)  # an update without any advantage is one, too
        for of in batches:
            new, own, each = task.log_probs(prompts, tokens, of), mask[of], A[of].expand(-1, tokens.shape[1])
            if number == 0:
                old[of] = new.detach()  # nothing was updated yet
            if loss == "token":
                terms = token_loss(new, old[of], each, own, clip)
            else:
                terms = sequence_clipped_loss(new, old[of], each, own, clip, clip).loss
            ((terms.sum(1) / own.sum(1)).sum() / count).backward()
            for p, of_p in zip(parameters, master, strict=True):
                of_p.grad += p.grad
                p.grad = None
        torch.nn.utils.clip_grad_norm_(master, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(parameters, master)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", choices=TASKS, default="mixed")
    parser.add_argument("--data", type=Path, required=True, help="holds quickstart-MODEL-seedN/model")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD")
    parser.add_argument("--baseline", default="grpo", metavar="METHOD", help="what the others are compared with")
    parser.add_argument("--rates", nargs="+", default=["2e-4", "4e-4"], metavar="LR")
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="this many seeds (default: 4)")
    parser.add_argument("--first_seed", type=int, default=0, metavar="N", help="the first of them (default: 0)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="runs beside each other, of one thread")
    parser.add_argument("--steps", type=int, help="default: 75; smollm2: 12")
    parser.add_argument("--levels", nargs="+", type=float, default=[], help="match at these values of Pass@1")
    parser.add_argument(
        "--own_heldout", action="store_true", help="each seed draws held-out problems of its own; another --out then"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/plain.jsonl"))
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw smollm2's curves (.png, .svg)")
    args = parser.parse_args()
    task, steps = TASKS[args.model], args.steps or TASKS[args.model].steps
    methods = list(dict.fromkeys([args.baseline, *args.methods]))
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    missing = [seed for seed in seeds if not folder_of(args.data, args.model, seed).is_dir()]
    if missing:
        parser.error(f"{folder_of(args.data, args.model, missing[0])} is not there: run lab.compare_methods first")
    for method in methods:
        parse(method)  # a wrong one now, not after an hour
    if args.picture and (args.model != "smollm2" or len(args.rates) > 1):
        parser.error("--picture needs --model smollm2 and one of --rates")
    jobs = [(m, rate, seed) for rate in args.rates for seed in seeds for m in methods]
    finished = read_records(args.out)
    with ProcessPoolExecutor(args.processes, get_context("spawn"), prepare_process) as pool:
        left = [
            pool.submit(train, args.data, args.model, *job, steps, job[2] if args.own_heldout else HELDOUT_SEED)
            for job in jobs if (*job, steps, args.model) not in finished
        ]  # fmt: skip
        failed = 0
        for run in tqdm(as_completed(left), total=len(left), unit="run"):
            if error := run.exception():
                failed += 1
                tqdm.write(f"a run failed: {error!r}")
            else:
                append_record(args.out, run.result())
    records = read_records(args.out).values()
    for rate in args.rates:
        of = {
            m: [
                r for r in records
                if (r.method, r.rate, r.steps, r.model) == (m, rate, steps, args.model) and r.seed in seeds
            ]
            for m in methods
        }  # fmt: skip
        if all(of.values()):
            if args.picture:
                draw(pictures(of, "eval/arithmetic", "train/entropy"), args.picture, CAPTION)
            if args.model == "smollm2":  # means between evaluations
                of = {m: [replace(r, curves=curves_of(r.run())) for r in runs] for m, runs in of.items()}
            print(f"\nLearning rate {rate}\n\n{tables(of, args.baseline, task.columns, task.match, args.levels)}")
    return int(failed > 0)


def prepare_process() -> None:
    logging.getLogger("riskpo_openrlhf").setLevel(logging.ERROR)
    torch.set_num_threads(1)


def folder_of(data: Path, model: str, seed: int) -> Path:
    return data / f"quickstart-{model}-seed{seed if model == 'mixed' else 0}" / "model"


if __name__ == "__main__":
    sys.exit(main())
