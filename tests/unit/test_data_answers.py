"""Right answers, instructions and the comparison of problems: laws, and each form that a source is known to have."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskpo_openrlhf.data import answers, reasoning
from riskpo_openrlhf.data.decontaminate import contaminated, identity, normalise
from riskpo_openrlhf.data.instructions import CODE_HEADING, INSTRUCTIONS, bare_problem, code_prompt
from riskpo_openrlhf.data.schema import DataError, check_row
from riskpo_openrlhf.data.sources import SOURCES
from riskpo_openrlhf.verifiers.labels import write_label

BALANCED = st.recursive(
    st.text(st.sampled_from("ab1,+ $"), min_size=1, max_size=6) | st.sampled_from([r"\{", r"\}", r"\frac{1}{2}"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"),
    max_leaves=8,
)
PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60)


@given(BALANCED.filter(str.strip), st.sampled_from([r"\boxed{%s}", r"\fbox{%s}", r"\boxed {%s}"]), PLAIN)
def test_the_last_box_is_what_was_put_into_it(content, box, before):
    before = before.replace("\\", "")
    text = f"{before} $\\boxed{{0}}$ and ${box % content}$. Done {{here}}."
    assert answers.last_boxed(text) == content.strip()


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed{\frac{3}{8}}$", r"\frac{3}{8}"),
        (r"so $\boxed 7$ is it", "7"),
        (r"either $\boxed 7$ or rather $\boxed{8}$", "8"),
        (r"either $\fbox{7}$ or rather $\boxed 12$", "12"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{a \} b}}", r"\text{a \} b}"),
        (r"\boxed{10,\!080}", r"10,\!080"),
    ],
)
def test_boxes_of_every_form_are_read(solution, answer):
    assert answers.last_boxed(solution) == answer


@pytest.mark.parametrize("solution", ["no box", r"\boxed{}", r"\boxed{never closed", r"\boxed $", r"\fbox{ }"])
def test_a_solution_without_an_answer_is_refused(solution):
    with pytest.raises(answers.AnswerError):
        answers.last_boxed(solution)


@given(st.integers(-(10**6), 10**6), st.integers(0, 8))
def test_a_whole_number_is_the_same_however_it_is_written(number, width):
    forms = (
        number,
        float(number),
        f"{number}",
        f"{number:0{width}d}",
        f" {number}.0 ",
        f"${number}$",
        f"{number}^\\circ",
    )
    assert {answers.integer(form) for form in forms} == {str(number)}


@pytest.mark.parametrize("value", ["7.5", 7.5, "", None, "x", "1/2", float("nan"), float("inf"), "1 2", r"\frac12"])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(answers.AnswerError):
        answers.integer(value)


@pytest.mark.parametrize(
    ("field", "answer"),
    [("6*2=<<6*2=12>>12\n#### 12", "12"), ("#### 1,260", "1260"), ("####  -3.", "-3"), ("#### 2.50", "2.50")],
)
def test_gsm8k_answers_stand_after_the_hashes(field, answer):
    assert answers.after_hashes(field) == answer


@pytest.mark.parametrize("answer", ["12", "#### ", "#### twelve", "#### 1 #### 2"])
def test_a_gsm8k_answer_of_another_form_is_refused(answer):
    with pytest.raises(answers.AnswerError):
        answers.after_hashes(answer)


@pytest.mark.parametrize("value", ["", "  ", None, 3, ["a"]])
def test_an_answer_that_is_no_text_is_refused(value):
    with pytest.raises(answers.AnswerError):
        answers.text(value)


@given(PLAIN, st.sampled_from(["answer", "boxed"]))
def test_an_instruction_that_is_added_can_be_removed_again_word_for_word(problem, name):
    instruction = INSTRUCTIONS[name]
    prompt = instruction.add(problem)
    assert instruction.remove(prompt) == problem
    assert "{{" not in prompt.replace(problem, "")
    with pytest.raises(ValueError, match="already"):
        instruction.add(prompt)


def test_a_problem_made_of_the_letters_of_the_template_loses_none_of_them():
    answer = INSTRUCTIONS["answer"]
    problem = 'Solve: the least "Answer" to a step by step problem:'
    assert answer.remove(answer.add(problem)) == problem


@pytest.mark.parametrize(
    "prompt", ["", "Bare.", INSTRUCTIONS["answer"].head + "No tail.", INSTRUCTIONS["answer"].tail]
)
def test_an_instruction_that_is_not_there_is_not_removed_in_silence(prompt):
    with pytest.raises(ValueError, match="expected instruction"):
        INSTRUCTIONS["answer"].remove(prompt)


def test_the_instructions_are_those_of_the_authors_and_of_the_data_set():
    assert (len(INSTRUCTIONS["answer"].head), len(INSTRUCTIONS["answer"].tail)) == (178, 62)
    boxed = INSTRUCTIONS["boxed"]
    assert boxed.head == ""
    assert boxed.tail == " Let's think step by step and output the final answer within \\boxed{}."


def test_every_source_has_an_instruction_that_its_verifier_reads():
    for source in SOURCES.values():
        assert source.verifier in INSTRUCTIONS[source.instruction].verifiers, source.name
        assert source.role in ("train", "test") and source.name.replace("_", "").isalnum()


def test_an_answer_in_the_form_that_an_instruction_asks_for_is_one_that_the_verifier_reads():
    from riskpo_openrlhf.verifiers.code.extract import extract_programs
    from riskpo_openrlhf.verifiers.math.extract import extract_answers

    assert extract_answers("We add.\nAnswer: 7")[0] == extract_answers(r"So it is $\boxed{7}$.")[0] == "7"
    assert extract_programs("Thought.\n```python\nprint(7)\n```\n") == ["print(7)\n"]


def test_a_code_prompt_asks_for_the_starter_code_or_for_standard_input():
    with_code, without = code_prompt("Add.", "class Solution:\n    def add(self):\n"), code_prompt("Add.\n")
    assert "class Solution:\n    def add(self):\n```" in with_code and "standard input" not in with_code
    assert "standard input" in without and without.count("```python") == 1
    assert bare_problem(with_code) == bare_problem(without) == "Add."
    assert with_code.count(CODE_HEADING) == 1


SEPARATORS = st.sampled_from([" ", "\n", "  ", r"\,", r"\;", r"\!", r"\ ", "~", "$", r"\left", r"\right", r"\quad "])


@given(st.lists(st.sampled_from(["a", "B", "12", "(", ")", "+", "é", "x^2"]), min_size=1, max_size=8), st.data())
def test_spacing_and_case_make_no_other_problem(words, data):
    spaced = "".join(data.draw(SEPARATORS) + (" " if re.match("[aBx]", word) else "") + word for word in words)
    assert normalise(
        spaced.upper().replace("\\LEFT", "\\left").replace("\\RIGHT", "\\right").replace("\\QUAD", "\\quad")
    ) == (normalise("".join(words)))


@pytest.mark.parametrize(
    ("one", "other"), [("x+1", "x-1"), ("Find 12.", "Find 13."), (r"\leftarrow", r"\rightarrow"), (r"\frac12", "12")]
)
def test_other_problems_stay_other_problems(one, other):
    assert normalise(one) != normalise(other)


def test_display_fractions_and_dollar_signs_make_no_other_problem():
    assert normalise(r"What is $\dfrac{1}{2}$?") == normalise(r"What is \(\frac{1}{2}\)?")


def row(text: str, verifier: str = "math", gold: str = "1", **more) -> dict:
    prompt = [{"role": "user", "content": text}]
    return {"prompt": prompt, "label": write_label(verifier, gold), "datasource": "d", "id": "d/1"} | more


def test_a_problem_is_found_in_the_test_set_under_any_instruction():
    problem = "Find the sum of $1$ and $2$."
    train = [row(instruction.add(text)) for text in (problem, "Other.", problem.upper()) for instruction in
             (INSTRUCTIONS["answer"], INSTRUCTIONS["boxed"])]  # fmt: skip
    assert contaminated(train, [row(INSTRUCTIONS["boxed"].add(problem))]) == [0, 1, 4, 5]
    assert identity(train[0]) == identity(train[1])


def test_images_are_part_of_a_problem():
    train = [row("<image>Find x.", "geometry", images=[f"/train/{i}.png"]) for i in range(3)]
    assert contaminated(train, [row("<image>Find x.", "geometry", images=["/test/1.png"])]) == [1]


def test_a_short_task_or_a_mathematical_problem_may_be_part_of_another():
    long = "Read the lengths of the roads and print the longest way that visits no town twice. " * 2
    code = [row(f"Write Python. {long} Fence it.", "code"), row("Print n. Then more.", "code"), row(f"{long} Why?")]
    assert contaminated(code, [row(code_prompt(long), "code"), row(code_prompt("Print n."), "code"), row(long)]) == [0]


GOOD = row("Find x.", images=[])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 7}, "label is 7"),
        ({"label": " "}, "label is ' '"),
        ({"id": None}, "id is None"),
        ({"datasource": ""}, "datasource is ''"),
        ({"prompt": "Find x."}, "must be a list of turns"),
        ({"prompt": []}, "must be a list of turns"),
        ({"prompt": [{"role": "user", "content": "\n"}]}, "the prompt is empty"),
        ({"prompt": [{"role": "user", "content": r"Use \boxed{{}}."}]}, r"contains \boxed"),
        ({"prompt": [{"role": "user", "content": "2<<1+1=2>>"}]}, "gives the answer away"),
        ({"prompt": [{"role": "user", "content": "<image>?"}]}, "1 times <image> in the prompt, but 0 images"),
        ({"prompt": [{"role": "user", "content": "<image>"}], "images": ["a.png"]}, "must be an absolute path"),
        ({"prompt": [{"role": "user", "content": "<image>"}], "images": ["/" + "a" * 256]}, "at most 256"),
        ({"label": '{"verifier": "poetry", "gold": "1"}'}, "verifier 'poetry' is not known"),
    ],
)
def test_a_row_that_openrlhf_would_misread_is_refused(change, message):
    check_row(GOOD)
    with pytest.raises(ValueError, match=re.escape(message)):
        check_row(GOOD | change)


def test_shifts_in_a_program_are_no_calculator_annotation():
    check_row(row("In C, x = 1 << 3; y >>= 2. What is x?"))


@pytest.mark.parametrize("task", reasoning.TASKS)
def test_every_reasoning_task_gives_whole_numbers_and_no_problem_twice(task):
    # letters and largest islands come in small numbers; a size is named where the default has too few problems
    made = [list(reasoning.problems([task], 12, seed, split)) for seed in (0, 1) for split in ("train", "test")]
    questions = [{normalise(item["question"]) for item in items} for items in made]
    assert all(len(found) == 12 for found in questions)
    assert not (questions[0] | questions[2]) & (questions[1] | questions[3])
    assert questions[0] != questions[2]
    assert all(re.fullmatch(r"-?\d+", answers.integer(item["answer"])) for items in made for item in items)


@pytest.mark.parametrize("settings", ["allow_parentheses=False", "max_digits=3", "format_style='natural'"])
def test_an_expression_has_the_value_that_is_its_answer(settings):
    for item in reasoning.problems([f"basic_arithmetic:{settings}"], 200, 3, "train"):
        shown = re.sub(r"(\d+)", r"Fraction(\1)", re.search(r"[-(\d].*[\d)]", item["question"])[0])
        assert eval(shown, {"Fraction": Fraction}) == int(item["answer"]), item


@pytest.mark.parametrize("task", ["gcd:max_value=20", "chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1"])
def test_the_terms_of_a_test_are_no_training_problem_in_another_order(task):
    train, test = (
        {"".join(sorted(row["question"])) for row in reasoning.problems([task], 30, seed, split)}
        for seed, split in ((0, "train"), (1, "test"))
    )
    assert not train & test


def test_reasoning_problems_are_the_same_for_the_same_seed_and_take_turns():
    tasks = ["chain_sum:min_terms=2,max_terms=2,max_digits=1", "gcd"]
    first = list(reasoning.problems(tasks, 9, 3, "train"))
    assert first == list(reasoning.problems(tasks, 9, 3, "train"))
    assert sum("Common Divisor" in item["question"] for item in first) == 4


def test_a_task_with_too_few_problems_says_so():
    with pytest.raises(ValueError, match="too few different problems"):
        list(reasoning.problems(["chain_sum:max_terms=2,max_digits=1,min_digits=1"], 250, 0, "test"))


def test_a_problem_found_at_the_last_try_counts():
    tries = []

    def row(task, item):
        tries.append(item)
        return {"question": "?"} if len(tries) == 1100 else None

    assert reasoning.draw([("kind", "chain_sum", {})], 1, 0, "train", row) == [{"question": "?"}]


def test_data_errors_are_value_errors():
    assert issubclass(DataError, ValueError)
