"""The estimate of memory: its arithmetic, and how the dry run uses it."""

import json

import pytest

from riskpo_openrlhf.integration.memory import CARD, CONTEXTS, KNOWN, estimate, model_size, read_config, too_large

QWEN_1_5B = KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"]
QWEN_VL_3B = KNOWN["Qwen/Qwen2.5-VL-3B-Instruct"]
FLAGS = {
    "riskpo.runtime": "gpu", "actor.num_nodes": 1, "actor.num_gpus_per_node": 1, "train.colocate_all": True,
    "train.async_enable": False, "train.colocate_actor_ref": False, "train.dynamic_batch_enable": True,
    "data.max_len": 4096, "train.max_tokens_per_gpu": 16_384, "rollout.max_tokens_per_gpu": 32_768,
    "train.micro_batch_size": 4, "rollout.micro_batch_size": 4, "ds.grad_accum_dtype": None, "algo.kl.init_coef": 0,
    "ds.ring_attn_size": 1,
    "ds.enable_sleep": True, "ds.adam_offload": False, "vllm.enable_sleep": True, "vllm.gpu_memory_utilization": 0.5,
}  # fmt: skip
IMAGES = {"train.dynamic_batch_enable": False, "train.micro_batch_size": 2, "data.max_len": 5120}


@pytest.mark.parametrize(
    ("size", "flags", "ranks", "states", "logits", "peak"),
    [  # by hand: 16 bytes a parameter / ranks; 12 bytes x tokens x words; with buckets of 2.8 and activations
        (QWEN_1_5B, {}, 1, 26.5, 27.8, 59.5),
        (QWEN_1_5B, {}, 4, 6.6, 27.8, 39.6),
        (QWEN_1_5B, {}, 8, 3.3, 27.8, 36.3),
        (QWEN_VL_3B, IMAGES, 1, 55.9, 17.4, 78.4),
        (QWEN_VL_3B, IMAGES, 8, 7.0, 17.4, 29.4),
    ],
)
def test_the_parts_add_up_as_by_hand(size, flags, ranks, states, logits, peak):
    needs = estimate({**FLAGS, **flags, "actor.num_gpus_per_node": ranks}, size)
    assert needs.parts["states"] == pytest.approx(states, abs=0.06)
    assert needs.parts["logits"] == pytest.approx(logits, abs=0.06)
    assert needs.training - CONTEXTS == pytest.approx(peak, abs=0.06)
    assert needs.checkpoint == pytest.approx(14 * size.parameters / 1e9)


@pytest.mark.parametrize(
    ("flags", "more"),
    [
        ({"ds.grad_accum_dtype": "fp32"}, 2 * 1.777),  # bytes a parameter x billions
        ({"ds.adam_offload": True}, -12 * 1.777),
        ({"algo.kl.init_coef": 0.1}, 2 * 1.777),  # the reference model shares the card
        ({"algo.kl.init_coef": 0.1, "train.async_enable": True}, 2 * 1.777),  # in asynchronous jobs, too
        ({"vllm.enable_sleep": False}, 0.5 * CARD * 2**30 / 1e9),  # and so does an engine that doesn't sleep
        ({"train.colocate_all": False, "vllm.enable_sleep": False}, 0),
    ],
)
def test_each_flag_takes_what_it_says(flags, more):
    difference = estimate({**FLAGS, **flags}, QWEN_1_5B).training - estimate(FLAGS, QWEN_1_5B).training
    assert difference * 2**30 / 1e9 == pytest.approx(more, abs=0.01)


@pytest.fixture
def qwen(tmp_path, monkeypatch):
    """A folder with the config of a model of 1.8 billion parameters, and no weights."""
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 1536,
        "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # an 80 GB card is assumed
    return str(tmp_path)


def test_sizes_come_from_the_config_alone_and_a_model_that_is_not_there_is_not_estimated(qwen):
    assert model_size(read_config(qwen)) == QWEN_1_5B
    name = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"  # of the paper: known without its config
    assert too_large({**FLAGS, "actor.model_name_or_path": name}, None) == too_large(FLAGS, read_config(qwen))
    assert read_config("nobody/has-this-model") is None
    assert too_large(FLAGS, None) == (None, "")
    assert too_large({**FLAGS, "riskpo.runtime": "cpu"}, read_config(qwen)) == (None, "")


def test_ranks_of_a_ring_share_a_micro_batch():
    flags = {**FLAGS, "train.dynamic_batch_enable": False, "train.micro_batch_size": 1, "data.max_len": 32_768}
    alone, shared = (estimate({**flags, "ds.ring_attn_size": ranks}, QWEN_1_5B).parts["logits"] for ranks in (1, 4))
    assert shared == alone / 4


def test_what_no_card_can_hold_is_refused_with_what_to_change(qwen):
    needs, message = too_large(FLAGS, read_config(qwen))
    assert message == "" and needs.training < CARD
    needs, message = too_large({**FLAGS, "train.max_tokens_per_gpu": 32_768}, read_config(qwen))
    assert needs.training > CARD
    assert "has 79.6 GiB: take a smaller --train.max_tokens_per_gpu" in message
