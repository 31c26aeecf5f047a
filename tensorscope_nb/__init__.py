"""TensorScope NB: open a notebook, wrap a model, ask a question of it, follow the answer from layer to head to sample.

Importing the package is cheap: torch, transformers, xarray, anywidget and nnsight load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Anatomy": "tensorscope_nb.scope",
    "Samples": "tensorscope_nb.samples",
    "Scope": "tensorscope_nb.scope",
    "Study": "tensorscope_nb.study",
    "UnsupportedModel": "tensorscope_nb.errors",
    "checkpoints": "tensorscope_nb.models",
    "datasets": "tensorscope_nb.samples.datasets",
    "detect": "tensorscope_nb.scope",
    "export_html": "tensorscope_nb.views",
    "load": "tensorscope_nb.models",
    "options": "tensorscope_nb.settings",
    "recipes": "tensorscope_nb.recipes",
    "unflatten": "tensorscope_nb.scope.flat",
    "view": "tensorscope_nb.views",
    "views": "tensorscope_nb.views",
}
_MODULES = {"datasets", "recipes", "views"}
_MAKES_DATASETS = {"Study", "recipes"}

__all__ = [
    "Anatomy",
    "Samples",
    "Scope",
    "Study",
    "UnsupportedModel",
    "checkpoints",
    "datasets",
    "detect",
    "export_html",
    "load",
    "options",
    "recipes",
    "unflatten",
    "view",
    "views",
]

if TYPE_CHECKING:
    from tensorscope_nb import recipes, views
    from tensorscope_nb.errors import UnsupportedModel
    from tensorscope_nb.models import checkpoints, load
    from tensorscope_nb.samples import Samples, datasets
    from tensorscope_nb.scope import Anatomy, Scope, detect
    from tensorscope_nb.scope.flat import unflatten
    from tensorscope_nb.settings import options
    from tensorscope_nb.study import Study
    from tensorscope_nb.views import export_html, view


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tensorscope_nb' has no attribute {name!r}")
    module = import_module(_HOME[name])
    if name in _MAKES_DATASETS:
        import_module("tensorscope_nb.views.accessor")  # so that a result has ds.ts.view()
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
