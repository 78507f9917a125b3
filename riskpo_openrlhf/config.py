"""Every knob of RiskPO: its meaning, bounds, default and source; and the presets, each of which is a whole method.

This module imports nothing heavy, so flags can be parsed and checked before torch, Ray or a GPU is touched.
`integration.arguments` turns each of `KNOBS` into `--algo.riskpo.NAME`; `core.estimator` reads the values.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

FLAG_PREFIX = "--algo.riskpo."
SETTINGS_OF_QUANTILES = ("alpha", "beta", "bundle_size", "bundling")  # tracked quantiles mean nothing under others
PAPER = "arXiv:2510.00911"
RELEASED = "the authors' released code"
OURS = "this project, docs/method.md"
OPEN = "; open in " + PAPER

# Values of knobs that compare the responses of one prompt with each other.
COMPARES_RESPONSES = frozenset("stratified counterfactual group-std group-mean group-std-mean".split())
# What the authors' code decides for itself: these knobs can't stand beside a preset released-*.
FIXED_BY_RELEASED = ("bundling", "credit", "normalization", "quantile_source")


def _knob(default, meaning: str, source: str, *, low=None, high=None, open_low=False, open_high=False, choices=None):
    """Make a dataclass field that carries its own documentation and bounds (`open_*` excludes the end point)."""
    bounds = {"low": low, "high": high, "open_low": open_low, "open_high": open_high, "choices": choices}
    return field(default=default, metadata={"meaning": meaning, "source": source, **bounds})


def bounds_text(metadata) -> str:
    """Write the allowed values of one knob for people: `[0, 1)`, `one of: a, b`, `true or false`."""
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
        "who is bundled: random (a seeded shuffle of prompts and of each prompt's responses) or stratified "
        "(neighbours in cross-fitted difficulty)",
        "random: " + PAPER + " Eq. 3; stratified: " + OURS,
        choices=("random", "stratified"),
    )
    credit: str = _knob(
        "uniform",
        "how a bundle's advantage goes back to its responses: each gets all of it, or what it adds to the utility of "
        "its bundles (counterfactual)",
        "uniform: " + PAPER + "; counterfactual: " + OURS,
        choices=("uniform", "counterfactual"),
    )
    constant: bool = _knob(
        True, "keep the constant q_alpha - q_beta of g (Theorem 1); no effect with credit counterfactual",
        PAPER + " Theorem 1; dropped in " + RELEASED + " for DAPO-Math",
    )  # fmt: skip
    normalization: str = _knob(
        "none",
        "what advantages are divided by: none, group-std (twice the std of the prompt's own rewards), group-mean "
        "(twice their mean above the lowest), group-std-mean (between them: as the mean for hard prompts, as the std "
        "for easy ones)",
        f"none: {PAPER}; group-std and group-std-mean: {OURS}; group-mean: arXiv:2602.02710",
        choices=("none", "group-std", "group-mean", "group-std-mean"),
    )
    quantile_source: str = _knob(
        "tracked",
        "where q_alpha and q_beta come from: tracked (online recursion) or batch (the scores of this step)",
        "tracked: " + PAPER + " Algorithm 1; batch: " + OURS,
        choices=("tracked", "batch"),
    )
    profile: str = _knob(
        "averse", "risk profile: averse (MVaR, Eq. 2) or seeking (its counterpart of section 6.2)", PAPER,
        choices=("averse", "seeking"),
    )  # fmt: skip
    tracker_lr: float = _knob(
        0.3, "gamma, the step of the quantile tracker, in units of the bundle score", OURS + OPEN,
        low=0, high=10, open_low=True,
    )  # fmt: skip
    tracker_decay: float = _knob(
        0.0, "gamma_k = gamma / (1 + k)^decay after k updates; 0 keeps gamma constant", OURS + OPEN,
        low=0, high=1,
    )  # fmt: skip
    shaped_rewards: bool = _knob(
        False, "add the part of the reward that is not correctness (length penalties, bonuses), minus its group mean, "
        "to the advantage; quantiles always see raw scores", OURS,
    )  # fmt: skip
    max_error_share: float = _knob(
        0.2, "stop the job when more than this share of a batch's responses has no verdict", OURS, low=0, high=1,
    )  # fmt: skip
    resume_changed: bool = _knob(
        False,
        "resume although levels, bundle size or bundling differ from the checkpoint (the tracker restarts)",
        OURS,
    )

    # Not a flag: the presets released-* set it to "dapo", "math" or "seeking", and `core.released` does the rest.
    released: str = ""

    def __post_init__(self):
        for knob in KNOBS:
            _check(knob, getattr(self, knob.name))
        if not self.alpha < self.beta:
            raise ValueError(
                f"{FLAG_PREFIX}alpha {self.alpha:g} must be below {FLAG_PREFIX}beta {self.beta:g}: "
                "they are the lower and the upper quantile level"
            )
        if self.released not in ("", *RELEASED_SCRIPTS):
            raise ValueError(f"released {self.released!r} is not allowed: one of: {', '.join(RELEASED_SCRIPTS)}")
        if self.released:
            changed = {k.name: getattr(self, k.name) for k in KNOBS if getattr(self, k.name) != k.default}
            _refuse_fixed(self.released, changed)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> RiskPOConfig:
        """Build the settings of a preset with some of them replaced. Raises `ValueError` that lists the presets."""
        if name not in PRESETS:
            raise ValueError(f"{FLAG_PREFIX}preset {name!r} is not known; one of: {', '.join(PRESETS)}")
        if "released" in PRESETS[name]:
            _refuse_fixed(PRESETS[name]["released"], overrides)
        return cls(**{**PRESETS[name], **overrides})

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, as a checkpoint holds them."""
        return asdict(self)

    def differences(self, other: RiskPOConfig) -> dict[str, tuple[Any, Any]]:
        """Map the name of every setting that differs to (own value, the other's value)."""
        return {k: (v, getattr(other, k)) for k, v in self.to_dict().items() if v != getattr(other, k)}

    def describe(self, preset: str, flags: dict[str, Any]) -> str:
        """Write one line for the log: the preset, what the run changes in it, and every difference from the paper.

        `flags` are the run's values of the OpenRLHF flags in `METHOD_FLAGS`, by dotted name.
        """
        changed = {**self.differences(RiskPOConfig.preset(preset)), **_differing(flags, METHOD_FLAGS[preset])}
        settled = {k.name for k in KNOBS if PAPER in k.metadata["source"] and OPEN not in k.metadata["source"]}
        from_paper = {k: v for k, v in self.differences(RiskPOConfig()).items() if k in settled or k == "released"}
        from_paper.update(_differing(flags, METHOD_FLAGS["paper"]))
        text = f"RiskPO preset {preset}"
        if changed:
            text += "; changed: " + ", ".join(f"{k}={own} (preset {theirs})" for k, (own, theirs) in changed.items())
        if from_paper:
            text += "; differs from the paper in " + ", ".join(
                f"{k}={own} (paper {'none' if paper in ('', None) else paper})"
                for k, (own, paper) in from_paper.items()
            )
        return text

    def require_group_size(self, group_size: int) -> None:
        """Refuse settings that need more responses a prompt than `group_size`. Raises `ValueError`."""
        needs_two = [f"{FLAG_PREFIX}{k} {v}" for k, v in self.to_dict().items() if v in COMPARES_RESPONSES]
        needs_two += [f"{FLAG_PREFIX}preset released-{self.released}"] if self.released else []
        if group_size < 2 and needs_two:
            raise ValueError(
                f"--rollout.n_samples_per_prompt {group_size} is too small: {needs_two[0]} compares the responses of "
                "one prompt and needs at least 2"
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


def _refuse_fixed(released: str, settings: dict[str, Any]) -> None:
    """Refuse knobs that the authors' code decides for itself. Raises `ValueError`."""
    for name in FIXED_BY_RELEASED:
        if name in settings:
            raise ValueError(
                f"{FLAG_PREFIX}{name} {settings[name]} can't stand beside {FLAG_PREFIX}preset released-{released}: "
                "the authors' code decides that itself; leave the knob out, or take preset paper"
            )


def _differing(flags: dict[str, Any], others: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (value, others[name]) for name, value in flags.items() if value != others[name]}


KNOBS = tuple(knob for knob in fields(RiskPOConfig) if knob.metadata)
RELEASED_SCRIPTS = ("dapo", "math", "seeking")
_RELEASED = {"omega": 1.5, "tracker_lr": 0.1}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "recommended": {
        "alpha": 0.4,
        "beta": 0.99,
        "bundling": "stratified",
        "credit": "counterfactual",
        "normalization": "group-std-mean",
    },
    "released-dapo": {**_RELEASED, "released": "dapo", "constant": False},
    "released-math": {**_RELEASED, "released": "math", "beta": 0.9},
    "released-seeking": {**_RELEASED, "released": "seeking", "profile": "seeking"},
}

# A preset is the whole method: the OpenRLHF flags of its loss and objective. A flag given on the command line wins.
_MEAN_OVER_RESPONSES = {
    "actor.loss_agg_mode": "seq-mean-token-mean",
    "actor.eps_clip": 0.2,
    "actor.dual_clip": None,
    "actor.entropy_coef": 0.0,  # logs the entropy, adds no bonus
    "algo.kl.init_coef": 0.0,
}
_AUTHORS = {
    **_MEAN_OVER_RESPONSES,
    "actor.policy_loss_type": "ppo",
    "actor.loss_agg_mode": "token-mean",
    "actor.dual_clip": 3.0,
}
METHOD_FLAGS: dict[str, dict[str, Any]] = {
    "paper": {"actor.policy_loss_type": "riskpo", **_MEAN_OVER_RESPONSES},  # Eq. 3
    "recommended": {"actor.policy_loss_type": "ppo", **_MEAN_OVER_RESPONSES},
    **{f"released-{script}": _AUTHORS for script in RELEASED_SCRIPTS},
}
