import json
import logging
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.config import PRESETS, RiskPOConfig
from riskpo_openrlhf.core.bundles import draw_layout
from riskpo_openrlhf.core.estimator import RiskPOEstimator
from riskpo_openrlhf.core.groups import group_mean, group_std, group_std_mean

METRICS = {
    *(f"riskpo/{name}" for name in ("q_alpha", "q_beta", "coverage_alpha", "coverage_beta", "mvar", "rvar_lower")),
    *(f"riskpo/{name}" for name in ("rvar_middle", "score_mean", "score_std", "share_lower", "share_middle")),
    *(f"riskpo/{name}" for name in ("share_upper", "advantage_mean", "advantage_std", "advantage_abs_max")),
    "riskpo/advantage_zero_share",
    *("signal/prompts_all_wrong", "signal/prompts_all_right", "signal/grpo_zero_share", "verifier/error_share"),
}
presets = pytest.mark.parametrize("preset", sorted(PRESETS))
batches = st.tuples(st.integers(1, 14), st.integers(2, 6), st.integers(0, 10**6))


def draw(P, G, seed=0, error_share=0.0):
    generator = torch.Generator().manual_seed(seed)
    rewards = (torch.rand(P, G, generator=generator) < torch.rand(P, 1, generator=generator)).float()
    return rewards, torch.rand(P, G, generator=generator) >= error_share


def by_definition(layout, config, q_alpha, q_beta):
    """A of each response in bundle order, one at a time, by Theorem 1, Eq. 3 and docs/method.md, section 5."""
    r, ok, B = layout.rewards.tolist(), layout.valid.tolist(), config.bundle_size
    P, G = len(r), len(r[0])
    A = [[0.0] * G for _ in range(P)]

    def u(x):
        return -(1 + config.omega) * max(q_alpha - x, 0) + max(x - q_alpha, 0) - max(x - q_beta, 0)

    for part in layout.parts:
        columns, order = range(G)[part.columns], part.order.tolist()
        for start in range(0, P, B):
            members = order[start : start + B]
            for i, b in ((i, b) for i in members for b in columns):
                others = [r[k][b] for k in members if k != i and ok[k][b]]
                if config.credit == "uniform" and ok[i][b]:
                    n = len(others) + 1
                    A[i][b] = (u((sum(others) + r[i][b]) * B / n) + q_alpha - q_beta) * n / B
                elif config.credit == "counterfactual":
                    n = len(others) + 1
                    for j in columns:
                        rest = [r[i][k] for k in range(G) if k != j and ok[i][k]]
                        if ok[i][j] and rest:
                            own, *without = (u((sum(others) + x) * B / n) * n / B for x in (r[i][j], *rest))
                            A[i][j] += (own - statistics.fmean(without)) / len(columns)
    if config.normalization == "group-std-mean":
        for i in range(P):
            verdicts = [x for x, has in zip(r[i], ok[i], strict=True) if has]
            if len(set(verdicts)) > 1:
                share = (statistics.fmean(verdicts) - min(verdicts)) / (max(verdicts) - min(verdicts))
                A[i] = [a * 0.5 / (statistics.pstdev(verdicts) * math.sqrt(2 * share)) for a in A[i]]
    return A


@pytest.mark.parametrize("preset", ["paper", "recommended"])
def test_advantages_are_their_definition_on_ninety_random_batches(preset):
    for seed in range(90):
        generator = torch.Generator().manual_seed(seed)
        P, G = (int(torch.randint(low, high, (1,), generator=generator)) for low, high in ((1, 24), (2, 9)))
        rewards, valid = draw(P, G, seed, error_share=0.2 * (seed % 2))  # binary; then real; then thirds
        rewards = (rewards, torch.randn(P, G, generator=generator), (rewards + torch.rand(P, G).round()) / 3)[seed % 3]
        rewards = rewards.double()
        config = RiskPOConfig.preset(preset, bundle_size=1 + seed % 5)
        estimator = RiskPOEstimator(config, seed)
        for k in range(2):
            layout = draw_layout(rewards, valid, config.bundling, config.bundle_size, seed, k)
            full = [part.scores[part.n == config.bundle_size] for part in layout.parts]
            sample = torch.cat(full) if sum(map(len, full)) else layout.scores
            q = estimator.tracker.values
            if q is None:
                q = [
                    torch.quantile(sample, level).item() if len(sample) else 0.0
                    for level in (config.alpha, config.beta)
                ]
            expected = torch.tensor(by_definition(layout, config, *q), dtype=torch.float64)
            result = estimator.step(rewards, k, valid)
            torch.testing.assert_close(result.advantages, layout.restore(expected), rtol=1e-9, atol=1e-9)


def test_paper_gives_every_member_of_a_bundle_the_advantage_of_eq_3():
    rewards, _ = draw(23, 6, seed=1)
    estimator = RiskPOEstimator(RiskPOConfig())
    estimator.tracker.values = [1.7, 3.2]
    result = estimator.step(rewards, 0)
    sizes = result.bundle.flatten().bincount()
    for p in range(23):
        for j in range(6):
            b = result.bundle[p, j]
            R = result.scores[b].item()
            A = -1.5 * max(1.7 - R, 0) + max(R - 1.7, 0) - max(R - 3.2, 0) + 1.7 - 3.2
            assert result.advantages[p, j].item() == pytest.approx(A * sizes[b].item() / 5, abs=1e-5)


def test_with_single_questions_no_extra_weight_and_all_levels_it_is_the_reward_minus_a_constant():
    rewards = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    config = RiskPOConfig(bundle_size=1, omega=0.0, alpha=1e-9, beta=1 - 1e-9)
    A = RiskPOEstimator(config).step(rewards, 0).advantages
    assert torch.allclose(A - rewards, (A - rewards).mean().expand_as(A), atol=1e-6)


@pytest.mark.parametrize("bundling", ["random", "stratified"])
@pytest.mark.parametrize("profile", ["averse", "seeking"])
@settings(max_examples=25)
@given(batches, st.sampled_from(["none", "group-std", "group-mean", "group-std-mean"]), st.booleans())
def test_counterfactual_credit_never_punishes_right_answers_and_is_silent_on_equal_groups(
    bundling, profile, batch, normalization, awkward_values
):
    P, G, seed = batch
    rewards, valid = draw(P, G, seed, error_share=0.1)
    right = rewards > 0
    if awkward_values:
        rewards = torch.where(right, 0.7, -0.1)  # numbers that are not exact in binary
    config = RiskPOConfig(bundling=bundling, profile=profile, credit="counterfactual", normalization=normalization)
    A = RiskPOEstimator(config).step(rewards, 0, valid).advantages
    assert (A[right & valid] >= 0).all()
    assert (A[~right & valid] <= 0).all()
    equal = torch.tensor([row[ok].unique().numel() <= 1 for row, ok in zip(rewards, valid, strict=True)])
    assert (A[equal] == 0).all()


@given(batches)
def test_counterfactual_credit_of_real_rewards_is_silent_on_equal_groups_and_never_punishes_the_best(batch):
    P, G, seed = batch
    rewards = torch.rand(P, G, generator=torch.Generator().manual_seed(seed))
    rewards[0] = 0.1
    A = RiskPOEstimator(RiskPOConfig(credit="counterfactual", bundle_size=3)).step(rewards, 0).advantages
    assert (A[0] == 0).all()
    assert (A.gather(1, rewards.argmax(1, keepdim=True)) >= 0).all()


def test_group_std_leaves_a_binary_group_of_pass_rate_one_half_and_equal_groups_as_they_are():
    rewards = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4])
    plain = RiskPOEstimator(RiskPOConfig(bundle_size=1)).step(rewards, 0).advantages
    divided = RiskPOEstimator(RiskPOConfig(bundle_size=1, normalization="group-std")).step(rewards, 0).advantages
    std = math.sqrt(1 / 4 * 3 / 4)
    assert torch.allclose(divided, plain * torch.tensor([[1.0], [0.5 / std], [1.0]]))


def without_risk(normalization, batch, scale, offset):
    """Advantages without bundles and risk of right and wrong answers, rewarded by offset and scale + offset; right."""
    P, G, seed = batch
    right, _ = draw(P, G, seed)
    right[0] = 0
    right[0, 0] = 1  # so that bundles of one score both 0 and 1
    config = RiskPOConfig(
        alpha=1e-6, beta=1 - 1e-6, omega=0, bundle_size=1, quantile_source="batch", credit="counterfactual",
        normalization=normalization,
    )  # fmt: skip
    right = right.double()
    return RiskPOEstimator(config).step(right * scale + offset, 0).advantages, right


@given(batches, st.floats(0.1, 100), st.floats(-10, 10))
def test_group_mean_without_risk_is_maxrl_whatever_the_scale_and_the_offset_of_rewards(batch, scale, offset):
    G = batch[1]
    A, right = without_risk("group-mean", batch, scale, offset)
    mean = right.mean(1, keepdim=True)
    maxrl = torch.where(mean > 0, (right - mean) / mean, 0)  # arXiv:2602.02710
    assert torch.allclose(A / (0.5 * G / (G - 1)), maxrl, rtol=1e-3, atol=1e-3)


def test_group_mean_is_of_verdicts_alone_and_leaves_equal_groups_as_they_are():
    rewards = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0], [1.5] * 5, [4.0] * 5])
    valid = torch.tensor([[True, True, True, True, False], [True] * 5, [True] * 5])
    plain = RiskPOEstimator(RiskPOConfig(bundle_size=1)).step(rewards, 0, valid).advantages
    divided = RiskPOEstimator(RiskPOConfig(bundle_size=1, normalization="group-mean")).step(rewards, 0, valid)
    assert (plain[0, :4] != 0).all() and (plain[1] != 0).all()
    assert torch.allclose(divided.advantages, plain * torch.tensor([[0.5 / 0.25], [1.0], [1.0]]))


@given(batches, st.floats(0.1, 100), st.floats(-10, 10))
def test_group_std_mean_without_risk_divides_by_p_root_1_less_p_whatever_the_scale_and_the_offset(
    batch, scale, offset
):
    G = batch[1]
    A, right = without_risk("group-std-mean", batch, scale, offset)
    p = right.mean(1, keepdim=True)
    expected = torch.where((p > 0) & (p < 1), 0.5 * (right - p) * G / (G - 1) / (p * (2 * (1 - p)).sqrt()), 0)
    assert torch.allclose(A, expected, rtol=1e-3, atol=1e-3)


def test_group_std_mean_lies_between_the_std_and_the_mean_and_is_of_verdicts_alone():
    rewards = torch.tensor([[-2.0] * n + [-3.0] * (8 - n) for n in range(9)])
    rewards, valid = torch.cat([rewards, rewards.new_full((9, 1), 5.0)], dim=1), torch.ones(9, 9, dtype=torch.bool)
    valid[:, 8] = False
    std, mean, both = (divisor(rewards, valid) for divisor in (group_std, group_mean, group_std_mean))
    assert ((both >= torch.minimum(std, mean) - 1e-6) & (both <= torch.maximum(std, mean) + 1e-6)).all()
    assert both[1] == pytest.approx(1 / 8 * math.sqrt(2 * 7 / 8))
    assert both[7] == pytest.approx(7 / 8 * math.sqrt(2 / 8))


@given(batches, st.sampled_from([0.5, 2.0]))
def test_advantages_are_bounded_by_the_group_s_size_and_the_tail_s_weight(batch, omega):
    P, G, seed = batch
    rewards, _ = draw(P, G, seed)
    largest = {}
    for normalization in ("group-mean", "group-std-mean"):
        config = RiskPOConfig.preset("recommended", omega=omega, normalization=normalization)
        largest[normalization] = RiskPOEstimator(config).step(rewards, 0).advantages.abs().max()
    assert largest["group-mean"] <= (1 + omega) * G / 2 + 1e-5
    assert largest["group-std-mean"] <= (1 + omega) * G / math.sqrt(8 * (1 - 1 / G)) + 1e-5


def test_scores_first_and_updates_after():
    rewards, _ = draw(20, 4)
    estimator = RiskPOEstimator(RiskPOConfig())
    first = estimator.step(rewards, 0)
    q_0 = [torch.quantile(first.scores, level).item() for level in (0.2, 0.8)]
    assert [first.metrics["riskpo/q_alpha"], first.metrics["riskpo/q_beta"]] == pytest.approx(q_0, abs=1e-6)
    share = [(first.scores < q).float().mean().item() for q in q_0]
    q_1 = [q + 0.3 * (level - s) for q, level, s in zip(q_0, (0.2, 0.8), share, strict=True)]
    second = estimator.step(rewards, 1)
    assert [second.metrics["riskpo/q_alpha"], second.metrics["riskpo/q_beta"]] == pytest.approx(q_1, abs=1e-6)


def test_only_full_bundles_with_all_verdicts_move_the_tracker():
    config = RiskPOConfig(bundle_size=3)
    rewards, valid = torch.ones(8, 4), torch.ones(8, 4, dtype=torch.bool)
    clean, dirty = RiskPOEstimator(config), RiskPOEstimator(config)
    bundle = clean.step(rewards, 0).bundle  # drawn by seed, step and prompts alone
    members = bundle.flatten().bincount()
    rewards[members[bundle] == 2] = 0  # the short set
    spoilt = (bundle == bundle[members[bundle] == 3][0]).nonzero()  # a full bundle: one wrong, one without a verdict
    rewards[tuple(spoilt[0])], valid[tuple(spoilt[1])] = 0, False
    dirty.step(rewards, 0, valid)
    assert dirty.tracker.state_dict() == clean.tracker.state_dict()


def test_a_batch_smaller_than_a_bundle_uses_its_own_quantiles_and_leaves_the_tracker_unstarted():
    estimator = RiskPOEstimator(RiskPOConfig(bundle_size=5))
    result = estimator.step(torch.tensor([[1.0, 1.0, 1.0, 0.0]] * 2), 0)
    assert not estimator.tracker.started
    level = torch.quantile(result.scores, 0.8).item()
    assert result.metrics["riskpo/q_beta"] == pytest.approx(level)
    assert result.advantages.abs().max() > 0


def test_quantile_source_batch_uses_the_scores_of_this_step():
    rewards, _ = draw(12, 6, seed=3)
    estimator = RiskPOEstimator(RiskPOConfig(bundle_size=3, quantile_source="batch"))
    estimator.tracker.values = [-50.0, 50.0]
    result = estimator.step(rewards, 0)
    R = result.scores[result.bundle]
    low, high = (torch.quantile(result.scores, level) for level in (0.2, 0.8))
    A = -1.5 * (low - R).clamp(min=0) + (R - low).clamp(min=0) - (R - high).clamp(min=0) + low - high
    assert torch.allclose(result.advantages, A, atol=1e-5)
    assert result.metrics["riskpo/q_alpha"] == pytest.approx(low.item(), abs=1e-6)


@presets
@settings(max_examples=30)
@given(batches, st.sampled_from([0.0, 0.3, 1.0]))
def test_metrics_are_always_the_same_names_and_finite(preset, batch, error_share):
    P, G, seed = batch
    rewards, valid = draw(P, G, seed, error_share)
    estimator = RiskPOEstimator(RiskPOConfig.preset(preset, bundle_size=3))
    for k in range(2):
        result = estimator.step(rewards.masked_fill(~valid, torch.inf), k, valid)
        assert set(result.metrics) == METRICS
        assert all(type(value) is float and math.isfinite(value) for value in result.metrics.values())
        assert torch.isfinite(result.advantages).all()
        assert torch.isfinite(result.scores).all()


def placed(bundle, wanted):
    """`wanted [P, G]`, rows by question set and columns by bundle, where the bundles were drawn to."""
    out, first = torch.empty_like(wanted), bundle.amin(1)
    for row, prompt in zip(wanted, first.argsort(stable=True).tolist(), strict=True):
        out[prompt] = row[bundle[prompt] - first[prompt]]
    return out


def test_metrics_by_hand():
    estimator = RiskPOEstimator(RiskPOConfig(bundle_size=2, alpha=0.25, beta=0.75, omega=1.0))
    bundle = RiskPOEstimator(estimator.config).step(torch.zeros(4, 4), 0).bundle
    valid = torch.ones(4, 4, dtype=torch.bool)
    valid[3, 3] = False
    rewards = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    rewards, valid = placed(bundle, rewards), placed(bundle, valid)
    estimator.tracker.values = [0.5, 1.5]
    m = estimator.step(rewards, 0, valid).metrics
    # Scores: 1, 1, 1, 1 and 2, 0, 1, (0 * 2): the last is not full. Full ones in order: 0, 1, 1, 1, 1, 1, 2.
    assert (m["riskpo/q_alpha"], m["riskpo/q_beta"]) == (0.5, 1.5)
    assert m["riskpo/coverage_alpha"] == pytest.approx(1 / 7)
    assert m["riskpo/coverage_beta"] == pytest.approx(6 / 7)
    assert m["riskpo/score_mean"] == pytest.approx(1.0)
    assert m["riskpo/score_std"] == pytest.approx(math.sqrt(2 / 7))
    assert m["riskpo/rvar_lower"] == pytest.approx((1 / 4 - 1 / 7) / 0.25)
    assert m["riskpo/rvar_middle"] == pytest.approx(1.0)
    assert m["riskpo/mvar"] == pytest.approx(2 * (1 / 4 - 1 / 7) + 0.5)
    shares = [m[f"riskpo/share_{name}"] for name in ("lower", "middle", "upper")]
    assert shares == pytest.approx([2 / 8, 5 / 8, 1 / 8])
    assert m["signal/prompts_all_wrong"] == m["signal/prompts_all_right"] == 1 / 4
    assert m["signal/grpo_zero_share"] == pytest.approx(8 / 15)
    assert m["verifier/error_share"] == pytest.approx(1 / 16)
    # A: R = 1: .5 - 1 = -.5; R = 2: 0; R = 0: -2 (.5) - 1 = -2. Set 1: 8 x -.5. Set 2: 0 0, -2 -2, -.5 -.5, -2/2.
    A = [-0.5] * 8 + [0.0] * 2 + [-2.0] * 2 + [-0.5] * 2 + [-1.0]
    assert m["riskpo/advantage_mean"] == pytest.approx(statistics.fmean(A))
    assert m["riskpo/advantage_std"] == pytest.approx(statistics.pstdev(A), abs=1e-6)
    assert m["riskpo/advantage_abs_max"] == 2.0
    assert m["riskpo/advantage_zero_share"] == pytest.approx(2 / 15)


@presets
@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_a_resumed_run_goes_on_exactly(preset, seed):
    config = RiskPOConfig.preset(preset, bundle_size=3)
    whole, first = RiskPOEstimator(config, seed), RiskPOEstimator(config, seed)
    data = [draw(10, 4, seed + k)[0] for k in range(4)]
    expected = [whole.step(rewards, k) for k, rewards in enumerate(data)]
    for k in range(2):
        first.step(data[k], k)
    resumed = RiskPOEstimator(config, seed)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for k in (2, 3):
        result = resumed.step(data[k], k)
        assert torch.equal(result.advantages, expected[k].advantages)
        assert result.metrics == expected[k].metrics
    assert resumed.state_dict() == whole.state_dict()


def test_a_checkpoint_of_the_authors_bundles_is_refused_where_bundles_are_made_in_another_way():
    state = RiskPOEstimator(RiskPOConfig.preset("released-math")).state_dict()
    RiskPOEstimator(RiskPOConfig.preset("released-math")).load_state_dict(state)
    with pytest.raises(ValueError, match="bundling random .checkpoint of the presets released-"):
        RiskPOEstimator(RiskPOConfig(beta=0.9)).load_state_dict(state)


CHANGES = [("alpha", 0.3), ("beta", 0.7), ("bundle_size", 4), ("bundling", "stratified")]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_resuming_with_another_meaning_of_quantiles_is_refused_by_name(name, value):
    state = RiskPOEstimator(RiskPOConfig()).state_dict()
    config = RiskPOConfig(**{name: value})
    with pytest.raises(ValueError) as error:
        RiskPOEstimator(config).load_state_dict(state)
    for text in (f"--algo.riskpo.{name}", str(value), str(state["config"][name]), "--algo.riskpo.resume_changed"):
        assert text in str(error.value)


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_resume_changed_restarts_the_tracker_and_says_so(name, value, caplog):
    old = RiskPOEstimator(RiskPOConfig())
    old.step(draw(10, 4)[0], 0)
    estimator = RiskPOEstimator(RiskPOConfig(resume_changed=True, **{name: value}))
    with caplog.at_level(logging.WARNING, logger="riskpo_openrlhf"):
        estimator.load_state_dict(old.state_dict())
    assert not estimator.tracker.started
    assert f"--algo.riskpo.{name}" in caplog.text
    assert "restarts" in caplog.text


def test_resume_changed_keeps_the_tracker_where_nothing_of_it_changed():
    old = RiskPOEstimator(RiskPOConfig())
    old.step(draw(10, 4)[0], 0)
    estimator = RiskPOEstimator(RiskPOConfig(resume_changed=True, omega=3.0))
    estimator.load_state_dict(old.state_dict())
    assert estimator.tracker.state_dict() == old.tracker.state_dict()


def test_state_of_another_version_is_refused():
    state = RiskPOEstimator(RiskPOConfig()).state_dict()
    with pytest.raises(ValueError, match="version 2"):
        RiskPOEstimator(RiskPOConfig()).load_state_dict({**state, "version": 2})


def test_rewards_that_are_not_finite_are_refused_unless_marked():
    rewards = torch.tensor([[1.0, math.nan], [0.0, 1.0]])
    with pytest.raises(ValueError, match="1 of 4 rewards are not finite"):
        RiskPOEstimator(RiskPOConfig()).step(rewards, 0)
    with pytest.raises(ValueError, match="not finite"):
        RiskPOEstimator(RiskPOConfig()).step(rewards, 0, torch.ones(2, 2, dtype=torch.bool))
    RiskPOEstimator(RiskPOConfig()).step(rewards, 0, torch.isfinite(rewards))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(4), 0), r"\[prompts, responses a prompt\]"),
        ((torch.ones(0, 4), 0), r"\[prompts, responses a prompt\]"),
        ((torch.ones(2, 3), 0, torch.ones(3, 2)), "valid has shape"),
        ((torch.ones(2, 3), 0, None, ["a"]), "1 keys for 2 prompts"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RiskPOEstimator(RiskPOConfig()).step(*arguments)


def test_groups_too_small_for_the_settings_are_refused():
    with pytest.raises(ValueError, match="n_samples_per_prompt 1"):
        RiskPOEstimator(RiskPOConfig.preset("recommended")).step(torch.ones(4, 1), 0)
    RiskPOEstimator(RiskPOConfig()).step(torch.ones(5, 1), 0)


@presets
@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64],
)
def test_advantages_are_floating_point_whatever_the_rewards_are(preset, dtype):
    rewards, valid = draw(12, 4, seed=3, error_share=0.1)
    config = RiskPOConfig.preset(preset, bundle_size=3)
    expected = RiskPOEstimator(config).step(rewards, 0, valid)
    result = RiskPOEstimator(config).step(rewards.to(dtype), 0, valid)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert result.advantages.dtype == result.scores.dtype == wide
    assert result.bundle.dtype == torch.long
    torch.testing.assert_close(result.advantages.float(), expected.advantages)
    torch.testing.assert_close(result.scores.float(), expected.scores)
    assert (result.advantages % 1 != 0).any()  # none was cut to a whole number


scales = st.tuples(st.integers(-6, 6).map(lambda k: 10.0**k), st.sampled_from([1.0, -1.0]), st.floats(-100, 100))
settings_of_ours = st.sampled_from(
    [{}, {"credit": "counterfactual"}, {"credit": "counterfactual", "bundling": "stratified"}, {"profile": "seeking"}]
)
divisors = pytest.mark.parametrize("normalization", ["group-std", "group-mean", "group-std-mean"])


def units_in_the_last_place(x, steps):
    """`x` moved by whole numbers of units in the last place."""
    for _ in range(2):
        x = torch.where(steps > 0, torch.nextafter(x, x.new_tensor(torch.inf)), x)
        steps = steps - 1
    return x


@divisors
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60, deadline=None)
@given(scales, st.integers(2, 16), settings_of_ours, st.integers(0, 10**6))
def test_groups_that_are_equal_up_to_rounding_are_never_divided(normalization, dtype, scale, G, changes, seed):
    factor, sign, offset = scale
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(12, G, generator=generator, dtype=dtype)
    rewards[::2] = rewards[::2, :1]
    rewards = factor * sign * (rewards + offset)
    # What arithmetic leaves behind: the same number, up to two units in the last place.
    rewards[::2] = units_in_the_last_place(rewards[::2], torch.randint(3, rewards[::2].shape, generator=generator))
    plain = RiskPOEstimator(RiskPOConfig(bundle_size=3, **changes)).step(rewards, 0).advantages
    divided = RiskPOEstimator(RiskPOConfig(bundle_size=3, normalization=normalization, **changes)).step(rewards, 0)
    assert torch.equal(divided.advantages[::2], plain[::2])
    if "credit" in changes:
        assert (plain[::2] == 0).all()
    # The others are divided, and none explodes: u's steepest slope, over a divisor of at least 1/G of the range.
    assert divided.advantages[1::2].abs().max() <= 1.5 * G * 3 * _ranges(rewards)
    assert divided.metrics["signal/grpo_zero_share"] >= 0.5


def _ranges(rewards):
    """The largest range of the batch over the smallest range of a group that has one."""
    widths = rewards[1::2].amax(1) - rewards[1::2].amin(1)
    return float((rewards.max() - rewards.min()) / widths[widths > 0].min()) if (widths > 0).any() else 1.0


@divisors
@settings(max_examples=60, deadline=None)
@given(scales, batches)
def test_divided_advantages_do_not_depend_on_the_rewards_scale(normalization, scale, batch):
    P, G, seed = batch
    factor = scale[0]
    rewards = torch.randn(P, G, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rewards[0] = rewards[0, :1]
    config = RiskPOConfig(bundle_size=3, credit="counterfactual", quantile_source="batch", normalization=normalization)
    one, other = (RiskPOEstimator(config).step(r, 0).advantages for r in (rewards, rewards * factor))
    torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)
    assert (one[0] == 0).all()


def test_rewards_are_left_as_they_were():
    rewards, valid = draw(9, 4, error_share=0.3)
    copy = rewards.clone()
    RiskPOEstimator(RiskPOConfig.preset("recommended")).step(rewards, 0, valid)
    assert torch.equal(rewards, copy)


def warnings_of(config, rewards, steps=2, caplog=None):
    estimator = RiskPOEstimator(config)
    with caplog.at_level(logging.WARNING, logger="riskpo_openrlhf"):
        for k in range(steps):
            estimator.step(rewards, k)
    return [record for record in caplog.records if "starts at a pass rate" in record.getMessage()]


def test_a_weak_start_with_the_papers_offset_is_warned_of_once(caplog):
    assert len(warnings_of(RiskPOConfig(), torch.zeros(10, 4), caplog=caplog)) == 1


@pytest.mark.parametrize(
    ("config", "reward"),
    [(RiskPOConfig(), 1.0), (RiskPOConfig.preset("recommended"), 0.0), (RiskPOConfig(constant=False), 0.0)],
)
def test_no_warning_from_a_strong_start_or_without_the_offset(config, reward, caplog):
    assert not warnings_of(config, torch.full((10, 4), reward), caplog=caplog)
