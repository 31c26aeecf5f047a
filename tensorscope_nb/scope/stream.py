"""The residual stream as the exact sum of what was written into it: the embedding, each head, each MLP, and one bias.

A head writes z W_O, an MLP its output; what the output projections of attention add for every token alike is one source of
its own, ``bias``. Where a norm stands behind a part before it is added (Gemma 2, OLMo 2), each part goes through it at the
scale that the whole has. Parallel blocks add up in the same way. Nothing is taken on trust: the sum is compared with the
stream, and a model that adds up otherwise is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.scope.norms import Norm
from tensorscope_nb.scope.readout import output_weights

if TYPE_CHECKING:
    from torch import nn

    from tensorscope_nb.scope.anatomy import Anatomy

TOLERANCE = 1e-4  # of the largest value at a position, in single precision
EMBED, BIAS = "embed", "bias"


class Source(NamedTuple):
    """Who wrote a part of the stream; −1 where it has no layer, or is no head."""

    name: str
    layer: int = -1
    head: int = -1


def sources(anatomy: Anatomy, before: int) -> list[Source]:
    """All that writes into the stream before a layer, in the order of writing; the bias, which all layers add to, last."""
    found = [Source(EMBED)]
    for layer in range(before):
        found += [Source(f"{layer}.{head}", layer, head) for head in range(anatomy.n_heads)]
        found.append(Source(f"mlp {layer}", layer))
    return [*found, Source(BIAS)]


class Stream:
    """The parts of the residual stream of one model, read from the sites ``needs(before)`` of a forward."""

    def __init__(self, model: nn.Module, anatomy: Anatomy) -> None:
        anatomy.require_heads()
        if anatomy.table is None or anatomy.table.residual == "post":
            raise UnsupportedModel(
                f"{anatomy.family} normalises the sum of its stream after every part (post-norm): what a part wrote is "
                "rescaled by all that come later, and the stream is no sum of parts"
            )
        self.model, self.anatomy, self.table = model, anatomy, anatomy.table
        self.dtype = torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32
        self.sandwich = anatomy.table.residual == "sandwich"
        self.behind = [Norm.of(model, anatomy.norm_behind_attention(i), anatomy.d_model) for i in range(anatomy.n_layers)]

    def place(self, before: int) -> str:
        """The site of the stream before a layer; before the one after the last: what the final norm reads."""
        last = self.anatomy.n_layers
        return f"layers.{before}.resid_pre" if before < last else f"layers.{last - 1}.resid_post"

    def needs(self, before: int) -> list[str]:
        """The sites from which the parts are read, and the stream that they must add up to."""
        written = ("attn.z", "attn.out", "mlp.out") if self.sandwich else ("attn.z", "mlp.out")
        sites = ["layers.0.resid_pre", *(f"layers.{i}.{site}" for i in range(before) for site in written), self.place(before)]
        for site in sites:
            if site not in self.anatomy.sites:
                why = self.anatomy.missing_sites.get(site, "it is not in its family")
                raise UnsupportedModel(f"the stream of {self.anatomy.family} cannot be taken apart, it has no {site}: {why}")
        return list(dict.fromkeys(sites))

    def parts(self, values: Mapping[str, Tensor], before: int) -> Iterator[tuple[Source, Tensor]]:
        """Each source before a layer with what it wrote, (n, T, d_model), in the order of :func:`sources`.

        ``values`` are what stood at the sites of ``needs``. One part is made at a time.
        """
        embed = values["layers.0.resid_pre"].to(self.dtype)
        yield Source(EMBED), embed
        bias = torch.zeros(self.anatomy.d_model, dtype=self.dtype, device=embed.device).expand_as(embed)
        for layer in range(before):
            z = values[f"layers.{layer}.attn.z"].to(self.dtype)
            weights = output_weights(self.model, self.anatomy, layer).to(self.dtype)
            norm = self.behind[layer]
            scale = norm.scale(values[f"layers.{layer}.attn.out"]) if self.sandwich else 1.0
            for head in range(self.anatomy.n_heads):
                written = z[:, :, head] @ weights[head]
                if self.sandwich:
                    written = (norm.folded(written) / scale).to(self.dtype)
                yield Source(f"{layer}.{head}", layer, head), written
            added = self.model.get_submodule(self.anatomy.module(layer, "O")).bias
            if isinstance(added, Tensor):
                bias = bias + ((norm.folded(added) / scale).to(self.dtype) if self.sandwich else added.to(self.dtype))
            bias = bias + norm.bias.to(self.dtype)
            out = values[f"layers.{layer}.mlp.out"]
            if self.sandwich:
                with torch.no_grad():
                    out = self.model.get_submodule(f"{self.anatomy.names[layer]}.{self.table.after_mlp}")(out)
            yield Source(f"mlp {layer}", layer), out.to(self.dtype)
        yield Source(BIAS), bias

    def check(self, total: Tensor, values: Mapping[str, Tensor], before: int, seen: Tensor) -> None:
        """Raises where the parts do not add up to the stream at a position ``seen`` (n, T)."""
        there = values[self.place(before)].to(self.dtype)
        gap = (total - there).abs().amax(-1) / there.abs().amax(-1).clamp(min=1e-30)
        worst = float(gap[seen.to(gap.device)].max())
        if not worst <= tolerance(self.model, 2 * before):
            raise UnsupportedModel(
                f"the parts of {self.place(before)} do not add up to it (off by {worst:.2g} of the largest value): "
                f"{type(self.model).__name__} adds something that is not known here, so nothing is attributed"
            )


def tolerance(model: nn.Module, n_sums: int) -> float:
    """How far a sum of so many terms, each rounded as the model rounds, may be from the model's own."""
    eps = torch.finfo(next(model.parameters()).dtype).eps
    return float(max(TOLERANCE, 2 * eps * max(n_sums, 1) ** 0.5))
