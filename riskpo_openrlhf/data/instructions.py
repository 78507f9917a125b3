"""Hold the instructions that tell the model how to answer. Each fits the verifier that grades the answer."""

from __future__ import annotations

from typing import NamedTuple


class Instruction(NamedTuple):
    """Text before and after a problem, and the verifiers that read such an answer."""

    head: str
    tail: str
    verifiers: tuple[str, ...]

    def add(self, problem: str) -> str:
        """Return the prompt. Raises `ValueError` if the instruction is there already."""
        for part in (self.head.strip(), self.tail.strip()):
            if part and part in problem:
                raise ValueError(f"the instruction {part[:60]!r} is in the problem already: {problem[:80]!r}")
        return f"{self.head}{problem}{self.tail}"

    def remove(self, prompt: str) -> str:
        """Return the problem. Raises `ValueError` if the instruction is not around it."""
        if not self.is_around(prompt):
            raise ValueError(f"the prompt does not begin and end with the expected instruction: {prompt[:80]!r}")
        return prompt.removeprefix(self.head).removesuffix(self.tail)

    def is_around(self, prompt: str) -> bool:
        room = len(prompt) >= len(self.head) + len(self.tail)
        return room and prompt.startswith(self.head) and prompt.endswith(self.tail)


INSTRUCTIONS = {
    # The template inside DAPO-Math-17k, character by character.
    "answer": Instruction(
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        "$Answer (without quotes) where $Answer is the answer to the problem.\n\n",
        '\n\nRemember to put your answer on its own line after "Answer:".',
        ("math",),
    ),
    # The suffix of the authors' scripts for MATH and GSM8K.
    "boxed": Instruction(
        "", r" Let's think step by step and output the final answer within \boxed{}.", ("math", "geometry")
    ),
    # Empty, because `code_prompt` writes the instruction.
    "code": Instruction("", "", ("code",)),
}
CODE_HEADING = "\n\n## Your answer\n"
CODE_ANSWER = (
    "Think first if you like. Then give the complete program in one block that opens with ```python and ends with "
    "```; only the last such block is run."
)


def code_prompt(question: str, starter: str = "") -> str:
    """Return a programming prompt: the question and the form of its answer, `starter` code or standard input."""
    if starter.strip():
        form = f"Complete this code, and keep its names and arguments:\n```python\n{starter.strip()}\n```\n"
    else:
        form = "The program reads standard input and writes to standard output.\n"
    return f"{question.strip()}{CODE_HEADING}{form}{CODE_ANSWER}"


def bare_problem(prompt: str) -> str:
    """Return a prompt without the instructions of this module."""
    for instruction in INSTRUCTIONS.values():
        if instruction.is_around(prompt):
            prompt = instruction.remove(prompt)
    return prompt.partition(CODE_HEADING)[0]
