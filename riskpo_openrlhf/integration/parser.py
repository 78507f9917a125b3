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
from importlib.util import find_spec
from pathlib import Path

from riskpo_openrlhf.integration.arguments import add_arguments
from riskpo_openrlhf.integration.contract import OPENRLHF_MODULE, ContractError


def openrlhf_parser() -> argparse.ArgumentParser:
    """Build OpenRLHF's own parser without importing its module.

    OpenRLHF builds it under `if __name__ == "__main__"`, so there is no function to call. The statements of that
    block, up to the one that parses, are run by themselves.

    Raises `ContractError` if OpenRLHF's module has no such block.
    """
    spec = find_spec(OPENRLHF_MODULE)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if spec else ast.Module([], [])
    blocks = (node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
    statements = next(blocks, ast.If(ast.Constant(True), [], [])).body
    parse = next((i for i, node in enumerate(statements) if "parser.parse_args(" in ast.unparse(node)), 0)
    names = {"argparse": argparse, "datetime": datetime}
    try:
        exec(compile(ast.Module(statements[:parse], []), spec.origin if spec else "", "exec"), names)
        return names["parser"]
    except (NameError, KeyError) as error:
        raise ContractError(
            f'{OPENRLHF_MODULE} does not build `parser` under `if __name__ == "__main__"` from argparse and datetime '
            f"alone ({type(error).__name__}: {error})"
        ) from error


def early_flags(argv: Sequence[str]) -> dict:
    """Read the flags by dotted name, as they stand before they are checked. `--help` ends here."""
    parser = openrlhf_parser()
    add_arguments(parser)
    return vars(parser.parse_known_args(argv)[0])


def look_ahead(argv: Sequence[str]) -> tuple[str, str | None]:
    """Read `--riskpo.runtime` and `--riskpo.dry_run`, which decide what can be imported. `--help` ends here."""
    flat = early_flags(argv)
    return flat["riskpo.runtime"], flat["riskpo.dry_run"]


def is_openrlhfs(parser: argparse.ArgumentParser) -> bool:
    """Tell OpenRLHF's PPO parser, or one with its flags, from any other."""
    return "--algo.advantage.estimator" in parser._option_string_actions
