"""Reward files and agent files, which OpenRLHF loads by their path."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator

REWARD, AGENT = "reward_func", "agent_module"  # OpenRLHF's names of these modules


@contextlib.contextmanager
def findable_modules() -> Iterator[None]:
    """Enter such a module in `sys.modules`, and the file's folder in `sys.path`, when it is made in the block.

    OpenRLHF does neither. Dataclasses and pydantic look into `sys.modules`, and the file may import its neighbours.
    """
    make = importlib.util.module_from_spec

    def module_from_spec(spec):
        module = make(spec)
        if spec.name in (REWARD, AGENT):
            sys.modules[spec.name] = module
            sys.path.append(os.path.dirname(os.path.abspath(spec.origin)))
        return module

    importlib.util.module_from_spec = module_from_spec
    try:
        yield
    finally:
        importlib.util.module_from_spec = make
