import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from riskpo_openrlhf.core.quantiles import QuantileTracker, empirical_quantile

batches = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=12)


def tensors(lists):
    return [torch.tensor(values, dtype=torch.float32) for values in lists]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.floats(0, 1))
def test_empirical_quantile_interpolates_linearly_as_torch_does(values, level):
    x = torch.tensor(values, dtype=torch.float64)
    assert empirical_quantile(x, level) == pytest.approx(torch.quantile(x, level).item(), abs=1e-9)


def test_first_batch_starts_at_its_empirical_quantile_and_then_moves():
    tracker = QuantileTracker([0.2, 0.8], lr=0.3)
    assert not tracker.started
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    tracker.start(scores)
    assert [tracker.value(0.2), tracker.value(0.8)] == pytest.approx([0.8, 3.2])
    tracker = QuantileTracker([0.2, 0.8], lr=0.3)
    tracker.update(scores)
    # q_0 = .8: one of five scores is under it, so level - share = 0; q_0 = 3.2: four of five, 0 again.
    assert [tracker.value(0.2), tracker.value(0.8)] == pytest.approx([0.8, 3.2])
    tracker.update(torch.tensor([0.0, 0.0, 0.0, 4.0]))
    # Under .8 and under 3.2 are three of four: moves by .3 (.2 - .75) and .3 (.8 - .75).
    assert [tracker.value(0.2), tracker.value(0.8)] == pytest.approx([0.8 - 0.165, 3.2 + 0.015])


def test_a_score_equal_to_the_quantile_does_not_count_as_under_it():
    tracker = QuantileTracker([0.5], lr=1.0)
    tracker.values = [2.0]
    tracker.update(torch.tensor([2.0, 2.0]))
    assert tracker.value(0.5) == 2.5


def test_step_size_decays_as_one_over_k_to_the_decay():
    tracker = QuantileTracker([0.5], lr=1.0, decay=1.0)
    tracker.values = [0.0]
    moves = []
    for _ in range(4):
        before = tracker.value(0.5)
        tracker.update(torch.tensor([100.0]))  # nothing under q: it moves by gamma_k / 2
        moves.append(tracker.value(0.5) - before)
    assert moves == pytest.approx([0.5, 0.25, 0.5 / 3, 0.125])


@pytest.mark.parametrize("level", [0.1, 0.2, 0.4, 0.8, 0.9])
def test_it_converges_to_the_quantile_of_a_stationary_distribution(level):
    generator = torch.Generator().manual_seed(3)
    tracker = QuantileTracker([level], lr=1.0, decay=0.6)
    tracker.values = [3.0]
    for _ in range(3000):
        tracker.update(torch.randn(32, generator=generator))
    expected = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(level)).item()
    assert tracker.value(level) == pytest.approx(expected, abs=0.05)


def test_a_calibrated_tracker_covers_its_levels():
    generator = torch.Generator().manual_seed(5)
    tracker = QuantileTracker([0.2, 0.8], lr=0.05)
    for _ in range(500):
        tracker.update(torch.rand(64, generator=generator))
    assert tracker.coverage(torch.rand(20000, generator=generator)) == pytest.approx([0.2, 0.8], abs=0.03)


@given(batches, st.floats(0.01, 10), st.floats(0, 1))
def test_q_alpha_never_exceeds_q_beta(lists, lr, decay):
    tracker = QuantileTracker([0.4, 0.5, 0.6], lr=lr, decay=decay)
    for scores in tensors(lists):
        tracker.update(scores)
        assert tracker.values == sorted(tracker.values)


def test_values_that_would_cross_are_put_in_order():
    tracker = QuantileTracker([0.4, 0.6], lr=10.0)
    tracker.values = [1.0, 1.5]
    tracker.update(torch.tensor([1.2]))  # 1 + 10 (.4 - 0) = 5 and 1.5 + 10 (.6 - 1) = -2.5
    assert tracker.values == pytest.approx([-2.5, 5.0])


@given(batches, st.integers(0, 12))
def test_a_resumed_tracker_goes_on_exactly(lists, cut):
    scores = tensors(lists)
    whole, first = (QuantileTracker([0.2, 0.8], lr=0.3, decay=0.5) for _ in range(2))
    for batch in scores:
        whole.update(batch)
    for batch in scores[:cut]:
        first.update(batch)
    resumed = QuantileTracker([0.2, 0.8], lr=0.3, decay=0.5)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for batch in scores[cut:]:
        resumed.update(batch)
    assert resumed.state_dict() == whole.state_dict()


def test_empty_scores_do_nothing():
    tracker = QuantileTracker([0.2, 0.8], lr=0.3)
    tracker.update(torch.empty(0))
    assert not tracker.started
    assert tracker.updates == 0
    tracker.update(torch.ones(3))
    before = tracker.state_dict()
    tracker.update(torch.empty(0))
    assert tracker.state_dict() == before


def test_other_levels_in_a_checkpoint_are_refused_by_flag():
    state = QuantileTracker([0.2, 0.8], lr=0.3).state_dict()
    with pytest.raises(ValueError, match=r"--algo\.riskpo\.alpha/beta.*0\.2, 0\.9.*0\.2, 0\.8"):
        QuantileTracker([0.2, 0.9], lr=0.3).load_state_dict(state)


def test_an_untracked_level_and_an_unstarted_tracker_are_refused():
    tracker = QuantileTracker([0.2, 0.8], lr=0.3)
    with pytest.raises(ValueError, match="before it has seen"):
        tracker.value(0.2)
    with pytest.raises(ValueError, match="one of: 0.2, 0.8"):
        tracker.value(0.5)


@pytest.mark.parametrize("levels", [[0.8, 0.2], [0.2, 0.2], [0.0, 0.5], [0.5, 1.0]])
def test_levels_must_increase_inside_the_unit_interval(levels):
    with pytest.raises(ValueError, match=r"increasing numbers in \(0, 1\)"):
        QuantileTracker(levels, lr=0.3)
