"""The weights that are changed: those of a list, and beside them others of the same layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tensorscope_nb.numerics.matched import Others
from tensorscope_nb.recipes.disturbance import Disturbance
from tensorscope_nb.recipes.modules import layer_of
from tensorscope_nb.recipes.training import generator
from tensorscope_nb.recipes.weight_list import WeightList
from tensorscope_nb.scope.flat import placed, starts_of

if TYPE_CHECKING:
    from torch import nn

    from tensorscope_nb.scope import Scope


@dataclass(frozen=True)
class Design:
    """What is changed, how, and beside what."""

    top: WeightList  # the chosen weights, with the bottom list
    never: WeightList  # weights that no control may hold: the whole list
    counts: Sequence[int]  # of the first weights, by ratio
    controls: Sequence[str]
    disturbance: Disturbance
    n_seeds: int
    seed: int
    second_order: bool

    @property
    def selections(self) -> list[str]:
        return ["top", *self.controls]

    def varies(self, selection: str) -> bool:
        """Whether each replicate is another one."""
        return selection == "random" or self.disturbance.noisy


def members_of(scope: Scope, design: Design) -> dict[tuple[str, int], WeightList]:
    """The weights of each selection and replicate: at each place of the list one of the same layer."""
    layers = np.array([layer_of(scope, module) for module in design.top.modules])
    found = {("top", i): design.top for i in range(design.n_seeds)}
    if "bottom" in design.controls:
        bottom = _bottom(scope, design, layers)
        found |= {("bottom", i): bottom for i in range(design.n_seeds)}
    if "random" in design.controls:
        found |= {("random", i): each for i, each in enumerate(_random(scope, design))}
    return found


def _bottom(scope: Scope, design: Design, layers: np.ndarray) -> WeightList:
    bottom = design.top.bottom
    assert bottom is not None
    own = np.array([layer_of(scope, module) for module in bottom.modules])
    rows = np.empty(len(layers), dtype=int)
    for layer in dict.fromkeys(layers.tolist()):
        wanted, there = np.flatnonzero(layers == layer), np.flatnonzero(own == layer)
        if len(there) < len(wanted):
            raise ValueError(
                f"the bottom list has {len(there)} weights {_where(layer)}, and {len(wanted)} are chosen there: make a longer "
                'one, or leave "bottom" out of controls='
            )
        rows[wanted] = there[: len(wanted)]
    chosen = bottom.at(rows)
    top = set(zip(design.top.parameters.tolist(), design.top.index.tolist(), strict=True))
    for name, index in zip(chosen.parameters.tolist(), chosen.index.tolist(), strict=True):
        if (name, index) in top:
            raise ValueError(
                f"entry {index} of {name} is in the top and in the bottom list: its layer has too few weights for both, ask for "
                'a shorter list, or leave "bottom" out of controls='
            )
    return chosen


def _random(scope: Scope, design: Design) -> list[WeightList]:
    modules = design.top.modules
    parameters = np.empty((design.n_seeds, len(modules)), dtype=object)
    index = np.empty((design.n_seeds, len(modules)), dtype=np.int64)
    places = np.array([_place(scope, module) for module in modules], dtype=object)
    for place in dict.fromkeys(places.tolist()):
        rows = np.flatnonzero(places == place)
        pool = _Pool(scope, place)
        others = Others(pool.sizes, pool.places(design.never))
        if len(others) < len(rows):
            raise ValueError(
                f"{len(rows)} weights are chosen in {_called(place)}, and {len(others)} others are there to match them: take "
                'fewer weights, or leave "random" out of controls='
            )
        wanted = pool.sizes[pool.places(design.top.at(rows))]
        for i in range(design.n_seeds):
            drawn = others.draw(wanted, generator(design.seed, "random", i, place))
            parameters[i, rows], index[i, rows] = pool.weights(drawn)
    return [WeightList(*each) for each in zip(parameters, index, strict=True)]


def _place(scope: Scope, module: str) -> int | str:
    """Where a weight is matched: in its layer, and outside the layers, where modules have nothing in common, in its module."""
    layer = layer_of(scope, module)
    return layer if layer >= 0 else module


def _called(place: int | str) -> str:
    return f"layer {place}" if isinstance(place, int) else place or "the model"


class _Pool:
    """All weights of a place that can be trained, one after the other."""

    def __init__(self, scope: Scope, place: int | str) -> None:
        own: dict[str, nn.Parameter] = {
            name: p
            for name, p in scope.model.named_parameters()
            if p.requires_grad and p.is_floating_point() and _place(scope, name.rpartition(".")[0]) == place
        }
        wide = (p.detach().abs().reshape(-1).to(torch.promote_types(p.dtype, torch.float32)) for p in own.values())
        self.sizes = torch.cat([each.cpu() for each in wide])
        self._names = np.array(list(own), dtype=object)
        self._starts = starts_of(p.nelement() for p in own.values())

    def places(self, weights: WeightList) -> torch.Tensor:
        """Where weights stand, of those that are in the layer."""
        start = dict(zip(self._names, self._starts.tolist(), strict=True))
        there = zip(weights.parameters.tolist(), weights.index.tolist(), strict=True)
        return torch.tensor([start[name] + i for name, i in there if name in start], dtype=torch.long)

    def weights(self, places: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The parameter and the index in it of what stands at some places."""
        own, index = placed(self._starts, places.numpy())
        return self._names[own], index


def _where(layer: int) -> str:
    return "outside the layers" if layer < 0 else f"in layer {layer}"
