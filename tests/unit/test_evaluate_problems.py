"""Problems, their names and seeds, and the settings they are sampled with."""

import json
import re
from pathlib import Path

import pytest

from riskpo_openrlhf.cli import evaluate
from riskpo_openrlhf.evaluation.problems import (
    OTHERS,
    PAPER,
    SAMPLING,
    EvaluationError,
    Problem,
    choose_sampling,
    digest,
    read_problems,
    sample_seed,
)  # fmt: skip

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_prepare_data_and_of_the_quickstart_are_read(tmp_path):
    chat = [{"role": "user", "content": "2+2?"}]
    one = write(
        tmp_path / "one.jsonl", {"prompt": chat, "label": "4", "datasource": "x", "id": "x/1", "images": ["/i"]}
    )
    two = write(
        tmp_path / "two.jsonl", {"input": "1+1=", "label": "2", "datasource": "y"}, {"input": "1+1=", "label": "2"}
    )
    assert read_problems([one, two], None, "label") == [
        Problem("x", "x/1", chat, "4", ("/i",)),
        Problem("y", "two:1", "1+1=", "2"),
        Problem("default", "two:2", "1+1=", "2"),
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "p", "label": 4}], "'label' is '4'.*numbers as text"),
        ([{"question": "p", "label": "4"}], "--input_key must name a field.*question, label"),
        ([{"prompt": "p", "label": "4", "id": "1"}] * 2, "line 2: the id '1' comes twice"),
        ([], "holds no problems"),
        ([[1]], "is not an object"),
    ],
)
def test_a_row_that_can_not_be_evaluated_is_named(tmp_path, rows, message):
    with pytest.raises(EvaluationError, match=message):
        read_problems([write(tmp_path / "a.jsonl", *rows)], None, "label")


def test_a_byte_order_mark_and_blank_lines_are_read_as_openrlhf_reads_them(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "p", "label": "1"}\n\n{"prompt": "q", "label": "2"}\n')
    rows = read_problems([tmp_path / "a.jsonl"], None, "label")
    assert [(row.id, row.prompt) for row in rows] == [("a:1", "p"), ("a:3", "q")]


def test_a_file_that_is_missing_or_not_json_is_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"nothing\.jsonl can't be read"):
        read_problems([tmp_path / "nothing.jsonl"], None, "label")
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "label": "1"}\nnot json\n')
    with pytest.raises(EvaluationError, match="line 2 is not JSON"):
        read_problems([tmp_path / "a.jsonl"], None, "label")


def test_the_same_problems_in_another_order_have_the_same_digest():
    problems = [Problem("s", str(i), f"{i}+1=", str(i + 1)) for i in range(5)]
    assert digest(problems) == digest(problems[::-1])
    assert digest(problems) != digest([*problems[:4], problems[4]._replace(label="0")])


def test_a_problem_s_seed_depends_on_its_name_and_the_run_s_seed_alone():
    problem = Problem("s", "1", "1+1=", "2")
    assert sample_seed(0, problem) == sample_seed(0, problem._replace(prompt="other"))
    assert len({sample_seed(seed, problem._replace(id=name)) for seed in (0, 1) for name in "ab"}) == 4
    assert 0 <= sample_seed(0, problem) < 2**48


def test_settings_come_from_the_source_and_flags_win():
    problems = [Problem("aime24", "1", "p", "1"), Problem("mine", "1", "p", "1")]
    chosen = choose_sampling(problems, {"n": None, "temperature": None})
    assert chosen == {"aime24": SAMPLING["aime24"], "mine": OTHERS}
    chosen = choose_sampling(problems, {"n": 2})
    assert (chosen["aime24"].n, chosen["aime24"].temperature) == (2, 0.6)
    assert "given here: n" in chosen["aime24"].source


def test_the_papers_setting_is_one_greedy_answer_for_every_source_and_flags_win():
    problems = [Problem("aime24", "1", "p", "1"), Problem("mine", "1", "p", "1")]
    assert choose_sampling(problems, {}, "paper") == {"aime24": PAPER, "mine": PAPER}
    assert (PAPER.temperature, PAPER.n, PAPER.max_new_tokens) == (0, 1, 3072)
    chosen = choose_sampling(problems, {"n": 16, "temperature": 0.8}, "paper")["mine"]
    assert (chosen.n, chosen.temperature, chosen.max_new_tokens) == (16, 0.8, 3072)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"n": 0}, "--n 0"),
        ({"temperature": -1.0}, "--temperature -1"),
        ({"top_p": 0.0}, "--top_p 0"),
        ({"max_new_tokens": 0}, "--max_new_tokens 0"),
        ({"temperature": 0.0, "n": 2}, "greedy decoding"),
    ],
)
def test_settings_that_can_not_be_are_refused(overrides, message):
    with pytest.raises(EvaluationError, match=message):
        choose_sampling([Problem("mine", "1", "p", "1")], overrides)


@pytest.mark.parametrize("source", SAMPLING)
def test_each_benchmark_has_a_row_in_the_documentation_with_its_settings(source):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if "|" in line]
    (row,) = [row for row in rows if row[0] == f"`{source}`"]
    known = SAMPLING[source]
    values = [str(known.n), f"{known.temperature:g}", f"{known.top_p:g}", f"{known.max_new_tokens:,}", known.source]
    assert row[1:] == values


def test_every_flag_is_documented():
    documented = set(re.findall(r"`(--[a-z_]+)", PAGE.read_text(encoding="utf-8")))
    assert {f"--{name}" for name in vars(evaluate.parse(["--compare", "a", "b"]))} <= documented


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model, --data, --out must be given"),
        (["--model", "m", "--data", "d", "--out", "o", "--reward", "/nothing.py"], "does not exist"),
        (
            ["--model", "m", "--data", "d", "--out", "o", "--reward", "math"],
            "a .py file, URLs that begin with http, or riskpo",
        ),
        (["--model", "m", "--data", "d", "--out", "o", "--num_engines", "0"], "--num_engines"),
    ],
)
def test_a_wrong_flag_ends_with_code_2_and_says_which(flags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        evaluate.parse(flags)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_missing_data_file_ends_with_code_2_before_anything_is_loaded(tmp_path, capsys):
    flags = ["--model", "m", "--data", str(tmp_path / "no.jsonl"), "--out", str(tmp_path / "out")]
    assert evaluate.main(flags) == 2
    assert "no.jsonl can't be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1c"])
def test_a_character_that_some_take_for_the_end_of_a_line_is_part_of_the_problem(character, tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": f"a{character}b{i}", "label": "1", "id": str(i)} for i in range(2)]
    path.write_text("\ufeff" + "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows), newline="")
    assert [problem.prompt for problem in read_problems([path], None, "label")] == [row["prompt"] for row in rows]


@pytest.mark.parametrize("images", ["/a/b.png", ["/a/b.png"]])
def test_an_image_alone_may_be_given_without_a_list_as_openrlhf_takes_it(images, tmp_path):
    path = write(tmp_path / "a.jsonl", {"prompt": "<image>", "label": "1", "images": images})
    assert read_problems([path], None, "label")[0].images == ("/a/b.png",)


@pytest.mark.parametrize("images", [None, "", []])
def test_null_counts_as_absent(images, tmp_path):
    rows = [{"prompt": p, "label": "1", "id": None, "datasource": None, "images": images} for p in "ab"]
    found = read_problems([write(tmp_path / "a.jsonl", *rows)], None, "label")
    assert found == [Problem("default", f"a:{i}", p, "1") for i, p in enumerate("ab", 1)]
