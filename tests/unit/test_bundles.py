from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from riskpo_openrlhf.config import RiskPOConfig
from riskpo_openrlhf.core.bundles import canonical_order, draw_layout
from riskpo_openrlhf.core.credit import counterfactual
from riskpo_openrlhf.core.estimator import RiskPOEstimator

shapes = st.tuples(st.integers(1, 23), st.integers(2, 6), st.integers(1, 6), st.integers(0, 10**6))
bundlings = pytest.mark.parametrize("bundling", ["random", "stratified"])


def step(rewards, valid=None, keys=None, seed=0, k=0, **config):
    return RiskPOEstimator(RiskPOConfig(**config), seed).step(rewards, k, valid, keys)


def draw_batch(P, G, seed, error_share=0.0):
    generator = torch.Generator().manual_seed(seed)
    rewards = (torch.rand(P, G, generator=generator) < torch.rand(P, 1, generator=generator)).float()
    return rewards, torch.rand(P, G, generator=generator) >= error_share


def members(bundle):
    """Bundle id -> its (prompt, response) pairs."""
    found = {}
    for p, row in enumerate(bundle.tolist()):
        for j, b in enumerate(row):
            if b >= 0:
                found.setdefault(b, []).append((p, j))
    return found


def question_sets(bundle):
    """(prompt, response) -> the prompts that its bundle is drawn from."""
    sets = {b: frozenset(p for p, _ in pairs) for b, pairs in members(bundle).items()}
    return {pair: sets[b] for b, pairs in members(bundle).items() for pair in pairs}


@bundlings
@settings(max_examples=40)
@given(shapes)
def test_every_response_is_in_one_bundle_and_bundles_hold_one_response_a_question(bundling, shape):
    P, G, B, seed = shape
    rewards, _ = draw_batch(P, G, seed)
    result = step(rewards, bundling=bundling, bundle_size=B, seed=seed)
    found = members(result.bundle)
    assert sum(map(len, found.values())) == P * G
    assert sorted(found) == list(range(len(result.scores)))
    for pairs in found.values():
        assert len({p for p, _ in pairs}) == len(pairs)
    sizes = Counter(map(len, found.values()))
    assert sizes == Counter({B: P // B * G, P % B: G if P % B else 0}) - Counter()


@bundlings
@settings(max_examples=40)
@given(shapes)
def test_scores_are_sums_scaled_to_a_full_bundle_and_verdictless_responses_are_left_out(bundling, shape):
    P, G, B, seed = shape
    rewards, valid = draw_batch(P, G, seed, error_share=0.3)
    result = step(rewards.masked_fill(~valid, torch.nan), valid, bundling=bundling, bundle_size=B, seed=seed)
    found = members(result.bundle)
    assert ((result.bundle == -1) == ~valid).all()
    assert sorted(found) == list(range(len(result.scores)))
    for b, pairs in found.items():
        expected = sum(rewards[p, j].item() for p, j in pairs) * B / len(pairs)
        assert result.scores[b].item() == pytest.approx(expected, rel=1e-5)
    assert (result.advantages[~valid] == 0).all()
    assert torch.isfinite(result.advantages).all()


def test_advantages_go_back_by_the_share_of_members_that_the_score_was_scaled_from():
    # q = 3 for both levels after full bundles that all score 3; R = 0 in the short ones: A = -(1 + .5) 3 = -4.5.
    bundle = step(torch.zeros(5, 4), bundle_size=3).bundle  # drawn by seed, step and prompts alone
    short = (bundle.flatten().bincount()[bundle] == 2)[:, 0]
    rewards, valid = torch.ones(5, 4), torch.ones(5, 4, dtype=torch.bool)
    rewards[short] = 0
    first, second = short.nonzero().flatten().tolist()
    valid[second, 0] = False
    A = step(rewards, valid, bundle_size=3).advantages
    assert A[second].tolist() == pytest.approx([0.0, -3.0, -3.0, -3.0])
    alone = bundle[first] == bundle[second, 0]  # a bundle of one verdict of three
    assert A[first].tolist() == pytest.approx([-4.5 / 3 if only else -3.0 for only in alone.tolist()])


@bundlings
@pytest.mark.parametrize("credit", ["uniform", "counterfactual"])
@pytest.mark.parametrize("normalization", ["group-std", "group-mean", "group-std-mean"])
@settings(max_examples=25)
@given(shapes, st.randoms(use_true_random=False))
def test_the_order_of_arrival_plays_no_part(bundling, credit, normalization, shape, random):
    P, G, B, seed = shape
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(P, G, generator=generator)  # real rewards: sums must not depend on their order either
    valid = torch.rand(P, G, generator=generator) > 0.1
    keys = [f"question {i}" for i in range(P)]
    config = {"bundling": bundling, "credit": credit, "bundle_size": B, "normalization": normalization}
    first = step(rewards, valid, keys, seed, **config)
    shuffled = list(range(P))
    random.shuffle(shuffled)
    second = step(rewards[shuffled], valid[shuffled], [keys[i] for i in shuffled], seed, **config)
    assert torch.equal(second.advantages, first.advantages[shuffled])
    assert torch.equal(second.bundle, first.bundle[shuffled])
    assert torch.equal(second.scores, first.scores)
    assert second.metrics == first.metrics


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_prompts_that_share_a_key_are_told_apart_by_their_rewards(seed, random):
    rewards, valid = draw_batch(12, 4, seed, error_share=0.2)
    rewards = rewards.masked_fill(~valid, 0)
    keys = [f"question {i // 3}" for i in range(12)]
    shuffled = list(range(12))
    random.shuffle(shuffled)
    first = step(rewards, valid, keys, seed, bundle_size=4)
    second = step(rewards[shuffled], valid[shuffled], [keys[i] for i in shuffled], seed, bundle_size=4)

    # Prompts equal in key, rewards and verdicts are interchangeable: compare what each kind of prompt was given.
    def given_to(result, order):
        rows = [(keys[i], rewards[i].tolist(), valid[i].tolist(), result.advantages[a].tolist()) for a, i in order]
        return sorted(rows)

    assert given_to(first, enumerate(range(12))) == given_to(second, enumerate(shuffled))


def test_bundles_change_with_seed_step_and_keys_and_with_nothing_else():
    rewards, valid = draw_batch(40, 4, 0)
    keys = [f"q{i}" for i in range(40)]
    base = step(rewards, keys=keys).bundle
    assert torch.equal(base, step(1 - rewards, keys=keys).bundle)
    assert not torch.equal(base, step(rewards, keys=keys, k=1).bundle)
    assert not torch.equal(base, step(rewards, keys=keys, seed=1).bundle)
    assert not torch.equal(base, step(rewards, keys=[key + "!" for key in keys]).bundle)
    torch.manual_seed(99)
    assert torch.equal(base, step(rewards, keys=keys).bundle)


def test_drawing_bundles_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    step(torch.ones(10, 4), bundling="stratified")
    assert torch.equal(state, torch.random.get_rng_state())


def test_each_question_has_a_permutation_of_its_own_uniform_over_places():
    layout = draw_layout(torch.zeros(6000, 3), torch.ones(6000, 3, dtype=torch.bool), "random", 5, 0, 0)
    counts = Counter(tuple(row) for row in layout.xi.tolist())
    assert len(counts) == 6  # all of S_3
    assert all(abs(count - 1000) < 5 * 29 for count in counts.values())  # sd of a count: sqrt(6000 5/36) = 29


def test_canonical_order_is_a_shuffle_that_differs_from_step_to_step():
    rewards, valid = draw_batch(2000, 2, 0)
    orders = [canonical_order(None, rewards, valid, 0, k).double() for k in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(2000))
        assert abs(torch.corrcoef(torch.stack([order, torch.arange(2000).double()]))[0, 1]) < 0.1
    assert abs(torch.corrcoef(torch.stack(orders[:2]))[0, 1]) < 0.1


@settings(max_examples=60)
@given(shapes, st.data())
def test_stratified_a_responses_own_reward_plays_no_part_in_choosing_its_bundle(shape, data):
    P, G, B, seed = shape
    rewards, _ = draw_batch(P, G, seed)
    p, j = data.draw(st.integers(0, P - 1)), data.draw(st.integers(0, G - 1))
    keys = [f"q{i}" for i in range(P)]
    config = {"bundling": "stratified", "bundle_size": B, "seed": seed}
    before = question_sets(step(rewards, keys=keys, **config).bundle)
    changed = rewards.clone()
    changed[p, j] = 1 - changed[p, j]
    after = question_sets(step(changed, keys=keys, **config).bundle)
    assert before[p, j] == after[p, j]


def test_stratified_bundles_hold_neighbours_in_difficulty():
    rewards = torch.zeros(40, 8)
    rewards[::2] = 1  # every other question is always right: both halves see it
    result = step(rewards, bundling="stratified", bundle_size=5)
    assert sorted(set(result.scores.tolist())) == [0.0, 5.0]


def test_stratified_halves_are_drawn_by_xi_and_bundled_apart():
    rewards, valid = draw_batch(20, 7, 1)
    layout = draw_layout(rewards, valid, "stratified", 5, 0, 0)
    first, second = layout.parts
    assert (first.columns, second.columns) == (slice(0, 3), slice(3, 7))
    means = (layout.rewards[:, 3:].mean(1), layout.rewards[:, :3].mean(1))
    for part, mean in zip((first, second), means, strict=True):
        assert (mean[part.order].diff() >= 0).all()


def test_stratified_the_short_set_sits_at_a_random_place_in_the_ranking():
    rewards = torch.arange(11.0)[:, None].expand(11, 2).contiguous()  # difficulty = position
    shorts = set()
    for k in range(60):
        layout = draw_layout(rewards, torch.ones(11, 2, dtype=torch.bool), "stratified", 5, 0, k)
        for part in layout.parts:
            shorts.add(layout.rewards[part.order[10], 0].item())
    assert shorts == {0.0, 5.0, 10.0}


def test_stratified_a_question_without_verdicts_in_the_ranking_half_counts_as_average():
    rewards = torch.tensor([[0.0] * 4] * 4 + [[1.0] * 4] * 4 + [[0.0] * 4])
    valid = torch.ones(9, 4, dtype=torch.bool)
    valid[8] = False
    layout = draw_layout(rewards, valid, "stratified", 9, 0, 0)
    for part in layout.parts:
        assert layout.prompts[part.order[4]] == 8


@pytest.mark.parametrize("bundling", ["random", "stratified"])
@pytest.mark.parametrize("binary", [True, False])
@settings(max_examples=40)
@given(shapes)
def test_counterfactual_credit_is_its_formula(bundling, binary, shape):
    P, G, B, seed = shape
    rewards, valid = draw_batch(P, G, seed, error_share=0.2)
    rewards = rewards.double()
    if not binary:
        rewards += torch.rand(P, G, generator=torch.Generator().manual_seed(seed))
    layout = draw_layout(rewards, valid, bundling, B, seed, 0)

    def u(x):
        return -1.5 * max(1 - x, 0) + max(x - 1, 0) - max(x - 2.5, 0)

    r, ok = layout.rewards.tolist(), layout.valid.tolist()
    for part in layout.parts:
        columns = range(G)[part.columns]
        got = counterfactual(layout, part, q_alpha=1.0, q_beta=2.5, omega=0.5)
        for i in range(P):
            peers = [k for k in range(P) if part.set_of[k] == part.set_of[i] and k != i]
            for place, j in enumerate(columns):
                rest = [r[i][k] for k in range(G) if k != j and ok[i][k]]
                expected = 0.0
                if ok[i][j] and rest:
                    for b in columns:
                        others = [r[k][b] for k in peers if ok[k][b]]
                        scale = B / (len(others) + 1)
                        own = u((sum(others) + r[i][j]) * scale) / scale
                        baseline = sum(u((sum(others) + x) * scale) / scale for x in rest) / len(rest)
                        expected += (own - baseline) / len(columns)
                assert got[i, place].item() == pytest.approx(expected, abs=1e-9)
