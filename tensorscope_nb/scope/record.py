"""Reads and edits at sites with plain hooks: the fast way, for whole data sets.

record = scope.record(samples, ["layers.*.resid_post"])       # every residual stream
record["layers.0.resid_post"]                                 # (n, position, d_model)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import chunks, output_of
from tensorscope_nb.scope.loss import LossRule
from tensorscope_nb.scope.point import Point, main_tensor, with_main_tensor
from tensorscope_nb.scope.sites import expand
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.scope.tap import tapped
from tensorscope_nb.settings import current

if TYPE_CHECKING:
    from tensorscope_nb.scope.anatomy import Anatomy

Edit = Callable[[Tensor], Tensor]
PlacedEdit = tuple[str, Point, Edit]
Location = tuple[str, str]  # module path, and its side


class Record(Mapping[str, Tensor]):
    """What was read: a mapping from site to tensor, first axis sample; ``gradients`` of the summed losses likewise."""

    def __init__(self, samples: Samples, values: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        self.samples = samples
        self.gradients = gradients
        self._values = values

    def __getitem__(self, site: str) -> Tensor:
        if site not in self._values:
            raise LookupError(f"{site!r} was not recorded: recorded are {', '.join(self._values) or 'no sites'}")
        return self._values[site]

    def __contains__(self, site: object) -> bool:
        return site in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        shapes = "\n".join(f"  {site}: {tuple(value.shape)}" for site, value in self._values.items())
        return f"Record of {self.samples!r}{' with gradients' if self.gradients else ''}\n{shapes}"


def record(
    model: nn.Module,
    anatomy: Anatomy,
    rule: LossRule,
    samples: Samples,
    sites: str | Sequence[str],
    *,
    gradients: bool = False,
    edits: Mapping[str, Edit] | None = None,
    chunk: int | None = None,
) -> Record:
    """See :meth:`tensorscope_nb.Scope.record`."""
    points = expand(sites, anatomy, model)
    edit_points = edit_points_of(edits, anatomy, model)
    patterns = any(point.tapped for point in points.values())
    values: dict[str, list[Tensor]] = {site: [] for site in points}
    slopes: dict[str, list[Tensor]] = {site: [] for site in points}
    if gradients:
        if not points:
            raise ValueError("gradients=True and no sites: name the sites whose gradients you want")
        if torch.is_inference_mode_enabled():
            raise ValueError("gradients=True inside torch.inference_mode(): leave that mode first")
        samples = rule.prepared(samples)
    with preserved(model, random_state=not edits), torch.set_grad_enabled(gradients):
        for part in chunks(samples, anatomy, chunk, patterns=patterns):
            with intercepted(model, anatomy, points, edit_points, leaves=gradients) as bases:
                output = output_of(model, part, anatomy)
            _check_reached(points, bases)
            if gradients:
                total = rule.per_sample(output, part).sum()
                found = torch.autograd.grad(total, [bases[site] for site in points])
                for (site, point), gradient in zip(points.items(), found, strict=True):
                    slopes[site].append(point.seen(gradient))
            for site, point in points.items():
                values[site].append(point.seen(bases[site].detach()))
            _check_memory(values, len(part), len(samples))
    joined = {site: torch.cat(parts) for site, parts in values.items()}
    return Record(samples, joined, {site: torch.cat(parts) for site, parts in slopes.items()} if gradients else {})


def edit_points_of(edits: Mapping[str, Edit] | None, anatomy: Anatomy, model: nn.Module) -> list[PlacedEdit]:
    """Each edited site with its point and its function, in the order given; one pattern may name many sites."""
    found: list[PlacedEdit] = []
    for pattern, edit in (edits or {}).items():
        if not callable(edit):
            raise TypeError(
                f"the edit of {pattern!r} is a {type(edit).__name__}: give a function of the tensor that returns it changed"
            )
        found += [(site, point, edit) for site, point in expand(pattern, anatomy, model).items()]
    return found


@contextmanager
def intercepted(
    model: nn.Module,
    anatomy: Anatomy,
    points: Mapping[str, Point],
    edits: Sequence[PlacedEdit],
    *,
    leaves: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Hooks the model for a block; what stands at each site (after its edit) is found in the mapping that it yields.

    With ``leaves``, a tensor that carries no gradient (all parameters frozen) is made a leaf that does.
    """
    bases: dict[str, Tensor] = {}
    owner = threading.get_ident()
    in_place = any(getattr(module, "inplace", False) for module in model.modules())
    reads: dict[Location, list[str]] = {}
    writes: dict[Location, list[PlacedEdit]] = {}
    for site, point in points.items():
        reads.setdefault((point.path, point.side), []).append(site)
    for placed in edits:
        writes.setdefault((placed[1].path, placed[1].side), []).append(placed)

    def visit(place: Location, tensor: Tensor) -> Tensor:
        for placed in writes.get(place, ()):
            tensor = _edited(*placed, tensor)
        if leaves and not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_(True)
        for site in reads.get(place, ()):
            bases[site] = tensor
        # an activation that works in place would change what was read: it gets a copy to work on
        return tensor.clone() if in_place and place in reads else tensor

    def after(place: Location) -> Callable:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if threading.get_ident() != owner:
                return None
            tensor = main_tensor(output)
            changed = visit(place, tensor)
            return None if changed is tensor else with_main_tensor(output, changed)

        return hook

    def before(place: Location) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> Any:
            if threading.get_ident() != owner:
                return None
            name = None if args else next(key for key, value in kwargs.items() if isinstance(value, Tensor))
            tensor = args[0] if name is None else kwargs[name]
            changed = visit(place, tensor)
            if changed is tensor:
                return None
            return ((changed, *args[1:]), kwargs) if name is None else (args, kwargs | {name: changed})

        return hook

    with ExitStack() as stack:
        if any(point.tapped for point in points.values()) or any(point.tapped for _, point, _ in edits):
            stack.enter_context(tapped(model, anatomy))
        for place in dict.fromkeys([*reads, *writes]):
            module = model.get_submodule(place[0])
            handle = (
                module.register_forward_hook(after(place))
                if place[1] == "output"
                else module.register_forward_pre_hook(before(place), with_kwargs=True)
            )
            stack.callback(handle.remove)
        yield bases


def _edited(site: str, point: Point, edit: Edit, tensor: Tensor) -> Tensor:
    """The edit is made on a copy, through the view that the user knows: heads are views, and gradients follow."""
    copy = tensor.clone()
    seen = point.seen(copy)
    result = edit(seen)
    if not isinstance(result, Tensor):
        raise TypeError(f"the edit of {site!r} returned {type(result).__name__}: return the tensor that takes its place")
    if result.shape != seen.shape:
        raise ValueError(
            f"the edit of {site!r} returned shape {tuple(result.shape)}, the site has {tuple(seen.shape)}: keep the shape"
        )
    if result is not seen:
        seen.copy_(result.clone())  # the result may be another view of the same memory
    return copy


def _check_reached(points: Mapping[str, Point], bases: Mapping[str, Tensor]) -> None:
    silent = [site for site in points if site not in bases]
    if silent:
        raise LookupError(f"the model did not run {silent[0]!r} on this input: leave it out of the sites")


def _check_memory(values: Mapping[str, list[Tensor]], done: int, n: int) -> None:
    """Said after the first chunk, before the memory is gone."""
    if any(len(parts) > 1 for parts in values.values()):
        return
    needed = sum(part.element_size() * part.nelement() for parts in values.values() for part in parts) * n // done
    if needed > 4 * current().memory:
        raise ValueError(
            f"recording {len(values)} sites of {n} samples takes {needed / 2**30:.1f} GiB, more than 4 times the memory option "
            f"({current().memory / 2**30:.1f} GiB): ask for fewer sites or samples, or raise ts.options(memory=…)"
        )
