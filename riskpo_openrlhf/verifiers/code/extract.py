"""Find the program in a response."""

from __future__ import annotations

import re
import textwrap

from riskpo_openrlhf.verifiers.response import after_thinking

MOST = 6  # candidates that are tried

# At the start of a line a fence may stand behind blanks and the marks of lists and quotations.
_MARKS = r"^([ \t]*(?:>[ \t]*|(?:[-*+]|\d{1,9}[.)])[ \t]+)*)"
_FENCE = r"(`{3,9}(?!`)|~{3,9}(?!~))([^`\n]*)\n"
_AT_START = re.compile(_MARKS + _FENCE, re.MULTILINE)
_ANYWHERE = re.compile(rf"(?:{_MARKS}|(?<!`)(?=`)){_FENCE}", re.MULTILINE)
_PYTHON = re.compile(r"\{?\s*\.?(?:python|py|pypy)(?:3(?:\.\d+)?)?(?![\w.+#-])", re.IGNORECASE)
_LANGUAGE = re.compile(r"[A-Za-z][\w.+#-]*$")
# What of Python may hold a fence without being one: strings and comments. A string without an end goes to the end of
# its line. The bounds keep the search short.
_STRING = r"Q{3}(?:[^Q\\]++|\\.|Q(?!QQ)){0,2000}+Q{3}|Q(?:[^Q\\\n]|\\.)*+Q?"
_LITERAL = "|".join([_STRING.replace("Q", "'"), _STRING.replace("Q", '"'), r"#[^\n]*"])


def extract_programs(response: str) -> list[str]:
    """Return the texts that may be the program, the likeliest first: the first that is Python is the program.

    Only blocks after the last `</think>` count. If any is marked as Python, the last of these is taken. Otherwise the
    blocks without a language are, the last first, because an output may follow the program. A fence within a string
    or a comment does not end a block of Python, unless the block would be no Python otherwise. A fence that says
    Python opens a block even where it ends another; if what follows is no Python, the block that it ended counts.
    """
    answer = after_thinking(response)
    if answer is None:
        return []
    answer = answer.replace("\r\n", "\n")
    aware, plain = (_programs(answer, aware) for aware in (True, False))
    return list(dict.fromkeys([*aware, *plain]))[:MOST]


def _programs(text: str, aware: bool) -> list[str]:
    """Return the last block that is marked as Python; without one at a line's start, others that may be it as well."""
    anywhere, at_start = (_blocks(text, opens, aware) for opens in (_ANYWHERE, _AT_START))
    last, last_at_start = map(_last_python, (anywhere, at_start))
    marked = [code for _, code in sorted(last + last_at_start, reverse=True)]
    if last_at_start:
        return marked
    return marked + [code for blocks in (anywhere, at_start) for *_, tag, code in reversed(blocks) if not tag]


def _last_python(blocks: list[tuple[int, int, str, str]]) -> list[tuple[int, str]]:
    """Return end and content of the last block that is marked as Python, and of such a one that its fence ended."""
    python = [(start, end, code) for start, end, tag, code in blocks if _PYTHON.match(tag)]
    return [(end, code) for _, end, code in python[-2:] if end > python[-1][0]]


def _blocks(text: str, opens: re.Pattern, aware: bool) -> list[tuple[int, int, str, str]]:
    """Return the start, the end, the tag and the content of every fenced block that is closed and not empty."""
    found, place, unclosed = [], 0, set()
    while opening := opens.search(text, place):
        before, fence, tag = opening[1] or "", opening[2], opening[3].strip()
        python = not tag or _PYTHON.match(tag)
        mentioned = opening[1] is None and not (python or _LANGUAGE.match(tag))
        end = None if mentioned else _end(text, opening.end(), fence, aware and python, unclosed)
        if end is None:
            place = opening.end()
            continue
        content = text[opening.end() : end[0]]
        if quotes := before.count(">"):
            content = re.sub(rf"(?m)^[ \t]*(?:>[ \t]?){{1,{quotes}}}", "", content)
        elif before and not before.strip():
            content = re.sub(rf"(?m)^[ \t]{{1,{len(before)}}}", "", content)
        content = textwrap.dedent(content)
        if content.strip():
            found.append((opening.start(), end[1], tag, content))
        line = text.rfind("\n", 0, end[0]) + 1
        again = opens.match(text, line) or opens.match(text, end[0])
        # A fence that says Python opens a block, even where it ends another.
        place = again.start() if again and _PYTHON.match(again[3].strip()) else end[1]
    return found


def _end(text: str, start: int, fence: str, aware: bool, unclosed: set[str]) -> tuple[int, int] | None:
    """Return where the block's content ends and where its closing fence ends. `unclosed`: patterns without a match."""
    closing = re.escape(fence[0]) + f"{{{len(fence)},}}"
    lines, anywhere = rf"(?m)^[ \t>]*({closing})[ \t]*$", f"({closing})"
    for pattern in (rf"(?s:{_LITERAL})|({closing})",) if aware else (lines, anywhere):
        if pattern in unclosed:
            continue
        for match in re.compile(pattern).finditer(text, start):
            if match[1]:
                return match.span(1)
        unclosed.add(pattern)
    return None
