"""Of what there is one gradient each: sequences or tokens; and whose labels: the data's, or the model's own."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import IGNORED, Samples
from tensorscope_nb.scope.forward import check_output, chunks, output_of
from tensorscope_nb.scope.loss import check_predicted
from tensorscope_nb.scope.state import preserved

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope

Kind = Literal["empirical", "mc"]
Unit = Literal["sequence", "token"]


def units(scope: Scope, samples: Samples, unit: Unit, kind: Kind, seed: int) -> tuple[Samples, Tensor]:
    """The samples to take gradients of, and of each the number of the sample that it comes from."""
    if unit not in ("sequence", "token"):
        raise ValueError(f"sample_unit is {unit!r}: choose 'sequence' or 'token'")
    if kind not in ("empirical", "mc"):
        raise ValueError(f"kind is {kind!r}: choose 'empirical' (the data's labels) or 'mc' (labels drawn from the model)")
    samples = scope.rule.prepared(samples)
    if kind == "mc":
        samples = drawn(scope, samples, seed)
    return tokens_apart(scope, samples) if unit == "token" else (samples, torch.arange(len(samples)))


def tokens_apart(scope: Scope, samples: Samples) -> tuple[Samples, Tensor]:
    """Each predicted token as a sample of its own, with all that stands before it and no other label.

    One backward of a sequence cannot give the gradients of its tokens: a token's loss reaches back to every position.
    """
    if scope.rule.custom is not None or scope.anatomy.task not in ("causal", "masked"):
        raise UnsupportedModel("the unit 'token' is for language models: here a sample's loss is not made of tokens")
    predicted = scope.rule.predicted(samples)
    check_predicted(predicted, samples)
    sample, position = predicted.nonzero(as_tuple=True)
    apart = samples.repeated(
        sample.tolist(), [f"{samples.ids[i]}@{p}" for i, p in zip(sample.tolist(), position.tolist(), strict=True)]
    )
    labels = torch.full_like(apart.input_ids, IGNORED)
    labels[torch.arange(len(sample)), position] = samples.token_labels[sample, position]
    return replace(apart, labels=labels), sample


def drawn(scope: Scope, samples: Samples, seed: int) -> Samples:
    """The samples with labels drawn from what the model predicts, the same for a sample whatever stands beside it."""
    language = scope.anatomy.task in ("causal", "masked")
    unlike = "kind='mc' draws labels from the model: its loss must be the likelihood of labels"
    if scope.rule.custom is not None:
        raise UnsupportedModel(f"{unlike}, and not a loss= of your own")
    found = []
    with preserved(scope.model), torch.no_grad():
        for part in chunks(samples, scope.anatomy, None):
            output = output_of(scope.model, part, scope.anatomy)
            check_output(output, part, scope.model)
            if not language and output.ndim != 2:
                raise UnsupportedModel(f"{unlike}, and the output {tuple(output.shape)} is none of classes")
            seen = part.attention_mask.bool().cpu() if language else torch.ones(len(part), 1, dtype=torch.bool)
            found += [_draw(row, at, f"{seed}:{name}") for row, at, name in zip(output, seen, part.ids, strict=True)]
    if not language:
        return replace(samples, labels=torch.cat(found))
    predicted = scope.rule.predicted(samples)
    labels = torch.stack(found)
    if scope.anatomy.task == "causal":
        labels = torch.cat([labels[:, :1], labels[:, :-1]], 1)  # position t predicts the token at t + 1
    return replace(samples, labels=labels.masked_fill(~predicted, IGNORED))


def _draw(logits: Tensor, seen: Tensor, name: str) -> Tensor:
    """One label for each place that is seen: padding takes no random numbers, so that it does not matter where it stands."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    rows = logits.double().cpu().softmax(-1).reshape(len(seen), -1)
    labels = torch.zeros(len(seen), dtype=torch.long)
    labels[seen] = torch.multinomial(rows[seen], 1, generator=generator)[:, 0]
    return labels
