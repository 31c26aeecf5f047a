"""What a result says of training samples and test samples: which of the one taught the other, when, and token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tensorscope_nb.views.matrix import Matrix
from tensorscope_nb.views.sample_table import TEXTS, SampleTable
from tensorscope_nb.views.token_strip import TokenStrip

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.views.base import View

TRAIN, TEST = "sample", "test_sample"
#: What says the same more or less finely: a view shows the finest whose dimensions are selected.
BY_TIME = {"influence": ["contribution"], "contribution": ["token_contribution"], "token_influence": ["token_contribution"]}
RANKED = {
    "influence": ["mean_influence", "contribution", "token_influence", "token_contribution"],
    "contribution": ["token_contribution"],
    "self_influence": ["self_contribution"],
}


def of_influence(dims: Sequence[str]) -> bool:
    """Whether something is told of training samples and test samples.

    >>> of_influence(("checkpoint", "sample", "test_sample")), of_influence(("sample",))
    (True, False)
    """
    return {TRAIN, TEST} <= set(dims)


def finer(ds: xr.Dataset, name: str, among: dict[str, list[str]]) -> dict[str, list[str]]:
    """What may stand in the place of a variable, where the Dataset has it."""
    return {name: there} if (there := [n for n in among.get(name, []) if n in ds.data_vars]) else {}


def over_time(ds: xr.Dataset) -> bool:
    """Whether it says when a sample taught."""
    return "contribution" in ds.data_vars and ds.sizes.get("checkpoint", 0) > 1


def details(ds: xr.Dataset, common: dict[str, Any]) -> list[Callable[[], View]]:
    """The views beside the matrix: when it was taught, the tokens of the test sample or a list of
    all of them, and the training samples in a ranking."""
    made: list[Callable[[], View]] = []
    if over_time(ds):
        made.append(
            lambda: Matrix(ds, "contribution", y=TRAIN, x="checkpoint", instead=finer(ds, "contribution", BY_TIME), **common)
        )
    if "token_influence" in ds.data_vars:
        # of all training samples at once: the one that matters most to the token
        how = common | {"reduce": common.get("reduce") or "strongest", "title": "Influence by token"}
        made.append(lambda: TokenStrip(ds, "token_influence", instead=finer(ds, "token_influence", BY_TIME), **how))
    elif asked := told(ds, TEST, "test_text", "test_task", "test_loss"):
        made.append(lambda: SampleTable(ds, asked, by=TEST, title="Test samples", **common))
    if "influence" in ds.data_vars:
        made.append(lambda: ranking(ds, common))
    return made


def told(ds: xr.Dataset, dim: str, *names: str) -> list[str]:
    """What there is to say of each sample; a task that is the same for all says nothing."""
    there = [n for n in names if n in ds.variables and dim in ds[n].dims]
    return [n for n in there if not n.endswith("task") or len(set(ds[n].values.tolist())) > 1]


def ranking(ds: xr.Dataset, common: dict[str, Any]) -> View:
    """The training samples, those that taught the test sample most first."""
    columns = told(ds, TRAIN, *TEXTS, "influence", *(["contribution"] if over_time(ds) else []), "self_influence")
    instead = {k: v for n in columns for k, v in finer(ds, n, RANKED).items()}
    along = {"contribution": "checkpoint"} if "contribution" in columns else None
    return SampleTable(ds, columns, sort="influence", instead=instead, along=along, title="Training samples", **common)
