"""View and Composition: what every view is, and how views stand together under one Focus."""

from __future__ import annotations

import weakref
from typing import Any

import anywidget
import traitlets as t

from tensorscope_nb.views.cube import Cube
from tensorscope_nb.views.focus import Focus, FocusModel
from tensorscope_nb.views.runtime import STUB, runtime

REDUCTIONS = ("mean", "max", "min", "sum", "first")


def _references(widgets: list[anywidget.AnyWidget], _: object) -> list[str]:
    return [f"anywidget:{w.model_id}" for w in widgets]


class View(anywidget.AnyWidget):
    """A picture of a Cube: some dimensions are its axes, the others are sliced at the Focus.

    A new kind of view is a subclass that fills in the Cube and the options, and a TypeScript function of the same name.
    """

    _esm = STUB
    kind = t.Unicode().tag(sync=True)
    runtime = anywidget.WidgetTrait().tag(sync=True)
    focus_model = anywidget.WidgetTrait().tag(sync=True)
    cube = anywidget.WidgetTrait().tag(sync=True)
    variable = t.Unicode().tag(sync=True)
    options = t.Dict().tag(sync=True)

    def __init__(self, *, focus: Focus | None = None, cube: Cube | None = None, variable: str = "", **options: Any) -> None:
        if focus is not None and not isinstance(focus, Focus):
            raise TypeError(f"focus= takes a Focus, such as the .focus of another view; {type(focus).__name__} came")
        if options.get("reduce", "mean") not in REDUCTIONS:
            raise ValueError(f"reduce= takes {', '.join(REDUCTIONS)}; {options['reduce']!r} came")
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

    @property
    def focus(self) -> Focus:
        """The place that this view, and all that stand with it, look at."""
        return self._focus

    @property
    def parts(self) -> list[View]:
        """The views it is made of: itself."""
        return [self]

    def __or__(self, other: object) -> Composition:
        return Composition("beside", [self, other]) if isinstance(other, View) else NotImplemented

    def __and__(self, other: object) -> Composition:
        return Composition("below", [self, other]) if isinstance(other, View) else NotImplemented

    def __repr__(self) -> str:
        return f"{self.kind}({self.variable})"


class Composition(View):
    """Views beside (``|``) or below (``&``) each other, with one Focus. Itself a view."""

    children: Any = t.List().tag(sync=True, to_json=_references)

    def __init__(self, arrange: str, views: list[View]) -> None:
        flat: list[View] = []
        for view in views:
            same = isinstance(view, Composition) and view.options["arrange"] == arrange
            flat.extend(view.children if same else [view])
        self.children = []
        focus = flat[0].focus
        for view in flat[1:]:
            join(focus, view.focus)
        super().__init__(focus=focus, arrange=arrange)
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
