"""The loss of a causal language model: next-token negative log-likelihood, per sample.

A token at position t + 1 is predicted where its label is given and both t and t + 1 hold tokens; a sample's loss is the
mean over its predicted tokens, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorscope_nb.samples import IGNORED, Samples

if TYPE_CHECKING:
    from torch import Tensor, nn


def token_losses(logits: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
    """The loss at each predicted position (n, T − 1), zero elsewhere, and which positions are predicted."""
    import torch

    labels = samples.labels.to(logits.device)[:, 1:]
    seen = samples.attention_mask.to(logits.device).bool()
    predicted = (labels != IGNORED) & seen[:, 1:] & seen[:, :-1]
    targets = labels.masked_fill(~predicted, IGNORED)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    losses = torch.nn.functional.cross_entropy(wide[:, :-1].transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
    return losses, predicted


def sample_losses(logits: Tensor, samples: Samples) -> Tensor:
    """The mean loss of each sample (n,)."""
    losses, predicted = token_losses(logits, samples)
    counts = predicted.sum(1)
    if not bool(counts.all()):
        empty = samples.ids[int((counts == 0).nonzero()[0])]
        raise ValueError(f"sample {empty!r} has no token to predict: it needs two tokens and a label; leave it out")
    return losses.sum(1) / counts


def check_finite(losses: Tensor, samples: Samples, model: nn.Module) -> None:
    """A loss that is not a number is an error that names its cause, never a number in a result."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise ValueError(f"the loss of sample {samples.ids[int(bad[0])]!r} is {float(losses[bad[0]]):g}: {cause_of_nan(model)}")


def cause_of_nan(model: nn.Module) -> str:
    broken = [name for name, p in model.named_parameters() if not bool(p.isfinite().all())]
    return f"the parameter {broken[0]} holds NaN or infinity" if broken else "the parameters are finite, its activations overflow"


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean loss over all predicted tokens, with a 95 % interval from resampling whole samples."""

    value: float
    ci_low: float
    ci_high: float
    nll: float  # nats per predicted token
    n_tokens: int

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        interval = f"95 % interval {self.ci_low:.4g} to {self.ci_high:.4g}"
        return f"perplexity {self.value:.4g} ({interval}, {self.n_tokens:,} predicted tokens)"
