"""Which responses form which bundle, and the bundles' scores R_B = sum_i R(y^i) (section 4, Eq. 3).

P prompts with G responses each. A question set is B prompts. Its bundles take one response of each of them, and every
response is used once. Everything here is in *bundle order*: prompts in an order that depends on (seed, step, key)
alone, and the responses of prompt i permuted by its own xi_i. The order of arrival plays no part.

A bundle of n members has score sum * T / n, and its advantage counts n / T: T is B, and n is less than B in a last set
that is short of prompts, or where a response has no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass
class Part:
    """The bundles of some of the responses: of all, or of one half when bundles are stratified."""

    columns: slice  # the J columns of the bundle-order tensors [P, G] that are bundled
    order: Tensor  # [P] prompts by question set; a short set is the last
    set_of: Tensor  # [P] the question set of each prompt
    total: Tensor  # [n_sets, J] sum of the valid rewards R(y^i)
    n: Tensor  # [n_sets, J] number of valid members
    target: Tensor  # [n_sets, 1] T, the number of members that scores are scaled to

    @property
    def scores(self) -> Tensor:
        """R_B [n_sets, J]; 0 for a bundle without a valid member, which has no score."""
        return self.total * (self.target / self.n.clamp(min=1))

    @property
    def factor(self) -> Tensor:
        """n / T [n_sets, J], by which an advantage is multiplied before it goes back."""
        return self.n / self.target

    @property
    def scored(self) -> Tensor:
        """[n_sets, J]: which bundles have a valid member."""
        return self.n > 0


@dataclass
class Layout:
    """A batch in bundle order: column j of row i is response xi_{i,j} of the i-th prompt."""

    prompts: Tensor  # [P] row of the batch as it arrived
    xi: Tensor  # [P, G] xi_{i,j}
    rewards: Tensor  # [P, G], 0 where there is no verdict
    valid: Tensor  # [P, G]
    parts: list[Part]

    @property
    def scores(self) -> Tensor:
        """[n_bundles] the scores of all bundles that have one."""
        return torch.cat([part.scores[part.scored] for part in self.parts])

    def full_scores(self, B: int) -> Tensor:
        """Return the scores of the bundles with all B verdicts."""
        return torch.cat([part.scores[part.n == B] for part in self.parts])

    def restore(self, values: Tensor) -> Tensor:
        """Put `values [P, G]` back from bundle order into the order of arrival."""
        out = torch.empty_like(values)
        out[self.prompts] = torch.empty_like(values).scatter_(1, self.xi, values)
        return out

    def bundle_ids(self) -> Tensor:
        """Return each response's index into `scores`, `[P, G]` in the order of arrival; -1 without a verdict."""
        ids, before = torch.empty_like(self.xi), 0
        for part in self.parts:
            number = before - 1 + part.scored.flatten().cumsum(0).view_as(part.n)
            ids[:, part.columns] = number[part.set_of]
            before += int(part.scored.sum())
        return self.restore(ids.masked_fill(~self.valid, -1))


def draw_layout(
    rewards: Tensor,
    valid: Tensor,
    bundling: str,
    bundle_size: int,
    seed: int,
    step: int,
    keys: Sequence[str] | None = None,
) -> Layout:
    """Draw the bundles of `rewards [P, G]`, `valid [P, G]` by (seed, step, keys).

    random: the canonical order of the prompts, cut into sets of B. stratified: sets of neighbours in difficulty; each
    half of a group's responses is ranked by the other half's mean reward, so no response helps to choose its bundle.
    """
    P, G = rewards.shape
    generator = torch.Generator().manual_seed(
        int.from_bytes(_digest(blake2b(digest_size=8), f"{seed}/{step}"), "big") >> 1
    )
    prompts = canonical_order(keys, rewards, valid, seed, step)
    xi = torch.rand(P, G, generator=generator).argsort(1)  # xi_i ~ Unif(S_G), independent for each prompt
    layout = arrange(rewards, valid, prompts, xi)
    if bundling == "stratified":
        halves = slice(0, G // 2), slice(G // 2, G)
        for columns, other in (halves, halves[::-1]):
            order = _by_difficulty(layout, other, bundle_size, generator)
            layout.parts.append(make_part(layout, columns, order, bundle_size))
    else:
        layout.parts.append(make_part(layout, slice(0, G), torch.arange(P), bundle_size))
    return layout


def arrange(rewards: Tensor, valid: Tensor, prompts: Tensor, xi: Tensor) -> Layout:
    """Bring a batch from the order of arrival into bundle order; the layout has no parts yet."""
    valid = valid[prompts].gather(1, xi)
    return Layout(prompts, xi, rewards[prompts].gather(1, xi).masked_fill(~valid, 0), valid, [])


def make_part(layout: Layout, columns: slice, order: Tensor, B: int) -> Part:
    """Bundle the `columns` of a layout: sets of B prompts in `order [P]`, the j-th columns together."""
    set_of = torch.empty_like(order)
    set_of[order] = torch.arange(len(order)) // B
    rewards, valid = layout.rewards[:, columns], layout.valid[:, columns].to(layout.rewards.dtype)
    total, n = sum_sets(rewards, order, B), sum_sets(valid, order, B)
    return Part(columns, order, set_of, total, n, torch.full_like(n[:, :1], B))


def canonical_order(keys: Sequence[str] | None, rewards: Tensor, valid: Tensor, seed: int, step: int) -> Tensor:
    """Sort prompts `[P]` by a hash of (seed, step, key). Without keys, a prompt's position is its key.

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


def _by_difficulty(layout: Layout, other: slice, B: int, generator: torch.Generator) -> Tensor:
    """Sort prompts `[P]` from hard to easy by the mean reward of the `other` half, then move the short set to the end.

    The short set does not move the tracker. It comes from a random position of the ranking, so that no difficulty is
    always hidden from the tracker. A prompt without verdicts in the other half counts as average.
    """
    total = layout.rewards[:, other].sum(1)
    n = layout.valid[:, other].sum(1)
    average = total.sum() / n.sum().clamp(min=1)
    order = torch.where(n > 0, total / n.clamp(min=1), average).argsort(stable=True)
    full, short = divmod(len(order), B)
    cut = B * int(torch.randint(full + 1, (1,), generator=generator))
    return torch.cat([order[:cut], order[cut + short :], order[cut : cut + short]])


def sum_sets(values: Tensor, order: Tensor, B: int) -> Tensor:
    """Sum `values [P, J]` over consecutive sets of B prompts in `order` -> [n_sets, J]."""
    padded = pad(values[order], (0, 0, 0, -len(order) % B))
    return padded.view(-1, B, values.shape[1]).sum(1)


def _digest(seeded: blake2b, text: str) -> bytes:
    digest = seeded.copy()
    digest.update(text.encode())
    return digest.digest()
