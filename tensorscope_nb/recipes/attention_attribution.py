"""Why a head attends where it does: its scores, as sums over what was written at the key and at the query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.recipes.chosen import chosen
from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords, token_variable
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import check
from tensorscope_nb.scope.norms import Norm
from tensorscope_nb.scope.projections import Projections
from tensorscope_nb.scope.stream import BIAS, Stream, sources, tolerance
from tensorscope_nb.settings import current
from tensorscope_nb.sweep import bar
from tensorscope_nb.sweep.faults import too_much

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope

UNIT = "score before softmax"
Found = dict[str, np.ndarray]


class Reasons:
    """Takes the scores of chosen heads apart, one sample at a time."""

    def __init__(self, scope: Scope, layers: Sequence[int], heads: Sequence[int], relative: bool) -> None:
        self.scope, self.layers, self.heads, self.relative = scope, layers, list(heads), relative
        anatomy = scope.anatomy
        self.stream = Stream(scope.model, anatomy)
        self.sources = sources(anatomy, max(layers))
        self.projections = Projections(scope, layers)
        self.norms = {i: Norm.of(scope.model, anatomy.attention_norm(i), anatomy.d_model) for i in layers}
        read = [f"layers.{i}.attn.{site}" for i in layers for site in ("q", "k", "scores", "pattern")]
        self.needs = list(dict.fromkeys([*read, *(site for i in layers for site in self.stream.needs(i))]))

    def of(self, sample: Samples) -> Found:
        """``score``, ``pattern``, ``by_key`` and ``by_query`` of one sample, first axis layer; NaN where nothing is looked at."""
        with self.projections.after(sample, self.needs) as values:
            rows = [self._layer(layer, sample, values) for layer in self.layers]
        return {name: np.stack([row[name].float().cpu().numpy() for row in rows]) for name in rows[0]}

    def _layer(self, layer: int, sample: Samples, values: dict[str, Tensor]) -> dict[str, Tensor]:
        groups = self.scope.anatomy.n_heads // self.scope.anatomy.n_kv_heads
        q = values[f"layers.{layer}.attn.q"][0]
        k = values[f"layers.{layer}.attn.k"][0].repeat_interleave(groups, 1)
        by_source = self._projected(layer, sample, values)
        wide = self.stream.dtype
        q, k, q_parts, k_parts = (x[..., self.heads, :].to(wide) for x in (q, k, *by_source))
        self._check_parts(layer, ((q, q_parts), (k, k_parts)), sample)
        attention: Any = self.projections.attentions[layer]
        factor = getattr(attention, "scaling", None) or q.shape[-1] ** -0.5
        score = factor * torch.einsum("thd,shd->hts", q, k)
        there = values[f"layers.{layer}.attn.scores"][0, self.heads].to(wide)
        seen = sample.seen(q.shape[0])[0].to(q.device)
        visible = (there > torch.finfo(values[f"layers.{layer}.attn.scores"].dtype).min / 2) & seen[:, None] & seen
        self._check_scores(layer, score, there, visible)
        by_key = factor * torch.einsum("thd,mshd->htsm", q, k_parts)
        by_query = factor * torch.einsum("mthd,shd->htsm", q_parts, k)
        pattern = values[f"layers.{layer}.attn.pattern"][0, self.heads]
        return {
            "score": score.masked_fill(~visible, torch.nan),
            "pattern": pattern.masked_fill(~(seen[:, None] & seen), torch.nan),
            "by_key": self._spread(by_key, visible),
            "by_query": self._spread(by_query, visible),
        }

    def _projected(self, layer: int, sample: Samples, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(source, position, head, d_head): what each source before the layer gives to queries and keys."""
        norm, whole = self.norms[layer], values[self.stream.place(layer)]
        scale = norm.scale(whole)
        made, total = [], torch.zeros_like(whole, dtype=self.stream.dtype)
        for source, part in self.stream.parts(values, layer):
            total = total + part
            apart = norm.folded(part) / scale + (norm.bias if source.name == BIAS else 0)
            made.append(apart[0].to(whole.dtype))
        self.stream.check(total, values, layer, sample.seen(whole.shape[1]))
        made.append(torch.zeros_like(made[0]))  # what is there without any input: the projections' own biases
        q, k = (x.to(self.stream.dtype) for x in self.projections.project(layer, torch.stack(made)))
        return _without_constant(q), _without_constant(k)

    def _spread(self, parts: Tensor, visible: Tensor) -> Tensor:
        """On the axis of all sources, NaN for those that come later; relative to the visible keys of the row, if asked for."""
        hidden = ~visible[..., None]
        parts = parts.masked_fill(hidden, 0)
        if self.relative:
            parts = parts - parts.sum(2, keepdim=True) / visible.sum(2).clamp(min=1)[:, :, None, None]
        parts = parts.masked_fill(hidden, torch.nan)
        later = len(self.sources) - parts.shape[-1]
        nothing = torch.full((*parts.shape[:-1], later), torch.nan, dtype=parts.dtype, device=parts.device)
        return torch.cat([parts[..., :-1], nothing, parts[..., -1:]], -1)

    def _check_parts(self, layer: int, pairs: Sequence[tuple[Tensor, Tensor]], sample: Samples) -> None:
        seen = sample.seen(pairs[0][0].shape[0])[0]
        for name, (whole, parts) in zip(("queries", "keys"), pairs, strict=True):
            gap = float((parts.sum(0) - whole)[seen].abs().max() / whole[seen].abs().max().clamp(min=1e-30))
            self._refuse(gap, f"the parts of the {name} of layer {layer} do not add up to them")

    def _check_scores(self, layer: int, score: Tensor, there: Tensor, visible: Tensor) -> None:
        cap = getattr(self.projections.attentions[layer], "attn_logit_softcapping", None)
        made = cap * torch.tanh(score / cap) if cap else score
        gap = float(((made - there).abs()[visible].max()) / there[visible].abs().max().clamp(min=1e-30))
        self._refuse(gap, f"the scores of layer {layer} are not q kᵀ times its scale")

    def _refuse(self, gap: float, says: str) -> None:
        if not gap <= 10 * tolerance(self.scope.model, 2 * max(self.layers) + 2):
            raise UnsupportedModel(
                f"{says} in {self.scope.name} (off by {gap:.2g} of the largest value): attention does something there that "
                "is not known here, so nothing is attributed"
            )


def _without_constant(projected: Tensor) -> Tensor:
    """The constant is last, and belongs to the bias, which stands before it."""
    constant = projected[-1]
    return torch.cat([projected[:-2] - constant, projected[-2:-1]])


@recipe(
    question="Why does this head attend there?",
    source="Elhage et al. 2021, transformer-circuits.pub/2021/framework; Olsson et al. 2022, arXiv:2209.11895",
    needs=("patterns", "z"),
)
def attention_attribution(
    scope: Scope,
    samples: Any,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    relative: bool = True,
    progress: bool | None = None,
) -> xr.Dataset:
    """What each earlier part of the model contributes to an attention score, by way of the key and by way of the query.

    What it answers: through what a head finds the token that it attends to: the token itself (``embed``), or what an earlier
    head or MLP wrote there (K-composition, ``by_key``), or wrote where it looks from (Q-composition, ``by_query``).
    Equation: with x_s = Σ_c x_{c,s} the stream at position s and the norm before attention at the scale that it has there,
    the key is k_s = Σ_c k_{c,s}, by the model's own projection, rotary positions included, and
    score[t, s] = scale · q_t · k_s = Σ_c scale · q_t · k_{c,s}, which is ``by_key``; ``by_query`` is Σ_c scale · q_{c,t} · k_s.
    A softmax does not see what is added to all of a row: with ``relative`` each source has its mean over the keys that the
    query sees taken off, and the sum over sources is score − mean of the row; without it, the score. Norms of queries and
    keys (Qwen 3, Gemma 3) are held at their scale; a soft cap (Gemma 2) comes after the score. Source: Elhage et al. 2021;
    Olsson et al. 2022 (K-composition of induction heads).

    Result: ``[sample, layer, head, query, key] pattern`` (share of attention) and ``score`` (before mask and softmax, after
    the scale, before a soft cap; NaN where the query does not see the key), ``[sample, layer, head, query, key, source]
    by_key, by_query`` (units of the score; NaN for a source that writes only later), ``[sample, position] token``. The
    sources are ``embed``, ``"0.3"`` for head 3 of layer 0, ``"mlp 0"``, and ``bias``, which holds whatever no part of the
    sample decides: biases of norms, projections and outputs; the coordinates ``source_layer`` and ``source_head`` are −1
    where there is none.
    Errors: UnsupportedModel for norms behind each sum (BERT), or where the parts do not add up to the queries, keys and
    scores, which is checked on every sample; ValueError where the result is above the memory option, with its bytes.
    Cost: one forward, and for each layer its projections once per source; n · layers · heads · T² · sources values, twice:
    choose ``layers`` and ``heads``.
    How to read it: the largest source at a cell that gets much attention is why it does. When not to trust it: sources
    may cancel, so that one large value means little beside another; the norm's scale is held, though each part helps to set
    it; and what a source itself is made of is not asked further.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> why = ts.recipes.attention_attribution(scope, ts.datasets.repeats(scope, n=1, period=8), layers=[1], heads=[1])
    >>> cell = why["by_key"].isel(sample=0, layer=0, head=0).sel(query=12, key=5)      # what followed the earlier copy
    >>> str(cell["source"][int(cell.argmax("source"))].item())        # the previous-token head
    '0.0'
    """
    scope.require_patterns()
    if not isinstance(relative, bool):
        raise ValueError(f"relative is {relative!r}: choose True (less the mean of the row) or False")
    of_layers = chosen(layers, "layers", scope.anatomy.n_layers)
    of_heads = chosen(heads, "heads", scope.anatomy.n_heads)
    samples = scope.samples(samples)
    check(samples, scope.anatomy)
    reasons = Reasons(scope, of_layers, of_heads, relative)
    if samples.has_tokens:
        _check_size(samples, len(of_layers) * len(of_heads), len(reasons.sources))
    found: Found = {}
    with bar(len(samples), "attention attribution", progress) as done:
        for i in range(len(samples)):
            row = reasons.of(samples[i : i + 1])
            found = found or {name: np.empty((len(samples), *values.shape), values.dtype) for name, values in row.items()}
            for name, values in row.items():
                found[name][i] = values
            done.update()
    cell = ("sample", "layer", "head", "query", "key")
    than = ", less its mean over the row" if relative else ""
    variables: dict[str, Variable] = {
        "pattern": (cell, found["pattern"], "attention", "share of the row"),
        "score": (cell, found["score"], "score of the key", UNIT),
        "by_key": ((*cell, "source"), found["by_key"], f"what the source at the key adds to the score{than}", UNIT),
        "by_query": ((*cell, "source"), found["by_query"], f"what the source at the query adds to the score{than}", UNIT),
    }
    if samples.has_tokens:
        variables["token"] = token_variable(samples)
    coords = sample_coords(samples) | {
        "layer": of_layers,
        "head": of_heads,
        "source": np.array([source.name for source in reasons.sources], dtype=object),
        "source_layer": ("source", [source.layer for source in reasons.sources]),
        "source_head": ("source", [source.head for source in reasons.sources]),
    }
    result = dataset(variables, coords, n_used=len(samples), n_available=len(samples))
    result["pattern"].attrs["bounds"] = [0.0, 1.0]
    return result


def _check_size(samples: Samples, n_heads: int, n_sources: int) -> None:
    n, length = samples.input_ids.shape
    needed = 4 * n * n_heads * length**2 * (2 * n_sources + 2)
    if needed > current().memory:
        what = f"the parts of {n_heads} heads of {n} samples of {length} tokens by {n_sources} sources"
        raise too_much(what, needed, "choose layers= and heads=, give fewer or shorter samples")
