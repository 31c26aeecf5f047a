"""Ablation: what the loss loses without a part of the model. The causal check of any claim about that part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from tensorscope_nb.numerics import t_interval
from tensorscope_nb.recipes.dataset import dataset, sample_coords
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import chunks
from tensorscope_nb.settings import current
from tensorscope_nb.sweep import Chunk, bar, sweep

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from tensorscope_nb.scope import Scope
    from tensorscope_nb.scope.record import Edit

Units = Literal["head", "mlp", "layer", "neuron"]
SITES: dict[str, tuple[str, ...]] = {
    "head": ("attn.z",),
    "mlp": ("mlp.out",),
    "layer": ("attn.out", "mlp.out"),
    "neuron": ("mlp.post",),
}


class Means:
    """The mean of each site over all tokens of all samples."""

    def __init__(self, needs: tuple[str, ...]) -> None:
        self.needs = needs
        self.totals: dict[str, Tensor] = {}
        self.n_tokens: dict[str, int] = {}

    def update(self, chunk: Chunk) -> None:
        for site in self.needs:
            value = chunk.site(site)
            seen = chunk.samples.seen(value.shape[1])
            self.n_tokens[site] = self.n_tokens.get(site, 0) + int(seen.sum())
            total = value[seen.to(value.device)].double().sum(0)
            self.totals[site] = self.totals.get(site, torch.zeros_like(total)) + total

    def result(self) -> dict[str, Tensor]:
        return {site: total / self.n_tokens[site] for site, total in self.totals.items()}


@recipe(question="What does the model lose without this part?", source="Wang et al. 2022, arXiv:2211.00593", needs=("losses",))
def ablation(
    scope: Scope,
    samples: Any,
    *,
    units: Units = "head",
    method: Literal["mean", "resample", "zero"] = "mean",
    per_sample: bool = False,
    seed: int | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """The increase of the loss when one head, MLP, neuron or layer is replaced by something that carries no information.

    What it answers: what depends on each unit, on these samples.
    Equation: Δ_u = mean_i [ℓ_i(model with u replaced) − ℓ_i(model)], ℓ_i the mean loss of sample i in nats per predicted
    token. What takes the place of a head's z (of an MLP's output, a neuron's activation, a layer's two outputs) is, by
    ``method``: ``"mean"``, its mean over all tokens of all samples, the first position included; ``"resample"``, what it is
    at the same position of another sample (the mean where that sample is shorter); ``"zero"``, zero, which is further from
    anything that the model has seen. Source: Wang et al. 2022 (mean ablation, there per position of a template); Chan et
    al. 2022, causal scrubbing (resampling).

    Result: ``loss_increase, ci_low, ci_high`` (nats per token; 95 % Student interval over samples of the paired
    differences) on ``[layer, head]``, ``[layer]`` or ``[layer, neuron]``; scalar ``loss``; with ``per_sample`` also
    ``loss_increase_by_sample`` with a leading ``sample``, and ``[sample] loss_by_sample``.
    Errors: ValueError for an unknown method or unit, or resampling with one sample; LookupError where the model lacks the
    site. Cost: one forward of all samples per unit (a "neuron" run makes layers × d_mlp of them).
    How to read it: a large increase says that the model relies on the unit here. When not to trust it: a small one does
    not say that it does not; redundant units stand in for each other.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> effect = ts.recipes.ablation(scope, ts.datasets.repeats(scope, n=4))
    >>> bool(effect["loss_increase"].sel(layer=0, head=0) > 1)       # the previous-token head
    True
    """
    if units not in SITES:
        raise ValueError(f"units is {units!r}: choose among {', '.join(SITES)}")
    if method not in ("mean", "resample", "zero"):
        raise ValueError(f"method is {method!r}: choose 'mean', 'resample' or 'zero'")
    if units == "head":
        scope.anatomy.require_heads()
    samples = scope.samples(samples)
    if method == "resample" and len(samples) < 2:
        raise ValueError("method is 'resample' and there is 1 sample: resampling takes values from another one, give at least 2")
    seed = current().seed if seed is None else seed
    targets = list(_targets(scope, units))
    sites = tuple(dict.fromkeys(site for _, places in targets for site in places))
    means = Means(sites)
    sweep(scope, samples, [means], chunk=chunk, label="means", progress=progress)
    donors = _donors(len(samples), seed)
    stand_ins = means.result()
    parts = list(chunks(samples, scope.anatomy, chunk))
    own, differences, start = [], [], 0
    with bar(len(parts) * len(targets), f"ablation of {units}s", progress) as done:
        for part in parts:
            baseline = scope.losses(part, chunk=len(part))
            given = _stand_ins(scope, part, samples, donors[start : start + len(part)], sites, stand_ins, method)
            edited = []
            for _, places in targets:
                edited.append(scope.losses(part, edits=_edits(places, given), chunk=len(part)))
                done.update()
            own.append(baseline.double().cpu())
            differences.append((torch.stack(edited, 1).double() - baseline[:, None].double()).cpu())
            start += len(part)
    increase = torch.cat(differences).numpy().reshape(len(samples), scope.anatomy.n_layers, -1)
    losses = torch.cat(own).numpy()
    dims = ("layer",) if units in ("mlp", "layer") else ("layer", units)
    increase = increase.reshape(increase.shape[: 1 + len(dims)])
    mean, low, high = t_interval(increase)
    unit, what = "nats per token", f"loss without the {units} ({method} ablation)"
    variables = {
        "loss_increase": (dims, mean, f"increase of the {what}", unit),
        "ci_low": (dims, low, f"increase of the {what}, lower end of the 95 % interval", unit),
        "ci_high": (dims, high, f"increase of the {what}, upper end of the 95 % interval", unit),
        "loss": ((), losses.mean(), "loss of the whole model, mean over samples", unit),
    }
    coords: dict[str, Any] = {}
    if per_sample:
        variables["loss_increase_by_sample"] = (("sample", *dims), increase, f"increase of the {what}", unit)
        variables["loss_by_sample"] = (("sample",), losses, "loss of the whole model", unit)
        coords = sample_coords(samples)
    result = dataset(variables, coords, seed=seed, n_used=len(samples), n_available=len(samples))
    result["loss_increase"].attrs["interval"] = f"95 % Student interval over {len(samples)} samples"
    return result


def _targets(scope: Scope, units: str) -> Iterator[tuple[tuple[int, int], dict[str, int | None]]]:
    """Each unit, and the sites to replace for it: the whole site, or one index of it."""
    anatomy = scope.anatomy
    width = {"head": anatomy.n_heads, "neuron": anatomy.d_mlp}.get(units, 1)
    for layer in range(anatomy.n_layers):
        for index in range(width):
            places = {f"layers.{layer}.{site}": index if units in ("head", "neuron") else None for site in SITES[units]}
            yield (layer, index), places


def _donors(n: int, seed: int) -> list[int]:
    """For each sample another one: along a random cycle, so that none is its own."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return [following[i] for i in range(n)]


def _stand_ins(
    scope: Scope,
    part: Samples,
    samples: Samples,
    donors: list[int],
    sites: tuple[str, ...],
    means: Mapping[str, Tensor],
    method: str,
) -> dict[str, Tensor]:
    """What takes the place of each site on this part, with the shape of the site or one that broadcasts to it."""
    if method == "zero":
        return {site: torch.zeros_like(mean) for site, mean in means.items()}
    if method == "mean":
        return dict(means)
    given = samples[donors]
    rows = torch.arange(len(part))[:, None]
    found = {}
    for site, value in scope.record(given, list(sites), chunk=len(part)).items():
        columns, known = _same_position(part.seen(value.shape[1]), given.seen(value.shape[1]))
        aligned = value[rows.to(value.device), columns.to(value.device)]
        seen = known.to(value.device).reshape(*known.shape, *[1] * (value.ndim - 2))
        found[site] = torch.where(seen, aligned, means[site].to(value.dtype))
    return found


def _same_position(part: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """For each position of ``part`` the column of ``given`` that is as far from its start, and if there is one; both (n, T)."""
    place = part.cumsum(1) - 1
    start = given.int().argmax(1, keepdim=True)
    known = (place >= 0) & (place < given.sum(1, keepdim=True))
    return (place + start).clamp(0, given.shape[1] - 1), known


def _edits(places: Mapping[str, int | None], stand_ins: Mapping[str, Tensor]) -> dict[str, Edit]:
    return {site: _replacing(index, stand_ins[site]) for site, index in places.items()}


def _replacing(index: int | None, stand_in: Tensor) -> Edit:
    """Heads are the third axis of z (batch, position, head, d_head), neurons the third of mlp.post: one rule for both."""

    def edit(value: Tensor) -> Tensor:
        new = stand_in.to(value.dtype).expand_as(value)
        if index is None:
            return new.clone()
        value[:, :, index] = new[:, :, index]
        return value

    return edit
