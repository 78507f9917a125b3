"""`prepare_data --check` and the dry run's check: each trap is reported, and good files get no complaint."""

import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from riskpo_openrlhf.cli.prepare_data import main
from riskpo_openrlhf.data.instructions import INSTRUCTIONS
from riskpo_openrlhf.integration.check_data import ERROR, NOTE, WARNING, check_paths, read_files
from riskpo_openrlhf.verifiers.labels import write_label

BOXED = INSTRUCTIONS["boxed"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path.with_name(f"{tmp_path.name}-cache"))


def row(i: int = 0, **change) -> dict:
    prompt = [{"role": "user", "content": BOXED.add(f"What is {i} + {i}?")}]
    return {"prompt": prompt, "label": write_label("math", str(2 * i)), "datasource": "sums", "id": f"s/{i}"} | change


def asked(text: str, **change) -> dict:
    return row(prompt=[{"role": "user", "content": BOXED.add(text)}], **change)


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def complaints(findings, level=WARNING) -> list[str]:
    return [str(finding) for finding in findings if finding.level >= level]


def test_good_files_get_no_complaint_alone_mixed_or_with_images(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    image = asked("<image>Find x.", images=[str(tmp_path / "a.png")], label=write_label("geometry", "3"))
    paths = [write(tmp_path / "text.jsonl", [row(i) for i in range(5)]), write(tmp_path / "image.jsonl", [image])]
    findings = check_paths(paths)
    assert complaints(findings) == []
    notes = " ".join(complaints(findings, NOTE))
    assert "5 rows are read, of 'sums'" in notes and "--data.max_images_per_prompt 1" in notes
    assert "--tokenizer" in notes


def test_plain_questions_and_answers_of_ones_own_are_fine_with_their_own_columns(tmp_path):
    rows = [{"question": f"What is {i}? Use \\boxed{{}}.", "answer": str(i), "datasource": "own"} for i in range(3)]
    path = write(tmp_path / "own.jsonl", rows)
    assert complaints(check_paths([path], input_key="question", label_key="answer")) == []
    found = complaints(check_paths([path]))
    assert any("no column 'prompt', but question, answer, datasource" in text for text in found)


@pytest.mark.parametrize(
    ("rows", "level", "said"),
    [
        ([row(label="033"), row(1, label=7)], ERROR, "the label is int, not a string (2 of 2 rows"),
        ([row(label=33)], ERROR, "the label is int, not a string"),
        ([row(label="2024-01-02")], ERROR, "the label is datetime, not a string"),
        ([row(label="")], ERROR, "the label can't be used: label '' is not allowed"),
        ([row(label='{"verifier": "poetry", "gold": "1"}')], ERROR, "verifier 'poetry' is not known"),
        ([row(label=write_label("code", "/not/there.json.gz"))], ERROR, "names a file of tests that is not there"),
        ([row(label=write_label("code", '{"kind": "stdin", "tests": []}'))], ERROR, "the tests in the label"),
        ([row(prompt=[{"role": "user", "content": r"Use \boxed{{}}."}])], ERROR, r"shows the model \boxed{{}}"),
        ([asked("Hello {{name}}.")], WARNING, "{{placeholder}}"),
        ([asked("1+1=<<1+1=2>>2?")], ERROR, "gives answers away"),
        ([row(prompt=[{"role": "user", "content": " "}])], ERROR, "empty prompt"),
        ([row(prompt=[{"role": "user", "content": ""}])], ERROR, "row 0: 'prompt' is"),
        ([row(prompt=[{"role": "user"}])], ERROR, "row 0: 'prompt' is"),
        ([row(prompt=[])], ERROR, "row 0: 'prompt' is '[]'"),
        ([row(prompt=7)], ERROR, "'prompt' holds int"),
        ([row(prompt=[{"role": "user", "content": "What is 1?"}])], WARNING, r"neither \boxed nor Answer:"),
        ([row(label=write_label("code", '{"kind": "assert", "check": "pass"}'))], WARNING, "neither ```python"),
        ([asked(INSTRUCTIONS["answer"].add("1?"))], WARNING, "says more than once how to answer"),
        ([row(), row()], WARNING, "1 problems are there more than once"),
        ([asked("<image>?")], ERROR, "1 times <image>, but 0 images"),
        ([row(images=["/not/there.png"])], ERROR, "0 times <image>, but 1 images"),
        ([asked("<image>?", images=["a.png"])], ERROR, "path is not absolute"),
        ([asked("<image>?", images=["/not/there.png"])], ERROR, "is not there or can't be opened"),
        ([asked("<image>?", images=["/" + "a" * 300])], ERROR, "takes it for base64"),
        ([asked("<image>?", images=[{"path": "/a.png", "bytes": None}])], ERROR, "undecoded record"),
        ([{k: v for k, v in row().items() if k != "datasource"} | {"data_source": "s"}], WARNING, "data_source is"),
        ([{"a": 1}], ERROR, "no column 'label', but a. Set --data.label_key"),
        ([row(), row(1, prompt="a string")], WARNING, r"neither \boxed nor Answer: is in the prompt"),
    ],
)  # fmt: skip
def test_each_trap_is_told(rows, level, said, tmp_path):
    path = write(tmp_path / "own.jsonl", rows)
    found = [finding for finding in check_paths([path]) if said in str(finding)]
    assert found and found[0].level == level
    assert found[0].where == path and found[0].cure


def test_a_list_of_turns_needs_the_chat_template(tmp_path):
    path = write(tmp_path / "own.jsonl", [row()])
    assert "Add --data.apply_chat_template" in complaints(check_paths([path], apply_chat_template=False))[0]


@pytest.mark.parametrize("name", ["own.txt", "o,wn.jsonl", "o@wn.jsonl"])
def test_a_name_that_openrlhf_cuts_or_does_not_know_is_told(name, tmp_path):
    (text,) = complaints(check_paths([write(tmp_path / name, [row()])]))
    assert text.startswith("[error]")
    (text,) = complaints(check_paths([str(tmp_path / "none.jsonl")]))
    assert "no such file" in text


def test_the_split_of_a_file_is_train_whatever_the_flag_says(tmp_path):
    path = write(tmp_path / "own.jsonl", [row()])
    assert complaints(check_paths([path], split="train")) == []
    (text,) = complaints(check_paths([path], split="test"))
    assert "has no split 'test', and OpenRLHF stops there" in text


def test_a_folder_with_two_splits_says_which_one_is_read(tmp_path):
    for split, n in (("train", 2), ("test", 3)):
        write(tmp_path / f"{split}.jsonl", [row(10 * n + i) for i in range(n)])
    for split, n in (("train", 2), ("test", 3)):
        found = check_paths([str(tmp_path)], split=split)
        assert f"splits train, test; only '{split}' is read" in complaints(found)[0].replace(
            "test, train", "train, test"
        )
        assert any(f"{n} rows are read" in str(finding) for finding in found)


def test_files_that_can_not_be_one_data_set_or_share_problems_are_told(tmp_path):
    one = write(tmp_path / "one.jsonl", [row(i) for i in range(3)])
    two = write(tmp_path / "two.jsonl", [row(i, prompt=BOXED.add(f"what is {i}+{i}?")) for i in range(2)])
    found = complaints(check_paths([one, two]))
    assert any("can't be read as one data set" in text for text in found)
    assert any("have 2 problems in common" in text for text in found)


def test_files_that_are_no_json_say_so_and_others_are_read_too(tmp_path):
    (tmp_path / "bad.jsonl").write_text("no json\n")
    datasets.Dataset.from_list([row(i) for i in range(3)]).to_parquet(tmp_path / "good.parquet")
    found = check_paths([str(tmp_path / "bad.jsonl"), str(tmp_path / "good.parquet")])
    assert len(complaints(found)) == 1 and "bad.jsonl: can't be read" in complaints(found)[0]
    assert any("3 rows are read" in str(finding) for finding in found)


def words(folder: Path, template: str | None) -> str:
    """Save a tokenizer for which every word is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"?": 0, "What": 1}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?", eos_token="?")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)


TURNS = "{% for turn in messages %}<user> {{ turn['content'] }} {% endfor %}<assistant>"


def test_with_a_tokenizer_prompts_are_rendered_and_counted(tmp_path):
    path = write(tmp_path / "own.jsonl", [row(), asked("word " * 50)])
    limit = {"tokenizer": words(tmp_path / "model", TURNS), "max_prompt_tokens": 40}
    found = check_paths([path], **limit)
    assert "more than 40 tokens (1 of 2 rows, first: 1)" in complaints(found)[0]
    assert any("<user> What is 0 + 0? Let's" in str(finding) for finding in found)
    assert not any("lengths" in str(finding) for finding in found)
    words(tmp_path / "model", "{{ raise_exception('no system turn') }}")
    assert "the chat template fails: no system turn" in complaints(check_paths([path], **limit))[0]


@pytest.mark.parametrize(
    ("rows", "code"), [([row()], 0), ([row(), row()], 1), ([row(label=3)], 2)], ids=["good", "warning", "error"]
)
def test_the_exit_code_is_that_of_the_worst_finding(rows, code, tmp_path, capsys):
    assert main(["--check", write(tmp_path / "own.jsonl", rows)]) == code
    last = ("will read this as it is", "Read the warnings", "Repair the errors first")[code]
    assert last in capsys.readouterr().out


@pytest.mark.parametrize(("rows", "code"), [([row()], 0), ([row(label=3)], 2)], ids=["good", "error"])
def test_another_program_can_read_the_result(rows, code, tmp_path, capsys):
    path = write(tmp_path / "own.jsonl", rows)
    assert main(["--check", path, "--json"]) == code
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] == (code == 0)
    assert {finding["level"] for finding in result["findings"]} == {"note", "error"} if code else {"note"}
    assert {finding["where"] for finding in result["findings"]} == {path, "lengths"}


def flags(path, **change) -> dict:
    """The data flags of OpenRLHF with the values that prepared files need."""
    values = {
        "actor.model_name_or_path": "owner/model",
        "data.prompt_dataset": str(path),
        "data.prompt_probs": None,
        "data.prompt_split": "train",
        "data.max_samples": 100,
        "data.input_key": "prompt",
        "data.label_key": "label",
        "data.image_key": "images",
        "data.apply_chat_template": True,
        "data.input_template": None,
        "data.max_images_per_prompt": 0,
        "eval.dataset": None,
        "eval.split": "train",
        "train.seed": 42,
    }
    return values | {name.replace("__", "."): value for name, value in change.items()}


def save(path: Path, rows: list[dict], mark: str = "") -> Path:
    """Write the rows in the format that the ending names."""
    if path.suffix == ".jsonl":
        path.write_text(mark + "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(mark + json.dumps(rows), encoding="utf-8")
    else:
        table = datasets.Dataset.from_list(rows)
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet", ".csv"])
def test_the_dry_run_accepts_good_files_of_every_kind_and_names_a_missing_column(ending, tmp_path):
    path = save(tmp_path / f"own{ending}", [{"question": f"What is {i}?", "answer": f"x{i}"} for i in range(3)])
    assert read_files(flags(path, data__input_key="question", data__label_key="answer")).findings == []
    assert read_files(flags(path, data__input_key="question", data__label_key=None)).findings == []
    (finding,) = read_files(flags("", eval__dataset=str(path), data__input_key="question")).findings
    assert (finding.level, finding.flag, finding.where) == (ERROR, "eval.dataset", str(path))
    assert "has no column 'label', but question, answer. Set --data.label_key" in finding.message


@pytest.mark.parametrize("mark", ["\ufeff", "\n", "\ufeff\n"], ids=["byte-order mark", "blank line", "both"])
def test_a_first_line_that_openrlhf_reads_is_accepted_everywhere(mark, tmp_path):
    path = save(tmp_path / "own.jsonl", [row(), row(1)], mark)
    assert read_files(flags(path)).findings == []
    findings = check_paths([str(path)])
    assert complaints(findings) == [] and "2 rows are read" in str(findings[0])


def test_a_first_line_that_openrlhf_can_not_read_is_an_error_everywhere(tmp_path):
    path = save(tmp_path / "own.jsonl", [row()], mark="{broken\n")
    for findings in (read_files(flags(path)).findings, check_paths([str(path)])):
        assert "can't be read: JSON parse error" in complaints(findings, ERROR)[0]


@pytest.mark.parametrize(
    ("name", "content"), [("e.jsonl", ""), ("e.json", "[]"), ("e.csv", "prompt,label\n"), ("z.csv", "")]
)
def test_a_file_without_rows_is_an_error(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    (finding,) = read_files(flags(tmp_path / name)).findings
    assert finding.what == "has no rows"


def test_a_parquet_file_without_rows_is_an_error(tmp_path):
    empty = pyarrow.array([], pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"prompt": empty, "label": empty}), tmp_path / "e.parquet")
    (finding,) = read_files(flags(tmp_path / "e.parquet")).findings
    assert finding.what == "has no rows"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data__apply_chat_template": False}, "prompts are lists of chat turns. Add --data.apply_chat_template"),
        ({"data__prompt_split": "test"}, "has no split 'test', and OpenRLHF stops there"),
        ({"data__prompt_dataset": "/not/there.jsonl"}, "/not/there.jsonl: no such file"),
        ({"data__prompt_dataset": "/not@there.jsonl"}, "has a comma or an @"),
        (
            {"data__prompt_probs": "0.5,0.5"},
            "--data.prompt_probs 0.5,0.5: is not one number above 0 for each file, 1 together",
        ),
    ],
)
def test_the_dry_run_reports_flags_that_do_not_fit_the_file(change, said, tmp_path):
    values = flags(save(tmp_path / "own.jsonl", [row(), row(1)]))
    assert read_files(values).findings == []
    (finding,) = read_files(values | flags(values["data.prompt_dataset"], **change)).findings
    assert said in finding.message and finding.flag == "data.prompt_dataset"


def test_the_split_of_the_test_file_is_the_one_of_its_own_flag(tmp_path):
    path = save(tmp_path / "own.jsonl", [row()])
    (finding,) = read_files(flags(path, eval__dataset=str(path), eval__split="test")).findings
    assert finding.flag == "eval.dataset" and "leave --eval.split at that" in finding.message


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_images_need_the_flag_that_lets_them_in(ending, tmp_path):
    path = save(tmp_path / f"own{ending}", [asked("<image><image>?", images=["/a.png", "/b.png"])])
    (finding,) = read_files(flags(path, data__max_images_per_prompt=1)).findings
    assert "a prompt has 2 images, and --data.max_images_per_prompt is 1" in finding.message
    assert finding.where == str(path) and finding.cure == "Set --data.max_images_per_prompt 2"
    assert read_files(flags(path, data__max_images_per_prompt=2)).findings == []


def test_the_dry_run_leaves_labels_and_prompts_to_the_users_own_reward_function(tmp_path):
    rows = [{"prompt": f"Rhyme on {i}.", "label": i} for i in range(2)]
    assert read_files(flags(save(tmp_path / "own.jsonl", rows))).findings == []


def test_the_dry_run_joins_files_and_lets_names_on_the_hub_pass(tmp_path):
    one = save(tmp_path / "one.jsonl", [row()])
    two = save(tmp_path / "two.jsonl", [row(prompt="a text")])
    (finding,) = read_files(flags(f"{one},{two}")).findings
    assert "can't be read as one data set" in finding.message
    assert read_files(flags(f"{one},openai/gsm8k")).findings == []


def test_a_folder_that_was_prepared_stands_for_its_files(tmp_path, capsys):
    names = ["reasoning_gym_train", "reasoning_gym_test"]
    assert main([*names, "--out", str(tmp_path), "--count", "8"]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(f"8 rows are read, of {name!r}" in shown for name in names)


def test_repeated_ids_are_reported(tmp_path):
    found = complaints(check_paths([write(tmp_path / "a.jsonl", [row(0), row(1, id="s/0"), row(2)])]))
    assert len(found) == 1 and "1 ids are there more than once, e.g. 's/0'" in found[0]


def test_a_note_shows_the_beginning_of_a_label_of_megabytes(tmp_path):
    tests = {"kind": "stdin", "tests": [{"input": "1" * 6_000_000, "output": "1"}]}
    prompt = [{"role": "user", "content": "Print 1 in a ```python block."}]
    label = write_label("code", json.dumps(tests))
    findings = check_paths([write(tmp_path / "a.jsonl", [row(prompt=prompt, label=label)])])
    assert complaints(findings) == [] and max(len(str(finding)) for finding in findings) < 2000


def test_a_right_answer_that_the_verifier_can_not_read_is_an_error_of_the_check(tmp_path):
    rows = [row(0), row(1, label="#### 5"), row(2, label=write_label("math", "\\frac{1}{"))]
    found = complaints(check_paths([write(tmp_path / "a.jsonl", rows)]), ERROR)
    assert any("####" in text for text in found) and any("can't read the gold" in text for text in found)
