"""Write one page on one run that needs no other file: warnings, curves, tracker, signal, answers, settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import nan
from pathlib import Path

from riskpo_openrlhf.analysis import health
from riskpo_openrlhf.analysis.cures import CURES
from riskpo_openrlhf.analysis.curves import Panel, Series, default_window, panel
from riskpo_openrlhf.analysis.draw import inline_svg
from riskpo_openrlhf.analysis.evaluations import read_summaries
from riskpo_openrlhf.analysis.folder import SHOWN, evaluation_samples, generated_samples, read_log
from riskpo_openrlhf.analysis.runs import Run, combine, eval_tag, load_runs
from riskpo_openrlhf.config import FLAG_PREFIX, KNOBS, PRESETS, RiskPOConfig
from riskpo_openrlhf.evaluation.intervals import Z95
from riskpo_openrlhf.evaluation.metrics import SHOWN_KS
from riskpo_openrlhf.settings import SETTINGS, RunSettings, find_settings
from riskpo_openrlhf.tables import plus_minus

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Section:
    """A heading, what to know when reading it, and its panels."""

    title: str
    text: str
    panels: list[Panel]


def write_report(folder: str | os.PathLike, out: str | os.PathLike) -> list[health.Check]:
    """Write the page on the run in `folder` to `out`; return the checks made.

    Raises:
        FileNotFoundError: `folder` holds no run: no metrics, no log, no settings.
        ValueError: `folder` holds several runs, or its settings.json can't be read.
        EvaluationError: an evaluation in `folder` has a broken line among its samples.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    folder = Path(folder)
    try:
        runs = load_runs([folder])
    except FileNotFoundError:
        if not any((folder / name).is_file() for name in ("train.log", SETTINGS)):
            raise
        runs = [Run(folder.name, {}, folder)]  # it failed before it logged anything
    if len(runs) > 1:
        raise ValueError(f"{folder} holds {len(runs)} runs ({', '.join(run.name for run in runs)}): name one of them")
    (run,) = runs
    settings = find_settings(run.home)
    known = settings and settings.config
    config = known or RiskPOConfig()
    checks = health.check(run, config.alpha, config.beta)
    checks.sort(key=lambda one: [health.WARNING, health.UNKNOWN, health.FINE].index(one.state))
    environment = Environment(
        loader=PackageLoader("riskpo_openrlhf.analysis", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    html = environment.get_template(TEMPLATE).render(
        name=folder.resolve().name,
        log=read_log(folder),
        steps=max((int(curve.steps[-1]) for curve in run.scalars.values()), default=0),
        numbers=numbers(run),
        first=health.FIRST,
        checks=checks,
        cures=CURES,
        sections=sections(run, config, known is not None),
        draw=inline_svg,
        evaluations={str(home.relative_to(folder)): evaluation(made) for home, made in read_summaries(folder).items()},
        ks=SHOWN_KS,
        samples=[*generated_samples(run.home), *evaluation_samples(folder)],
        shown=SHOWN,
        settings=settings,
        flags=_flags(settings) if settings else [],
        knobs=_knobs(known, settings.preset) if known else [],
    )
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html, encoding="utf-8", errors="replace")
    return checks


def numbers(run: Run) -> list[tuple[str, str, str]]:
    """List (name, at first, at last) of the numbers to look at first; training metrics as means of FIRST steps."""
    rows = []
    for source, k in run.evaluated():
        if k in SHOWN_KS:
            tag = eval_tag(source, k)
            values, halves = run.scalars[tag].values, run.halves(tag)
            rows.append((f"{source} Pass@{k}", *(plus_minus(values[i], halves[i]) for i in (0, -1))))
    for name, tag, digits in (
        ("Training reward", "rollout/reward_mean", 3),
        ("MVaR", "riskpo/mvar", 3),
        ("Lower-tail RVaR", "riskpo/rvar_lower", 3),
        ("Entropy, nats a token", "entropy", 3),
        ("Response length, tokens", "rollout/response_length_mean", 1),
        ("Seconds a step", "timing/step_total", 1),
    ):
        if curve := run.scalars.get(f"train/{tag}"):
            ends = curve.values[: health.FIRST], curve.values[-health.FIRST :]
            rows.append((name, *(plus_minus(values.mean(), digits=digits) for values in ends)))
    return rows


def evaluation(made: dict) -> list[tuple[str, ...]]:
    """List (data source, Pass@1, Pass@8, Pass@16, tokens, share truncated) of an evaluation's summary."""
    return [
        (
            source,
            *(plus_minus(metrics.get(f"pass@{k}"), Z95 * (metrics.get(f"pass@{k}_se") or nan)) for k in SHOWN_KS),
            plus_minus(metrics.get("response_length"), digits=0),
            plus_minus(metrics.get("truncated")),
        )
        for source, metrics in made["sources"].items()
    ]


def _knobs(config: RiskPOConfig, preset: str | None) -> list[tuple[str, object, str]]:
    """List (flag, value, the preset's value if it differs) of every knob."""
    changed = config.differences(RiskPOConfig.preset(preset)) if preset in PRESETS else {}
    presets = {name: f"preset: {theirs}" for name, (_, theirs) in changed.items()}
    return [(FLAG_PREFIX + k.name, getattr(config, k.name), presets.get(k.name, "")) for k in KNOBS]


def _flags(settings: RunSettings) -> list[tuple[str, str]]:
    """List (flag, value) of every flag that has a value."""
    return [(f"--{name}", str(value)) for name, value in sorted(settings.flags.items()) if value not in (None, "", [])]


def sections(run: Run, config: RiskPOConfig, known: bool) -> list[Section]:
    """Choose the panels of the page. Unless the settings are `known`, the page says that `config` is the paper's."""
    group, window = {run.name: [run]}, default_window([run])

    def of(title: str, unit: str, **metrics: str) -> Panel:
        """Make a panel of training metrics, `riskpo__mvar="MVaR"`."""
        tags = {f"train/{tag.replace('__', '/')}": name for tag, name in metrics.items()}
        return panel(group, title, unit, tags, window)

    sources = dict.fromkeys(source for source, _ in run.evaluated())
    held_out = []
    for source in sources:
        tags = {eval_tag(source, k): f"Pass@{k}" for s, k in run.evaluated() if s == source and k in SHOWN_KS}
        held_out.append(panel(group, f"Pass@k on {source}", "share solved", tags))
    statuses = {tag: tag.removeprefix("train/verifier/") for tag in run.scalars if tag.startswith("train/verifier/")}
    assumed = "" if known else " These are the paper's levels: there is no settings.json to tell the run's own."
    smooth = f" Training metrics are means of the last {window} steps, over the pale values of each step."
    return [
        Section(
            "Learning",
            "Bands are 95 % intervals over problems." + (smooth if window > 1 else ""),
            [
                *(held_out or [Panel("Held-out Pass@k", "")]),
                of("Training reward", "mean of the rollouts", rollout__reward_mean=""),
                of("MVaR and lower-tail RVaR", "bundle score", riskpo__mvar="MVaR", riskpo__rvar_lower="lower tail"),
                of("Entropy", "nats a token", entropy=""),
                of("Response length", "tokens", rollout__response_length_mean=""),
                of("Truncated responses", "share of responses", rollout__truncated_rate=""),
            ],
        ),
        Section(
            "Quantile tracker",
            f"A calibrated tracker has {config.alpha:g} and {config.beta:g} of the scores below its quantiles, "
            f"on average (dashed lines). Coverage is the mean of the last {health.WINDOW} steps.{assumed}",
            [
                _coverage(run, config),
                of("Quantiles and mean score", "bundle score", riskpo__q_alpha="q_alpha", riskpo__score_mean="mean",
                   riskpo__q_beta="q_beta"),
                of("Bundles by region", "share of bundles", riskpo__share_lower="lower", riskpo__share_middle="middle",
                   riskpo__share_upper="upper"),
            ],
        ),
        Section(
            "Signal and verifier",
            "If all answers to a prompt get the same reward, GRPO learns nothing from it.",
            [
                of("Prompts without a difference", "share of prompts", signal__prompts_all_wrong="all wrong",
                   signal__prompts_all_right="all right"),
                of("Responses without signal", "share of responses", signal__grpo_zero_share="for GRPO",
                   riskpo__advantage_zero_share="here"),
                panel(group, "Verifier statuses", "share of responses", statuses, window),
            ],
        ),
        Section(
            "Advantages and policy update",
            "",
            [
                of("Advantages", "bundle score", riskpo__advantage_mean="mean", riskpo__advantage_std="std"),
                of("Largest |advantage|", "bundle score", riskpo__advantage_abs_max=""),
                of("Clipped tokens", "share of tokens", clip__low="low", clip__high="high",
                   ppo_clip_ratio="all"),
                of("Gradient norm", "of the last update", actor_grad_norm=""),
                of("Time", "seconds", timing__step_total="step", timing__generation="generation",
                   timing__ppo_train="training"),
            ],
        ),
    ]  # fmt: skip


def _coverage(run: Run, config: RiskPOConfig) -> Panel:
    series = []
    for name in ("alpha", "beta"):
        if found := combine([run], f"train/riskpo/coverage_{name}", health.WINDOW):
            series.append(Series(run.name, f"under q_{name}", *found[0]))
    return Panel("Coverage", "share of scores", series, levels=(config.alpha, config.beta) if series else ())
