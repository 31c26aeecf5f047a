"""``scope.layers[0].attn.z``: the standard sites as attributes, live inside a trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorscope_nb.scope.scope import Scope


class Handle:
    """A part of the name of a site; the full name reads or writes the value of the trace that is running."""

    def __init__(self, scope: Scope, name: str) -> None:
        object.__setattr__(self, "_scope", scope)
        object.__setattr__(self, "_name", name)

    def __getattr__(self, part: str) -> Any:
        if part.startswith("__") or part.startswith("_repr") or part.startswith("_ipython"):
            raise AttributeError(part)
        name = f"{self._name}.{part}"
        if name in self._scope.anatomy.sites:
            return self._scope.live(name)
        if any(site.startswith(f"{name}.") for site in self._scope.anatomy.sites):
            return Handle(self._scope, name)
        raise AttributeError(self._unknown(part))

    def __setattr__(self, part: str, value: Any) -> None:
        name = f"{self._name}.{part}"
        if name not in self._scope.anatomy.sites:
            raise AttributeError(self._unknown(part))
        self._scope.write(name, value)

    def _unknown(self, part: str) -> str:
        below = [site.removeprefix(f"{self._name}.") for site in self._scope.anatomy.sites if site.startswith(f"{self._name}.")]
        reason = self._scope.anatomy.missing_sites.get(f"{self._name}.{part}")
        return f"{self._name} has no site {part!r}{f' ({reason})' if reason else ''}: it has {', '.join(below)}"

    def __dir__(self) -> list[str]:
        prefix = f"{self._name}."
        return sorted(
            {site.removeprefix(prefix).partition(".")[0] for site in self._scope.anatomy.sites if site.startswith(prefix)}
        )

    def __repr__(self) -> str:
        return f"<{self._name} of {self._scope!r}: {', '.join(dir(self))}>"


class Layers:
    """The layers of a model, by number."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __len__(self) -> int:
        return self._scope.anatomy.n_layers

    def __iter__(self) -> Iterator[Handle]:
        return (self[layer] for layer in range(len(self)))

    def __getitem__(self, layer: int) -> Handle:
        if layer < 0:
            layer += len(self)
        self._scope.anatomy.check_layer(layer)
        return Handle(self._scope, f"layers.{layer}")
