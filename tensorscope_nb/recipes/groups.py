"""Groups of weights: how the squared gradients of a tile fall on modules, layers, heads or channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.recipes.modules import layer_of, module_coords
from tensorscope_nb.sweep.reducers import squares

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope
    from tensorscope_nb.sweep.factors import Parameter

Table = tuple[tuple[str, ...], np.ndarray, np.ndarray, dict[str, Any]]  # dimensions, (n, …) masses, sizes, coordinates
Values = Mapping[Any, Tensor]


class ByModule:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def of(self, parameter: Parameter, rows: slice, gradients: Tensor) -> dict[Any, Tensor]:
        return {parameter.module: squares(gradients)}

    def table(self, values: Values, parameters: Sequence[Parameter]) -> Table:
        names = list(values)
        sizes = [sum(p.tensor.nelement() for p in parameters if p.module == name) for name in names]
        return ("module",), _stack(values, names), np.array(sizes), module_coords(self.scope, names)


class ByLayer:
    """The layers alone: embeddings and unembedding stand in no layer."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def of(self, parameter: Parameter, rows: slice, gradients: Tensor) -> dict[Any, Tensor]:
        layer = layer_of(self.scope, parameter.module)
        return {layer: squares(gradients)} if layer >= 0 else {}

    def table(self, values: Values, parameters: Sequence[Parameter]) -> Table:
        layers = sorted(values)
        sizes = [sum(p.tensor.nelement() for p in parameters if layer_of(self.scope, p.module) == layer) for layer in layers]
        return ("layer",), _stack(values, layers), np.array(sizes), {"layer": layers}


class ByHead:
    """The slices of Q, K, V (weights and biases) and O (weights) that belong to each head."""

    blocks = ("Q", "K", "V", "O")

    def __init__(self, scope: Scope) -> None:
        self.anatomy = scope.anatomy
        self.group = self.anatomy.n_heads // self.anatomy.n_kv_heads
        self.places: dict[str, list[tuple[tuple[int, int, str], int, int, int]]] = {}
        for layer in range(self.anatomy.n_layers):
            for block in self.blocks:
                for head in range(self.anatomy.n_heads):
                    piece = self.anatomy.slice(layer, block, head)
                    place = ((layer, head, block), piece.axis, piece.start, piece.stop)
                    self.places.setdefault(piece.parameter, []).append(place)
                    if block != "O":  # a bias lies along the outputs, whichever axis those are in the weight
                        bias = f"{piece.parameter.removesuffix('weight')}bias"
                        self.places.setdefault(bias, []).append(((layer, head, block), 0, piece.start, piece.stop))
        self.sizes: dict[tuple[int, int, str], int] = {}

    def of(self, parameter: Parameter, rows: slice, gradients: Tensor) -> dict[Any, Tensor]:
        found: dict[Any, Tensor] = {}
        for key, axis, start, stop in self.places.get(parameter.name, ()):
            if axis == 0:
                a, b = max(start, rows.start), min(stop, rows.stop)
                if a >= b:
                    continue
                part = gradients[:, a - rows.start : b - rows.start]
            else:
                part = gradients[:, :, start:stop]
            found[key] = squares(part)
        return found

    def table(self, values: Values, parameters: Sequence[Parameter]) -> Table:
        shape = (self.anatomy.n_layers, self.anatomy.n_heads, len(self.blocks))
        n = len(next(iter(values.values())))
        masses, sizes = np.full((n, *shape), np.nan), np.zeros(shape, dtype=int)
        shapes = {p.name: p.tensor.shape for p in parameters}
        for name, places in self.places.items():
            for (layer, head, block), axis, start, stop in places:
                if name in shapes:
                    others = int(np.prod(shapes[name])) // shapes[name][axis]
                    sizes[layer, head, self.blocks.index(block)] += (stop - start) * others
        for (layer, head, block), q in values.items():
            masses[:, layer, head, self.blocks.index(block)] = q.numpy()
        return ("layer", "head", "block"), masses, sizes, {"block": list(self.blocks)}

    def sharing(self) -> list[int]:
        return [self.group if block in ("K", "V") else 1 for block in self.blocks]


class ByChannel:
    """The outputs of a projection, the rows of an embedding, the features of a norm."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def _axis(self, parameter: Parameter) -> int:
        module = self.scope.model.get_submodule(parameter.module)
        return 1 if type(module).__name__ == "Conv1D" and parameter.tensor.ndim == 2 else 0

    def _channels(self, module: str) -> int:
        """Those of the weight; a parameter of another length has no channels of this module."""
        held = self.scope.model.get_submodule(module)._parameters
        first = next((p for name, p in held.items() if name == "weight" and p is not None), None)
        first = next(p for p in held.values() if p is not None) if first is None else first
        axis = 1 if type(self.scope.model.get_submodule(module)).__name__ == "Conv1D" and first.ndim == 2 else 0
        return first.shape[axis] if first.ndim else 0

    def of(self, parameter: Parameter, rows: slice, gradients: Tensor) -> dict[Any, Tensor]:
        axis = self._axis(parameter)
        if not parameter.tensor.ndim or parameter.tensor.shape[axis] != self._channels(parameter.module):
            return {}
        by_channel = torch.zeros(len(gradients), parameter.tensor.shape[axis], dtype=torch.float64)
        if axis == 1:
            by_channel += (gradients**2).sum(1).cpu()
        else:
            by_channel[:, rows] = (
                (gradients**2).flatten(2).sum(-1).double().cpu() if gradients.ndim > 2 else (gradients**2).double().cpu()
            )
        return {parameter.module: by_channel}

    def table(self, values: Values, parameters: Sequence[Parameter]) -> Table:
        names = list(values)
        width = max(value.shape[1] for value in values.values())
        n = len(next(iter(values.values())))
        masses, sizes = np.full((n, len(names), width), np.nan), np.zeros((len(names), width), dtype=int)
        for i, name in enumerate(names):
            channels = values[name].shape[1]
            masses[:, i, :channels] = values[name].numpy()
            own = [p for p in parameters if p.module == name and p.tensor.ndim and p.tensor.shape[self._axis(p)] == channels]
            weights = sum(p.tensor.nelement() for p in own)
            sizes[i, :channels] = weights // channels
        return ("module", "channel"), masses, sizes, module_coords(self.scope, names)


def _stack(values: Values, keys: Sequence[Any]) -> np.ndarray:
    return np.stack([values[key].numpy() for key in keys], 1)
