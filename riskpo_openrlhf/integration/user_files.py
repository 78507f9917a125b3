"""Reward files and agent files, which OpenRLHF loads by their path."""

from __future__ import annotations

import importlib.util
import os
import sys

REWARD, AGENT = "reward_func", "agent_module"  # OpenRLHF's names of these modules
_make = importlib.util.module_from_spec


def module_from_spec(spec):
    """Make a module. One of these files is entered in `sys.modules`, and its folder in `sys.path`.

    OpenRLHF does neither. Dataclasses and pydantic look into `sys.modules`, and the file may import its neighbours.
    """
    module = _make(spec)
    if spec.name in (REWARD, AGENT):
        sys.modules[spec.name] = module
        sys.path.append(os.path.dirname(os.path.abspath(spec.origin)))
    return module
