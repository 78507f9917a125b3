"""Save a model with its tokenizer, in one way for all programs of the laboratory."""

from __future__ import annotations

import os

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


def save_model(
    folder: str | os.PathLike, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | ProcessorMixin
) -> None:
    """Save the model, converted to bfloat16 in place, and its tokenizer or processor into `folder`."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
