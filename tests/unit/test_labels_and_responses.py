"""What a reward function is handed: the label that names its verifier, and the response inside the query."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riskpo_openrlhf.verifiers import math
from riskpo_openrlhf.verifiers.labels import VERIFIERS, read_label, write_label
from riskpo_openrlhf.verifiers.response import response_of

golds = st.text(min_size=1).filter(str.strip)


@given(st.sampled_from(VERIFIERS), golds)
def test_a_label_gives_back_its_verifier_and_gold(verifier, gold):
    assert read_label(write_label(verifier, gold)) == (verifier, gold)


@pytest.mark.parametrize("label", ["42", "\\frac{1}{2}", "{1, 2}", "{}", "[1, 2]", "[a]", "{a: 1}"])
def test_any_other_string_is_the_answer_of_a_math_problem(label):
    assert read_label(label) == ("math", label)


@pytest.mark.parametrize("fields", [{"a": 1}, {"verifier": "math"}, {"ground_truth": "5", "style": "rule"}])
def test_a_json_object_of_another_framework_is_refused_with_its_fields(fields):
    with pytest.raises(ValueError, match=f"fields '{next(iter(fields))}'.*write_label"):
        read_label(json.dumps(fields))
    with pytest.raises(ValueError, match="fields"):
        read_label(json.dumps({"verifier": "math", "gold": "5", "more": 1}))


@pytest.mark.parametrize("label", ["", "  ", None, 42])
def test_an_empty_label_and_a_number_are_refused(label):
    with pytest.raises(ValueError, match="--data.label_key"):
        read_label(label)


def test_unknown_verifiers_and_empty_golds_are_refused_by_name():
    with pytest.raises(ValueError, match="'chemistry' is not known; one of: math, geometry, code"):
        write_label("chemistry", "H2O")
    with pytest.raises(ValueError, match="'chemistry' is not known"):
        read_label('{"verifier": "chemistry", "gold": "H2O"}')
    with pytest.raises(ValueError, match="gold ' '"):
        write_label("math", " ")
    with pytest.raises(ValueError, match="gold 7"):
        write_label("math", 7)


CHAT = "<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"


@given(st.text(alphabet=st.characters(exclude_characters="<>|｜")))
def test_the_response_is_what_follows_the_prompt_without_special_tokens(text):
    assert response_of(CHAT + text + "<|im_end|>", CHAT) == text
    assert response_of(CHAT + text + "<｜end▁of▁sentence｜>", CHAT) == text


def test_special_tokens_go_at_the_ends_only_for_a_program_may_print_them():
    program = "```python\nprint('<s>x</s>')\n```"
    assert response_of(f"{CHAT}<s> {program}<|im_end|>\n<pad><pad>", CHAT) == f" {program}"
    assert math.verify(response_of(CHAT + r"<s>\boxed{<unk>5}<|im_end|><pad>", CHAT), "5").correct


def test_a_prompt_with_expanded_image_placeholders_is_found_by_its_end():
    prompt = "<|vision_start|><|image_pad|><|vision_end|>Find x." + CHAT
    query = prompt.replace("<|image_pad|>", "<|image_pad|>" * 64) + "x is \\boxed{7}<|im_end|>"
    assert response_of(query, prompt) == "x is \\boxed{7}"


def test_a_prompt_that_was_cut_from_the_left_is_found_by_its_end():
    prompt = "a long story " * 100 + CHAT
    assert response_of(prompt[-80:] + "2", prompt) == "2"


def test_a_response_that_repeats_its_prompt_is_kept_whole():
    assert response_of(CHAT + "You said: " + CHAT + "2", CHAT).startswith("You said: ")


def test_thinking_that_the_template_opened_is_marked_as_such():
    assert response_of("Q<think>\nhm</think>4", "Q<think>\n") == "<think>hm</think>4"


def test_a_query_without_its_prompt_is_an_error_that_shows_both():
    with pytest.raises(ValueError, match="--data.max_len.*assistant.*something else"):
        response_of("something else", CHAT)


NUMBERS = st.recursive(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.lists)
OTHERS = st.text() | st.booleans() | st.none() | st.dictionaries(st.text(), st.integers(), min_size=1)


@given(st.lists(NUMBERS))
def test_a_list_of_numbers_is_a_mathematical_answer(value):
    label = json.dumps(value)
    assert read_label(label) == ("math", label)


@given(st.lists(NUMBERS), OTHERS, st.booleans())
def test_a_list_of_anything_else_is_refused_as_an_unknown_object_is(numbers, other, nested):
    with pytest.raises(ValueError, match="list that is no test set.*write_label"):
        read_label(json.dumps([*numbers, [other] if nested else other]))


STATEMENTS = ["assert f(1) == 2", "assert(f(1) == 2)", "  assert not f(0)", "import math\nassert f(1) == math.ceil(2)"]


@given(st.lists(st.sampled_from([*STATEMENTS, "import math", "from math import pi", ""])))
def test_a_list_of_asserts_with_imports_among_them_is_a_test_set(lines):
    label = json.dumps(lines)
    if set(lines) & set(STATEMENTS):
        assert read_label(label) == ("code", label)
    elif lines:
        with pytest.raises(ValueError, match="list that is no test set"):
            read_label(label)
