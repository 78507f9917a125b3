"""Every source in the shape that the hub has it, small and with invented problems, through the command itself."""

import base64
import io
import json
import pickle
import re
import threading
import zlib
from pathlib import Path

import datasets
import pytest
from PIL import Image

from riskpo_openrlhf.cli.prepare_data import main
from riskpo_openrlhf.data import hub
from riskpo_openrlhf.data import prepare as preparation
from riskpo_openrlhf.data.instructions import INSTRUCTIONS
from riskpo_openrlhf.data.reasoning import TASKS
from riskpo_openrlhf.data.schema import read_manifests, read_rows, sha256, write_manifest
from riskpo_openrlhf.data.sources import SOURCES
from riskpo_openrlhf.files import write_jsonl
from riskpo_openrlhf.verifiers.code.testcases import read_tests
from riskpo_openrlhf.verifiers.labels import read_label

HEAD, TAIL, _ = INSTRUCTIONS["answer"]
BOXED = INSTRUCTIONS["boxed"].tail
LEAKED = "A crate holds $n$ red lamps, and twice as many blue ones. Find $n$ if there are $171$ lamps."
MODES = ("RGB", "RGBA", "P", "L")


def picture(shade: int, mode: str = "RGB", form: str = "PNG") -> dict:
    buffer = io.BytesIO()
    Image.new("L", (16, 12), shade).convert(mode).save(buffer, form)
    return {"bytes": buffer.getvalue(), "path": f"{shade}.{form.lower()}"}


def to_parquet(path: Path, rows: list[dict], **features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(rows)
    for name, feature in features.items():
        table = table.cast_column(name, feature)
    table.to_parquet(path)


def to_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def readme(folder: Path, configs: dict[str, dict[str, str]]) -> None:
    lines = ["---", "license: mit", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join([*lines, "---", "# Invented"]) + "\n", encoding="utf-8")


def dapo(problem: str, answer: str, index: int = 0) -> dict:
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": HEAD + problem + TAIL, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": f"00000000-0000-0000-0000-{index:012}"},
    }


DAPO = [
    dapo(LEAKED, "57"),
    dapo("Find the least integer $m$ with $m^2 < 170$.", "-13"),
    dapo("Find   the least integer\n$m$ with $m^2 < 170$. ", "-13"),
    dapo("求满足 $x+9=40329$ 的 $x$。", "40320"),
    dapo("Two clerks disagree about $a+b$.", "4"),
    dapo("Two clerks disagree about $a + b$.", "5"),
    dapo("How many tiles cover a 3 by 11 wall?", "033"),
    dapo("How many tiles cover a 3 by 11 wall?", "33"),
]


def geometry(i: int, **more) -> dict:
    row = {"images": [picture(10 * i, MODES[i % 4])], "problem": "<image>Find x.", "answer": f"{i} \\sqrt {{ 7 }}"}
    return row | {"id": 9000 + i, "choices": ["1", "2", "3", "4"], "ground_truth": "B"} | more


def packed(tests: list[dict]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def contest(i: int, date: str, functional: bool = False, question: str | None = None) -> dict:
    kind = "functional" if functional else "stdin"
    cases = [{"input": f"{i}\n{n}", "output": str(i + n), "testtype": kind} for n in range(3)]
    return {
        "question_title": f"Sums {i}",
        "question_content": question or f"Two integers are given, task {i}. Print their sum.",
        "platform": "leetcode" if functional else "atcoder",
        "question_id": f"abc{i}_a",
        "contest_id": f"abc{i}",
        "contest_date": f"{date}T00:00:00",
        "starter_code": "class Solution:\n    def total(self, a, b):\n" if functional else "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(cases[:1]),
        "private_test_cases": json.dumps(cases[1:]) if i % 2 else packed(cases[1:]),
        "metadata": json.dumps({"func_name": "total"} if functional else {}),
    }


LONG_TASK = "A courier visits towns in a row. " * 5 + "Read n and the distances, and print the length of the way."
ARCHER = [
    {
        "data_source": "code",
        "prompt": [{"role": "user", "content": content}],
        "reward_model": {"style": "rule", "ground_truth": json.dumps(truth)},
        "extra_info": {"index": i},
    }
    for i, (content, truth) in enumerate([
        ("Pick the largest. Answer in a ```python block.", {"functional": "assert Solution().pick([2, 9]) == 9"}),
        ("Read n numbers and print their sum.", {"inputs": ["2\n1 2\n", "1\n9\n"], "outputs": ["3\n", "9\n"]}),
        (f"You write Python.\n\n{LONG_TASK}\n\nUse ```python fences.", {"inputs": ["1\n"], "outputs": ["0\n"]}),
    ])
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path.with_name(f"{tmp_path.name}-cache"))


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    """A folder of copies: OWNER/NAME with the files of each source."""
    top = tmp_path_factory.mktemp("copies")
    to_parquet(top / "BytedTsinghua-SIA/DAPO-Math-17k/data/dapo-math-17k.parquet", DAPO * 4)

    math = top / "DigitalLearningGmbH/MATH-lighteval"
    readme(math, {
        "default": {"train": "data/train-*", "test": "data/test-*"},
        "algebra": {"train": "algebra/train-*", "test": "algebra/test-*"},
    })  # fmt: skip
    solutions = {
        "What is $\\frac{a}{b}$?": "It is $\\boxed{\\frac{3}{8}}$.",
        "Name the interval.": "First $\\boxed{1}$, then $\\boxed{(2,\\infty)}$.",
        "Which digit?": "So $\\boxed 7$.",
        "Which set?": "So $\\fbox{\\{1, 2\\}}$.",
        "Unsolved.": "Nobody knows.",
    }
    rows = [{"problem": p, "level": "Level 2", "type": "Algebra", "solution": s} for p, s in solutions.items()]
    fill = [{"problem": f"Count to ${i}$.", "level": "Level 1", "type": "Algebra", "solution": f"$\\boxed{{{i}}}$"}
            for i in range(40)]  # fmt: skip
    to_parquet(math / "data/train-00000-of-00001.parquet", rows + fill)
    to_parquet(math / "data/test-00000-of-00001.parquet", rows[:2] + [rows[0]])
    to_parquet(math / "algebra/train-00000-of-00001.parquet", rows[:1])
    to_parquet(math / "algebra/test-00000-of-00001.parquet", rows[:1])

    gsm = top / "openai/gsm8k"
    readme(gsm, {c: {"train": f"{c}/train-*", "test": f"{c}/test-*"} for c in ("main", "socratic")})
    pairs = {
        "train": {"A shed has 3 rakes.": "1+2=<<1+2=3>>3\n#### 3", "Two?": "#### 2"},
        "test": {
            "Mira fills 6 jars with 210 beads each. How many?": "6*210=<<6*210=1260>>1260 beads.\n#### 1,260",
            "A tank of 4 loses 7. What is left?": "4-7=<<4-7=-3>>-3\n#### -3.",
            "One?": "1\n#### 1",
        },
    }
    for config in ("main", "socratic"):
        for split, problems in pairs.items():
            rows = [{"question": q, "answer": a} for q, a in problems.items()]
            to_parquet(gsm / f"{config}/{split}-00000-of-00001.parquet", rows)

    geo = top / "hiyouga/geometry3k"
    readme(geo, {"default": {s: f"data/{s}-*" for s in ("train", "validation", "test")}})
    images = datasets.Sequence(datasets.Image())
    to_parquet(geo / "data/train-00000-of-00001.parquet", [geometry(i) for i in range(5)], images=images)
    to_parquet(geo / "data/validation-00000-of-00001.parquet", [geometry(8)], images=images)
    # The fourth's picture is a test too; the same question about another picture is another problem.
    jpeg = picture(200, form="JPEG")
    tests = [geometry(3), geometry(9), geometry(11, images=[jpeg])]
    to_parquet(geo / "data/test-00000-of-00001.parquet", tests, images=images)

    code = top / "Fate-Zero/ArcherCodeR-Dataset/train/archercoder-1.5b-train.json"
    code.parent.mkdir(parents=True)
    code.write_text(json.dumps({key: {str(i): row[key] for i, row in enumerate(ARCHER)} for key in ARCHER[0]}))

    aime24 = top / "HuggingFaceH4/aime_2024"
    readme(aime24, {"default": {"train": "data/train-*"}})
    rows = [{"id": 60 + i, "problem": f"How many ways are there to order {i} coins?", "solution": "...",
             "answer": f"{i:03}", "url": "https://example.org", "year": "2024"} for i in range(30)]  # fmt: skip
    to_parquet(aime24 / "data/train-00000-of-00001.parquet", rows)
    rows = [{"problem": f"What angle is {i} times $2^\\circ$?", "answer": f"{2 * i}^\\circ" if i == 7 else str(2 * i),
             "id": str(i)} for i in range(30)]  # fmt: skip
    to_lines(top / "math-ai/aime25/test.jsonl", rows)

    amc = top / "AI-MO/aimo-validation-amc"
    readme(amc, {"default": {"train": "data/train-*"}})
    rows = [{"id": i, "problem": f"The answer is p+q; find p+q for case {i}.", "answer": float(i - 4), "url": "..."}
            for i in range(83)]  # fmt: skip
    rows[5]["problem"] = LEAKED.replace(" $n$ red", "\n$n$  red").replace("$171$", "\\(171\\)")
    to_parquet(amc / "data/train-00000-of-00001.parquet", rows)

    rows = [{"problem": f"Problem {i}.", "solution": "$\\boxed{0}$", "answer": answer, "subject": "Algebra",
             "level": 3, "unique_id": f"test/algebra/{i}.json"}
            for i, answer in enumerate(["(2,\\infty)", "10,\\!080", "033", "\\text{(C)}"])]  # fmt: skip
    to_lines(top / "HuggingFaceH4/MATH-500/test.jsonl", rows)
    rows = [{"question": "How fast? Give your answer in meters per second.", "answer": " 3.2e5\n"}]
    to_lines(top / "math-ai/minervamath/test.jsonl", rows)

    olympiad = top / "Hothan/OlympiadBench"
    names = ("OE_MM_maths_en_COMP", "OE_TO_maths_en_COMP")
    readme(olympiad, {name: {"train": f"{name}/*"} for name in names})
    base = {"id": 1, "solution": ["..."], "modality": "Text-only", "difficulty": "Competition",
            "is_multiple_answer": False, "answer_type": "Numerical", "error": None, "subfield": "Algebra"}  # fmt: skip
    rows = [
        base | {"question": "Find all integers.", "final_answer": ["$-4$,$4$"], "context": None, "unit": None},
        base | {"question": "Find the angle.", "final_answer": ["$65$"], "context": "In a ring.", "unit": "degrees"},
    ]
    to_parquet(olympiad / names[1] / f"{names[1]}.parquet", rows)

    lcb = top / "livecodebench/code_generation_lite"
    files = SOURCES["livecodebench_v5"].files
    to_lines(lcb / files[0], [contest(1, "2023-05-01"), contest(2, "2024-08-01")])
    to_lines(lcb / files[1], [contest(3, "2024-10-05", functional=True)])
    to_lines(lcb / files[2], [contest(4, "2025-01-04", question=LONG_TASK)])
    for file in files[3:]:
        to_lines(lcb / file, [contest(10 + int(file[4]), "2024-01-04")])
    to_lines(lcb / "test6.jsonl", [contest(99, "2025-01-20")])
    (lcb / "code_generation_lite.py").write_text("raise SystemExit('a loading script must not run')\n")
    return top


@pytest.fixture(scope="module")
def out(copies, tmp_path_factory) -> Path:
    """All sets, prepared once. Only the command's own functions were used."""
    folder = tmp_path_factory.mktemp("out")
    names = [name for name in SOURCES if not name.startswith("reasoning_gym")]
    assert main([*names, "--out", str(folder), "--from", str(copies), "--accept_row_counts"]) == 0
    made = ["--tasks", "chain_sum:max_terms=3,max_digits=2", "gcd", "--count", "12"]
    assert main(["reasoning_gym_train", "reasoning_gym_test", "--out", str(folder), *made]) == 0
    return folder


def rows_of(out: Path, name: str) -> list[dict]:
    return list(read_rows(out / f"{name}.jsonl"))


def answers_of(out: Path, name: str) -> list[str]:
    return [read_label(row["label"])[1] for row in rows_of(out, name)]


def prompts_of(out: Path, name: str) -> list[str]:
    return [row["prompt"][0]["content"] for row in rows_of(out, name)]


def test_dapo_rows_keep_their_words_and_lose_repeats_and_contradictions(out):
    rows = rows_of(out, "dapo_math_17k")
    assert [row["prompt"] for row in rows] == [DAPO[i]["prompt"] for i in (1, 3, 6)]
    assert answers_of(out, "dapo_math_17k") == ["-13", "40320", "33"]
    manifest = read_manifests(out)["dapo_math_17k"]
    assert manifest["rows"] == {"read": 32, "kept": 3}
    # 4 times the file: the first of each of the 4 problems is kept, the two clerks not at all.
    assert manifest["dropped"] == {"conflicting answers": 8, "repeated": 20, "in the test set amc": 1}


def test_what_is_left_out_and_what_is_kept_adds_up_to_what_was_read(out):
    for manifest in read_manifests(out).values():
        rows = manifest["rows"]
        assert rows["kept"] + sum(manifest["dropped"].values()) == rows["read"], manifest["name"]
        assert rows["kept"] == len(rows_of(out, manifest["name"]))


def test_math_answers_are_the_last_box_and_a_solution_without_one_is_counted(out):
    answers = dict(zip(prompts_of(out, "math_train"), answers_of(out, "math_train"), strict=True))
    assert answers["Which digit?" + BOXED] == "7"
    assert answers["Which set?" + BOXED] == r"\{1, 2\}"
    assert "Unsolved." + BOXED not in answers
    assert answers_of(out, "math_test")[:2] == [r"\frac{3}{8}", r"(2,\infty)"]
    assert read_manifests(out)["math_train"]["dropped"] == {"no answer can be read": 1, "in the test set math_test": 2}


def test_a_test_set_keeps_a_repeated_problem_under_an_id_of_its_own(out):
    rows = rows_of(out, "math_test")
    assert len(rows) == 3 and rows[0]["prompt"] == rows[2]["prompt"]
    assert len({row["id"] for row in rows}) == 3
    assert read_manifests(out)["math_test"]["repeated"] == 1


def test_gsm8k_answers_have_no_commas_and_no_annotation_reaches_the_prompt(out):
    assert answers_of(out, "gsm8k_test") == ["1260", "-3", "1"]
    assert prompts_of(out, "gsm8k_test")[0] == "Mira fills 6 jars with 210 beads each. How many?" + BOXED


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("aime24", [str(i) for i in range(30)]),
        ("aime25", [str(2 * i) for i in range(30)]),
        ("amc", [str(i - 4) for i in range(83)]),
        ("math500", [r"(2,\infty)", r"10,\!080", "033", r"\text{(C)}"]),
        ("minerva", ["3.2e5"]),
        ("olympiadbench", ["-4,4", "65"]),
    ],
)
def test_answers_of_the_test_sets_are_as_the_verifier_takes_them(out, name, answers):
    assert answers_of(out, name) == answers
    assert all(prompt.startswith(HEAD) and prompt.endswith(TAIL) for prompt in prompts_of(out, name))


def test_an_olympiad_problem_brings_its_context_and_its_unit(out):
    assert prompts_of(out, "olympiadbench")[1] == (
        f"{HEAD}In a ring.\n\nFind the angle.\n\nThe unit of the answer is degrees.{TAIL}"
    )


def test_geometry_has_one_png_for_each_image_tag_and_the_pixels_of_the_source(out):
    rows = rows_of(out, "geometry3k_test")
    assert answers_of(out, "geometry3k_test") == [rf"{i} \sqrt {{ 7 }}" for i in (3, 9, 11)]
    for row, shade in zip(rows, (30, 90, 200), strict=True):
        (path,) = row["images"]
        assert Path(path).is_absolute() and row["prompt"][0]["content"] == "<image>Find x." + BOXED
        with Image.open(path) as image:
            assert image.format == "PNG" and abs(image.convert("L").getpixel((3, 3)) - shade) <= 1


def test_the_same_question_about_another_picture_is_another_problem(out):
    manifest = read_manifests(out)["geometry3k_train"]
    assert answers_of(out, "geometry3k_train") == [rf"{i} \sqrt {{ 7 }}" for i in (0, 1, 2, 4)]
    assert manifest["dropped"] == {"in the test set geometry3k_test": 1}


def test_code_labels_name_a_file_with_all_tests(out):
    rows = {row["id"]: row for row in rows_of(out, "livecodebench_v5")}
    assert set(rows) == {f"livecodebench_v5/abc{i}_a" for i in (2, 3, 4)}
    for i, kind in ((2, "stdin"), (3, "functional"), (4, "stdin")):
        verifier, path = read_label(rows[f"livecodebench_v5/abc{i}_a"]["label"])
        tests = read_tests(path)
        assert verifier == "code" and Path(path).is_absolute() and Path(path).name == f"abc{i}_a.json.gz"
        assert tests["kind"] == kind and [test["output"] for test in tests["tests"]] == [f"{i + n}" for n in range(3)]
    assert read_manifests(out)["livecodebench_v5"]["dropped"] == {"contest not from 2024-08-01 to 2025-02-01": 3}
    assert len(rows_of(out, "livecodebench_release_v5")) == 6


def test_a_code_prompt_says_once_how_to_answer(out):
    for prompt in (*prompts_of(out, "livecodebench_release_v5"), *prompts_of(out, "archer_code")):
        assert len(re.findall("opens with ```python|in a ```python block|Use ```python", prompt)) == 1
    starter = [prompt for prompt in prompts_of(out, "livecodebench_v5") if "class Solution" in prompt]
    assert len(starter) == 1 and "standard input" not in starter[0]


def test_an_archer_task_that_contains_a_test_task_is_removed(out):
    assert read_manifests(out)["archer_code"]["dropped"] == {
        "in the test set livecodebench_release_v5": 1,
    }
    answers = answers_of(out, "archer_code")
    assert [read_tests(answer)["kind"] for answer in answers] == ["assert", "stdin"]


@pytest.mark.parametrize("layout", ["records", "lines"])
def test_archer_is_read_in_each_layout_that_pandas_writes(layout, out, tmp_path):
    file = tmp_path / "copies/Fate-Zero/ArcherCodeR-Dataset/train/archercoder-1.5b-train.json"
    file.parent.mkdir(parents=True)
    lines = [json.dumps(row) for row in ARCHER[:2]]
    file.write_text("\n".join(lines) if layout == "lines" else f"[{', '.join(lines)}]")
    assert main(["archer_code", "--out", str(tmp_path / "o"), "--from", str(tmp_path / "copies")]) == 0
    assert prompts_of(tmp_path / "o", "archer_code") == prompts_of(out, "archer_code")


def test_reasoning_gym_problems_are_different_ones_in_training_and_test(out):
    train, test = (set(prompts_of(out, f"reasoning_gym_{split}")) for split in ("train", "test"))
    assert len(train) == len(test) == 12 and not train & test
    assert all(re.fullmatch(r"-?\d+", answer) for answer in answers_of(out, "reasoning_gym_train"))
    assert all(prompt.endswith(BOXED) for prompt in train | test)


def test_every_row_of_every_set_has_the_schema_and_an_instruction_that_its_verifier_reads(out):
    manifests = read_manifests(out)
    assert set(manifests) == set(SOURCES)
    for name, manifest in manifests.items():
        instruction = INSTRUCTIONS[manifest["settings"]["instruction"]]
        assert manifest["verifier"] in instruction.verifiers
        rows = rows_of(out, name)
        assert rows and len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            assert row["datasource"] == name and read_label(row["label"])[0] == manifest["verifier"]
            assert set(row) == {"prompt", "label", "datasource", "id"} | ({"images"} if "geometry" in name else set())
            (turn,) = row["prompt"]
            text = turn["content"]
            assert turn["role"] == "user" and "{{" not in text and "<<" not in text
            if instruction.tail:
                assert text.count(instruction.tail.strip()) == 1 and instruction.is_around(text)


def test_openrlhf_reads_the_sets_one_by_one_mixed_and_as_parquet(out, tmp_path):
    from types import SimpleNamespace

    from openrlhf.datasets.prompts_dataset import PromptDataset
    from openrlhf.datasets.utils import blending_datasets

    data = SimpleNamespace(input_key="prompt", label_key="label", image_key="images", apply_chat_template=True)
    args = SimpleNamespace(use_ms=False, data=data)
    strategy = SimpleNamespace(args=args, print=lambda *_: None, is_rank_0=lambda: False)
    model = SimpleNamespace(apply_chat_template=lambda chat, **_: chat)
    names = ["geometry3k_train", "math_train", "aime24", "livecodebench_v5", "geometry3k_test"]
    rows = [row for name in names for row in rows_of(out, name)]
    parquet = {name: tmp_path / f"{name}.parquet" for name in names}
    for name, path in parquet.items():
        datasets.Dataset.from_list(rows_of(out, name)).to_parquet(path)
    for paths in ([out / f"{name}.jsonl" for name in names], list(parquet.values())):
        for order in (paths, paths[::-1]):
            table = blending_datasets(",".join(map(str, order)), None, strategy)
            read = PromptDataset(table, model, strategy)
            expected = rows if order is paths else [r for p in order for r in rows if r["datasource"] == p.stem]
            assert read.labels == [row["label"] for row in expected]
            assert read.datasources == [row["datasource"] for row in expected]
            assert [images or [] for images in read.images] == [row.get("images", []) for row in expected]
            content = read.prompts[expected.index(rows[0])][0]["content"]
            assert [part["type"] for part in content] == ["image", "text"]


@pytest.mark.parametrize(
    "name", [name for name, source in SOURCES.items() if source.repo.count("/") and not source.files]
)
def test_the_records_are_those_that_the_datasets_library_reads(name, copies):
    source = SOURCES[name]
    folder = copies / source.repo
    copy = hub.fetch(source.repo, source.split, config=source.config, copies=copies)
    mine = list(hub.records(copy.files, source.columns))
    if source.repo == "Hothan/OlympiadBench":  # of this one only the needed config is there, which the library refuses
        path = str(folder / source.config / "*.parquet")
        theirs = datasets.load_dataset("parquet", data_files=path, split="train")
    else:
        theirs = datasets.load_dataset(str(folder), source.config, split=source.split)
    if "images" in theirs.column_names:
        theirs = theirs.cast_column("images", datasets.Sequence(datasets.Image(decode=False)))
    assert mine == theirs.select_columns(list(source.columns)).to_list()


def test_a_finished_set_is_left_alone_until_a_file_or_a_setting_changes(copies, tmp_path, capsys):
    command = ["gsm8k_train", "math500", "--from", str(copies), "--out", str(tmp_path), "--accept_row_counts"]
    assert main(command) == 0
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    good = (tmp_path / "math500.jsonl").read_bytes()
    (tmp_path / "math500.jsonl").write_bytes(good[:-20])
    assert main(command) == 0
    assert (tmp_path / "math500.jsonl").read_bytes() == good
    assert main([*command, "--instruction", "boxed"]) == 0
    assert all(prompt.endswith(BOXED) for prompt in prompts_of(tmp_path, "math500"))
    assert (tmp_path / "gsm8k_train.jsonl").stat().st_mtime_ns == files[tmp_path / "gsm8k_train.jsonl"]


def test_images_and_tests_are_part_of_a_finished_set(copies, tmp_path):
    command = ["geometry3k_test", "--from", str(copies), "--out", str(tmp_path), "--accept_row_counts"]
    assert main(command) == 0
    folder = tmp_path / "geometry3k_test-images"
    first, *_ = there = sorted(folder.iterdir())
    first.unlink()
    (folder / "left-over.png").write_bytes(b"of another time")
    assert main(command) == 0
    assert sorted(folder.iterdir()) == there


def test_one_instruction_for_all_leaves_geometry_and_code_as_they_must_be(copies, tmp_path):
    names = ["dapo_math_17k", "gsm8k_train", "geometry3k_train", "livecodebench_v5"]
    command = [*names, "--from", str(copies), "--out", str(tmp_path), "--accept_row_counts", "--instruction"]
    assert main([*command, "answer"]) == 0
    assert all(INSTRUCTIONS["answer"].is_around(prompt) for prompt in prompts_of(tmp_path, "gsm8k_train"))
    assert all(prompt.endswith(BOXED) for prompt in prompts_of(tmp_path, "geometry3k_train"))
    assert main([*command, "boxed"]) == 0
    assert prompts_of(tmp_path, "dapo_math_17k")[0] == LEAKED + BOXED


def test_a_training_set_is_decontaminated_of_a_test_set_that_comes_later(copies, tmp_path, capsys):
    where = ["--from", str(copies), "--out", str(tmp_path)]
    assert main(["dapo_math_17k", *where]) == 0
    assert DAPO[0]["prompt"] in [row["prompt"] for row in rows_of(tmp_path, "dapo_math_17k")]
    assert main(["amc", *where]) == 0
    assert "removed 1 problems that are in the test set amc" in capsys.readouterr().err
    assert DAPO[0]["prompt"] not in [row["prompt"] for row in rows_of(tmp_path, "dapo_math_17k")]
    before = (tmp_path / "dapo_math_17k.jsonl").stat().st_mtime_ns
    assert main(["dapo_math_17k", "amc", *where]) == 0  # still finished, and nothing more to take out
    assert (tmp_path / "dapo_math_17k.jsonl").stat().st_mtime_ns == before


def test_a_source_with_another_number_of_rows_is_refused_and_nothing_is_written(copies, tmp_path, capsys):
    assert main(["math500", "--from", str(copies), "--out", str(tmp_path)]) == 2
    assert "4 rows instead of 500" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_dapo_and_archer_whose_numbers_are_not_certain_only_warn(copies, tmp_path, capsys):
    assert main(["dapo_math_17k", "--from", str(copies), "--out", str(tmp_path)]) == 0
    assert "4 rows kept instead of 17,000 to 17,500" in capsys.readouterr().err


def test_what_is_in_the_folder_survives_a_preparation_that_fails(copies, tmp_path, capsys):
    command = ["aime25", "--out", str(tmp_path / "o"), "--force", "--from"]
    assert main([*command, str(copies)]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "o").iterdir()}
    rows = [json.loads(line) for line in (copies / "math-ai/aime25/test.jsonl").open()]
    rows[-1]["answer"] = "7.5"
    to_lines(tmp_path / "bad/math-ai/aime25/test.jsonl", rows)
    assert main([*command, str(tmp_path / "bad")]) == 2
    assert "record 30: '7.5' is not a whole number" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "o").iterdir()} == before


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "dapo_math_17k",
            [dapo("?", "1") | {"prompt": [{"role": "user", "content": "Bare."}]}],
            "expected instruction",
        ),
        ("dapo_math_17k", [{"question": "?", "answer": "1"}], "no column prompt, reward_model"),
        ("geometry3k_train", [geometry(1, problem="Find x.")], "0 times <image> in the prompt, but 1 images"),
        ("gsm8k_train", [{"question": "What is 2<<1+1=2>>?", "answer": "#### 2"}], "gives the answer away"),
        ("math_train", [{"problem": "?", "solution": "none"}], "1 of 1 without an answer"),
        ("math_train", [{"problem": f"?{BOXED}", "solution": r"\boxed{1}"}], "is in the problem already"),
    ],
)
def test_a_record_that_is_not_as_it_should_be_is_an_error_that_says_so(name, rows, message, tmp_path, capsys):
    folder = f"{SOURCES[name].config}/" if SOURCES[name].config else "data/"
    to_parquet(tmp_path / "copies" / SOURCES[name].repo / folder / "train-00000-of-00001.parquet", rows)
    accept = [] if "without" in message else ["--accept_row_counts"]
    assert main([name, "--from", str(tmp_path / "copies"), "--out", str(tmp_path / "o"), *accept]) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "o").glob("*.json*"))


def test_a_pickle_that_would_run_something_is_refused(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    bad = contest(2, "2024-10-01") | {
        "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
    }
    for file in SOURCES["livecodebench_v5"].files:
        to_lines(tmp_path / "copies/livecodebench/code_generation_lite" / file, [bad])
    assert main(["livecodebench_v5", "--from", str(tmp_path / "copies"), "--out", str(tmp_path / "o")]) == 2
    captured = capsys.readouterr()
    assert "private tests must be one pickled string" in captured.err and "ran" not in captured.out


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    """A tokenizer for which every word is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")
    tokenizer.chat_template = "{% for turn in messages %}user {{ turn['content'] }} {% endfor %}assistant"
    folder = tmp_path_factory.mktemp("words")
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_prompts_with_too_many_tokens_leave_a_training_set_and_stay_in_a_test_set(copies, words, tmp_path, capsys):
    names = ["gsm8k_train", "gsm8k_test"]
    command = [*names, "--from", str(copies), "--out", str(tmp_path), "--accept_row_counts", "--tokenizer", words]
    most = len("user A shed has 3 rakes. assistant".split()) + len(BOXED.split())  # one of each set is longer, or none
    assert main([*command, "--max_prompt_tokens", str(most)]) == 0
    assert [read_manifests(tmp_path)[name]["over_long"] for name in names] == [0, 2]
    assert main([*command, "--max_prompt_tokens", str(most - 1)]) == 0
    train, test = (read_manifests(tmp_path)[name] for name in names)
    assert train["dropped"] == {f"more than {most - 1} tokens": 1} and train["rows"]["kept"] == 1
    assert test["over_long"] == 2 and test["rows"]["kept"] == 3
    assert "2 prompts have more than" in capsys.readouterr().err


def test_the_command_says_what_it_knows_and_what_is_missing(capsys, tmp_path):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in SOURCES)
    assert main(["aime2024", "--out", str(tmp_path)]) == 2
    assert "aime2024 is not known; known are: dapo_math_17k, " in capsys.readouterr().err
    for command, message in [
        (["aime24"], "--out is missing"),
        (["aime24", "--out", str(tmp_path), "--revision", "main"], "NAME=COMMIT"),
        (["aime24", "--out", str(tmp_path), "--from", str(tmp_path / "no")], "is not there; put a copy"),
        (["aime24", "--out", str(tmp_path / "a,b"), "--from", str(tmp_path)], "contains a comma or an @"),
        (["reasoning_gym_train", "--out", str(tmp_path), "--tasks", "futoshiki"], "one of: basic_arithmetic, "),
        (["reasoning_gym_train", "--out", str(tmp_path), "--tasks", "gcd:max_value"], "TASK:KEY=VALUE"),
        (["reasoning_gym_train", "--out", str(tmp_path), "--tasks", "gcd:largest=3"], "does not take the settings"),
        (["reasoning_gym_train", "--out", str(tmp_path), "--count", "0"], "--count 0 is not allowed"),
    ]:
        assert main(command) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_documentation_lists_every_set_as_it_is():
    text = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    listed = {name.strip("`"): row for row in rows for name in row[0].split(", ")}
    for source in SOURCES.values():
        _, purpose, where, count, licence, verifier, instruction = listed[source.name]
        assert purpose in ({"train": "training", "test": "test"}[source.role], "both")
        assert (source.repo in where) != where.startswith(("as", "the same"))
        assert (licence, verifier, instruction.strip("`")) == (source.licence, source.verifier, source.instruction)
        low, high = source.kept or source.rows
        number = int(re.sub(r"\D", "", count.partition(" of ")[0]) or low)
        assert low <= number <= high and (source.exact or count.startswith("about"))
    tasks = text.partition("`--tasks` takes")[2].partition("whole number")[0]
    assert re.findall(r"`(\w+)`", tasks) == list(TASKS)


def put(out: Path, name: str, role: str, questions: list[str]) -> None:
    """A set as `prepare` leaves it."""
    rows = [
        {"prompt": [{"role": "user", "content": text}], "label": "1", "datasource": name, "id": f"{name}/{i}"}
        for i, text in enumerate(questions)
    ]
    write_jsonl(out / f"{name}.jsonl", rows)
    write_manifest(out, {
        "name": name, "role": role, "file": f"{name}.jsonl", "sha256": sha256(out / f"{name}.jsonl"), "dropped": {},
        "rows": {"read": len(rows), "kept": len(rows)}, "decontaminated_against": {},
    })  # fmt: skip


def test_two_preparations_in_one_folder_lose_no_decontamination(tmp_path, monkeypatch):
    put(tmp_path, "train", "train", ["Q one", "Q two", "Q three"])
    put(tmp_path, "one", "test", ["Q one"])
    writing, go_on = threading.Event(), threading.Event()

    def slow(path, rows):
        if threading.current_thread() is first:
            writing.set()
            go_on.wait(60)
        write_jsonl(path, rows)

    monkeypatch.setattr(preparation, "write_jsonl", slow)
    first, second = (threading.Thread(target=preparation.decontaminate_folder, args=(tmp_path,)) for _ in range(2))
    first.start()
    assert writing.wait(60)
    put(tmp_path, "two", "test", ["Q two"])
    second.start()
    second.join(1)  # it waits for the first one
    go_on.set()
    first.join(), second.join()
    assert prompts_of(tmp_path, "train") == ["Q three"]
    manifest = read_manifests(tmp_path)["train"]
    assert manifest["rows"]["kept"] == 1 and manifest["sha256"] == sha256(tmp_path / "train.jsonl")


def test_a_training_set_that_is_not_its_manifest_s_is_decontaminated_again(tmp_path):
    put(tmp_path, "train", "train", ["Q one", "Q three"])
    put(tmp_path, "one", "test", ["Q one"])
    old = (tmp_path / "train.jsonl").read_bytes()
    preparation.decontaminate_folder(tmp_path)
    assert prompts_of(tmp_path, "train") == ["Q three"]
    (tmp_path / "train.jsonl").write_bytes(old)
    preparation.decontaminate_folder(tmp_path)
    assert prompts_of(tmp_path, "train") == ["Q three"]
    assert read_manifests(tmp_path)["train"]["sha256"] == sha256(tmp_path / "train.jsonl")


def test_a_training_set_that_was_cut_stays_unfinished(tmp_path):
    put(tmp_path, "train", "train", ["Q one", "Q three"])
    whole = read_manifests(tmp_path)["train"]["sha256"]
    lines = (tmp_path / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text(lines[0])
    put(tmp_path, "two", "test", ["Q two"])
    preparation.decontaminate_folder(tmp_path)
    assert read_manifests(tmp_path)["train"]["sha256"] == whole != sha256(tmp_path / "train.jsonl")


def test_a_folder_that_can_not_be_written_to_is_left_alone_if_nothing_is_to_do(tmp_path, monkeypatch):
    def lock(folder, wait):
        raise PermissionError(13, "Permission denied", str(folder))

    put(tmp_path, "train", "train", ["Q one"])
    put(tmp_path, "two", "test", ["Q two"])
    preparation.decontaminate_folder(tmp_path)
    monkeypatch.setattr(preparation, "lock", lock)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    preparation.decontaminate_folder(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("gone", ["train", "one"])
def test_a_set_whose_file_is_gone_is_named_beside_the_error_and_the_others_are_decontaminated(gone, tmp_path, capsys):
    put(tmp_path, "train", "train", ["Q one", "Q three"])
    put(tmp_path, "other", "train", ["Q one", "Q two", "Q four"])
    for name, question in (("one", "Q one"), ("two", "Q two")):
        put(tmp_path, name, "test", [question])
    (tmp_path / f"{gone}.jsonl").unlink()
    assert main(["math500", "--out", str(tmp_path), "--from", "/nonexistent"]) == 2
    said = capsys.readouterr().err
    assert "--from /nonexistent" in said and f"{gone}.manifest.json is there, its {gone}.jsonl is not" in said
    assert "Q two" not in prompts_of(tmp_path, "other")


def test_an_error_of_the_decontamination_does_not_hide_that_of_the_preparation(tmp_path, capsys):
    (tmp_path / "bad.manifest.json").write_text("{")
    assert main(["math500", "--out", str(tmp_path), "--from", "/nonexistent"]) == 2
    said = capsys.readouterr().err
    assert "--from /nonexistent" in said and "bad.manifest.json can't be read" in said
