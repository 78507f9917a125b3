"""Find the program in a response."""

from __future__ import annotations

import re
import textwrap

from riskpo_openrlhf.verifiers.response import after_thinking

_BLOCK = re.compile(r"```([^\n`]*)\n(.*?)```", re.DOTALL)
_LANGUAGES = {"", "python", "python3", "py", "py3"}


def extract_program(response: str) -> str | None:
    """Return the last fenced block, in Python or without a language, after the last `</think>`; else None."""
    answer = after_thinking(response)
    if answer is None:
        return None
    blocks = [block for language, block in _BLOCK.findall(answer) if language.strip().lower() in _LANGUAGES]
    return textwrap.dedent(blocks[-1]) if blocks and blocks[-1].strip() else None
