"""Loss rules: what a model's loss is, per sample.

- A causal language model: next-token negative log-likelihood; the token at t + 1 is predicted where its label is given and
  both t and t + 1 hold tokens. A sample's loss is the mean over its predicted tokens, in nats.
- A masked language model: the same over the labelled positions; where no labels are given, a seeded 15 % of each sample's
  tokens are masked, which depends on the sample's id and the seed only.
- Integer targets with outputs (n, C): cross-entropy.
- Anything else: the ``loss(output, targets)`` given to the Scope, which returns one number per sample.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import IGNORED, Samples
from tensorscope_nb.scope.forward import cause_of_nan
from tensorscope_nb.settings import current

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tensorscope_nb.scope.anatomy import Anatomy

CustomLoss = Callable[[Any, Any], Any]
MASKED_SHARE = 0.15


@dataclass(frozen=True)
class LossRule:
    """How the loss of one model is read."""

    anatomy: Anatomy
    custom: CustomLoss | None = None
    mask_token: int | None = None

    @property
    def name(self) -> str:
        """In words, for the record of a result."""
        if self.custom is not None:
            return f"custom: {getattr(self.custom, '__name__', type(self.custom).__name__)}"
        masked_share = f"masked tokens; where no labels are given {MASKED_SHARE:.0%} of each sample's, by its id and the seed"
        return {"causal": "next token", "masked": masked_share}.get(self.anatomy.task, "cross-entropy of integer targets")

    def prepared(self, samples: Samples) -> Samples:
        """The samples as the loss needs them: with tokens masked, where a masked model is given no labels."""
        if self.custom is not None or self.anatomy.task != "masked" or samples.labels is not None:
            return samples
        if self.mask_token is None:
            raise UnsupportedModel("no mask token: give the Scope a tokenizer that has one, or pass labels")
        return masked(samples, self.mask_token, current().seed)

    def per_sample(self, output: Tensor, samples: Samples) -> Tensor:
        """The loss of each sample (n,)."""
        if self.custom is not None:
            return self._by_user(output, samples)
        if self.anatomy.task in ("causal", "masked"):
            losses, predicted = self.per_token(output, samples)
            check_predicted(predicted, samples)
            return losses.sum(1) / predicted.sum(1)
        return self._classes(output, samples)

    def per_token(self, output: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        """The loss at each position that predicts, zero elsewhere, and which positions those are; both (n, positions)."""
        from torch.nn.functional import cross_entropy

        self.require_tokens()
        labels, predicted = samples.token_labels.to(output.device), self._predicted(samples).to(output.device)
        if self.anatomy.task == "causal":
            output, labels = output[:, :-1], labels[:, 1:]
        targets = labels.masked_fill(~predicted, IGNORED)
        return cross_entropy(_wide(output).transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"), predicted

    def require_tokens(self) -> None:
        """Raises where there is no loss of single tokens."""
        if self.anatomy.task not in ("causal", "masked"):
            raise UnsupportedModel(
                f"no loss per token: the model is no language model ({self.anatomy.family}, {self.anatomy.task})"
            )

    def n_terms(self, samples: Samples) -> Tensor:
        """The number of terms that each sample's mean loss is made of (n,): predicted tokens, or 1."""
        import torch

        if self.custom is not None or self.anatomy.task not in ("causal", "masked"):
            return torch.ones(len(samples))
        return self._predicted(samples).sum(1)

    def predicted(self, samples: Samples) -> Tensor:
        """Which tokens are predicted, (n, T)."""
        from torch.nn.functional import pad

        found = self._predicted(samples)
        return pad(found, (1, 0)) if self.anatomy.task == "causal" else found

    def _predicted(self, samples: Samples) -> Tensor:
        """Which labels count: (n, T), of a causal model (n, T − 1)."""
        seen = samples.attention_mask.bool()
        predicted = (samples.token_labels != IGNORED) & seen
        return predicted[:, 1:] & seen[:, :-1] if self.anatomy.task == "causal" else predicted

    def _classes(self, output: Tensor, samples: Samples) -> Tensor:
        from torch.nn.functional import cross_entropy

        targets = samples.labels
        if targets is None:
            missing = (
                "the model has no head" if self.anatomy.task == "none" and samples.has_tokens else "the samples have no targets"
            )
            raise UnsupportedModel(f"no loss: {missing}; pass loss= to the Scope, and targets with the samples")
        if targets.ndim != 1 or targets.is_floating_point() or output.ndim != 2:
            raise UnsupportedModel(
                f"no loss: cross-entropy needs integer targets (n,) and outputs (n, C), and these are {targets.dtype} "
                f"{tuple(targets.shape)} and {tuple(output.shape)}; pass loss= to the Scope"
            )
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= output.shape[1]:
            raise ValueError(f"target {low if low < 0 else high} is outside the {output.shape[1]} classes of the model")
        return cross_entropy(_wide(output), targets.to(output.device), reduction="none")

    def _by_user(self, output: Tensor, samples: Samples) -> Tensor:
        import torch

        assert self.custom is not None
        targets = samples.labels if samples.labels is not None else samples.token_labels if samples.has_tokens else None
        losses = self.custom(output, targets if targets is None else targets.to(output.device))
        if not isinstance(losses, torch.Tensor) or losses.shape != (len(samples),):
            came = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise ValueError(
                f"loss= returned {came} for {len(samples)} samples: return one loss per sample, shape "
                f"({len(samples)},), as those of torch are with reduction='none'"
            )
        return losses


def _wide(output: Tensor) -> Tensor:
    import torch

    return output if output.dtype == torch.float64 else output.float()


def masked(samples: Samples, mask_token: int, seed: int) -> Samples:
    """15 % of each sample's tokens (at least one, never the first or last) replaced by the mask token and labelled."""
    import torch

    labels = torch.full_like(samples.input_ids, IGNORED)
    ids = samples.input_ids.clone()
    for i, name in enumerate(samples.ids):
        inner = samples.attention_mask[i].nonzero()[1:-1, 0]
        if len(inner):
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
            chosen = inner[torch.randperm(len(inner), generator=generator)[: max(1, round(MASKED_SHARE * len(inner)))]]
            labels[i, chosen] = ids[i, chosen]
            ids[i, chosen] = mask_token
    prepared = samples.replaced(input_ids=ids)
    return replace(prepared, labels=labels)


def check_finite(losses: Tensor, samples: Samples, model: nn.Module) -> None:
    """A loss that is not a number is an error that names its cause, never a number in a result."""
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise ValueError(f"the loss of sample {samples.ids[int(bad[0])]!r} is {float(losses[bad[0]]):g}: {cause_of_nan(model)}")


def check_predicted(predicted: Tensor, samples: Samples) -> None:
    """A sample of which no token is predicted has no mean loss."""
    empty = (~predicted.any(1)).nonzero()
    if len(empty):
        name = samples.ids[int(empty[0])]
        raise ValueError(f"sample {name!r} has no token to predict: it needs two tokens and a label; leave it out")


def check_attached(losses: Tensor) -> None:
    """A loss that autograd cannot follow has no gradients."""
    if not losses.requires_grad:
        raise ValueError(
            "the loss cannot be differentiated: loss= must return a tensor that is made from the output, not detached"
        )
