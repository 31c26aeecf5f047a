"""Sites: named places in the model. From a name, a glob or a module path to the points that it stands for."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tensorscope_nb.scope.point import Point

if TYPE_CHECKING:
    from torch import nn

    from tensorscope_nb.scope.anatomy import Anatomy


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
