"""Tokenizers for the small models: one token a character, plus whole words and special tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PRINTABLE = "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1)))
UNKNOWN = "\ufffd"
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
    characters: str, max_length: int, *, words: Sequence[str] = (), unknown: str | None = None, chat: bool = False
) -> PreTrainedTokenizerFast:
    """Build a tokenizer of characters.

    Args:
        characters: one token each.
        max_length: tokens that the model takes.
        words: texts of several characters that are one token, such as `\\boxed{`.
        unknown: the token of every other character. Without one, another character is an error.
        chat: add `<user>`, `<assistant>` and `<image>`, and a chat template that uses them.
    """
    special = [PAD, EOS, *(CHAT_TOKENS if chat else ())]
    plain = [*([unknown] if unknown else []), *characters, *words]
    vocabulary = {token: i for i, token in enumerate([*special, *plain])}
    core = Tokenizer(models.WordLevel(vocabulary, **({"unk_token": unknown} if unknown else {})))
    pattern = "|".join([*map(re.escape, words), r"[\s\S]"])
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
        **(dict(additional_special_tokens=list(CHAT_TOKENS), chat_template=CHAT_TEMPLATE) if chat else {}),
    )
