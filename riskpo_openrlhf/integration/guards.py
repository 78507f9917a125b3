"""What must hold for a run to be called done: finite numbers, optimizer steps, weights that changed.

The policy workers report (`WeightWatch`, one a rank), the driver decides (`TrainingGuard`). No collective is added, so
ranks can't diverge: each looks at its own part of the weights, and the driver asks all of them after an update, before
anything is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from typing import NamedTuple

import torch

from riskpo_openrlhf.console import say
from riskpo_openrlhf.integration.faults import RunFault

# DeepSpeed's optimizers keep this rank's part of the fp32 weights under one of these names. Changes of the copy in
# lower precision can be rounded away.
_FULL_PRECISION = (
    "fp32_partitioned_groups_flat",  # ZeRO-3
    "single_partition_of_fp32_groups",  # ZeRO-1 and 2
    "fp32_groups_flat_partition",  # without ZeRO: one of these
    "fp32_groups_flat",
    "fp32_groups",
)
SKIPPED_AT_MOST = 25  # in a row; dynamic loss scaling in fp16 finds its scale in fewer
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_PART = 1 << 24  # elements of a tensor that are summed at once
# Metrics of an update that are NaN or infinite only if the update is broken.
_OF_AN_UPDATE = (
    "policy_loss", "entropy_loss", "entropy", "ppo_kl", "kl", "critic_loss", "critic_grad_norm", "return",
)  # fmt: skip
_GO_BACK = (
    "Resume from the last checkpoint (--ckpt.load_enable) with a lower learning rate (--actor.adam.lr). In the first "
    "step the weights of --actor.model_name_or_path or the numeric format (--ds.param_dtype) are at fault"
)


class Report(NamedTuple):
    """What one rank tells the driver after an update."""

    steps: int  # optimizer steps of this process, those that DeepSpeed skipped left out
    skipped: int  # steps that DeepSpeed skipped, for gradients that were not finite
    skipped_in_a_row: int
    steps_before: int  # optimizer steps in the checkpoint that this run resumed
    learning_rate: float  # the largest of this process
    gradient_norm: float  # the largest of this update; NaN or infinite if one was
    finite: bool  # this rank's part of the weights
    changed: bool  # they differ from those at the start of this process


NO_UPDATE = Report(0, 0, 0, 0, 0.0, 0.0, True, False)


def own_weights(engine) -> list[torch.Tensor]:
    """Return this rank's part of what DeepSpeed's `engine` trains, in full precision where DeepSpeed keeps it."""
    for name in _FULL_PRECISION:
        groups = [w if isinstance(w, list) else [w] for w in getattr(engine.optimizer, name, None) or ()]
        if weights := [weight.detach() for group in groups for weight in group]:
            return weights
    parameters = [p for p in engine.module.parameters() if p.requires_grad]
    return [getattr(p, "ds_tensor", p.data).detach() for p in parameters]


def fingerprint(weights: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """Sum the bits of each tensor as integers, and those of every second element: equal for equal weights."""
    found = []
    for weight in weights:
        bits = weight.contiguous().view(-1).view(_INTEGERS[weight.element_size()])
        parts = bits.split(_PART)  # each is copied as int64
        found += [sum(int(part[::step].sum(dtype=torch.int64)) for part in parts) for step in (1, 2)]
    return tuple(found)


def all_finite(weights: Sequence[torch.Tensor]) -> bool:
    """Tell whether no element is NaN or infinite. A sum is neither unless an element is, and needs no memory."""
    return all(isfinite(float(weight.sum(dtype=torch.float32))) for weight in weights)


class WeightWatch:
    """Count the optimizer steps of one policy worker and compare its weights with those at the start."""

    def __init__(self, engine):
        self._engine = engine
        self._steps_before, self._skipped_before = self._applied(), engine.skipped_steps
        self._at_start = fingerprint(own_weights(engine))
        self._changed = False
        self._learning_rate = self._gradient_norm = 0.0
        self._skipped_in_a_row = 0

    def _applied(self) -> int:
        return self._engine.global_steps - self._engine.skipped_steps

    def before_backward(self) -> None:
        """Note the learning rate that the next optimizer step uses."""
        self._learning_rate = max(self._learning_rate, *self._engine.get_lr())
        self._so_far = self._engine.global_steps, self._engine.skipped_steps

    def after_backward(self, gradient_norm: float) -> None:
        """Note the gradient norm of an optimizer step, unless DeepSpeed skipped it: the weights are then untouched."""
        steps, skipped = self._so_far
        if self._engine.global_steps == steps:  # gradients were only added up
            return
        if self._engine.skipped_steps > skipped:
            self._skipped_in_a_row += 1
            return
        self._skipped_in_a_row = 0
        if isfinite(self._gradient_norm):
            known = gradient_norm >= 0  # DeepSpeed's -1 is a norm that is not finite
            self._gradient_norm = max(self._gradient_norm, gradient_norm) if known else nan

    def report(self) -> Report:
        """Report the update that has ended."""
        weights = own_weights(self._engine)
        # Compared until they differ: they will not come back to the start.
        self._changed = self._changed or fingerprint(weights) != self._at_start
        norm, self._gradient_norm = self._gradient_norm, 0.0
        return Report(
            steps=self._applied() - self._steps_before,
            skipped=self._engine.skipped_steps - self._skipped_before,
            skipped_in_a_row=self._skipped_in_a_row,
            steps_before=self._steps_before,
            learning_rate=self._learning_rate,
            gradient_norm=norm,
            finite=all_finite(weights),
            changed=self._changed,
        )


def check_log_probs(experiences, step: int) -> None:
    """Raise `RunFault` if a log-probability, KL or value of a response token is not finite."""
    for name, what in (
        ("action_log_probs", "log-probabilities"),
        ("kl", "KL against the reference model"),
        ("base_action_log_probs", "log-probabilities of the reference model"),
        ("values", "values of the critic"),
    ):
        tensors = [(getattr(e, name), e.action_mask) for e in experiences if getattr(e, name, None) is not None]
        _require_finite([torch.where(mask.bool(), values, 0) for values, mask in tensors], what, step, _GO_BACK)


def check_advantages(experiences, step: int) -> None:
    """Raise `RunFault` if an advantage is not finite, whatever the estimator."""
    for name, cure in (
        ("rewards", "Mend the reward model or the reward function: every reward must be a finite number"),
        ("advantages", "Look at the rewards, the KL (--algo.kl.init_coef) and the estimator's divisor"),
    ):
        _require_finite([getattr(experience, name) for experience in experiences], name, step, cure)


def _require_finite(tensors: Sequence[torch.Tensor], what: str, step: int, cure: str) -> None:
    """Raise `RunFault` that counts the responses with a value that is not finite. `tensors`: [responses, ...]."""
    bad = sum(int((~one.isfinite()).view(len(one), -1).any(-1).sum()) for one in tensors)
    if bad:
        found = f"{bad} of {sum(map(len, tensors))} responses in step {step} are NaN or infinite"
        raise RunFault(f"the {what} of {found}", cure)


def uniform_log_prob(experiences) -> float | None:
    """Return the log-probability that every response token has, if they are all equal and no certainty; else None.

    No policy that was trained is uniform to the last digit. Weights that are zero, or were overwritten, are.
    """
    found = torch.cat([e.action_log_probs.float()[e.action_mask.bool()] for e in experiences])
    if not len(found):
        return None
    low, high = map(float, found.aminmax())
    return low if high - low <= 1e-6 and high < -0.5 else None


class TrainingGuard:
    """Decide whether a run may go on, and at its end whether it has trained. Lives in the driver.

    `resumed_at` is the step of the checkpoint that the run began with, 0 without one.
    """

    def __init__(self, args):
        self.args = args
        self.resumed_at = 0
        self._rollouts = 0
        self._report: Report | None = None
        self._gradient_norm = 0.0  # the largest of the run
        self._uniform: float | None = None  # in the step before

    def after_update(
        self, status: dict, reports: Sequence[Report], uniform: float | None, signal: bool, step: int
    ) -> dict[str, float]:
        """Judge one update. Call it before the step's checkpoint is written.

        Args:
            status: OpenRLHF's metrics of the update.
            reports: one a rank.
            uniform: what `uniform_log_prob` found in the step's rollout.
            signal: whether any advantage was not 0.
            step: the step's number, from 1.

        Returns the metrics `update/*`.

        Raises:
            RunFault: a metric, a gradient or a weight is not finite, or the policy is uniform and has no gradient. A
                step that DeepSpeed skipped for its gradients is no fault, but `SKIPPED_AT_MOST` of them in a row are.
        """
        self._rollouts += 1
        before = self._report or NO_UPDATE
        self._report = reports[0]._replace(changed=any(report.changed for report in reports))
        made, skipped = self._report.steps - before.steps, self._report.skipped - before.skipped
        norm = max((report.gradient_norm for report in reports), key=lambda x: (not isfinite(x), x))
        if broken := [name for name in _OF_AN_UPDATE if name in status and not isfinite(status[name])]:
            found = f"the policy update of step {step} is broken: {', '.join(f'{n} {status[n]}' for n in broken)}"
            if not skipped:
                raise RunFault(found, _GO_BACK)
            say(f"warning: {found}; DeepSpeed skipped {skipped} optimizer steps of it")
        if not isfinite(norm):
            raise RunFault(f"the gradient norm in step {step} is {norm}", _GO_BACK)
        if ranks := [rank for rank, report in enumerate(reports) if not report.finite]:
            where = f"on rank {', '.join(map(str, ranks))} of {len(reports)}"
            raise RunFault(f"after the update of step {step} weights {where} are NaN or infinite", _GO_BACK)
        if self._report.skipped_in_a_row >= SKIPPED_AT_MOST:
            raise RunFault(
                f"DeepSpeed skipped the last {self._report.skipped_in_a_row} optimizer steps up to step {step}: their "
                "gradients were not finite",
                _GO_BACK,
            )
        if uniform is not None and norm == 0 and (signal or self._uniform == uniform):
            raise RunFault(
                f"in step {step} the policy gives every token the same log-probability, {uniform:.6g}, and the "
                "gradient is 0: its weights are garbage",
                "Look at what loaded or overwrote them: the files of --actor.model_name_or_path, or the checkpoint",
            )
        self._uniform, self._gradient_norm = uniform, max(self._gradient_norm, norm)
        changed = float(self._report.changed)
        return {"update/steps": float(made), "update/skipped": float(skipped), "update/weights_changed": changed}

    def require_trained(self, nothing_kept: RunFault | None = None) -> None:
        """Raise `RunFault` at the end of a run that did not train; the model is then not saved.

        A resumed run that had nothing left to do is done. One whose rest made no optimizer step is, too.
        `nothing_kept` is the fault of a run whose rollouts were all filtered away.
        """
        report = self._report
        if report is None and nothing_kept is not None:
            raise nothing_kept
        if self.resumed_at and (report is None or (report.steps == 0 and report.steps_before > 0)):
            say(f"nothing was left to train: the weights are those of the checkpoint of step {self.resumed_at}")
            return
        if report is None:
            raise RunFault(
                "nothing was trained: no rollout came, so no step was made",
                "Look at the data (--data.prompt_dataset, --data.max_samples), --train.num_episodes, and at warnings "
                "above of groups that were filtered away",
            )
        if report.steps == 0 and report.skipped:
            raise RunFault(
                f"nothing was trained: DeepSpeed skipped all {report.skipped} optimizer steps, since their gradients "
                "were not finite",
                _GO_BACK,
            )
        if report.steps == 0:
            frozen = self.args.critic.freezing_steps
            raise RunFault(
                f"nothing was trained: none of the {self._rollouts} rollouts made an optimizer step",
                f"Lower --critic.freezing_steps {frozen}, or train for more steps"
                if frozen > 0
                else f"A step needs --train.batch_size {self.args.train.batch_size} responses: lower it, or raise "
                "--rollout.batch_size",
            )
        if report.learning_rate == 0:
            raise RunFault(
                f"nothing was trained: the learning rate was 0 in all {report.steps} optimizer steps",
                f"Give --actor.adam.lr (now {self.args.actor.adam.lr:g}) a value above 0. A warm-up "
                f"(--actor.lr_warmup_ratio {self.args.actor.lr_warmup_ratio:g}) begins at 0: train for more steps, or "
                "without it",
            )
        if not report.changed:
            raise RunFault(
                f"nothing was trained: after {report.steps} optimizer steps all weights equal those at the start to "
                f"the bit (largest gradient norm {self._gradient_norm:.3g}, learning rate {report.learning_rate:.3g})",
                "With gradient norm 0 no response had an advantage: look at signal/grpo_zero_share, and take other "
                "data or another reward. Else raise the learning rate (--actor.adam.lr)",
            )
