"""Sites: named places in the model, and the one table that says where each of them lives."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tensorscope_nb.scope.anatomy import Anatomy

TAP = "tap"  # the name under which an attention module carries its site modules while it is tapped
TAPPED = ("q", "k", "v", "scores", "pattern")


@dataclass(frozen=True)
class Point:
    """One side of one module, and how a user sees the tensor there."""

    path: str  # "" is the model itself
    side: Literal["input", "output"] = "output"
    view: Literal["plain", "heads", "transposed"] = "plain"
    n_heads: int = 0
    part: tuple[int, int] = (0, 1)  # (i, n): the i-th of n equal parts of the last axis, for fused projections

    def seen(self, tensor: Tensor) -> Tensor:
        """The tensor as a user sees it: a view, so that what is written into it is written into ``tensor``."""
        if self.part[1] > 1:
            width = tensor.shape[-1] // self.part[1]
            tensor = tensor.narrow(-1, self.part[0] * width, width)
        if self.view == "heads":
            return tensor.unflatten(-1, (self.n_heads, -1))  # (batch, position, head, d_head)
        if self.view == "transposed":
            return tensor.transpose(1, 2)  # (batch, head, position, d_head) -> (batch, position, head, d_head)
        return tensor

    def under(self, module: str, n_heads: int) -> Point:
        """The same point, its path inside ``module``."""
        return replace(self, path=f"{module}.{self.path}".rstrip("."), n_heads=n_heads if self.view == "heads" else 0)

    @property
    def tapped(self) -> bool:
        return f".{TAP}." in self.path


def expand(patterns: str | Sequence[str], anatomy: Anatomy, model: nn.Module) -> dict[str, Point]:
    """Every site that matches ``patterns``, in the order asked for: standard names, ``layers.*`` globs, module paths."""
    if isinstance(patterns, str):
        patterns = [patterns]
    found: dict[str, Point] = {}
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"a site is a {type(pattern).__name__} ({pattern!r}): give its name, such as 'layers.0.resid_post'")
        matches = {site: point for site, point in anatomy.sites.items() if _matches(site, pattern)}
        found |= matches or _by_module_path(pattern, anatomy, model)
    return found


def _matches(site: str, pattern: str) -> bool:
    """``*`` stands for one part of the name: ``layers.*.resid_post`` is not ``layers.0.attn.resid_post``."""
    a, b = site.split("."), pattern.split(".")
    return len(a) == len(b) and all(fnmatch.fnmatchcase(x, y) for x, y in zip(a, b, strict=True))


def _by_module_path(pattern: str, anatomy: Anatomy, model: nn.Module) -> dict[str, Point]:
    modules = [name for name, _ in model.named_modules() if name]
    if pattern in anatomy.missing_sites:
        raise LookupError(
            f"{anatomy.family} has no site {pattern!r}: {anatomy.missing_sites[pattern]}. It has: {_listing(anatomy)}"
        )
    renamed = {_spelled(name, anatomy): name for name in modules}
    named = {name: Point(name) for name in modules if _matches(name, pattern)}
    named |= {short: Point(name) for short, name in renamed.items() if short != name and _matches(short, pattern)}
    if not named:
        raise LookupError(f"there is no site or module {pattern!r}. Sites: {_listing(anatomy)}; module paths work too")
    return named


def _spelled(module: str, anatomy: Anatomy) -> str:
    """``layers.3.attn.c_proj`` for a module inside layer 3, whatever the model calls its layers."""
    for i, name in enumerate(anatomy.names):
        if module.startswith(f"{name}."):
            return f"layers.{i}{module[len(name) :]}"
    return module


def _listing(anatomy: Anatomy) -> str:
    per_layer = [site.removeprefix("layers.0.") for site in anatomy.sites if site.startswith("layers.0.")]
    whole = [site for site in anatomy.sites if not site.startswith("layers.")]
    last = anatomy.n_layers - 1
    return ", ".join(whole) + (f", layers.0 to layers.{last} with {', '.join(per_layer)}" if per_layer else "")


def main_tensor(value: Any) -> Tensor:
    """The tensor that a module passes on: itself, the first of a tuple, or the logits (else the states) of a model's output."""
    return value[_place(value)] if _place(value) is not None else value


def with_main_tensor(value: Any, tensor: Tensor) -> Any:
    place = _place(value)
    if place is None:
        return tensor
    if isinstance(value, tuple):
        return (tensor, *value[1:])
    changed = copy(value)
    changed[place] = tensor
    return changed


def _place(value: Any) -> Any:
    if isinstance(value, tuple):
        return 0
    if isinstance(value, Mapping):
        return next(name for name in ("logits", "last_hidden_state", *value) if name in value)
    return None
