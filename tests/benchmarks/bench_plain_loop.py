"""Advantages and losses against each other on a small transformer, in a plain loop without engines: 20 s a run.

    python3 tests/benchmarks/bench_plain_loop.py --data runs/mixed/data [--rates 2e-4 4e-4] [--seeds 4] [--methods ...]

Use it to choose what `lab.compare_methods` then runs on the real stack. It has the same starts, kinds of problems,
sizes, clip and optimiser (60 prompts x 10 responses a step, two updates a rollout, AdamW), other draws, and float32.
`--data` holds the models that `lab.compare_methods` makes for its seeds. A method is NAME or NAME,KNOB=VALUE,...: a
rule for a group (grpo, dr_grpo, maxrl, rs_grpo, pass_at_k; each with its paper below), or a preset of RiskPO with some
knobs changed, or one of `ideas.py`. The loss is PPO's, which clips the ratio of each token, or with `loss=sequence`
Eq. 3, which clips that of the response; `clip=` changes the clip of 0.2. `epochs=5` goes five times over a fifth of
the problems.

Finished runs are in --out and are not run again. Prints the tables of `lab.compare_methods`: differences from
--baseline by seed, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from math import comb
from pathlib import Path

import torch
from ideas import IDEAS
from torch import Tensor
from tqdm import tqdm

from riskpo_openrlhf import RiskPOConfig, RiskPOEstimator
from riskpo_openrlhf.core.losses import sequence_clipped_loss
from riskpo_openrlhf.lab.arithmetic import problems
from riskpo_openrlhf.lab.methods_table import Record, append_record, read_records, tables
from riskpo_openrlhf.lab.prepare_quickstart import HELDOUT_SEED
from riskpo_openrlhf.lab.tiny_model import (
    MODELS,
    answer_probabilities,
    boxed,
    entropy_and_length,
    generate,
    load,
)

PROMPTS, RESPONSES, UPDATES, MEASURE_EVERY = 60, 10, 2, 5
KS = (1, 8, 16, 32, 256)
COLUMNS = {"Pass@1": "pass@1", "Pass@16": "pass@16", "solved in 32": "pass@32", "entropy": "entropy"}


def grpo(r: Tensor) -> Tensor:
    """arXiv:2402.03300."""
    return dr_grpo(r) / (r.std(1, keepdim=True) + 1e-9)


def dr_grpo(r: Tensor) -> Tensor:
    """arXiv:2503.20783."""
    return r - r.mean(1, keepdim=True)


def maxrl(r: Tensor) -> Tensor:
    """arXiv:2602.02710: over the mean, 0 if nobody is right."""
    return dr_grpo(r) / r.mean(1, keepdim=True).clamp(min=1 / RESPONSES)


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


def train(folder: Path, method: str, rate: str, seed: int, steps: int) -> Record:
    started = time.monotonic()
    name, loss, clip, epochs, knobs = parse(method)
    advantages = advantages_by(name, knobs, seed)
    model, tokenizer = load(folder)
    kinds = MODELS["mixed"].kinds
    heldout = problems(kinds, 1000, HELDOUT_SEED, split="heldout", unique=True)
    rows = problems(kinds, steps * PROMPTS // epochs, seed + 1) * epochs
    optimizer = torch.optim.AdamW(model.parameters(), lr=float(rate), betas=(0.9, 0.95), weight_decay=0.0)
    curves: dict[str, list[float]] = {}
    for step in range(steps + 1):
        if step % MEASURE_EVERY == 0:
            for tag, value in measured(model, tokenizer, heldout).items():
                curves.setdefault(tag, []).append(value)
        if step == steps:
            break
        torch.manual_seed(1000 * seed + step)
        batch = rows[step * PROMPTS : (step + 1) * PROMPTS]
        prompts = [row["input"] for row in batch]
        tokens, _ = generate(model, tokenizer, prompts, RESPONSES, max_new_tokens=8)
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        right = [text == boxed(batch[i // RESPONSES]["answer"]) for i, text in enumerate(texts)]
        A = advantages(torch.tensor(right).float().view(PROMPTS, RESPONSES), step, prompts).view(-1, 1)
        update(model, tokenizer, optimizer, prompts, tokens, A, loss, clip)
    at = [float(step) for step in range(0, steps + 1, MEASURE_EVERY)]
    return Record(
        method, rate, seed, steps, "mixed", round(time.monotonic() - started, 1),
        {tag: [at, [float(f"{value:.5g}") for value in values]] for tag, values in curves.items()},
    )  # fmt: skip


def measured(model, tokenizer, rows) -> dict[str, float]:
    wrong = 1 - answer_probabilities(model, tokenizer, rows)
    entropy, _ = entropy_and_length(model, tokenizer, [row["input"] for row in rows], 4)
    return {**{f"pass@{k}": 1 - float((wrong**k).mean()) for k in KS}, "entropy": entropy}


def update(model, tokenizer, optimizer, prompts: list[str], tokens: Tensor, A: Tensor, loss: str, clip: float) -> None:
    """Two updates, each on half of the responses `tokens [N, T]` with advantages `A [N, 1]`."""
    tokenizer.padding_side = "left"
    asked = tokenizer(prompts, return_tensors="pt", padding=True)
    ids = torch.cat([asked.input_ids.repeat_interleave(RESPONSES, 0), tokens], 1)
    mask = (tokens != tokenizer.pad_token_id).long()
    seen = torch.cat([asked.attention_mask.repeat_interleave(RESPONSES, 0), mask], 1)

    def log_probs(of: Tensor) -> Tensor:
        place = (seen[of].cumsum(1) - 1).clamp(min=0)
        logits = model(input_ids=ids[of], attention_mask=seen[of], position_ids=place).logits
        answers = logits[:, -tokens.shape[1] - 1 : -1].log_softmax(-1)
        return answers.gather(2, tokens[of, :, None])[..., 0]

    with torch.no_grad():
        old = log_probs(torch.arange(len(A)))
    for of in torch.randperm(len(A)).chunk(UPDATES):
        new, written, each = log_probs(of), mask[of], A[of].expand(-1, tokens.shape[1])
        if loss == "token":
            terms = token_loss(new, old[of], each, written, clip)
        else:
            terms = sequence_clipped_loss(new, old[of], each, written, clip, clip).loss
        optimizer.zero_grad()
        (terms.sum(1) / written.sum(1)).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="holds quickstart-mixed-seedN/model")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD")
    parser.add_argument("--baseline", default="grpo", metavar="METHOD", help="what the others are compared with")
    parser.add_argument("--rates", nargs="+", default=["2e-4", "4e-4"], metavar="LR")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=75)
    parser.add_argument("--levels", nargs="+", type=float, default=[], help="match at these values of Pass@1")
    parser.add_argument("--out", type=Path, default=Path("runs/plain.jsonl"))
    args = parser.parse_args()
    methods = list(dict.fromkeys([args.baseline, *args.methods]))
    missing = [seed for seed in range(args.seeds) if not folder_of(args.data, seed).is_dir()]
    if missing:
        parser.error(f"{folder_of(args.data, missing[0])} is not there: run lab.compare_methods --model mixed first")
    logging.getLogger("riskpo_openrlhf").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for method in methods:
        parse(method)  # a wrong one now, not after an hour
    jobs = [(m, rate, seed) for rate in args.rates for seed in range(args.seeds) for m in methods]
    for job in tqdm(jobs, unit="run"):
        if (*job, args.steps, "mixed") not in read_records(args.out):
            append_record(args.out, train(folder_of(args.data, job[2]), *job, args.steps))
    records = read_records(args.out).values()
    for rate in args.rates:
        of = {
            m: [r for r in records if (r.method, r.rate, r.steps) == (m, rate, args.steps) and r.seed < args.seeds]
            for m in methods
        }
        print(f"\nLearning rate {rate}\n\n{tables(of, args.baseline, COLUMNS, 'pass@1', args.levels)}")


def folder_of(data: Path, seed: int) -> Path:
    return data / f"quickstart-mixed-seed{seed}" / "model"


if __name__ == "__main__":
    main()
