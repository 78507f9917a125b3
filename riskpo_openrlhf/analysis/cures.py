"""What to do about each warning of a run, with the entry of docs/troubleshooting.md that says more."""

from __future__ import annotations

from typing import NamedTuple


class Cure(NamedTuple):
    """The advice on one symptom; `anchor` is its heading in docs/troubleshooting.md."""

    text: str
    anchor: str


CURES = {
    "trained": Cure(
        "The run trained nothing, or ended before its first step: the last lines of train.log name the cause and the "
        "cure.",
        "nothing-was-trained",
    ),
    "gradient": Cure(
        "With gradient norm 0 no response has an advantage: all rewards of a prompt are equal (signal/grpo_zero_share "
        "is 1). Take other data or another reward. If it is not finite, resume with a lower learning rate.",
        "nothing-was-trained",
    ),
    "entropy": Cure(
        "First see whether it is the metric: OpenRLHF's entropy_loss depends on how micro-batches are cut. If it is "
        "real, lower the learning rate or the updates a rollout, take preset recommended, or add "
        "--actor.entropy_coef.",
        "entropy-collapses",
    ),
    "reward": Cure(
        "With preset paper the start is too weak: take preset recommended, or a stronger start. With any method: "
        "lower the learning rate.",
        "reward-falls-from-the-start-or-responses-get-longer",
    ),
    "truncated": Cure(
        "Truncated responses count as wrong. Raise --rollout.max_new_tokens and --data.max_len, or find out why the "
        "length rises.",
        "many-responses-are-truncated",
    ),
    "pass": Cure(
        "If only large k fall while Pass@1 rises, the policy narrows: see its entropy. If all k fall, lower the "
        "learning rate, or check the evaluation's temperature.",
        "held-out-passk-falls",
    ),
    "coverage": Cure(
        "The policy moves faster than the quantile tracker: raise --algo.riskpo.tracker_lr and leave tracker_decay at "
        "0. If rewards are not 0 and 1, tracker_lr may have the wrong scale: its unit is the bundle score.",
        "coverage-is-off-the-level",
    ),
    "signal": Cure(
        "If most prompts are all wrong, the data is too hard or the verifier is wrong; if all right, the data is used "
        "up. Take other data, a higher temperature, more samples, or --algo.dynamic_filtering_enable.",
        "most-prompts-carry-no-signal",
    ),
    "advantage": Cure(
        "Preset released-dapo divides by a sum that can be near 0, as the released code does: take another preset.",
        "riskpoadvantage_abs_max-is-in-the-tens-or-thousands",
    ),
    "verifier": Cure(
        "Responses without a verdict get advantage 0. Find the verifier's error in train.log.",
        "verifiererror_share-is-above-0-the-job-goes-on",
    ),
}
