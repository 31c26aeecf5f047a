import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from views.synthetic import ablation, heads, patterns, samples
from views.test_export import state_of

import tensorscope_nb.views.live as live_module
from tensorscope_nb.views import Composition, Focus, HeadGrid, Live, SampleTable, Timeline, export_html, view
from tensorscope_nb.views.dashboard import dashboard


def of_samples(n: int, ds: xr.Dataset | None = None, of: int = 40) -> xr.Dataset:
    """A result as it is after ``n`` samples of 40."""
    made = (ablation() if ds is None else ds) * (n / of)
    for name in made.data_vars:
        made[name].attrs = (ablation() if ds is None else ds)[name].attrs
    made.attrs["tensorscope"] = json.dumps({"partial": True, "n_used": n, "n_available": of} if n < of else {"model": "tiny"})
    return made


def sent(shown: Any, name: str) -> np.ndarray:
    return np.frombuffer(shown.cube.data["variables"][name]["data"], "<f4")


def click(live: Live, ask: str) -> None:
    """What the page sends when a button is clicked."""
    live._handle_custom_msg({"ask": ask}, [])


def test_it_is_empty_until_the_first_result() -> None:
    live = Live()
    assert live.parts == [] and live.children == [] and repr(live) == "Live(no results yet)"
    assert live.status == {"state": "idle", "done": 0.0, "text": "", "start": False, "stop": False}
    live.show({})
    live.show({"one": xr.Dataset({"total": 1.0})})
    assert live.parts == []
    live.show({"one": xr.Dataset({"total": 1.0}), "ablation": ablation()})
    assert [part.kind for part in live.parts] == ["HeadGrid", "SampleTable"]


def test_new_values_come_into_the_views_that_are_there() -> None:
    live = Live()
    live.show({"ablation": of_samples(12)})
    grid, rows = live.parts
    cube, dashboard_before = grid.cube, live.children[0]
    grid.settings, rows.settings = {"compare": None}, {"sort": {"column": "loss_increase_by_sample", "descending": True}}
    live.focus["layer"] = 1
    live.show({"ablation": of_samples(40)})
    assert live.parts == [grid, rows] and live.children == [dashboard_before]
    assert grid.cube is cube and rows.settings["sort"]["descending"]
    np.testing.assert_allclose(sent(grid, "loss_increase"), ablation()["loss_increase"].values.ravel(), rtol=1e-6)
    np.testing.assert_allclose(
        sent(rows, "loss_increase_by_sample").sum(), ablation()["loss_increase_by_sample"].sum(), rtol=1e-6
    )
    assert live.focus.cursor == {"layer": 1}


def test_what_has_not_changed_is_not_sent_again() -> None:
    live = Live()
    live.show({"heads": heads()})
    heard: list[Any] = []
    live.parts[0].cube.observe(heard.append, "data")
    live.show({"heads": heads()})
    assert heard == []
    live.show({"heads": heads().assign(copying=heads()["copying"] * 2)})
    assert len(heard) == 1


def test_more_samples_and_checkpoints_come_into_the_same_views() -> None:
    live = Live()
    live.show({"heads": heads().isel(checkpoint=slice(3)), "losses": samples(20)})
    grid, _, line, rows = former = live.parts
    live.show({"heads": heads(), "losses": samples(200)})
    assert live.parts == former
    assert grid.cube.data["dims"]["checkpoint"] == 8 and rows.cube.data["dims"]["sample"] == 200
    assert grid.cube is line.cube


def test_another_result_joins_and_the_others_stay() -> None:
    live = Live()
    live.show({"heads": heads()})
    grid, line = live.parts
    grid.settings = {"compare": None}
    live.show({"heads": heads(), "ablation": ablation()})
    assert [part.kind for part in live.parts] == ["HeadGrid", "HeadGrid", "Timeline", "SampleTable"]
    assert live.parts[0] is grid and live.parts[2] is line and grid.comm is not None
    assert len({part.focus_model.model_id for part in live.parts}) == 1
    live.show({"ablation": ablation()})
    assert [part.kind for part in live.parts] == ["HeadGrid", "SampleTable"] and grid.comm is None


def test_other_variables_or_dimensions_make_other_views() -> None:
    live = Live()
    live.show({"heads": heads(), "ablation": ablation()})
    former = live.parts
    live.show({"heads": heads().isel(head=0, drop=True), "ablation": ablation()})
    assert [part.kind for part in live.parts] == ["HeadGrid", "Timeline", "SampleTable"]
    assert live.parts[0] is former[1] and former[0].comm is None
    live.show({"heads": heads().isel(head=0, drop=True).assign(extra=("layer", [1.0, 2.0])), "ablation": ablation()})
    assert live.parts[0] is former[1]


def test_a_view_of_one_result_elsewhere_keeps_its_values() -> None:
    live, ds = Live(), of_samples(12)
    live.show({"ablation": ds})
    aside = HeadGrid(ds)
    before = sent(aside, "loss_increase").copy()
    live.show({"ablation": of_samples(40)})
    np.testing.assert_array_equal(sent(aside, "loss_increase"), before)
    assert aside.cube.data["partial"] and not live.parts[0].cube.data["partial"]


def test_a_heavy_result_is_sent_no_faster_than_its_rate_and_whole_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "RATE", 1)
    live = Live()
    live.report(0.1, "")
    live.show({"patterns": patterns()})
    cube = live.parts[0].cube
    before = bytes(cube.data["variables"]["pattern"]["data"])
    live.show({"patterns": patterns().assign(pattern=patterns()["pattern"] / 2)})
    assert bytes(cube.data["variables"]["pattern"]["data"]) == before
    live.finish("done", "")
    assert bytes(cube.data["variables"]["pattern"]["data"]) != before


def test_the_line_goes_from_idle_over_running_to_an_end() -> None:
    live = Live(start=lambda: None)
    assert live.status["start"] and not live.status["stop"]
    live.report(0.3, "gradients: 12 of 40 samples, about 8 s left")
    assert live.status["state"] == "running" and live.status["done"] == 0.3
    live.report(7, "more than all")
    assert live.status["done"] == 1.0
    live.report(0.5, "")
    live.finish("stopped", "20 of 40 samples")
    assert live.status == {"state": "stopped", "done": 0.5, "text": "20 of 40 samples", "start": True, "stop": False}
    live.report(0.6, "again")
    live.finish("done", "40 samples in 3 s")
    assert live.status["state"] == "done" and live.status["done"] == 1.0
    with pytest.raises(ValueError, match="finish takes done, stopped or failed; 'idle' came"):
        live.finish("idle", "")  # type: ignore[arg-type]


def test_the_buttons_start_once_and_stop_what_runs() -> None:
    asked: list[str] = []
    live = Live(start=lambda: asked.append("start"), stop=lambda: asked.append("stop"))
    click(live, "stop")
    click(live, "start")
    click(live, "start")
    assert asked == ["start"] and live.status["state"] == "running"
    click(live, "stop")
    live.finish("stopped", "")
    click(live, "stop")
    click(live, "start")
    click(live, "anything")
    assert asked == ["start", "stop", "start"]


def test_a_start_that_fails_says_so_in_one_line() -> None:
    def start() -> None:
        raise RuntimeError("no model\nat hand")

    live = Live(start=start)
    click(live, "start")
    assert live.status["state"] == "failed" and live.status["text"] == "RuntimeError: no model at hand"


def test_results_come_from_a_thread_of_their_own() -> None:
    live = Live()
    problems: list[BaseException] = []

    def work(part: int) -> None:
        try:
            for n in range(1, 21):
                live.report(n / 20, f"{n} of 20")
                live.show({"ablation": of_samples(n, of=20), **({"heads": heads()} if n > 5 + part else {})})
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    live.finish("done", "")
    assert problems == [] and {part.kind for part in live.parts} == {"HeadGrid", "Timeline", "SampleTable"}
    np.testing.assert_allclose(sent(live.parts[0], "loss_increase"), ablation()["loss_increase"].values.ravel(), rtol=1e-6)


def marks(made: Any) -> set[str]:
    return {part.cube.data["partial"] for part in made.parts}


def test_every_view_of_a_partial_result_says_so() -> None:
    assert marks(view(of_samples(12))) == {"partial: 12 of 40 samples"}
    assert marks(SampleTable({"a": ablation(), "b": of_samples(12)})) == {"partial: 12 of 40 samples"}
    assert marks(dashboard({"ablation": of_samples(12), "whole": of_samples(40)})) == {"partial: 12 of 40 samples", ""}
    some = heads().assign_attrs(tensorscope=json.dumps({"partial": True, "n_done": 3, "n_members": 9}))
    assert marks(HeadGrid(some) | Timeline(some)) == {"partial: 3 of 9 checkpoints"}
    assert marks(view(some.rename(checkpoint="model"))) == {"partial: 3 of 9 models"}
    for other in ("no JSON", "[]", "{}", None, '{"partial": false, "n_used": 40, "n_available": 40}'):
        assert marks(view(heads().assign_attrs(tensorscope=other))) == {""}


@pytest.mark.browser
def test_the_notes_of_a_result_are_there_to_be_read(page_of: Any) -> None:
    notes = ["one sample cannot be split", "nothing is predicted in half precision"]
    page = page_of(view(heads().assign_attrs(tensorscope=json.dumps({"notes": notes})), "prefix_matching"))
    held = page.locator("[data-ts-view=HeadGrid] .ts-notes")
    assert held.locator("summary").text_content() == "2 notes" and not held.locator("p").first.is_visible()
    held.locator("summary").focus()
    page.keyboard.press("Enter")
    assert held.locator("p").all_text_contents() == notes and held.locator("p").first.is_visible()
    assert page.locator("[data-ts-view=HeadGrid] .ts-notes").count() == 1 and page.problems == []
    plain = page_of(view(heads(), "prefix_matching"))
    assert not plain.locator(".ts-notes").first.is_visible()


def test_the_mark_goes_when_the_result_is_complete() -> None:
    live = Live()
    live.show({"ablation": of_samples(12)})
    assert marks(live) == {"partial: 12 of 40 samples"}
    live.show({"ablation": of_samples(40)})
    assert marks(live) == {""}
    ds = of_samples(12)
    first = HeadGrid(ds).cube
    ds.attrs = {}
    assert HeadGrid(ds).cube is not first


def test_a_dict_of_datasets_makes_a_dashboard() -> None:
    made = dashboard({"heads": heads(), "ablation": ablation()}, focus=(focus := Focus(layer=1)))
    assert isinstance(made, Composition) and made.focus is focus
    assert [part.kind for part in made.parts] == ["HeadGrid", "HeadGrid", "Timeline", "SampleTable"]


def test_it_stands_beside_other_views_under_one_focus() -> None:
    live = Live()
    both = HeadGrid(heads()) | live
    live.show({"ablation": ablation()})
    assert {part.focus_model.model_id for part in both.parts} == {both.focus.model.model_id}
    assert [part.kind for part in both.parts] == ["HeadGrid", "HeadGrid", "SampleTable"]


def test_an_empty_one_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results in this view yet") as caught:
        export_html(Live(), tmp_path / "a.html")
    assert "\n" not in str(caught.value)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("running", "Partial resultsthe run was not done when this was saved"),
        ("stopped", "Partial results12 of 40 samples"),
        ("failed", "Failedout of memory"),
        ("done", None),
    ],
)
def test_a_file_has_the_dashboard_and_says_what_is_partial(tmp_path: Path, page_of: Any, state: Any, words: str | None) -> None:
    live = Live(start=lambda: None, stop=lambda: None)
    live.report(0.3, "12 of 40 samples, about 8 s left")
    live.show({"ablation": of_samples(40 if state == "done" else 12)})
    if state != "running":
        live.finish(state, {"stopped": "12 of 40 samples", "failed": "out of memory", "done": ""}[state])
    path = export_html(live, tmp_path / "a.html")
    assert sum("data" in model for model in state_of(path)["models"].values()) == 2
    page = page_of(path)
    page.locator("[data-ts-view=HeadGrid] canvas").wait_for()
    bar = page.locator("[data-ts-run]")
    assert bar.is_visible() == (words is not None) and bar.get_by_role("button").count() == 0
    if words:
        assert bar.locator(".ts-run-lead").text_content() + bar.locator(".ts-run-line").text_content() == words
    mark = page.locator("[data-ts-view=HeadGrid] .ts-partial")
    assert mark.is_visible() == (words is not None)
    assert not words or mark.text_content() == "partial: 12 of 40 samples"
    assert page.problems == []
