"""One page on one run that needs nothing but itself: warnings, curves, tracker, signal, answers, settings."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riskpo_openrlhf.analysis import health
from riskpo_openrlhf.analysis.curves import SHOWN_KS, Panel, Series, panel
from riskpo_openrlhf.analysis.draw import inline_svg
from riskpo_openrlhf.analysis.evaluations import summaries
from riskpo_openrlhf.analysis.folder import (
    SHOWN,
    evaluation_samples,
    generated_samples,
    levels,
    read_command,
    read_log,
)
from riskpo_openrlhf.analysis.page import PAGE
from riskpo_openrlhf.analysis.runs import Run, combine, eval_tag, load_runs
from riskpo_openrlhf.config import RiskPOConfig

TROUBLESHOOTING = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


@dataclass(frozen=True)
class Section:
    """A heading, what to know when reading it, and its panels."""

    title: str
    text: str
    panels: list[Panel]


def write_report(folder: str | os.PathLike, out: str | os.PathLike) -> list[health.Check]:
    """Write the page on the run in `folder` to `out`; returns the checks made.

    Raises:
        FileNotFoundError: there are no TensorBoard files in or below `folder`.
        ValueError: there are those of several runs.
    """
    from jinja2 import Environment, StrictUndefined

    folder = Path(folder)
    runs = load_runs([folder])
    if len(runs) > 1:
        raise ValueError(f"{folder} holds {len(runs)} runs ({', '.join(run.name for run in runs)}): name one of them")
    (run,) = runs
    log = read_log(folder)
    known = levels(log.settings)
    alpha, beta = known or (RiskPOConfig().alpha, RiskPOConfig().beta)
    checks = health.check(run, alpha, beta)
    checks.sort(key=lambda one: [health.WARNING, health.UNKNOWN, health.FINE].index(one.state))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(PAGE).render(
        name=folder.resolve().name,
        log=log,
        steps=max((int(curve.steps[-1]) for curve in run.scalars.values()), default=0),
        numbers=numbers(run),
        first=health.FIRST,
        checks=checks,
        cure=cure,
        sections=sections(run, alpha, beta, known is not None),
        draw=inline_svg,
        evaluations={str(home.relative_to(folder)): evaluation(made) for home, made in summaries(folder).items()},
        ks=SHOWN_KS,
        samples=[*generated_samples(run.home), *evaluation_samples(folder)],
        shown=SHOWN,
        command=read_command(folder),
    )
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html, encoding="utf-8", errors="replace")
    return checks


def numbers(run: Run) -> list[tuple[str, str, str]]:
    """(name, at first, at last) of what one wants to know first; training metrics as means of FIRST steps."""
    rows = []
    for source, k in run.evaluated():
        if k in SHOWN_KS:
            tag = eval_tag(source, k)
            values, errors = run.scalars[tag].values, run.errors(tag)
            rows.append((f"{source} Pass@{k}", *(_number(values[i], 3, errors[i]) for i in (0, -1))))
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
            rows.append((name, *(_number(values.mean(), digits) for values in ends)))
    return rows


def evaluation(made: dict) -> list[tuple[str, ...]]:
    """(data source, Pass@1, Pass@8, Pass@16, tokens, share truncated) of an evaluation's summary."""
    return [
        (
            source,
            *(_number(metrics.get(f"pass@{k}"), 3, metrics.get(f"pass@{k}_se")) for k in SHOWN_KS),
            _number(metrics.get("response_length"), 0),
            _number(metrics.get("truncated"), 3),
        )
        for source, metrics in made["sources"].items()
    ]


def _number(value: float | None, digits: int, error: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if error is None or np.isnan(error) else f" ± {error:.{digits}f}")


def sections(run: Run, alpha: float, beta: float, known: bool) -> list[Section]:
    group = {run.name: [run]}

    def of(title: str, unit: str, **metrics: str) -> Panel:
        """A panel of training metrics, `riskpo__mvar="MVaR"`."""
        return panel(group, title, unit, {f"train/{tag.replace('__', '/')}": name for tag, name in metrics.items()})

    sources = dict.fromkeys(source for source, _ in run.evaluated())
    held_out = [
        panel(
            group,
            f"Pass@k on {source}",
            "share solved",
            {eval_tag(source, k): f"Pass@{k}" for s, k in run.evaluated() if s == source and k in SHOWN_KS},
        )
        for source in sources
    ]
    statuses = {tag: tag.removeprefix("train/verifier/") for tag in run.scalars if tag.startswith("train/verifier/")}
    assumed = "" if known else " The levels are the paper's: no train.log in the folder says the run's own."
    return [
        Section(
            "Learning",
            "Bands are ± 1 standard error over problems.",
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
            f"Calibrated, the shares of scores under the tracked quantiles are {alpha:g} and {beta:g} on average "
            f"(dashed lines); the curves are means of the last {health.WINDOW} steps.{assumed}",
            [
                _coverage(run, alpha, beta),
                of("Quantiles and mean score", "bundle score", riskpo__q_alpha="q_alpha", riskpo__score_mean="mean",
                   riskpo__q_beta="q_beta"),
                of("Bundles by region", "share of bundles", riskpo__share_lower="lower", riskpo__share_middle="middle",
                   riskpo__share_upper="upper"),
            ],
        ),
        Section(
            "Signal and verifier",
            "Where all answers to a prompt get the same reward, GRPO learns nothing.",
            [
                of("Prompts without a difference", "share of prompts", signal__prompts_all_wrong="all wrong",
                   signal__prompts_all_right="all right"),
                of("Responses without signal", "share of responses", signal__grpo_zero_share="for GRPO",
                   riskpo__advantage_zero_share="here"),
                panel(group, "Verifier statuses", "share of responses", statuses),
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


def _coverage(run: Run, alpha: float, beta: float) -> Panel:
    series = []
    for name in ("alpha", "beta"):
        if found := combine([run], f"train/riskpo/coverage_{name}", health.WINDOW):
            series.append(Series(run.name, f"under q_{name}", *found[0]))
    return Panel("Coverage", "share of scores", series, levels=(alpha, beta) if series else ())


def cure(beginning: str) -> str:
    """The paragraph of docs/troubleshooting.md that begins so, as plain text; without that file, where to look."""
    if not TROUBLESHOOTING.is_file():
        return f"See docs/troubleshooting.md, “{beginning.replace('`', '')}”"
    for paragraph in TROUBLESHOOTING.read_text(encoding="utf-8").split("\n\n"):
        if paragraph.startswith(f"**{beginning}"):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
            return text.replace("**", "").replace("`", "")
    raise LookupError(f"{TROUBLESHOOTING} has no paragraph that begins with **{beginning}")
