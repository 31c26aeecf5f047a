"""What a head writes, read as logits: the direct path from a head's output through the final norm to the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from tensorscope_nb.scope.norms import Norm

if TYPE_CHECKING:
    from tensorscope_nb.scope.anatomy import Anatomy


def output_weights(model: nn.Module, anatomy: Anatomy, layer: int) -> Tensor:
    """W_O by head: (head, d_head, d_model), so that ``z[h] @ W_O[h]`` is what head h adds to the residual stream."""
    weight = model.get_parameter(f"{anatomy.module(layer, 'O')}.weight").detach()
    stored_in_out = weight if anatomy.transposed else weight.T
    return stored_in_out.unflatten(0, (anatomy.n_heads, anatomy.d_head))


class DirectLogits:
    """How far the direct logit of a token stands above the vocabulary, in standard deviations over the vocabulary.

    With u = γ ∘ (written − mean), the logit of token t is w_t · u up to a positive factor (the norm's scale), so
    z = (w_t − w̄) · u / √(uᵀ C u), C the covariance of the unembedding rows: nothing of the size of the vocabulary is
    formed per position.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy) -> None:
        self.norm = Norm.of(model, anatomy.final_norm, anatomy.d_model)
        rows = model.get_parameter(f"{anatomy.unembed}.weight").detach().double()
        self.rows = rows - rows.mean(0)
        self.covariance = self.rows.T @ self.rows / len(rows)

    def z(self, written: Tensor, targets: Tensor) -> Tensor:
        """For what was written (…, d_model) and the token ids ``targets`` (…)."""
        u = self.norm.folded(written)
        spread = ((u @ self.covariance) * u).sum(-1).clamp(min=0).sqrt()
        return ((self.rows[targets] * u).sum(-1) / spread).float()
