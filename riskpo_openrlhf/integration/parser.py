"""OpenRLHF's own parser, before OpenRLHF can be imported.

What can be imported depends on flags (`--riskpo.runtime`). OpenRLHF builds its parser in a module that imports Ray,
vLLM, DeepSpeed and flash-attn, so the parser is taken out of the module. Every early look at the flags uses it, also
`--help`: an abbreviated flag means the same everywhere.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

from riskpo_openrlhf.integration.arguments import add_arguments
from riskpo_openrlhf.integration.contract import OPENRLHF_MODULE, ContractError
from riskpo_openrlhf.integration.faults import Problem, as_json


def openrlhf_parser() -> argparse.ArgumentParser:
    """Build OpenRLHF's own parser without importing its module. RiskPO's flags are added when it parses.

    OpenRLHF builds it under `if __name__ == "__main__"`, so there is no function to call. The statements of that
    block, up to the one that parses, are run by themselves. A launch script may add flags of its own.

    Raises `ContractError` if OpenRLHF's module has no such block.
    """
    before, _, file = _main_block()
    names = {"argparse": argparse, "datetime": datetime}
    try:
        exec(compile(ast.Module(before, []), file, "exec"), names)
        return names["parser"]
    except (NameError, KeyError) as error:
        raise ContractError(
            f'{OPENRLHF_MODULE} does not build `parser` under `if __name__ == "__main__"` from argparse and datetime '
            f"alone ({type(error).__name__}: {error})"
        ) from error


def openrlhf_args(flat: argparse.Namespace) -> SimpleNamespace:
    """Turn parsed flags into the nested ones that OpenRLHF's `train` takes, by OpenRLHF's own statements and checks.

    Raises `AssertionError` where OpenRLHF does. Call `riskpo_openrlhf.install` first.
    """
    _, after, file = _main_block()
    train = next((i for i, node in enumerate(after) if ast.unparse(node).startswith("train(")), None)
    names = {**vars(import_module(OPENRLHF_MODULE)), "args": flat}
    exec(compile(ast.Module(after[:train], []), file, "exec"), names)
    return names["args"]


def _main_block() -> tuple[list[ast.stmt], list[ast.stmt], str]:
    """Return the statements of OpenRLHF's `__main__` block before and after the one that parses, and its file."""
    spec = find_spec(OPENRLHF_MODULE)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if spec else ast.Module([], [])
    blocks = (node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
    statements = next(blocks, ast.If(ast.Constant(True), [], [])).body
    parse = next((i for i, node in enumerate(statements) if "parser.parse_args(" in ast.unparse(node)), 0)
    return statements[:parse], statements[parse + 1 :], spec.origin if spec else ""


def early_flags(argv: Sequence[str]) -> dict:
    """Read the flags by dotted name, as they stand before they are checked. `--help` ends here.

    Some decide what can be imported: `--riskpo.runtime`, `--riskpo.dry_run`.
    """
    parser = openrlhf_parser()
    add_arguments(parser)
    errors_as_json(parser)
    return vars(parser.parse_known_args(argv)[0])


def errors_as_json(parser: argparse.ArgumentParser) -> None:
    """Let the parser print its own errors as JSON, too, if `sys.argv` asks for `--riskpo.dry_run json`."""
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--riskpo.dry_run", nargs="?")
    if vars(early.parse_known_args()[0])["riskpo.dry_run"] != "json":
        return

    def error(message: str) -> None:
        print(as_json([Problem(None, message)]), flush=True)
        parser.exit(2, f"{parser.prog}: error: {message}\n")

    parser.error = error


def is_openrlhfs(parser: argparse.ArgumentParser) -> bool:
    """Tell OpenRLHF's PPO parser, or one with its flags, from any other."""
    return "--algo.advantage.estimator" in parser._option_string_actions
