"""Ratios of times measured in one run, interleaved, so that what else the machine does falls on all alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def ratios(
    baseline: Callable[[], object],
    others: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The median over rounds of each one's time over the baseline's of the same round; one round is not counted."""
    calls = {"": baseline, **others}
    found: dict[str, list[float]] = {name: [] for name in others}
    for i in range(rounds + 1):
        order = [*calls][i % len(calls) :] + [*calls][: i % len(calls)]  # who comes first finds other caches
        seconds = {name: _seconds(calls[name], clock) for name in order}
        if i:
            for name in others:
                found[name].append(seconds[name] / seconds[""])
    return {name: statistics.median(values) for name, values in found.items()}


def _seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def line(what: str, value: float, goal: str) -> str:
    return f"{what:<64} {value:6.3f}   goal {goal}"
