"""``ts.export_html``: a view as one file that needs no kernel and no network, and is still linked."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget

from tensorscope_nb.views.base import View
from tensorscope_nb.views.runtime import bundle

# Only inline code, and the bundle as a blob: the file cannot reach out, whatever a token says.
POLICY = "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data: blob:"

# The top of every page that is written; its {policy} and {title} are to be filled in.
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 0 auto; padding: 24px; max-width: 1280px; background: #ffffff; color: #1c2026; }}
h1 {{ font: 600 18px/1.4 system-ui, sans-serif; margin: 0 6px 16px; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #15171b; color: #e8eaee; }} }}
</style>
</head>
"""

PAGE = (
    HEAD
    + """<body>
{heading}<main id="view"></main>
{below}
<noscript>This page draws its views with JavaScript, which is switched off.</noscript>
<script type="application/json" id="state">{state}</script>
<script type="text/plain" id="bundle">{bundle}</script>
<script>{host}</script>
</body>
</html>
"""
)

HOST = """
const { root, models } = JSON.parse(document.getElementById("state").textContent);
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
const revive = (x) => {
  if (Array.isArray(x)) return x.map(revive);
  if (x === null || typeof x !== "object") return x;
  if ("base64" in x) return bytes(x.base64);
  return Object.fromEntries(Object.entries(x).map(([k, v]) => [k, revive(v)]));
};
const open = Object.fromEntries(Object.entries(models).map(([ref, saved]) => {
  const state = revive(saved);
  const heard = {};
  return [ref, {
    get: (name) => state[name],
    set(name, value) { state[name] = value; (heard[`change:${name}`] ?? []).forEach((run) => run()); },
    save_changes() {},
    on: (name, run) => (heard[name] ??= []).push(run),
  }];
}));
const host = { getModel: async (ref) => open[ref] };
const code = new Blob([document.getElementById("bundle").textContent.replaceAll("<\\\\/", "</")], { type: "text/javascript" });
import(URL.createObjectURL(code)).then((module) => module.default.initialize().render({
  model: open[root], el: document.getElementById("view"), host, signal: new AbortController().signal,
}));
"""


def export_html(view: View, path: str | os.PathLike[str], *, title: str | None = None, below: str = "") -> Path:
    """Write ``view`` to one HTML file, as it is now: the same Focus, linked, with everything inside.

    ``below`` is HTML that stands under the view, as it is: escape the texts in it.

    >>> import numpy as np, tempfile, xarray as xr
    >>> from tensorscope_nb.views import HeadGrid
    >>> heads = xr.Dataset({"score": (("layer", "head"), np.eye(2, 4))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_html(HeadGrid(heads), f"{folder}/heads.html").name
    'heads.html'
    """
    if not isinstance(view, View):
        raise TypeError(f"export_html writes a view, such as ts.view(dataset); {type(view).__name__} came")
    if not view.parts:
        raise ValueError("there are no results in this view yet: let it run first, then export it")
    models: dict[str, Any] = {}
    _collect(view, models)
    state = json.dumps({"root": _reference(view), "models": models}, separators=(",", ":"), allow_nan=False)
    page = PAGE.format(
        policy=html.escape(POLICY),
        heading=f"<h1>{html.escape(title)}</h1>\n" if title else "",
        title=html.escape(title or view.options.get("title") or repr(view)),
        # "<" nowhere in the data: no token can end the script element
        state=state.replace("<", "\\u003c"),
        bundle=bundle().replace("</", "<\\/"),
        host=HOST,
        below=below,
    )
    target = Path(path)
    target.write_text(page, encoding="utf-8")
    return target


def _collect(widget: anywidget.AnyWidget, models: dict[str, Any]) -> None:
    """The widget and all that it refers to. The Runtime stays behind: the page has the bundle itself."""
    if _reference(widget) in models:
        return
    kept = {"kind", "focus_model", "cube", "variable", "options", "settings", "children", "focus_bar", "status"}
    kept |= {"cursor", "places", "data"}
    models[_reference(widget)] = {name: _jsonable(value) for name, value in widget.get_state().items() if name in kept}
    if isinstance(widget, View):
        linked = [widget.focus_model, widget.cube, *getattr(widget, "children", [])]
        for other in linked:
            if other is not None:
                _collect(other, models)


def _reference(widget: anywidget.AnyWidget) -> str:
    return f"anywidget:{widget.model_id}"


def _jsonable(value: Any) -> Any:
    if isinstance(value, memoryview):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {key: _jsonable(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return value
