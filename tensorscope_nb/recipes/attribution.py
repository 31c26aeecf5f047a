"""Direct logit attribution: what each head and each MLP adds to the logit of a token, by the direct path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics import t_interval
from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords, token_variable
from tensorscope_nb.recipes.next_token import next_tokens, token_ids
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.samples import IGNORED, Samples
from tensorscope_nb.scope.stream import BIAS, EMBED, Stream, tolerance
from tensorscope_nb.scope.unembedding import Unembedding
from tensorscope_nb.settings import current
from tensorscope_nb.sweep import Chunk, sweep
from tensorscope_nb.sweep.faults import too_much

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope

UNIT = "logits"


class Attributions:
    """Reads, at each position, what every source adds to a logit; NaN where no token is asked for."""

    def __init__(self, scope: Scope, targets: Tensor, against: Tensor | str | None) -> None:
        self.scope, self.targets, self.against = scope, targets, against
        self.n_layers, self.n_heads = scope.anatomy.n_layers, scope.anatomy.n_heads
        self.stream = Stream(scope.model, scope.anatomy)
        self.end = Unembedding(scope)
        self.norm = self.end.final()
        self.needs = (*self.stream.needs(self.n_layers), self.end.raw, "logits")
        self.done = 0
        self.rows: dict[str, list[np.ndarray]] = {}
        self.mean = self.end.head.weight.detach().mean(0, dtype=torch.float64)
        bias = getattr(self.end.head, "bias", None)
        self.bias = None if bias is None else bias.detach().double()

    def update(self, chunk: Chunk) -> None:
        n = len(chunk.samples)
        rows = slice(self.done, self.done + n)
        self.done += n
        values = {site: chunk.site(site) for site in self.needs}
        raw, whole = values[self.end.raw], values[self.end.stream]
        asked = (self.targets[rows] != IGNORED).to(raw.device)
        self.end.check(self.end.after(raw), values["logits"], chunk.samples.attention_mask.bool())
        direction, constant, logit = self._asked(raw, rows)
        u = (self.norm.pulled(direction) / self.norm.scale(whole)).to(self.stream.dtype)
        heads = torch.zeros(*asked.shape, self.n_layers, self.n_heads, dtype=torch.float64, device=raw.device)
        mlps = torch.zeros(*asked.shape, self.n_layers, dtype=torch.float64, device=raw.device)
        found: dict[str, Tensor] = {}
        total = torch.zeros_like(whole, dtype=self.stream.dtype)
        for source, part in self.stream.parts(values, self.n_layers):
            total = total + part
            added = (part * u).sum(-1).double()
            if source.head >= 0:
                heads[:, :, source.layer, source.head] = added
            elif source.layer >= 0:
                mlps[:, :, source.layer] = added
            else:
                found[source.name] = added
        self.stream.check(total, values, self.n_layers, chunk.samples.attention_mask.bool())
        found[BIAS] = found[BIAS] + (direction @ self.norm.bias) + constant
        made = heads.sum((-2, -1)) + mlps.sum(-1) + found[EMBED] + found[BIAS]
        self._check(made, logit, raw, asked)
        for name, value in {"attribution": heads, "mlp": mlps, "logit": made, **found}.items():
            hidden = ~asked.reshape(*asked.shape, *[1] * (value.ndim - 2))
            self.rows.setdefault(name, []).append(value.masked_fill(hidden, torch.nan).float().cpu().numpy())

    def _asked(self, raw: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The direction (n, T, d) of the logit asked for, what the unembedding's bias adds, and what the model itself says."""
        weight = self.end.head.weight.detach()

        def of(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            ids = ids[rows].clamp(min=0).to(raw.device)
            added = torch.zeros(ids.shape, device=raw.device).double() if self.bias is None else self.bias[ids]
            return weight[ids].double(), added, raw.gather(-1, ids[..., None])[..., 0].double()

        direction, constant, logit = of(self.targets)
        if isinstance(self.against, Tensor):
            other = of(self.against)
            return direction - other[0], constant - other[1], logit - other[2]
        if self.against == "mean":
            constant = constant if self.bias is None else constant - self.bias.mean()
            return direction - self.mean, constant, logit - raw.mean(-1, dtype=torch.float64)
        return direction, constant, logit

    def _check(self, made: Tensor, logit: Tensor, raw: Tensor, asked: Tensor) -> None:
        if not bool(asked.any()):
            return
        gap = float((made - logit).abs()[asked].max() / raw[asked].abs().max().clamp(min=1e-30))
        if not gap <= tolerance(self.scope.model, 2 * self.n_layers + 4):
            raise UnsupportedModel(
                f"the attributions do not add up to the logit of {self.scope.name} (off by {gap:.2g} of the largest logit): "
                "it does something on the way that is not known here, so nothing is attributed"
            )

    def result(self) -> dict[str, np.ndarray]:
        """Each quantity, first axes sample and position."""
        return {name: np.concatenate(parts) for name, parts in self.rows.items()}


@recipe(
    question="Which heads and MLPs write the answer?",
    source="Elhage et al. 2021, transformer-circuits.pub/2021/framework; Wang et al. 2022, arXiv:2211.00593",
    needs=("z", "logits"),
)
def logit_attribution(
    scope: Scope,
    samples: Any,
    *,
    target: Any = "next",
    against: Any = "mean",
    chunk: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """What each head, each MLP and the embedding add to the logit of a token, along the direct path to the output.

    What it answers: which parts of the model write the next token (``target="next"``, the label) into the stream, or any
    other: a token id, one per sample (n,), or one per position (n, T; −100 where none is asked for).
    The embedding is what enters the first layer: the token, and the position where that is added to it.
    Equation: the stream after the last layer is the sum of what was written, x = Σ_c x_c, and the final norm at the scale s
    that it has there is linear: logit_t = Σ_c w_t · γ ∘ (x_c − mean x_c) / s + w_t · β (+ the unembedding's bias; without
    the means where it is an RMSNorm). What is added for every token alike (biases of the output projections, β) is
    ``bias``; the heads' norm behind attention, where there is one, is taken apart in the same way. ``against`` is what the
    logit is compared with: ``"mean"``, the mean logit over the vocabulary, because a softmax knows no level and only
    differences tell tokens apart; a token (as ``target``), for a logit difference; None for the raw logit.
    Source: Elhage et al. 2021 (the direct path of each head); Wang et al. 2022 use it so.

    Result: ``[sample, position, layer, head] attribution``, ``[sample, position, layer] mlp_attribution``,
    ``[sample, position] embed_attribution, bias_attribution`` and ``logit``, exactly their sum (logits; NaN where no token
    is asked for); ``[layer, head] attribution_mean, ci_low, ci_high`` and ``[layer] mlp_attribution_mean`` with its ends:
    means over the positions of each sample, then over samples, with 95 % Student intervals; scalars ``embed_mean,
    bias_mean, logit_mean``; ``[sample, position] token, target``. Where a model scales or caps its logits (Gemma 2,
    Cohere), ``logit`` is what its unembedding gives before that, and the attribute ``before`` says so.
    Errors: UnsupportedModel without a language-model head, with norms behind each sum (BERT), or where the parts do not
    add up to the stream and the logit, which is checked on every sample; ValueError for token ids that do not fit, where
    no token is predicted, or where the result exceeds the memory option. Cost: one forward, and about as much again.
    How to read it: a head with a large attribution pushes this token directly. When not to trust it: what a head does for
    later layers does not show (``patching`` and ``ablation`` do); at the norm's actual scale, which each part helps to set;
    and a part may merely undo what another one writes.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> found = ts.recipes.logit_attribution(scope, ts.datasets.repeats(scope, n=4))
    >>> int(found["attribution_mean"].max("head").argmax("layer"))      # the induction heads are in layer 1
    1
    """
    samples = _with_tokens(scope, samples)
    targets = _targets(scope, samples, target)
    known: Tensor | str | None = against
    if against is not None and not (isinstance(against, str) and against == "mean"):
        if isinstance(against, str):
            raise ValueError(f"against is {against!r}: choose 'mean', None, or token ids")
        known = token_ids(against, "against", samples, scope.anatomy.n_vocab)
        targets = targets.masked_fill(known == IGNORED, IGNORED)
    if not bool((targets != IGNORED).any()):
        raise ValueError("no token is asked for: samples need two tokens and a label each, or give target= token ids")
    reducer = Attributions(scope, targets, known)
    _check_size(samples, reducer.n_layers * (reducer.n_heads + 1) + 3)
    sweep(scope, samples, [reducer], chunk=chunk, progress=progress, label="logit attribution")
    found = reducer.result()
    compared = (
        {"mean": "the mean logit", None: ""}.get(against, "another token's")
        if isinstance(against, str | None)
        else "another token's"
    )
    variables = _variables(found, f" − {compared}" if compared else "")
    variables["token"] = token_variable(samples)
    variables["target"] = (("sample", "position"), targets.numpy(), f"token id that is asked about, {IGNORED} where none is", "")
    result = dataset(variables, sample_coords(samples), n_used=len(samples), n_available=len(samples))
    n_asked = int(np.isfinite(found["logit"]).any(1).sum())
    for name in ("attribution_mean", "mlp_attribution_mean"):
        result[name].attrs["interval"] = f"95 % Student interval over {n_asked} samples"
    if reducer.end.said:
        result["logit"].attrs["before"] = f"what the unembedding gives; the model then {reducer.end.said}"
    return result


def _with_tokens(scope: Scope, samples: Any) -> Samples:
    if not scope.anatomy.n_vocab:
        raise UnsupportedModel(f"no next token: {scope.name} reads no tokens")
    given = scope.samples(samples)
    given.input_ids  # noqa: B018  says what is missing where the samples are no tokens
    return given


def _targets(scope: Scope, samples: Samples, target: Any) -> Tensor:
    if isinstance(target, str):
        if target != "next":
            raise ValueError(f"target is {target!r}: choose 'next', or give token ids")
        return next_tokens(scope, samples)
    return token_ids(target, "target", samples, scope.anatomy.n_vocab)


def _check_size(samples: Samples, per_position: int) -> None:
    needed = 4 * samples.input_ids.nelement() * per_position
    if needed > current().memory:
        raise too_much(f"the attributions of {samples.input_ids.nelement()} positions", needed, "ask for fewer samples")


def _variables(found: dict[str, np.ndarray], than: str) -> dict[str, Variable]:
    place = ("sample", "position")
    by_head, by_layer = ("layer", "head"), ("layer",)
    logit = f"logit{than}"
    variables: dict[str, Variable] = {
        "attribution": ((*place, *by_head), found["attribution"], f"what the head adds to the {logit}", UNIT),
        "mlp_attribution": ((*place, *by_layer), found["mlp"], f"what the MLP adds to the {logit}", UNIT),
        "embed_attribution": (place, found[EMBED], f"what the embedding adds to the {logit}", UNIT),
        "bias_attribution": (place, found[BIAS], f"what the biases add to the {logit}", UNIT),
        "logit": (place, found["logit"], logit, UNIT),
    }
    means = {name: _by_sample(values) for name, values in found.items()}
    for name, prefix, dims, words in (
        ("attribution", "", by_head, "the head"),
        ("mlp", "mlp_attribution_mean_", by_layer, "the MLP"),
    ):
        said = f"what {words} adds to the {logit}, mean over positions and samples"
        mean, low, high = t_interval(means[name])
        variables["attribution_mean" if name == "attribution" else "mlp_attribution_mean"] = (dims, mean, said, UNIT)
        variables[f"{prefix}ci_low"] = (dims, low, f"{said}, lower end of the 95 % interval", UNIT)
        variables[f"{prefix}ci_high"] = (dims, high, f"{said}, upper end of the 95 % interval", UNIT)
    for name in (EMBED, BIAS, "logit"):
        said = logit if name == "logit" else f"what the {name} adds to the {logit}"
        variables[f"{name}_mean"] = ((), np.nanmean(means[name]), f"{said}, mean over positions and samples", UNIT)
    return variables


def _by_sample(values: np.ndarray) -> np.ndarray:
    """The mean over the positions of each sample at which a token is asked for; NaN where there is none."""
    there = np.isfinite(values)
    n = there.sum(1)
    total = np.where(there, values, 0).sum(1, dtype=np.float64)
    return np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
