"""Certifies each site when a model is wrapped: what a site is called is checked against the model's own arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import cause_of_nan, output_of
from tensorscope_nb.scope.point import TAPPED, Point
from tensorscope_nb.scope.record import intercepted
from tensorscope_nb.scope.state import preserved

if TYPE_CHECKING:
    from tensorscope_nb.scope.anatomy import Anatomy

LENGTH = 8
TAPS = tuple(f"attn.{name}" for name in TAPPED)


def validated(model: nn.Module, anatomy: Anatomy) -> Anatomy:
    """The anatomy without the sites that fail, each with its reason: one short forward each with and without the tap.

    A model of no table has no sites whose meaning could be checked, and its input is not known: it is not run.
    """
    if anatomy.table is None:
        return anatomy
    samples = _probe(model, anatomy)
    device = next(model.parameters()).device
    keep = samples.attention_mask.bool().to(device) if samples.has_tokens else None
    with preserved(model), torch.no_grad():
        own = output_of(model, samples, anatomy)
        if not bool(_kept(own, keep).isfinite().all()):
            raise ValueError(f"the model's output is not finite: {cause_of_nan(model)}")
        extra = {f"values of {i}": Point(anatomy.module(i, "V")) for i in range(anatomy.n_layers)}
        try:
            with intercepted(model, anatomy, anatomy.sites | extra, []) as bases:
                output = output_of(model, samples, anatomy)
        except UnsupportedModel as error:
            return anatomy.without({site: str(error) for site, point in anatomy.sites.items() if point.tapped})
        values = {site: point.seen(bases[site]) for site, point in anatomy.sites.items() if site in bases}
        for i, name in enumerate(extra):
            _check_slices(anatomy, i, bases[name], values[f"layers.{i}.attn.v"])
        missing = {site: "the model does not run this module" for site in anatomy.sites if site not in values}
        missing |= _failures(model, anatomy, values, keep, _gap(output, own, keep))
    return anatomy.without(missing)


def _probe(model: nn.Module, anatomy: Anatomy) -> Samples:
    """Two short rows of random tokens, one of them padded; of a vision model two random images."""
    generator = torch.Generator().manual_seed(0)
    if not anatomy.n_vocab:
        config: Any = model.config
        size = config.image_size if isinstance(config.image_size, list | tuple) else (config.image_size, config.image_size)
        return Samples.tensors({"pixel_values": torch.rand(2, config.num_channels, *size, generator=generator)})
    length = min(LENGTH, anatomy.context or LENGTH)
    ids = torch.randint(anatomy.n_vocab, (2, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    return Samples.tokens(ids, mask)


def _check_slices(anatomy: Anatomy, i: int, projected: Tensor, v: Tensor) -> None:
    """Each head's values stand in the projection's output where ``anatomy.slice`` says; q and k may be rotated, v is not."""
    for head in range(anatomy.n_heads):
        piece = anatomy.slice(i, "V", head)
        group = head // (anatomy.n_heads // anatomy.n_kv_heads)
        if not torch.allclose(projected[..., piece.start : piece.stop], v[:, :, group], atol=1e-4, rtol=1e-2):
            raise UnsupportedModel(
                f"the values of head {i}.{head} are not where the table of {anatomy.family} says: its slices cannot be trusted"
            )


def _failures(
    model: nn.Module, anatomy: Anatomy, values: dict[str, Tensor], keep: Tensor | None, output_gap: float
) -> dict[str, str]:
    tolerance = 1e-4 if next(model.parameters()).dtype in (torch.float32, torch.float64) else 5e-2
    missing: dict[str, str] = {}

    def require(sites: list[str], says: str, gap: float) -> None:
        if not gap <= tolerance:
            missing.update({site: f"{says} (off by {gap:.2g} of the largest value)" for site in sites})

    for i in range(anatomy.n_layers):
        taps = [f"layers.{i}.{name}" for name in TAPS]
        require(taps, "the model's output changes when its attention is tapped", output_gap)
        for sites, says, made, there in _identities(model, anatomy, i, values):
            require(sites, says, _gap(made, there, keep))
    return missing


def _identities(
    model: nn.Module, anatomy: Anatomy, i: int, values: dict[str, Tensor]
) -> list[tuple[list[str], str, Tensor, Tensor]]:
    """What must be equal in a layer: the sites in question, the equation in words, and its two sides."""
    table = anatomy.table
    assert table is not None
    layer = {site.removeprefix(f"layers.{i}."): value for site, value in values.items() if site.startswith(f"layers.{i}.")}
    found: list[tuple[list[str], str, Tensor, Tensor]] = []

    def module(path: str) -> nn.Module:
        return model.get_submodule(f"{anatomy.names[i]}.{path}")

    def add(names: tuple[str, ...], says: str, made: Tensor, there: Tensor) -> None:
        found.append(([f"layers.{i}.{name}" for name in names], says, made, there))

    if {"attn.pattern", "attn.v", "attn.z"} <= layer.keys():
        v = layer["attn.v"].repeat_interleave(anatomy.n_heads // anatomy.n_kv_heads, 2)
        z = torch.einsum("bhqk,bkhd->bqhd", layer["attn.pattern"], v)
        add(TAPS, "pattern @ v is not z", z, layer["attn.z"])
    if {"attn.z", "attn.out"} <= layer.keys():
        projected = module(table.blocks["O"])(layer["attn.z"].flatten(-2))
        add(("attn.z", "attn.out"), "the output projection of z is not attn.out", projected, layer["attn.out"])
    if "mlp.post" in layer and "mlp.out" in layer:
        projected = module(table.blocks["mlp_out"])(layer["mlp.post"])
        add(("mlp.post", "mlp.out"), "the down projection of mlp.post is not mlp.out", projected, layer["mlp.out"])
    pre, mid, post = (layer.get(f"resid_{name}") for name in ("pre", "mid", "post"))
    attention, mlp = layer.get("attn.out"), layer.get("mlp.out")
    if pre is None or post is None or attention is None or mlp is None:
        return found
    if table.residual == "parallel":
        add(("resid_pre", "resid_post"), "resid_pre + attn.out + mlp.out is not resid_post", pre + attention + mlp, post)
        return found
    if mid is None:
        return found
    for names, before, part, norm, after in (
        (("resid_mid",), pre, attention, table.after_attention, mid),
        (("mlp.out",), mid, mlp, table.after_mlp, post),
    ):
        said = " + ".join(["resid_pre" if after is mid else "resid_mid", "attn.out" if after is mid else "mlp.out"])
        if table.residual == "sandwich":
            made = before + module(norm)(part)
        elif table.residual == "post":
            made = module(norm)(before + part)
        else:
            made = before + part
        add(names, f"{said} is not {'resid_mid' if after is mid else 'resid_post'}", made, after)
    return found


def _kept(value: Tensor, keep: Tensor | None) -> Tensor:
    """What stands at positions that hold tokens."""
    return value[keep] if keep is not None and value.shape[:2] == keep.shape else value


def _gap(a: Tensor, b: Tensor, keep: Tensor | None) -> float:
    """The largest difference, as a share of the largest value."""
    a, b = _kept(a, keep).double(), _kept(b, keep).double()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
