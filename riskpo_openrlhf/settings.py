"""The settings of a training run, which `cli.train` writes into the run's folder when it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riskpo_openrlhf.config import RiskPOConfig

SETTINGS = "settings.json"
FORMAT = 1
ABOVE = 3  # folders to look in: that of the TensorBoard files or the model, and two above it


@dataclass(frozen=True)
class RunSettings:
    """What a run was started with: its flags by dotted name, RiskPO's knobs (None for a baseline), versions."""

    path: Path
    flags: Mapping[str, Any]
    knobs: Mapping[str, Any] | None
    preset: str | None
    versions: Mapping[str, str]

    @property
    def config(self) -> RiskPOConfig | None:
        """Build RiskPO's settings. Raises `ValueError` if this version does not know a knob or its value."""
        try:
            return None if self.knobs is None else RiskPOConfig(**self.knobs)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path} is of another version of this package: {error}") from error

    def __str__(self) -> str:
        """Write one line for a caption."""
        if not (config := self.config):
            return f"estimator {self.flags.get('algo.advantage.estimator', 'unknown')}"
        levels = f"alpha {config.alpha:g}, beta {config.beta:g}, omega {config.omega:g}"
        return f"preset {self.preset}, {levels}, bundles of {config.bundle_size}"


def find_settings(folder: Path) -> RunSettings | None:
    """Read the settings of the run that `folder` belongs to: a run's folder, its TensorBoard files or its model.

    Returns None without such a file, and where the file tells of another run: TensorBoard folders of several runs can
    share one parent, and the file is then that of the run that started last.

    Raises:
        ValueError: the file is not JSON or of another format.
    """
    folder = folder.resolve()
    for home in (folder, *folder.parents)[:ABOVE]:
        path = home / SETTINGS
        values = _read(path) if path.is_file() else None
        if values is None:
            continue
        name = values["flags"].get("logger.wandb.run_name")
        # OpenRLHF writes to TENSORBOARD_DIR/RUN_NAME, so only there does the folder's name tell the run.
        inside = folder.parent.name == Path(str(values["flags"].get("logger.tensorboard_dir") or "")).name
        if inside and name and folder.name != name:
            return None
        versions = values.get("versions") or {}
        return RunSettings(path, values["flags"], values.get("config"), values.get("preset"), versions)
    return None


def _read(path: Path) -> dict | None:
    """Read the file's values; None for a `settings.json` of something else, such as an evaluation."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): restore it, or remove it to go without") from error
    if not isinstance(values, dict) or not isinstance(values.get("flags"), dict):
        return None
    if values.get("format") != FORMAT:
        raise ValueError(f"{path} has format {values.get('format')!r}; this version reads {FORMAT}")
    return values
