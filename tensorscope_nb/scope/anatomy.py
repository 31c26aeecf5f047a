"""Anatomy: how many layers and heads a model has, where its parts live, and which sites of it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.scope.families import FAMILIES, Family
from tensorscope_nb.scope.sites import TAP, TAPPED, Point

if TYPE_CHECKING:
    from torch import Tensor, nn


class Slice(NamedTuple):
    """The part of a parameter that belongs to one head."""

    parameter: str
    axis: int
    start: int
    stop: int

    def of(self, tensor: Tensor) -> Tensor:
        """A view of that part of ``tensor``, which has the parameter's shape."""
        return tensor.narrow(self.axis, self.start, self.stop - self.start)


@dataclass(frozen=True)
class Anatomy:
    """What a :class:`Scope` knows of its model.

    >>> import tensorscope_nb as ts
    >>> anatomy = ts.load("tiny").anatomy
    >>> str(anatomy), anatomy.n_layers, anatomy.n_heads, anatomy.module(1, "O")
    ('gpt2', 2, 4, 'transformer.h.1.attn.c_proj')
    """

    family: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_model: int
    d_mlp: int
    n_vocab: int
    context: int
    layers_path: str
    attention_paths: tuple[str, ...]
    embed: str
    final_norm: str
    unembed: str
    blocks: dict[str, str]
    fused: tuple[str, ...]
    transposed: bool
    bias: bool
    sites: dict[str, Point]
    missing_sites: dict[str, str]  # standard sites that are absent, and why

    def module(self, layer: int, block: str) -> str:
        """The path of the module that holds ``block`` (Q, K, V, O, QKV, mlp_in, mlp_out …) of a layer."""
        self.check_layer(layer)
        name = "QKV" if block in self.fused else block
        if name not in self.blocks:
            raise LookupError(f"{self.family} has no block {block!r}: it has {', '.join([*self.fused, *self.blocks])}")
        return f"{self.layers_path}.{layer}.{self.blocks[name]}"

    def slice(self, layer: int, block: str, head: int) -> Slice:
        """Which part of the weight of Q, K, V or O belongs to a head; K and V of a group of heads are its shared ones."""
        self.check_head(head)
        if block not in ("Q", "K", "V", "O"):
            raise LookupError(f"only Q, K, V and O are made of heads; the block asked for is {block!r}")
        parameter = f"{self.module(layer, block)}.weight"
        at, offset = head, 0
        if block in ("K", "V"):
            at = head // (self.n_heads // self.n_kv_heads)
        if block in self.fused:
            widths = {"Q": self.n_heads, "K": self.n_kv_heads, "V": self.n_kv_heads}
            offset = sum(widths[b] for b in self.fused[: self.fused.index(block)]) * self.d_head
        rows = (block == "O") == self.transposed  # (out, in): O has its heads along the input; (in, out): the others do not
        start = offset + at * self.d_head
        return Slice(parameter, 0 if rows else 1, start, start + self.d_head)

    def check_layer(self, layer: int) -> None:
        if not isinstance(layer, int) or not 0 <= layer < self.n_layers:
            raise LookupError(f"there is no layer {layer}: the model has layers 0 to {self.n_layers - 1}")

    def check_head(self, head: int) -> None:
        if not isinstance(head, int) or not 0 <= head < self.n_heads:
            raise LookupError(f"there is no head {head}: the model has heads 0 to {self.n_heads - 1}")

    def without(self, missing: dict[str, str]) -> Anatomy:
        """The same anatomy, with the sites in ``missing`` taken away and the reasons kept."""
        kept = {site: point for site, point in self.sites.items() if site not in missing}
        return replace(self, sites=kept, missing_sites=self.missing_sites | missing)

    def __str__(self) -> str:
        return self.family

    def __repr__(self) -> str:
        heads = (
            f"{self.n_heads} heads" if self.n_heads == self.n_kv_heads else f"{self.n_heads} heads over {self.n_kv_heads} K and V"
        )
        lines = [f"{self.family}: {self.n_layers} layers, {heads} of {self.d_head}, width {self.d_model}, context {self.context}"]
        for name, layers in (("sites", self._by_kind(self.sites)), ("missing", self._by_kind(self.missing_sites))):
            if layers:
                lines.append(f"{name}: {', '.join(layers)}")
        lines += [f"  {kind}: {reason}" for kind, reason in self._by_kind(self.missing_sites).items()]
        return "\n".join(lines)

    def _by_kind(self, sites: dict) -> dict:
        """One entry per kind of site, said once for all layers that have it."""
        kinds: dict = {}
        for site, value in sites.items():
            head, _, rest = site.partition(".")
            kinds.setdefault(f"layers.*.{rest.partition('.')[2]}" if head == "layers" else site, value)
        return kinds


def detect(model: nn.Module) -> Anatomy:
    """The anatomy of a bare model, from the table of its family; sites are those of the table, not yet validated."""
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    family = FAMILIES.get(str(model_type))
    if family is None:
        raise UnsupportedModel(
            f"{type(model).__name__} (model_type {model_type!r}) is of no family known here: known are {', '.join(FAMILIES)}"
        )
    absent = [path for path in (family.layers, family.embed, family.final_norm, family.unembed) if not _has(model, path)]
    if absent:
        raise UnsupportedModel(f"{type(model).__name__} has no {', '.join(absent)}: wrap the model with its language-model head")
    return _of(model, family)


def _has(model: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in model.named_modules())


def _of(model: Any, family: Family) -> Anatomy:
    config = model.config
    n_layers, n_heads, d_model = config.num_hidden_layers, config.num_attention_heads, config.hidden_size
    n_kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
    output_projection = model.get_submodule(f"{family.layers}.0.{family.blocks['mlp_in']}")
    d_mlp = output_projection.weight.shape[1 if family.transposed else 0]
    sites = {"embed": family.sites["embed"]}
    for i in range(n_layers):
        layer = f"{family.layers}.{i}"
        tapped = {f"attn.{name}": _tap_point(family, name) for name in TAPPED}
        for name, point in ({"resid_pre": family.layer_sites["resid_pre"]} | tapped | family.layer_sites).items():
            path = f"{layer}.{point.path}".rstrip(".")
            sites[f"layers.{i}.{name}"] = Point(path, point.side, point.view, n_heads if point.view == "heads" else 0)
    sites |= {name: point for name, point in family.sites.items() if name != "embed"}
    return Anatomy(
        family=family.name, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads,
        d_head=getattr(config, "head_dim", None) or d_model // n_heads, d_model=d_model, d_mlp=d_mlp,
        n_vocab=config.vocab_size, context=config.max_position_embeddings,
        layers_path=family.layers, attention_paths=tuple(f"{family.layers}.{i}.{family.attention}" for i in range(n_layers)),
        embed=family.embed, final_norm=family.final_norm, unembed=family.unembed, blocks=family.blocks,
        fused=family.fused, transposed=family.transposed, bias=getattr(output_projection, "bias", None) is not None,
        sites=sites, missing_sites={f"layers.{i}.{s}": why for i in range(n_layers) for s, why in family.lacks.items()},
    )  # fmt: skip


def _tap_point(family: Family, name: str) -> Point:
    return Point(f"{family.attention}.{TAP}.{name}", "output", "transposed" if name in ("q", "k", "v") else "plain")
