r"""Build tokenizers for the small models: one token for each byte, plus whole words and special tokens.

They are byte-level like Qwen2's, because transformers loads any tokenizer in a Qwen2's folder as a `Qwen2Tokenizer`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

BYTES = "".join(sorted(pre_tokenizers.ByteLevel.alphabet()))
PAD, EOS = "<pad>", "<eos>"
USER, ASSISTANT, IMAGE = CHAT_TOKENS = ("<user>", "<assistant>", "<image>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "{% if message.role == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def build_tokenizer(
    max_length: int, *, characters: str = BYTES, words: Sequence[str] = (), chat: bool = False
) -> PreTrainedTokenizerFast:
    r"""Build a tokenizer.

    Args:
        max_length: most tokens of a sequence.
        characters: the known ones, in the byte-level alphabet; others are dropped. Default: every byte, so that no
            text is changed.
        words: texts that are one token, such as `\boxed{`.
        chat: add `<user>`, `<assistant>` and `<image>`, and a chat template that uses them.
    """
    tokens = [PAD, EOS, *(CHAT_TOKENS if chat else ()), *characters, *words]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([*words])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
        **(dict(additional_special_tokens=list(CHAT_TOKENS), chat_template=CHAT_TEMPLATE) if chat else {}),
    )
