"""Lists of single weights: as a result, a table or a file names them, checked against the model that they are said to be of."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.recipes.recipe import weights_of
from tensorscope_nb.scope.nearest import nearest
from tensorscope_nb.scope.reference import parameters_at

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from torch import Tensor

    from tensorscope_nb.scope import Scope

Place = tuple[int, ...] | int  # one number for each axis, or one alone that counts row by row
ROUNDING = 1e-15  # relative: what reading decimals may change of a value
NUMPY = re.compile(r"np\.int\d+\((-?\d+)\)")
TABLE = "'layer' (or 'parameter') and 'indices'"


@dataclass(frozen=True)
class WeightList:
    """Single weights of one model, in order, each once; with the list of the least of them, where there is one."""

    parameters: np.ndarray  # (k,) names, as in model.named_parameters()
    index: np.ndarray  # (k,) of each in its parameter, row by row
    bottom: WeightList | None = None
    metric: str = ""  # what they were ranked by, and the fingerprint of the samples, where that is known
    data: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, scope: Scope, given: Any, bottom: Any = None) -> WeightList:
        """From a ``critical_weights``, a table of ``weight_table`` or like it, or the path of its CSV file.

        ``bottom`` is a table or a file of the least ones. Beside a file ``top_….csv`` a file ``bottom_….csv`` is taken for it.
        """
        import pandas as pd
        import xarray as xr

        if isinstance(given, xr.Dataset):
            said = json.loads(given.attrs.get("tensorscope", "{}"))
            found = cls._of(scope, _frame(given, False), "the list")
            found = replace(found, metric=said.get("metric", ""), data=said.get("data", ""))
            if bottom is None and "bottom_index" in given:
                bottom = _frame(given, True)
        elif isinstance(given, str | Path):
            path = Path(given)
            found = cls._of(scope, _file(path), path.name)
            beside = path.with_name(path.name.replace("top_", "bottom_", 1))
            if bottom is None and path.name.startswith("top_") and beside.exists():
                bottom = beside
        elif isinstance(given, pd.DataFrame):
            found = cls._of(scope, given, "the table")
        else:
            raise TypeError(
                f"weights is a {type(given).__name__}: give the result of critical_weights, a table with the columns {TABLE}, or "
                "the path of a CSV file"
            )
        if bottom is None:
            return found
        if isinstance(bottom, xr.Dataset):
            bottom = _frame(bottom, "bottom_index" in bottom)
        elif not isinstance(bottom, pd.DataFrame | str | Path):
            raise TypeError(f"bottom is a {type(bottom).__name__}: give a table, or the path of a CSV file")
        table = bottom if isinstance(bottom, pd.DataFrame) else _file(Path(bottom))
        return replace(found, bottom=cls._of(scope, table, "the bottom list"))

    @classmethod
    def _of(cls, scope: Scope, table: pd.DataFrame, what: str) -> WeightList:
        if not len(table):
            raise ValueError(f"{what} is empty: it names no weight")
        names = [column for column in ("parameter", "layer") if column in table]
        if not names or not {"indices", "index"} & set(table):
            raise ValueError(f"{what} has the columns {', '.join(map(str, table))}: it needs {TABLE}")
        notes = _check_model(scope, table, what)
        if "rank" in table:
            table = table.assign(rank=_numbers(table, "rank", what)).sort_values("rank", kind="stable")
        known = _Names(scope)
        places = table["indices"] if "indices" in table else table["index"]
        read = [known.resolved(name, _place(place)) for name, place in zip(table[names[0]], places, strict=True)]
        found = cls(np.array([name for name, _ in read], dtype=object), np.array([i for _, i in read]), notes=notes)
        found._check_once(what)
        if names == ["parameter", "layer"]:
            for own, layer in dict.fromkeys(zip(found.parameters.tolist(), table["layer"], strict=True)):
                known.check_inside(own, layer, what)
        if "value" in table:
            found._check_values(scope, _numbers(table, "value", what))
        return found

    def __len__(self) -> int:
        return len(self.index)

    def at(self, rows: Any) -> WeightList:
        """Some of them, and no bottom list."""
        return replace(self, parameters=self.parameters[rows], index=self.index[rows], bottom=None)

    @property
    def modules(self) -> list[str]:
        """The path of each one's module."""
        return [name.rpartition(".")[0] for name in self.parameters]

    def by_parameter(self) -> dict[str, np.ndarray]:
        """Which rows of the list are of each parameter, in order."""
        return {name: np.flatnonzero(self.parameters == name) for name in dict.fromkeys(self.parameters)}

    def inside(self, scope: Scope, modules: str | Sequence[str] | None) -> WeightList:
        """Those that are in some modules: globs of module paths or of parameter names, each of which must find some."""
        if modules is None:
            return self
        patterns = [modules] if isinstance(modules, str) else modules
        if not isinstance(patterns, Sequence) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise ValueError(f"modules is {modules!r}: give a module path, a glob such as '*.mlp.*', or a list of them")
        keep = np.zeros(len(self), dtype=bool)
        for pattern in patterns:
            rows = np.isin(self.parameters, list(parameters_at(scope.model, pattern)))
            if not rows.any():
                there = ", ".join(list(dict.fromkeys(self.modules))[:3])
                raise LookupError(f"no weight of the list is in {pattern!r}: there are some in {there}")
            keep |= rows
        return replace(self, parameters=self.parameters[keep], index=self.index[keep])

    def _check_once(self, what: str) -> None:
        seen: set[tuple[str, int]] = set()
        for entry in zip(self.parameters.tolist(), self.index.tolist(), strict=True):
            if entry in seen:
                raise ValueError(f"{what} names entry {entry[1]} of {entry[0]} twice: each weight counts once")
            seen.add(entry)

    def _check_values(self, scope: Scope, values: np.ndarray) -> None:
        for name, rows in self.by_parameter().items():
            p = scope.model.get_parameter(name)
            here = p.detach().cpu().take(_tensor(self.index[rows])).double().numpy()
            given = values[rows]
            off = ~np.isnan(given) & (np.abs(here - given) > ROUNDING * np.abs(here))
            if off.any():
                i = int(np.flatnonzero(off)[0])
                raise ValueError(
                    f"entry {self.index[rows][i]} of {name} is {here[i]:.9g}, and the list says {given[i]:.9g}: it is of other "
                    "weights, rank those of this model"
                )


class _Names:
    """The parameters of a model by all their names; a tied weight has several."""

    def __init__(self, scope: Scope) -> None:
        self._model = scope.model
        own = {id(p): name for name, p in scope.model.named_parameters()}
        every = scope.model.named_parameters(remove_duplicate=False)
        self._own: Mapping[str, str] = {name: own[id(p)] for name, p in every}
        self._modules = dict(scope.model.named_modules(remove_duplicate=False))

    def resolved(self, name: Any, place: Place) -> tuple[str, int]:
        """The parameter and the flat index, of a parameter or a module and a place in it."""
        own = self._own.get(name) or self._of_module(name, place)
        p = self._model.get_parameter(own)
        if not p.is_floating_point() or not p.requires_grad:
            why = "is frozen: set requires_grad on it" if p.is_floating_point() else f"holds {p.dtype} and no real numbers"
            raise ValueError(f"{own} {why}, or leave its weights out of the list")
        if isinstance(place, int):
            inside = 0 <= place < p.nelement()
        else:
            inside = len(place) == p.ndim and all(0 <= i < n for i, n in zip(place, p.shape, strict=True))
        if not inside:
            raise ValueError(f"{place} is no entry of {own}, whose shape is {tuple(p.shape)}")
        return own, place if isinstance(place, int) else int(np.ravel_multi_index(place, p.shape)) if place else 0

    def check_inside(self, own: str, layer: Any, what: str) -> None:
        """Raises where a parameter is said to be in a layer (by a module's path or a parameter's name) that it is not in."""
        names = [name for name, known in self._own.items() if known == own]
        if layer not in names and layer not in [name.rpartition(".")[0] for name in names]:
            raise ValueError(f"{what} says that {own} is in the layer {layer!r}, and it is not: mend it, or leave one column out")

    def _of_module(self, name: Any, place: Place) -> str:
        if not isinstance(name, str) or name not in self._modules:
            raise LookupError(f"there is no parameter or module {name!r}: {nearest(str(name), [*self._own, *self._modules])}")
        axes = {n: p.ndim for n, p in self._modules[name].named_parameters(prefix=name, recurse=False, remove_duplicate=False)}
        fitting = [n for n, ndim in axes.items() if isinstance(place, int) or ndim == len(place)]
        if not fitting:
            shapes = ", ".join(f"{n} {tuple(self._model.get_parameter(n).shape)}" for n in axes) or "no parameter of its own"
            raise LookupError(f"{place} is no place in {name}, which has {shapes}")
        if len(fitting) > 1:
            raise LookupError(f"{place} in {name} may be of {', '.join(axes)}: name the parameter")
        return self._own[fitting[0]]


def weight_table(result: xr.Dataset, bottom: bool = False) -> pd.DataFrame:
    """The list of a ``critical_weights`` as a table, to be written to a file and read by ``perturbation``: one row per weight.

    Columns: rank, layer (the module's path, as ``modules=`` takes it), indices (such as ``(3, 17)``), sensitivity, value,
    parameter, fingerprint (of the model's weights). ``bottom`` gives the least ones, for a file of their own: beside
    ``top_….csv``, ``perturbation`` finds ``bottom_….csv``.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> found = ts.recipes.critical_weights(scope, ts.datasets.shakespeare(scope, n=4, length=16), top=3)
    >>> ts.recipes.weight_table(found).columns.tolist()
    ['rank', 'layer', 'indices', 'sensitivity', 'value', 'parameter', 'fingerprint']
    """
    frame = _frame(result, bottom)
    shapes = dict(json.loads(result.attrs["tensorscope"])["parameters"])
    places = [np.unravel_index(i, shapes[name]) for name, i in zip(frame["parameter"], frame["index"], strict=True)]
    frame["indices"] = [str(tuple(map(int, place))) for place in places]
    return frame[["rank", "layer", "indices", "sensitivity", "value", "parameter", "fingerprint"]]


def _frame(result: xr.Dataset, bottom: bool) -> pd.DataFrame:
    """The weights of a ``critical_weights``, one row each, with their flat indices."""
    import pandas as pd
    import xarray as xr

    before = "bottom_" if bottom else ""
    columns = {"parameter": "parameter_name", "layer": "module_path", "index": "index", "value": "value"}
    columns["sensitivity"] = "sensitivity"
    there = set(result.variables) if isinstance(result, xr.Dataset) else set()
    wanted = [before + name for name in columns.values()] + ["rank"]
    if lacks := [name for name in wanted if name not in there]:
        part = "bottom" if bottom else "top"
        raise ValueError(f"this is no result of critical_weights with a {part} list: {lacks[0]} is missing")
    found = pd.DataFrame({column: result[before + name].values for column, name in columns.items()})
    found["rank"] = np.arange(1, 1 + len(found)) if bottom else result["rank"].values
    found["fingerprint"] = json.loads(result.attrs.get("tensorscope", "{}")).get("weights", "")
    return found


def _numbers(table: pd.DataFrame, column: str, what: str) -> np.ndarray:
    import pandas as pd

    found: np.ndarray = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    if len(wrong := np.flatnonzero(np.isnan(found) & table[column].notna())):
        raise ValueError(f"{what} has the {column} {table[column].iloc[wrong[0]]!r} in row {wrong[0]}: give numbers")
    return found


def _file(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return pd.read_csv(path, dtype={"indices": str, "fingerprint": str})  # 12e4… is no number
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table of weights: {error}") from None


def _check_model(scope: Scope, table: pd.DataFrame, what: str) -> tuple[str, ...]:
    """Raises where a list says that it is of other weights; what is to be said where it says nothing."""
    said = set(table["fingerprint"].dropna()) - {""} if "fingerprint" in table else set()
    if other := said - {weights_of(scope)}:
        raise ValueError(
            f"{what} is of other weights than {scope.name} has (fingerprint {min(map(str, other))}, here {weights_of(scope)}): "
            "rank those of this model, or load the model that it is of"
        )
    return () if said else (f"{what} does not say which model's weights it names: that they are those of this one is not known",)


def _place(given: Any) -> Place:
    """From ``(3, 17)``, ``[3, 17]`` or ``3``, as numbers or as text, also where numpy wrote it: ``(np.int64(3), …)``."""
    try:
        read = ast.literal_eval(NUMPY.sub(r"\1", given)) if isinstance(given, str) else given
    except (ValueError, SyntaxError):
        read = None
    several = isinstance(read, tuple | list | np.ndarray)
    each = list(read) if several else [read]
    if all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in each):
        return tuple(map(int, each)) if several else int(each[0])
    raise ValueError(f"{given!r} is no place of a weight: give its indices, such as (3, 17)")


def _tensor(index: np.ndarray) -> Tensor:
    import torch

    return torch.as_tensor(index, dtype=torch.long)
