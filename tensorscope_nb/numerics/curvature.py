"""Products of curvature matrices with vectors, by two backwards through a graph that is made once and kept.

Everything is differentiated in reverse. In torch 2.13 the second derivatives of LayerNorm are wrong by per cents where
forward mode is put into a reverse pass (``jvp`` of ``jacrev``) or the other way round (``grad`` of ``jvp``); by two
backwards they are right. It is also the cheapest way: what is differentiated twice is there already.

With losses ℓᵢ(θ), outputs z(θ), and J the derivative of z:
    Hessian        ∇²L v               one backward through the gradient (Pearlmutter 1994)
    Gauss–Newton   Jᵀ (∇²_z L) J v     J v is the derivative, by u, of ⟨Jᵀu, v⟩, which is linear in u
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Product = Callable[[Sequence[Tensor]], Sequence[Tensor]]  # of vectors shaped as the parameters, to such vectors
Forms = Callable[[Sequence[Tensor]], Tensor]  # of such vectors, to one number per sample


def hessian_product(loss: Tensor, parameters: Sequence[Tensor]) -> Product:
    """v ↦ ∇²loss · v."""
    gradients = _backward([loss], parameters, kept=True)
    _refuse_dead_ends(gradients)
    curved = [g.requires_grad for g in gradients]  # where the loss is linear, nothing is left to differentiate

    def product(vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        roots, along = _only(gradients, curved), _only(vectors, curved)
        return _backward(roots, parameters, along) if roots else [torch.zeros_like(p) for p in parameters]

    return product


class Tangent:
    """The derivative J of ``outputs`` by the parameters, both ways."""

    def __init__(self, outputs: Tensor, parameters: Sequence[Tensor]) -> None:
        self.outputs, self.parameters = outputs, parameters
        self._dummy = torch.zeros_like(outputs, requires_grad=True)
        self._pulled = _backward([outputs], parameters, [self._dummy], kept=True)
        _refuse_dead_ends(self._pulled)
        self._reached = [g.requires_grad for g in self._pulled]

    def push(self, vectors: Sequence[Tensor]) -> Tensor:
        """J v, shaped as the outputs."""
        return _backward(_only(self._pulled, self._reached), [self._dummy], _only(vectors, self._reached))[0]

    def pull(self, cotangent: Tensor) -> Sequence[Tensor]:
        """Jᵀ u, shaped as the parameters."""
        return _backward([self.outputs], self.parameters, [cotangent])


def gauss_newton_product(outputs: Tensor, loss_of: Callable[[Tensor], Tensor], parameters: Sequence[Tensor]) -> Product:
    """v ↦ Jᵀ H J v, with H the Hessian of ``loss_of`` at the outputs."""
    tangent = Tangent(outputs, parameters)
    at = outputs.detach().requires_grad_()
    inner = hessian_product(loss_of(at), [at])
    return lambda vectors: tangent.pull(inner([tangent.push(vectors)])[0])


def fisher_product(losses: Tensor, weights: Tensor, parameters: Sequence[Tensor]) -> Product:
    """v ↦ Σᵢ wᵢ gᵢ ⟨gᵢ, v⟩, with gᵢ the gradient of ``losses[i]``."""
    tangent = Tangent(losses, parameters)
    return lambda vectors: tangent.pull(weights * tangent.push(vectors))


def hessian_forms(losses: Tensor, parameters: Sequence[Tensor]) -> Forms:
    """v ↦ vᵀ ∇²ℓᵢ v of each loss: by u, the derivative of vᵀ ∇²(Σ uᵢ ℓᵢ) v."""
    dummy = torch.zeros_like(losses, requires_grad=True)
    gradients = _backward([(dummy * losses).sum()], parameters, kept=True)
    _refuse_dead_ends(gradients)
    curved = [g.requires_grad for g in gradients]

    def forms(vectors: Sequence[Tensor]) -> Tensor:
        roots, along = _only(gradients, curved), _only(vectors, curved)
        bent = _backward(roots, parameters, along, kept=True)
        reached = [b.requires_grad for b in bent]
        if not any(reached):
            return torch.zeros_like(losses)
        return _backward(_only(bent, reached), [dummy], _only(vectors, reached))[0]

    return forms


def gauss_newton_forms(outputs: Tensor, losses_of: Callable[[Tensor], Tensor], parameters: Sequence[Tensor]) -> Forms:
    """v ↦ (Jᵢv)ᵀ Hᵢ Jᵢv of each sample, with Hᵢ the Hessian of its loss at its own outputs."""
    tangent = Tangent(outputs, parameters)
    at = outputs.detach().requires_grad_()
    inner = hessian_product(losses_of(at).sum(), [at])

    def forms(vectors: Sequence[Tensor]) -> Tensor:
        pushed = tangent.push(vectors)
        return (pushed * inner([pushed])[0]).flatten(1).sum(1)

    return forms


def _refuse_dead_ends(gradients: Sequence[Tensor]) -> None:
    """Where a backward is marked as differentiable once, torch leaves it out of a second one: zero, and not an error."""
    seen: set[Any] = set()
    todo = [g.grad_fn for g in gradients if g.grad_fn is not None]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name().endswith("::Error"):
            raise RuntimeError("a backward that is marked once_differentiable")
        todo += [following for following, _ in node.next_functions if following is not None]


def _backward(
    roots: Sequence[Tensor], leaves: Sequence[Tensor], along: Sequence[Tensor] | None = None, *, kept: bool = False
) -> Sequence[Tensor]:
    """The derivative of ⟨roots, along⟩; ``kept`` where it is to be differentiated again."""
    options = {"retain_graph": True, "create_graph": kept, "materialize_grads": True, "allow_unused": True}
    return torch.autograd.grad(roots, leaves, along, **options)


def _only(values: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    return [value for value, want in zip(values, wanted, strict=True) if want]
