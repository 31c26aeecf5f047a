"""The gradients of one parameter for n samples, as matrices (rows, columns) that need not be made.

A weight's gradient is a product of what went in and what came back, Gᵢ = Lᵢᵀ Rᵢ with one term per position (T of them); an
embedding's has the rows of R at its tokens; a vector's is small and simply held. A tied weight has several of these forms,
whose sum its gradient is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

BLOCK_BYTES = 8 * 2**20  # what fits into the caches together with what is made of it
SIDE = 256  # rows and columns of a block, at least: thinner ones leave the multiplication waiting for memory

TINY = 1e-15  # the squares of what is smaller, or larger than 1 / TINY, leave single precision
MANY = 8  # where more than one in so many rows is touched, picking them out costs more than it saves

Rows = slice | Tensor  # some rows of a parameter: neighbours, or their sorted numbers


@dataclass(frozen=True)
class Product:
    """Gᵢ = Lᵢᵀ Rᵢ."""

    left: Tensor  # (n, T, rows)
    right: Tensor  # (n, T, columns)

    @property
    def kind(self) -> Any:
        """Equal for those that can stand in one."""
        return (Product, self.left.shape[1])

    @property
    def size(self) -> int:
        """Numbers held per sample."""
        return self.left[0].nelement() + self.right[0].nelement()

    def block(self, rows: Rows, columns: slice) -> Tensor:
        return torch.bmm(self.left[:, :, rows].mT, self.right[:, :, columns])

    def largest(self) -> Tensor:
        """A bound on each sample's entries, term by term (n,)."""
        return _largest(self.left) * _largest(self.right)

    def double(self) -> Product:
        return Product(self.left.double(), self.right.double())

    def of(self, samples: Any) -> Product:
        return Product(self.left[samples], self.right[samples])

    def add_total(self, to: Tensor) -> None:
        """Σᵢ Gᵢ, as one multiplication."""
        to.addmm_(self.left.flatten(0, 1).T, self.right.flatten(0, 1))

    def times(self, vector: Tensor) -> Tensor:
        """Gᵢ v, (n, rows)."""
        return torch.bmm(self.left.mT, (self.right @ vector)[..., None])[..., 0]


@dataclass(frozen=True)
class Lookup:
    """Row v of Gᵢ is the sum of Rᵢ over the positions of token v."""

    tokens: Tensor  # (n, T)
    right: Tensor  # (n, T, columns)
    n_rows: int

    @property
    def kind(self) -> Any:
        """Equal for those that can stand in one."""
        return (Lookup, self.tokens.shape[1])

    @property
    def size(self) -> int:
        return self.right[0].nelement()

    def add(self, block: Tensor, rows: Rows, columns: slice) -> None:
        """Into a block of another form: most of its own would be zeros."""
        numbers = torch.arange(self.n_rows, device=self.right.device)[rows]
        place = torch.searchsorted(numbers, self.tokens).clamp(max=len(numbers) - 1)
        sample, position = (numbers[place] == self.tokens).nonzero(as_tuple=True)
        right = self.right[:, :, columns]
        block.index_put_((sample, place[sample, position]), right[sample, position], accumulate=True)

    def add_total(self, to: Tensor) -> None:
        to.index_add_(0, self.tokens.flatten(), self.right.flatten(0, 1))

    def largest(self) -> Tensor:
        return _largest(self.right)

    def double(self) -> Lookup:
        return Lookup(self.tokens, self.right.double(), self.n_rows)

    def of(self, samples: Any) -> Lookup:
        return Lookup(self.tokens[samples], self.right[samples], self.n_rows)

    def times(self, vector: Tensor) -> Tensor:
        out = self.right.new_zeros(len(self.right), self.n_rows)
        return out.scatter_add_(1, self.tokens, self.right @ vector)


@dataclass(frozen=True)
class Whole:
    """The gradients themselves."""

    values: Tensor  # (n, rows, columns)

    @property
    def kind(self) -> Any:
        """Equal for those that can stand in one."""
        return (Whole, 0)

    @property
    def size(self) -> int:
        return self.values[0].nelement()

    def block(self, rows: Rows, columns: slice) -> Tensor:
        return self.values[:, rows, columns].clone()

    def add_total(self, to: Tensor) -> None:
        to += self.values.sum(0)

    def largest(self) -> Tensor:
        return _largest(self.values)

    def double(self) -> Whole:
        return Whole(self.values.double())

    def of(self, samples: Any) -> Whole:
        return Whole(self.values[samples])

    def times(self, vector: Tensor) -> Tensor:
        return self.values @ vector


Form = Product | Lookup | Whole


class Gradients:
    """The gradients of one parameter for n samples: the sum of some forms (none: they are zero)."""

    def __init__(self, weight: Tensor, forms: Sequence[Form], n: int, dtype: torch.dtype | None = None) -> None:
        self.weight = weight  # (rows, columns)
        self.forms = tuple(forms)
        self.n = n
        self.rows, self.columns = weight.shape
        self.dtype = dtype or widened(weight[:0]).dtype

    def zeros(self, *shape: int) -> Tensor:
        return self.weight.new_zeros(*shape, dtype=self.dtype)

    @property
    def size(self) -> int:
        """Numbers held per sample."""
        return sum(form.size for form in self.forms)

    def of(self, samples: Any) -> Gradients:
        """Those of some samples: a slice, or their numbers."""
        n = len(range(self.n)[samples]) if isinstance(samples, slice) else len(samples)
        return Gradients(self.weight, [form.of(samples) for form in self.forms], n, self.dtype)

    def times(self, vector: Tensor) -> Tensor:
        """Gᵢ v, (n, rows)."""
        return sum((form.times(vector) for form in self.forms), start=self.zeros(self.n, self.rows))

    def add_total(self, to: Tensor) -> None:
        """Adds Σᵢ Gᵢ, (rows, columns)."""
        for form in self.forms:
            form.add_total(to)

    def block(self, rows: Rows, columns: slice, touched: bool = True) -> Tensor:
        """(n, some rows, some columns), new memory; a row that no token ``touched`` has nothing of the lookups."""
        made = [form.block(rows, columns) for form in self.forms if not isinstance(form, Lookup)]
        block = sum(made[1:], start=made[0]) if made else self.zeros(self.n, *self.weight[rows, columns].shape)
        for form in self.forms:
            if touched and isinstance(form, Lookup):
                form.add(block, rows, columns)
        return block

    def wide(self) -> Gradients:
        """The same in double precision where the squares of any sample would leave single precision."""
        if self.dtype == torch.float64 or not self.forms:
            return self
        largest = torch.stack([form.largest() for form in self.forms]).amax(0)
        fits = (largest == 0) | ((largest > TINY) & (largest < 1 / TINY))
        return self if bool(fits.all()) else self.double()

    def double(self) -> Gradients:
        return Gradients(self.weight, [form.double() for form in self.forms], self.n, torch.float64)

    def compact(self) -> Gradients:
        """The same gradients in the form that takes the least memory."""
        return self if self.rows * self.columns >= self.size else self.whole()

    def whole(self) -> Gradients:
        """The same gradients, made."""
        if not self.forms or (isinstance(self.forms[0], Whole) and len(self.forms) == 1):
            return self
        return Gradients(self.weight, [Whole(self.block(slice(None), slice(None)))], self.n, self.dtype)


def alike(a: Gradients, b: Gradients) -> tuple[Gradients, Gradients]:
    """Both in the same precision."""
    return (a, b) if a.dtype == b.dtype else (a.double(), b.double())


def joined(parts: Sequence[Gradients]) -> Gradients:
    """The gradients of several chunks as those of all their samples."""
    n, kinds = sum(part.n for part in parts), {tuple(form.kind for form in part.forms) for part in parts}
    if any(part.dtype == torch.float64 for part in parts):
        parts = [part.double() for part in parts]
    first = parts[0]
    if len(parts) == 1:
        return first
    if len(kinds) > 1:  # one chunk did not run the module, or padded less
        whole = [part.block(slice(None), slice(None)) for part in parts]
        return Gradients(first.weight, [Whole(torch.cat(whole))], n, first.dtype)
    forms: list[Form] = []
    for each in zip(*(part.forms for part in parts), strict=True):
        if isinstance(each[0], Product):
            forms.append(Product(torch.cat([f.left for f in each]), torch.cat([f.right for f in each])))
        elif isinstance(each[0], Lookup):
            forms.append(Lookup(torch.cat([f.tokens for f in each]), torch.cat([f.right for f in each]), each[0].n_rows))
        else:
            forms.append(Whole(torch.cat([f.values for f in each])))
    return Gradients(first.weight, forms, n, first.dtype)


def blocks(*gradients: Gradients) -> Iterator[tuple[Rows, slice, bool]]:
    """Cuts a parameter so that the gradients of all these samples for a block fit into the caches.

    Of an embedding only the rows at tokens that occur are visited with the lookups; the others, if another form reaches
    them, without.
    """
    rows, columns = gradients[0].rows, gradients[0].columns
    room = max(1, BLOCK_BYTES // (sum(g.n for g in gradients) * gradients[0].weight.element_size()))
    wide = columns if columns * min(rows, SIDE) <= room else min(columns, max(SIDE, room // min(rows, SIDE)))
    high = max(1, room // wide)
    lookups = [form for g in gradients for form in g.forms if isinstance(form, Lookup)]
    spans: list[tuple[Rows, bool]]
    occurring = torch.unique(torch.cat([form.tokens.flatten() for form in lookups])) if lookups else None
    if occurring is None or len(occurring) > rows / MANY:
        spans = [(slice(a, min(a + high, rows)), True) for a in range(0, rows, high)]
    else:
        spans = [(piece, True) for piece in occurring.split(high)]
        if any(not isinstance(form, Lookup) for g in gradients for form in g.forms):
            silent = torch.ones(rows, dtype=torch.bool, device=occurring.device)
            silent[occurring] = False
            spans += [(piece, False) for piece in silent.nonzero()[:, 0].split(high) if len(piece)]
    for span, touched in spans:
        for a in range(0, columns, wide):
            yield span, slice(a, min(a + wide, columns)), touched


def _largest(tensor: Tensor) -> Tensor:
    flat = tensor.flatten(1)  # a norm to infinity takes fifty times as long
    return torch.maximum(flat.amax(1), -flat.amin(1)).double()


def widened(tensor: Tensor) -> Tensor:
    """Half precision in single: squares and products of gradients underflow there."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def as_matrix(tensor: Tensor) -> Tensor:
    """Any parameter as (rows, columns): a vector is one column, a convolution's kernel is flattened, a number is 1 × 1."""
    return tensor.reshape(tensor.shape[0] if tensor.ndim else 1, prod(tensor.shape[1:]))
