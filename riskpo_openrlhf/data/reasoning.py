"""Make problems by reasoning-gym: no download, any number, of the kinds and sizes that you choose."""

from __future__ import annotations

import ast
import hashlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from riskpo_openrlhf.data.decontaminate import normalise
from riskpo_openrlhf.verifiers.math.compare import EQUAL, compare

# Tasks whose answer is always one whole number, which the verifier `math` grades, and whose question asks for no
# other form.
TASKS = tuple(
    "basic_arithmetic chain_sum count_bits count_primes gcd largest_island lcm leg_counting letter_counting "
    "number_sequence products rectangle_count rotten_oranges simple_equations".split()
)
TEST_ONE_IN = 4
_SHOWN = re.compile(r"[A-Z][a-z]+(?: is|:)? ([-(\d].*)[.?]")  # Calculate 2 + 3.
INSTALL_HINT = "pip install reasoning-gym==0.1.25"


def parse_task(text: str) -> tuple[str, dict]:
    """Split `chain_sum:max_terms=3,max_digits=2` into (`chain_sum`, {settings}). Raises `ValueError`."""
    task, _, settings = text.partition(":")
    if task not in TASKS:
        raise ValueError(f"--tasks {task!r} is not known; one of: {', '.join(TASKS)}")
    try:
        pairs = [pair.split("=") for pair in settings.split(",") if pair]
        return task, {key: ast.literal_eval(value) for key, value in pairs}
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"--tasks {text!r}: write settings as TASK:KEY=VALUE,KEY=VALUE, all values numbers"
        ) from error


def problems(tasks: Sequence[str], count: int, seed: int, split: str) -> Iterator[dict[str, str]]:
    """Yield `count` different problems `{"question", "answer"}` of one split, equally many of each task.

    Args:
        tasks: `TASK` or `TASK:KEY=VALUE,...` with the settings of reasoning-gym's task of that name.
        seed: same arguments, same problems, on every machine.
        split: `train` or `test`; a question is in one of them only, whatever the seed and the order of its terms (one
            in 4 is a test).

    Raises:
        ValueError: a bad argument, or a task has too few different problems.
        ModuleNotFoundError: reasoning-gym is missing.
    """
    if count < 1:
        raise ValueError(f"--count {count} is not allowed: at least 1")
    parsed = [parse_task(text) for text in tasks]
    if not parsed:
        raise ValueError("--tasks is empty: name at least one, e.g. chain_sum")
    seen: set[str] = set()

    def row(task: str, item: dict) -> dict[str, str] | None:
        key = normalise(item["question"])
        # By sorted characters: 3 + 5 and 5 + 3, or gcd(4, 6) and gcd(6, 4), are in one split.
        if is_test("".join(sorted(key))) != (split == "test") or key in seen or not _is_right(task, item):
            return None
        seen.add(key)
        return {"question": item["question"], "answer": str(item["answer"])}

    yield from draw([(task, task, settings) for task, settings in parsed], count, seed, split, row)


Row = Callable[[str, dict], dict[str, str] | None]  # (task, reasoning-gym's item) -> a row, None to pass over the item


def draw(kinds: Sequence[tuple[str, str, dict]], count: int, seed: int, split: str, row: Row) -> list[dict[str, str]]:
    """Draw `count` rows, an equal number of each kind, in an order drawn from `seed`.

    Args:
        kinds: (name, task, settings of the task). Equal names, seeds and splits give equal items on every machine.
        row: makes a row from an item.

    Raises:
        ValueError: a bad setting, or a kind has too few rows.
        ModuleNotFoundError: reasoning-gym is missing.
    """
    share, rest = divmod(count, len(kinds))
    rows = []
    for place, (name, task, settings) in enumerate(kinds):
        rows += _first_rows(task, settings, share + (place < rest), f"{seed}/{split}/{name}", row)
    random.Random(seed).shuffle(rows)
    return rows


def _first_rows(task: str, settings: dict, count: int, name: str, row: Row) -> list[dict[str, str]]:
    try:
        import reasoning_gym
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"these problems need reasoning-gym: {INSTALL_HINT} ({error})") from error
    # The package draws item i from `seed + i`, so nearby seeds would give shifted copies of one another.
    first, most = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big"), 1000 + 100 * count
    try:
        source = reasoning_gym.create_dataset(task, seed=first, size=most, **settings)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"--tasks {task}: reasoning-gym does not take the settings {settings}: {error}") from error
    found = list(islice(filter(None, (row(task, source[i]) for i in range(most))), count))
    if len(found) < count:
        raise ValueError(
            f"--count: {task} has too few different problems ({len(found)} of {count}): ask for fewer, or larger"
        )
    return found


def is_test(text: str) -> bool:
    """Tell whether a text belongs to the test split; one in 4 does, with any seed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % TEST_ONE_IN == 0


def _is_right(task: str, item: dict) -> bool:
    """Tell whether the answer is the value of the expression that the question shows.

    The package shows another one than it computed: `1 / 5` with the answer 6. It does so for most expressions that
    divide without brackets, and for some long ones.
    """
    if task != "basic_arithmetic":
        return True
    expression = _SHOWN.fullmatch(item["question"].strip())
    return bool(expression) and compare(str(item["answer"]), expression[1]) == EQUAL
