"""What stands at the layers while gradients pass: the backward signal of each layer, and which of its units ever act."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.recipes.dataset import Variable
from tensorscope_nb.sweep.reducers import Reducer

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Anatomy
    from tensorscope_nb.sweep.capture import Chunk

UNIT = "loss per unit"


class LayerSignals(Reducer):
    """Of each layer: squares of the gradient at its output, by sample, and the largest that each of its units reaches."""

    def __init__(self, anatomy: Anatomy) -> None:
        n = anatomy.n_layers
        self.blocks = anatomy.table is not None  # a transformer's units are those of its MLPs
        self.outputs = [f"layers.{i}.{'resid_post' if self.blocks else 'out'}" for i in range(n)]
        self.acting = [f"layers.{i}.{'mlp.post' if self.blocks else 'out'}" for i in range(n)]
        self.channels_first = [isinstance(layer, torch.nn.modules.conv._ConvNd) for layer in anatomy.layers]
        self.needs = list(dict.fromkeys(self.outputs + self.acting))
        super().__init__()

    def begin(self, n: int) -> None:
        super().begin(n)
        n_layers = len(self.outputs)
        self.squares, self.counts = np.zeros((n, n_layers)), np.zeros((n, n_layers))
        self.power, self.n_seen = np.zeros(n_layers), np.zeros(n_layers)
        self.peaks: list[np.ndarray] = [np.zeros(0)] * n_layers

    def see(self, chunk: Chunk, start: int) -> None:
        rows = slice(start, start + len(chunk.samples))
        for i, (output, units) in enumerate(zip(self.outputs, self.acting, strict=True)):
            delta, seen = at_places(chunk.gradient(output), chunk.samples, self.channels_first[i])
            self.squares[rows, i] = ((delta**2).sum(2) * seen).sum(1).cpu().numpy()
            self.counts[rows, i] = seen.sum(1).cpu().numpy() * delta.shape[2]
            acting, seen = at_places(chunk.site(units), chunk.samples, self.channels_first[i]) if self.blocks else (delta, seen)
            size = torch.where(seen[..., None], acting.abs(), 0)
            self._reach(i, size.amax((0, 1)).cpu().numpy())
            self.power[i] += float((size**2).sum())
            self.n_seen[i] += float(seen.sum()) * size.shape[2]

    def merge(self, other: Self, start: int) -> None:
        rows = slice(start, start + other.n)
        self.squares[rows], self.counts[rows] = other.squares, other.counts
        self.power, self.n_seen = self.power + other.power, self.n_seen + other.n_seen
        for i, peak in enumerate(other.peaks):
            self._reach(i, peak)

    def _reach(self, i: int, peak: np.ndarray) -> None:
        self.peaks[i] = np.maximum(self.peaks[i], peak) if self.peaks[i].size else peak

    def rms(self, n: int) -> np.ndarray:
        """The root mean square of the gradient at each layer's output over the first n samples."""
        return np.sqrt(self.squares[:n].sum(0) / self.counts[:n].sum(0))

    def slope(self, n: int) -> float:
        """The least-squares slope of its logarithm against the layer."""
        rms = self.rms(n) if self.outputs else np.zeros(0)
        positive = rms > 0
        return float(np.polyfit(np.flatnonzero(positive), np.log(rms[positive]), 1)[0]) if positive.sum() > 1 else float("nan")

    def variables(self, n: int, tolerance: float, per_sample: bool) -> dict[str, Variable]:
        """Those on ``[layer]`` and ``[layer, neuron]``."""
        if not self.outputs:
            return {}
        widths = [len(peak) for peak in self.peaks]
        dead = np.full((len(widths), max(widths)), np.nan)
        for i, peak in enumerate(self.peaks):
            dead[i, : len(peak)] = peak <= tolerance * np.sqrt(self.power[i] / self.n_seen[i])
        n_dead = np.nansum(dead, 1)
        kind = "|activation| at every token" if self.blocks else "gradient of the output at every sample"
        dims, words = ("layer",), "root mean square of the gradient at the layer's output"
        found: dict[str, Variable] = {
            "backward_rms": (dims, self.rms(n), words, UNIT),
            "n_neurons": (dims, widths, "units", "units"),
            "n_dead": (dims, n_dead, f"dead units, by {kind}", "units"),
            "dead_fraction": (dims, n_dead / widths, f"share of dead units, by {kind}", ""),
            "dead": (("layer", "neuron"), dead, f"dead, by {kind}", ""),
        }
        if per_sample:
            by_sample = np.sqrt(self.squares[:n] / self.counts[:n])
            found["backward_rms_by_sample"] = (("sample", "layer"), by_sample, f"{words}, of the sample", UNIT)
        return found


def at_places(value: Tensor, part: Samples, channels_first: bool) -> tuple[Tensor, Any]:
    """(sample, place, unit) and which places hold something; of a convolution every place, its channels as units."""
    value = value.double()
    if value.ndim < 3:
        value = value.reshape(len(value), 1, -1)
    value = (value.movedim(1, -1) if channels_first else value).flatten(1, -2)
    seen = part.seen(value.shape[1]) if part.has_tokens else torch.ones(value.shape[:2], dtype=torch.bool)
    return value, seen.to(value.device)
