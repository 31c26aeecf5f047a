"""What is read from per-sample gradients, each by the cheapest way that is exact.

With T positions a weight (a × b) costs T·a·b per sample to make its gradient, a weight gradient of an ordinary backward.
Masses need it not: the squares of a row are Σₜ L ∘ ((R Rᵀ) L), T²(a + b) (the ghost norm of Goodfellow 2015,
arXiv:1510.01799, by rows), which is less where T is short and the weight large. Inner products of samples need it not
either where T is very short, and with T = 1 everything has a closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tensorscope_nb.sweep.forms import Gradients, Lookup, Product, Rows, Whole, alike, blocks

GHOST = 0.8  # below this share of the cost of making the gradient, by measurement
MOST_PAIRS = 2**24  # inner products of positions held at once
MANY_ROWS = 64  # from so many on, half of a symmetric product is cheaper than one large multiplication


@dataclass(frozen=True)
class Elementwise:
    """Σ of f(gᵢ, w) over samples (weight by weight), or over weights (sample by sample)."""

    of: Callable[[Tensor, Tensor], Tensor]
    by: Literal["weight", "sample"]


@dataclass(frozen=True, eq=False)
class ByGroup:
    """Something summed over the samples of each group, weight by weight: (groups, rows, columns). Shared by whoever wants this
    very one.
    """

    groups: Sequence[Collection[str]]  # ids

    def shares(self, ids: Sequence[str], like: Tensor) -> Tensor:
        """(groups, n): one where a sample is in a group."""
        return torch.tensor([[name in group for name in ids] for group in self.groups]).to(like)


class SquaresBy(ByGroup):
    """Σ gᵢ²."""


class SumsBy(ByGroup):
    """Σ gᵢ."""


@dataclass(frozen=True, eq=False)
class Against:
    """⟨gᵢ, hⱼ⟩ with the gradients hⱼ of other samples, which are held: (n, m)."""

    held: Gradients

    def block(self, rows: Rows, columns: slice) -> Tensor:
        """(m, some weights)."""
        whole = self.held.forms[0] if len(self.held.forms) == 1 else None
        return (whole.values[:, rows, columns] if isinstance(whole, Whole) else self.held.block(rows, columns)).flatten(1)


Want = str | Elementwise | ByGroup | Against
"""``total`` (n), ``rows`` (n, rows), ``columns`` (n, columns): squares by sample, summed over the rest.
``sum`` and ``squares`` (rows, columns): over samples. ``gram`` (n, n): ⟨gᵢ, gⱼ⟩."""
Found = dict[Want, Tensor]


def measure(gradients: Gradients, wants: Collection[Want], ids: Sequence[str] = ()) -> Found:
    """Everything that is wanted of one parameter; squares and products in double precision. ``ids`` are those of the samples."""
    found: Found = {}
    if not gradients.forms:
        return _zeros(gradients, wants)
    left = set(wants)
    for against in [want for want in wants if isinstance(want, Against)]:
        if (k := gram_of_positions(*alike(gradients, against.held))) is not None:
            found[against] = k
            left.discard(against)
    if left <= {"total", "rows", "columns", "sum"} and _ghosts_pay(gradients, left):
        return found | _ghosts(gradients, left)
    form = gradients.forms[0] if len(gradients.forms) == 1 else None
    if isinstance(form, Product) and form.left.shape[1] == 1 and "squares" in left:
        found["squares"] = (form.left[:, 0] ** 2).T @ form.right[:, 0] ** 2
        left.discard("squares")
    if isinstance(form, Product) and form.left.shape[1] == 1:
        for want in [want for want in left if isinstance(want, SquaresBy)]:
            found[want] = torch.stack(
                [(form.left[:, 0] ** 2 * share[:, None]).T @ form.right[:, 0] ** 2 for share in want.shares(ids, form.left)]
            )
            left.discard(want)
    if all(want == "sum" or isinstance(want, SumsBy) for want in left):  # of all samples at once, without those of each
        for each in left:
            if isinstance(each, SumsBy):
                found[each] = gradients.zeros(len(each.groups), *gradients.weight.shape)
                for total, share in zip(found[each], each.shares(ids, gradients.weight).bool(), strict=True):
                    if share.any():
                        (gradients if share.all() else gradients.of(share.nonzero()[:, 0])).add_total(total)
            else:
                found[each] = gradients.zeros(*gradients.weight.shape)
                gradients.add_total(found[each])
        return found
    if "gram" in left and (k := gram_of_positions(gradients, gradients)) is not None:
        found["gram"] = k
        left.discard("gram")
    return found | _by_blocks(gradients, left, ids) if left else found


def _by_blocks(gradients: Gradients, wants: Collection[Want], ids: Sequence[str]) -> Found:
    found = _zeros(gradients, wants)
    elementwise = [want for want in wants if isinstance(want, Elementwise)]
    shares = {want: want.shares(ids, found[want]) for want in wants if isinstance(want, ByGroup)}
    others = [want for want in wants if isinstance(want, Against) and want.held.forms]
    squared = bool({"squares", "columns"} & set(wants) or any(isinstance(want, SquaresBy) for want in shares))
    for rows, columns, touched in blocks(gradients):
        block = gradients.block(rows, columns, touched)
        for want in elementwise:
            made = want.of(block, gradients.weight[rows, columns])
            if want.by == "weight":
                found[want][rows, columns] += made.sum(0)
            else:
                found[want] += made.flatten(1).sum(1).double()
        if "sum" in found:
            found["sum"][rows, columns] += block.sum(0)
        for grouped, share in shares.items():
            if isinstance(grouped, SumsBy):
                found[grouped][:, rows, columns] += (share @ block.flatten(1)).unflatten(1, block.shape[1:])
        if "gram" in found:
            found["gram"] += inner_products(block.flatten(1)).double().cpu()
        for against in others:
            one, other = block.flatten(1), against.block(rows, columns)
            wide = torch.promote_types(one.dtype, other.dtype)
            found[against] += (one.to(wide) @ other.to(wide).T).double().cpu()
        if squared:
            block.square_()  # in place, the block is not needed any more
            if "squares" in found:
                found["squares"][rows, columns] += block.sum(0)
            for grouped, share in shares.items():
                if isinstance(grouped, SquaresBy):
                    found[grouped][:, rows, columns] += (share @ block.flatten(1)).unflatten(1, block.shape[1:])
            by_row = block.sum(2).double() if {"rows", "total"} & set(found) else None
            if "columns" in found:
                found["columns"][:, columns] += block.sum(1).double()
        elif {"rows", "total"} & set(found):
            by_row = torch.linalg.vector_norm(block, dim=2).double() ** 2
        if "rows" in found and by_row is not None:
            found["rows"][:, rows] += by_row
        if "total" in found and by_row is not None:
            found["total"] += by_row.sum(1)
    return found


def inner_products(rows: Tensor) -> Tensor:
    """rows rowsᵀ, without computing both halves of it where there are many."""
    n = len(rows)
    if n < MANY_ROWS:
        return rows @ rows.T
    upper, lower = rows[: n // 2], rows[n // 2 :]
    across = upper @ lower.T
    return torch.cat([torch.cat([inner_products(upper), across], 1), torch.cat([across.T, inner_products(lower)], 1)])


def _zeros(gradients: Gradients, wants: Collection[Want]) -> Found:
    n, (rows, columns) = gradients.n, gradients.weight.shape
    weight = gradients.weight
    shapes = {"total": (n,), "rows": (n, rows), "columns": (n, columns)}
    found: Found = {}
    for want in wants:
        if want == "gram" or isinstance(want, Against):
            found[want] = torch.zeros(n, want.held.n if isinstance(want, Against) else n, dtype=torch.float64)
        elif want in ("sum", "squares") or (isinstance(want, Elementwise) and want.by == "weight"):
            found[want] = gradients.zeros(rows, columns)
        elif isinstance(want, ByGroup):
            found[want] = gradients.zeros(len(want.groups), rows, columns)
        else:
            shape = (n,) if isinstance(want, Elementwise) else shapes[want]
            found[want] = torch.zeros(shape, dtype=torch.float64, device=weight.device)
    return found


def _ghosts_pay(gradients: Gradients, wants: Collection[Want]) -> bool:
    if any(isinstance(form, Whole) for form in gradients.forms):
        return False
    if (len(gradients.forms) > 1 or isinstance(gradients.forms[0], Lookup)) and wants != {"total"}:
        return False
    terms = sum(form.right.shape[1] for form in gradients.forms if not isinstance(form, Whole))
    made = sum(form.left.shape[1] for form in gradients.forms if isinstance(form, Product)) or gradients.n
    return terms**2 * (gradients.rows + gradients.columns) < GHOST * made * gradients.rows * gradients.columns


def _ghosts(gradients: Gradients, wants: set[Want]) -> Found:
    found: Found = {}
    if len(gradients.forms) > 1 or not isinstance(gradients.forms[0], Product):
        return {"total": _tied_total(gradients)}
    form = gradients.forms[0]
    left, right = form.left, form.right
    if "sum" in wants:
        found["sum"] = gradients.zeros(*gradients.weight.shape)
        gradients.add_total(found["sum"])
    if "rows" in wants:
        found["rows"] = (torch.bmm(torch.bmm(right, right.mT), left) * left).sum(1).double()
    if "columns" in wants:
        found["columns"] = (torch.bmm(torch.bmm(left, left.mT), right) * right).sum(1).double()
    if "total" in wants:
        known = found.get("rows", found.get("columns"))
        one = (torch.bmm(right, right.mT) * torch.bmm(left, left.mT)).sum((1, 2)).double() if known is None else known.sum(1)
        found["total"] = one
    return {want: value if want == "sum" else value.clamp(min=0) for want, value in found.items()}


def _tied_total(gradients: Gradients) -> Tensor:
    """‖Σ forms‖² with every cross term, ⟨Lᵤᵀ Rᵤ, Lᵥᵀ Rᵥ⟩ = Σ (Lᵤ Lᵥᵀ) ∘ (Rᵤ Rᵥᵀ)."""
    total = torch.zeros(gradients.n, dtype=torch.float64, device=gradients.weight.device)
    for i, u in enumerate(gradients.forms):
        for v in gradients.forms[: i + 1]:
            assert not isinstance(u, Whole) and not isinstance(v, Whole)
            right = torch.bmm(u.right, v.right.mT)
            total += (1 if u is v else 2) * (left_products(u, v) * right).sum((1, 2)).double()
    return total.clamp(min=0)


def left_products(u: Product | Lookup, v: Product | Lookup) -> Tensor:
    """Lᵤ Lᵥᵀ (n, T, T'); a lookup's L has a one at each token."""
    if isinstance(u, Product) and isinstance(v, Product):
        return torch.bmm(u.left, v.left.mT)
    if isinstance(u, Lookup) and isinstance(v, Lookup):
        return (u.tokens[:, :, None] == v.tokens[:, None]).to(u.right.dtype)
    if isinstance(u, Product) and isinstance(v, Lookup):
        return u.left.gather(2, v.tokens[:, None].expand(-1, u.left.shape[1], -1))
    return left_products(v, u).mT


def gram_of_positions(a: Gradients, b: Gradients) -> Tensor | None:
    """Σₛₜ (Lᵢₛ · Lⱼₜ)(Rᵢₛ · Rⱼₜ), where that costs less than making the gradients of both."""
    if not positions_pay(a, b):
        return None
    one, other = a.forms[0], b.forms[0]
    assert isinstance(one, Product) and isinstance(other, Product)
    s, t = one.left.shape[1], other.left.shape[1]
    left = one.left.flatten(0, 1) @ other.left.flatten(0, 1).T
    right = one.right.flatten(0, 1) @ other.right.flatten(0, 1).T
    return (left * right).unflatten(0, (a.n, s)).unflatten(2, (b.n, t)).sum((1, 3)).double().cpu()


def positions_pay(a: Gradients, b: Gradients) -> bool:
    """Whether inner products are cheaper position by position than weight by weight."""
    if len(a.forms) != 1 or len(b.forms) != 1:
        return False
    one, other = a.forms[0], b.forms[0]
    if not isinstance(one, Product) or not isinstance(other, Product):
        return False
    (rows, columns), s, t = a.weight.shape, one.left.shape[1], other.left.shape[1]
    made = GHOST * rows * columns * (1 + s / b.n + t / a.n)
    return s * t * (rows + columns) <= made and a.n * b.n * s * t <= MOST_PAIRS
