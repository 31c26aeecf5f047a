"""A norm as a linear map: what it does to a part of what goes in, at the scale that the whole of it has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tensorscope_nb.errors import UnsupportedModel

PROBES = 4
TOLERANCE = 1e-3  # relative; far below what a wrong gain does, above the rounding of half precision


@dataclass(frozen=True, eq=False)
class Norm:
    """y = γ ∘ (x − mean of x) / s(x) + β, a LayerNorm, or without the mean an RMSNorm; ``None`` as module: y = x."""

    module: nn.Module | None
    gain: Tensor  # γ, in double precision
    bias: Tensor
    centres: bool

    @classmethod
    def of(cls, model: nn.Module, path: str, width: int) -> Norm:
        """The norm at ``path``; an empty path is no norm. What is neither of the two kinds is refused, by trying it."""
        like = next(model.parameters())
        if not path:
            return cls(
                None, torch.ones(width, device=like.device).double(), torch.zeros(width, device=like.device).double(), False
            )
        module = model.get_submodule(path)
        weight = getattr(module, "weight", None)
        like = like if weight is None else weight
        gain = torch.ones(width, device=like.device) if weight is None else weight.detach()
        bias = getattr(module, "bias", None)
        bias = torch.zeros_like(gain) if bias is None else bias.detach()
        if not bool(gain.isfinite().all() and bias.isfinite().all()):
            raise ValueError(f"the parameters of {path} hold NaN or infinity: there is nothing to take apart")
        x = 10 * torch.randn(PROBES, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            y = module(x.to(like)).double()
        for offset in (0.0, 1.0):  # some models keep the gain as its difference from 1
            for centres in (True, False):
                norm = cls(module, gain.double() + offset, bias.double(), centres)
                made = norm.apart(x.to(like), x.to(like)) + norm.bias
                if bool((made - y).abs().max() <= max(TOLERANCE, 4 * torch.finfo(like.dtype).eps) * y.abs().max()):
                    return norm
        raise UnsupportedModel(
            f"{path} ({type(module).__name__}) is neither a LayerNorm nor an RMSNorm: it cannot be taken apart"
        )

    def folded(self, part: Tensor) -> Tensor:
        """γ ∘ (part − its mean), without the scale, in double precision."""
        part = part.double()
        return self.gain * (part - part.mean(-1, keepdim=True) if self.centres else part)

    def scale(self, whole: Tensor) -> Tensor:
        """s(x) (…, 1) as the module itself has it, whatever it adds for safety."""
        if self.module is None:
            return torch.ones_like(whole[..., :1]).double()
        made = self.folded(whole)
        with torch.no_grad():
            there = self.module(whole).double() - self.bias
        return (made**2).sum(-1, keepdim=True) / (made * there).sum(-1, keepdim=True)

    def pulled(self, direction: Tensor) -> Tensor:
        """The direction u of the input with part · u = folded(part) · direction: the transposed map, in double precision."""
        direction = self.gain * direction.double()
        return direction - direction.mean(-1, keepdim=True) if self.centres else direction

    def apart(self, part: Tensor, whole: Tensor) -> Tensor:
        """What ``part`` of ``whole`` becomes: the parts of x become parts of norm(x) − β."""
        return self.folded(part) / self.scale(whole)
