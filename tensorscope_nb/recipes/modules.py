"""Modules: the coordinates of their dimension, each one's layer and kind of block, and what of them can be pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tensorscope_nb.scope import Scope


def layer_of(scope: Scope, module: str) -> int:
    """The layer that a module stands in, −1 outside the layers."""
    return next((i for i, name in enumerate(scope.anatomy.names) if module == name or module.startswith(f"{name}.")), -1)


def by_layer(scope: Scope, of_modules: Mapping[str, Any]) -> dict[int, Any]:
    """What adds up over modules, summed over those of each layer, in the order of the layers."""
    found: dict[int, Any] = {}
    for module, value in of_modules.items():
        if (layer := layer_of(scope, module)) >= 0:
            found[layer] = found[layer] + value if layer in found else value
    return dict(sorted(found.items()))


def block_of(scope: Scope, module: str) -> str:
    """Q K V O QKV mlp_in mlp_gate mlp_out norm embed unembed other."""
    anatomy = scope.anatomy
    kind = type(scope.model.get_submodule(module)).__name__.lower()
    if "embedding" in kind:
        return "embed"
    if module and module == anatomy.unembed:
        return "unembed"
    inside = module.removeprefix(f"{anatomy.names[layer]}.") if (layer := layer_of(scope, module)) >= 0 else ""
    for block, path in anatomy.blocks.items():
        if inside == path:
            return block
    return "norm" if "norm" in kind else "other"


def output_axis(scope: Scope, module: str, tensor: Tensor) -> int:
    """Where the outputs of a parameter lie: a Conv1D holds its weight transposed."""
    return 1 if type(scope.model.get_submodule(module)).__name__ == "Conv1D" and tensor.ndim == 2 else 0


def module_coords(scope: Scope, modules: Sequence[str]) -> dict[str, Any]:
    """Never ``layer`` itself, which a ``[layer]`` variable of the same result would silently replace."""
    return {
        "module": np.array(modules, dtype=object),
        "module_layer": ("module", np.array([layer_of(scope, m) for m in modules])),
        "module_block": ("module", np.array([block_of(scope, m) for m in modules], dtype=object)),
    }


def modules_of_layer(scope: Scope, layer: int) -> list[str]:
    """Globs of the modules that stand in a layer."""
    names = scope.anatomy.names
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or not 0 <= layer < len(names):
        raise ValueError(
            f'layer is {layer!r}: {scope.name} has the layers 0 to {len(names) - 1}, and "each" takes them one by one'
        )
    own = [path for path, _ in scope.model.named_modules() if layer_of(scope, path) == layer]
    return [path.replace("[", "[[]") for path in own]


def shares_by_module(counted: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """What was counted of the weights of each parameter, as a share of all weights of its module."""
    counts: dict[str, Any] = {}
    size: dict[str, int] = {}
    for name, count in counted.items():
        module = name.rpartition(".")[0]
        counts[module] = counts.get(module, 0) + count
        size[module] = size.get(module, 0) + sizes[name]
    return {module: counts[module] / size[module] for module in counts}


def matrices(chosen: Mapping[str, nn.Parameter], modules: Any) -> dict[str, nn.Parameter]:
    """Of the parameters that ``modules=`` has chosen those of two and more dimensions, which can be pruned."""
    found = {name: p for name, p in chosen.items() if p.ndim >= 2}
    if not found:
        raise LookupError(f"modules={modules!r} leaves biases and norms only: choose modules with matrices, which can be pruned")
    return found
