"""Estimate what a job needs: memory of a card, pinned host memory, disk of a checkpoint. Computed, never measured.

For a policy trained by Adam in bf16 under ZeRO-3, with gradient checkpointing (docs/recipes.md, "Memory"):

    states       16 bytes a parameter, shared by the ranks: weights and gradients in bf16, Adam's three values in fp32
    buckets      DeepSpeed's three buckets of 5e8 bf16 elements
    logits       12 bytes a token and word: fp32 logits, their gradient, and the softmax
    activations  a layer's input for each layer, and one layer's MLP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from riskpo_openrlhf.integration.placement import engines_share_gpus, model_gpus

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GIB = 2**30
CONTEXTS = 5.0  # GiB of a card for CUDA contexts, NCCL, and an engine that sleeps: assumed
BUCKETS = 3 * 5e8 * 2 / GIB
CARD = 79.6  # GiB of an 80 GB card


class ModelSize(NamedTuple):
    """What the estimate takes of a model: its number of parameters, and sizes of its text part."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int


# The models of the paper, so that their recipes can be planned before anything is downloaded.
KNOWN = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": ModelSize(1_777_088_000, 28, 1536, 8960, 151_936),
    "Qwen/Qwen2.5-Math-1.5B-Instruct": ModelSize(1_543_714_304, 28, 1536, 8960, 151_936),
    "Qwen/Qwen2.5-1.5B-Instruct": ModelSize(1_543_714_304, 28, 1536, 8960, 151_936),
    "Qwen/Qwen2.5-VL-3B-Instruct": ModelSize(3_754_622_976, 36, 2048, 11_008, 151_936),
}


class Estimate(NamedTuple):
    """GiB of a card while training and in the forward passes of a rollout, with all that shares the card; GiB of
    pinned host memory of a rank; GB of a checkpoint."""

    training: float
    forward: float
    parts: dict[str, float]
    host: float
    checkpoint: float

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value:.1f}" for name, value in self.parts.items())
        host = f"{self.host:.0f} GiB of pinned host memory a rank, " if self.host else ""
        return (
            f"about {self.training:.0f} GiB a card in training ({parts}), {self.forward:.0f} in forward passes; {host}"
            f"{self.checkpoint:.0f} GB a checkpoint (computed, not measured)"
        )


def read_config(name: str) -> PretrainedConfig | None:
    """Read a model's config; None if the model is neither a folder nor in the hub's cache, or needs its own code."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, local_files_only=not Path(name).is_dir(), trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return None


def model_size(config: PretrainedConfig) -> ModelSize | None:
    """Take a model's sizes from its config; None for an architecture that transformers can't build."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        text = config.get_text_config()
        kind = AutoModelForCausalLM if text is config else AutoModelForImageTextToText
        with torch.device("meta"):
            model = kind.from_config(config)
        sizes = (text.num_hidden_layers, text.hidden_size, text.intermediate_size, text.vocab_size)
    except (ValueError, AttributeError):  # no language model, or one without these sizes
        return None
    return ModelSize(sum(parameter.numel() for parameter in model.parameters()), *sizes)


def sees_card() -> bool:
    """Tell whether this machine has a card. The submitter of a job may have none."""
    import torch

    return torch.cuda.is_available()


def too_large(values: dict, config: PretrainedConfig | None) -> tuple[Estimate | None, str]:
    """Estimate a job, and say what is wrong if a card of this machine, or of 80 GB, can't hold it.

    Args:
        values: the final flags by dotted name.
        config: the policy's, None if it could not be read. The paper's models need none.

    Returns:
        The estimate, None without a model's config or with the CPU runtime; and the message, "" if it fits.
    """
    if values["riskpo.runtime"] == "cpu":
        return None, ""
    size = KNOWN.get(values.get("actor.model_name_or_path")) or (config and model_size(config))
    if size is None:
        return None, ""
    import torch

    found = sees_card() and torch.cuda.get_device_properties(0).total_memory / GIB
    needs, card = estimate(values, size), found or CARD
    engine = needs.parts.get("engine", 0.0)  # it may give way: OpenRLHF's own examples colocate it awake
    if max(needs.training, needs.forward) - engine <= card:
        return needs, ""
    tokens = "--train.max_tokens_per_gpu" if values["train.dynamic_batch_enable"] else "--train.micro_batch_size"
    return needs, (
        f"needs {needs}, and {'this machine has' if found else 'an 80 GB card has'} {card:.1f} GiB: take a smaller "
        f"{tokens}, more ranks, or --ds.adam_offload"
    )


def estimate(values: dict, size: ModelSize) -> Estimate:
    """Estimate the policy's memory. `values`: the final flags by dotted name. Leaves out critic and reward models."""
    ranks, colocated = model_gpus(values), engines_share_gpus(values)
    dynamic, longest = values["train.dynamic_batch_enable"], values["data.max_len"]
    ring = values["ds.ring_attn_size"]  # its ranks share a micro-batch; a number of tokens a GPU is that of each
    trained = values["train.max_tokens_per_gpu"] if dynamic else values["train.micro_batch_size"] * longest / ring
    scored = values["rollout.max_tokens_per_gpu"] if dynamic else values["rollout.micro_batch_size"] * longest / ring
    scored = scored or trained
    gradients = 4 if values["ds.grad_accum_dtype"] == "fp32" else 2
    # Offloaded Adam leaves weights and gradients on the card.
    states = (2 if values["ds.adam_offload"] else 14) + gradients
    parts = {
        "states": states * size.parameters / ranks / GIB,
        "buckets": BUCKETS,
        "logits": 12 * trained * size.vocabulary / GIB,
        "activations": trained * (2 * size.layers * size.hidden + 8 * size.intermediate) / GIB,
        "contexts": CONTEXTS,
    }
    if values["algo.kl.init_coef"] > 0 and (values["train.colocate_all"] or values["train.colocate_actor_ref"]):
        parts["reference"] = 2 * size.parameters / ranks / GIB
    if colocated and not values["vllm.enable_sleep"]:
        parts["engine"] = values["vllm.gpu_memory_utilization"] * CARD
    # A forward pass holds the weights, logits in bf16 and in fp32, and one layer's MLP.
    weights = 2 * size.parameters / ranks
    forward = (weights + scored * (6 * size.vocabulary + 8 * size.intermediate)) / GIB
    shared = CONTEXTS + parts.get("reference", 0.0) + parts.get("engine", 0.0)
    offloaded = 14 * size.parameters / ranks / GIB if values["ds.enable_sleep"] or values["ds.adam_offload"] else 0.0
    return Estimate(sum(parts.values()), forward + shared, parts, offloaded, 14 * size.parameters / 1e9)
