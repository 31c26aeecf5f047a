"""Pairs of samples that differ in one respect, and what is measured of a run of either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tensorscope_nb.recipes.next_token import next_tokens, token_ids
from tensorscope_nb.samples import IGNORED, Samples

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope


def aligned(clean: Samples, corrupt: Samples) -> Samples:
    """``corrupt`` with its tokens in the columns where those of ``clean`` stand, under the ids of ``clean``."""
    there, given = clean.attention_mask.bool(), corrupt.attention_mask.bool()
    if len(clean) != len(corrupt):
        raise ValueError(
            f"there are {len(clean)} clean and {len(corrupt)} corrupt samples: give one corrupt sample for each clean one"
        )
    if clean.vocabulary and corrupt.vocabulary and clean.vocabulary != corrupt.vocabulary:
        raise ValueError("clean and corrupt were made with different tokenizers: their ids do not mean the same tokens")
    unlike = (clean.lengths != corrupt.lengths).nonzero()
    if len(unlike):
        i = int(unlike[0])
        raise ValueError(
            f"clean sample {clean.ids[i]!r} has {int(clean.lengths[i])} tokens and its corrupt one {int(corrupt.lengths[i])}: "
            "a pair must have as many, so that each position has its counterpart"
        )

    def moved(value: Tensor, like: Tensor) -> Tensor:
        if value.shape[:2] != given.shape:
            return value
        new = like.clone()
        new[there] = value[given]  # row by row, as many in each
        return new

    inputs = {name: moved(value, clean.inputs[name]) for name, value in corrupt.inputs.items() if name in clean.inputs}
    inputs["attention_mask"] = clean.attention_mask
    nothing = torch.full_like(clean.input_ids, IGNORED)
    labels = corrupt.labels if corrupt.labels is None or corrupt.labels.ndim == 1 else moved(corrupt.labels, nothing)
    pieces = tuple(_moved(p, given[i], there[i]) for i, p in enumerate(corrupt.pieces))
    return replace(corrupt, inputs=inputs, labels=labels, pieces=pieces, ids=clean.ids)


def _moved(pieces: tuple[str, ...] | None, given: Tensor, there: Tensor) -> tuple[str, ...] | None:
    if pieces is None:
        return None
    words = iter([piece for piece, seen in zip(pieces, given.tolist(), strict=True) if seen])
    return tuple(next(words) if seen else "" for seen in there.tolist())


def loss_metric(scope: Scope, clean: Samples) -> Callable[[Tensor, Sequence[int]], Tensor]:
    """The mean loss of the clean labels."""
    if scope.anatomy.task == "masked" and scope.rule.custom is None and clean.labels is None:
        raise ValueError("a masked model predicts the tokens that are labelled: give the clean samples labels")

    def loss(output: Tensor, rows: Sequence[int]) -> Tensor:
        return scope.rule.per_sample(output, clean.repeated(rows, [f"{clean.ids[i]} run {k}" for k, i in enumerate(rows)]))

    return loss


def answer_metric(scope: Scope, clean: Samples, corrupt: Samples, answers: Any) -> Callable[[Tensor, Sequence[int]], Tensor]:
    """The logit of the right token minus that of the wrong one, where the answer is due."""
    columns = torch.arange(clean.input_ids.shape[1])
    if answers is None:
        right, wrong = next_tokens(scope, clean), next_tokens(scope, corrupt)
        due = right != IGNORED
    else:
        if not isinstance(answers, tuple | list) or len(answers) != 2:
            raise ValueError(
                f"answers is {answers!r}: give two, (right token ids, wrong token ids), one id each or one per sample"
            )
        right, wrong = (token_ids(a, "answers", clean, scope.anatomy.n_vocab) for a in answers)
        due = clean.attention_mask.bool()
    if not bool(due.any(1).all()):
        i = int((~due.any(1)).nonzero()[0])
        raise ValueError(f"sample {clean.ids[i]!r} has no token to predict: it needs a label, or give answers=")
    at = (columns * due).amax(1)
    each = torch.arange(len(clean))
    right, wrong = right[each, at], wrong[each, at]
    same = (right == wrong) | (wrong == IGNORED)
    if bool(same.any()):
        i = int(same.nonzero()[0])
        raise ValueError(
            f"the right and the wrong answer of sample {clean.ids[i]!r} are the same token ({int(right[i])}), or one is missing: "
            "give answers=(right token ids, wrong token ids)"
        )

    def difference(output: Tensor, rows: Sequence[int]) -> Tensor:
        of = torch.as_tensor(list(rows))
        here = output[torch.arange(len(of)), at[of]].double()
        pick = torch.arange(len(of))
        return here[pick, right[of].to(here.device)] - here[pick, wrong[of].to(here.device)]

    return difference
