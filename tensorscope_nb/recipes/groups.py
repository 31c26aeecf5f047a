"""Groups of weights: how the squared gradients of a parameter fall on modules, layers, heads or channels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from tensorscope_nb.recipes.modules import layer_of, module_coords, output_axis

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope
    from tensorscope_nb.sweep.measure import Found, Want
    from tensorscope_nb.sweep.parameters import Parameter

Table = tuple[tuple[str, ...], np.ndarray, np.ndarray, dict[str, Any]]  # dimensions, (n, …) masses, sizes, coordinates
Values = Mapping[Any, Tensor]
AXES = ("rows", "columns")


class ByModule:
    """Squares, or another thing that adds up over weights."""

    def __init__(self, scope: Scope, want: Want = "total") -> None:
        self.scope = scope
        self.want = want

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return (self.want,)

    def of(self, parameter: Parameter, found: Found) -> dict[Any, Tensor]:
        return {parameter.module: found[self.want]}

    def table(self, values: Values, parameters: Sequence[Parameter]) -> Table:
        names = modules_of(parameters, values)
        sizes = [sum(p.tensor.nelement() for p in parameters if p.module == name) for name in names]
        return ("module",), _stack(values, names), np.array(sizes), module_coords(self.scope, names)


class ByLayer:
    """The layers alone: embeddings and unembedding stand in no layer."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return ("total",) if layer_of(self.scope, parameter.module) >= 0 else ()

    def of(self, parameter: Parameter, found: Found) -> dict[Any, Tensor]:
        layer = layer_of(self.scope, parameter.module)
        return {layer: found["total"]} if layer >= 0 else {}

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

    def wants(self, parameter: Parameter) -> Collection[Want]:
        return {AXES[axis] for _, axis, _, _ in self.places.get(parameter.name, ())}

    def of(self, parameter: Parameter, found: Found) -> dict[Any, Tensor]:
        places = self.places.get(parameter.name, ())
        return {key: found[AXES[axis]][:, start:stop].sum(1) for key, axis, start, stop in places}

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

    def _channels(self, module: str) -> int:
        """Those of the weight, or else of the first parameter."""
        held = {name: p for name, p in self.scope.model.get_submodule(module)._parameters.items() if p is not None}
        first = held.get("weight", next(iter(held.values())))
        return first.shape[output_axis(self.scope, module, first)] if first.ndim else 0

    def _has(self, parameter: Parameter, channels: int) -> bool:
        """A parameter of another length has no channels of its module."""
        tensor = parameter.tensor
        return tensor.ndim > 0 and tensor.shape[output_axis(self.scope, parameter.module, tensor)] == channels

    def wants(self, parameter: Parameter) -> tuple[Want, ...]:
        has = self._has(parameter, self._channels(parameter.module))
        return (AXES[output_axis(self.scope, parameter.module, parameter.tensor)],) if has else ()

    def of(self, parameter: Parameter, found: Found) -> dict[Any, Tensor]:
        wanted = self.wants(parameter)
        return {parameter.module: found[wanted[0]]} if wanted else {}

    def table(self, values: Values, parameters: Sequence[Parameter]) -> Table:
        names = modules_of(parameters, values)
        width = max(value.shape[1] for value in values.values())
        n = len(next(iter(values.values())))
        masses, sizes = np.full((n, len(names), width), np.nan), np.zeros((len(names), width), dtype=int)
        for i, name in enumerate(names):
            channels = values[name].shape[1]
            masses[:, i, :channels] = values[name].numpy()
            weights = sum(p.tensor.nelement() for p in parameters if p.module == name and self._has(p, channels))
            sizes[i, :channels] = weights // channels
        return ("module", "channel"), masses, sizes, module_coords(self.scope, names)


def modules_of(parameters: Sequence[Parameter], among: Collection[Any]) -> list[str]:
    """The modules of the parameters in the order of the model, of those that something is known of."""
    return [module for module in dict.fromkeys(p.module for p in parameters) if module in among]


def _stack(values: Values, keys: Sequence[Any]) -> np.ndarray:
    return np.stack([values[key].numpy() for key in keys], 1)
