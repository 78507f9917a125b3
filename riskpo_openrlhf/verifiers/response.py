"""Find the response in the text that OpenRLHF gives a reward function, and the part of it that is not thinking."""

from __future__ import annotations

import re

# <|im_end|>, <|image_pad|>, DeepSeek's with full-width bars, Exaone's [|endofturn|], Gemma's <end_of_turn>, Seed's
# <seed:eos>, Nemotron's <SPECIAL_12>, <eos>, </s>
SPECIAL_TOKEN = re.compile(
    r"<[|｜][^<>|｜\s]{1,40}[|｜]>|\[\|[a-z_]{1,40}\|\]|<(?:start|end|begin)_of_[a-z_]{1,40}>|<[a-z]{1,20}:[be]os>"
    r"|<(?:SPECIAL|extra_id|reserved|unused)_?\d{1,5}>|</?s>|<(?:bos|eos|pad|unk|eod|eot|eom|turn\|)>|\[/?INST\]|\[EOS\]"
)
# gpt-oss thinks in a channel of its own.
_THOUGHT = re.compile(r"<\|channel\|>(?:analysis|commentary)[^<]{0,99}<\|message\|>")
_FINAL = re.compile(r"<\|channel\|>final[^<]{0,99}<\|message\|>")
_TAILS = (200, 64, 24)  # characters of the prompt's end to look for, longest first


def response_of(query: str, prompt: str) -> str:
    """Return the text that the model wrote: the query without the prompt and without special tokens at its ends.

    A `<s>` between them may be text, such as HTML in a program; `math` leaves it out.

    If the prompt's template opens `<think>`, the response starts with that word, so that a verifier sees which part is
    thinking. If the query does not start with the prompt (expanded image placeholders, a prompt cut from the left),
    the end of the prompt marks the place.

    Args:
        query: prompt and response as the tokenizer decodes them, special tokens included.
        prompt: the prompt before tokenization.

    Raises:
        ValueError: the end of the prompt is not in the query.
    """
    if query.startswith(prompt):
        start = len(prompt)
    else:
        found = ((query.find(prompt[-length:]), length) for length in _TAILS)
        place, length = next(((place, length) for place, length in found if place >= 0), (-1, 0))
        if place < 0:
            raise ValueError(
                "the response can't be told from the prompt, because the query does not hold the prompt's end; was "
                f"the prompt cut to fit --data.max_len? prompt ends in {prompt[-80:]!r}, query begins with "
                f"{query[:80]!r}"
            )
        start = place + len(prompt[-length:])
    response = _without_tokens_at_ends(_with_marked_thinking(query[start:]))
    return "<think>" + response if prompt.rstrip().endswith("<think>") else response


def _without_tokens_at_ends(text: str) -> str:
    start, end = 0, len(text)
    tokens = [match.span() for match in SPECIAL_TOKEN.finditer(text)]
    while tokens and not text[tokens[-1][1] : end].strip():
        end = tokens.pop()[0]
    for first, last in tokens:
        if text[start:first].strip():
            break
        start = last
    return text[start:end]


def _with_marked_thinking(response: str) -> str:
    """Mark channels of thinking with `<think>` and `</think>`."""
    return _FINAL.sub("</think>", _THOUGHT.sub("<think>", response))


def after_thinking(response: str) -> str | None:
    """Return the text after the last `</think>`; None if the thinking does not end."""
    text = _with_marked_thinking(response).rpartition("</think>")[2]
    return None if "<think>" in text else text
