"""The documentation says what the code does: flags, presets, metrics, functions, tests, links, the worked example."""

import ast
import doctest
import importlib.util
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from riskpo_openrlhf.config import (
    FIXED_BY_RELEASED,
    FLAG_PREFIX,
    KNOBS,
    METHOD_FLAGS,
    PRESETS,
    RiskPOConfig,
    bounds_text,
)
from riskpo_openrlhf.core.estimator import RiskPOEstimator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTEBOOK = sorted(DOCS.glob("results/*.md"))
PAGES = sorted(DOCS.glob("*.md")) + NOTEBOOK
ALL_PAGES = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
COLUMNS = 120
POLICY_METRICS = {"clip/low", "clip/high", "entropy"}  # integration.policy_loss adds them in the policy workers
UPDATE_METRICS = {"update/steps", "update/skipped", "update/weights_changed"}  # integration.guards, in the driver
EVALUATION_METRICS = {
    *("pass@k", "pass@k_se", "avg@n", "avg@n_se"),
    *("response_length", "truncated", "no_answer", "verifier_error"),
}


def emitted() -> set[str]:
    return {*RiskPOEstimator().step(torch.tensor([[1.0, 0.0]] * 5), 0).metrics, *POLICY_METRICS, *UPDATE_METRICS}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def as_flag(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def rows(text: str):
    """The cells of every row of every table, without the lines under the headings."""
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\- ]+", line):
            yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def functions(path: Path) -> set[str]:
    """`function`, `Class` and `Class.method` of a Python file."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
            if isinstance(node, ast.ClassDef):
                kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
                found.update(f"{node.name}.{child.name}" for child in node.body if isinstance(child, kinds))
    return found


def slug(heading: str) -> str:
    """The anchor that code hosts give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
def test_each_knob_has_a_row_with_its_default_presets_and_bounds(knob):
    (row,) = [row for row in rows(page("flags.md")) if row[0] == f"`{FLAG_PREFIX}{knob.name}`"]
    _, default, presets, bounds, meaning, source = row
    assert default == f"`{as_flag(knob.default)}`"
    assert bounds == f"`{bounds_text(knob.metadata)}`"
    assert meaning and source
    written = {}
    for names, value in re.findall(r"([a-z][a-z\-*, ]*?): `([^`]+)`", presets):
        for name in re.split(r", | and ", names):
            matching = [p for p in PRESETS if p.startswith(name[:-1])] if name.endswith("*") else [name]
            written.update(dict.fromkeys(matching, value))
    assert written == {p: as_flag(values[knob.name]) for p, values in PRESETS.items() if knob.name in values}


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_has_a_column_with_its_values(preset):
    assert f"`{preset}`" in page("flags.md")
    table = list(rows(page("method.md")))
    (header,) = [row for row in table if row[0] == "knob"]
    (column,) = [i for i, cell in enumerate(header) if f"`{preset}`" in cell]
    written = {row[0]: row for row in table if len(row) == len(header) and row[0] in {knob.name for knob in KNOBS}}
    assert {name for values in PRESETS.values() for name in values} - {"released"} <= set(written)
    paper, config = RiskPOConfig(), RiskPOConfig.preset(preset)
    for name, row in written.items():
        if row[column] == "(no effect)":
            continue
        if row[column] == "–":
            assert config.released and name in FIXED_BY_RELEASED
            continue
        assert (row[column] or row[1]) == as_flag(getattr(config, name)), name
        assert row[1] == as_flag(getattr(paper, name)), name


@pytest.mark.parametrize("preset", PRESETS)
def test_each_flag_of_a_presets_loss_is_in_both_tables(preset):
    table = list(rows(page("method.md")))
    (header,) = [row for row in table if row[0] == "knob"]
    (column,) = [i for i, cell in enumerate(header) if f"`{preset}`" in cell]
    by_flag = {row[0]: row for row in table if len(row) == len(header)}
    shorter = {row[0]: row for row in rows(page("flags.md")) if len(row) == 5}
    place = 2 + ("paper", "recommended", "released").index(preset.split("-")[0])
    for name, value in METHOD_FLAGS[preset].items():
        shown = "none" if value is None else as_flag(value)
        row = by_flag[f"`--{name}`"]
        assert (row[column] or row[1]) == shown, name
        assert shorter[f"`--{name}`"][place].strip("`") == shown, name


@pytest.mark.parametrize("name", sorted(emitted() | {f"eval/{{datasource}}/{m}" for m in EVALUATION_METRICS}))
def test_each_metric_is_explained(name):
    assert f"`{name}`" in page("metrics.md")


each_page = pytest.mark.parametrize("path", ALL_PAGES, ids=lambda path: str(path.relative_to(ROOT)))


@each_page
def test_no_page_names_a_metric_or_a_knob_that_does_not_exist(path):
    text = path.read_text(encoding="utf-8")
    metrics = set(re.findall(r"`((?:riskpo|signal|clip|update)/\w+)`", text))
    assert metrics <= emitted()
    knobs = set(re.findall(re.escape(FLAG_PREFIX) + r"(\w+)", text))
    assert knobs <= {"preset", *(knob.name for knob in KNOBS)}


def test_every_test_that_the_documentation_names_exists():
    tests = {path.name: functions(path) for path in (ROOT / "tests").rglob("test_*.py")}
    named = [pair for path in PAGES for pair in re.findall(r"`(test_\w+\.py)::(\w+)`", path.read_text("utf-8"))]
    assert [f"{file}::{test}" for file, test in named if test not in tests.get(file, ())] == []


def test_every_function_that_the_documentation_names_exists():
    package = ROOT / "riskpo_openrlhf"
    named = {pair for path in PAGES for pair in re.findall(r"`([\w/]+\.py):([\w.]+)`", path.read_text("utf-8"))}
    assert len(named) >= 10
    missing = {(f, n) for f, n in named if not (package / f).is_file() or n not in functions(package / f)}
    assert not missing


@each_page
def test_relative_links_point_to_files_and_headings_that_exist(path):
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), target


@each_page
def test_no_heading_is_there_twice_on_a_page_so_that_its_anchor_stays(path):
    assert [anchor for anchor, times in Counter(anchors(path)).items() if times > 1] == []


def anchors(path: Path) -> list[str]:
    return [slug(line.lstrip("# ")) for line in prose(path) if re.match("#+ ", line)]


def prose(path: Path) -> Iterator[str]:
    """The lines of a page without its code blocks, fenced or indented."""
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not re.match(r"    +\S", line):
            yield line


@each_page
def test_prose_ends_at_120_columns_but_for_tables_targets_of_links_and_long_code(path):
    lines = [line for line in prose(path) if not line.lstrip().startswith("|")]
    short = [re.sub(r"`[^`]{60,}`", "``", re.sub(r"\]\([^)]*\)", "]()", line)) for line in lines]
    assert [line for line in short if len(line) > COLUMNS] == []


def test_comments_of_the_recipes_end_at_120_columns_too():
    lines = (line for path in ROOT.glob("recipes/**/*.sh") for line in path.read_text(encoding="utf-8").splitlines())
    assert [line for line in lines if line.lstrip().startswith("#") and len(line) > COLUMNS] == []


def test_the_readme_installs_on_gpus_as_the_requirements_say():
    (block,) = re.findall(r"^```bash\n(pip .*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    requirements = (ROOT / "requirements/gpu.txt").read_text(encoding="utf-8")
    assert len(block.splitlines()) == 3
    assert [line for line in block.splitlines() if line not in requirements] == []


@pytest.mark.parametrize("name, most", [("README.md", 100), ("docs/results.md", 120)])
def test_the_readme_and_the_page_of_results_stay_short(name, most):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= most


@each_page
def test_a_number_in_brackets_after_a_number_says_what_it_is(path):
    """± is half of a 95 % interval; a standard error is written (SE .010), never (.010) alone."""
    bare = re.findall(r"\d\*{0,2} \(\.\d+\)", "\n".join(prose(path)))
    assert bare == []


def test_every_interval_of_the_readme_and_of_the_page_of_results_stands_in_the_notebook():
    notebook = "\n".join(path.read_text(encoding="utf-8") for path in NOTEBOOK)
    shown = re.findall(r"[+−]?[\d.]+ ± [\d.]*\d", page("results.md"))
    assert len(shown) >= 15
    assert [interval for interval in shown if interval not in notebook] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (points, half) = re.search(r"\+([\d.]+) points Pass@16.*?\(± ([\d.]+)", readme, re.DOTALL).groups()
    assert f"**+{float(points) / 100:.3f} ± {float(half) / 100:.3f}**".replace("0.", ".") in notebook


def commands(path: Path) -> Iterator[list[str]]:
    """The words of every command on a page that begins as ours do; lines that end in a backslash are joined."""
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    for line in re.findall(
        r"^[+ ]*(?:[A-Z_]+=\S+ )*((?:python3 -m riskpo_openrlhf|bash recipes|bash tests)\S*.*)$", text, re.M
    ):
        yield shlex.split(line.partition(";")[0], comments=True)


def literals(path: Path) -> set[str]:
    """Words that begin with -- in the strings of a Python file, or anywhere in another."""
    return set(re.findall(r"(?<![\w-])--[a-z][\w.]*(?:-\w+)*", path.read_text(encoding="utf-8")))


def flags_of_training() -> set[str]:
    openrlhf = Path(importlib.util.find_spec("openrlhf").submodule_search_locations[0])
    package = (ROOT / "riskpo_openrlhf").rglob("*.py")
    own = {flag for path in package for flag in literals(path) if flag.startswith("--riskpo.")}
    source = (openrlhf / "cli/train_ppo_ray.py").read_text(encoding="utf-8")
    theirs = set(re.findall(r'add_argument\(\s*f?"(--[\w.{}]+)"', source))
    theirs |= {flag.replace("{prefix}", prefix) for flag in theirs for prefix in ("actor", "critic")}
    return theirs | own | {f"{FLAG_PREFIX}{knob.name}" for knob in KNOBS} | {"--help"}


def flags_of(module: Path) -> set[str]:
    """Flags of a program: those in its own file and in the files of this package that it imports."""
    names = re.findall(r"from (riskpo_openrlhf[\w.]*) import ([\w, ]+)", module.read_text(encoding="utf-8"))
    files = {module}
    for parent, imported in names:
        folder = ROOT / parent.replace(".", "/")
        files |= {folder.with_suffix(".py"), *(folder / f"{name.strip()}.py" for name in imported.split(","))}
    return {flag for file in files if file.is_file() for flag in literals(file)} | {"--help"}


@each_page
def test_commands_name_programs_and_flags_that_exist(path):
    training = flags_of_training() | {f"{FLAG_PREFIX}preset"}
    for words in commands(path):
        given = [word for word in words if re.match("--[a-z]", word)]
        own, after = given, []
        if words[0] == "python3":
            module = ROOT / (words[2].replace(".", "/") + ".py")
            assert module.is_file(), words[2]
            known = training if words[2].endswith("cli.train") else flags_of(module)
        else:
            script = ROOT / words[1]
            if "|" in words[1] or not script.suffix:  # a choice of scripts
                continue
            assert script.is_file(), words[1]
            known = literals(script) | literals(
                ROOT / "recipes/lib" / ("paper.py" if script.stem == "paper" else "launch.sh")
            )
            if "--" in words:
                place = words.index("--")
                own, after = ([w for w in part if re.match("--[a-z]", w)] for part in (words[:place], words[place:]))
            known |= training if "--without" in words else set()
        missing = [flag for flag in own if flag not in known and flag.replace("--no-", "--") not in known]
        missing += [flag for flag in after if flag not in training]
        assert missing == [], " ".join(words)


def code_blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.MULTILINE | re.DOTALL)


def save_files(folder: Path) -> None:
    """Write every block of your-own-run.md that begins with `# NAME` to that name."""
    for block in code_blocks("your-own-run.md", r"(?:python|bash)"):
        if found := re.match(r"# (\w+\.\w+)\n", block):
            (folder / found.group(1)).write_text(block)


def test_the_data_and_the_reward_function_of_your_own_run_work_as_printed(tmp_path, monkeypatch, capsys):
    from riskpo_openrlhf.cli import prepare_data

    save_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = [
        block
        for block in code_blocks("your-own-run.md", "bash")
        if "make_data.py" in block or "my_reward import" in block
    ]
    printed = subprocess.run(["bash", "-e", "-c", "\n".join(run)], capture_output=True, text=True, timeout=120)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.strip() == str({"rewards": 1.0, "scores": 1.0, "extra_logs": {"letters/no_box": 0.0}})
    checks = [words[3:] for words in commands(DOCS / "your-own-run.md") if "--check" in words]
    assert [words[1:] for words in checks] == [["train.jsonl", "test.jsonl"], ["chat.jsonl"], ["train.parquet"]]
    assert [prepare_data.main(words) for words in checks] == [0, 0, 0]
    assert "[error]" not in capsys.readouterr().out


def method_flags(method: str) -> dict[str, tuple[str, ...]]:
    """The flags of a file of recipes/methods, with their values."""
    script = f'source recipes/methods/{method}.sh && printf "%s\\n" "${{method_flags[@]}}"'
    words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    return with_values(words)


def with_values(words: list[str]) -> dict[str, tuple[str, ...]]:
    places = [place for place, word in enumerate(words) if word.startswith("--")]
    return {words[a]: tuple(words[a + 1 : b]) for a, b in zip(places, [*places[1:], len(words)], strict=True)}


def test_the_table_of_methods_has_the_flags_of_the_recipes():
    table = {row[0].strip("`"): row[1].strip("`") for row in rows(page("your-own-run.md")) if "--algo." in row[1]}
    assert {"paper", "recommended", "grpo", "dr_grpo", "gspo", "gmpo", "gpg"} <= set(table)
    for method, text in table.items():
        shown, recipe = with_values(text.split()), method_flags(method)
        if shown["--algo.advantage.estimator"] == (
            "riskpo",
        ):  # the preset sets the rest, and the recipe may repeat it
            recipe = {flag: recipe.get(flag, value) for flag, value in shown.items()}
        assert shown == recipe, method


def test_the_python_of_your_own_run_and_every_entry_of_troubleshooting_are_complete():
    (block,) = [block for block in code_blocks("your-own-run.md", "python") if "RiskPOEstimator" in block]
    scope: dict = {}
    exec(block, scope)
    assert scope["result"].advantages.shape == (60, 10)
    entries = re.split(r"^### .*$", page("troubleshooting.md"), flags=re.MULTILINE)[1:]
    assert len(entries) >= 40
    assert all(len(entry.split("## ")[0].split()) >= 4 for entry in entries)


def test_the_worked_example_gives_what_it_says():
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", page("method.md"), re.MULTILINE | re.DOTALL))
    example = doctest.DocTestParser().get_doctest(source, {}, "method.md", None, 0)
    assert len(example.examples) >= 8
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert not report, "".join(report)
