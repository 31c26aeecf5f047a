import io
import math
import re

import h5netcdf
import hypothesis.extra.numpy as arrays
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorscope_nb.study.portable import from_bytes, to_bytes

TEXT = st.text(st.characters(codec=None), max_size=6)  # also lone surrogates and NUL
NAMES = st.one_of(
    st.sampled_from(["layer", "layers.0.attn", "a/b", ".", "_0", "né", "two words", "x ", "nul\0"]), TEXT.filter(bool)
)
DTYPES = ["?", "i1", "u1", "<i4", ">i4", "i8", "u8", "f2", "f4", ">f4", "f8", "M8[ns]", "m8[ns]", "U3", "O"]
ATTRIBUTES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def values(dtype: str, shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    if dtype == "O":
        return st.lists(TEXT, min_size=math.prod(shape), max_size=math.prod(shape)).map(lambda texts: objects(texts, shape))
    if dtype == "M8[ns]":
        days = arrays.arrays("i4", shape)
        return days.map(lambda days: days.astype("i8").astype("M8[s]").astype("M8[ns]"))
    return arrays.arrays(dtype, shape)


def objects(texts: list[str], shape: tuple[int, ...]) -> np.ndarray:
    found = np.empty(len(texts), dtype=object)
    found[:] = texts
    return found.reshape(shape)


@st.composite
def datasets(draw: st.DrawFn) -> xr.Dataset:
    names = draw(st.lists(NAMES, min_size=8, max_size=8, unique=True))
    dims = {name: draw(st.integers(0, 3)) for name in names[:3]}
    variables = {}
    for name in names[3 : draw(st.integers(3, 8))]:
        own = draw(st.lists(st.sampled_from(names[:3]), max_size=3, unique=True))
        found = draw(values(draw(st.sampled_from(DTYPES)), tuple(dims[dim] for dim in own)))
        variables[name] = xr.Variable(own, found, draw(st.dictionaries(TEXT, ATTRIBUTES, max_size=2)))
    coords = {name: variables.pop(name) for name in list(variables)[::2]}
    for name in draw(st.sets(st.sampled_from(names[:3]))):
        coords[name] = xr.Variable([name], draw(values(draw(st.sampled_from(["i8", "f8", "O", "U3"])), (dims[name],))))
    return xr.Dataset(variables, coords, draw(st.dictionaries(TEXT, ATTRIBUTES, max_size=3)))


def check(result: xr.Dataset) -> xr.Dataset:
    again = from_bytes(bytes(to_bytes(result)))
    xr.testing.assert_identical(again, result)
    assert {n: v.dtype for n, v in again.variables.items()} == {n: v.dtype for n, v in result.variables.items()}
    assert dict(again.sizes) == dict(result.sizes) and list(again.variables) == list(result.variables)
    assert again.attrs == result.attrs
    return again


@settings(max_examples=50)
@given(datasets())
def test_any_result_opens_as_it_was(result):
    check(result)


def test_what_results_hold():
    values = xr.Dataset(
        {
            "layers.0.attn": (("layer", "a/b"), np.array([[np.nan, np.inf], [-np.inf, -0.0]], dtype="f4"), {"units": "days since 2000-01-01"}),
            "flags": ("layer", np.array([True, False])),
            "scalar": ((), np.float32(3.5)),
            "word": ((), "é\0"),
            "large": ("layer", np.array([2**64 - 1, 0], dtype="u8")),
            "none": (("layer", "empty"), np.empty((2, 0), dtype=object)),
            "missing": ("layer", np.array(["a", None], dtype=object)),
        },
        {
            "layer": np.array([3, 1], dtype="i2"),
            "a/b": np.array(["\ud83d\ude00", "\U0001f600"], dtype=object),
            "task": ("layer", ["prose", "code"], {"_FillValue": 7, "coordinates": "no", "dtype": "bool"}),
            "depth": ("layer", [0.5, np.nan]),
            "checkpoint": 600,
        },
        {"a": None, "b": True, "one": [1], "nested": {"x": {"y": [None, False, {}]}}, "tensorscope": '{"n": 1}'},
    )  # fmt: skip
    again = check(values)
    assert again["a/b"].values.tolist() == ["\ud83d\ude00", "\U0001f600"]  # two lone surrogates are not the character
    assert math.copysign(1, again["layers.0.attn"].values[1, 1]) == -1
    assert again.attrs["b"] is True and again.attrs["one"] == [1] and again["missing"].isnull().values.tolist() == [False, True]
    check(xr.Dataset())
    check(xr.Dataset(coords={"layer": [1, 2]}, attrs={"long": "x" * 300_000}))


def test_attributes_of_numpy_become_those_of_python():
    attrs = {"scalar": np.float32(0.5), "flag": np.bool_(True), "array": np.arange(3), "pair": (1, 2), "text": np.str_("a")}
    again = from_bytes(bytes(to_bytes(xr.Dataset(attrs=attrs)))).attrs
    assert again == {"scalar": 0.5, "flag": True, "array": [0, 1, 2], "pair": [1, 2], "text": "a"} and again["flag"] is True
    xr.testing.assert_identical(xr.Dataset(attrs=again), xr.Dataset(attrs=attrs))


def test_how_another_file_was_packed_loses_nothing():
    result = xr.Dataset({"a": ("x", [0.123456789, 5.0])})
    result["a"].encoding = {"dtype": "i2", "scale_factor": 0.1, "_FillValue": -1}
    check(result)


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (xr.Dataset({"a": ("x", [1j])}), "'a' cannot be saved: it holds complex128, not numbers, truth values, times or text"),
        (xr.Dataset({"a": ("x", np.array([1, "b"], dtype=object))}), "'a' cannot be saved: it holds a int among its objects"),
        (xr.Dataset({"a": ("x", [1], {"of": {1: 2}})}), "an attribute of a cannot be saved: its key 1 is no text"),
        (xr.Dataset(attrs={"of": {1, 2}}), "an attribute of the result cannot be saved: it is a set"),
        (xr.Dataset({3: ("x", [1])}), "a result with the name 3 cannot be saved: names are text"),
        (xr.Dataset(coords=xr.Coordinates.from_pandas_multiindex(pd.MultiIndex.from_tuples([(0, 1)]), "x")), "'x' cannot be saved: it holds a tuple"),
    ],
)  # fmt: skip
def test_what_would_change_is_refused_by_name(result, says):
    with pytest.raises(TypeError, match=re.escape(says)):
        to_bytes(result)


def test_other_programs_read_the_file():
    """Plain names, dimensions and texts are those of the result."""
    result = xr.Dataset({"score": (("layer", "head"), np.eye(2))}, {"token": ("layer", ["ça", "猫"])})
    with h5netcdf.File(io.BytesIO(to_bytes(result)), "r") as file:
        assert file["score"].dimensions == ("layer", "head") and [token.decode() for token in file["token"][:]] == ["ça", "猫"]
