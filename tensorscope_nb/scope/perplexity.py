"""Perplexity: exp of the mean loss per predicted token, with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics import ratio_interval
from tensorscope_nb.samples import IGNORED, Samples, start_of
from tensorscope_nb.samples.windows import Windows, windows, with_start
from tensorscope_nb.scope.forward import chunks, output_of
from tensorscope_nb.scope.loss import check_finite
from tensorscope_nb.scope.state import preserved

if TYPE_CHECKING:
    from tensorscope_nb.scope.scope import Scope


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean loss over all predicted tokens, with a 95 % interval over samples."""

    value: float
    ci_low: float
    ci_high: float
    nll: float  # nats per predicted token
    n_tokens: int

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        known = self.ci_low == self.ci_low
        interval = f"95 % interval {self.ci_low:.4g} to {self.ci_high:.4g}" if known else "no interval of one text"
        return f"perplexity {self.value:.4g} ({interval}, {self.n_tokens:,} predicted tokens)"


def perplexity(total: np.ndarray, count: np.ndarray) -> Perplexity:
    """From the summed loss of each text, and the number of tokens that it is of."""
    nll, low, high = ratio_interval(total, count)
    with np.errstate(over="ignore"):  # a broken model's perplexity is infinite; its nll still says how broken
        value, ci_low, ci_high = (float(np.exp(x)) for x in (nll, low, high))
    return Perplexity(value, ci_low, ci_high, nll, int(count.sum()))


def rows_of(scope: Scope, samples: Samples, *, stride: int | None = None, start_token: bool = False) -> Windows:
    """The samples as rows that the model takes, each of which predicts something."""
    rule, anatomy = scope.rule, scope.anatomy
    rule.require_tokens()
    if (stride is not None or start_token) and anatomy.task != "causal":
        raise UnsupportedModel(f"{scope.name} predicts no next token: stride= and start_token= are for causal language models")
    if stride is not None:
        _check_stride(stride, scope)
    samples = rule.prepared(samples)
    if start_token:
        samples = with_start(samples, rule.predicted(samples), _start(scope))
    predicted = rule.predicted(samples)
    _check_texts(scope, samples, predicted, stride, start_token)
    return Windows.whole(samples) if stride is None else windows(samples, predicted, anatomy.context, stride)


def token_losses(scope: Scope, rows: Windows, *, chunk: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Σ loss of each text, in nats, and the number of tokens that it is of; both (texts,)."""
    sums, counts = [], []
    done = 0
    with preserved(scope.model), torch.no_grad():
        for part in chunks(rows.samples, scope.anatomy, chunk):
            output = output_of(scope.model, part, scope.anatomy)
            losses, predicted = scope.rule.per_token(output, part)
            after = rows.following[done : done + len(part)].to(output.device)
            beyond = _beyond(output, after)
            total = losses.double().sum(1) + beyond
            check_finite(total, part, scope.model)
            sums.append(total.cpu().numpy())
            counts.append((predicted.sum(1) + (after != IGNORED)).cpu().numpy())
            done += len(part)
    source = rows.source.numpy()
    return (np.bincount(source, np.concatenate(sums)), np.bincount(source, np.concatenate(counts)))


def _beyond(output: Tensor, after: Tensor) -> Tensor:
    """The loss of what follows a row; only a row that fills the context, and so has no padding, has such a label."""
    if not bool((after != IGNORED).any()):
        return torch.zeros(len(after), dtype=torch.float64, device=output.device)
    return cross_entropy(output[:, -1].double(), after, ignore_index=IGNORED, reduction="none")


def _check_stride(stride: int, scope: Scope) -> None:
    context = scope.anatomy.context
    if not context:
        raise ValueError(f"stride= needs a context, and that of {scope.name} is not known: leave it out")
    if isinstance(stride, bool) or not isinstance(stride, Integral) or not 1 <= stride <= context:
        raise ValueError(f"stride is {stride!r}: move windows on by 1 to {context} tokens, the context of {scope.name}")


def _start(scope: Scope) -> int:
    start = start_of(scope.tokenizer)
    if start is None:
        what = "no tokenizer" if scope.tokenizer is None else "a tokenizer without a token for the beginning or the end of a text"
        raise ValueError(f"{scope.name} has {what}: leave start_token= out, or set the token's id before each text yourself")
    return start


def _check_texts(scope: Scope, samples: Samples, predicted: Tensor, stride: int | None, start_token: bool) -> None:
    lengths, context = samples.lengths, scope.anatomy.context
    empty = (~predicted.any(1)).nonzero()
    if len(empty):
        i = int(empty[0])
        more = "" if start_token or lengths[i] > 1 else ", or predict its first token (start_token=True)"
        tokens = f"{int(lengths[i])} token{'s' if lengths[i] > 1 else ''}"
        raise ValueError(f"sample {samples.ids[i]!r} has {tokens} and none to predict: leave it out{more}")
    if stride is None and context and int(lengths.max()) > context and scope.anatomy.task == "causal":
        i = int(lengths.argmax())
        raise ValueError(
            f"sample {samples.ids[i]!r} has {int(lengths[i])} tokens and the context of {scope.name} is {context}: "
            f"read it in windows (stride={max(1, context // 2)}), or cut it (scope.samples(texts, max_length={context}))"
        )
