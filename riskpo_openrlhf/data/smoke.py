"""A tiny model and embedded problems in the shape of a recipe's data, for `--smoke`: nothing is downloaded.

Every problem has a digit for an answer, and the model is warmed up to answer with some digit in the form that the
task's verifier reads. So rewards differ from response to response, and code runs in its sandbox.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

from riskpo_openrlhf.data.arithmetic import write_jsonl
from riskpo_openrlhf.verifiers.labels import write_label

PAD, START, END = "<pad>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# task -> the data sets of its recipe
SETS = {
    "math_hard": ("dapo_math_17k", "aime24", "aime25", "amc", "math500"),
    "math_easy": ("math_train", "gsm8k_train", "math500", "gsm8k_test"),
    "code": ("archer_code", "livecodebench_v5"),
}
ROWS = 40
WARM_STEPS = 120


def save_smoke(task: str, folder: str | os.PathLike) -> None:
    """Write `NAME.jsonl` for each data set of the task's recipe, and `model/`, into `folder`.

    Raises `ValueError` for an unknown task.
    """
    if task not in SETS:
        raise ValueError(f"--task {task!r} is not known; one of: {', '.join(SETS)}")
    folder = Path(folder).absolute()
    rows = []
    for seed, name in enumerate(SETS[task]):
        rows = problems(task, name, seed)
        write_jsonl(folder / f"{name}.jsonl", rows)
    _save_model(task, folder / "model", [row["prompt"] for row in rows])


def problems(task: str, name: str, seed: int) -> list[dict]:
    """`ROWS` rows as `prepare_data` writes them: sums of two numbers with a one-digit result."""
    rng = random.Random(seed)
    sums = [(a, total - a) for total in range(10) for a in range(-9, 10)]
    rows = []
    for place, (a, b) in enumerate(rng.sample(sums, ROWS)):
        if task == "code":
            text = f"Write a Python program that prints {a} + ({b}). Answer in a fenced block of Python."
            tests = {"kind": "stdin", "tests": [{"input": "", "output": f"{a + b}\n"}]}
            label = write_label("code", json.dumps(tests))
        else:
            text, label = f"What is {a} + ({b})? Put the answer in \\boxed{{}}.", write_label("math", str(a + b))
        prompt = [{"role": "user", "content": text}]
        rows.append({"prompt": prompt, "label": label, "datasource": name, "id": f"{name}-{place}"})
    return rows


def response(task: str, digit: int) -> str:
    """What the warmed-up model writes: the answer in the form that the task's verifier reads."""
    return f"```python\nprint({digit})\n```" if task == "code" else f"\\boxed{{{digit}}}"


def build_byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and three special ones; any text goes in and comes back."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([PAD, START, END, *alphabet])}
    core = Tokenizer(models.BPE(vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def _save_model(task: str, folder: Path, prompts: list) -> None:
    set_seed(0)
    tokenizer = build_byte_tokenizer()
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,  # heads of 32: what vLLM's attention takes on a CPU
            num_key_value_heads=4,
            max_position_embeddings=4096,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    rng, optimizer = random.Random(0), torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(WARM_STEPS):
        inputs, labels = _batch(tokenizer, rng, prompts, task)
        loss = model(input_ids=inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batch(tokenizer, rng: random.Random, prompts: list, task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts with some digit for an answer -> ids and labels `[8, longest]`; the loss is on the response alone."""
    ids, labels = [], []
    for chat in rng.sample(prompts, 8):
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(prompt, add_special_tokens=False).input_ids
        answer = tokenizer(response(task, rng.randrange(10)) + END, add_special_tokens=False).input_ids
        ids.append(torch.tensor(prompt + answer))
        labels.append(torch.tensor([-100] * len(prompt) + answer))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(ids, batch_first=True), pad(labels, batch_first=True, padding_value=-100)
