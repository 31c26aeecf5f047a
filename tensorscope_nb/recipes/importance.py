"""Importance of every single weight, as a mapping from parameter to tensor, and what to make of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.recipes.dataset import dataset
from tensorscope_nb.recipes.modules import module_coords
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.sweep.gradients import Reduction, gradient_sweep
from tensorscope_nb.sweep.reducers import Diagonal, Sums

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope

Variant = Literal["first_order", "absolute", "squared"]


class Importance(Mapping[str, Tensor]):
    """{parameter name: importance of each weight, with the parameter's shape}, and how it was found."""

    def __init__(self, scope: Scope, values: dict[str, Tensor], kind: str, metadata: dict[str, Any] | None = None) -> None:
        self._scope = scope
        self._values = values
        self.kind = kind
        self.metadata = {"kind": kind, "model": scope.name, **(metadata or {})}

    def __getitem__(self, parameter: str) -> Tensor:
        if parameter not in self._values:
            raise KeyError(f"{parameter!r} has no importance here: there are {', '.join(list(self._values)[:4])} …")
        return self._values[parameter]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def summary(self) -> xr.Dataset:
        """``[module] total, mean, largest, n_parameters`` over the weights of each module."""
        modules: dict[str, list[Tensor]] = {}
        for name, value in self.items():
            modules.setdefault(name.rpartition(".")[0], []).append(value.flatten())
        flat = {name: torch.cat(parts).double() for name, parts in modules.items()}
        dims, words = ("module",), f"{self.kind} importance"
        return dataset(
            {
                "total": (dims, [float(v.sum()) for v in flat.values()], f"{words}, summed", ""),
                "mean": (dims, [float(v.mean()) for v in flat.values()], f"{words}, mean over weights", ""),
                "largest": (dims, [float(v.max()) for v in flat.values()], f"{words}, largest", ""),
                "n_parameters": (dims, [len(v) for v in flat.values()], "weights", "weights"),
            },
            module_coords(self._scope, list(flat)),
            **self.metadata,
        )

    def mask(self, top_fraction: float) -> dict[str, Tensor]:
        """True at the most important weights: exactly round(top_fraction · N) of them over all parameters, ties by order."""
        if not 0 < top_fraction <= 1:
            raise ValueError(f"top_fraction is {top_fraction}: give a share of the weights above 0 and at most 1")
        flat = torch.cat([value.flatten().float() for value in self.values()])
        kept = torch.zeros(len(flat), dtype=torch.bool)
        kept[torch.argsort(flat, descending=True, stable=True)[: round(top_fraction * len(flat))]] = True
        pieces = kept.split([value.nelement() for value in self.values()])
        return {name: piece.reshape(value.shape) for (name, value), piece in zip(self.items(), pieces, strict=True)}

    def save(self, path: str | Path) -> Path:
        """Writes the tensors and how they were found to a safetensors file."""
        from safetensors.torch import save_file

        path = Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {str(path.parent)!r}: make it first")
        save_file({k: v.contiguous() for k, v in self.items()}, path, metadata={"tensorscope": json.dumps(self.metadata)})
        return path

    def __repr__(self) -> str:
        return f"Importance({self.kind}: {sum(v.nelement() for v in self.values()):,} weights in {len(self)} parameters)"


def fisher_importance(
    scope: Scope,
    samples: Any,
    *,
    saliency: bool = False,
    reduction: Reduction = "mean",
    modules: str | list[str] | None = None,
    chunk: int | None = None,
) -> Importance:
    """The diagonal of the empirical Fisher, E_i[g_ik²] over samples; with ``saliency`` ½ F_kk w_k² (LeCun et al. 1990).

    Squares are taken per sample and then averaged: the square of a batch's gradient is another thing, and depends on how the
    data is cut. ``reduction`` as in ``grouped_fisher``.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> importance = ts.recipes.fisher_importance(scope, ts.datasets.shakespeare(scope, n=4))
    >>> sum(int(m.sum()) for m in importance.mask(0.1).values())
    21120
    """
    samples = scope.samples(samples)
    diagonal = Diagonal()
    covered = gradient_sweep(
        scope, samples, [diagonal], reduction=reduction, modules=modules, chunk=chunk, label="diagonal Fisher"
    )
    values = {p.name: (diagonal.totals[p.name] / covered.divisor).cpu() for p in covered.parameters}
    if saliency:
        values = {p.name: 0.5 * values[p.name] * p.tensor.detach().cpu() ** 2 for p in covered.parameters}
    said = {"n_used": len(samples), "reduction": reduction, "by_reference": covered.by_reference}
    return Importance(scope, values, "Fisher saliency" if saliency else "Fisher", said)


def taylor_importance(
    scope: Scope,
    samples: Any,
    *,
    variant: Variant = "first_order",
    modules: str | list[str] | None = None,
    chunk: int | None = None,
) -> Importance:
    """First-order estimates of what removing a weight changes; three different things, by ``variant``.

    ``"first_order"``: |ḡ_k w_k|, the change of the mean loss (Molchanov et al. 2019; grad × weight); ``"absolute"``:
    E_i|g_ik w_k|; ``"squared"``: E_i[(g_ik w_k)²]. The first cancels over samples and the others do not.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> ts.recipes.taylor_importance(scope, ts.datasets.shakespeare(scope, n=4))
    Importance(taylor first_order: 211,200 weights in 28 parameters)
    """
    samples = scope.samples(samples)
    if variant not in ("first_order", "absolute", "squared"):
        raise ValueError(f"variant is {variant!r}: choose 'first_order', 'absolute' or 'squared'")
    power = {"absolute": 1, "squared": 2}.get(variant)
    reducer = Sums() if power is None else Diagonal(lambda g, w: (g * w).abs() ** power)
    covered = gradient_sweep(scope, samples, [reducer], modules=modules, chunk=chunk, label="Taylor importance")
    values = {p.name: (reducer.totals[p.name] / len(samples)).float().cpu() for p in covered.parameters}
    if power is None:
        values = {p.name: (values[p.name] * p.tensor.detach().cpu()).abs() for p in covered.parameters}
    return Importance(scope, values, f"taylor {variant}", {"n_used": len(samples), "by_reference": covered.by_reference})


def magnitude_importance(scope: Scope, samples: Any = None, *, modules: str | list[str] | None = None) -> Importance:
    """|w_k|. Takes no samples; the argument stands there so that the four are called alike.

    >>> import tensorscope_nb as ts
    >>> ts.recipes.magnitude_importance(ts.load("tiny"))
    Importance(magnitude: 211,200 weights in 28 parameters)
    """
    return Importance(scope, {n: p.detach().abs().cpu() for n, p in chosen_parameters(scope, modules).items()}, "magnitude")


def hybrid_importance(
    scope: Scope,
    samples: Any,
    *,
    weights: Mapping[str, float] | None = None,
    modules: str | list[str] | None = None,
    chunk: int | None = None,
) -> Importance:
    """A weighted mean of importances after each is replaced by its rank over all weights (0 to 1), so that scales cannot rule.

    ``weights`` are of ``magnitude``, ``fisher`` and ``taylor`` (default .3 magnitude, .7 Fisher).

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> hybrid = ts.recipes.hybrid_importance(scope, ts.datasets.shakespeare(scope, n=4))
    >>> bool(max(float(v.max()) for v in hybrid.values()) <= 1)
    True
    """
    given = {"magnitude": 0.3, "fisher": 0.7} if weights is None else dict(weights)
    makers = {
        "magnitude": lambda: magnitude_importance(scope, modules=modules),
        "fisher": lambda: fisher_importance(scope, samples, modules=modules, chunk=chunk),
        "taylor": lambda: taylor_importance(scope, samples, modules=modules, chunk=chunk),
    }
    if unknown := given.keys() - makers.keys():
        raise ValueError(f"weights names {', '.join(sorted(unknown))}: choose among {', '.join(makers)}")
    if not given or not all(0 <= value < math.inf for value in given.values()) or not sum(given.values()):
        raise ValueError(f"weights is {given}: give non-negative numbers, at least one above 0")
    ranks = {name: _ranks(makers[name]()) for name in given}
    total = sum(given.values())
    first = next(iter(ranks.values()))
    mixed = {p: sum(given[name] / total * ranks[name][p] for name in given) for p in first}
    return Importance(scope, mixed, "hybrid", {"weights": given})  # type: ignore[arg-type]


def _ranks(importance: Importance) -> dict[str, Tensor]:
    """Ranks over all weights together, scaled to 0 … 1; equal values share their mean rank."""
    from scipy.stats import rankdata

    flat = torch.cat([value.flatten().float() for value in importance.values()]).numpy()
    ranks = (rankdata(flat) - 1) / max(1, len(flat) - 1)
    pieces = np.split(ranks, np.cumsum([value.nelement() for value in importance.values()])[:-1])
    return {
        name: torch.as_tensor(piece, dtype=torch.float32).reshape(value.shape)
        for (name, value), piece in zip(importance.items(), pieces, strict=True)
    }
