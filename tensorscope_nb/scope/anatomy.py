"""Anatomy: how many layers and heads a model has, where its parts live, and which sites of it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING, Literal, NamedTuple

from tensorscope_nb.errors import UnsupportedModel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tensorscope_nb.scope.families import Family
    from tensorscope_nb.scope.point import Point

Task = Literal["causal", "masked", "classes", "none"]


class Slice(NamedTuple):
    """The part of a parameter that belongs to one head."""

    parameter: str
    axis: int
    start: int
    stop: int

    def of(self, tensor: Tensor) -> Tensor:
        """A view of that part of ``tensor``, which has the parameter's shape."""
        return tensor.narrow(self.axis, self.start, self.stop - self.start)


@dataclass(frozen=True, repr=False, eq=False)
class Anatomy:
    """What a :class:`Scope` knows of its model; ``str()`` of it is the family.

    Sizes that a model does not have are 0 (a CNN has no heads). ``layers`` are the modules of the layers, ``names`` their
    paths: the blocks of a transformer; in an MLP or CNN each Linear or Conv, in the order of their registration.

    >>> import tensorscope_nb as ts
    >>> anatomy = ts.load("tiny").anatomy
    >>> str(anatomy), anatomy.n_layers, anatomy.n_heads, anatomy.module(1, "O")
    ('gpt2', 2, 4, 'transformer.h.1.attn.c_proj')
    """

    family: str
    task: Task  # what the model's head predicts, and so how its loss is read
    layers: tuple[nn.Module, ...] = ()
    names: tuple[str, ...] = ()
    n_heads: int = 0
    n_kv_heads: int = 0
    d_head: int = 0
    d_model: int = 0
    d_mlp: int = 0
    n_vocab: int = 0
    context: int = 0
    positions: bool = False  # the model is told the position of each token
    attention_paths: tuple[str, ...] = ()
    embed: str = ""
    final_norm: str = ""
    unembed: str = ""
    bias: bool = False
    table: Family | None = None
    sites: dict[str, Point] = field(default_factory=dict)
    missing_sites: dict[str, str] = field(default_factory=dict)  # standard sites that are absent, and why
    no_heads: str = ""  # why there are no heads, where there are none

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def blocks(self) -> dict[str, str]:
        """{block: path inside a layer}"""
        return self.table.blocks if self.table else {}

    @property
    def fused(self) -> tuple[str, ...]:
        return self.table.fused if self.table else ()

    @property
    def transposed(self) -> bool:
        return bool(self.table and self.table.transposed)

    def module(self, layer: int, block: str) -> str:
        """The path of the module that holds ``block`` (Q, K, V, O, QKV, mlp_in, mlp_out …) of a layer."""
        self.check_layer(layer)
        name = "QKV" if block in self.fused else block
        if name not in self.blocks:
            there = ", ".join([*self.fused, *self.blocks]) or "none"
            raise LookupError(f"{self.family} has no block {block!r}: it has {there}")
        return f"{self.names[layer]}.{self.blocks[name]}"

    def attention_norm(self, layer: int) -> str:
        """The path of the norm of what attention reads; empty where it reads the residual stream as it is."""
        self.check_layer(layer)
        norm = self.table.before_attention if self.table else ""
        return f"{self.names[layer]}.{norm}" if norm else ""

    def norm_behind_attention(self, layer: int) -> str:
        """The path of the norm through which goes what attention adds; empty where it is added as it is."""
        self.check_layer(layer)
        norm = self.table.after_attention if self.table else ""
        return f"{self.names[layer]}.{norm}" if norm else ""

    def slice(self, layer: int, block: str, head: int) -> Slice:
        """Which part of the weight of Q, K, V or O belongs to a head; K and V of a group of heads are its shared ones."""
        self.check_head(head)
        if block not in ("Q", "K", "V", "O"):
            raise LookupError(f"only Q, K, V and O are made of heads; the block asked for is {block!r}")
        parameter = f"{self.module(layer, block)}.weight"
        group = self.n_heads // self.n_kv_heads
        at = head // group if block in ("K", "V") else head
        if block in self.fused:
            place = self.fused.index(block)
            widths = {"Q": self.n_heads, "K": self.n_kv_heads, "V": self.n_kv_heads}
            interleaved = self.table is not None and self.table.interleaved
            at = at * len(self.fused) + place if interleaved else at + sum(widths[b] for b in self.fused[:place])
        rows = (block == "O") == self.transposed  # (out, in): O has its heads along the input; (in, out): the others do not
        return Slice(parameter, 0 if rows else 1, at * self.d_head, (at + 1) * self.d_head)

    def check_layer(self, layer: int) -> None:
        if not isinstance(layer, Integral) or not 0 <= layer < self.n_layers:
            there = f"the model has layers 0 to {self.n_layers - 1}" if self.n_layers else f"{self.family} has no layers"
            raise LookupError(f"there is no layer {layer}: {there}")

    def check_head(self, head: int) -> None:
        self.require_heads()
        if not isinstance(head, Integral) or not 0 <= head < self.n_heads:
            raise LookupError(f"there is no head {head}: the model has heads 0 to {self.n_heads - 1}")

    def require_heads(self) -> None:
        if not self.n_heads:
            raise UnsupportedModel(f"no heads: {self.no_heads}")

    def without(self, missing: dict[str, str]) -> Anatomy:
        """The same anatomy, with the sites in ``missing`` taken away and the reasons kept."""
        kept = {site: point for site, point in self.sites.items() if site not in missing}
        return replace(self, sites=kept, missing_sites=self.missing_sites | missing)

    def __str__(self) -> str:
        return self.family

    def summary(self) -> str:
        """One line."""
        parts = [f"{self.n_layers} layers"] if self.n_layers else []
        if self.n_heads:
            kv = f" over {self.n_kv_heads} K and V" if self.n_heads != self.n_kv_heads else ""
            parts.append(f"{self.n_heads} heads × {self.d_head} dimensions{kv}")
        parts += [f"{word} {size}" for word, size in (("width", self.d_model), ("context", self.context)) if size]
        return f"{self.family}: {', '.join(parts) or 'known by its module paths'}"

    def site_table(self) -> list[tuple[str, str]]:
        """(site, what was found), one row per kind of site, or per layer where layers differ."""
        rows = []
        for site in self._kinds([*self.sites, *self.missing_sites]):
            layers = [name for name in (site.replace("*", str(i)) for i in range(self.n_layers))] if "*" in site else [site]
            reasons = {name: self.missing_sites[name] for name in layers if name in self.missing_sites}
            if not reasons:
                rows.append((site, ""))
            elif len(set(reasons.values())) == 1 and len(reasons) == len(layers):
                rows.append((site, next(iter(reasons.values()))))
            else:
                rows += [(name, reasons.get(name, "")) for name in layers]
        return rows

    def _kinds(self, sites: list[str]) -> list[str]:
        """``layers.3.attn.z`` as ``layers.*.attn.z``, each once, in order."""

        def kind(site: str) -> str:
            parts = site.split(".")
            return ".".join(["layers", "*", *parts[2:]]) if parts[0] == "layers" else site

        return list(dict.fromkeys(map(kind, sites)))

    def __repr__(self) -> str:
        table = self.site_table()
        lines = [self.summary()]
        if self.no_heads:
            lines.append(f"no heads: {self.no_heads}")
        lines.append(f"sites: {', '.join(site for site, reason in table if not reason)}")
        missing = [f"  {site}: {reason}" for site, reason in table if reason]
        return "\n".join(lines + (["missing:", *missing] if missing else []))

    def _repr_html_(self) -> str:
        from html import escape

        table, left = self.site_table(), "style='text-align:left'"
        good = ", ".join(f"<code>{escape(site)}</code>" for site, reason in table if not reason)
        absent = [f"<tr><td {left}><code>{escape(s)}</code></td><td {left}>{escape(why)}</td></tr>" for s, why in table if why]
        lines = [f"<div><b>{escape(self.summary())}</b></div>"]
        if self.no_heads:
            lines.append(f"<div>no heads: {escape(self.no_heads)}</div>")
        lines.append(f"<div>{'validated sites' if self.table else 'sites'}: {good}</div>")
        if absent:
            lines.append(f"<table><tr><th {left}>absent</th><th {left}>why</th></tr>{''.join(absent)}</table>")
        return "".join(lines)
