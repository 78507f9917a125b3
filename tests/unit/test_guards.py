"""What ends a run, and what makes it done: judged from reports of ranks, experiences and scores."""

import pickle
from types import SimpleNamespace

import pytest
import torch

from riskpo_openrlhf.integration.faults import RunFault
from riskpo_openrlhf.integration.filtering import FilterWatch
from riskpo_openrlhf.integration.guards import (
    SKIPPED_AT_MOST,
    Report,
    TrainingGuard,
    WeightWatch,
    all_finite,
    check_advantages,
    check_log_probs,
    fingerprint,
    own_weights,
    uniform_log_prob,
)

NAN, INF = float("nan"), float("inf")
FINE = Report(
    steps=2, skipped=0, skipped_in_a_row=0, steps_before=0, learning_rate=1e-6, gradient_norm=0.5, finite=True,
    changed=True,
)  # fmt: skip
UNIFORM = -2.7725887  # -ln 16


def guard():
    actor = SimpleNamespace(adam=SimpleNamespace(lr=1e-6), lr_warmup_ratio=0.03)
    train, critic = SimpleNamespace(batch_size=128), SimpleNamespace(freezing_steps=-1)
    return TrainingGuard(SimpleNamespace(actor=actor, train=train, critic=critic))


def update(guard, *reports, status=None, uniform=None, signal=True, step=1):
    return guard.after_update({"policy_loss": 0.1, **(status or {})}, reports or [FINE], uniform, signal, step)


def test_a_fault_survives_the_way_from_one_process_to_another():
    error = pickle.loads(pickle.dumps(RunFault("the disk is full", "Make room")))
    assert (error.cause, error.cure, str(error)) == ("the disk is full", "Make room", "the disk is full. Make room")


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float32, torch.int32), (torch.bfloat16, torch.int16), (torch.float64, torch.int64)]
)
def test_a_change_of_one_bit_of_any_element_changes_the_fingerprint(dtype, bits):
    weights = [torch.randn(37, 5).to(dtype), torch.randn(64).to(dtype)]
    before = fingerprint(weights)
    assert fingerprint([weight.clone() for weight in weights]) == before
    for weight in weights:
        for place in torch.randint(weight.numel(), (20,)).tolist():
            weight.view(-1).view(bits)[place] ^= 1
            assert fingerprint(weights) != before
            weight.view(-1).view(bits)[place] ^= 1
    assert fingerprint(weights) == before


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_one_element_that_is_not_finite_is_seen_wherever_it_is(value):
    weights = [torch.randn(100), torch.randn(1000).bfloat16()]
    assert all_finite(weights)
    for weight in weights:
        place = int(torch.randint(len(weight), ()))
        weight[place], old = value, weight[place].clone()
        assert not all_finite(weights)
        weight[place] = old


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("name", ["policy_loss", "entropy", "critic_loss", "critic_grad_norm", "ppo_kl"])
def test_a_metric_of_an_update_that_is_not_finite_ends_the_run_by_its_name(name, value):
    with pytest.raises(RunFault, match=f"update of step 7 is broken: {name}"):
        update(guard(), status={name: value}, step=7)


def test_a_user_s_own_metric_that_is_not_finite_does_not_end_the_run():
    update(guard(), status={"reward/my_own": NAN})


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_weights_or_gradients_that_are_not_finite_on_any_rank_end_the_run(rank):
    reports = [FINE] * 4
    reports[rank] = FINE._replace(finite=False)
    with pytest.raises(RunFault, match=f"weights on rank {rank} of 4"):
        update(guard(), *reports)
    reports[rank] = FINE._replace(gradient_norm=NAN)
    with pytest.raises(RunFault, match="gradient norm in step 1 is nan"):
        update(guard(), *reports)


def test_a_step_that_deepspeed_skips_ends_no_run_but_many_in_a_row_do(capsys):
    watched = guard()
    skipped = FINE._replace(steps=1, skipped=1, skipped_in_a_row=1)
    metrics = update(watched, skipped, status={"policy_loss": NAN})
    assert metrics == {"update/steps": 1, "update/skipped": 1, "update/weights_changed": 1}
    assert "policy_loss nan; DeepSpeed skipped 1 optimizer steps" in capsys.readouterr().out
    assert update(watched, skipped._replace(steps=3, skipped_in_a_row=0))["update/skipped"] == 0
    with pytest.raises(RunFault, match=f"skipped the last {SKIPPED_AT_MOST} optimizer steps up to step 9"):
        update(watched, FINE._replace(skipped=30, skipped_in_a_row=SKIPPED_AT_MOST), step=9)


def test_a_uniform_policy_without_a_gradient_ends_the_run_at_once_or_if_it_stays():
    flat = FINE._replace(gradient_norm=0.0)
    with pytest.raises(RunFault, match="same log-probability, -2.77259, .*garbage"):
        update(guard(), flat, uniform=UNIFORM)
    update(guard(), uniform=UNIFORM)  # a head that starts at 0 has a gradient
    watched = guard()
    update(watched, flat, uniform=UNIFORM, signal=False)  # no advantage, no gradient: may be
    with pytest.raises(RunFault, match="garbage"):
        update(watched, flat, uniform=UNIFORM, signal=False)


def experiences(log_probs, mask=None, **fields):
    mask = torch.ones_like(log_probs, dtype=torch.bool) if mask is None else mask
    return [SimpleNamespace(action_log_probs=log_probs, action_mask=mask, **fields)]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["action_log_probs", "base_action_log_probs", "kl", "values"])
def test_a_log_probability_kl_or_value_of_a_response_token_that_is_not_finite_ends_the_run(name, value):
    mask = torch.tensor([[True, True, False]] * 4)
    tensors = dict.fromkeys(("base_action_log_probs", "kl", "values"))
    made = experiences(-torch.rand(4, 3), mask, **tensors)
    setattr(made[0], name, -torch.rand(4, 3))
    getattr(made[0], name)[2, 2] = value  # padding
    check_log_probs(made, 5)
    getattr(made[0], name)[2, 1] = value
    with pytest.raises(RunFault, match="1 of 4 responses in step 5"):
        check_log_probs(made, 5)


@pytest.mark.parametrize("name", ["rewards", "advantages"])
def test_a_reward_or_advantage_that_is_not_finite_ends_the_run(name):
    made = [SimpleNamespace(rewards=torch.zeros(4), advantages=torch.zeros(4, 3)) for _ in range(3)]
    check_advantages(made, 2)
    getattr(made[1], name)[1] = NAN
    with pytest.raises(RunFault, match=f"{name} of 1 of 12 responses in step 2"):
        check_advantages(made, 2)


def test_a_policy_is_uniform_if_all_response_tokens_have_one_log_probability_that_is_no_certainty():
    flat = torch.full((4, 6), UNIFORM)
    assert uniform_log_prob(experiences(flat)) == pytest.approx(UNIFORM)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[0, 5] = False
    padded = flat.clone()
    padded[0, 5] = 0.0
    assert uniform_log_prob(experiences(padded, mask)) == pytest.approx(UNIFORM)
    assert uniform_log_prob(experiences(padded)) is None
    assert uniform_log_prob(experiences(torch.zeros(4, 6))) is None  # certain: a collapsed policy, no garbage
    assert uniform_log_prob(experiences(flat, torch.zeros(4, 6, dtype=torch.bool))) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "none of the 1 rollouts made an optimizer step.*--train.batch_size 128"),
        ({"steps": 0, "skipped": 4}, "skipped all 4 optimizer steps"),
        (
            {"learning_rate": 0.0, "changed": False},
            "rate was 0 in all 2 optimizer steps.*lr_warmup_ratio 0.03",
        ),
        ({"gradient_norm": 0.0, "changed": False}, "equal those at the start to the bit .largest gradient norm 0"),
    ],
)
def test_a_run_that_trained_nothing_is_not_done(changes, message):
    watched = guard()
    update(watched, *[FINE._replace(**changes)] * 2)
    with pytest.raises(RunFault, match=f"nothing was trained: .*{message}"):
        watched.require_trained()


def test_a_run_is_done_if_any_rank_s_weights_changed():
    watched = guard()
    update(watched, FINE._replace(changed=False), FINE)
    watched.require_trained()


def test_a_run_without_a_rollout_is_done_only_if_it_resumed_a_finished_one(capsys):
    with pytest.raises(RunFault, match="no rollout came"):
        guard().require_trained()
    with pytest.raises(RunFault, match="all gone"):
        guard().require_trained(RunFault("all gone", "Look"))
    resumed = guard()
    resumed.resumed_at = 40
    resumed.require_trained()
    assert "nothing was left to train: the weights are those of the checkpoint of step 40" in capsys.readouterr().out
    with pytest.raises(RunFault, match="all gone"):
        resumed.require_trained(RunFault("all gone", "Look"))


def test_a_resumed_run_is_judged_by_what_it_did_itself():
    watched = guard()
    watched.resumed_at = 40
    update(watched, FINE._replace(steps=0, steps_before=80, changed=False))
    watched.require_trained()  # the rest was too short for a step
    update(watched, FINE._replace(steps=3, steps_before=80, changed=False))
    with pytest.raises(RunFault, match="after 3 optimizer steps"):
        watched.require_trained()


class Engine:
    """What a watch asks of DeepSpeed's engine, around a real model and optimizer."""

    def __init__(self, lr):
        self.module = torch.nn.Linear(4, 3)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=lr, weight_decay=0.0)
        self.global_steps, self.skipped_steps = 7, 2

    def get_lr(self):
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self, skip=False):
        loss = self.module(torch.ones(4)).sum()
        loss.backward()
        if not skip:
            self.optimizer.step()
        self.global_steps, self.skipped_steps = self.global_steps + 1, self.skipped_steps + skip


@pytest.mark.parametrize("lr", [0.0, 1e-3])
def test_a_watch_counts_steps_and_sees_whether_weights_change(lr):
    engine = Engine(lr)
    watch = WeightWatch(engine)
    for skip, norm in ((False, 3.0), (True, INF), (False, 1.0)):
        watch.before_backward()
        engine.step(skip)
        watch.after_backward(norm)
    expected = Report(2, 1, 0, 5, lr, 3.0, True, lr > 0)
    assert watch.report() == expected
    assert watch.report().gradient_norm == 0  # that of one update
    watch.before_backward()
    watch.after_backward(9.0)  # gradients were only added up: the norm is an old one
    assert watch.report().gradient_norm == 0
    with torch.no_grad():
        engine.module.bias[0] = NAN
    assert not watch.report().finite and len(own_weights(engine)) == 2


@pytest.mark.parametrize("norm", [NAN, INF, -1.0])
def test_a_gradient_norm_that_is_not_finite_outlasts_the_finite_ones_of_its_update(norm):
    engine = Engine(1e-3)
    watch = WeightWatch(engine)
    for value in (2.0, norm, 1.0):
        watch.before_backward()
        engine.step()
        watch.after_backward(value)
    with pytest.raises(RunFault, match="gradient norm in step 1 is (nan|inf)"):
        update(guard(), watch.report())


def filtered(scores, allowed=(0, 1), rollout=4, group=2):
    watch = FilterWatch(allowed, rollout, group)
    for score in scores:
        watch.add(score)
    return watch


def test_scores_outside_of_the_filter_s_range_are_told_once_after_the_first_rollout(capsys):
    filtered([-1, 1, -1, -1, 1, 1] * 4)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "bounds" in line]
    assert "scores are -1 to 1, --algo.dynamic_filtering_range 0 1 dropped 4 of 4 groups" in line
    assert "--algo.dynamic_filtering_range -1 1" in line
    filtered([0, 1, 0, 0] * 4)
    filtered([-1, 1, -1, -1] * 4, allowed=(-1, 1))
    assert "range" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scores", "found", "cure"),
    [
        ([1] * 8, "every score is 1", "no two responses differ"),
        ([0] * 4 + [1] * 4, "scores are 0 to 1", "all right or all wrong"),
        ([-1, 1] * 4, "scores are -1 to 1", "--algo.dynamic_filtering_range -1 1"),
        ([NAN] * 8, "no response has a verdict", "reward function"),
    ],
)
def test_a_run_whose_groups_are_all_filtered_away_says_why_and_what_to_do(scores, found, cure):
    fault = filtered(scores).nothing_kept()
    assert found in fault.cause and "dropped 4 of 4 groups" in fault.cause and cure in fault.cure
    assert filtered([*scores, 0, 1]).nothing_kept() is None


def test_every_rollout_s_worth_of_dropped_groups_in_a_row_is_told(capsys):
    filtered([0] * 8 * 3)
    told = [line for line in capsys.readouterr().out.splitlines() if "in a row" in line]
    assert ["4 groups" in told[0], "8 groups" in told[1], "12 groups" in told[2]] == [True] * 3
