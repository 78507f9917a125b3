"""Write the model card of a run: the README.md beside its model, as the Hugging Face hub shows it."""

from __future__ import annotations

import os
from pathlib import Path

from riskpo_openrlhf.analysis.evaluations import read_summaries
from riskpo_openrlhf.evaluation.summary import percent
from riskpo_openrlhf.files import write_bytes
from riskpo_openrlhf.settings import RunSettings, find_settings

SHOWN = (
    "rollout.batch_size", "rollout.n_samples_per_prompt", "train.batch_size", "rollout.temperature",
    "rollout.max_new_tokens", "train.num_episodes", "actor.adam.lr", "actor.lr_scheduler", "actor.policy_loss_type",
    "actor.loss_agg_mode", "algo.kl.init_coef", "train.seed",
)  # fmt: skip

LIMITS = """Rewards come from a verifier of the final answer. The model was not tested for anything else: its other
abilities, its safety and its languages may have changed."""


def write_model_card(run: Path) -> Path | None:
    """Write `model/README.md` of a run: data, method, settings, evaluations. Replaces an older card.

    Returns:
        The card's path; None if the run has no model or no settings.json.
    """
    model, settings = run / "model", find_settings(run)
    if settings is None or not (model / "config.json").is_file():
        return None
    card = model / "README.md"
    write_bytes(card, model_card(settings, read_summaries(run), run.resolve().name).encode())
    return card


def model_card(settings: RunSettings, evaluations: dict[Path, dict], name: str) -> str:
    """Write the card's text. `evaluations`: folder -> summary, as `cli.evaluate` writes them."""
    flags = settings.flags
    base = str(flags.get("actor.model_name_or_path"))
    hub = not base.startswith(("/", "."))  # a name of the hub
    config, data = settings.config, _names(flags.get("data.prompt_dataset"))
    method = f"RiskPO (arXiv:2510.00911), {settings}" if config else str(settings)
    lines = ["---", "library_name: transformers", *([f"base_model: {base}"] if hub else [])]
    lines += ["tags:", "- reinforcement-learning", *(["- riskpo", "- arxiv:2510.00911"] if config else [])]
    lines += ["---", "", f"# {name}", ""]
    start = base if hub else os.path.basename(base.rstrip("/"))
    lines += [f"Trained from `{start}` on {data} by {method}, with riskpo-openrlhf on OpenRLHF.", ""]
    lines += ["## Training", "", "| setting | value |", "|---|---|"]
    lines += [f"| `--{flag}` | {flags[flag]} |" for flag in SHOWN if flags.get(flag) is not None]
    lines += [f"| {package} | {version} |" for package, version in sorted(settings.versions.items())]
    lines += ["", LIMITS, "", "## Evaluation", ""]
    if not evaluations:
        lines += ["None yet: `python3 -m riskpo_openrlhf.cli.evaluate --model MODEL --data FILES` adds some."]
    for home, summary in evaluations.items():
        heads = ("data", "problems", "n", "temperature", "most tokens", "Pass@1", "mean tokens")
        lines += [f"### {home.name}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for source, values in summary["sources"].items():
            sampling = summary.get("sampling", {}).get(source, {})
            passed = f"{percent(values, 1)} %" if "pass@1" in values else "–"
            lines.append(
                f"| {source} | {values['problems']} | {values['n']} | {sampling.get('temperature', '')} | "
                f"{sampling.get('max_new_tokens', '')} | {passed} | {values['response_length']:.0f} |"
            )
        lines += ["", "±: half of the 95 % interval over problems.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _names(data) -> str:
    """Name the training files by their stems, without this machine's folders."""
    return ", ".join(f"`{Path(part).stem if part.startswith('/') else part}`" for part in str(data).split(","))
