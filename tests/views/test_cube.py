import numpy as np
import pytest
import xarray as xr
from views.synthetic import heads, patterns

from tensorscope_nb.views import AttentionPattern, Cube, HeadGrid, Timeline, view
from tensorscope_nb.views.cube import encode

TYPES = {"f32": "<f4", "f16": "<f2", "f64": "<f8", "i32": "<i4", "u8": "u1"}


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([0.5, np.nan, -np.inf]), "f32"),
        (np.array([1.5, 2.0], dtype=">f4"), "f32"),
        (np.array([True, False]), "u8"),
        (np.array([-3, 2**31 - 1]), "i32"),
        (np.array([2**40, 1]), "f64"),
    ],
    ids=str,
)
def test_bytes_round_trip(values: np.ndarray, dtype: str) -> None:
    wire = encode(xr.Dataset({"x": ("point", values)}), "x")
    assert wire["dtype"] == dtype
    np.testing.assert_array_equal(np.frombuffer(wire["data"], TYPES[dtype]), values.astype(TYPES[dtype]))


def test_rows_come_in_the_order_of_the_dimensions() -> None:
    values = np.arange(6.0).reshape(2, 3)
    wire = encode(xr.Dataset({"x": (("layer", "head"), values)}).transpose("head", "layer"), "x")
    assert wire["dims"] == ["head", "layer"] and wire["shape"] == [3, 2]
    np.testing.assert_array_equal(np.frombuffer(wire["data"], "<f4"), values.T.ravel())


def test_patterns_travel_in_half_precision_within_their_error() -> None:
    ds = patterns()
    wire = encode(ds, "pattern")
    sent = np.frombuffer(wire["data"], "<f2").reshape(wire["shape"])
    np.testing.assert_allclose(sent, ds["pattern"].values, atol=2**-11)
    assert wire["data"].nbytes == ds["pattern"].size * 2


def test_texts_stay_texts() -> None:
    ds = xr.Dataset({"token": (("sample", "position"), np.array([["<script>", " the"], ["\n", ""]]))})
    assert encode(ds, "token")["data"] == ["<script>", " the", "\n", ""]


def test_coordinates_carry_what_the_focus_asks_for() -> None:
    coords = {
        "module": ["a", "b"],
        "module_layer": ("module", [0, -1]),
        "learning_rate": 0.1,
        "text": ("module", ["long", "long"]),
        "x": [np.nan, 1.0],
    }
    ds = xr.Dataset({"g": (("module", "x"), np.ones((2, 2)))}, coords)
    cube = Cube.of(ds, ["g"])
    assert cube.data["coords"]["module_layer"] == {"dims": ["module"], "values": [0, -1]}
    assert cube.data["coords"]["x"]["values"] == [None, 1.0]
    assert set(cube.data["coords"]) == {"module", "module_layer", "x"}
    assert cube.data["dims"] == {"module": 2, "x": 2}


def test_the_budget_is_kept_and_the_way_out_named() -> None:
    ds = patterns()
    size = ds["pattern"].size * 2
    AttentionPattern(ds, budget=size)
    with pytest.raises(
        ValueError, match=r"pattern \[sample 3, .*\] weighs .* MB .*over the budget.*isel\(sample=slice\(2\)\).*budget="
    ):
        AttentionPattern(ds, budget=size - 1)
    AttentionPattern(ds.isel(sample=slice(2)), budget=size - 1)


def test_what_cannot_travel_is_an_error() -> None:
    with pytest.raises(ValueError, match="complex128"):
        encode(xr.Dataset({"x": ("point", np.zeros(2, dtype=complex))}), "x")
    with pytest.raises(ValueError, match=r"x \[layer 0\] has no values"):
        view(xr.Dataset({"x": ("layer", np.zeros(0))}))
    with pytest.raises(TypeError, match="Dataset or DataArray; list came"):
        HeadGrid([1, 2])  # type: ignore[arg-type]


def test_views_of_one_dataset_share_one_cube() -> None:
    ds = heads()
    grid, line = HeadGrid(ds), Timeline(ds)
    assert grid.cube is line.cube
    assert HeadGrid(heads()).cube is not grid.cube


def test_a_cube_grows_by_what_another_view_needs() -> None:
    ds = heads()
    cube = Cube.of(ds, ["copying"])
    before = cube.data["variables"]["copying"]["data"]
    assert HeadGrid(ds, "previous_token").cube is cube
    assert {"copying", "previous_token", "ci_low"} <= set(cube.data["variables"])
    assert cube.data["variables"]["copying"]["data"] == before


def test_a_dataset_that_changed_gets_a_cube_of_its_new_values() -> None:
    ds = heads()
    first = Cube.of(ds, ["copying"])
    ds["copying"] = ds["copying"] * 2
    second = Cube.of(ds, ["copying"])
    assert second is not first
    np.testing.assert_array_equal(
        np.frombuffer(second.data["variables"]["copying"]["data"], "<f4"), ds["copying"].values.ravel().astype("f4")
    )
    ds["copying"].values[:] = 0
    assert Cube.of(ds, ["copying"]) is not second


def test_only_what_a_view_can_use_travels() -> None:
    ds = heads().assign(weights=("parameter", np.zeros(5000)))
    assert "weights" not in HeadGrid(ds).cube.data["variables"]
    assert "weights" not in Timeline(ds).cube.data["variables"]
