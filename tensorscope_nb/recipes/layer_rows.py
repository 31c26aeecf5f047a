"""What each layer makes of each input, as rows: the representation of a token, or of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics.alignment import spread
from tensorscope_nb.recipes.paired_inputs import APART
from tensorscope_nb.recipes.recipe import weights_of
from tensorscope_nb.settings import current
from tensorscope_nb.sweep import Chunk, sweep
from tensorscope_nb.sweep.faults import too_much

if TYPE_CHECKING:
    from torch import Tensor

    from tensorscope_nb.recipes.paired_inputs import Paired
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope

BETWEEN = ("layer_a", "layer_b")
NO_ROWS = ("attn.pattern", "attn.scores")  # sites that stand for pairs of positions


@dataclass(frozen=True)
class LayerRows:
    """``layers`` hold (n, width) each; ``sample`` (n,) ascending and ``position`` (n,), both from 0, say what a row is of."""

    layers: list[np.ndarray]
    sample: np.ndarray
    position: np.ndarray | None  # None: a row is a whole sample
    of_positions: bool  # the samples have positions, whether each is a row or not


class _Reader:
    """Keeps the rows of every layer as the model has them, in single precision (in double where the model is)."""

    def __init__(self, scope: Scope, site: str, tokens: str, skip_first: bool, n_samples: int) -> None:
        self.scope, self.tokens, self.skip_first, self.n_samples = scope, tokens, skip_first, n_samples
        self.needs = [f"layers.{i}.{site}" for i in range(scope.anatomy.n_layers)]
        self.rows: list[list[np.ndarray]] = [[] for _ in self.needs]
        self.sample: list[np.ndarray] = []
        self.position: list[np.ndarray] = []
        self.n_done, self.of_positions = 0, False

    def update(self, chunk: Chunk) -> None:
        found = [self._of_layer(chunk, site) for site in self.needs]
        for (values, _, _), kept, site in zip(found, self.rows, self.needs, strict=True):
            if not np.isfinite(values).all():
                raise ValueError(f"{site} of {self.scope.name} is not finite on samples {chunk.samples.ids[0]!r} and following")
            kept.append(values)
        if len({len(values) for values, _, _ in found}) > 1:
            raise ValueError(f'layers of {self.scope.name} differ in their positions: compare them with tokens="mean" or "last"')
        self.sample.append(found[0][1] + self.n_done)
        self.position.append(found[0][2])
        if not self.n_done:
            self._check_memory(len(chunk.samples))
        self.n_done += len(chunk.samples)

    def _of_layer(self, chunk: Chunk, site: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows, their samples in this chunk, and their positions (-1 where a row is a sample without positions)."""
        values = chunk.site(site)
        n = len(chunk.samples)
        if not self._has_positions(values, chunk.samples):
            return _plain(values.flatten(1)), np.arange(n), np.full(n, -1)
        self.of_positions = True
        seen = chunk.samples.seen(values.shape[1]).to(values.device)
        position = seen.cumsum(1) - 1
        if self.skip_first:
            seen = seen & (position > 0)
            if short := [i for i, row in enumerate(seen.any(1).tolist()) if not row]:
                name = chunk.samples.ids[short[0]]
                raise ValueError(f"sample {name!r} has one token, and nothing is left of it with skip_first=True: leave it out")
        values = values.flatten(2)
        if self.tokens == "all":
            sample = torch.arange(n, device=seen.device)[:, None].expand_as(seen)
            return _plain(values[seen]), sample[seen].cpu().numpy(), position[seen].cpu().numpy()
        if self.tokens == "mean":
            weights = (seen / seen.sum(1, keepdim=True)).to(torch.promote_types(values.dtype, torch.float32))
            # some models put NaN where there is padding, and 0 times NaN is no 0
            values = torch.einsum("nt,ntd->nd", weights, values.masked_fill(~seen[..., None], 0).to(weights.dtype))
            return _plain(values), np.arange(n), np.full(n, -1)
        last = (seen * torch.arange(1, seen.shape[1] + 1, device=seen.device)).argmax(1)
        return _plain(values[torch.arange(n, device=seen.device), last]), np.arange(n), np.full(n, -1)

    def _has_positions(self, values: Tensor, samples: Samples) -> bool:
        """A transformer's second axis is positions; that of another module where it is as long as the tokens."""
        if self.scope.anatomy.table is not None:
            return True
        return samples.has_tokens and values.ndim > 2 and values.shape[1] == samples.input_ids.shape[1]

    def _check_memory(self, done: int) -> None:
        """Said after the first chunk, before the memory is gone."""
        needed = sum(part.nbytes for kept in self.rows for part in kept) * self.n_samples / done
        if needed > current().memory:
            what = f"the rows of {self.n_samples} samples in {len(self.needs)} layers"
            raise too_much(what, needed, 'give fewer samples, tokens="mean"')

    def result(self) -> LayerRows:
        layers = []
        while self.rows:
            layers.append(np.concatenate(self.rows.pop(0)))  # one layer at a time is there twice
        position = np.concatenate(self.position)
        rows_are_samples = bool((position < 0).any())
        return LayerRows(layers, np.concatenate(self.sample), None if rows_are_samples else position, self.of_positions)


def _plain(values: Tensor) -> np.ndarray:
    array: np.ndarray = (values if values.dtype == torch.float64 else values.float()).cpu().numpy()
    return array


def rows_of_both(pair: Paired, *, skip_first: bool, **how: Any) -> tuple[LayerRows, LayerRows]:
    """The rows of two models, that of one input at the same place in both; those of one model twice where it is alone."""
    a = b = layer_rows(pair.scope_a, pair.a, skip_first=skip_first, **how)
    if pair.scope_b is not None:
        b = layer_rows(pair.scope_b, pair.b, skip_first=skip_first, **how)
    if skip_first and not a.of_positions and not b.of_positions:
        raise ValueError("skip_first=True leaves out first tokens, and what these models read has no positions")
    places, others = (r.sample if r.position is None else np.stack([r.sample, r.position]) for r in (a, b))
    if not np.array_equal(places, others) and how["tokens"] == "all":
        raise ValueError(f"the two models have {len(a.sample)} and {len(b.sample)} rows for the same samples: {APART}")
    return a, b


def constant_layers(a: LayerRows, b: LayerRows, kept: np.ndarray | slice = slice(None)) -> dict[str, str]:
    """Why there is no number for some layers."""
    layers = {f"layer_{side} {i}": layer for side, rows in (("a", a), ("b", b)) for i, layer in enumerate(rows.layers)}
    return {name: "its activations are the same on every row" for name, layer in layers.items() if not spread(layer[kept]).any()}


def said(pair: Paired, rows: LayerRows) -> dict[str, Any]:
    """What a result says of how it was found, and of the second model."""
    found: dict[str, Any] = {"n_used": len(pair.a), "n_available": len(pair.a), "n_rows": len(rows.sample)}
    if pair.scope_b is not None:
        found |= {"model_b": pair.scope_b.name, "weights_b": weights_of(pair.scope_b)}
    return found


def layer_rows(
    scope: Scope, samples: Samples, *, sites: str | None, tokens: str, skip_first: bool, chunk: int | None, progress: bool | None
) -> LayerRows:
    """One pass of ``samples`` through the model."""
    if not scope.anatomy.n_layers:
        raise UnsupportedModel(f"no layers: {scope.name} has none that are known, and representations are compared by layer")
    site = sites or ("resid_post" if scope.anatomy.table is not None else "out")
    if not isinstance(site, str) or "*" in site or site in NO_ROWS:
        raise ValueError(
            f"sites is {sites!r}: name one site of a layer whose rows are positions, such as 'resid_post' or 'mlp.out'"
        )
    reader = _Reader(scope, site, tokens, skip_first, len(samples))
    sweep(scope, samples, [reader], chunk=chunk, progress=progress, label=f"layers of {scope.name}")
    return reader.result()
