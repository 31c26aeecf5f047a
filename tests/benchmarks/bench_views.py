"""What the views cost: first paint, refocus, bytes on the wire, in the bundle and in a notebook."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
# From the data in the page (as buffers, not yet decoded) to the end of the first frame that shows them.
FIRST = """async () => {
  const state = JSON.parse(document.getElementById("state").textContent);
  const code = new Blob([document.getElementById("bundle").textContent.replaceAll("<\\\\/", "</")], { type: "text/javascript" });
  const module = await import(URL.createObjectURL(code));
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const revive = (x) => Array.isArray(x) ? x.map(revive) : x === null || typeof x !== "object" ? x
    : "base64" in x ? bytes(x.base64) : Object.fromEntries(Object.entries(x).map(([k, v]) => [k, revive(v)]));
  const times = [];
  for (let i = 0; i < 7; i++) {
    const models = Object.fromEntries(Object.entries(state.models).map(([ref, saved]) => {
      const own = revive(saved);
      return [ref, { get: (n) => own[n], set: (n, v) => (own[n] = v), save_changes() {}, on() {} }];
    }));
    const el = document.body.appendChild(document.createElement("div"));
    const stop = new AbortController();
    const start = performance.now();
    await module.default.initialize().render({ model: models[state.root], el, host: { getModel: async (r) => models[r] }, signal: stop.signal });
    await new Promise((done) => requestAnimationFrame(() => { const c = new MessageChannel(); c.port1.onmessage = done; c.port2.postMessage(0); }));
    times.push(performance.now() - start);
    stop.abort();
    el.remove();
  }
  return times;
}"""
REFOCUS = """async () => {
  const canvas = document.querySelector("[data-ts-view=HeadGrid] canvas");
  canvas.focus();
  const times = [];
  for (let i = 0; i < 60; i++) {
    const key = ["ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown"][i % 4];
    const start = performance.now();
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    times.push(performance.now() - start);
    await new Promise((done) => requestAnimationFrame(done));
  }
  return times;
}"""


def main() -> None:
    from tensorscope_nb.views import Cube, Matrix
    from tensorscope_nb.views.runtime import BUNDLE

    million = xr.Dataset({"cka": (("sample_a", "sample_b"), np.random.default_rng(0).random((1000, 1000), dtype="f4"))})
    line("bundle, KB", BUNDLE.stat().st_size / 1000, "<= 150")
    cube = Cube.of(million, ["cka"])
    header = len(json.dumps({k: v for k, v in cube.data.items() if k != "variables"}))
    names = {n: {k: x for k, x in v.items() if k != "data"} for n, v in cube.data["variables"].items()}
    line("wire bytes over raw bytes", (cube.nbytes + header + len(json.dumps(names))) / million["cka"].nbytes, "<= 1.05")
    line("twenty views in one notebook, KB besides the data", notebook() / 1000, "<= 200")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        print("no Chromium on PATH: first paint and refocus are not measured")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        paints = in_page(browser, Matrix(million), Path(folder), FIRST)
        line("Cube of 1M cells, first paint, ms", statistics.median(paints), "<= 50")
        times = in_page(browser, twelve(), Path(folder), REFOCUS)
        line("refocus with twelve views, ms of script", statistics.median(times), "<= 16")
        browser.close()


def line(what: str, value: float, goal: str) -> None:
    print(f"{what:<64} {value:8.3f}   goal {goal}")


def in_page(browser: Any, view: Any, folder: Path, script: str) -> list[float]:
    from tensorscope_nb.views import export_html

    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(export_html(view, folder / "view.html").as_uri())
    page.locator("[data-ts-focus]").first.wait_for()
    page.wait_for_timeout(500)
    times = page.evaluate(script)
    page.close()
    return times


def dataset(layers: int = 12, heads: int = 12, samples: int = 64) -> xr.Dataset:
    rng = np.random.default_rng(0)
    by_head = ("layer", "head")
    return xr.Dataset(
        {
            "score": (by_head, rng.random((layers, heads))),
            "importance": (by_head, rng.random((layers, heads))),
            "overlap": ("layer", rng.random(layers)),
            "history": (("checkpoint", *by_head), rng.random((12, layers, heads))),
            "by_sample": (("sample", *by_head), rng.random((samples, layers, heads))),
            "loss": (("sample", "position"), rng.random((samples, 64))),
            "pattern": (("head", "query", "key"), np.tril(rng.random((heads, 64, 64)))),
            "eigenvalue": ("component", np.sort(rng.random(20))[::-1]),
        }
    )


def twelve() -> Any:
    from tensorscope_nb import views as v

    ds = dataset()
    return (
        (v.HeadGrid(ds, "score") | v.HeadGrid(ds, "importance") | v.HeadGrid(ds, "by_sample"))
        & (v.LayerBars(ds, "overlap") | v.LayerBars(ds, "score") | v.Scatter(ds, "score", "importance"))
        & (v.Ranking(ds, "score") | v.Spectrum(ds) | v.AttentionPattern(ds))
        & v.Timeline(ds, "history")
        & v.SampleTable(ds)
        & v.TokenStrip(ds, "loss")
    )


def notebook() -> int:
    """Bytes of widget state that a notebook with twenty views saves, besides the buffers and coordinates of its Cube."""
    import ipywidgets

    from tensorscope_nb.views import Cube, HeadGrid, LayerBars

    before = set(ipywidgets.Widget.get_manager_state()["state"])
    ds = dataset()
    kept = [kind(ds, "score") for kind in (HeadGrid, LayerBars) for _ in range(10)]
    state = ipywidgets.Widget.get_manager_state(drop_defaults=False)["state"]
    data = {view.cube.model_id for view in kept if isinstance(view.cube, Cube)}
    mine = {key: value for key, value in state.items() if key not in before and key not in data}
    return len(json.dumps(mine))


if __name__ == "__main__":
    main()
