"""Where the rows of a frame stand in a model: layers, heads in their layers, modules by kind and layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from tensorscope_nb.numerics.correlation import (
    LEAST_KINDS,
    LEAST_LAYERS,
    Array,
    Correlation,
    along_depth,
    within_kinds,
    within_layers,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Places:
    """A table whose last axis is the layers (but heads stand within theirs), and the cell of each row that is in it."""

    dims: tuple[str, ...]
    rows: Sequence[Any]
    cells: tuple[np.ndarray, ...]
    layers: np.ndarray
    shape: tuple[int, ...]
    size: Array | None = None  # the logarithm of the number of weights, where it varies within a kind of module

    @classmethod
    def of(cls, dims: tuple[str, ...], index: Iterable[Any], results: Mapping[str, xr.Dataset], trim: int) -> Places:
        """``trim`` layers are left out at either end."""
        rows = list(index)
        layer_of, kind_of = _modules(results) if dims == ("module",) else ({}, {})
        layer = {row: layer_of.get(row, -1) if dims == ("module",) else row[0] if len(dims) > 1 else row for row in rows}
        layers = np.unique([found for found in layer.values() if found >= 0])
        kept = layers[trim : len(layers) - trim]
        if not len(kept):
            raise ValueError(f"trim={trim} leaves none of {len(layers)} layers" if len(layers) else "no module stands in a layer")
        rows = [row for row in rows if layer[row] in kept]
        at_layer = np.searchsorted(kept, [layer[row] for row in rows])
        if dims == ("layer",):
            return cls(dims, rows, (at_layer,), kept, (len(kept),))
        second = [row[1] if dims == ("layer", "head") else kind_of[row] for row in rows]
        others, at_other = np.unique(np.array([str(x) if dims == ("module",) else x for x in second]), return_inverse=True)
        if dims == ("layer", "head"):
            return cls(dims, rows, (at_layer, at_other), kept, (len(kept), len(others)))
        places = cls(dims, rows, (at_other, at_layer), kept, (len(others), len(kept)))
        return replace(places, size=_size(places, results))

    def table(self, values: pd.Series) -> Array:
        """The values in their cells; several in one cell (modules of a kind in one layer) by their mean, none as NaN."""
        found = values.reindex(self.rows).to_numpy(dtype=float)
        seen = np.isfinite(found)
        cells = tuple(cell[seen] for cell in self.cells)
        total, count = np.zeros(self.shape), np.zeros(self.shape)
        np.add.at(total, cells, found[seen])
        np.add.at(count, cells, 1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def correlate(self, a: Array, b: Array, ranks: bool) -> Correlation:
        """Of two tables, over the cells that both have."""
        seen = np.isfinite(a) & np.isfinite(b)
        if self.dims == ("layer",):
            return along_depth(a[seen], b[seen], self.layers[seen], ranks=ranks)
        a, b = np.where(seen, a, np.nan), np.where(seen, b, np.nan)
        if self.dims == ("layer", "head"):
            return within_layers(a, b, ranks=ranks)
        return within_kinds(a, b, self.size, ranks=ranks)

    def too_few(self, seen: np.ndarray) -> str:
        """Why the cells are too few for a p value, if they are."""
        if self.dims == ("layer", "head"):
            return ""
        n = int(seen.reshape(-1, seen.shape[-1]).any(0).sum())
        if n < LEAST_LAYERS:
            return f"{n} layer{'s' * (n != 1)}: a correlation over fewer than {LEAST_LAYERS} has no p value"
        if self.dims == ("module",) and (kinds := int(seen.any(1).sum())) < LEAST_KINDS:
            return f"{kinds} kind{'s' * (kinds != 1)} of module: a correlation over fewer than {LEAST_KINDS} has no p value"
        return ""


def _modules(results: Mapping[str, xr.Dataset]) -> tuple[dict[Any, int], dict[Any, str]]:
    """The layer of each module, and its kind: its block, and its path without the number of the layer."""
    layer_of: dict[Any, int] = {}
    kind_of: dict[Any, str] = {}
    for result in results.values():
        if "module" not in result.coords or "module_layer" not in result.coords or result["module_layer"].dims != ("module",):
            continue
        blocks = result["module_block"].values if "module_block" in result.coords else [""] * result.sizes["module"]
        for module, layer, block in zip(result["module"].values, result["module_layer"].values, blocks, strict=True):
            parts = str(module).split(".")
            number = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
            layer_of[module], kind_of[module] = int(layer), f"{block} {'.'.join([*parts[:number], '*', *parts[number + 1 :]])}"
    return layer_of, kind_of


def _size(places: Places, results: Mapping[str, xr.Dataset]) -> Array | None:
    for result in results.values():
        if "n_parameters" in result and result["n_parameters"].dims == ("module",):
            with np.errstate(divide="ignore", invalid="ignore"):
                sizes = np.log(places.table(result["n_parameters"].reset_coords(drop=True).to_series()))
            if not (np.nanmax(sizes, 1, initial=-np.inf) > np.nanmin(sizes, 1, initial=np.inf)).any():
                return None
            known = np.isfinite(sizes)
            return np.where(known, sizes, np.where(known, sizes, 0).sum(1, keepdims=True) / np.maximum(known.sum(1), 1)[:, None])
    return None
