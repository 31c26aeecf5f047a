"""Whether a head attends where what it would write helps: attention scores against direct logits, edge by edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.recipes.induction import earlier_copies
from tensorscope_nb.samples import IGNORED, Samples
from tensorscope_nb.scope.head_weights import head_weights
from tensorscope_nb.scope.norms import Norm

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope
    from tensorscope_nb.sweep import Chunk


def repeated_queries(samples: Samples) -> Tensor:
    """(n, T): the token occurred before, and what follows it is predicted."""
    followed = torch.nn.functional.pad(samples.token_labels[:, 1:] != IGNORED, (0, 1))
    return earlier_copies(samples).any(-1) & followed & samples.attention_mask.bool()


def exchanged(following: Tensor, queries: Tensor) -> Tensor:
    """``following`` (n, T) with the targets of a sequence's queries moved round by half of them."""
    moved = following.clone()
    for row, here in zip(moved, queries, strict=True):
        at = here.nonzero()[:, 0]
        row[at] = row[at.roll(len(at) // 2)]
    return moved


class AttendedValues:
    """Keeps r by sequence, layer and head: that with the tokens which follow, and that with those of other queries."""

    def __init__(self, scope: Scope, weighted: bool) -> None:
        self.scope, self.weighted = scope, weighted
        model, anatomy = scope.model, scope.anatomy
        self.layers = range(anatomy.n_layers)
        self.last = f"layers.{anatomy.n_layers - 1}.resid_post"
        self.needs = ["layers.*.attn.scores", "layers.*.attn.v", self.last]
        if any(map(anatomy.norm_behind_attention, self.layers)):
            self.needs.append("layers.*.attn.out")
        if weighted:
            self.needs.append("layers.*.attn.pattern")
        self.after = [Norm.of(model, anatomy.norm_behind_attention(i), anatomy.d_model) for i in self.layers]
        self.final = Norm.of(model, anatomy.final_norm, anatomy.d_model)
        self.out = [self.final.folded(head_weights(model, anatomy, i).O).float() for i in self.layers]
        rows = model.get_parameter(f"{anatomy.unembed}.weight").detach().float()
        self.rows, self.mean = rows, rows.mean(0)
        self.found: list[np.ndarray] = []
        self.n_queries: list[np.ndarray] = []

    def update(self, chunk: Chunk) -> None:
        samples = chunk.samples
        queries = repeated_queries(samples)
        following = samples.input_ids.roll(-1, 1)
        scale = self.final.scale(chunk.site(self.last))
        targets = [self.rows[ids.to(self.rows.device)] - self.mean for ids in (following, exchanged(following, queries))]
        by_layer = [self._layer(chunk, layer, targets, scale, queries.to(scale.device)) for layer in self.layers]
        found = torch.stack(by_layer, 2).cpu()
        found[1, queries.sum(1) < 2] = torch.nan  # there is none to exchange with
        self.found.append(found.numpy())
        self.n_queries.append(queries.sum(1).numpy())

    def _layer(self, chunk: Chunk, layer: int, targets: list[Tensor], scale: Tensor, queries: Tensor) -> Tensor:
        """(the right targets and others, n, head)"""
        scores, v = (chunk.site(f"layers.{layer}.attn.{name}") for name in ("scores", "v"))
        if self.after[layer].module is not None:
            scale = scale * self.after[layer].scale(chunk.site(f"layers.{layer}.attn.out"))
        length = scores.shape[-1]
        seen = (
            torch.ones(length, length, device=scores.device).tril().bool()
            & chunk.samples.attention_mask.bool().to(scores.device)[:, None, None]
        )
        edges = seen & queries[:, None, :, None] & (scores > torch.finfo(scores.dtype).min / 2)
        values = v.float().repeat_interleave(self.out[layer].shape[0] // v.shape[2], 2)
        found = []
        for rows in targets:
            wanted = torch.einsum("ntd,hed->nthe", rows, self.out[layer]) / scale[..., None].float()
            written = torch.einsum("nthe,nshe->nhts", wanted, values)
            if self.weighted:
                written = written * chunk.site(f"layers.{layer}.attn.pattern").float()
            found.append(within_queries(scores, written, edges))
        return torch.stack(found)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(the right targets and others, sequence, layer, head), and the number of queries of each sequence."""
        return np.concatenate(self.found, 1), np.concatenate(self.n_queries)


def within_queries(x: Tensor, y: Tensor, edges: Tensor) -> Tensor:
    """r (n, head) of two tables (n, head, query, key) over ``edges``, each less its mean over the edges of the query."""
    weights = edges.expand_as(x)
    x, y = (torch.where(weights, t.double(), 0) for t in (x, y))
    count = weights.sum(-1, keepdim=True).clamp(min=1)
    x, y = (torch.where(weights, t - t.sum(-1, keepdim=True) / count, 0) for t in (x, y))
    both = (x**2).sum((-2, -1)) * (y**2).sum((-2, -1))
    return torch.where(both > 0, (x * y).sum((-2, -1)) / both.sqrt(), torch.nan).clamp(-1, 1)
