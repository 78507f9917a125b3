import asyncio
import importlib.util
import sys
from collections import Counter

import pytest

from riskpo_openrlhf.lab import last_number as verifier
from riskpo_openrlhf.lab.tiny_model import boxed
from riskpo_openrlhf.verifiers import Verdict
from riskpo_openrlhf.verifiers.labels import read_label
from riskpo_openrlhf.verifiers.reward_func import reward_func

pytest.importorskip("reasoning_gym")
from riskpo_openrlhf.lab.arithmetic import CHARACTER_KINDS, Kind, as_data, problems
from riskpo_openrlhf.lab.prepare_quickstart import HELDOUT_SEED, chat_problems

TWO_ONES = Kind("chain_sum", 2, 1)


def prompts(rows):
    return {row["input"] for row in rows}


def test_every_label_is_the_value_of_its_expression():
    for row in problems(CHARACTER_KINDS + (Kind("products", 2, 2),), 140, seed=3):
        assert row["input"].endswith("=") and " " not in row["input"]
        assert str(eval(row["input"][:-1])) == row["answer"]


def test_the_data_s_labels_name_the_math_verifier_so_that_the_package_s_reward_file_grades_them():
    rows = problems(CHARACTER_KINDS, 20, seed=3)
    for row, data in zip(rows, as_data(rows), strict=True):
        assert data["datasource"] == "arithmetic" and data["input"] == row["input"]
        assert read_label(data["label"]) == ("math", row["answer"])
        for response, reward in ((boxed(row["answer"]), 1.0), (boxed(row["answer"] + "1"), 0.0), (row["answer"], 0.0)):
            query = data["input"] + response + "<eos>"
            assert reward_func([query], [data["input"]], [data["label"]])["scores"] == reward
    assert [data["label"] for data in as_data(rows, None)] == [row["answer"] for row in rows]


def test_the_same_seed_gives_the_same_problems_and_another_seed_gives_others():
    assert problems(CHARACTER_KINDS, 50, seed=7) == problems(CHARACTER_KINDS, 50, seed=7)
    first, second = ({row["input"] for row in problems([Kind("chain_sum", 3, 2)], 200, seed)} for seed in (7, 8))
    assert len(first & second) < 10


def test_no_heldout_problem_is_ever_in_a_training_set_whatever_the_seeds():
    heldout = problems(CHARACTER_KINDS, 160, seed=1, split="heldout", unique=True)
    for seed in (0, 1, 2):
        assert not prompts(problems(CHARACTER_KINDS, 3000, seed)) & prompts(heldout)


def test_kinds_take_equal_shares_and_unique_problems_do_not_repeat():
    rows = problems(CHARACTER_KINDS, 160, seed=1, split="heldout", unique=True)
    assert len({row["input"] for row in rows}) == 160
    one_digit_terms = [row for row in rows if row["input"][1] in "+-"]
    assert len(one_digit_terms) == 80


def test_smollm2s_problems_are_a_mix_whose_splits_share_no_problem():
    train, heldout = chat_problems(100, 0, "train"), chat_problems(240, HELDOUT_SEED, "test")
    assert not prompts(train) & prompts(heldout)
    assert Counter(row["input"].split()[0] for row in heldout) == {"Calculate": 160, "Find": 80}
    assert all(row["input"].endswith(" Answer:") for row in heldout)
    assert all(verifier.verify(row["answer"], row["answer"]).correct for row in heldout)
    rounds = chat_problems(2000, 0, "train")
    assert len(rounds) == 2000 and rounds[:900] == rounds[900:1800] and len({row["input"] for row in rounds}) == 900
    with pytest.raises(ValueError, match="--heldout 241: SmolLM2's tasks have 240 problems that are held out"):
        chat_problems(241, HELDOUT_SEED, "test")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"count": 0}, "count 0"),
        ({"count": 500, "unique": True}, "too few different"),
    ],
)
def test_bad_requests_are_refused_with_what_is_allowed(arguments, says):
    with pytest.raises(ValueError, match=says):
        problems(**{"kinds": [TWO_ONES], "count": 4, "seed": 0, **arguments})


def test_a_missing_reasoning_gym_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ModuleNotFoundError, match="pip install reasoning-gym=="):
        problems([TWO_ONES], 4, 0)


@pytest.mark.parametrize(
    ("response", "gold", "verdict"),
    [
        ("7", "7", Verdict(True, "ok", "7")),
        ("The answer is 7.", "7", Verdict(True, "ok", "7")),
        ("3 + 4 = 7", "7", Verdict(True, "ok", "7")),
        ("First 5, then -12.", "-12", Verdict(True, "ok", "-12")),
        ("It is −12", "-12", Verdict(True, "ok", "−12")),
        ("12-5", "5", Verdict(True, "ok", "5")),
        ("1,234", "1234", Verdict(True, "ok", "1,234")),
        ("**1234.0**", "1234", Verdict(True, "ok", "1234.0")),
        ("7 or 8", "7", Verdict(False, "ok", "8")),
        ("seven", "7", Verdict(False, "no_answer")),
        ("", "7", Verdict(False, "no_answer")),
    ],
)
def test_of_smollm2_the_last_number_of_a_response_counts(response, gold, verdict):
    assert verifier.verify(response, gold) == verdict


@pytest.mark.parametrize(
    ("prompt", "response", "label", "reward"),
    [
        ("12+34=", "46<eos>", "46", 1.0),
        ("12+34=", "46", "46", 1.0),
        ("12+34=", "<eos>", "46", 0.0),
        ("12+34=", "<pad>46<eos>", "46", 1.0),
        ("<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n", "It is 7.<|im_end|>", "7", 1.0),
        ("<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n", "No idea<|im_end|>", "7", 0.0),
        ("7", " no number of its own", "7", 0.0),
    ],
)
def test_only_the_response_is_graded_without_prompt_and_special_tokens(prompt, response, label, reward):
    result = verifier.reward_func([prompt + response], [prompt], [label])
    assert result["rewards"] == result["scores"] == reward


def test_the_reward_file_works_loaded_by_path_and_called_in_a_thread_with_equal_keys_for_every_sample():
    spec = importlib.util.spec_from_file_location("reward_func", verifier.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    async def call(response):
        return await asyncio.to_thread(module.reward_func, ["1+1=" + response], ["1+1="], ["2"])

    results = [asyncio.run(call(response)) for response in ("2<eos>", "3<eos>", "<eos>")]
    assert [result["rewards"] for result in results] == [1.0, 0.0, 0.0]
    assert {tuple(result["extra_logs"]) for result in results} == {("verifier/no_answer",)}
    for result in results:  # OpenRLHF puts each value in a list and that into a tensor
        assert all(type(value) is float for value in (result["rewards"], *result["extra_logs"].values()))


def test_no_verdict_is_an_error_and_not_a_wrong_answer():
    with pytest.raises(ValueError, match="label 'two' is not a number"):
        verifier.reward_func(["1+1=2"], ["1+1="], ["two"])
    with pytest.raises(ValueError, match="--data.max_len"):
        verifier.reward_func(["+1=2"], ["1+1="], ["2"])


def test_a_verdict_refuses_unknown_statuses_and_correct_answers_without_one():
    with pytest.raises(ValueError, match="ok, no_answer, unparsable, timeout, error"):
        Verdict(False, "maybe")
    with pytest.raises(ValueError, match="can't be correct"):
        Verdict(True, "timeout")
