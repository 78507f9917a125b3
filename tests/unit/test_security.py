"""What docs/security.md promises: nothing of the product unpickles or evaluates data, and no port is opened wide."""

import ast
import re
from pathlib import Path

import pytest

import riskpo_openrlhf

PACKAGE = Path(riskpo_openrlhf.__file__).parent
ROOT = PACKAGE.parent
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
CALLS = {"eval", "exec", "__import__"}
LOADERS = {"torch.load", "numpy.load", "np.load", "pandas.read_pickle", "pd.read_pickle", "yaml.load"}
# file -> built-in functions that it may call, and why
ALLOWED = {
    "integration/parser.py": {"exec"},  # OpenRLHF's own source
    "integration/strategy.py": {"torch.load"},  # random states of a checkpoint, which is trusted: docs/security.md
    "verifiers/code/guest.py": {"exec"},  # inside the sandbox
    "verifiers/code/guest_tasks.py": {"exec"},  # inside the sandbox
    "verifiers/code/guest_check.py": {"exec"},
}


def dangerous(source: str) -> set[str]:
    """Names of modules, loaders and built-in functions in the source that can run code from data."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} & MODULES if node.module else set()
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found |= {name} & (CALLS | LOADERS)
    return found


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import pickle", "pickle"), ("from pickle import loads", "pickle"),
        ("import torch\ntorch.load('x')", "torch.load"),
        ("def f(x):\n    return eval(x)", "eval"), ("exec(text)", "exec"), ("import cloudpickle as c", "cloudpickle"),
    ],
)  # fmt: skip
def test_every_way_of_running_code_from_data_is_seen(source, name):
    assert dangerous(source) == {name}
    assert dangerous("import pickletools, json\nmodel.eval()\nast.literal_eval('1')\nre.compile('x')") == set()


def test_no_file_of_the_product_unpickles_or_evaluates_anything_but_openrlhfs_source_and_sandboxed_programs():
    files = [path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(PACKAGE / "lab")]
    assert len(files) > 60
    found = {str(path.relative_to(PACKAGE)): dangerous(path.read_text()) for path in files}
    wrong = {name: names - ALLOWED.get(name, set()) for name, names in found.items()}
    assert {name: names for name, names in wrong.items() if names} == {}


def test_no_script_or_module_opens_a_port_to_all_addresses():
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "recipes").rglob("*.sh"), *(ROOT / "recipes").rglob("*.py")]
    wide = re.compile(r"0\.0\.0\.0|dashboard[-_]host|\[::\]")
    assert {path.name for path in files if wide.search(path.read_text())} == set()
