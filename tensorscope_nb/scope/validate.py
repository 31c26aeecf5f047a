"""Certifies each site when a model is wrapped: what a site is called is checked against the model's own arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import logits_of
from tensorscope_nb.scope.loss import cause_of_nan
from tensorscope_nb.scope.record import intercepted
from tensorscope_nb.scope.sites import TAPPED
from tensorscope_nb.scope.state import preserved

if TYPE_CHECKING:
    from tensorscope_nb.scope.anatomy import Anatomy

LENGTH = 8


def validated(model: nn.Module, anatomy: Anatomy) -> Anatomy:
    """The anatomy without the sites that fail, each with its reason: one short forward each with and without the tap."""
    samples = _probe(anatomy)
    keep = samples.attention_mask.bool()
    with preserved(model), torch.no_grad():
        own = logits_of(model, samples)
        if not bool(own[keep.to(own.device)].isfinite().all()):
            raise ValueError(f"the model's logits are not finite: {cause_of_nan(model)}")
        try:
            with intercepted(model, anatomy, anatomy.sites, {}) as bases:
                logits = logits_of(model, samples)
        except UnsupportedModel as error:
            return anatomy.without({site: str(error) for site, point in anatomy.sites.items() if point.tapped})
        values = {site: point.seen(bases[site]) for site, point in anatomy.sites.items() if site in bases}
        missing = {site: "the model does not run this module" for site in anatomy.sites if site not in values}
        missing |= _failures(model, anatomy, values, keep.to(own.device), _gap(logits, own, keep.to(own.device)))
    return anatomy.without(missing)


def _probe(anatomy: Anatomy) -> Samples:
    """Two short rows of random tokens, one of them padded."""
    length = min(LENGTH, anatomy.context)
    ids = torch.randint(anatomy.n_vocab, (2, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    return Samples.tokens(ids, mask)


def _failures(model: nn.Module, anatomy: Anatomy, values: dict[str, Tensor], keep: Tensor, logits_gap: float) -> dict[str, str]:
    tolerance = 1e-4 if next(model.parameters()).dtype == torch.float32 else 5e-2
    missing: dict[str, str] = {}
    for i in range(anatomy.n_layers):
        layer = {site.removeprefix(f"layers.{i}."): value for site, value in values.items() if site.startswith(f"layers.{i}.")}

        def require(names: tuple[str, ...], says: str, gap: float, i: int = i) -> None:
            if not gap <= tolerance:
                missing.update({f"layers.{i}.{name}": f"{says} (off by {gap:.2g} of the largest value)" for name in names})

        taps = tuple(f"attn.{name}" for name in TAPPED)
        require(taps, "the model's logits change when its attention is tapped", logits_gap)
        if {"attn.pattern", "attn.v", "attn.z"} <= layer.keys():
            v = layer["attn.v"].repeat_interleave(anatomy.n_heads // anatomy.n_kv_heads, 2)
            z = torch.einsum("bhqk,bkhd->bqhd", layer["attn.pattern"], v)
            require(taps, "pattern @ v is not z", _gap(z, layer["attn.z"], keep))
        if {"attn.z", "attn.out"} <= layer.keys():
            projected = model.get_submodule(anatomy.module(i, "O"))(layer["attn.z"].flatten(-2))
            require(
                ("attn.z", "attn.out"), "the output projection of z is not attn.out", _gap(projected, layer["attn.out"], keep)
            )
        if {"resid_pre", "attn.out", "resid_mid"} <= layer.keys():
            gap = _gap(layer["resid_pre"] + layer["attn.out"], layer["resid_mid"], keep)
            require(("resid_mid",), "resid_pre + attn.out is not resid_mid", gap)
        if {"resid_mid", "mlp.out", "resid_post"} <= layer.keys():
            gap = _gap(layer["resid_mid"] + layer["mlp.out"], layer["resid_post"], keep)
            require(("mlp.out",), "resid_mid + mlp.out is not resid_post", gap)
    return missing


def _gap(a: Tensor, b: Tensor, keep: Tensor) -> float:
    """The largest difference at positions that hold tokens, as a share of the largest value."""
    a, b = a[keep].float(), b[keep].float()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
