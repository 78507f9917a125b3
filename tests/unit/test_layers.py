"""Who may import whom: the light part stays light, and OpenRLHF's insides stay in `integration`."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import riskpo_openrlhf

ROOT = Path(riskpo_openrlhf.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
INTEGRATION = "riskpo_openrlhf.integration"
LABORATORY = "riskpo_openrlhf.lab"
CPU_RUNTIME = "riskpo_openrlhf.runtime.cpu"
OPENRLHF_MODULE = re.compile(r"openrlhf(\.\w+)+")
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


@cache
def tree(path: Path) -> ast.AST:
    return ast.parse(path.read_text())


def imported(parsed: ast.AST, module: str, is_package: bool = False, *, in_functions: bool = True) -> set[str]:
    """Full names that the source imports, relative ones resolved; `from a import b` gives both a and a.b."""
    package = module if is_package else module.rpartition(".")[0]
    names = set()
    for node in nodes(parsed, in_functions=in_functions):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def imported_by(path: Path, **kwargs) -> set[str]:
    return imported(tree(path), module_name(path), path.name == "__init__.py", **kwargs)


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


def violations(files, wrong) -> dict[str, set[str]]:
    """File -> names that it must not import; `wrong` decides by full name."""
    found = {module_name(path): {name for name in imported_by(path) if wrong(name)} for path in files}
    return {module: names for module, names in found.items() if names}


def outside(*parts: str) -> list[Path]:
    return [path for path in FILES if not any(path.is_relative_to(ROOT / part) for part in parts)]


def strings(path: Path, pattern: re.Pattern) -> set[str]:
    """Whole strings of the source that match, such as a module's name for `runpy` or `importlib`."""
    constants = (node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant))
    return {text for text in constants if isinstance(text, str) and pattern.fullmatch(text)}


def test_importing_the_package_its_settings_and_its_light_commands_loads_no_heavy_library():
    light = ("riskpo_openrlhf", "riskpo_openrlhf.config")
    commands = ("riskpo_openrlhf.cli.prepare_data", "riskpo_openrlhf.cli.serve_verifiers")
    frameworks = {"torch", "numpy", "ray", "vllm", "openrlhf", "deepspeed", "transformers"}
    libraries = {"datasets", "huggingface_hub", "pyarrow", "PIL", "sympy", "fastapi", "uvicorn", "reasoning_gym"}
    for module, loaded in loaded_after(*light, *commands).items():
        heavy = (frameworks | libraries).intersection(loaded)
        assert not heavy, f"import {module} loads {heavy}"


def test_importing_core_loads_torch_but_no_training_framework():
    core = [module_name(path) for path in FILES if path.parent == ROOT / "core"]
    for module, loaded in loaded_after(*core).items():
        frameworks = {"ray", "vllm", "openrlhf", "deepspeed", "transformers"}.intersection(loaded)
        assert not frameworks, f"import {module} loads {frameworks}"


def test_core_imports_nothing_of_the_project_but_core_and_config():
    allowed = ("riskpo_openrlhf.core", "riskpo_openrlhf.config")

    def wrong(name):
        own = within(name, "riskpo_openrlhf") and name != "riskpo_openrlhf"
        return own and not any(within(name, parent) for parent in allowed)

    assert violations((ROOT / "core").rglob("*.py"), wrong) == {}


def test_openrlhf_is_imported_in_the_integration_the_runtime_and_the_laboratory_only():
    files = outside("integration", "runtime", "lab")
    assert violations(files, lambda name: within(name, "openrlhf")) == {}
    assert {module_name(path): found for path in files if (found := strings(path, OPENRLHF_MODULE))} == {}


def test_only_the_command_line_and_the_laboratory_import_the_integration():
    files = outside("cli", "integration", "lab")
    assert violations(files, lambda name: within(name, INTEGRATION)) == {}
    named = {path for path in files if strings(path, DOTTED_INTEGRATION)}
    assert named <= {ROOT / "__init__.py"}  # the lazy `install`, for launch scripts of one's own


def test_nothing_of_the_product_imports_the_laboratory_which_the_wheel_does_not_hold():
    assert violations(outside("lab"), lambda name: within(name, LABORATORY)) == {}


def test_the_cpu_runtime_is_imported_inside_functions_only_so_that_a_gpu_cluster_never_loads_it():
    found = {path for path in FILES for name in imported_by(path, in_functions=False) if within(name, CPU_RUNTIME)}
    assert found == set()


def test_no_file_of_the_product_is_longer_than_400_lines():
    lengths = {module_name(path): len(path.read_text().splitlines()) for path in outside("lab")}
    assert {module for module, n in lengths.items() if n > 400} == set()


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
    assert found in imported(ast.parse(source), module, is_package, in_functions=False)


def test_an_import_inside_a_function_does_not_count_as_one_at_import_time():
    parsed = ast.parse("def start():\n    from . import cpu\n")
    assert CPU_RUNTIME in imported(parsed, "riskpo_openrlhf.runtime", True)
    assert CPU_RUNTIME not in imported(parsed, "riskpo_openrlhf.runtime", True, in_functions=False)
