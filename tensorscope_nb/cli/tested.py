"""A ranking under test, in a run that goes on where a test cannot be made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorscope_nb.cli.session import Session
from tensorscope_nb.cli.usage import is_of_use

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope


def tested(
    session: Session, scope: Scope, evaluation: Samples, weights: Any, controls: list[str], **options: Any
) -> tuple[xr.Dataset | None, list[str]]:
    """The ``perturbation`` with as many of the controls as there can be, and why there are no more.

    A bottom list may hold zeros alone, which setting to zero does not change, and a small layer may have no others to draw.
    """
    from tensorscope_nb.recipes import perturbation

    reasons: list[str] = []
    for kept in dict.fromkeys((tuple(controls), *((control,) for control in controls), ())):
        try:
            return perturbation(scope, evaluation, weights, controls=kept, **options), reasons
        except ValueError as error:
            if not is_of_use(error):
                raise
            beside = f"beside {' and '.join(kept)}" if kept else "without controls"
            reasons.append(f"not measured {beside}: {error}")
            session.say(reasons[-1])
    return None, reasons
