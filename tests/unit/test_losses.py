import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from riskpo_openrlhf.core.losses import MAX_LOG_RATIO, gmpo_loss, gpg_loss, sequence_clipped_loss

LOSSES = [sequence_clipped_loss, gmpo_loss, gpg_loss]
ratio_losses = pytest.mark.parametrize("loss", LOSSES[:2])
all_losses = pytest.mark.parametrize("loss", LOSSES)


def batch(N=5, T=7, seed=0, shift=0.1):
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(N, T, dtype=torch.float64, generator=generator) * 3
    new = old + shift * torch.randn(N, T, dtype=torch.float64, generator=generator)
    lengths = torch.randint(1, T + 1, (N, 1), generator=generator)
    mask = torch.arange(T) < lengths
    A = torch.randn(N, 1, dtype=torch.float64, generator=generator).expand(N, T)
    return new.requires_grad_(), old, A, mask


def per_response(loss, mask):
    return (loss * mask).sum(1) / mask.sum(1).clamp(min=1)


@ratio_losses
def test_on_policy_the_value_and_gradient_are_length_normalised_reinforce(loss):
    new, _, A, mask = batch()
    terms = loss(new, new.detach(), A, mask)
    assert torch.allclose(per_response(terms.loss, mask), -A[:, 0])
    (gradient,) = torch.autograd.grad(per_response(terms.loss, mask).sum(), new)
    (expected,) = torch.autograd.grad((-A[:, 0] * per_response(new, mask)).sum(), new)
    assert torch.allclose(gradient, expected)


@given(st.integers(0, 1000), st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_sequence_clipped_loss_is_eq_3_of_each_response(seed, low, high):
    new, old, A, mask = batch(seed=seed, shift=0.5)
    terms = sequence_clipped_loss(new, old, A, mask, low, high)
    for i in range(len(new)):
        tokens = [t for t in range(new.shape[1]) if mask[i, t]]
        s = math.exp(sum((new[i, t] - old[i, t]).item() for t in tokens) / len(tokens))
        a = A[i, 0].item()
        expected = -min(s * a, min(max(s, 1 - low), 1 + high) * a)
        assert per_response(terms.loss, mask)[i].item() == pytest.approx(expected)


@all_losses
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e30])
def test_padding_never_enters_the_loss_or_its_gradient(loss, junk):
    new, old, A, mask = batch()
    clean = loss(new, old, A, mask)
    (gradient,) = torch.autograd.grad(clean.loss.sum(), new)
    dirty = [value.detach().masked_fill(~mask, junk) for value in (new, old, A)]
    dirty[0].requires_grad_()
    terms = loss(*dirty, mask)
    (dirty_gradient,) = torch.autograd.grad(terms.loss.sum(), dirty[0])
    assert torch.equal(terms.loss, clean.loss)
    assert torch.equal(dirty_gradient, gradient)
    assert (terms.loss[~mask] == 0).all()
    assert (dirty_gradient[~mask] == 0).all()
    assert (terms.clip_low, terms.clip_high) == (clean.clip_low, clean.clip_high)


@all_losses
def test_a_response_without_tokens_has_loss_and_gradient_zero(loss):
    new, old, A, mask = batch()
    mask = mask.clone()
    mask[2] = False
    terms = loss(new, old, A, mask)
    (gradient,) = torch.autograd.grad(terms.loss.sum(), new)
    assert (terms.loss[2] == 0).all()
    assert (gradient[2] == 0).all()
    empty = loss(new, old, A, torch.zeros_like(mask))
    assert (empty.loss == 0).all()
    assert empty.clip_low == empty.clip_high == 0


@ratio_losses
@pytest.mark.parametrize("shift", [-1e4, -300.0, -50.0, 50.0, 300.0, 1e4, -math.inf])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_extreme_ratios_give_finite_losses_and_gradients(loss, shift, sign):
    old = -torch.ones(2, 4)
    new = (old + shift).requires_grad_()
    terms = loss(new, old, sign * torch.ones(2, 4), torch.ones(2, 4))
    (gradient,) = torch.autograd.grad(terms.loss.sum(), new)
    assert torch.isfinite(terms.loss).all()
    assert torch.isfinite(gradient).all()
    assert terms.loss.abs().max() <= math.exp(MAX_LOG_RATIO) * 1.001


@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.float32, torch.long])
def test_clip_shares_count_tokens_on_which_the_clip_binds_low_and_high_apart(mask_dtype):
    # s = .5, .5, 2, 2 with A = -1, 1, -1, 1: only (.5, -1) is clipped low and (2, 1) high. Lengths 1, 2, 3, 4.
    log_s = torch.tensor([0.5, 0.5, 2.0, 2.0]).log()[:, None].expand(4, 4)
    A = torch.tensor([-1.0, 1.0, -1.0, 1.0])[:, None].expand(4, 4)
    mask = (torch.arange(4) < torch.tensor([[1], [2], [3], [4]])).to(mask_dtype)
    terms = sequence_clipped_loss(log_s, torch.zeros(4, 4), A, mask)
    assert terms.clip_low.item() == pytest.approx(1 / 10)
    assert terms.clip_high.item() == pytest.approx(4 / 10)
    assert terms.loss[:, 0].tolist() == pytest.approx([0.8, -0.5, 2.0, -1.2])


def test_no_gradient_passes_where_the_clip_binds():
    new = torch.tensor([[0.5], [0.5], [2.0], [2.0]]).log().requires_grad_()
    A = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])
    terms = sequence_clipped_loss(new, torch.zeros(4, 1), A, torch.ones(4, 1))
    (gradient,) = torch.autograd.grad(terms.loss.sum(), new)
    assert gradient.flatten().tolist() == pytest.approx([0.0, -0.5, 2.0, 0.0])


def test_dual_clip_bounds_the_loss_of_negative_advantages_alone():
    log_s = torch.tensor([[5.0], [2.0], [5.0]]).log().requires_grad_()
    A = torch.tensor([[-1.0], [-1.0], [1.0]])
    terms = sequence_clipped_loss(log_s, torch.zeros(3, 1), A, torch.ones(3, 1), dual_clip=3.0)
    assert terms.loss.flatten().tolist() == pytest.approx([3.0, 2.0, -1.2])
    (gradient,) = torch.autograd.grad(terms.loss.sum(), log_s)
    assert gradient.flatten().tolist() == pytest.approx([0.0, 2.0, 0.0])


@pytest.mark.parametrize("dual_clip", [1.0, 0.5])
def test_a_dual_clip_that_would_bind_on_policy_is_refused(dual_clip):
    with pytest.raises(ValueError, match="dual_clip"):
        sequence_clipped_loss(
            torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1), 0.2, 0.2, dual_clip
        )


@ratio_losses
def test_repeating_the_tokens_of_a_response_leaves_its_loss_as_it_is(loss):
    new, old, A, mask = (value.detach() for value in batch())
    once = loss(new, old, A, mask)
    twice = loss(*(value.repeat(1, 2) for value in (new, old, A, mask)))
    assert torch.allclose(per_response(once.loss, mask), per_response(twice.loss, mask.repeat(1, 2)))


@pytest.mark.parametrize("loss", [sequence_clipped_loss, gpg_loss])
def test_advantages_may_differ_from_token_to_token(loss):
    new, old, _, mask = (value.detach() for value in batch(shift=0.01))
    A = torch.randn(new.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    s = per_response(new - old, mask).exp()[:, None]
    expected = -A * (s if loss is sequence_clipped_loss else new) * mask
    assert torch.allclose(loss(new, old, A, mask).loss, expected)


@pytest.mark.parametrize(
    ("log_ratio", "A", "expected"),
    [
        # A > 0: ratios above e^.4 are cut, low ones count: mean(-1, .4, .1) = -1/6
        ((-1.0, 0.9, 0.1), 2.0, -2 * math.exp(-0.5 / 3)),
        # A < 0: ratios below e^-.4 are cut, high ones count: mean(-.4, .9, .1) = .2
        ((-1.0, 0.9, 0.1), -2.0, 2 * math.exp(0.6 / 3)),
        ((-1.0, 0.9, 0.1), 0.0, 0.0),
    ],
)
def test_gmpo_is_the_geometric_mean_of_clipped_token_ratios(log_ratio, A, expected):
    new = torch.tensor([log_ratio], dtype=torch.float64)
    terms = gmpo_loss(new, torch.zeros_like(new), torch.full_like(new, A), torch.ones_like(new))
    assert terms.loss.flatten().tolist() == pytest.approx([expected] * 3)
    assert terms.clip_high.item() == pytest.approx(1 / 3 if A > 0 else 0)
    assert terms.clip_low.item() == pytest.approx(1 / 3 if A < 0 else 0)


def test_gmpo_takes_the_sign_of_the_mean_advantage_of_a_response():
    new = torch.tensor([[-1.0, 0.9]], dtype=torch.float64)
    A = torch.tensor([[3.0, -1.0]], dtype=torch.float64)  # mean 1 > 0: mean(-1, .4) = -.3
    terms = gmpo_loss(new, torch.zeros_like(new), A, torch.ones_like(new))
    assert terms.loss.flatten().tolist() == pytest.approx([-3 * math.exp(-0.3), math.exp(-0.3)])


def test_gpg_is_minus_advantage_times_log_probability():
    new = torch.tensor([[-0.5, -2.0], [-1.0, -3.0]])
    A = torch.tensor([[2.0, 2.0], [-1.0, -1.0]])
    terms = gpg_loss(new, torch.full_like(new, 9.0), A, torch.tensor([[1, 1], [1, 0]]))
    assert terms.loss.tolist() == [[1.0, 4.0], [-1.0, 0.0]]
    assert terms.clip_low == terms.clip_high == 0
