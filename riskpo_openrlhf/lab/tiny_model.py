r"""Build language models of 0.1 million parameters, which two CPU cores can train by reinforcement learning.

A model is a Qwen2 in the usual Hugging Face format, so OpenRLHF, DeepSpeed and vLLM treat it like any other model. It
reads characters, such as `12+34=`, and answers `\boxed{46}`. A supervised warm start teaches it to be right sometimes,
so that reinforcement learning has something to reinforce.

    python3 -m riskpo_openrlhf.lab.tiny_model --model mixed --out riskpo_openrlhf/lab/mixed

makes the weights that are shipped in this folder (four minutes on one core).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

from riskpo_openrlhf.files import write_json
from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, Kind, problems
from riskpo_openrlhf.lab.character_tokenizer import EOS, build_tokenizer
from riskpo_openrlhf.lab.save_model import save_model
from riskpo_openrlhf.lab.slips import with_slips

CHARACTERS, WORDS = "0123456789+-*=", (r"\boxed{", "}")
MAX_LENGTH = 64
ENTROPY_SAMPLES = 4  # responses a problem, to measure the entropy
START = "warm_start.json"  # in the model's folder: the settings of its warm start


@dataclass(frozen=True)
class TinySettings:
    """Everything that a warm-started model depends on; its folder is named after their digest.

    Attributes:
        version: raised when the warm start itself changes.
        hidden_size: divided by `heads` it must be 32, 64, 80 or more, because of vLLM's attention on a CPU.
        steps: batches of right answers.
        slip_steps: batches after those, in which `lab.slips` makes some answers wrong.
        averaging: decay of the exponential moving average of the weights that is saved. 0: save the last weights.
    """

    version: int = 3
    hidden_size: int = 64
    intermediate_size: int = 192
    layers: int = 2
    heads: int = 2
    kinds: tuple[Kind, ...] = CHARACTER_KINDS
    steps: int = 600
    slip_steps: int = 0
    averaging: float = 0.0
    batch_size: int = 128
    lr: float = 2e-3
    seed: int = 0

    def digest(self) -> str:
        """Return twelve hex digits that change with any setting."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


MODELS = {
    # Has learned too little arithmetic.
    "micro": TinySettings(),
    # Knows more than it shows: it was taught right answers, then a mix with wrong ones. Its weights are averaged, so
    # that a gain in training is not just the warm start's noise settling.
    "mixed": TinySettings(steps=3000, slip_steps=1500, averaging=0.99),
}


def shipped(settings: TinySettings) -> Path | None:
    """Return the folder of the weights that are shipped for these settings, or None."""
    for start in Path(__file__).parent.glob(f"*/{START}"):
        if json.loads(start.read_text())["digest"] == settings.digest():
            return start.parent
    return None


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    r"""Build the tokenizer: a token for each of `0-9 + - * =`, for `\boxed{` and for `}`."""
    return build_tokenizer(MAX_LENGTH, characters=CHARACTERS, words=WORDS)


def boxed(answer: str) -> str:
    """Write an answer as the models write it and the `math` verifier reads it."""
    return WORDS[0] + answer + WORDS[1]


def qwen2_config(
    tokenizer: PreTrainedTokenizerFast,
    hidden_size: int,
    intermediate_size: int,
    layers: int,
    heads: int,
    positions: int,
    **more,
) -> Qwen2Config:
    """Configure a small Qwen2. On a CPU, vLLM's attention takes heads of 32, 64, 80 or more."""
    return Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=hidden_size, intermediate_size=intermediate_size,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=positions, tie_word_embeddings=False, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **more,
    )  # fmt: skip


def build_model(settings: TinySettings, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Build the untrained model in float32, with weights drawn from `settings.seed`."""
    set_seed(settings.seed)
    s = settings
    return Qwen2ForCausalLM(qwen2_config(tokenizer, s.hidden_size, s.intermediate_size, s.layers, s.heads, MAX_LENGTH))


def warm_start(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, settings: TinySettings) -> float:
    """Train the model in place on fresh training problems; return the last batch's loss in nats a token.

    The loss covers the answer and `<eos>` only. AdamW's learning rate is constant after 20 steps of warm-up: models
    whose rate fell to 0 got worse under reinforcement learning (docs/results/quickstart.md).
    """
    steps, right = settings.steps + settings.slip_steps, settings.steps * settings.batch_size
    rows = problems(settings.kinds, steps * settings.batch_size, settings.seed)
    inputs, labels = _encode(rows[:right] + with_slips(rows[right:], settings.seed), tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 20, 1))
    average = (
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging)) if settings.averaging else None
    )
    model.train()
    batches = zip(inputs.split(settings.batch_size), labels.split(settings.batch_size), strict=True)
    for x, y in tqdm(batches, total=steps, desc="Warm start", unit="step"):
        # Padding is on the right: causal attention never looks at it, so no attention mask is needed.
        loss = model(input_ids=x, labels=y).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if average:
            average.update_parameters(model)
    if average:
        model.load_state_dict(average.module.state_dict())
    model.eval()
    return loss.item()


def _encode(rows: Sequence[dict[str, str]], tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode rows as ids and labels `[rows, longest]`, right-padded; labels are -100 on prompt and padding."""
    tokenizer.padding_side = "right"
    batch = tokenizer([row["input"] + boxed(row["answer"]) + EOS for row in rows], return_tensors="pt", padding=True)
    return batch.input_ids, answer_labels(batch, [len(row["answer"]) + len(WORDS) + 1 for row in rows])


def answer_labels(batch, lengths: Sequence[int]) -> torch.Tensor:
    """Return labels `[rows, longest]` of a right-padded batch: the last `lengths` ids of each row, -100 elsewhere."""
    ends, place = batch.attention_mask.sum(1, keepdim=True), torch.arange(batch.input_ids.shape[1])
    inside = (place < ends) & (place >= ends - torch.tensor(lengths)[:, None])
    return batch.input_ids.where(inside, -100)


@torch.no_grad()
def generate(model, tokenizer, prompts: Sequence[str], n: int, max_new_tokens: int):
    """Sample `n` responses to each prompt at temperature 1.

    Returns:
        Tokens `[prompts * n, T]`, padded after `<eos>`, and T tensors of logits `[prompts * n, vocabulary]`.
    """
    tokenizer.padding_side = "left"
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True)
    output = model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=n,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return output.sequences[:, batch.input_ids.shape[1] :], output.logits


def entropy_and_length(model, tokenizer, prompts: Sequence[str], n: int, seed: int = 0) -> tuple[float, float]:
    """Measure `n` responses to each prompt: mean entropy of the policy a token (nats), and tokens a response.

    `<eos>` counts as a token.
    """
    set_seed(seed)
    tokens, logits = generate(model, tokenizer, prompts, n, max_new_tokens=8)
    entropy = torch.stack([torch.distributions.Categorical(logits=each).entropy() for each in logits], dim=1)
    written = tokens != tokenizer.pad_token_id
    return entropy[written].mean().item(), written.sum(1).double().mean().item()


@torch.no_grad()
def answer_probabilities(model, tokenizer, rows: Sequence[dict[str, str]]) -> np.ndarray:
    """Compute the probability `[rows]` that a response at temperature 1 is the right answer, without sampling."""
    inputs, labels = _encode(rows, tokenizer)
    logits = model(input_ids=inputs).logits[:, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    return (-loss.sum(1)).exp().numpy()


def exact_metrics(model, tokenizer, rows: Sequence[dict[str, str]], ks: Sequence[int]) -> dict[str, float]:
    """Measure Pass@k without sampling error, and entropy and length of some responses.

    A short answer has one spelling, so its probability p is one forward pass, and Pass@k = 1 - (1 - p)^k. Other
    spellings that the verifier accepts (05 for 5) are not counted.
    """
    wrong = 1 - answer_probabilities(model, tokenizer, rows)
    entropy, length = entropy_and_length(model, tokenizer, [row["input"] for row in rows], ENTROPY_SAMPLES)
    return {**{f"pass@{k}": 1 - float((wrong**k).mean()) for k in ks}, "entropy": entropy, "response_length": length}


def save_tiny_model(folder: str | os.PathLike, settings: TinySettings) -> None:
    """Build, warm-start and save the model (bfloat16), its tokenizer and its settings into `folder`."""
    tokenizer = build_tiny_tokenizer()
    model = build_model(settings, tokenizer)
    warm_start(model, tokenizer, settings)
    save_model(folder, model, tokenizer)
    write_json(Path(folder) / START, {"digest": settings.digest(), "settings": asdict(settings)})


def load(folder: str | os.PathLike) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """Load a saved model in float32, for a CPU, and its tokenizer."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, PreTrainedTokenizerFast.from_pretrained(folder)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Warm-start a small model and save it.", allow_abbrev=False)
    parser.add_argument("--model", choices=MODELS, required=True, help="see docs/comparison.md")
    parser.add_argument("--seed", type=int, default=0, help="draws the weights and the problems (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    save_tiny_model(args.out, replace(MODELS[args.model], seed=args.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
