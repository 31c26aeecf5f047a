"""Covering the edges of a graph by vertices of small weight."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Vertex = TypeVar("Vertex", bound=Hashable)


def vertex_cover(edges: Sequence[tuple[Vertex, Vertex]], weights: Mapping[Vertex, float]) -> list[Vertex]:
    """Vertices that touch every edge, of at most twice the least weight: the local-ratio rule of Bar-Yehuda and Even 1985.

    Each edge takes from both its ends what the lighter one has left; who has nothing left is in the cover. What the cover does
    not need is then taken out, the heaviest first.

    >>> vertex_cover([("a", "b"), ("a", "c"), ("a", "d")], dict.fromkeys("abcd", 1.0))
    ['a']
    """
    left = {vertex: weights[vertex] for edge in edges for vertex in edge}
    for one, other in edges:
        least = min(left[one], left[other])
        left[one] -= least
        left[other] -= least
    cover = {vertex for vertex, weight in left.items() if weight == 0}
    neighbours: dict[Vertex, set[Vertex]] = {}
    for one, other in edges:
        neighbours.setdefault(one, set()).add(other)
        neighbours.setdefault(other, set()).add(one)
    for vertex in sorted(cover, key=lambda v: -weights[v]):
        if neighbours[vertex] <= cover - {vertex}:
            cover.remove(vertex)
    return [vertex for vertex in left if vertex in cover]
