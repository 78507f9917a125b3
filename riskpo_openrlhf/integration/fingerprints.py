"""What a checkpoint belongs to: data, model, reward function, flags, versions, ranks. Compared when a run resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from riskpo_openrlhf import __version__
from riskpo_openrlhf.config import FLAG_PREFIX, SETTINGS_OF_QUANTILES
from riskpo_openrlhf.integration import checkpoints
from riskpo_openrlhf.integration.arguments import uses_riskpo
from riskpo_openrlhf.integration.check_data import is_local
from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.final_flags import flat, names, versions
from riskpo_openrlhf.tables import to_json

_OF_QUANTILES = {f"{FLAG_PREFIX}{name}".removeprefix("--") for name in SETTINGS_OF_QUANTILES}
# What a run can't be resumed with when it differs, and why.
REFUSED = {
    **dict.fromkeys(
        _OF_QUANTILES,
        f"the tracked quantiles are of other bundles: {FLAG_PREFIX}resume_changed true restarts the tracker",
    ),
    "data": "the data loader's position belongs to the other data",
    "model": "the weights in the checkpoint belong to the other model",
    "data.prompt_probs": "the data loader's position belongs to the other mixture",
    "data.prompt_split": "the data loader's position belongs to the other data",
    "data.max_samples": "the data loader's position belongs to the other number of prompts",
    "ds.zero_stage": "the optimizer's state is laid out by stage",
    "ds.param_dtype": "the optimizer's state is laid out by type",
    "ds.lora.rank": "the weights in the checkpoint have another shape",
    "actor.optim": "the optimizer's state belongs to the other optimizer",
    "openrlhf": "checkpoints of another minor version are not read",
}
# Flags that say where and how a run is started, logged and saved. They may differ without a word.
SILENT = (
    "ckpt.", "logger.", "riskpo.", "eval.", "local_rank", "actor.num_", "actor.model_name_or_path",
    "data.prompt_dataset", "data.dataloader_num_workers", "reward.remote_url", "train.agent_func_path", "use_ms",
)  # fmt: skip
CONTENTS = {"data": "--data.prompt_dataset", "model": "--actor.model_name_or_path", "reward": "the reward function"}
MODEL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
CURE = (
    "Restore what differs; or start a new run with another --ckpt.path, from the saved model if need be "
    "(--actor.model_name_or_path)"
)


def of(args: SimpleNamespace) -> dict[str, dict]:
    """Return the fingerprints of a run from its final flags (nested): files by content, hub names by name.

    They are computed once and kept in `args`, which the workers get.
    """
    if not hasattr(args.riskpo, "_fingerprints"):
        args.riskpo._fingerprints = _compute(flat(args))
    return args.riskpo._fingerprints


def _compute(values: dict) -> dict[str, dict]:
    rewards = names(values["train.agent_func_path"] or values["reward.remote_url"])
    flags = {name: value for name, value in values.items() if not name.startswith(SILENT)}
    return {
        "data": {"data": _data(values["data.prompt_dataset"])},
        "model": {"model": _model(values["actor.model_name_or_path"])},
        "reward": {"reward": [_digest([Path(name)]) if Path(name).is_file() else name for name in rewards]},
        "flags": json.loads(to_json(flags)),  # as a manifest gives them back
        "versions": {"riskpo_openrlhf": __version__, **versions()},
    }


def compare(saved: dict | None, args: SimpleNamespace, where: Path) -> list[str]:
    """Return a line for everything that differs from the checkpoint `where`. Raises `RunFault` for what may not."""
    if not saved:
        return [f"checkpoint {where} carries no fingerprints: data, model and flags are not compared"]
    own = of(args)
    same_estimator = saved.get("flags", {}).get("algo.advantage.estimator") == args.algo.advantage.estimator
    keeps_quantiles = uses_riskpo(args) and same_estimator and not args.algo.riskpo.resume_changed
    lines, refused = [], []
    for name, now, then in _differences(own, saved):
        if name == "openrlhf":
            refuse = now.split(".")[:2] != then.split(".")[:2]
        else:
            refuse = name in REFUSED and (name not in _OF_QUANTILES or keeps_quantiles)
        text = CONTENTS.get(name, name if name in own["versions"] else f"--{name}")
        text += " has other content" if name in CONTENTS else f" {now} (checkpoint {then})"
        (refused if refuse else lines).append(f"{text}, and {REFUSED[name]}" if refuse else text)
    if refused:
        raise RunFault(f"cannot resume from {where}: {'; '.join(refused)}", CURE)
    return [f"resuming with a difference: {line}" for line in lines]


def check_resume(args: SimpleNamespace) -> None:
    """Compare before anything is started, where this machine sees the checkpoints. Raises `RunFault` as `compare`."""
    if not args.ckpt.load_enable or args.ds.use_universal_ckpt:
        return
    root = Path(args.ckpt.path)
    tag, _ = checkpoints.choose(root, bool(args.critic.model_name_or_path))
    manifest = checkpoints.read_manifest(root / checkpoints.ACTOR / tag) if tag else None
    if manifest:
        ranks = args.actor.num_nodes * args.actor.num_gpus_per_node
        if manifest["ranks"] != ranks:
            other_ranks(root / checkpoints.ACTOR / tag, manifest["ranks"], ranks, args.ds.zero_stage)
        compare(manifest["fingerprints"], args, root / checkpoints.ACTOR / tag)


def other_ranks(where: Path, then: int, now: int, stage: int) -> str:
    """Return the line that tells of a checkpoint that another number of ranks wrote.

    Raises `RunFault` unless the ZeRO stage is 3: OpenRLHF leaves out what DeepSpeed needs to convert the others.
    """
    if stage == 3:
        return (
            f"checkpoint {where} was written by {then} ranks: converted for {now} (DeepSpeed's universal checkpoint)"
        )
    raise RunFault(
        f"cannot resume from {where}: {then} ranks wrote it, and this run has {now} "
        f"(--actor.num_nodes x --actor.num_gpus_per_node): only --ds.zero_stage 3 can convert, this is {stage}",
        f"Resume with {then} ranks; or start a new run on {now} from the saved model (--actor.model_name_or_path)",
    )


def _differences(own: dict, saved: dict) -> Iterator[tuple[str, object, object]]:
    for group, values in own.items():
        for name, now in values.items():
            then = saved.get(group, {}).get(name, now)  # a flag that is new in this release differs in nothing
            if now != then:
                yield name, now, then


def _data(datasets: str) -> list[str]:
    found = []
    for name in names(datasets):
        path = Path(name)
        if not is_local(name) or not path.exists():
            found.append(name)
        elif path.is_dir():
            found.append(_digest(sorted(file for file in path.rglob("*") if file.is_file())))
        else:
            found.append(_digest([path]))
    return found


def _model(name: str) -> str:
    files = [Path(name) / file for file in MODEL_FILES]
    found = [file for file in files if file.is_file()]
    return _digest(found) if found else name


def _digest(files: list[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        with open(file, "rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return f"sha256:{total.hexdigest()[:32]}"
