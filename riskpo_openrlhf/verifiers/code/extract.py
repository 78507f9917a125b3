"""Find the program in a response."""

from __future__ import annotations

import re
import textwrap

from riskpo_openrlhf.verifiers.response import after_thinking

MOST = 4  # candidates that are tried

_OPENING = re.compile(r"(?:(?<!`)(`{3,})(?!`)|^[ \t]*(~{3,})(?!~))([^`\n]*)\n", re.MULTILINE)
_PYTHON = re.compile(r"\{?\s*\.?(?:python|py|pypy)(?:3(?:\.\d+)?)?(?![\w.+#-])", re.IGNORECASE)
# What of Python may hold a fence without being one: strings and comments. An unfinished string is none.
_LITERAL = (
    r'"""(?:[^\\]|\\.)*?"""|' + r"'''(?:[^\\]|\\.)*?'''|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'|#[^\n]*"
)


def extract_programs(response: str) -> list[str]:
    """Return the texts that may be the program, the likeliest first: the first that is Python is the program.

    Only blocks after the last `</think>` count. If any is marked as Python, the last of these is taken. Otherwise the
    blocks without a language are, the last first, because an output may follow the program. A fence within a string
    or a comment does not end a block of Python, unless the block would be no Python otherwise.
    """
    answer = after_thinking(response)
    if answer is None:
        return []
    answer = answer.replace("\r\n", "\n")
    aware, plain = (_programs(_blocks(answer, aware)) for aware in (True, False))
    return list(dict.fromkeys([*aware[:1], *plain[:1], *aware[1:], *plain[1:]]))[:MOST]


def _programs(blocks: list[tuple[str, str]]) -> list[str]:
    """Return the last block that is marked as Python; without one, those without a language, the last first."""
    tagged = [code for tag, code in blocks if _PYTHON.match(tag)]
    return tagged[-1:] or [code for tag, code in reversed(blocks) if not tag]


def _blocks(text: str, aware: bool) -> list[tuple[str, str]]:
    """Return the tag and content of every fenced block that is closed and not empty."""
    found, place, unclosed = [], 0, set()
    while opening := _OPENING.search(text, place):
        fence, tag = opening[1] or opening[2], opening[3].strip()
        python = not tag or _PYTHON.match(tag)
        end = _end(text, opening.end(), fence, aware and python, unclosed)
        if end is None:
            place = opening.end()
            continue
        before = text[text.rfind("\n", 0, opening.start()) + 1 : opening.start()]
        content = text[opening.end() : end[0]]
        if before and not before.strip():
            content = re.sub(rf"(?m)^[ \t]{{1,{len(before)}}}", "", content)
        content = textwrap.dedent(content)
        if content.strip():
            found.append((tag, content))
        place = end[1]
    return found


def _end(text: str, start: int, fence: str, aware: bool, unclosed: set[str]) -> tuple[int, int] | None:
    """Return where the block's content ends and where its closing fence ends. `unclosed`: patterns without a match."""
    closing = re.escape(fence[0]) + f"{{{len(fence)},}}"
    lines, anywhere = rf"(?m)^[ \t]*({closing})[ \t]*$", f"({closing})"
    for pattern in (rf"(?s:{_LITERAL})|({closing})",) if aware else (lines, anywhere):
        if pattern in unclosed:
            continue
        for match in re.compile(pattern).finditer(text, start):
            if match[1]:
                return match.span(1)
        unclosed.add(pattern)
    return None
