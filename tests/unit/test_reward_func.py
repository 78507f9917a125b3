"""The reward file: the verifier that the label names, raw correctness, and a status that is no wrong answer."""

import asyncio
import json
import math

import pytest

from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.labels import VERIFIERS, write_label
from riskpo_openrlhf.verifiers.reward_func import LOGGED, VERIFY, reward_func

PROMPT = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
SUM = json.dumps({"kind": "stdin", "tests": [{"input": "2 3\n", "output": "5\n"}]})
ADDS = "```python\nprint(sum(map(int, input().split())))\n```"


def reward(response: str, label: str) -> dict:
    return reward_func([PROMPT + response + "<|im_end|>"], [PROMPT], [label])


@pytest.mark.parametrize(
    ("verifier", "gold", "right", "wrong"),
    [
        ("math", "\\frac{3}{4}", "so \\boxed{0.75}", "so \\boxed{0.7}"),
        ("math", "33", "Answer: 33", "Answer: 34"),
        ("geometry", "4 \\sqrt { 7 }", "x is \\boxed{4\\sqrt{7}}", "x is \\boxed{4}"),
        ("code", SUM, ADDS, ADDS.replace("sum", "max")),
    ],
)
def test_the_label_names_the_verifier_and_scores_are_raw_correctness(verifier, gold, right, wrong):
    label = write_label(verifier, gold)
    for response, score in ((right, 1.0), (wrong, 0.0), ("I don't know", 0.0)):
        result = reward(response, label)
        assert result["scores"] == result["rewards"] == score, response
        assert list(result["extra_logs"]) == list(LOGGED.values())
        assert all(type(value) is float for value in result["extra_logs"].values())
    assert result["extra_logs"]["verifier/no_answer"] == 1.0


def test_every_verifier_that_a_label_may_name_is_there():
    assert tuple(VERIFY) == VERIFIERS


def test_a_plain_label_is_the_answer_of_a_math_problem():
    assert reward("\\boxed{42}", "42")["scores"] == 1.0


def test_out_of_time_is_no_verdict_and_not_a_wrong_answer(monkeypatch):
    monkeypatch.setitem(VERIFY, "math", lambda *_: Verdict(False, "timeout"))
    result = reward("\\boxed{1}", "1")
    assert math.isnan(result["scores"]) and result["rewards"] == 0.0
    assert result["extra_logs"]["verifier/timeout"] == 1.0


def test_a_failed_verifier_raises_and_names_itself_and_the_label(monkeypatch):
    monkeypatch.setitem(VERIFY, "math", lambda *_: Verdict(False, "error", "worker is gone"))
    with pytest.raises(RuntimeError, match="math verifier failed on label '17'.*worker is gone"):
        reward("\\boxed{1}", "17")


def test_it_works_from_threads_as_openrlhf_calls_it():
    async def many():
        calls = [asyncio.to_thread(reward, f"\\boxed{{x+{i}}}", f"{i}+x") for i in range(12)]
        return await asyncio.gather(*calls)

    assert [result["scores"] for result in asyncio.run(many())] == [1.0] * 12
