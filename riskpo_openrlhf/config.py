"""Every knob of RiskPO: what it means, its bounds, its default and where it comes from.

This module imports nothing heavy, so that flags can be parsed and checked before torch, Ray or a GPU is touched.
`integration.arguments` turns each field below into `--algo.riskpo.NAME`; `core.estimator` reads the values.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

FLAG_PREFIX = "--algo.riskpo."
PAPER = "arXiv:2510.00911"
RELEASED = "the authors' released code"
OURS = "this project, docs/method.md"
OPEN = "; open in " + PAPER


# Values of knobs by which the responses of one prompt are compared with each other.
COMPARES_RESPONSES = frozenset(
    "stratified counterfactual std sum-mean group-std group-mean group-std-mean bundle-std bundle".split()
)


def _knob(default, meaning: str, source: str, *, low=None, high=None, open_low=False, open_high=False, choices=None):
    """A dataclass field that carries its own documentation and bounds (`open_*` excludes the end point)."""
    return field(
        default=default,
        metadata={
            "meaning": meaning,
            "source": source,
            "low": low,
            "high": high,
            "open_low": open_low,
            "open_high": open_high,
            "choices": choices,
        },
    )


def bounds_text(metadata) -> str:
    """The allowed values of one knob, as people read them: `[0, 1)`, `one of: a, b`, `true or false`."""
    if metadata["choices"]:
        return "one of: " + ", ".join(metadata["choices"])
    if metadata["low"] is None and metadata["high"] is None:
        return "true or false"
    low = "-inf" if metadata["low"] is None else f"{metadata['low']:g}"
    high = "inf" if metadata["high"] is None else f"{metadata['high']:g}"
    left = "(" if metadata["open_low"] or metadata["low"] is None else "["
    right = ")" if metadata["open_high"] or metadata["high"] is None else "]"
    return f"{left}{low}, {high}{right}"


@dataclass(frozen=True)
class RiskPOConfig:
    """The settings of one RiskPO run. The defaults are the preset `paper`.

    Raises `ValueError`, naming the flag, the value and the bounds, for any value out of range.
    """

    alpha: float = _knob(
        0.2, "lower quantile level: bundle scores under q_alpha are the lower tail", PAPER + " B.1",
        low=0, high=1, open_low=True, open_high=True,
    )  # fmt: skip
    beta: float = _knob(
        0.8, "upper quantile level: scores over q_beta give no further utility", PAPER + " B.1",
        low=0, high=1, open_low=True, open_high=True,
    )  # fmt: skip
    omega: float = _knob(0.5, "extra weight of the tail, (1 + omega) in Eq. 2", PAPER + " B.1", low=0)
    bundle_size: int = _knob(5, "B, questions in a bundle", PAPER + " B.1", low=1)
    bundling: str = _knob(
        "random",
        "who is bundled: random (seeded shuffle of prompts and of each prompt's responses), stratified (neighbours in "
        "cross-fitted difficulty), ordered (prompts in a seeded order, the j-th responses together)",
        "random: " + PAPER + " Eq. 3; stratified: " + OURS + "; ordered: " + RELEASED,
        choices=("random", "stratified", "ordered"),
    )
    credit: str = _knob(
        "uniform",
        "how a bundle's advantage is sent back to its responses",
        "uniform: " + PAPER + "; counterfactual: " + OURS + "; std, sum-mean, score: " + RELEASED,
        choices=("uniform", "counterfactual", "std", "sum-mean", "score"),
    )
    constant: bool = _knob(
        True, "keep the constant q_alpha - q_beta of g (Theorem 1); no effect with credit counterfactual",
        PAPER + " Theorem 1; dropped in " + RELEASED + " for DAPO-Math",
    )  # fmt: skip
    normalization: str = _knob(
        "none",
        "what advantages are divided by: none, bundle-std (std of the G scores of the bundle's question set), "
        "group-std (twice the std of the prompt's own rewards), group-mean (twice their mean above the lowest), "
        "group-std-mean (between them: as the mean for hard prompts, as the std for easy ones)",
        f"none: {PAPER}; bundle-std: {RELEASED}; group-std and group-std-mean: {OURS}; group-mean: arXiv:2602.02710",
        choices=("none", "bundle-std", "group-std", "group-mean", "group-std-mean"),
    )
    quantile_source: str = _knob(
        "tracked",
        "where q_alpha and q_beta come from: tracked (online recursion), batch (this step's scores), bundle (the G "
        "scores of the same questions)",
        "tracked: " + PAPER + " Algorithm 1; bundle: " + RELEASED,
        choices=("tracked", "batch", "bundle"),
    )
    profile: str = _knob(
        "averse", "risk profile: averse (MVaR, Eq. 2) or seeking (its counterpart of section 6.2)", PAPER,
        choices=("averse", "seeking"),
    )  # fmt: skip
    mix: str = _knob(
        "paper",
        "how the regions are mixed: paper (as Eq. 2 weighs them) or released (each region divided by its width, "
        "the tail weighed by omega, the sum divided by 1 + omega)",
        "paper: " + PAPER + " Eq. 2; released: " + RELEASED,
        choices=("paper", "released"),
    )
    short_bundle: str = _knob(
        "scale",
        "a last bundle of r < B questions: scale (its score by B/r, its advantage by r/B) or as-is",
        "scale: " + OURS + "; as-is: " + RELEASED,
        choices=("scale", "as-is"),
    )
    tracker_lr: float = _knob(
        0.3, "gamma, the step of the quantile tracker, in units of the bundle score", OURS + OPEN,
        low=0, high=10, open_low=True,
    )  # fmt: skip
    tracker_decay: float = _knob(
        0.0, "gamma_k = gamma / (1 + k)^decay after k updates; 0 keeps gamma constant", OURS + OPEN,
        low=0, high=1,
    )  # fmt: skip
    shaped_rewards: bool = _knob(
        False, "add the part of the reward that is not correctness (length penalties, bonuses), less its group mean, "
        "to the advantage; quantiles always see raw scores", OURS,
    )  # fmt: skip
    max_error_share: float = _knob(
        0.2, "the job stops when more than this share of a batch's responses has no verdict", OURS, low=0, high=1,
    )  # fmt: skip
    resume_changed: bool = _knob(
        False,
        "resume although levels, bundle size or bundling differ from the checkpoint (the tracker restarts)",
        OURS,
    )

    def __post_init__(self):
        for knob in fields(self):
            _check(knob, getattr(self, knob.name))
        if not self.alpha < self.beta:
            raise ValueError(
                f"{FLAG_PREFIX}alpha {self.alpha:g} must be below {FLAG_PREFIX}beta {self.beta:g}: "
                "they are the lower and the upper quantile level"
            )

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> RiskPOConfig:
        """The settings of a preset with some of them replaced. Raises `ValueError` that lists the known presets."""
        if name not in PRESETS:
            raise ValueError(f"{FLAG_PREFIX}preset {name!r} is not known; one of: {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RiskPOConfig:
        """The inverse of `to_dict`."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, as a checkpoint holds them."""
        return asdict(self)

    def replace(self, **changes: Any) -> RiskPOConfig:
        return replace(self, **changes)

    def differences(self, other: RiskPOConfig) -> dict[str, tuple[Any, Any]]:
        """Name -> (own value, the other's value) of every knob that differs."""
        return {k: (v, getattr(other, k)) for k, v in self.to_dict().items() if v != getattr(other, k)}

    def describe(self, preset: str) -> str:
        """One line for the log: the preset, what the run changes in it, and how it differs from the paper."""
        changed = self.differences(RiskPOConfig.preset(preset))
        settled = {k.name for k in fields(self) if PAPER in k.metadata["source"] and OPEN not in k.metadata["source"]}
        from_paper = {k: v for k, v in self.differences(RiskPOConfig()).items() if k in settled}
        text = f"RiskPO preset {preset}"
        if changed:
            text += "; changed: " + ", ".join(f"{k}={own} (preset {theirs})" for k, (own, theirs) in changed.items())
        if from_paper:
            text += "; differs from the paper in " + ", ".join(
                f"{k}={own} (paper {paper})" for k, (own, paper) in from_paper.items()
            )
        return text

    def require_group_size(self, group_size: int) -> None:
        """Refuse settings that need more responses a prompt than `group_size`. Raises `ValueError`."""
        needs_two = [
            f"{FLAG_PREFIX}{name} {value}"
            for name, value in (
                ("bundling", self.bundling),
                ("credit", self.credit),
                ("normalization", self.normalization),
                ("quantile_source", self.quantile_source),
            )
            if value in COMPARES_RESPONSES
        ]
        if group_size < 2 and needs_two:
            raise ValueError(
                f"--rollout.n_samples_per_prompt {group_size} is too small: {needs_two[0]} compares the responses of "
                "one prompt and needs at least 2"
            )
        halves = [f"{FLAG_PREFIX}quantile_source bundle"] if self.quantile_source == "bundle" else []
        halves += [f"{FLAG_PREFIX}normalization bundle-std"] if self.normalization == "bundle-std" else []
        if group_size < 4 and self.bundling == "stratified" and halves:
            raise ValueError(
                f"--rollout.n_samples_per_prompt {group_size} is too small: {FLAG_PREFIX}bundling stratified bundles "
                f"half of a prompt's responses at a time, and {halves[0]} compares those of a half; at least 4 are "
                "needed"
            )


def _check(knob, value) -> None:
    meta, flag = knob.metadata, FLAG_PREFIX + knob.name
    if meta["choices"]:
        ok = value in meta["choices"]
    elif isinstance(knob.default, bool):
        ok = isinstance(value, bool)
    else:
        kinds = (int,) if isinstance(knob.default, int) else (int, float)
        ok = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
        low, high = meta["low"], meta["high"]
        ok = ok and (low is None or value > low or (value == low and not meta["open_low"]))
        ok = ok and (high is None or value < high or (value == high and not meta["open_high"]))
    if not ok:
        raise ValueError(f"{flag} {value!r} is not allowed: {bounds_text(meta)}")


_RELEASED = {
    "omega": 1.5,
    "bundling": "ordered",
    "quantile_source": "bundle",
    "mix": "released",
    "normalization": "bundle-std",
    "short_bundle": "as-is",
    "tracker_lr": 0.1,
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "recommended": {
        "alpha": 0.4,
        "beta": 0.99,
        "bundling": "stratified",
        "credit": "counterfactual",
        "normalization": "group-std-mean",
    },
    "released-dapo": {**_RELEASED, "credit": "sum-mean", "constant": False},
    "released-math": {**_RELEASED, "beta": 0.9, "credit": "std"},
    "released-seeking": {**_RELEASED, "credit": "std", "profile": "seeking"},
}
