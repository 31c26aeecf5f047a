"""Queries and keys part by part: what an attention makes of each part of what it reads, by running its own projections.

Rotary positions, biases and fused weights are thereby those of the model. Where a norm stands behind a projection (Qwen 3,
Gemma 3), it is held at the scale that the whole has, and the way is linear up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import check_output, output_of
from tensorscope_nb.scope.norms import Norm
from tensorscope_nb.scope.point import TAP
from tensorscope_nb.scope.record import intercepted
from tensorscope_nb.scope.sites import expand
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.settings import current

if TYPE_CHECKING:
    from tensorscope_nb.scope.scope import Scope

SHARE = 16  # a piece of the parts may take this share of the memory option; its queries, keys and values take more


class _Enough(Exception):
    """Queries and keys are there: attention itself need not run."""


class Projections:
    """The attentions of some layers after a run of one sample: ``project`` makes queries and keys of parts of their input."""

    def __init__(self, scope: Scope, layers: Sequence[int]) -> None:
        self.model, self.anatomy = scope.model, scope.anatomy
        self.attentions = {layer: self.model.get_submodule(self.anatomy.attention_paths[layer]) for layer in layers}
        self.norms = {
            f"{self.anatomy.attention_paths[layer]}.{name}": Norm.of(
                self.model, f"{self.anatomy.attention_paths[layer]}.{name}", len(module.weight)
            )
            for layer, attention in self.attentions.items()
            for name, module in attention.named_modules()
            if isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim == 1
        }
        self._calls: dict[int, tuple[tuple, dict]] = {}
        self._norm_inputs: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}  # held at these, while parts are projected
        self._projecting = False

    @contextmanager
    def after(self, sample: Samples, sites: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        """Runs ``sample``, one row, and yields what stood at ``sites``; in the block, parts of it can be projected."""
        self._norm_inputs = {}
        points = expand(sites, self.anatomy, self.model)
        with (
            preserved(self.model),
            torch.no_grad(),
            intercepted(self.model, self.anatomy, points, []) as bases,
            ExitStack() as stack,
        ):
            for layer, attention in self.attentions.items():
                stack.callback(attention.register_forward_pre_hook(self._keep(layer), with_kwargs=True).remove)
                last = getattr(attention, TAP)["v"]
                stack.callback(last.register_forward_hook(self._stop).remove)
            for path in self.norms:
                stack.callback(self.model.get_submodule(path).register_forward_hook(self._hold(path)).remove)
            check_output(output_of(self.model, sample, self.anatomy), sample, self.model)
            values = {site: point.seen(bases[site]) for site, point in points.items()}
            self._scales = {path: norm.scale(self._norm_inputs[path]) for path, norm in self.norms.items()}
            self._projecting = True
            try:
                yield values
            finally:
                self._projecting, self._scales = False, {}

    def project(self, layer: int, parts: Tensor) -> tuple[Tensor, Tensor]:
        """(part, position, head, d_head) queries and keys of ``parts`` (part, position, d_model); heads of a group share keys."""
        attention = self.attentions[layer]
        args, kwargs = self._calls[layer]
        room = current().memory // SHARE // max(1, 4 * parts[0].nelement())
        made: list[tuple[Tensor, Tensor]] = []
        with self._read(attention) as found:
            for piece in parts.split(max(1, room)):
                given: tuple[tuple, dict] = ((piece, *args[1:]), kwargs) if args else (args, kwargs | {_first(kwargs): piece})
                try:
                    attention(*given[0], **given[1])
                except _Enough:
                    made.append((found["q"], found["k"]))
        groups = self.anatomy.n_heads // self.anatomy.n_kv_heads
        q, k = (torch.cat(values).transpose(1, 2) for values in zip(*made, strict=True))
        return q, k.repeat_interleave(groups, 2)

    @contextmanager
    def _read(self, attention: nn.Module) -> Iterator[dict[str, Tensor]]:
        found: dict[str, Tensor] = {}

        def reading(name: str) -> Callable:
            def read(module: nn.Module, args: Any, output: Tensor) -> None:
                found[name] = output

            return read

        with ExitStack() as stack:
            for name in ("q", "k"):
                stack.callback(getattr(attention, TAP)[name].register_forward_hook(reading(name)).remove)
            yield found

    def _keep(self, layer: int) -> Callable:
        def keep(module: nn.Module, args: tuple, kwargs: dict) -> None:
            if not self._projecting:
                self._calls[layer] = (tuple(map(_uncached, args)), {name: _uncached(value) for name, value in kwargs.items()})

        return keep

    def _stop(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._projecting:
            raise _Enough

    def _hold(self, path: str) -> Callable:
        def hold(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            if not self._projecting:
                self._norm_inputs.setdefault(path, args[0])
                return None
            norm = self.norms[path]
            return (norm.folded(args[0]) / self._scales[path] + norm.bias).to(output.dtype)

        return hold


def _uncached(argument: Any) -> Any:
    """A cache remembers the run, and would put the parts behind it."""
    from transformers import Cache

    return None if isinstance(argument, Cache) else argument


def _first(kwargs: dict) -> str:
    return next(name for name, value in kwargs.items() if isinstance(value, Tensor))
