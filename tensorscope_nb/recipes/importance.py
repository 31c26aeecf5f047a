"""Importance of every single weight, as a mapping from parameter to tensor, and what to make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.overlap import largest
from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords
from tensorscope_nb.recipes.modules import module_coords

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope


class Importance(Mapping[str, Tensor]):
    """{parameter name: importance of each weight, with the parameter's shape}, and how it was found."""

    def __init__(
        self,
        scope: Scope,
        values: dict[str, Tensor],
        kind: str,
        metadata: dict[str, Any] | None = None,
        by_sample: tuple[Samples, dict[str, Any]] | None = None,
    ) -> None:
        self._scope = scope
        self._values = values
        self._by_sample = by_sample
        self.kind = kind
        self.attrs = {"tensorscope": json.dumps({"kind": kind, "model": scope.name, **(metadata or {})})}

    @property
    def metadata(self) -> dict[str, Any]:
        """How it was found."""
        return json.loads(self.attrs["tensorscope"])

    def __getitem__(self, parameter: str) -> Tensor:
        if parameter not in self._values:
            raise KeyError(f"{parameter!r} has no importance here: there are {', '.join(list(self._values)[:4])} …")
        return self._values[parameter]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def summary(self) -> xr.Dataset:
        """``[module] total, mean, largest, n_parameters`` over the weights of each module; made with ``per_sample`` also
        ``[sample, module] total_by_sample``, the total that each sample would give alone.
        """
        modules: dict[str, list[Tensor]] = {}
        for name, value in self.items():
            modules.setdefault(name.rpartition(".")[0], []).append(value.flatten())
        flat = {name: torch.cat(parts).double() for name, parts in modules.items()}
        dims, words = ("module",), f"{self.kind} importance"
        coords = module_coords(self._scope, list(flat))
        variables: dict[str, Variable] = {
            "total": (dims, [float(v.sum()) for v in flat.values()], f"{words}, summed", ""),
            "mean": (dims, [float(v.mean()) for v in flat.values()], f"{words}, mean over weights", ""),
            "largest": (dims, [float(v.max()) for v in flat.values()], f"{words}, largest", ""),
            "n_parameters": (dims, [len(v) for v in flat.values()], "weights", "weights"),
        }
        if self._by_sample is not None:
            samples, totals = self._by_sample
            by_sample = np.stack([np.asarray(totals[name]) for name in flat], 1)
            variables["total_by_sample"] = (("sample", *dims), by_sample, f"{words} of the sample alone, summed", "")
            coords |= sample_coords(samples)
        summary = dataset(variables, coords)
        summary.attrs = dict(self.attrs)
        return summary

    def mask(self, top_fraction: float) -> dict[str, Tensor]:
        """True at the most important weights: exactly round(top_fraction · N) of them over all parameters, ties by order."""
        if not 0 < top_fraction <= 1:
            raise ValueError(f"top_fraction is {top_fraction}: give a share of the weights above 0 and at most 1")
        pieces = largest([value.float() for value in self.values()], top_fraction)
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
