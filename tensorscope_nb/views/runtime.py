"""The front end in the page: one widget carries the bundle, and every view's own module is a stub that asks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget

BUNDLE = Path(__file__).parent.parent / "static" / "widgets.js"

STUB = """export default {
  async render({ model, el, host, signal }) {
    const runtime = await host.getWidget(model.get("runtime"));
    return runtime.exports.render({ model, el, host, signal });
  },
};
"""

# A model that is only read by others needs a module that does nothing.
SILENT = "export default {};"


class Runtime(anywidget.AnyWidget):
    """Carries the bundle; its `initialize` returns what draws the views."""

    def __init__(self, **kwargs: Any) -> None:
        self._esm = bundle()
        super().__init__(**kwargs)


def bundle() -> str:
    """The built front end, as text."""
    if not BUNDLE.exists():
        raise FileNotFoundError(
            f"the front end is not built: {BUNDLE.name} is missing; run `npm ci && npm run build` in widgets/"
        )
    return BUNDLE.read_text(encoding="utf-8")


_runtime: Runtime | None = None


def runtime() -> Runtime:
    """The Runtime of this process; a new one after the old was closed."""
    global _runtime
    if _runtime is None or _runtime.comm is None:
        _runtime = Runtime()
    return _runtime
