"""A perturbation beside its controls, in a run that goes on where one of them cannot be made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorscope_nb.cli.session import Session
from tensorscope_nb.cli.usage import is_of_use

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope


def controlled(
    session: Session, scope: Scope, evaluation: Samples, weights: Any, controls: list[str], **options: Any
) -> tuple[xr.Dataset | None, list[str]]:
    """The ``perturbation`` with as many of the controls as there can be, and why there are no more.

    A list may hold zeros alone, which setting to zero does not change, and a small layer may have no others to draw.
    """

    def beside(*kept: str) -> tuple[xr.Dataset | None, str]:
        from tensorscope_nb.recipes import perturbation

        try:
            return perturbation(scope, evaluation, weights, controls=kept, **options), ""
        except ValueError as error:
            if not is_of_use(error):
                raise
            return None, str(error)

    found, why = beside(*controls)
    if found is not None:
        return found, []
    alone, why_alone = beside()
    reasons = [] if alone is not None else [f"not measured: {why_alone}"]
    for control in controls if alone is not None else ():
        found, why = beside(control)
        if found is not None:
            break
        reasons.append(f"without the {control} control: {why}")
    for reason in reasons:
        session.say(reason)
    return (found if found is not None else alone), reasons
