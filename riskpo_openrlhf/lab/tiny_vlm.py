"""Build a vision-language model of half a million random parameters, to run recipes with images on a CPU.

It is a ViP-LLaVA: two layers of a CLIP encoder, projected into a Qwen2. The CPU environment has no torchvision.
Without it, transformers' video processors and vLLM's own LLaVA, Qwen and Gemma models can't be imported. ViP-LLaVA has
no video processor, and vLLM runs transformers' implementation of it. Every image becomes sixteen tokens.
"""

from __future__ import annotations

import torch
from transformers import (
    CLIPVisionConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
    set_seed,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from riskpo_openrlhf.lab.character_tokenizer import CHAT_TEMPLATE, CHAT_TOKENS, IMAGE, PAD
from riskpo_openrlhf.lab.tiny_model import qwen2_config

IMAGE_SIZE, PATCH_SIZE = 56, 14
_SPREAD = 0.1  # std of the initial weights; with the usual 0.02, an image would hardly change the output
_CONSTANT = 5.0  # large compared with the other numbers of an initial hidden state


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Build the processor: it crops an image to a square and puts one token for each patch into the text."""
    return LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        ),
        tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which "default" leaves out again
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> VipLlavaForConditionalGeneration:
    """Build the untrained model in float32."""
    set_seed(0)
    model = VipLlavaForConditionalGeneration(
        VipLlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=IMAGE_SIZE,
                patch_size=PATCH_SIZE,
            ),
            text_config=qwen2_config(tokenizer, 128, 256, layers=2, heads=4, positions=512, initializer_range=_SPREAD),
            vision_feature_layers=[-2, -1],
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
            image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
            initializer_range=_SPREAD,
            tie_word_embeddings=False,
        )
    )
    _never_say(model, tokenizer.convert_tokens_to_ids([PAD, *CHAT_TOKENS]))
    return model


@torch.no_grad()
def _never_say(model: VipLlavaForConditionalGeneration, tokens: list[int]) -> None:
    """Forbid `tokens` in responses, in place.

    A response with an image's placeholder ends an OpenRLHF job ("Image features and image tokens do not match"). Real
    models have learnt not to write it; random weights would, once in a hundred tokens. The head has no bias. So the
    first number of every hidden state is made a constant that no layer changes, and its weights serve as the bias.
    """
    text, projector = model.model.language_model, model.model.multi_modal_projector.linear_2
    text.embed_tokens.weight[:, 0] = _CONSTANT
    projector.weight[0], projector.bias[0] = 0, _CONSTANT
    for layer in text.layers:
        layer.self_attn.o_proj.weight[0] = 0
        layer.mlp.down_proj.weight[0] = 0
    model.lm_head.weight[:, 0] = 0
    model.lm_head.weight[tokens, 0] = -10
