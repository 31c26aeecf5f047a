"""A gradient sweep spread over the workers of an executor: a process pool, Dask's, Ray's.

What adds up over samples is cut by samples. Inner products of all pairs are cut by parameters: shards of samples would miss
the pairs across them. The model goes to the workers once, as a file that they must be able to read.
"""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.reference import chosen_parameters
from tensorscope_nb.settings import current, options
from tensorscope_nb.sweep.gradients import Coverage, gradient_sweep
from tensorscope_nb.sweep.parameters import Parameter, parameters_of
from tensorscope_nb.sweep.progress import bar
from tensorscope_nb.sweep.reducers import Reducer

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

WORKERS = 4  # where an executor does not say how many it has
_one_at_a_time = threading.Lock()  # threads of one process share the model, and each would hear of what the others run


@dataclass(frozen=True)
class Shard:
    """A part of the work: some samples, or (``only``) some parameters of all samples."""

    name: str
    rows: slice
    only: tuple[str, ...] | None = None


def spread(
    executor: Executor, scope: Scope, samples: Samples, reducers: Sequence[Reducer], *, progress: bool | None = None, **how: Any
) -> Coverage:
    """As ``gradient_sweep``, with the same results."""
    parameters = parameters_of(scope, chosen_parameters(scope, how["modules"]))
    shards = _shards(samples, reducers, parameters, workers_of(executor))
    for reducer in reducers:
        reducer.begin(len(samples))
    with shipped([scope]) as (file,), bar(len(shards), "gradients", progress) as done:
        calls = []
        for shard in shards:
            packed = pack(scope, (samples[shard.rows], list(reducers)))
            calls.append(Call(shard.name, file, _swept, (packed, how | {"only": shard.only})))
        found: list[tuple[Tensor, list[str]]] = []
        for shard, packed in zip(shards, run_all(executor, calls, done), strict=True):
            parts, weights, by_reference = unpack(scope, packed)
            for reducer, part in zip(reducers, parts, strict=True):
                if shard.only is None or shard is shards[0] or not reducer.needs:  # every one of them has seen all sites
                    reducer.merge(part, shard.rows.start)
            found.append((weights, by_reference))
    weights = found[0][0] if shards[0].only is not None else torch.cat([each for each, _ in found])
    by_reference = list(dict.fromkeys(name for _, names in found for name in names))
    return Coverage(samples, len(samples), parameters, weights, by_reference, len(samples))


def _shards(samples: Samples, reducers: Sequence[Reducer], parameters: Sequence[Parameter], workers: int) -> list[Shard]:
    n = len(samples)
    if any(reducer.wants_pairs(p) for p in parameters for reducer in reducers):
        names = [p.name for p in sorted(parameters, key=lambda p: -p.tensor.nelement())]
        cuts = [tuple(names[i::workers]) for i in range(min(workers, len(names)))]
        return [Shard(_named(i, len(cuts), cut[0], cut[-1], "parameters"), slice(0, n), cut) for i, cut in enumerate(cuts)]
    edges = [round(i * n / min(workers, n)) for i in range(min(workers, n) + 1)]
    pairs = list(pairwise(edges))
    return [
        Shard(_named(i, len(pairs), samples.ids[a], samples.ids[b - 1], "samples"), slice(a, b)) for i, (a, b) in enumerate(pairs)
    ]


def _named(i: int, n: int, first: str, last: str, what: str) -> str:
    return f"shard {i + 1} of {n} ({what} {first} to {last})"


def workers_of(executor: Executor) -> int:
    """How many work at once, as far as an executor says; refuses what would hang."""
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor= takes a concurrent.futures.Executor, such as a process pool; {type(executor).__name__} came")
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "executor= is a pool of forked processes, which hang once torch has run: make it with "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))"
        )
    return getattr(executor, "_max_workers", None) or WORKERS


@dataclass(frozen=True)
class Call:
    """``function(scope, *arguments)`` in a worker."""

    name: str
    scope: Path
    function: Callable[..., bytes]
    arguments: tuple


def run_all(executor: Executor, calls: Sequence[Call], done: bar | None = None) -> Iterator[bytes]:
    """The results in order; one that is lost is an error that names it."""
    settings = {"memory": current().memory, "seed": current().seed, "progress": False}
    futures: list[Future] = []
    try:
        for number, call in enumerate(calls):
            futures.append(executor.submit(_task, call.scope, number, os.getpid(), settings, call.function, call.arguments))
        for call, future in zip(calls, futures, strict=True):
            try:
                yield future.result()
            except Exception as error:
                if not _lost(error):
                    error.add_note(f"in {call.name}")
                raise
            if done is not None:
                done.update()
    except Exception as error:
        if not _lost(error):
            raise
        raise _lost_error(calls, error) from error
    finally:
        for future in futures:
            future.cancel()


def _lost(error: Exception) -> bool:
    return isinstance(error, BrokenExecutor) or type(error).__name__ in ("KilledWorker", "CommClosedError", "CancelledError")


def _lost_error(calls: Sequence[Call], error: Exception) -> RuntimeError:
    """Where a worker dies the pool is broken for all: those begun and not ended are where it happened."""
    marks = [_mark(call.scope, number) for number, call in enumerate(calls)]
    open_ = [
        call.name for call, mark in zip(calls, marks, strict=True) if mark.exists() and not mark.with_suffix(".end").exists()
    ]
    reason = str(error).partition("\n")[0] or type(error).__name__
    return RuntimeError(
        f"the worker died in {', '.join(open_) or 'a shard not begun'} ({reason}): a smaller chunk= takes less memory"
    )


def _mark(scope: Path, number: int) -> Path:
    return scope.with_name(f"{number}.begun")


def _task(
    scope: Path, number: int, parent: int, settings: dict[str, Any], function: Callable[..., bytes], arguments: tuple
) -> bytes:
    mark = _mark(scope, number)
    mark.touch()
    if os.getpid() != parent:
        torch.set_num_threads(1)  # the workers share the cores
    with _one_at_a_time, options(**settings):
        found = function(_loaded(scope), *arguments)
    mark.with_suffix(".end").touch()
    return found


def _swept(scope: Scope, packed: bytes, how: dict[str, Any]) -> bytes:
    samples, reducers = unpack(scope, packed)
    covered = gradient_sweep(scope, samples, reducers, progress=False, **how)
    return pack(scope, (reducers, covered.weights, covered.by_reference))


@contextmanager
def shipped(scopes: Iterable[Scope]) -> Iterator[list[Path]]:
    """Each model, with its tokenizer and its loss, as a file."""
    with tempfile.TemporaryDirectory(prefix="tensorscope-") as folder:
        files: list[Path] = []
        for scope in scopes:
            files.append(Path(folder) / f"{len(files)}.pt")
            try:
                torch.save((scope.model, scope.tokenizer, scope.rule.custom, scope.name), files[-1])
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise ValueError(
                    f"{scope.name} cannot be sent to workers ({error}): define its class and its loss= in a module"
                ) from error
        yield files


@lru_cache(maxsize=1)
def _loaded(file: Path) -> Scope:
    from tensorscope_nb.scope import Scope

    model, tokenizer, loss, name = torch.load(file, weights_only=False)
    return Scope(model, tokenizer, loss, name=name)


def pack(scope: Scope, value: Any) -> bytes:
    """Pickled, but for the model and its parts, which every worker has."""
    names = {id(scope): ("scope", ""), id(scope.anatomy): ("anatomy", "")}
    names |= {id(module): ("module", path) for path, module in scope.model.named_modules()}
    names |= {id(parameter): ("parameter", name) for name, parameter in scope.model.named_parameters()}

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            return names.get(id(thing))

    buffer = io.BytesIO()
    Pickler(buffer).dump(value)
    return buffer.getvalue()


def unpack(scope: Scope, packed: bytes) -> Any:
    class Unpickler(pickle.Unpickler):
        def persistent_load(self, saved: tuple[str, str]) -> Any:
            kind, name = saved
            found: dict[str, Callable[[], Any]] = {
                "scope": lambda: scope,
                "anatomy": lambda: scope.anatomy,
                "module": lambda: scope.model.get_submodule(name),
                "parameter": lambda: scope.model.get_parameter(name),
            }
            return found[kind]()

    return Unpickler(io.BytesIO(packed)).load()
