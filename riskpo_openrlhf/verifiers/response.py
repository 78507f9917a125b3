"""The response alone, out of the text that OpenRLHF hands to a reward function; and what of it is not thinking."""

from __future__ import annotations

import re

# <|im_end|>, <|image_pad|>, <eos>, </s>, and DeepSeek's with full-width bars
SPECIAL_TOKEN = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>|<(?:eos|pad)>|</s>")
_TAILS = (200, 64, 24)  # characters of the prompt's end to look for, longest first


def response_of(query: str, prompt: str) -> str:
    """What the model wrote, without the prompt and without special tokens.

    A prompt whose template opens `<think>` gives that word back at the start, so that a verifier sees which part was
    thinking. Where the query does not begin with its prompt (image placeholders are expanded, an over-long prompt is
    cut from the left), the end of the prompt marks the place.

    Args:
        query: prompt and response as the tokenizer decodes them, special tokens included.
        prompt: the prompt as it was before tokenization.

    Raises:
        ValueError: the prompt's end is not in the query.
    """
    if query.startswith(prompt):
        start = len(prompt)
    else:
        found = ((query.find(prompt[-length:]), length) for length in _TAILS)
        place, length = next(((place, length) for place, length in found if place >= 0), (-1, 0))
        if place < 0:
            raise ValueError(
                "the query does not hold the end of its prompt, so the response can't be told apart; was the prompt "
                f"cut to fit --data.max_len? prompt ends in {prompt[-80:]!r}, query begins with {query[:80]!r}"
            )
        start = place + len(prompt[-length:])
    response = SPECIAL_TOKEN.sub("", query[start:])
    return "<think>" + response if prompt.rstrip().endswith("<think>") else response


def after_thinking(response: str) -> str | None:
    """What follows the last `</think>`; None where thinking was opened and does not end."""
    text = response.rpartition("</think>")[2]
    return None if "<think>" in text else text
