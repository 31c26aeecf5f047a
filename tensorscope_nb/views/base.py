"""View and Composition: what every view is, and how views stand together under one Focus."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar, TypeGuard

import anywidget
import traitlets as t

from tensorscope_nb.views.cube import REDUCTIONS, Cube, dims_text
from tensorscope_nb.views.focus import Focus, FocusModel
from tensorscope_nb.views.runtime import STUB, runtime


def references(widgets: list[anywidget.AnyWidget], _: object) -> list[str]:
    """Widgets as the page finds them."""
    return [f"anywidget:{w.model_id}" for w in widgets]


class View(anywidget.AnyWidget):
    """A picture of a Cube: some dimensions are its axes, the others are sliced at the Focus.

    A new kind of view is a subclass that fills in the Cube and the options, and a TypeScript function of the same name.
    """

    _esm = STUB
    #: A table without rows is an answer, a picture without values is none.
    may_be_empty: ClassVar[bool] = False
    kind = t.Unicode().tag(sync=True)
    runtime = anywidget.WidgetTrait().tag(sync=True)
    focus_model = anywidget.WidgetTrait().tag(sync=True)
    cube = anywidget.WidgetTrait().tag(sync=True)
    variable = t.Unicode().tag(sync=True)
    options = t.Dict().tag(sync=True)
    # what someone has switched in the header
    settings = t.Dict().tag(sync=True)

    def __init__(self, *, focus: Focus | None = None, cube: Cube | None = None, variable: str = "", **options: Any) -> None:
        if focus is not None and not isinstance(focus, Focus):
            raise TypeError(f"focus= takes a Focus, such as the .focus of another view; {type(focus).__name__} came")
        if options.get("reduce") not in (None, *REDUCTIONS):
            raise ValueError(f"reduce= takes {', '.join(REDUCTIONS)}; {options['reduce']!r} came")
        wire = cube.data["variables"].get(variable) if cube is not None else None
        if wire is not None and 0 in wire["shape"] and not self.may_be_empty:
            raise ValueError(f"{variable} {dims_text(wire['dims'], wire['shape'])} has no values to show")
        self._focus = Focus() if focus is None else focus
        shown = {name: value for name, value in options.items() if value is not None}
        super().__init__(
            kind=type(self).__name__,
            runtime=runtime(),
            focus_model=self._focus.model,
            cube=cube,
            variable=variable,
            options=shown,
        )
        _views.add(self)
        self._focus.viewers.add(self)

    @property
    def focus(self) -> Focus:
        """The place that this view, and all that stand with it, look at."""
        return self._focus

    @property
    def parts(self) -> list[View]:
        """The views it is made of: itself."""
        return [self]

    def __or__(self, other: object) -> Composition:
        return Composition("beside", [self, other]) if _composable(other) else NotImplemented

    def __and__(self, other: object) -> Composition:
        return Composition("below", [self, other]) if _composable(other) else NotImplemented

    def __repr__(self) -> str:
        return f"{self.kind}({self.variable})"


def _composable(other: object) -> TypeGuard[View]:
    # xarray would answer for its objects, with words about ufuncs
    if type(other).__module__.partition(".")[0] == "xarray":
        raise TypeError(f"a view stands beside a view, and a {type(other).__name__} came: write ts.view(…) around it")
    return isinstance(other, View)


class FocusBar(View):
    """The selection as chips that can be changed and taken away, with undo, redo, clear, and the selection as code.

    A composition has one at its top unless its ``focus_bar`` is False.

    >>> FocusBar(focus=Focus(layer=1))
    FocusBar(layer=1)
    """

    def __init__(self, *, focus: Focus | None = None) -> None:
        super().__init__(focus=focus)

    def __repr__(self) -> str:
        return repr(self.focus).replace("Focus", "FocusBar", 1)


class Composition(View):
    """Views beside (``|``) or below (``&``) each other, with one Focus. Itself a view.

    >>> import numpy as np, xarray as xr
    >>> from tensorscope_nb.views import HeadGrid, LayerBars
    >>> heads = xr.Dataset({"score": (("layer", "head"), np.eye(2, 4))})
    >>> HeadGrid(heads) | LayerBars(heads)
    HeadGrid(score) | LayerBars(score)
    """

    children: Any = t.List().tag(sync=True, to_json=references)
    #: Whether the selection stands above the views.
    focus_bar = t.Bool(True).tag(sync=True)

    def __init__(self, arrange: str, views: list[View], *, focus_bar: bool = True) -> None:
        flat: list[View] = []
        for view in views:
            same = isinstance(view, Composition) and view.options["arrange"] == arrange
            flat.extend(view.children if same else [view])
        self.children = []
        focus = flat[0].focus
        for view in flat[1:]:
            join(focus, view.focus)
        super().__init__(focus=focus, arrange=arrange)
        self.focus_bar = (
            focus_bar and len(flat) > 1 and not any(isinstance(part, FocusBar) for view in flat for part in view.parts)
        )
        self.children = flat

    @property
    def parts(self) -> list[View]:
        """The single views it is made of, in reading order."""
        return [part for child in self.children for part in child.parts]

    def __repr__(self) -> str:
        sign = " | " if self.options["arrange"] == "beside" else " & "
        return sign.join(f"({child!r})" if isinstance(child, Composition) else repr(child) for child in self.children)


_views: weakref.WeakSet[View] = weakref.WeakSet()


def join(focus: Focus, other: Focus) -> None:
    """Make one Focus of two: every view of the second, wherever it stands, follows the first."""
    if focus is other:
        return
    former: FocusModel = other.model
    focus.absorb(other)
    for view in list(_views):
        if view.focus_model is former or view._focus is other:
            view._focus = focus
            view.focus_model = focus.model
