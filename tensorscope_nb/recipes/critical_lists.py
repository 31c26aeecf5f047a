"""The weights with the highest and the lowest scores, as lists: of all weights, or of each layer or module."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tensorscope_nb.numerics.ranked import Largest
from tensorscope_nb.recipes.sensitivity import Sensitivity
from tensorscope_nb.scope.flat import placed, starts_of

ListOf = Callable[[str], Hashable | None]  # of a parameter's name: which list its weights compete in, None: in none


@dataclass(frozen=True)
class Lists:
    """For each list its weights, best first: the parameter of each (its number) and the place in it; and sums by module."""

    names: list[str]
    best: Mapping[Hashable, tuple[np.ndarray, np.ndarray]]
    counts: np.ndarray  # (1 + 2 splits, parameters): how many weights of each are in a list
    totals: np.ndarray  # (1 + 2 splits, parameters): the scores of all weights, summed
    stability: Mapping[Hashable, np.ndarray]  # the share of all halves in whose list each weight is too


def largest_of(found: Sensitivity, k: int, list_of: ListOf) -> Lists:
    """One pass through the weights. Of equal scores the weight that comes first is taken; ValueError for what is no number."""
    names = [name for name in found.sizes if list_of(name) is not None]
    n_rows = len(found.mixing)
    starts = starts_of(found.sizes[name] for name in names)
    tops: dict[Hashable, list[Largest]] = {}
    totals = np.zeros((n_rows, len(names)))
    for i, name in enumerate(names):
        rows = tops.setdefault(list_of(name), [Largest(k) for _ in range(n_rows)])
        for start, scores in found.blocks(name):
            totals[:, i] += scores.sum(1, dtype=torch.float64).cpu().numpy()
            for top, values, peak in zip(rows, scores, scores.amax(1).tolist(), strict=True):
                if peak > top.bound:
                    top.add(values, starts[i] + start)
        if not np.isfinite(totals[:, i]).all():
            raise ValueError(f"the scores of {name} hold NaN or infinity, which have no rank: look at the weights there")
    best, stability = {}, {}
    counts = np.zeros((n_rows, len(names)), dtype=np.int64)
    for key, rows in tops.items():
        places = [top.places.cpu().numpy() for top in rows]
        for row, of_row in enumerate(places):
            counts[row] += np.bincount(placed(starts, of_row)[0], minlength=len(names))
        best[key] = placed(starts, places[0])
        again = [np.isin(places[0], of_half) for of_half in places[1:]]
        stability[key] = np.mean(again, axis=0) if again else np.full(len(places[0]), np.nan)
    return Lists(names, best, counts, totals, stability)


def smallest_beside(found: Sensitivity, lists: Lists, group_of: Callable[[str], Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """The weights with the lowest scores in size, least first: as many in each group as are listed of it, and none of those."""
    starts = starts_of(found.sizes[name] for name in lists.names)
    listed = np.sort(np.concatenate([starts[owner] + index for owner, index in lists.best.values()]))
    owners, _ = placed(starts, listed)
    groups = [group_of(name) for name in lists.names]
    taken = np.bincount(owners, minlength=len(groups))
    wanted = {group: int(sum(n for n, of in zip(taken, groups, strict=True) if of == group)) for group in groups}
    left = {group: -wanted[group] for group in groups}
    for name, group in zip(lists.names, groups, strict=True):
        left[group] += found.sizes[name]
    lowest = {group: Largest(min(wanted[group], left[group])) for group in wanted}
    for i, (name, group) in enumerate(zip(lists.names, groups, strict=True)):
        if not lowest[group].k:
            continue
        for start, scores in found.whole.blocks(name):
            values = -scores[0].abs()  # a strongly negative curvature is no small one
            first = starts[i] + start
            inside = listed[np.searchsorted(listed, first) : np.searchsorted(listed, first + len(values))] - first
            values[torch.as_tensor(inside, device=values.device)] = -torch.inf
            lowest[group].add(values, first)
    places = np.concatenate([low.places.cpu().numpy() for low in lowest.values()])
    magnitudes = np.concatenate([-low.values.double().cpu().numpy() for low in lowest.values()])
    return placed(starts, places[np.lexsort((places, magnitudes))])
