"""SmolLM2 as a task of `bench_plain_loop`: sampled and trained without reading a prompt once for each response.

    python3 tests/benchmarks/chat_task.py runs/smollm2/data/quickstart-smollm2-seed0/model

compares that with transformers' own ways, in one run of three minutes on one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer, BatchEncoding
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from riskpo_openrlhf.evaluation.passk import pass_at_k_summary
from riskpo_openrlhf.lab import last_number
from riskpo_openrlhf.lab.prepare_quickstart import HELDOUT_SEED, chat_problems


def grouped_attention(module, query, key, value, attention_mask, scaling, **_) -> tuple[Tensor, None]:
    """Attend without copying the keys for each query head: on a CPU, decoding is five times faster than by sdpa."""
    batch, heads, length, size = query.shape
    kept = batch, key.shape[1], heads // key.shape[1] * length
    scores = (query * scaling).reshape(*kept, size) @ key.transpose(2, 3)
    scores = scores.view(batch, key.shape[1], -1, length, key.shape[2]) + attention_mask[:, :, None]
    weights = scores.softmax(-1).view(*kept, key.shape[2])
    return (weights @ value).view(batch, heads, length, size).transpose(1, 2), None


AttentionInterface.register("grouped", grouped_attention)
AttentionMaskInterface.register("grouped", eager_mask)


def written(tokens: Tensor, tokenizer) -> Tensor:
    """Mark the tokens `[N, T]` of responses; the first <eos> is one of them."""
    ended = (tokens == tokenizer.eos_token_id).long()
    return ended.cumsum(1) == ended


def padded_log_probs(model, asked: BatchEncoding, tokens: Tensor, mask: Tensor, of: Tensor) -> Tensor:
    """Compute the log-probabilities `[len(of), T]` of responses, each read with its prompt in a row of its own."""
    each = of // (len(tokens) // len(asked.input_ids))
    ids = torch.cat([asked.input_ids[each], tokens[of]], 1)
    seen = torch.cat([asked.attention_mask[each], mask[of].long()], 1)
    place, kept = (seen.cumsum(1) - 1).clamp(min=0), tokens.shape[1] + 1
    logits = model(input_ids=ids, attention_mask=seen, position_ids=place, logits_to_keep=kept).logits
    return logits[:, :-1].float().log_softmax(-1).gather(2, tokens[of, :, None])[..., 0]


class SmolLM2:
    """A chat model in bfloat16, measured by 16 responses to each held-out problem."""

    prompts, responses, tokens, steps, every, at_once = 30, 10, 16, 12, 3, 5
    columns = {
        **{f"Pass@{k}": f"eval/arithmetic/pass@{k}" for k in (1, 8, 16)},
        "entropy": "eval/arithmetic/entropy", "length": "eval/arithmetic/response_length",
        "lower RVaR": "train/risk/rvar_lower", "MVaR": "train/risk/mvar",
    }  # fmt: skip
    match, device = "eval/arithmetic/pass@1", "cuda" if torch.cuda.is_available() else "cpu"
    problems, samples = 120, 16

    def __init__(self, folder: Path, seed: int, count: int, heldout_seed: int = HELDOUT_SEED):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="grouped")
        self.model.to(self.device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.rows = chat_problems(count, seed, "train")
        self.heldout = chat_problems(self.problems, heldout_seed, "test")

    def ask(self, row: dict[str, str]) -> str:
        chat = [{"role": "user", "content": row["input"]}]
        return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    def right(self, text: str, row: dict[str, str]) -> bool:
        return last_number.verify(text, row["answer"]).correct

    @torch.no_grad()
    def sample(self, prompts: list[str], n: int) -> tuple[Tensor, dict[str, float]]:
        """Sample tokens `[N, T]`, and their mean entropy and length. A prompt is read once; ended responses leave."""
        asked = self.tokenizer(prompts, return_tensors="pt", padding=True).to(self.device)
        mask, eos = asked.attention_mask, self.tokenizer.eos_token_id
        place = mask.cumsum(1) - 1
        out = self.model(**asked, position_ids=place.clamp(min=0), logits_to_keep=1)
        cache = out.past_key_values
        cache.batch_repeat_interleave(n)
        mask, place, logits = (x.repeat_interleave(n, 0) for x in (mask, place[:, -1:], out.logits[:, -1]))
        rows, open_ = torch.arange(len(mask), device=mask.device), torch.ones_like(mask[:, 0], dtype=torch.bool)
        tokens = torch.full((len(mask), self.tokens), eos, device=mask.device)
        entropy = 0.0
        for t in range(self.tokens):
            logits = logits.float()
            chances = logits.softmax(-1)
            entropies = logits.logsumexp(1) - torch.linalg.vecdot(chances, logits)
            entropy += float(entropies[open_].sum())
            sums = chances.cumsum(1)  # the inverse of the distribution function: `multinomial` is slow on a CPU
            chosen = torch.searchsorted(sums, torch.rand_like(sums[:, :1]) * sums[:, -1:])
            chosen[~open_] = eos
            tokens[rows, t] = chosen[:, 0]
            open_ &= chosen[:, 0] != eos
            if not open_.any() or t + 1 == self.tokens:
                break
            if open_.float().mean() < 0.8:
                cache.batch_select_indices(open_.nonzero()[:, 0])
                rows, mask, place, chosen = rows[open_], mask[open_], place[open_], chosen[open_]
                open_ = open_[open_]
            mask, place = torch.cat([mask, torch.ones_like(mask[:, :1])], 1), place + 1
            logits = self.model(
                input_ids=chosen, attention_mask=mask, position_ids=place, past_key_values=cache
            ).logits[:, -1]
        count = int(written(tokens, self.tokenizer).sum())
        return tokens, {"entropy": entropy / count, "rollout/response_length_mean": count / len(tokens)}

    def batches(self, A: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
        """Cut responses with advantages `A [N, 1]` into two updates: how many responses, and which at a time.

        An update has all responses to half of the prompts. Those of advantage 0 add nothing to the loss: left out.
        """
        index = torch.arange(len(A), device=A.device).view(-1, self.responses)
        for half in torch.randperm(len(index)).to(A.device).chunk(2):
            few = (index[part].flatten() for part in half.split(self.at_once))
            kept = [of[A[of, 0] != 0] for of in few]
            yield half.numel() * self.responses, [of for of in kept if len(of)]

    def log_probs(self, prompts: list[str], tokens: Tensor, of: Tensor) -> Tensor:
        """Compute the log-probabilities `[len(of), T]` of the responses `of`; 0 after their ends.

        A prompt and its responses are one row, in which a response sees the prompt and itself.
        """
        mask, rows = written(tokens, self.tokenizer), []
        for prompt, responses in groupby(range(len(of)), lambda i: int(of[i]) // self.responses):
            ids = self.tokenizer(prompts[prompt]).input_ids
            part, place, source, target = [0] * len(ids), list(range(len(ids))), [], []
            asked = len(ids)
            for number, i in enumerate(responses, start=1):
                response = tokens[of[i]][mask[of[i]]].tolist()
                source += [asked - 1, *range(len(ids), len(ids) + len(response) - 1)]
                target += [i * tokens.shape[1] + t for t in range(len(response))]
                ids, part = ids + response, part + [number] * len(response)
                place += range(asked, asked + len(response))
            rows.append((ids, place, part, source, target))
        width = max(len(row[0]) for row in rows)

        def padded(which: int, value: int) -> Tensor:
            filled = [row[which] + [value] * (width - len(row[0])) for row in rows]
            return torch.tensor(filled, device=self.device)

        part = padded(2, -1)
        seen = ((part[:, None] == 0) | (part[:, None] == part[:, :, None])).tril()
        bias = torch.zeros(seen.shape, dtype=torch.bfloat16, device=self.device)
        bias.masked_fill_(~seen, torch.finfo(torch.bfloat16).min)
        hidden = self.model.model(
            input_ids=padded(0, self.tokenizer.eos_token_id),
            position_ids=padded(1, 0),
            attention_mask=bias[:, None],
            use_cache=False,
        ).last_hidden_state
        sources = [number * width + at for number, row in enumerate(rows) for at in row[3]]
        targets = torch.tensor([at for row in rows for at in row[4]], device=self.device)
        logits = self.model.lm_head(hidden.flatten(0, 1)[sources]).float()
        found = -torch.nn.functional.cross_entropy(logits, tokens[of].flatten()[targets], reduction="none")
        return found.new_zeros(len(of) * tokens.shape[1]).index_put((targets,), found).view(len(of), -1)

    def measured(self) -> dict[str, float]:
        correct, size = [], 20 if self.device == "cpu" else self.problems
        sums = torch.zeros(3, dtype=torch.double)  # entropy, tokens, responses
        for first in range(0, len(self.heldout), size):
            rows = self.heldout[first : first + size]
            tokens, logged = self.sample([self.ask(row) for row in rows], self.samples)
            texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            correct += [self.right(text, rows[i // self.samples]) for i, text in enumerate(texts)]
            entropy, length = logged.values()
            count = length * len(tokens)
            sums += torch.tensor([entropy * count, count, len(tokens)], dtype=torch.double)
        summary = pass_at_k_summary(torch.tensor(correct).view(-1, self.samples).numpy(), (1, 8, 16))
        found = {f"pass@{k}": value for k, (value, _) in summary.items()}
        found |= {"entropy": float(sums[0] / sums[1]), "response_length": float(sums[1] / sums[2])}
        return {f"eval/arithmetic/{name}": value for name, value in found.items()}


def measure(folder: Path) -> None:
    """Print seconds for ten responses to each of 20 prompts, and how they relate to transformers' seconds."""
    torch.set_num_threads(1)
    task = SmolLM2(folder, 0, 20)
    prompts = [task.ask(row) for row in task.rows]
    asked = task.tokenizer(prompts, return_tensors="pt", padding=True)
    tokens, _ = task.sample(prompts, task.responses)
    mask = written(tokens, task.tokenizer)
    of = torch.arange(len(tokens)).split(task.at_once * task.responses)

    def generate() -> None:
        task.model.generate(
            **asked, do_sample=True, temperature=1.0, top_k=0, num_return_sequences=task.responses,
            max_new_tokens=task.tokens,
        )  # fmt: skip

    def padded(rows: Tensor) -> Tensor:
        return padded_log_probs(task.model, asked, tokens, mask, rows) * mask[rows]

    def trained(log_probs: Callable[[Tensor], Tensor]) -> None:
        for rows in of:
            log_probs(rows).sum().backward()

    ways = {
        "sampling": (generate, lambda: task.sample(prompts, task.responses)),
        "training": (lambda: trained(padded), lambda: trained(lambda rows: task.log_probs(prompts, tokens, rows))),
    }
    with torch.no_grad():
        apart = (padded(of[0]) - task.log_probs(prompts, tokens, of[0])).abs().sum() / mask[of[0]].sum()
    print(f"log-probabilities, mean distance: {apart:.3f} (bfloat16)")
    for name, pair in ways.items():
        took = []
        for attention, way in zip(("sdpa", "grouped"), pair, strict=True):
            task.model.set_attn_implementation(attention)
            way()
            started = time.perf_counter()
            way()
            took.append(time.perf_counter() - started)
        print(f"{name}: transformers {took[0]:.1f} s, here {took[1]:.1f} s, {took[0] / took[1]:.1f} times as fast")


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
