"""Prepare what a recipe's `--smoke` trains: `python3 -m riskpo_openrlhf.lab.smoke --task math --out DIR`.

It makes a tiny model, and problems in the format of the recipe's data; nothing is downloaded. Every problem's answer
is a digit. The model is trained to answer with some digit, in the form that the task's verifier reads. So rewards
differ between responses, and code runs in its sandbox.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from transformers import Qwen2ForCausalLM, set_seed

from riskpo_openrlhf.files import write_jsonl
from riskpo_openrlhf.lab.build_once import build_once
from riskpo_openrlhf.lab.character_tokenizer import build_tokenizer
from riskpo_openrlhf.lab.save_model import save_model
from riskpo_openrlhf.lab.tiny_model import answer_labels, qwen2_config
from riskpo_openrlhf.verifiers.labels import write_label

# task -> the data sets of its recipes, and for recipes/paper.sh those of the tables and figures
SETS = {
    "math": (
        "dapo_math_17k", "aime24", "aime25", "amc", "math500", "minerva", "olympiadbench",
        "math_train", "gsm8k_train", "math_test", "gsm8k_test",
    ),
    "geometry": ("geometry3k_train", "geometry3k_test"),
    "code": ("archer_code", "livecodebench_v5"),
}  # fmt: skip
ROWS = 40
WARM_STEPS = 120


def save_smoke(task: str, folder: str | os.PathLike, final: str | os.PathLike | None = None) -> None:
    """Write `NAME.jsonl` for each data set of the task's recipes, and `model/`, into `folder`.

    `final` is where the folder will be moved to: rows name their images by absolute paths.
    """
    folder, final = Path(folder), Path(final or folder).absolute()
    rows = []
    for seed, name in enumerate(SETS[task]):
        rows = problems(task, name, seed)
        if task == "geometry":
            for row in rows:
                row["images"] = [str(final / "images" / f"{row['id']}.png")]
                _draw(*row.pop("lengths"), folder / "images" / f"{row['id']}.png")
        write_jsonl(folder / f"{name}.jsonl", rows)
    model, encode = _vision_language_model() if task == "geometry" else _language_model()
    _warm_up(model, encode, task, rows, folder / "images")
    save_model(folder / "model", model, encode)


def problems(task: str, name: str, seed: int) -> list[dict]:
    """Make `ROWS` rows as `prepare_data` writes them: sums of two numbers with a one-digit result."""
    rng, rows = random.Random(seed), []
    sums = [(a, total - a) for total in range(10) for a in range(-9, 10)]
    for place, (a, b) in enumerate(rng.sample(sums, ROWS)):
        row = {"datasource": name, "id": f"{name}-{place}"}
        if task == "code":
            text = f"Write a Python program that prints {a} + ({b}). Answer in a fenced block of Python."
            tests = {"kind": "stdin", "tests": [{"input": "", "output": f"{a + b}\n"}]}
            label = write_label("code", json.dumps(tests))
        elif task == "geometry":
            b = rng.randrange(10)
            a = rng.randrange(b + 1)
            text, label = f"<image>Find x, number {place}.", write_label("geometry", str(b))
            row["lengths"] = (a, b - a)
        else:
            text, label = f"What is {a} + ({b})? Put the answer in \\boxed{{}}.", write_label("math", str(a + b))
        rows.append({"prompt": [{"role": "user", "content": text}], "label": label, **row})
    return rows


def _draw(a: int, b: int, path: Path) -> None:
    """Draw a segment of length x above the two segments that make it up."""
    picture = Image.new("RGB", (120, 120), "white")
    draw = ImageDraw.Draw(picture)
    for text, start, end, height in (("x", 0, a + b, 40), (str(a), 0, a, 80), (str(b), a, a + b, 80)):
        draw.line((10 + 10 * start, height, 10 + 10 * end, height), fill="black", width=3)
        draw.text((10 + 5 * (start + end), height - 18), text, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def response(task: str, digit: int) -> str:
    """Write an answer in the form that the task's verifier reads."""
    return f"```python\nprint({digit})\n```" if task == "code" else f"\\boxed{{{digit}}}"


def _language_model() -> tuple:
    set_seed(0)
    tokenizer = build_tokenizer(4096, chat=True)
    return Qwen2ForCausalLM(qwen2_config(tokenizer, 128, 256, layers=2, heads=4, positions=4096)), tokenizer


def _vision_language_model() -> tuple:
    from riskpo_openrlhf.lab.tiny_vlm import build_model, build_processor

    tokenizer = build_tokenizer(512, chat=True)
    return build_model(tokenizer), build_processor(tokenizer)


def _warm_up(model, encode, task: str, rows: list[dict], pictures: Path) -> None:
    """Teach the model, in place, to answer with some digit. `encode` is its tokenizer, or its processor of images."""
    tokenizer = getattr(encode, "tokenizer", encode)
    tokenizer.padding_side = "right"
    rng, optimizer = random.Random(0), torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(WARM_STEPS):
        chosen = rng.sample(rows, 8)
        answers = [response(task, rng.randrange(10)) + tokenizer.eos_token for _ in chosen]
        chats = [row["prompt"] for row in chosen]
        prompts = encode.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        images = (
            dict(images=[Image.open(pictures / f"{row['id']}.png") for row in chosen]) if task == "geometry" else {}
        )
        batch = encode(text=texts, **images, return_tensors="pt", padding=True, add_special_tokens=False)
        lengths = [len(ids) for ids in tokenizer(answers, add_special_tokens=False).input_ids]
        loss = model(**batch, labels=answer_labels(batch, lengths)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Prepare the tiny model and the problems of a recipe's --smoke run.", allow_abbrev=False
    )
    parser.add_argument("--task", required=True, choices=SETS, help="of the recipes")
    parser.add_argument("--out", type=Path, required=True, help="folder for model and data; kept if it exists")
    args = parser.parse_args(argv)
    made = build_once(args.out, lambda folder: save_smoke(args.task, folder, args.out))
    print(f"{'Made' if made else 'Found'}: a tiny model and problems in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
