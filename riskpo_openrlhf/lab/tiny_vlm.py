"""A vision-language model of half a million random parameters, for running the image path on a CPU.

It is a ViP-LLaVA (a CLIP encoder, two of whose layers are projected into a Qwen2), because the CPU environment has no
torchvision: transformers' video processors and vLLM's own LLaVA, Qwen and Gemma models can't be imported without it.
ViP-LLaVA has no video processor, and vLLM has no model of its own for it but runs transformers'. Characters in,
characters out, as in `tiny_model`, and every image becomes sixteen tokens.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
    set_seed,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

PAD, EOS, USER, ASSISTANT, IMAGE = "<pad>", "<eos>", "<user>", "<assistant>", "<image>"
CHARACTERS = "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1)))
UNKNOWN = "\ufffd"
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "{% if message.role == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_SPREAD = 0.1  # of fresh weights; the usual 0.02 is for wider models, here an image would hardly matter
_CONSTANT = 5.0  # large beside the other numbers of a fresh hidden state


@dataclass(frozen=True)
class TinyVlmSettings:
    """vLLM's attention on a CPU takes head sizes (hidden_size / heads) of 32, 64, 80 and more."""

    hidden_size: int = 128
    intermediate_size: int = 256
    layers: int = 2
    heads: int = 4
    vision_hidden_size: int = 64
    vision_layers: int = 2
    vision_heads: int = 2
    image_size: int = 56
    patch_size: int = 14
    seed: int = 0


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a printable ASCII character; any other character is the token of U+FFFD."""
    special = [PAD, EOS, USER, ASSISTANT, IMAGE]
    vocabulary = {token: i for i, token in enumerate([*special, UNKNOWN, *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[USER, ASSISTANT, IMAGE],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def build_processor(settings: TinyVlmSettings, tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Scales an image's middle to a square and makes room for it in the text: one token a patch."""
    side = settings.image_size
    return LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer,
        patch_size=settings.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which "default" leaves out again
        chat_template=CHAT_TEMPLATE,
    )


def build_model(settings: TinyVlmSettings, tokenizer: PreTrainedTokenizerFast) -> VipLlavaForConditionalGeneration:
    """The untrained model, float32, its weights drawn from `settings.seed`."""
    set_seed(settings.seed)
    model = VipLlavaForConditionalGeneration(
        VipLlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=settings.vision_hidden_size,
                intermediate_size=2 * settings.vision_hidden_size,
                num_hidden_layers=settings.vision_layers,
                num_attention_heads=settings.vision_heads,
                image_size=settings.image_size,
                patch_size=settings.patch_size,
            ),
            text_config=Qwen2Config(
                vocab_size=len(tokenizer),
                hidden_size=settings.hidden_size,
                intermediate_size=settings.intermediate_size,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.heads,
                num_key_value_heads=settings.heads,
                max_position_embeddings=512,
                initializer_range=_SPREAD,
                tie_word_embeddings=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                bos_token_id=None,
            ),
            vision_feature_layers=[-2, -1],
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
            image_seq_length=(settings.image_size // settings.patch_size) ** 2,
            initializer_range=_SPREAD,
            tie_word_embeddings=False,
        )
    )
    _never_say(model, tokenizer.convert_tokens_to_ids([PAD, USER, ASSISTANT, IMAGE]))
    return model


@torch.no_grad()
def _never_say(model: VipLlavaForConditionalGeneration, tokens: list[int]) -> None:
    """Take `tokens` out of the responses, in place.

    A response with an image's placeholder ends an OpenRLHF job ("Image features and image tokens do not match"). Real
    models have learnt not to write it; random weights would, once in a hundred tokens. There is no bias to forbid it
    with, so the first number of every hidden state is made a constant that no layer adds to, for the head to use.
    """
    text, projector = model.model.language_model, model.model.multi_modal_projector.linear_2
    text.embed_tokens.weight[:, 0] = _CONSTANT
    projector.weight[0], projector.bias[0] = 0, _CONSTANT
    for layer in text.layers:
        layer.self_attn.o_proj.weight[0] = 0
        layer.mlp.down_proj.weight[0] = 0
    model.lm_head.weight[:, 0] = 0
    model.lm_head.weight[tokens, 0] = -10


def save_tiny_vlm(folder: str | os.PathLike, settings: TinyVlmSettings = TinyVlmSettings()) -> None:
    """Build and save the model (bfloat16), its tokenizer, image processor and chat template into `folder`."""
    tokenizer = build_tokenizer()
    build_model(settings, tokenizer).to(torch.bfloat16).save_pretrained(folder)
    build_processor(settings, tokenizer).save_pretrained(folder)
