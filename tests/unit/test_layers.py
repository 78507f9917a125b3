"""Who may import whom: the light part stays light, and OpenRLHF's insides stay in `integration`."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import riskpo_openrlhf

ROOT = Path(riskpo_openrlhf.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
INTEGRATION = "riskpo_openrlhf.integration"
LABORATORY = "riskpo_openrlhf.lab"
CPU_RUNTIME = "riskpo_openrlhf.runtime.cpu"
DOTTED_INTEGRATION = re.compile(r"(riskpo_openrlhf)?\.integration(\.\w+)*(:\w+)?")


def module_name(path: Path) -> str:
    parts = (ROOT.name, *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def nodes(tree: ast.AST, *, in_functions: bool):
    """Every node of the tree; without `in_functions`, only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if in_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from nodes(node, in_functions=in_functions)


def imported(source: str, module: str, is_package: bool = False, *, in_functions: bool = True) -> set[str]:
    """Full names that the source imports, relative ones resolved; `from a import b` gives both a and a.b."""
    package = module if is_package else module.rpartition(".")[0]
    names = set()
    for node in nodes(ast.parse(source), in_functions=in_functions):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def imported_by(path: Path, **kwargs) -> set[str]:
    return imported(path.read_text(), module_name(path), path.name == "__init__.py", **kwargs)


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")


def loaded_after(*modules: str) -> dict[str, list[str]]:
    """Top-level modules that are loaded after each import, in a fresh interpreter."""
    code = (
        "import importlib, json, sys\n"
        "loaded = {}\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    loaded[name] = sorted({m.partition('.')[0] for m in sys.modules})\n"
        "print(json.dumps(loaded))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_importing_the_package_and_its_settings_loads_no_heavy_library():
    for module, loaded in loaded_after("riskpo_openrlhf", "riskpo_openrlhf.config").items():
        heavy = {"torch", "numpy", "ray", "vllm", "openrlhf", "deepspeed", "transformers"}.intersection(loaded)
        assert not heavy, f"import {module} loads {heavy}"


def test_importing_core_loads_torch_but_no_training_framework():
    core = [module_name(path) for path in FILES if path.parent == ROOT / "core"]
    for module, loaded in loaded_after(*core).items():
        frameworks = {"ray", "vllm", "openrlhf", "deepspeed", "transformers"}.intersection(loaded)
        assert not frameworks, f"import {module} loads {frameworks}"


def test_core_imports_nothing_of_the_project_but_core_and_config():
    allowed = ("riskpo_openrlhf.core", "riskpo_openrlhf.config")
    for path in (ROOT / "core").rglob("*.py"):
        own = {name for name in imported_by(path) if within(name, "riskpo_openrlhf") and name != "riskpo_openrlhf"}
        wrong = {name for name in own if not any(within(name, parent) for parent in allowed)}
        assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_only_the_command_line_imports_the_integration(path):
    if any(path.is_relative_to(ROOT / part) for part in ("cli", "integration", "lab")):
        return
    names = {name for name in imported_by(path) if within(name, INTEGRATION)}
    if path != ROOT / "__init__.py":  # the lazy `install`, for launch scripts of one's own
        constants = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        names |= {text for text in constants if isinstance(text, str) and DOTTED_INTEGRATION.fullmatch(text)}
    assert not names, f"{path} imports {names}; only riskpo_openrlhf/cli and riskpo_openrlhf/lab may"


@pytest.mark.parametrize("path", [path for path in FILES if not path.is_relative_to(ROOT / "lab")], ids=module_name)
def test_nothing_of_the_product_imports_the_laboratory(path):
    names = {name for name in imported_by(path) if within(name, LABORATORY)}
    assert not names, f"{path} imports {names}; the wheel does not hold riskpo_openrlhf/lab"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_the_cpu_runtime_is_imported_only_inside_functions(path):
    names = {name for name in imported_by(path, in_functions=False) if within(name, CPU_RUNTIME)}
    assert not names, f"{path} imports {names} when it is imported itself; on a GPU cluster it must not be loaded"


@pytest.mark.parametrize(
    ("source", "module", "is_package", "found"),
    [
        (
            "import riskpo_openrlhf.integration.trainers as t",
            "riskpo_openrlhf.data.x",
            False,
            INTEGRATION + ".trainers",
        ),
        ("from riskpo_openrlhf import integration", "riskpo_openrlhf.data.x", False, INTEGRATION),
        ("from ..integration import trainers", "riskpo_openrlhf.data.x", False, INTEGRATION + ".trainers"),
        ("from . import cpu", "riskpo_openrlhf.runtime", True, CPU_RUNTIME),
        ("from .cpu import start", "riskpo_openrlhf.runtime.other", False, CPU_RUNTIME),
        ("try:\n    from .runtime import cpu\nexcept ImportError:\n    pass", "riskpo_openrlhf", True, CPU_RUNTIME),
    ],
)
def test_every_way_of_writing_an_import_is_seen(source, module, is_package, found):
    assert found in imported(source, module, is_package, in_functions=False)


def test_an_import_inside_a_function_does_not_count_as_one_at_import_time():
    source = "def start():\n    from . import cpu\n"
    assert CPU_RUNTIME in imported(source, "riskpo_openrlhf.runtime", True)
    assert CPU_RUNTIME not in imported(source, "riskpo_openrlhf.runtime", True, in_functions=False)
