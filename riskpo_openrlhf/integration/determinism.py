"""`--train.full_determinism_enable`: samples that depend on the seed and the prompt, not on when a request arrives."""

from __future__ import annotations

import hashlib
from copy import copy


def draw_name(generator) -> str:
    """Name the samples generator's next rollout: the seed, and how many prompts were drawn before."""
    return f"{generator.args.train.seed}/{getattr(generator.prompts_dataloader, 'drawn', 0)}"


def seeded(sampling_params, draw: str, prompt: str, sample: int):
    """Copy vLLM's sampling parameters with a seed of their own for one sample of one prompt."""
    params = copy(sampling_params)
    digest = hashlib.sha256(f"{draw}\x1f{prompt}\x1f{sample}".encode()).digest()
    params.seed = int.from_bytes(digest[:4], "big")
    return params


def in_one_order(samples: list) -> list:
    """Sort responses by their prompts' digests, groups kept together: engines return them as they finish."""
    return sorted(samples, key=lambda sample: hashlib.sha256(f"{sample.prompts}{sample.labels}".encode()).digest())
