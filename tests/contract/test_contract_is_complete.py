"""Everything of OpenRLHF that our code uses stands in `contract.py`: found in the code's syntax tree."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import riskpo_openrlhf
from riskpo_openrlhf.integration import contract

ROOT = Path(riskpo_openrlhf.__file__).parent
FILES = sorted(
    path for part in ("integration", "runtime", "lab", "cli", "evaluation") for path in (ROOT / part).rglob("*.py")
)
EXPERIENCES = {"experience", "sample", "e", "s"}  # names that hold OpenRLHF's experiences
DOTTED = re.compile(r"[a-z_]+(\.[a-z_]+)+")
OWN_FLAGS = ("algo.riskpo", "riskpo.")


def openrlhf_names(tree: ast.AST) -> dict[str, tuple[str, str | None]]:
    """Local name -> (module, name in it) of everything that is imported from OpenRLHF; None for a module itself."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "openrlhf":
                    names[alias.asname or alias.name] = (alias.name, None)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "openrlhf":
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                is_module = not hasattr(importlib.import_module(node.module), alias.name) or _is_module(module)
                names[alias.asname or alias.name] = (module, None) if is_module else (node.module, alias.name)
    return names


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain; "" if it does not begin with a name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def used_names(tree: ast.AST) -> set[tuple[str, str]]:
    """(module, name) of each function and class of OpenRLHF that is imported, or reached through a module."""
    names, used = openrlhf_names(tree), set()
    for module, name in names.values():
        if name:
            used.add((module, name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module, _, attribute = dotted(node).rpartition(".")
            if module in names and names[module][1] is None:
                used.add((names[module][0], attribute))
    return {(module, name) for module, name in used if not _is_module(f"{module}.{name}")}


def parents_of(node: ast.ClassDef, names: dict) -> list[tuple[str, str]]:
    """(module, class) of the classes of OpenRLHF that a class inherits from, also through `plain_class(...)`."""
    found = []
    for base in node.bases:
        base = base.args[0] if isinstance(base, ast.Call) else base
        module, _, name = dotted(base).rpartition(".")
        if not module and name in names:
            found.append(names[name])
        elif module in names:
            found.append((names[module][0], name))
    return found


def inherited_uses(tree: ast.AST) -> set[tuple[str, str, str]]:
    """(module, class, attribute) that a subclass of OpenRLHF's overrides, calls by `super()` or reads of `self`.

    A mixin without a parent of OpenRLHF's counts for the classes that it is mixed into.
    """
    names = openrlhf_names(tree)
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    used = set()
    for node in classes.values():
        own = [classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
        for module, parent in parents_of(node, names):
            cls = contract.plain_class(getattr(importlib.import_module(module), parent))
            known = contract._attributes_of(cls)
            for part in (node, *own):
                for name in attributes_used(part) & known:
                    used.add((*home(cls, name, (module, parent)), name))
    return used


def attributes_used(node: ast.ClassDef) -> set[str]:
    methods = {item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))}
    reads = {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and ast.unparse(n.value) in ("self", "super()")
    }
    return methods | reads


def home(cls: type, name: str, given: tuple[str, str]) -> tuple[str, str]:
    """Where OpenRLHF defines an inherited method; for the rest, the class that was named."""
    for base in cls.__mro__:
        copied = "<locals>" in base.__qualname__  # Ray's wrapper, which holds copies of the methods
        if name in vars(base) and base.__module__.startswith("openrlhf") and not copied:
            return base.__module__, base.__name__
    return given


def in_contract(module: str, owner: str, name: str) -> bool:
    seams = contract.SEAMS.get(module, {})
    attributes = " ".join(value for key, value in contract.ATTRIBUTES.items() if key == f"{module}.{owner}")
    return f"{owner}.{name}" in seams or name in attributes.split()


def flags_used(tree: ast.AST) -> set[str]:
    """Dotted flags that are read: `args.a.b`, `self.args.a.b`, `strategy.args.a.b`, `values["a.b"]`."""
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            head, mark, flag = dotted(node).partition("args.")
            if mark and head in ("", "self.", "strategy.", "self.strategy.") and "." in flag:
                used.add(flag)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            used.add(str(node.slice.value))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("get", "values.get") and node.args:
            used.add(str(getattr(node.args[0], "value", "")))
    used = {flag for flag in used if DOTTED.fullmatch(flag) and not flag.startswith(OWN_FLAGS)}
    return {flag for flag in used if not any(other.startswith(f"{flag}.") for other in used)}


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(ROOT)))
def tree(request):
    return ast.parse(request.param.read_text())


def test_every_function_and_class_of_openrlhf_that_is_used_is_in_the_contract(tree):
    for module, name in used_names(tree):
        named = {seam.split(".")[0] for seam in contract.SEAMS.get(module, {})}
        assert name in named, f"contract.SEAMS[{module!r}] lacks {name}"


def test_everything_that_our_classes_override_or_read_of_their_openrlhf_parents_is_in_the_contract(tree):
    lacking = sorted(use for use in inherited_uses(tree) if not in_contract(*use))
    assert not lacking, f"neither contract.SEAMS nor contract.ATTRIBUTES has {lacking}"


def test_every_field_of_an_experience_that_is_used_is_in_the_contract(tree):
    experience = "openrlhf.trainer.ppo_utils.experience.Experience"
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) in EXPERIENCES}
    if "Experience" in {name for _, name in used_names(tree)}:
        assert used <= set(contract.ATTRIBUTES.get(experience, "").split()), sorted(used)


@pytest.mark.parametrize("part", ["integration", "runtime"])
def test_every_flag_of_openrlhf_that_is_read_is_in_the_contract(part):
    for path in (ROOT / part).rglob("*.py"):
        lacking = sorted(flags_used(ast.parse(path.read_text())) - set(contract.FLAGS.split()))
        assert not lacking, f"{path.name}: contract.FLAGS lacks {lacking}"
