"""What the neurons of an MLP read of each other where their directions are not orthogonal, on real activations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics.intervals import t_interval
from tensorscope_nb.recipes.dataset import Variable
from tensorscope_nb.sweep import Chunk

OVER = ("interference", "power", "sparsity")


def ratios(numerator: np.ndarray, denominator: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Σ a / Σ b over sequences, (sequence, layer) each, with its Student interval by linearised residuals."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = numerator.sum(0) / denominator.sum(0)
        _, low, high = t_interval((numerator - ratio * denominator) / denominator.mean(0))
    return ratio, ratio + low, ratio + high


class ActivationOverlap:
    """By sequence and layer, sums over tokens; by layer and neuron, what a mean and its interval over sequences need."""

    def __init__(self, directions: Sequence[Tensor]) -> None:
        self.needs = tuple(f"layers.{i}.mlp.post" for i in range(len(directions)))
        self.directions = []
        for rows in directions:
            rows = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
            norms = rows.norm(dim=1, keepdim=True)
            self.directions.append(torch.where(norms > 0, rows / norms, 0.0))
        self.sums: dict[str, list[np.ndarray]] = {}
        self.neurons = [torch.zeros(4, len(rows), dtype=torch.float64) for rows in directions]  # Σx, Σx², Σxn, Σ power
        self.counts = np.zeros(3)  # sequences, Σn, Σn²

    def update(self, chunk: Chunk) -> None:
        kept: dict[str, list[Tensor]] = {}
        for i, (site, units) in enumerate(zip(self.needs, self.directions, strict=True)):
            a = chunk.site(site)
            a = a.reshape(len(a), -1, a.shape[-1]).to(units.dtype)
            seen = chunk.samples.seen(a.shape[1]).to(a.device)
            there = units.any(1)
            a = torch.where(seen[..., None], a, 0)
            read = ((a @ units) @ units.T - a).square_() * there
            self._add_neurons(i, read.sum(1, dtype=torch.float64), a.square().sum(1, dtype=torch.float64), seen.sum(1))
            n = int(there.sum())
            by_token = read.sum(-1, dtype=torch.float64) / n
            power = torch.where(there, a, 0).square().sum(-1, dtype=torch.float64) / n
            sparse = sparsity(a)
            first = torch.zeros_like(seen).scatter(1, seen.int().argmax(1, keepdim=True), True)
            values = {
                "interference": by_token, "power": power, "sparsity": sparse.nan_to_num() * seen,
                "active": sparse.isfinite() & seen, "tokens": seen,
            }  # fmt: skip
            for name, value in values.items():
                kept.setdefault(name, []).append(value.sum(1, dtype=torch.float64))
                kept.setdefault(f"first {name}", []).append((value * first).sum(1, dtype=torch.float64))
            kept.setdefault("top", []).append(by_token.amax(1))
        for name, columns in kept.items():
            self.sums.setdefault(name, []).append(torch.stack(columns, 1).cpu().numpy())
        n_tokens = kept["tokens"][0].cpu().numpy()
        self.counts += [len(n_tokens), n_tokens.sum(), (n_tokens**2).sum()]

    def _add_neurons(self, layer: int, x: Tensor, power: Tensor, n: Tensor) -> None:
        """x, power (sequence, neuron): sums over the n tokens of each sequence."""
        rows = [x.sum(0), x.square().sum(0), (x * n[:, None]).sum(0), power.sum(0)]
        self.neurons[layer] += torch.stack(rows).cpu()

    def result(self) -> dict[str, np.ndarray]:
        """{name: (sequence, layer)}"""
        return {name: np.concatenate(parts) for name, parts in self.sums.items()}

    def of_neurons(self, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Mean interference of each neuron, the ends of its interval over sequences, and its mean squared activation."""
        from scipy.stats import t

        x, xx, xn, power = self.neurons[layer].numpy()
        k, n, nn = self.counts
        mean = np.where(self.directions[layer].any(1).cpu().numpy(), x / n, np.nan)
        if k < 2:
            return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan), power / n
        residual = np.maximum(xx - 2 * mean * xn + mean**2 * nn, 0)
        half = t.ppf(0.975, k - 1) * np.sqrt(residual / (k - 1) * k) / n
        return mean, mean - half, mean + half, power / n


def sparsity(a: Tensor) -> Tensor:
    """1 where one neuron of the last axis is active, 0 where all are alike: the index of Treves and Rolls 1991, rescaled to
    0…1 by Vinje and Gallant 2000, of |a|; NaN where none is active."""
    n = a.shape[-1]
    spread = a.abs().double().mean(-1) ** 2 / a.double().square().mean(-1)
    return (1 - spread) / (1 - 1 / n)


def layer_variables(kept: ActivationOverlap, frames_n: Sequence[int], m: int) -> dict[str, Variable]:
    """``[layer]`` interference and sparsity with their intervals, and what of it is one token's."""
    sums, dims = kept.result(), ("layer",)
    without = {name: sums[name] - sums[f"first {name}"] for name in ("interference", "power", "tokens")}
    unit, words = "squared activation", "what a neuron reads of the others"
    variables: dict[str, Variable] = {}

    def add(name: str, found: tuple[np.ndarray, np.ndarray, np.ndarray], long_name: str, unit: str) -> None:
        for role, value, end in zip(("", "_ci_low", "_ci_high"), found, ("", "lower", "upper"), strict=True):
            said = f"{long_name}, {end} end of the 95 % interval" if end else long_name
            variables[name + role] = (dims, value, said, unit)

    add("interference", ratios(sums["interference"], sums["tokens"]), f"{words}, mean square", unit)
    add("interference_ratio", ratios(sums["interference"], sums["power"]), f"{words}, over its own mean square", "")
    variables["interference_ratio_null"] = (
        dims,
        (np.array(frames_n) - 1) / m,
        f"{words}, over its own mean square, of random directions",
        "",
    )
    rest = ratios(without["interference"], without["tokens"])[0]
    variables["interference_without_first"] = (dims, rest, f"{words}, mean square, the first token left out", unit)
    rest = ratios(without["interference"], without["power"])[0]
    variables["interference_ratio_without_first"] = (dims, rest, f"{words}, over its own, the first token left out", "")
    with np.errstate(invalid="ignore"):
        top = sums["top"].max(0) / sums["interference"].sum(0)
    variables["top_token_share"] = (dims, top, "share of the token with the most interference", "share of the sum")
    add("sparsity", ratios(sums["sparsity"], sums["active"]), "sparsity of the activations of a token", "")
    return variables
