import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from views.synthetic import heads

from tensorscope_nb.views import Focus
from tensorscope_nb.views.rules import selection

CASES = json.loads((Path(__file__).parent / "focus_cases.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["why"])
def test_the_rules_are_those_of_the_front_end(case: dict[str, Any]) -> None:
    others = {name: (dim, values) for name, (dim, values) in case.get("others", {}).items()}
    found = selection(case["cursor"], case["coords"], others)
    assert {d: v if isinstance(v, list) else [v] for d, v in found.items()} == case["selected"]


def test_items_are_set_together_and_cleared() -> None:
    focus = Focus()
    focus["layer"], focus["head"] = 1, [2, 3]
    assert focus.cursor == {"layer": 1, "head": [2, 3]}
    del focus["layer"]
    assert "layer" not in focus and focus.get("layer") is None
    with pytest.raises(KeyError, match=r"nothing is selected along 'layer'; selected: head"):
        focus["layer"]
    with pytest.raises(KeyError):
        del focus["layer"]
    focus.clear()
    assert len(focus) == 0


def test_one_update_is_one_notification() -> None:
    focus, heard = Focus(), []
    focus.observe(heard.append)
    focus.update({"layer": 1, "head": 2})
    focus.update({"layer": 1})
    assert heard == [{"layer": 1, "head": 2}]
    focus.unobserve(heard.append)


@pytest.mark.parametrize(
    ("value", "kept"),
    [(np.int64(3), 3), (np.array(["a", "b"]), ["a", "b"]), (range(2), [0, 1]), ((1, 2), [1, 2]), (np.float32(0.5), 0.5)],
    ids=str,
)
def test_values_become_what_json_has(value: Any, kept: Any) -> None:
    assert Focus(x=value)["x"] == kept


@pytest.mark.parametrize("value", [{"a": 1}, object(), [[1]], slice(0, 2)], ids=["dict", "object", "nested", "slice"])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a Focus holds coordinate values"):
        Focus(x=value)


def test_an_empty_list_selects_nothing() -> None:
    assert Focus(x=[]).cursor == {}


def test_the_selection_works_with_sel() -> None:
    ds = heads()
    focus = Focus(checkpoint=870, layer=1, head=[2, 3], sample="elsewhere")
    assert focus.selection(ds) == {"checkpoint": 900, "layer": 1, "head": [2, 3]}
    assert ds["prefix_matching"].sel(**focus.selection(ds)).shape == (2,)
    assert Focus(position=1).selection(xr.DataArray(np.zeros((3, 3)), dims=("query", "key"))) == {"query": 1, "key": 1}


def from_the_page(focus: Focus, cursor: dict[str, Any], known: dict[str, Any]) -> None:
    focus.model.set_state({"cursor": cursor, "known": known})


def test_a_click_and_a_cell_that_set_something_at_the_same_time_both_count() -> None:
    focus, heard = Focus(layer=0), []
    focus.observe(heard.append)
    focus["sample"] = "s"
    from_the_page(focus, cursor={"layer": 1, "head": 2}, known={"layer": 0})
    assert focus.cursor == {"layer": 1, "head": 2, "sample": "s"}
    assert heard[-1] == focus.cursor and len(heard) == 2


def test_what_the_page_clears_is_cleared_and_what_a_cell_clears_stays_so() -> None:
    focus = Focus(layer=0, head=1)
    from_the_page(focus, cursor={"head": 1}, known={"layer": 0, "head": 1})
    assert focus.cursor == {"head": 1}
    focus = Focus(layer=0, head=1)
    del focus["head"]
    from_the_page(focus, cursor={"layer": 1, "head": 1}, known={"layer": 0, "head": 1})
    assert focus.cursor == {"layer": 1}


def test_what_the_page_said_before_may_be_said_again() -> None:
    focus = Focus()
    from_the_page(focus, cursor={"layer": 1}, known={})
    focus["sample"] = "s"
    from_the_page(focus, cursor={"layer": 1, "head": 2}, known={})
    assert focus.cursor == {"layer": 1, "head": 2, "sample": "s"}
