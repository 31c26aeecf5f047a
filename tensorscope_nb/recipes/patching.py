"""Activation patching: what of the difference between two runs goes through one place of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics import ratio_interval, t_interval
from tensorscope_nb.recipes.chosen import chosen
from tensorscope_nb.recipes.contrast import aligned, answer_metric, loss_metric
from tensorscope_nb.recipes.dataset import Variable, dataset, loss_unit, sample_coords, token_variable
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import check_output, chunks, output_of, usual_chunk
from tensorscope_nb.scope.record import Edit, edit_points_of, intercepted
from tensorscope_nb.scope.sites import expand
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.sweep import bar

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope

SITES = {name: name for name in ("resid_pre", "resid_mid", "resid_post", "attn.out", "mlp.out")} | {"z": "attn.z"}
Metric = Callable[[Tensor, Sequence[int]], Tensor]  # of the model's output for these rows of the samples: one number each


class Row(NamedTuple):
    """One patched run: a sample, and the place (a position, or a head) that takes the other run's value."""

    sample: int
    place: int


class Patcher:
    """Runs ``base`` with single values of ``donor`` put in, several at a time."""

    def __init__(self, scope: Scope, base: Samples, donor: Samples, metric: Metric, by_head: bool, positions: list[int]) -> None:
        self.scope, self.base, self.donor, self.metric = scope, base, donor, metric
        self.by_head, self.positions = by_head, positions

    def run(self, samples: Samples, rows: Sequence[int], sites: Sequence[str], edits: dict[str, Edit]) -> tuple[Tensor, dict]:
        """The metric of each row, and what stood at the sites."""
        model, anatomy = self.scope.model, self.scope.anatomy
        part = samples.repeated(rows, [f"{samples.ids[i]} run {k}" for k, i in enumerate(rows)])
        points = expand(sites, anatomy, model) if sites else {}
        with (
            preserved(model),
            torch.no_grad(),
            intercepted(model, anatomy, points, edit_points_of(edits, anatomy, model)) as bases,
        ):
            output = output_of(model, part, anatomy)
        check_output(output, part, model)
        return self.metric(output, rows).double().cpu(), {site: point.seen(bases[site]) for site, point in points.items()}

    def patched(self, site: str, donated: Tensor, rows: Sequence[Row], start: int) -> Tensor:
        """The metric with, in each row, the donor's value at its place; ``donated`` begins with the sample ``start``."""
        given = donated[[row.sample - start for row in rows]]
        at = torch.arange(len(rows), device=donated.device)
        places = torch.tensor([row.place for row in rows], device=donated.device)
        columns = torch.tensor(self.positions, device=donated.device)

        def edit(value: Tensor) -> Tensor:
            if self.by_head:
                where = (at[:, None], columns[None], places[:, None])
                value[where] = given[where]
            else:
                value[at, places] = given[at, places]
            return value

        return self.run(self.base, [row.sample for row in rows], [], {site: edit})[0]

    def differs(self, base: Tensor, donated: Tensor) -> Tensor:
        """(n, place): whether there is anything to put in. What is alike in both runs needs no third one."""
        unlike = (base != donated).any(-1)
        return unlike[:, self.positions].any(1) if self.by_head else unlike


@recipe(
    question="Through which place does the difference between two inputs pass?",
    source="Meng et al. 2022, arXiv:2202.05262; Heimersheim & Nanda 2024, arXiv:2404.15255",
    needs=("losses",),
)
def patching(
    scope: Scope,
    clean: Any,
    corrupt: Any,
    *,
    sites: str = "resid_post",
    metric: Literal["loss", "logit_diff"] | Callable[[Tensor, Samples], Tensor] = "loss",
    direction: Literal["denoise", "noise"] = "denoise",
    answers: tuple[Any, Any] | None = None,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    per_sample: bool = False,
    chunk: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """How much of the difference between two inputs one activation carries, put from one run into the other.

    What it answers: where what tells ``clean`` from ``corrupt`` is held, layer by layer and position by position
    (``sites`` ``"resid_pre"``, ``"resid_mid"``, ``"resid_post"``, ``"attn.out"`` or ``"mlp.out"``), or which heads carry it
    (``"z"``: a head's output at all ``positions`` at once). The two are paired sample by sample and must have as many tokens
    each; a corrupt sample is brought to the columns of its clean one, whichever side its padding is on.
    Equation: recovered = Σ_i (m_i(patched) − m_i(corrupt)) / Σ_i (m_i(clean) − m_i(corrupt)), where patched is the corrupt
    run with the clean value at one place: 0 nothing, 1 all of it; a ratio of sums, so that a pair that hardly differs cannot
    blow up. ``direction="noise"`` is the other way round: the clean run with the corrupt value; 1 is all that the
    corruption does. ``metric``: ``"loss"``, the mean loss of the clean labels, in both runs; ``"logit_diff"``, the logit of
    the right token minus that of the wrong one: with ``answers=(right, wrong)`` token ids (one, or one per sample) after the last
    token, else the clean against the corrupt label at the last position that predicts; or a function of
    (logits, clean samples) that returns (n,). Source: Meng et al. 2022 (causal tracing); Heimersheim & Nanda 2024.

    Result: ``recovered, ci_low, ci_high`` on ``[layer, position]`` or ``[layer, head]`` (share of the difference; 95 % Student
    interval over pairs, of a ratio of sums), ``effect`` there (its mean numerator, in units of the
    metric); scalars ``clean, corrupt, difference``, the metric of each and of their difference, each with its interval
    (``clean_ci_low`` …). A position counts the samples that have it. ``[sample, position] token, corrupt_token``. With
    ``per_sample`` also ``effect_by_sample`` with a leading ``sample`` and ``[sample] clean_by_sample, corrupt_by_sample``.
    ``recovered`` is NaN where clean and corrupt do not differ in the metric, and the attribute ``undefined`` says so; where the
    interval of ``difference`` holds 0, ``caution``.
    Errors: ValueError for pairs of different numbers or lengths, or misspelt options; LookupError for a layer, position or
    site that is not there; UnsupportedModel without heads or a loss. Cost: one forward per sample and place at which the
    two runs differ, several in one pass: at most layers × positions (2 layers × 100 positions × 8 samples of the packaged
    model: 2 to 5 s on one core).
    How to read it: denoising finds what suffices to restore the behaviour, noising what it cannot do without; a place
    high in both carries it. When not to trust it: a share may exceed 1 or be negative where parts work against each
    other; patched runs mix two inputs, which the model never sees; and what is found holds for this contrast only.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> clean = ts.datasets.repeats(scope, n=4, period=8)
    >>> corrupt = ts.datasets.repeats(scope, n=4, period=8, unrelated=True)    # nothing to copy from
    >>> heads = ts.recipes.patching(scope, clean, corrupt, sites="z")
    >>> int(heads["recovered"].max("head").argmax("layer"))        # the induction heads, which write what is copied
    1
    """
    if not isinstance(sites, str) or sites not in SITES:
        raise ValueError(f"sites is {sites!r}: choose among {', '.join(SITES)}")
    if direction not in ("denoise", "noise"):
        raise ValueError(f"direction is {direction!r}: choose 'denoise' (clean into corrupt) or 'noise' (corrupt into clean)")
    by_head = sites == "z"
    anatomy = scope.anatomy
    anatomy.require_heads()
    if not anatomy.n_vocab:
        raise UnsupportedModel(f"no tokens: {scope.name} reads none, and patching pairs the positions of tokens")
    clean = scope.samples(clean)
    corrupt = aligned(clean, scope.samples(corrupt))
    length = clean.input_ids.shape[1]
    of_layers = chosen(layers, "layers", anatomy.n_layers)
    columns = chosen(positions, "positions", length)
    measured, unit = _metric(scope, clean, corrupt, metric, answers)
    base, donor = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    names = [f"layers.{i}.{SITES[sites]}" for i in of_layers]
    expand(names, anatomy, scope.model)  # says what is missing
    patcher = Patcher(scope, base, donor, measured, by_head, columns)
    places = list(range(anatomy.n_heads)) if by_head else columns
    effect, of_base, of_donor = _effects(patcher, names, places, chunk, progress)
    dims = ("layer", "head" if by_head else "position")
    of_clean, of_corrupt = (of_donor, of_base) if direction == "denoise" else (of_base, of_donor)
    variables, said = _variables(effect, of_clean, of_corrupt, of_donor - of_base, dims, unit, direction)
    coords: dict[str, Any] = {"layer": of_layers, dims[1]: places}
    if not by_head:
        for name, samples in (("token", clean), ("corrupt_token", corrupt)):
            variables[name] = (("sample", "position"), token_variable(samples)[1][:, columns], name.replace("_", " "), "")
    if per_sample:
        mean = variables["effect"]
        variables["effect_by_sample"] = (("sample", *dims), effect, mean[2], unit)
        variables["clean_by_sample"] = (("sample",), of_clean, "metric of the clean run", unit)
        variables["corrupt_by_sample"] = (("sample",), of_corrupt, "metric of the corrupt run", unit)
    if per_sample or not by_head:
        coords |= sample_coords(clean)
    result = dataset(variables, coords, n_used=len(clean), n_available=len(clean))
    result["recovered"].attrs |= {"interval": f"95 % Student interval over {len(clean)} pairs", **said}
    return result


def _metric(scope: Scope, clean: Samples, corrupt: Samples, metric: Any, answers: Any) -> tuple[Metric, str]:
    if answers is not None and metric != "logit_diff":
        raise ValueError(f"answers= are for metric='logit_diff', and metric is {metric!r}: leave them out, or change the metric")
    if metric == "loss":
        return loss_metric(scope, clean), loss_unit(scope)
    if metric == "logit_diff":
        if scope.anatomy.task != "causal":
            raise UnsupportedModel(f"no next token: {scope.name} is no causal language model with its head")
        return answer_metric(scope, clean, corrupt, answers), "logits"
    if not callable(metric):
        raise ValueError(f"metric is {metric!r}: choose 'loss', 'logit_diff', or a function of (logits, clean samples)")

    def by_user(output: Tensor, rows: Sequence[int]) -> Tensor:
        values = metric(output, clean.repeated(rows, [f"{clean.ids[i]} run {k}" for k, i in enumerate(rows)]))
        if not isinstance(values, Tensor) or values.shape != (len(rows),):
            came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"metric= returned {came} for {len(rows)} rows: return one number each, shape ({len(rows)},)")
        if not bool(values.isfinite().all()):
            i = rows[int((~values.isfinite()).nonzero()[0])]
            raise ValueError(f"metric= is not finite for sample {clean.ids[i]!r}: return a number for every row, or leave it out")
        return values

    return by_user, "metric"


def _effects(
    patcher: Patcher, sites: Sequence[str], places: list[int], chunk: int | None, progress: bool | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sample, layer, place) m(patched) − m(base), NaN where a sample has no such place; and the metric of base and donor."""
    base, anatomy = patcher.base, patcher.scope.anatomy
    seen = base.attention_mask.bool()
    effect = np.zeros((len(base), len(sites), len(places)))
    if not patcher.by_head:
        effect[~seen[:, places].numpy().repeat(len(sites), 0).reshape(len(base), len(sites), -1)] = np.nan
    metrics: list[tuple[Tensor, Tensor]] = []
    size = chunk or usual_chunk(base, anatomy)
    start = 0
    with bar(len(base) * len(sites) * len(places), "patching", progress) as done:
        for part in chunks(base, anatomy, chunk):
            rows = range(start, start + len(part))
            own, there = patcher.run(base, rows, sites, {})
            other, donated = patcher.run(patcher.donor, rows, sites, {})
            metrics.append((own, other))
            for layer, site in enumerate(sites):
                unlike = patcher.differs(there.pop(site), donated[site]).cpu()
                wanted = [
                    Row(i, place)
                    for i in rows
                    for place in places
                    if unlike[i - start, place] and (patcher.by_head or seen[i, place])
                ]
                for first in range(0, len(wanted), size):
                    some = wanted[first : first + size]
                    found = patcher.patched(site, donated[site], some, start)
                    for row, value in zip(some, found.tolist(), strict=True):
                        effect[row.sample, layer, places.index(row.place)] = value - float(own[row.sample - start])
                    done.update(len(some))
                done.update(len(part) * len(places) - len(wanted))
            start += len(part)
    of_base, of_donor = (torch.cat(values).numpy() for values in zip(*metrics, strict=True))
    return effect, of_base, of_donor


def _variables(
    effect: np.ndarray,
    clean: np.ndarray,
    corrupt: np.ndarray,
    gained: np.ndarray,
    dims: tuple[str, str],
    unit: str,
    direction: str,
) -> tuple[dict[str, Variable], dict[str, str]]:
    """The variables, and what is to be said of ``recovered``; ``gained`` is m(donor) − m(base) of each sample."""
    what = "recovered" if direction == "denoise" else "destroyed"
    shape = effect.shape[1:]
    ratio = np.full((3, *shape), np.nan)
    rounding = 1e-6 * (np.abs(clean).sum() + np.abs(corrupt).sum())
    for place in np.ndindex(*shape):
        values = effect[(slice(None), *place)]
        there = np.isfinite(values)
        if there.any() and abs(gained[there].sum()) > rounding:
            ratio[(slice(None), *place)] = ratio_interval(values[there], gained[there])
    share = f"share of the difference that is {what}"
    variables: dict[str, Variable] = {
        "recovered": (dims, ratio[0], share, "share"),
        "ci_low": (dims, ratio[1], f"{share}, lower end of the 95 % interval", "share"),
        "ci_high": (dims, ratio[2], f"{share}, upper end of the 95 % interval", "share"),
        "effect": (dims, t_interval(effect)[0], "change of the metric by the patch, mean over samples", unit),
    }
    said: dict[str, str] = {}
    if np.isnan(ratio[0]).any():
        said["nan"] = "clean and corrupt of the samples that have this place do not differ in the metric"
    if np.isnan(ratio[0]).all():
        said["undefined"] = said["nan"] = "clean and corrupt do not differ in the metric: there is nothing to recover"
    for name, values in (("clean", clean), ("corrupt", corrupt), ("difference", clean - corrupt)):
        words = f"metric of the {name} run" if name != "difference" else "metric of the clean run minus that of the corrupt one"
        mean, low, high = t_interval(values)
        variables[name] = ((), mean, f"{words}, mean over samples", unit)
        variables[f"{name}_ci_low"] = ((), low, f"{words}, lower end of the 95 % interval", unit)
        variables[f"{name}_ci_high"] = ((), high, f"{words}, upper end of the 95 % interval", unit)
        if name == "difference" and low <= 0 <= high and "undefined" not in said:
            said["caution"] = "the interval of the difference between clean and corrupt holds 0: its shares mean little"
    return variables, said
