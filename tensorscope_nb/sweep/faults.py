"""What can be wrong with gradients, in one line each."""

from __future__ import annotations

from tensorscope_nb.samples import Samples
from tensorscope_nb.settings import current
from tensorscope_nb.sweep.forms import Gradients
from tensorscope_nb.sweep.measure import measure
from tensorscope_nb.sweep.parameters import Parameter


def not_finite(parameter: Parameter, gradients: Gradients, part: Samples) -> ValueError:
    squares = measure(gradients, {"total"})["total"]
    bad = (~squares.isfinite()).nonzero()
    name = part.ids[int(bad[0])] if len(bad) else f"{part.ids[0]} or one after it"
    return ValueError(
        f"the gradient of sample {name!r} at {parameter.name} is not a finite number, though its loss is: leave the sample out, "
        "or look at where the model divides or takes a root"
    )


def too_much(what: str, size: float, instead: str = "ask for fewer modules=") -> ValueError:
    return ValueError(
        f"{what} take {size / 2**30:.2g} GiB, more than the memory option allows ({current().memory / 2**30:.2g} GiB): "
        f"{instead}, or raise ts.options(memory=…)"
    )
