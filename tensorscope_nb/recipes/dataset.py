"""Named-dimension results: the variables, each with its words and its unit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from tensorscope_nb.samples import Samples
    from tensorscope_nb.scope import Scope

Variable = tuple[Sequence[str], Any, str, str]  # dimensions, values, long name, unit
SQUARED = "squared gradient of the loss"  # the unit of Fisher masses and of inner products of gradients


def dataset(variables: Mapping[str, Variable], coords: Mapping[str, Any] | None = None, **metadata: Any) -> xr.Dataset:
    """A Dataset whose ``layer``, ``head`` and like dimensions are numbered, unless ``coords`` says otherwise."""
    data = {
        name: (list(dims), np.asarray(values), {"long_name": long_name, "units": unit})
        for name, (dims, values, long_name, unit) in variables.items()
    }
    sizes = {dim: size for dims, values, _ in data.values() for dim, size in zip(dims, values.shape, strict=True)}
    numbered = {dim: np.arange(size) for dim, size in sizes.items() if dim not in (coords or {})}
    result = xr.Dataset(data, coords={**(coords or {}), **numbered})
    result.attrs["tensorscope"] = json.dumps(metadata)
    return result


def loss_unit(scope: Scope, reduction: str = "mean") -> str:
    """What a loss is counted in, the mean or the sum over a sample's tokens; that of a loss of the user's own is not known."""
    if scope.rule.custom is not None:
        return "loss"
    return "nats per token" if scope.anatomy.task in ("causal", "masked") and reduction == "mean" else "nats"


def sample_coords(samples: Samples, side: str = "", *, before: str = "") -> dict[str, Any]:
    """The coordinates of a ``sample`` dimension (``sample_a`` with the side ``"_a"``, ``test_sample`` with ``before="test_"``):
    ids, and beside them tasks and texts.
    """
    dim = f"{before}sample{side}"
    return {
        dim: np.array(samples.ids, dtype=object),
        f"{before}task{side}": (dim, np.array(samples.tasks, dtype=object)),
        f"{before}text{side}": (dim, np.array([samples.text(i) for i in range(len(samples))], dtype=object)),
    }


def token_variable(samples: Samples, *, before: str = "") -> Variable:
    tokens = np.array([samples.token_strings(i) for i in range(len(samples))], dtype=object)
    return (f"{before}sample", f"{before}position"), tokens, "token", ""


def pixel_variables(samples: Samples, *, before: str = "") -> dict[str, Variable]:
    """``pixels [sample, row, column]`` where the samples are images, for views to show."""
    pictures = samples.pictures
    if pictures is None:
        return {}
    return {f"{before}pixels": ((f"{before}sample", "row", "column"), pictures.cpu(), "image", "")}
