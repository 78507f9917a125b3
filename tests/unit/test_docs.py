"""The documentation says what the code does: flags, presets, metrics, functions, tests, links, the worked example."""

import ast
import doctest
import re
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
PAGES = sorted(DOCS.glob("*.md"))
POLICY_METRICS = {"clip/low", "clip/high", "entropy"}  # integration.policy_loss adds them in the policy workers
EVALUATION_METRICS = {
    *("pass@k", "pass@k_se", "avg@n", "avg@n_se"),
    *("response_length", "truncated", "no_answer", "verifier_error"),
}


def emitted() -> set[str]:
    return {*RiskPOEstimator().step(torch.tensor([[1.0, 0.0]] * 5), 0).metrics, *POLICY_METRICS}


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


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_names_a_metric_or_a_knob_that_does_not_exist(path):
    text = path.read_text(encoding="utf-8")
    metrics = set(re.findall(r"`((?:riskpo|signal|clip)/\w+)`", text))
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


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_relative_links_point_to_files_and_headings_that_exist(path):
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_the_worked_example_gives_what_it_says():
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", page("method.md"), re.MULTILINE | re.DOTALL))
    example = doctest.DocTestParser().get_doctest(source, {}, "method.md", None, 0)
    assert len(example.examples) >= 8
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert not report, "".join(report)
