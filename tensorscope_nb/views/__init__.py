"""Views: pictures of a result, linked by the names of its dimensions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorscope_nb.views.attention_pattern import AttentionPattern
    from tensorscope_nb.views.base import Composition, FocusBar, View
    from tensorscope_nb.views.cube import Cube
    from tensorscope_nb.views.dispatch import view
    from tensorscope_nb.views.export import export_html
    from tensorscope_nb.views.focus import Focus
    from tensorscope_nb.views.head_grid import HeadGrid
    from tensorscope_nb.views.landscape import Landscape
    from tensorscope_nb.views.layer_bars import LayerBars
    from tensorscope_nb.views.live import Live
    from tensorscope_nb.views.matrix import Matrix
    from tensorscope_nb.views.ranking import Ranking
    from tensorscope_nb.views.sample_table import SampleTable
    from tensorscope_nb.views.scatter import Scatter
    from tensorscope_nb.views.spectrum import Spectrum
    from tensorscope_nb.views.timeline import Timeline
    from tensorscope_nb.views.token_strip import TokenStrip

__all__ = [
    "AttentionPattern",
    "Composition",
    "Cube",
    "Focus",
    "FocusBar",
    "HeadGrid",
    "Landscape",
    "LayerBars",
    "Live",
    "Matrix",
    "Ranking",
    "SampleTable",
    "Scatter",
    "Spectrum",
    "Timeline",
    "TokenStrip",
    "View",
    "export_html",
    "view",
]

# Loaded on use: importing this package, or its xarray accessor, brings no widget library.
_HOMES = {
    "AttentionPattern": "attention_pattern",
    "Composition": "base",
    "Cube": "cube",
    "Focus": "focus",
    "FocusBar": "base",
    "HeadGrid": "head_grid",
    "Landscape": "landscape",
    "LayerBars": "layer_bars",
    "Live": "live",
    "Matrix": "matrix",
    "Ranking": "ranking",
    "SampleTable": "sample_table",
    "Scatter": "scatter",
    "Spectrum": "spectrum",
    "Timeline": "timeline",
    "TokenStrip": "token_strip",
    "View": "base",
    "export_html": "export",
    "view": "dispatch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
