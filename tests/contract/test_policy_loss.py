"""Our losses behind OpenRLHF's `PolicyLoss` interface."""

import pytest
import torch
from openrlhf.models import PolicyLoss

from riskpo_openrlhf.core.losses import gmpo_loss, gpg_loss, sequence_clipped_loss
from riskpo_openrlhf.integration.policy_loss import RiskPOPolicyLoss

N, T = 6, 5


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(T).expand(N, -1) < torch.tensor([5, 4, 3, 2, 1, 5])[:, None]
    old = -torch.rand(N, T, generator=generator) * mask
    new = (old + 0.5 * torch.randn(N, T, generator=generator)) * mask
    rollout = (old + 0.4 * torch.randn(N, T, generator=generator)) * mask
    advantages = torch.randn(N, 1, generator=generator).expand(N, T)
    return {
        "log_probs": new.requires_grad_(), "old_log_probs": old, "advantages": advantages, "action_mask": mask,
        "rollout_log_probs": rollout,
    }  # fmt: skip


def test_riskpo_without_correction_is_openrlhfs_gspo(batch):
    ours, clipped, kl, vllm_kl, filtered = RiskPOPolicyLoss(policy_loss_type="riskpo", token_level_loss=False)(**batch)
    theirs, their_clipped, their_kl, *_ = PolicyLoss(policy_loss_type="gspo")(**batch)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(clipped, their_clipped)
    torch.testing.assert_close(kl, their_kl)
    assert vllm_kl is None and filtered is None
    gradients = [torch.autograd.grad(loss, batch["log_probs"], retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", ["ppo", "gspo"])
@pytest.mark.parametrize("dual_clip", [None, 3.0])
def test_a_loss_of_openrlhfs_own_is_computed_by_openrlhf_to_the_bit(batch, kind, dual_clip):
    settings = {"policy_loss_type": kind, "dual_clip": dual_clip, "token_level_loss": False, "clip_eps_high": 0.28}
    ours, theirs = (cls(**settings)(**batch) for cls in (RiskPOPolicyLoss, PolicyLoss))
    for mine, their in zip(ours, theirs, strict=True):
        assert mine is their is None or torch.equal(mine, their)


def test_low_and_high_clips_are_told_apart(batch):
    log_ratio = (batch["log_probs"] - batch["old_log_probs"]).detach().sum(-1, keepdim=True)
    batch["advantages"] = log_ratio.sign().expand(N, T)  # every response has moved the way its advantage asks for
    loss = RiskPOPolicyLoss(policy_loss_type="riskpo", token_level_loss=False, clip_eps_low=0.0, clip_eps_high=0.0)
    _, clipped, *_ = loss(**batch)
    tokens = batch["action_mask"].sum(-1, keepdim=True)
    torch.testing.assert_close(loss.clip_low, (tokens * (log_ratio < 0)).sum() / tokens.sum())
    torch.testing.assert_close(loss.clip_high, (tokens * (log_ratio > 0)).sum() / tokens.sum())
    assert loss.clip_low > 0 and loss.clip_high > 0
    torch.testing.assert_close(clipped, loss.clip_low + loss.clip_high)


@pytest.mark.parametrize("kind, function", [("riskpo", sequence_clipped_loss), ("gmpo", gmpo_loss), ("gpg", gpg_loss)])
def test_each_loss_is_its_core_function_over_responses_or_over_tokens_as_the_aggregation_flag_says(
    batch, kind, function
):
    names, mask = ("log_probs", "old_log_probs", "advantages", "action_mask"), batch["action_mask"]
    clip = () if kind == "gpg" else (0.2, 0.2)
    loss = function(*[batch[name] for name in names], *clip).loss * mask
    over = {False: (loss.sum(-1) / mask.sum(-1)).mean(), True: loss.sum() / mask.sum()}
    assert not torch.isclose(over[False], over[True])
    for token_level, expected in over.items():
        ours = RiskPOPolicyLoss(policy_loss_type=kind, token_level_loss=token_level)(**batch)[0]
        torch.testing.assert_close(ours, expected)


def test_data_parallel_normalisers_are_honoured(batch):
    split = {"dp_size": 2, "batch_num_tokens": torch.tensor(40.0), "global_batch_size": torch.tensor(12.0)}
    whole, part = (
        RiskPOPolicyLoss(policy_loss_type="riskpo", token_level_loss=False)(**batch)[0],
        RiskPOPolicyLoss(policy_loss_type="riskpo", token_level_loss=False)(**batch, **split)[0],
    )
    torch.testing.assert_close(part, whole * N / 12 * 2)


@pytest.mark.parametrize(
    "correction",
    [
        {"is_correction_level": "token", "is_correction_mode": "clip", "is_correction_threshold": [0.8, 1.2]},
        {"is_correction_level": "token", "is_correction_mode": "mask", "is_correction_threshold": [0.8, 1.2]},
        {"is_correction_level": "seq", "is_correction_mode": "mask", "is_correction_threshold": [0.9, 1.1]},
        {"is_correction_level": "seq", "is_correction_gating": "binary_kl", "is_correction_threshold": [0.0, 0.02]},
        {"is_correction_level": "token", "is_correction_gating": "tv", "is_correction_threshold": [0.0, 0.1]},
    ],
    ids=["tis", "icepop", "seq-mask", "trust-region", "tv"],
)
def test_rollout_mismatch_correction_is_openrlhfs_own(batch, correction):
    # On policy every ratio is 1, so OpenRLHF's corrected token loss and ours must weigh each token alike.
    batch["log_probs"] = batch["old_log_probs"].clone().requires_grad_()
    ours = RiskPOPolicyLoss(policy_loss_type="riskpo", token_level_loss=False, **correction)(**batch)
    theirs = PolicyLoss(policy_loss_type="ppo", token_level_loss=False, **correction)(**batch)
    for mine, their in zip((ours[0], *ours[3:]), (theirs[0], *theirs[3:]), strict=True):
        torch.testing.assert_close(mine, their)
    assert 0 < ours[4] < 1  # the case does filter something


def test_dual_clip_is_that_of_openrlhf_on_single_token_responses(batch):
    one = {name: value[:, :1].detach() for name, value in batch.items()}
    one["log_probs"] = (one["old_log_probs"] + 2.0).requires_grad_()  # ratio 7.4, beyond the dual clip
    ours = RiskPOPolicyLoss(policy_loss_type="riskpo", token_level_loss=False, dual_clip=3.0)(**one)[0]
    theirs = PolicyLoss(policy_loss_type="ppo", dual_clip=3.0, token_level_loss=False)(**one)[0]
    torch.testing.assert_close(ours, theirs)
    assert not torch.isclose(ours, RiskPOPolicyLoss(policy_loss_type="riskpo", token_level_loss=False)(**one)[0])


def test_what_padding_holds_never_enters(batch):
    padding = ~batch["action_mask"]
    clean = {name: value.detach().clone() for name, value in batch.items()}
    dirty = {name: value.detach().clone() for name, value in batch.items()}
    for name in ("log_probs", "old_log_probs", "advantages"):
        dirty[name] = torch.where(padding, torch.nan, dirty[name])
    for kind in ("riskpo", "gmpo", "gpg"):
        results = []
        for given in (clean, dirty):
            given["log_probs"].requires_grad_()
            loss, clipped, kl, *_ = RiskPOPolicyLoss(policy_loss_type=kind)(**given)
            results.append((loss, clipped, kl, torch.autograd.grad(loss, given["log_probs"])[0]))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other)


def test_an_empty_response_and_extreme_ratios_leave_finite_gradients(batch):
    batch["action_mask"] = batch["action_mask"].clone()
    batch["action_mask"][0] = False
    batch["log_probs"] = (batch["old_log_probs"] + 300 * torch.randn(N, 1).sign()).requires_grad_()
    for kind in ("riskpo", "gmpo", "gpg"):
        loss, *_ = RiskPOPolicyLoss(policy_loss_type=kind)(**batch)
        (gradient,) = torch.autograd.grad(loss, batch["log_probs"])
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()
        assert (gradient[0] == 0).all()


def test_the_entropy_is_the_mean_over_tokens_however_the_batch_is_cut(monkeypatch):
    from types import SimpleNamespace

    from openrlhf.models import aggregate_loss
    from openrlhf.trainer.ray import ppo_actor

    from riskpo_openrlhf.integration.guards import WeightWatch
    from riskpo_openrlhf.integration.policy_loss import RiskPOActorPPOTrainer

    entropies, lengths = torch.rand(4, 8), [1, 8, 3, 2]

    def parents_step(self, experience, kl_ctl, step, info):
        loss = aggregate_loss(experience.entropy, experience.action_mask, **info)
        return {"metrics": {"entropy_loss": loss}, "weights": {"entropy_loss": "token"}}

    monkeypatch.setattr(ppo_actor.ActorPPOTrainer, "training_step", parents_step)
    trainer = object.__new__(RiskPOActorPPOTrainer)
    trainer.args = SimpleNamespace(actor=SimpleNamespace(policy_loss_type="ppo"))
    model, no_step = torch.nn.Linear(1, 1), {"global_steps": 0, "skipped_steps": 0, "get_lr": lambda: [0.0]}
    trainer.weight_watch = WeightWatch(SimpleNamespace(module=model, optimizer=None, **no_step))
    window = {"dp_size": 2, "batch_num_tokens": torch.tensor(sum(lengths) / 2.0)}  # the tokens of the step over gas
    total = 0.0
    for entropy, length in zip(entropies, lengths, strict=True):
        mask = torch.arange(8)[None] < length
        status = trainer.training_step(SimpleNamespace(entropy=entropy[None], action_mask=mask), 0, 0, window)
        torch.testing.assert_close(status["metrics"]["entropy"], entropy[:length].mean())
        total += status["metrics"]["entropy"] * length
    expected = torch.cat([e[:n] for e, n in zip(entropies, lengths, strict=True)]).mean()
    torch.testing.assert_close(total / sum(lengths), expected)
