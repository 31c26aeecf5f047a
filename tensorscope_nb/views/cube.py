"""Cube: a Dataset as the front end holds it. Typed arrays in binary buffers, sent once, shared by every view of it."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets as t

from tensorscope_nb.views.partial import notes_of, partial_words
from tensorscope_nb.views.rules import ALONE, BASES, base_name, names_of, parts_of
from tensorscope_nb.views.runtime import SILENT

if TYPE_CHECKING:
    import xarray as xr

MEGABYTE = 2**20
#: What the attention patterns of one Cube may weigh; 64 samples of 8 heads at length 64 fit.
PATTERN_BUDGET = 8 * MEGABYTE
# What a variable says of itself: its name and unit, what its interval, null and flag are, why it may have no value, and how
# it is reduced where a view asks for no other way (dot products by module add up: "sum"); ``signed`` where a sign means
# something also when all values happen to have the same.
WORDS = ("long_name", "units", "interval", "null", "rule", "marks", "nan", "reduce", "signed")
# ``strongest`` is the one that is furthest from 0, with its sign.
REDUCTIONS = ("mean", "max", "min", "sum", "first", "strongest")
#: What any single variable may weigh.
MOST = 64 * MEGABYTE


class Cube(anywidget.AnyWidget):
    """The variables of one Dataset in the page.

    >>> import numpy as np, xarray as xr
    >>> ds = xr.Dataset({"score": (("layer", "head"), np.zeros((2, 4)))})
    >>> cube = Cube.of(ds, ["score"])
    >>> cube
    Cube(score [layer 2, head 4], 32 bytes)
    >>> Cube.of(ds, ["score"]) is cube
    True
    """

    _esm = SILENT
    data = t.Dict().tag(sync=True)

    def __init__(self, data: dict[str, Any], digests: dict[str, bytes], budget: int = PATTERN_BUDGET) -> None:
        super().__init__(data=data)
        self._digests = digests
        self._budget = budget

    @classmethod
    def of(cls, source: xr.Dataset | xr.DataArray, names: Iterable[str], *, budget: int = PATTERN_BUDGET) -> Cube:
        """The Cube of a Dataset, holding at least these variables.

        The same object for the same Dataset for as long as some view holds it and its values have not changed since.
        """
        data, digests = _packed(dataset_of(source), names, budget)
        cube = _known(source)
        if cube is None or cube._differs(data) or any(cube._digests.get(n, d) != d for n, d in digests.items()):
            cube = cls(data, digests, budget)
            _remember(source, cube)
        elif digests.keys() - cube._digests.keys():
            cube._digests.update(digests)
            cube.data = {**data, "variables": {**data["variables"], **cube.data["variables"]}}
        cube._budget = max(cube._budget, budget)
        return cube

    def update(self, source: xr.Dataset | xr.DataArray) -> None:
        """Hold the values of another Dataset with the same variables: every view of this Cube shows them, set as it is."""
        data, digests = _packed(dataset_of(source), list(self._digests), self._budget)
        if self._differs(data) or digests != self._digests:
            self._digests = digests
            self.data = data

    def _differs(self, data: dict[str, Any]) -> bool:
        return any(data[key] != self.data[key] for key in ("coords", "partial", "notes"))

    @property
    def nbytes(self) -> int:
        """Bytes of its buffers."""
        return sum(v["data"].nbytes for v in self.data["variables"].values() if isinstance(v["data"], memoryview))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {dims_text(v['dims'], v['shape'])}" for name, v in self.data["variables"].items())
        return f"Cube({shown}, {self.nbytes} bytes)"


# A Dataset has no hash: the cache goes by identity, and an entry leaves with its Dataset.
_cubes: dict[int, tuple[weakref.ref[Any], Cube]] = {}


def _known(source: xr.Dataset | xr.DataArray) -> Cube | None:
    held, cube = _cubes.get(id(source), (None, None))
    return cube if held is not None and held() is source and cube is not None and cube.comm is not None else None


def _remember(source: xr.Dataset | xr.DataArray, cube: Cube) -> None:
    key = id(source)
    _cubes[key] = (weakref.ref(source, lambda _: _cubes.pop(key, None)), cube)


def dataset_of(source: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """A Dataset of what came: a DataArray is a Dataset of one variable."""
    import xarray as xr

    if isinstance(source, xr.Dataset):
        return source
    if isinstance(source, xr.DataArray):
        return source.to_dataset(name=source.name or "value")
    raise TypeError(f"a view shows an xarray Dataset or DataArray; {type(source).__name__} came")


def _packed(ds: xr.Dataset, names: Iterable[str], budget: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What travels, and a digest of each variable in it."""
    wires = {name: encode(ds, name, budget) for name in names}
    coords = {str(name): wire for name, c in ds.coords.items() if _followed(c) and (wire := _coordinate(c)) is not None}
    dims = {str(d): int(n) for d, n in ds.sizes.items()}
    data = {"dims": dims, "coords": coords, "variables": wires, "partial": partial_words(ds), "notes": notes_of(ds)}
    return data, {name: _digest(wire) for name, wire in wires.items()}


def encode(ds: xr.Dataset, name: str, budget: int = PATTERN_BUDGET) -> dict[str, Any]:
    """One variable on the wire. Floats travel as f32, attention patterns as f16, flags as u8, texts as lists."""
    array = ds[name]
    pattern = {"query", "key"} <= {str(d) for d in array.dims}
    # what adds up to a score is told to three digits, however small
    half = pattern and not parts_of([str(d) for d in array.dims])
    dtype, values = _typed(name, np.asarray(array.values), half=half)
    dims, shape = [str(d) for d in array.dims], list(array.shape)
    size = values.nbytes if isinstance(values, memoryview) else sum(len(v) for v in values)
    limit = budget if pattern else MOST
    if size > limit:
        longest = max(zip(shape, dims, strict=True))[1] if not pattern or "sample" not in dims else "sample"
        keep = max(1, int(limit / size * array.sizes[longest]))
        weight = f"weighs {size / MEGABYTE:.1f} MB in the page, over the budget of {limit / MEGABYTE:.1f} MB"
        raise ValueError(
            f"{name} {dims_text(dims, shape)} {weight}: show a part of it, ds.isel({longest}=slice({keep}))"
            + (", or raise budget=" if pattern else "")
        )
    attrs: dict[str, Any] = {key: str(array.attrs[key]) for key in WORDS if key in array.attrs}
    if attrs.get("reduce", "mean") not in REDUCTIONS:
        raise ValueError(f"the attribute reduce of {name} takes {', '.join(REDUCTIONS)}; it is {attrs['reduce']!r}")
    if "bounds" in array.attrs:
        attrs["bounds"] = [float(v) for v in np.ravel(array.attrs["bounds"])]
    return {"dims": dims, "shape": shape, "dtype": dtype, "attrs": attrs, "data": values}


def _typed(name: str, values: np.ndarray[Any, Any], half: bool) -> tuple[str, memoryview | list[str]]:
    kind = values.dtype.kind
    if kind == "f":
        return ("f16", _buffer(values, "<f2")) if half else ("f32", _buffer(values, "<f4"))
    if kind == "b":
        return "u8", _buffer(values, "u1")
    if kind in "iu":
        fits = values.size == 0 or (values.min() >= -(2**31) and values.max() < 2**31)
        return ("i32", _buffer(values, "<i4")) if fits else ("f64", _buffer(values, "<f8"))
    if kind in "OUST":
        return "text", [_text(v) for v in values.ravel().tolist()]
    raise ValueError(f"{name} has values of type {values.dtype}, which no view shows; convert it to numbers or strings")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _buffer(values: np.ndarray[Any, Any], dtype: str) -> memoryview:
    return memoryview(np.ascontiguousarray(values, dtype=dtype).tobytes())


def _followed(array: xr.DataArray) -> bool:
    """Whether the Focus may ask for a coordinate: it names a dimension, or something that dimensions follow by."""
    name = str(array.name)
    names = [n for d in array.dims for n in names_of(name, str(d))] or [name]
    return array.name in array.dims or any(n in (*BASES, *ALONE) or base_name(n) is not None for n in names)


def _coordinate(array: xr.DataArray) -> dict[str, Any] | None:
    if array.ndim > 1 or array.dtype.kind not in "biufOUST":
        return None
    values = np.atleast_1d(array.values).tolist()
    named = {key: str(array.attrs[key]) for key in ("long_name", "units") if key in array.attrs}
    return {"dims": [str(d) for d in array.dims], "values": [_json(v) for v in values], **({"attrs": named} if named else {})}


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, (int, bool, str)) else _text(value)


def _digest(wire: dict[str, Any]) -> bytes:
    data = wire["data"]
    content = data if isinstance(data, memoryview) else "\0".join(data).encode()
    head = repr((wire["dims"], wire["shape"], wire["dtype"], wire["attrs"])).encode()
    return hashlib.blake2b(content, key=hashlib.blake2b(head, digest_size=32).digest(), digest_size=16).digest()


def dims_text(dims: Iterable[str], shape: Iterable[int]) -> str:
    """Dimensions and their sizes, for people."""
    return f"[{', '.join(f'{d} {n}' for d, n in zip(dims, shape, strict=True))}]"
