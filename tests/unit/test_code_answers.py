"""The block that is run, values that have no JSON, long integers and real numbers: drawn pairs of right and wrong."""

import json
import math
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.verifiers.code import verify
from riskpo_openrlhf.verifiers.code.extract import extract_programs
from riskpo_openrlhf.verifiers.code.outputs import same_output, same_result, tolerance_of

pytestmark = pytest.mark.usefixtures("working_sandbox")

SAYS = {"kind": "stdin", "tests": [{"input": "", "output": "right"}]}
CASES = [
    json.loads(line) for line in (Path(__file__).parents[1] / "data/code_cases.jsonl").read_text("utf-8").splitlines()
]
REFUSED = {"block_unclosed", "in_place_assert"}  # a block without an end may be cut off; docs/sandbox.md has the other


def test_programs_from_public_threads_about_graders_get_the_right_verdicts():
    wrong = [case for case in CASES if verify(case["response"], case["gold"]).correct != case["expected"]]
    assert [case["note"] for case in wrong if not case["expected"]] == []
    assert {case["kind"] for case in wrong} == REFUSED


# --- the block ---------------------------------------------------------------------------------------------------

PYTHON_TAGS = ["python", "Python", "python3", "py", "PY3", "python3.11", " python", "python title='a.py'",
               "{.python}", "python\r", "python {linenos=true}", "pypy3"]  # fmt: skip
OTHER_TAGS = ["text", "output", "cpp", "bash", "markdown", "json", "pycon", "python-repl", "console", "plaintext"]
OUTPUTS = [
    "right",
    "3",
    "3 is printed",
    "right\n7",
    "[1, 2]",
    "it's right",
    "Output: right",
    "-1 5",
    "'''",
    'a "quote',
]
PROGRAMS = [
    "print({0!r})",
    "x = {0!r}\nprint(x)",
    "def main():\n    print({0!r})\nmain()",
    's = "``` fence"\nprint({0!r})',
    "s = '```'  # it's one ```\nprint({0!r})",
    'def main():\n    """Say it:\n    ```\n    main()\n    ```\n    """\n    print({0!r})\nmain()',
    '"""\nExample:\n```python\nmain()\n```\n"""\nprint({0!r})',
    "'''\n```\nmain()\n```\nit's \"quoted\"\n'''\nprint({0!r})",
    "# ```\nprint({0!r})",
    "print({0!r})  # don't use \"",
    "s = 'it\\'s ```'\nprint({0!r})",
]
PROSE = ["So:", "It prints:", "The `answer` is x.", "1. First\n2. Second", "", "It's done."]
OF_FENCES = ["It is one block that opens with ```python and ends with ```.", "It ends with ```",
             "It starts with ```python", "I write ```print``` once."]  # fmt: skip


@st.composite
def fenced(draw, tag: str, content: str) -> str:
    fence = draw(st.sampled_from(["```", "```", "```", "````", "~~~"]))
    if fence == "~~~" and "~" in content:
        fence = "```"
    first, others = draw(
        st.sampled_from([("", ""), ("", ""), ("   ", "   "), ("- ", "  "), ("1. ", ""), ("> ", "> ")])
    )
    return first + f"{fence}{tag}\n{content}\n{fence}".replace("\n", f"\n{others}")


@st.composite
def responses(draw) -> str:
    """A response in which one program prints `right`; whatever else could be run prints `wrong`."""
    program = st.sampled_from(PROGRAMS)
    right, wrong = draw(program).format("right"), draw(program).format("wrong")
    tagged = draw(st.booleans())
    python, other = st.sampled_from(PYTHON_TAGS), st.sampled_from(OTHER_TAGS)
    blocks = []
    for _ in range(draw(st.integers(0, 2))):  # before: everything but a tagged program that would count
        kind = draw(st.sampled_from(["program", "untagged", "other"]))
        tag = {"program": draw(python) if tagged else "", "untagged": "", "other": draw(other)}[kind]
        text = {"program": wrong, "untagged": wrong if tagged else "pseudo code: say it", "other": "print('wrong')"}
        blocks.append(draw(fenced(tag, text[kind])))
    blocks.append(draw(fenced(draw(python) if tagged else "", right)))
    for _ in range(draw(st.integers(0, 2))):  # after: outputs and other languages
        blocks.append(draw(fenced(draw(st.sampled_from([*OTHER_TAGS, ""])), draw(st.sampled_from(OUTPUTS[:7])))))
    # Prose about fences, or fences behind prose, unless a program has a block within: who could tell which is meant?
    clear = tagged and "Example:" not in "".join(blocks)
    prose = PROSE + OF_FENCES * (clear and draw(st.booleans()))
    behind = clear and prose == PROSE and draw(st.booleans())
    text = "\n".join(
        draw(st.sampled_from(prose)) + (" " if behind and block.startswith("```") else "\n") + block
        for block in blocks
    )
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


@settings(max_examples=40, deadline=None)
@given(responses())
def test_the_program_is_the_last_block_that_is_python_whatever_stands_around_it(response):
    assert verify(response, json.dumps(SAYS)).correct, response


@pytest.mark.parametrize(
    "response",
    [
        2 * '```\n"""\nExample:\n```python\nmain()\n```\n"""\nprint(\'wrong\')\n```\nSo:\n'
        + "```\nprint('right')\n```",
        '```\n5\n```\n```\n>>> """\n```\nSo:\n```python\n"""Say it."""\nprint(\'right\')\n```',
    ],
    ids=["a tag within a string", "an output that opens a string"],
)
def test_a_tag_counts_if_a_block_begins_there(response):
    assert verify(response, json.dumps(SAYS)).correct


@pytest.mark.parametrize(
    "response",
    [
        "Code: ```python\nprint('right')\n```Explanation\nIt says it.",
        "Code: ```python\nprint('right')\n``` Run: ```bash\npython a.py\n```",
        "Code:```python\nprint('right')\n```Input:```text\n1 2\n```Output:```text\n3\n```",
        "Draft: ```python\nprint('wrong')\n```Final: ```python\nprint('right')\n```Explanation\nSimple.",
        'Code: ```python\n"""\nUsage:\n```bash\npython a.py\n```\n"""\nprint(\'right\')\n```',
        'Code: ```python\n"""\nUsage:\n```python\nmain()\n```\n"""\nprint(\'right\')\n```',
        "```python\nprint('wrong')\n\n```python\nprint('right')\n```",
        "```python\nprint('wrong')\n\nWait, that is wrong.\n\n```python\nprint('right')\n```",
        "```python\n\n```python\nprint('right')\n```",
        "```\nSolution:\n```python\nprint('right')\n```",
        "> ```python\n> print('wrong')\n>\n> ```python\n> print('right')\n> ```",
    ],
)
def test_a_fence_that_says_python_opens_a_block_and_words_behind_a_closing_one_are_prose(response):
    assert verify(response, json.dumps(SAYS)).correct


def test_a_program_that_runs_can_not_pass_for_one_that_is_no_python():
    leaves = "import os\nprint('wrong', flush=True)\nos._exit(65)"
    call = {"kind": "functional", "function": "f", "tests": [{"input": "1", "output": "1"}]}
    for gold in map(json.dumps, (SAYS, call)):
        verdict = verify(f"```\nprint('right')\ndef f(x):\n    return x\n```\n```\n{leaves}\n```", gold)
        assert (verdict.correct, verdict.status, verdict.extracted.strip()) == (False, "ok", leaves), gold


@pytest.mark.parametrize("prose", ["It prints right.", "Output:", "Explanation: it prints."])
@pytest.mark.parametrize("tag", ["python", "Python"])
def test_a_block_that_is_closed_by_a_fence_that_says_python_is_the_program_if_prose_follows(prose, tag):
    response = f"```python\nprint('right')\n```{tag}\n{prose}\n```\nright\n```"
    assert verify(response, json.dumps(SAYS)).correct


def test_sandboxes_that_run_at_once_do_not_tell_each_other_that_a_program_runs():
    response = "Program:\n```\nprint('right')\n```\nOutput:\n```\nit is right\n```"
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda _: verify(response, json.dumps(SAYS)), range(64)))
    assert [verdict for verdict in verdicts if not verdict.correct] == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_below_the_program_is_no_program(output):
    for tag in ("python", ""):
        response = f"```{tag}\nprint('right')\n```\nOutput:\n```\n{output}\n```"
        assert verify(response, json.dumps(SAYS)).correct
        response = response.replace("'right'", "'wrong'")
        assert not verify(response, json.dumps(SAYS)).correct


def test_a_block_that_is_no_python_gives_way_to_no_earlier_tagged_one():
    response = "```python\nprint('right')\n```\nBetter:\n```python\nprint('right'\n```"
    assert verify(response, json.dumps(SAYS)).status == "unparsable"


@pytest.mark.parametrize("text", [*("".join(one) * 20_000 for one in ("> ", "- ", "1. ", "x ```\n", "x ```c\n", "> ```py\n")), "`" * 50_000, "```\n" * 20_000, "~~~a\n" * 20_000, "```py\n'" + "\\'- " * 30_000, '"' + '\na\\"""```py\n' * 12_000, '```py\n"""' * 8_000, "'" * 90_000,  # noqa: E501
                                  "```python\n" + "\\\"'#`" * 20_000, "".join("`" * n + "\n" for n in range(400, 2, -1))])  # fmt: skip  # noqa: E501
def test_a_degenerate_response_is_searched_in_a_moment(text):
    import time

    begin = time.process_time()
    extract_programs(text)
    assert time.process_time() - begin < 3


# --- results of functions ----------------------------------------------------------------------------------------


def returned(value: str, expected: str) -> bool:
    tests = {"kind": "functional", "function": "f", "tests": [{"input": "1", "output": expected}]}
    return verify(f"```python\ndef f(x):\n    return {value}\n```", json.dumps(tests)).correct


@st.composite
def containers(draw):
    """(expression, JSON of its value, JSON of another value)."""
    items = draw(st.lists(st.integers(-99, 99), min_size=1, max_size=6))
    other = [*items[:-1], items[-1] + 1]
    word = draw(st.text("abcxyz ", min_size=1, max_size=9))
    counts = {str(k): items.count(k) for k in items}
    return draw(
        st.sampled_from(
            [
                (f"deque({items})", items, other),
                (f"(x for x in {items})", items, other),
                (f"map(int, {items})", items, other),
                (f"reversed({items[::-1]})", items, other),
                (f"[deque({items}), tuple({items})]", [items, items], [items, other]),
                (f"range({len(items)})", list(range(len(items))), list(range(len(items) + 1))),
                (f"Counter({word!r})", {c: word.count(c) for c in word}, {c: word.count(c) + 1 for c in word}),
                (f"Counter({items})", counts, counts | {"1000": 1}),
                (f"defaultdict(int, {{{word!r}: 3}})", {word: 3}, {word: 4}),
                (f"OrderedDict([({word!r}, {items})])", {word: items}, {word: other}),
                (f"{word.encode()!r}", word, word + "a"),
                (f"bytearray({word.encode()!r})", word, word[1:] + "q"),
                (f"{{{word!r}: 1}}.keys()", [word], [word, word]),
                (f"__import__('collections').namedtuple('P', 'a b')({items[0]}, 2)", [items[0], 2], [items[0], 3]),
            ]
        )
    )


@settings(max_examples=25, deadline=None)
@given(containers())
def test_results_of_the_standard_library_count_by_their_content(drawn):
    value, expected, other = drawn
    assert returned(value, json.dumps(expected))
    assert not returned(value, json.dumps(other))


def test_a_set_is_no_list_because_its_order_is_not_defined():
    assert not returned("{1, 2}", "[1, 2]")


@settings(max_examples=4, deadline=None)
@given(st.integers(4000, 9000), st.integers(-9, 9), st.booleans())
def test_integers_may_have_more_digits_than_python_prints(digits, change, negative):
    text = ("-" if negative else "") + "".join(random.Random(digits).choices("123456789", k=digits))
    wrong = text[:-3] + f"{(int(text[-3:]) + (change or 1)) % 1000:03}"
    program = f"int({text[: digits // 2]!r}) * 10 ** {len(text) - digits // 2} + {'-' * negative}int({text[digits // 2 :]!r})"  # noqa: E501
    assert returned(program, text) and not returned(program, wrong)
    stdin = {"kind": "stdin", "tests": [{"input": "", "output": text}]}
    for answer, right in ((text, True), (wrong, False)):
        response = f"```python\nimport sys\nsys.set_int_max_str_digits(9999)\nn = int('{answer}')\nprint(n)\n```"
        assert verify(response, json.dumps(stdin)).correct is right
    assert verify(f"```python\nprint({program})\n```", json.dumps(stdin)).correct


def test_a_long_integer_is_read_from_the_input_and_is_no_text():
    tests = {"kind": "functional", "function": "f", "tests": [{"input": "1" * 6000, "output": "2" * 6000}]}
    assert verify("```python\ndef f(x):\n    return 2 * x\n```", json.dumps(tests)).correct
    assert not verify("```python\ndef f(x):\n    return str(2 * x)\n```", json.dumps(tests)).correct


# --- real numbers ------------------------------------------------------------------------------------------------

REALS = st.one_of(
    st.floats(-1e3, 1e3, allow_nan=False), st.floats(1e3, 1e9, allow_nan=False), st.floats(1e-9, 1e-3, allow_nan=False)
)
FORMATS = st.sampled_from(["{:.6f}", "{:.7f}", "{:.9f}", "{:.12f}", "{:.15g}", "{!r}"])


@settings(max_examples=300, deadline=None)
@given(REALS, FORMATS, st.sampled_from(["{:.9f}", "{:.12f}", "{!r}"]), st.floats(-0.4, 0.4), st.sampled_from([-1, 1]))
def test_real_numbers_are_right_within_1e_6_and_wrong_beyond(real, shown, written, inside, sign):
    expected = shown.format(real)
    set_ = {"kind": "stdin", "tests": [{"input": "", "output": expected}, {"input": "", "output": "0.333333333"}]}
    tolerance = tolerance_of(set_)
    allowed = 1e-6 * max(1.0, abs(real))
    close, far = written.format(real + inside * allowed), written.format(real + sign * 20 * allowed)
    assert tolerance == 1e-6
    assume("." in expected or float(close) % 1)  # two whole numbers are equal or not
    assert same_output(close, expected, tolerance) and not same_output(far, expected, tolerance)
    assert same_output(f"Case #1: {close} YES", f"Case #1: {expected} YES", tolerance)
    assert not same_output(f"Case #1: {close} NO", f"Case #1: {expected} YES", tolerance)
    if math.isfinite(float(close)) and "." in expected:
        assert same_result(json.dumps([float(close)]), f"[{expected}]", tolerance)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(1, 4), st.sampled_from([1, -1, 7]))
def test_exact_decimals_and_integers_stay_exact(number, places, change):
    """An amount of money, or a count: nothing in the test set says that it is a rounded real number."""
    for p in (0, places):
        text, other = (
            f"{n // 10**p}" + (f".{n % 10**p:0{p}}" if p else "") for n in (abs(number), abs(number) + change)
        )
        if other == text or "-" in other:
            continue
        tests = {"kind": "stdin", "tests": [{"input": "", "output": text}]}
        assert tolerance_of(tests) is None
        assert same_output(text, text, None) and not same_output(other, text, None)
        assert same_result(text.lstrip(), text)
        if abs(number) < 10**9:  # what double precision tells apart
            assert not same_result(other, text)


@pytest.mark.parametrize(
    ("shown", "right"),
    [
        ("123456789", True),
        ("123456788", False),
        ("123456788.0", False),
        ("123456789.00001", True),
        ("12345_6789", False),
    ],
)
def test_whole_numbers_beside_real_ones_are_exact(shown, right):
    outputs = ["0.50000", "123456789"]
    tests = {"kind": "stdin", "tests": [{"input": str(i), "output": text} for i, text in enumerate(outputs)]}
    program = f"print('{shown}' if int(input()) else '0.5')"
    assert verify(f"```python\n{program}\n```", json.dumps(tests)).correct is right


@given(st.from_regex(r"0[01]{2,12}", fullmatch=True))
def test_digits_that_begin_with_0_are_no_number(digits):
    assert same_output(f"a {digits}", f"a {digits}")
    assert not same_output(digits.lstrip("0") or "0", digits) and not same_output("0" + digits, digits, 1e-6)
    assert same_output("0.50 0 -0.5", "0.5 0.0 -0.50")


def test_a_test_set_may_say_how_close_is_close_enough():
    tests = {"kind": "stdin", "tolerance": 1e-3, "tests": [{"input": "", "output": "2.5"}]}
    for program, right in (("print(2.5004)", True), ("print(2.51)", False), ("print(float('nan'))", False)):
        assert verify(f"```python\n{program}\n```", json.dumps(tests)).correct is right
    exact = {"kind": "stdin", "tolerance": 0, "tests": [{"input": "", "output": "0.3333333"}]}
    assert not verify("```python\nprint(1 / 3)\n```", json.dumps(exact)).correct
    assert verify("```python\nprint('0.3333333')\n```", json.dumps(exact)).correct


def test_five_decimals_stand_for_what_rounds_to_them():
    assert same_result("0.6666666666666666", "0.66667", 1e-6) and not same_result("0.66668", "0.66667", 1e-6)
    assert tolerance_of({"tests": [{"output": "[0.66667]"}]}) == 1e-6
    assert tolerance_of({"tests": [{"output": "1.2.3456789 v0.1234567"}]}) is None  # a version, a name
    assert tolerance_of({"tests": [{"output": "192.168.100.100000"}]}) is None
