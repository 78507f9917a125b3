"""Which responses form which bundle, the bundles' scores, and how a bundle's advantage goes back to its responses.

P prompts with G responses each. A question set is B prompts; its bundles take one response of each of them, so that
every response is used once (section 4, Eq. 3). All of it works in bundle order: prompts in an order that depends on
(seed, step, key) alone, and the responses of each permuted by its own xi_i. The order of arrival plays no part.

A response without a verdict is left out. A bundle then has n < T members, T being its number of questions (or B for a
short last bundle, `short_bundle="scale"`): its score is scaled by T/n and its advantage by n/T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor


@dataclass
class Part:
    """The bundles of some of the responses: all of them, or one half when bundles are stratified."""

    columns: slice  # the J columns of the bundle-order tensors [P, G] that it bundles
    order: Tensor  # [P] prompts by question set; the short set, if any, is the last
    set_of: Tensor  # [P] the question set of each prompt
    first_id: int  # id of its first bundle; bundle j of set s has id first_id + s * J + j
    total: Tensor  # [n_sets, J] sum of the valid rewards R(y^i)
    n: Tensor  # [n_sets, J] number of valid members
    size: Tensor  # [n_sets, 1] number of questions
    target: Tensor  # [n_sets, 1] T, the number of members that scores are scaled to

    @property
    def scores(self) -> Tensor:
        """R_B [n_sets, J]; 0 for a bundle that has no valid member, and so no score."""
        return self.total * (self.target / self.n.clamp(min=1))

    @property
    def factor(self) -> Tensor:
        """n / T [n_sets, J]: what an advantage is multiplied by before it goes back."""
        return self.n / self.target

    @property
    def scored(self) -> Tensor:
        """[n_sets, J] bundles with at least one valid member."""
        return self.n > 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum `values [P, J]` over the prompts of each question set -> [n_sets, J]."""
        return _sum_sets(values, self.order, self.size)


@dataclass
class Layout:
    """A batch in bundle order: column j of row i is the response xi_{i,j} of the i-th prompt."""

    prompts: Tensor  # [P] place i -> row of the batch as it arrived
    xi: Tensor  # [P, G] small integers: xi_{i,j}
    rewards: Tensor  # [P, G] 0 where there is no verdict
    valid: Tensor  # [P, G]
    parts: list[Part]

    def chunks(self) -> Iterator[slice]:
        """Slices of rows, few enough responses each for temporary tensors not to count."""
        return _chunks(*self.xi.shape)

    def restore(self, values: Tensor) -> Tensor:
        """`values [P, G]` from bundle order back to the order of arrival."""
        out = torch.empty_like(values)
        for rows in self.chunks():
            out[self.prompts[rows]] = torch.empty_like(values[rows]).scatter_(1, self.xi[rows].long(), values[rows])
        return out

    def bundle_ids(self) -> Tensor:
        """`[P, G]` long, in the order of arrival: the bundle of each response, counting bundles that have a score."""
        scored = torch.cat([part.scored.flatten() for part in self.parts])
        number = scored.cumsum(0, dtype=torch.int32) - 1
        out = torch.empty(self.xi.shape, dtype=torch.long)
        for rows in self.chunks():
            ids = torch.cat([number[_slots(part, rows)] for part in self.parts], dim=1).long()
            ids[~self.valid[rows]] = -1
            out[self.prompts[rows]] = torch.empty_like(ids).scatter_(1, self.xi[rows].long(), ids)
        return out


def draw_layout(
    rewards: Tensor,
    valid: Tensor,
    bundling: str,
    bundle_size: int,
    seed: int,
    step: int,
    keys: Sequence[str] | None = None,
    scale_short: bool = True,
) -> Layout:
    """Draw the bundles of `rewards [P, G]`, `valid [P, G]` by (seed, step, keys).

    random: canonical order cut into sets of B prompts. ordered: the same without xi; prompts stay as given when there
    are no keys. stratified: neighbours in difficulty, one half of each group ranked by the other half's mean reward,
    so that no response takes part in choosing its own bundle.
    """
    P, G = rewards.shape
    if bundling == "ordered" and keys is None:
        prompts = torch.arange(P)
    else:
        prompts = canonical_order(keys, rewards, valid, seed, step)
    generator = torch.Generator().manual_seed(
        int.from_bytes(_digest(blake2b(digest_size=8), f"{seed}/{step}"), "big") >> 1
    )
    xi = torch.arange(G).expand(P, G) if bundling == "ordered" else _permutations(P, G, generator)
    complete = bool(valid.all())
    if not complete:
        valid = _arrange(valid, prompts, xi)
    rewards = _arrange(rewards, prompts, xi).masked_fill_(~valid, 0)
    layout = Layout(prompts, xi, rewards, valid, parts=[])

    size = rewards.new_full(((P + bundle_size - 1) // bundle_size, 1), bundle_size)
    target = size.clone()
    if P % bundle_size:
        size[-1] = P % bundle_size
        target[-1] = bundle_size if scale_short else P % bundle_size
    first_half, second_half = slice(0, G // 2), slice(G // 2, G)
    stratified = ((first_half, second_half), (second_half, first_half))  # (who is bundled, who ranks)
    first_id = 0
    for columns, other in stratified if bundling == "stratified" else ((slice(0, G), None),):
        order = torch.arange(P) if other is None else _by_difficulty(layout, other, bundle_size, generator)
        set_of = torch.empty_like(order)
        set_of[order] = torch.arange(P) // bundle_size
        total = _sum_sets(rewards[:, columns], order, size)
        n = size.expand_as(total) if complete else _sum_sets(valid[:, columns].to(total.dtype), order, size)
        layout.parts.append(Part(columns, order, set_of, first_id, total, n, size, target))
        first_id += total.numel()
    return layout


def canonical_order(keys: Sequence[str] | None, rewards: Tensor, valid: Tensor, seed: int, step: int) -> Tensor:
    """Prompts `[P]` sorted by a hash of (seed, step, key); without keys, a prompt's position is its key.

    Prompts that share a key are told apart by their rewards, again by hash, so that neither comes first by arrival.
    """
    seeded = blake2b(f"{seed}/{step}/".encode(), digest_size=8)
    digests = bytearray()
    for key in range(len(rewards)) if keys is None else keys:
        digests += _digest(seeded, str(key))
    hashes = torch.frombuffer(digests, dtype=torch.int64)
    order = hashes.argsort(stable=True)
    again = hashes[order].diff() == 0
    if not again.any():
        return order
    shared = torch.zeros(len(order), dtype=torch.bool)
    shared[order[1:][again]] = shared[order[:-1][again]] = True
    for i in shared.nonzero().flatten().tolist():
        row = [r if ok else None for r, ok in zip(rewards[i].tolist(), valid[i].tolist(), strict=True)]
        hashes[i] = int.from_bytes(_digest(seeded, f"{keys[i]}/{row}"), "big", signed=True)
    return hashes.argsort(stable=True)


def send_back(A: Tensor, layout: Layout, part: Part, credit: str) -> Tensor:
    """Bundle advantages `A [n_sets, J]` -> the responses of the part, `[P, J]`, by a rule of one's share.

    uniform: A (the paper). score: A/2 for a right answer, 3A/2 for a wrong one. std: A over the question's standard
    deviation. sum-mean: A (r - m_q) over the bundle's sum of r - m_q, in equal shares if that sum is about 0.
    """
    r, valid = layout.rewards[:, part.columns], layout.valid[:, part.columns]
    share = A[part.set_of]
    if credit == "score":
        share *= torch.where(r > 0, 0.5, 1.5)
    elif credit == "std":
        std = group_std(layout, unbiased=True)
        share /= torch.where(std > 1e-3, std, 1) + 1e-6
    elif credit == "sum-mean":
        mean = layout.rewards.sum(1, keepdim=True) / layout.valid.sum(1, keepdim=True).clamp(min=1)
        excess = (r - mean).masked_fill_(~valid, 0)
        whole = part.sum(excess)
        equal = whole.abs() <= 1e-6
        divisor = torch.where(equal, part.n.clamp(min=1), whole)
        share *= torch.where(equal[part.set_of], 1, excess) / divisor[part.set_of]
    elif credit != "uniform":
        raise ValueError(f"credit {credit!r} is not allowed: one of: uniform, score, std, sum-mean")
    return share.masked_fill_(~valid, 0)


def counterfactual(layout: Layout, part: Part, utility: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Counterfactual credit of the responses of the part, `[P, J]`: what a response adds to its bundles' utility.

        A_ij = mean_b factor_b [ u(S_{-i,b} + r_ij) - mean_{k != j} u(S_{-i,b} + r_ik) ]

    over the J bundles b of the part that hold question i and all its other valid rollouts k; S_{-i,b} is the sum of
    the others in b, and u sees scaled sums. `utility(scores [c, K, J], sets [c])` may depend on the question set.
    The baseline has no part of r_ij, so at fixed quantiles the mean of A grad ln pi is the gradient of E[u(R_B)]. As u
    never decreases, a question's best answer never gets A < 0, and a group of equal rewards gets exactly 0.
    """
    out = layout.rewards.new_empty(len(layout.prompts), part.total.shape[1])
    values = _two_values(layout)
    for rows in layout.chunks():
        r, valid, sets = layout.rewards[rows], layout.valid[rows], part.set_of[rows]
        others = part.total[sets] - r[:, part.columns]
        members = part.n[sets] - valid[:, part.columns].to(r.dtype) + 1  # as if the question's own response were valid
        scale = (part.target[sets] / members)[:, None]  # [c, 1, J]
        # u need only be known at the rewards that occur: two of them in the whole batch, or the group's own.
        x = r if values is None else values.expand(len(r), 2)
        u = (utility((others[:, None] + x[:, :, None]) * scale, sets) / scale).mean(2)
        u = u if values is None else torch.where(r == values[1], u[:, 1:], u[:, :1])
        u = _over_lowest(u, valid)  # so that equal rewards cancel exactly
        n = valid.sum(1, keepdim=True)
        A = (n * u[:, part.columns] - u.sum(1, keepdim=True)) / (n - 1).clamp(min=1)
        out[rows] = A.masked_fill_(~valid[:, part.columns], 0)
    return out


def group_std(layout: Layout, unbiased: bool) -> Tensor:
    """The standard deviation `[P, 1]` of each question's valid rewards; 0 if there is a single one."""
    return torch.cat([masked_std(layout.rewards[rows], layout.valid[rows], unbiased) for rows in layout.chunks()])


def group_mean(layout: Layout) -> Tensor:
    """The mean `[P, 1]` of each question's valid rewards, counted from the lowest of them; 0 if they are equal.

    Of n rewards it is at least 1/n of their range, whatever their sign.
    """
    out = []
    for rows in layout.chunks():
        r, valid = layout.rewards[rows], layout.valid[rows]
        out.append(_over_lowest(r, valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1))
    return torch.cat(out)


def group_std_mean(layout: Layout) -> Tensor:
    """`group_std` times the root of twice the mean's place between the lowest and the highest reward, `[P, 1]`.

    For right and wrong answers of pass rate p that is p sqrt(2 (1 - p)): about the mean where p is small, and about
    the std where it is nearly 1. The factor 2 makes it the std, and the mean, at p = 1/2.
    """
    out = []
    for rows in layout.chunks():
        r, valid = layout.rewards[rows], layout.valid[rows]
        excess = _over_lowest(r, valid)
        mean = excess.sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)
        share = mean / excess.amax(1, keepdim=True).clamp(min=1e-6)
        out.append(masked_std(r, valid, unbiased=False) * (2 * share).sqrt_())
    return torch.cat(out)


def masked_std(x: Tensor, valid: Tensor, unbiased: bool) -> Tensor:
    """The standard deviation of the valid entries of each row of `x [N, M]` -> [N, 1]; 0 for fewer than two."""
    n = valid.sum(1, keepdim=True)
    mean = x.masked_fill(~valid, 0).sum(1, keepdim=True) / n.clamp(min=1)
    squares = (x - mean).masked_fill_(~valid, 0).square_().sum(1, keepdim=True)
    return (squares / (n - 1 if unbiased else n).clamp(min=1)).sqrt_()


def _over_lowest(x: Tensor, valid: Tensor) -> Tensor:
    """The valid entries of each row of `x [N, M]`, counted from the lowest of them -> [N, M]; 0 elsewhere."""
    return (x - x.masked_fill(~valid, torch.inf).amin(1, keepdim=True)).masked_fill_(~valid, 0)


def _by_difficulty(layout: Layout, other: slice, B: int, generator: torch.Generator) -> Tensor:
    """Prompts `[P]` from hard to easy by the mean reward of the `other` half, the short set's moved to the end.

    The short set doesn't move the tracker: it is cut at a random place lest the same difficulty be always unseen.
    """
    total = layout.rewards[:, other].sum(1)
    n = layout.valid[:, other].sum(1)
    unknown = total.sum() / n.sum().clamp(min=1)
    order = torch.where(n > 0, total / n.clamp(min=1), unknown).argsort(stable=True)
    full, short = divmod(len(order), B)
    cut = B * int(torch.randint(full + 1, (1,), generator=generator))
    return torch.cat([order[:cut], order[cut + short :], order[cut : cut + short]])


def _permutations(P: int, G: int, generator: torch.Generator) -> Tensor:
    """xi [P, G]: an independent uniform permutation of 0..G-1 in each row."""
    xi = torch.empty(P, G, dtype=torch.uint8 if G <= 256 else torch.int32)
    for rows in _chunks(P, G):
        xi[rows] = torch.rand(xi[rows].shape, generator=generator).argsort(1).to(xi.dtype)
    return xi


def _arrange(values: Tensor, prompts: Tensor, xi: Tensor) -> Tensor:
    """`values [P, G]` from the order of arrival to bundle order."""
    out = torch.empty_like(values)
    for rows in _chunks(*xi.shape):
        out[rows] = values[prompts[rows]].gather(1, xi[rows].long())
    return out


def _sum_sets(values: Tensor, order: Tensor, size: Tensor) -> Tensor:
    """Sum `values [P, J]` over the prompts of each question set; all sets but the last are of one size."""
    B = int(size[0])
    full = len(order) // B
    values = values[order]
    sums = values[: full * B].view(full, B, -1).sum(1)
    return sums if full == len(size) else torch.cat([sums, values[full * B :].sum(0, keepdim=True)])


def _slots(part: Part, rows: slice) -> Tensor:
    """The bundle `[c, J]` of each response of some prompts, counting those without a score too."""
    J = part.total.shape[1]
    return part.first_id + part.set_of[rows, None] * J + torch.arange(J)


def _two_values(layout: Layout) -> Tensor | None:
    """The `[2]` values (low, high) that rewards take if there are no more than two, as with right and wrong."""
    r, invalid = layout.rewards, ~layout.valid
    low = r.masked_fill(invalid, torch.inf).min()
    high = r.masked_fill(invalid, -torch.inf).max()
    two = ((r == low) | (r == high) | invalid).all() and low <= high
    return torch.stack([low, high]) if two else None


def _chunks(P: int, G: int) -> Iterator[slice]:
    """Slices of rows: a sixteenth of the batch, but 4,096 to 16,384 responses, at which torch is at its fastest."""
    n = max(1, min(max(P * G // 16, 1 << 12), 1 << 14) // G)
    return (slice(start, min(start + n, P)) for start in range(0, P, n))


def _digest(seeded: blake2b, text: str) -> bytes:
    digest = seeded.copy()
    digest.update(text.encode())
    return digest.digest()
