"""``ds.ts.view()`` on every Dataset and DataArray, once this module is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from tensorscope_nb.views.base import View


@xr.register_dataset_accessor("ts")
@xr.register_dataarray_accessor("ts")
class Accessor:
    """What tensorscope_nb adds to an xarray object."""

    def __init__(self, source: xr.Dataset | xr.DataArray) -> None:
        self._source = source

    def view(self, variable: str | None = None, **options: Any) -> View:
        """The fitting view; see :func:`tensorscope_nb.views.view`."""
        from tensorscope_nb.views.dispatch import view

        return view(self._source, variable, **options)
