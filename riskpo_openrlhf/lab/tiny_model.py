"""A language model of a million parameters that a laptop can train: characters in, characters out.

It is a Qwen2 in the ordinary Hugging Face format, so OpenRLHF, DeepSpeed and vLLM treat it as any other model. A short
supervised warm start leaves it right now and then, which is where reinforcement learning can begin.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

from riskpo_openrlhf.lab.arithmetic import TINY_KINDS, Kind, problems
from riskpo_openrlhf.lab.slips import with_slips

PAD, EOS = "<pad>", "<eos>"
CHARACTERS = "0123456789+-*="


@dataclass(frozen=True)
class TinySettings:
    """Everything the warm-started model depends on; its folder is named after their digest.

    vLLM's attention on a CPU takes head sizes (hidden_size / heads) of 32, 64, 80 and more. After `steps` on right
    answers come `slip_steps` on answers of which `data.slips` makes some wrong. `averaging` d keeps, not the last
    weights, but their running mean, the newest ones weighing 1 - d. `version` is raised when the warm start itself
    changes.
    """

    version: int = 2
    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 4
    heads: int = 4
    kinds: tuple[Kind, ...] = TINY_KINDS
    steps: int = 300
    slip_steps: int = 0
    averaging: float = 0.0
    batch_size: int = 128
    lr: float = 2e-3
    seed: int = 0

    def digest(self) -> str:
        """Twelve hex digits that change with any setting."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


MODELS = {
    "tiny": TinySettings(),
    # A tenth of the parameters and half the time a step, for the many runs of cli.compare; on kinds that it can learn.
    "micro": TinySettings(
        hidden_size=64, intermediate_size=192, layers=2, heads=2, steps=600, kinds=(TINY_KINDS[1], TINY_KINDS[2])
    ),
}
# Knows more than it shows: taught to be right, then with slips. Its weights are averaged, so that what it gains later
# is not the end of the warm start.
MODELS["mixed"] = replace(MODELS["micro"], steps=3000, slip_steps=1500, averaging=0.99)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character of `0-9 + - * =`, and `<pad>` and `<eos>`; any other character is an error."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=64,
    )


def build_model(settings: TinySettings, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """The untrained model, float32, its weights drawn from `settings.seed`."""
    set_seed(settings.seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def warm_start(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, settings: TinySettings) -> float:
    """Supervised training on fresh training problems, in place; the last batch's loss in nats a token.

    The loss is on the answer and `<eos>` alone. AdamW, its rate constant after 20 steps: a rate that falls to 0 leaves
    a model that reinforcement learning first disturbs before it gains.
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
    with tqdm(total=steps, desc="Warm start", unit="step") as bar:
        for x, y in zip(inputs.split(settings.batch_size), labels.split(settings.batch_size), strict=True):
            # Padding is on the right: causal attention never looks at it, so no attention mask is needed.
            loss = model(input_ids=x, labels=y).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if average:
                average.update_parameters(model)
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            bar.update()
    if average:
        model.load_state_dict(average.module.state_dict())
    model.eval()
    return loss.item()


def _encode(rows: Sequence[dict[str, str]], tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows -> input ids and labels `[rows, longest]`, right-padded; labels are -100 on the prompt and the padding."""
    tokenizer.padding_side = "right"
    batch = tokenizer([row["input"] + row["label"] + EOS for row in rows], return_tensors="pt", padding=True)
    labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
    prompt_lengths = torch.tensor([len(row["input"]) for row in rows])
    labels[torch.arange(labels.shape[1]) < prompt_lengths[:, None]] = -100
    return batch.input_ids, labels


def sample(model, tokenizer, prompts: Sequence[str], n: int, max_new_tokens: int = 8) -> list[list[str]]:
    """`n` responses to each prompt at temperature 1, without special tokens, drawn from torch's global generator."""
    tokens, _ = generate(model, tokenizer, prompts, n, max_new_tokens)
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [texts[i : i + n] for i in range(0, len(texts), n)]


@torch.no_grad()
def generate(model, tokenizer, prompts: Sequence[str], n: int, max_new_tokens: int):
    """Tokens `[prompts * n, T]`, padded after `<eos>`, and the T logits `[prompts * n, vocabulary]`."""
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
    """Of `n` responses sampled to each prompt: the policy's mean entropy over their tokens (nats), tokens a response.

    `<eos>` counts as a token.
    """
    set_seed(seed)
    tokens, logits = generate(model, tokenizer, prompts, n, max_new_tokens=8)
    entropy = torch.stack([torch.distributions.Categorical(logits=each).entropy() for each in logits], dim=1)
    written = tokens != tokenizer.pad_token_id
    return entropy[written].mean().item(), written.sum(1).double().mean().item()


def grade(model, tokenizer, rows: Sequence[dict[str, str]], n: int, seed: int = 0) -> np.ndarray:
    """Which of `n` sampled responses are exactly the label: bool `[rows, n]`."""
    set_seed(seed)
    responses = sample(model, tokenizer, [row["input"] for row in rows], n)
    return np.array([[text == row["label"] for text in texts] for row, texts in zip(rows, responses, strict=True)])


@torch.no_grad()
def answer_probabilities(model, tokenizer, rows: Sequence[dict[str, str]]) -> np.ndarray:
    """The probability `[rows]` that a response at temperature 1 is the label: what `grade` samples, exactly."""
    inputs, labels = _encode(rows, tokenizer)
    logits = model(input_ids=inputs).logits[:, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    return (-loss.sum(1)).exp().numpy()


def build_once(folder: str | os.PathLike, build: Callable[[Path], None]) -> bool:
    """Have `build` fill `folder` unless it is there already; True when it was built now.

    The folder is complete or absent: `build` writes to a temporary folder beside it, which is then renamed.
    """
    folder = Path(folder)
    if folder.is_dir():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        build(temporary)
        temporary.chmod(0o755)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # someone else finished the same folder first: theirs is as good
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def save_tiny_model(folder: str | os.PathLike, settings: TinySettings = TinySettings()) -> None:
    """Build, warm-start and save the model (bfloat16) and its tokenizer into `folder`."""
    tokenizer = build_tokenizer()
    model = build_model(settings, tokenizer)
    warm_start(model, tokenizer, settings)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(folder: str | os.PathLike) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """The saved model, in float32 for sampling on a CPU, and its tokenizer."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, PreTrainedTokenizerFast.from_pretrained(folder)
