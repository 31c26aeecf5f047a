"""What is done to single weights: the value that each method gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics.bits import flipped

Name = Literal["zero", "sign_flip", "gaussian", "scale", "bit_flip"]
RelativeTo = Literal["weight", "parameter"]
OPTIONS: dict[str, dict[str, Any]] = {  # of each method, with what they are if nothing is said
    "zero": {},
    "sign_flip": {},
    "gaussian": {"sigma": 0.1, "relative_to": "weight"},
    "scale": {"factor": 0.5},
    "bit_flip": {"bit": None},
}
STORED = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class Disturbance:
    """A method with its options."""

    name: Name
    sigma: float
    relative_to: RelativeTo
    factor: float
    bit: int | None

    @property
    def noisy(self) -> bool:
        """Whether it does something else in each replicate."""
        return self.name == "gaussian" or (self.name == "bit_flip" and self.bit is None)

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """(n,): what is random for each weight."""
        draw = torch.randn if self.name == "gaussian" else torch.rand
        return draw(n, dtype=torch.float64, generator=generator)

    def scale_of(self, p: nn.Parameter) -> float:
        """The standard deviation of a parameter's entries, where the noise is measured by it."""
        wanted = self.name == "gaussian" and self.relative_to == "parameter"
        return float(p.detach().double().std(correction=0)) if wanted else math.nan

    def of(self, values: Tensor, noise: Tensor, scale: float) -> Tensor:
        """What the weights become, in their own dtype; ``scale`` is that of their parameter."""
        if self.name == "zero":
            return torch.zeros_like(values)
        if self.name == "sign_flip":
            return -values
        if self.name == "bit_flip":
            width = 8 * values.element_size()
            return flipped(values, (noise * width).long() if self.bit is None else torch.full_like(noise, self.bit).long())
        wide = values.double()  # rounded once, to the nearest value that can be stored
        if self.name == "scale":
            return (self.factor * wide).to(values.dtype)
        return (wide + self.sigma * noise * (wide.abs() if self.relative_to == "weight" else scale)).to(values.dtype)

    def check_stored(self, name: str, p: nn.Parameter) -> None:
        """Raises where a weight has no such bits."""
        if self.name != "bit_flip":
            return
        kind = str(p.dtype).removeprefix("torch.")
        if p.dtype not in STORED:
            raise UnsupportedModel(f"{name} is {kind}: bits are flipped in float64, float32, float16 and bfloat16")
        width = 8 * p.element_size()
        if self.bit is not None and self.bit >= width:
            raise ValueError(f"bit is {self.bit}, and {name} is {kind}: its bits are 0 (the lowest) to {width - 1} (the sign)")


def disturbance(method: Any, sigma: Any, relative_to: Any, factor: Any, bit: Any) -> Disturbance:
    """The method, with its options checked."""
    if method not in list(OPTIONS):
        raise ValueError(f"method is {method!r}: choose {', '.join(map(repr, OPTIONS))}")
    given = {"sigma": sigma, "relative_to": relative_to, "factor": factor, "bit": bit}
    for other, options in OPTIONS.items():
        for option, default in options.items():
            if other != method and given[option] != default:
                raise ValueError(f"{option}= is of method={other!r}, and method is {method!r}: leave it out")
    if not _number(sigma) or sigma <= 0:
        raise ValueError(f"sigma is {sigma!r}: give the size of the noise, a number above 0")
    if relative_to not in ("weight", "parameter"):
        raise ValueError(f"relative_to is {relative_to!r}: choose 'weight' (|w|) or 'parameter' (its standard deviation)")
    if not _number(factor) or factor == 1:
        raise ValueError(f"factor is {factor!r}: give the number to multiply by, other than 1")
    if bit is not None and (isinstance(bit, bool) or not isinstance(bit, Integral) or bit < 0):
        raise ValueError(f"bit is {bit!r}: give a bit number from 0 (the lowest) on, or None for one at random")
    return Disturbance(method, float(sigma), relative_to, float(factor), None if bit is None else int(bit))


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
