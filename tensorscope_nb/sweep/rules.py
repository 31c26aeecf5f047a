"""How the gradient of one sample is put together from a module's inputs X and the gradients Δ of its outputs.

With T positions: Linear Δᵀ X, Conv1D (weights are (in, out)) Xᵀ Δ, a convolution Δᵀ unfold(X), an embedding the rows of Δ
at its tokens, a norm Σ Δ ∘ x̂, a bias Σ Δ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from tensorscope_nb.sweep.forms import Form, Lookup, Product, Whole, widened


@dataclass(frozen=True)
class Factors:
    """One call of a module: its input and the gradient of its output, first axis sample."""

    x: Tensor
    delta: Tensor


Rule = Callable[[nn.Module, Factors], Form]


@dataclass(frozen=True)
class Summed:
    """The rule of a vector: a sum of terms, one per position."""

    terms: Callable[[nn.Module, Factors], Tensor]  # (n, T, rows)

    def __call__(self, module: nn.Module, f: Factors) -> Form:
        return Whole(self.terms(module, f).sum(1)[..., None])

    def by_position(self, module: nn.Module, f: Factors) -> Form:
        """The same, with the positions apart."""
        terms = self.terms(module, f)
        return Product(terms, torch.ones_like(terms[..., :1]))


def rule_of(module: nn.Module, name: str) -> Rule | None:
    """The rule for the parameter ``name`` of a module, or None where there is none here."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Conv2d):
        if module.groups > 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
            return None
        return Summed(_channel_bias) if name == "bias" else _convolution if name == "weight" else None
    if isinstance(module, nn.Embedding) and not module.sparse and module.max_norm is None and not module.scale_grad_by_freq:
        return _embedding if name == "weight" else None
    several_axes = isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1
    rules: dict[type, dict[str, Rule]] = {
        nn.Linear: {"weight": _linear, "bias": Summed(_bias)},
        Conv1D: {"weight": _conv1d, "bias": Summed(_bias)},
        nn.LayerNorm: {} if several_axes else {"weight": Summed(_layer_norm), "bias": Summed(_bias)},
        nn.BatchNorm2d: {"weight": Summed(_batch_norm), "bias": Summed(_channel_bias)},
    }
    for kind, known in rules.items():
        if isinstance(module, kind):
            return known.get(name)
    is_rms = type(module).__name__.endswith("RMSNorm") and list(module._parameters) == ["weight"]
    return Summed(_rms_norm) if is_rms and name == "weight" and module.weight.ndim == 1 else None


def _sequence(x: Tensor) -> Tensor:
    """(n, positions, features), also where there are no positions or several axes of them; squares must not underflow."""
    x = widened(x)
    return x.unsqueeze(1) if x.ndim == 2 else x.flatten(1, -2)


def _linear(module: nn.Module, f: Factors) -> Form:
    return Product(_sequence(f.delta), _sequence(f.x))


def _conv1d(module: nn.Module, f: Factors) -> Form:
    return Product(_sequence(f.x), _sequence(f.delta))


def _bias(module: nn.Module, f: Factors) -> Tensor:
    return _sequence(f.delta)


def _layer_norm(module: Any, f: Factors) -> Tensor:
    normalised = nn.functional.layer_norm(f.x, module.normalized_shape, eps=module.eps)
    return _sequence(f.delta) * _sequence(normalised)


def _rms_norm(module: Any, f: Factors) -> Tensor:
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    eps = torch.finfo(f.x.dtype).eps if eps is None else eps
    x = _sequence(f.x) if isinstance(module, nn.RMSNorm) else _sequence(f.x).float()  # others normalise in single precision
    return _sequence(f.delta) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def _embedding(module: Any, f: Factors) -> Form:
    tokens, delta = f.x.reshape(len(f.x), -1), _sequence(f.delta) * getattr(module, "embed_scale", 1)
    if module.padding_idx is not None:  # torch gives that row no gradient
        delta = delta.masked_fill((tokens == module.padding_idx)[..., None], 0)
    return Lookup(tokens, delta, module.num_embeddings)


def _convolution(module: Any, f: Factors) -> Form:
    patches = unfold(f.x, module.kernel_size, module.dilation, module.padding, module.stride)  # (n, in · kernel, places)
    return Product(_sequence(f.delta.flatten(2).mT), _sequence(patches.mT))


def _channel_bias(module: nn.Module, f: Factors) -> Tensor:
    return _sequence(f.delta.flatten(2).mT)


def _batch_norm(module: Any, f: Factors) -> Tensor:
    shape = (1, -1, 1, 1)
    normalised = (f.x - module.running_mean.view(shape)) * torch.rsqrt(module.running_var.view(shape) + module.eps)
    return _sequence((f.delta * normalised).flatten(2).mT)
