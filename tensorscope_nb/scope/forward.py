"""Runs the model on samples: one place that checks the input, makes the positions, and cuts the data into chunks."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch

from tensorscope_nb.samples import IGNORED, Samples
from tensorscope_nb.scope.interrupts import allowed
from tensorscope_nb.scope.point import main_tensor
from tensorscope_nb.settings import current

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tensorscope_nb.scope.anatomy import Anatomy


SAMPLES, TOKENS = 64, 8192  # that go through the model at a time


def check(samples: Samples, anatomy: Anatomy) -> None:
    """One clear line for what the model cannot take."""
    if not samples.has_tokens:
        if anatomy.table and anatomy.n_vocab and "inputs_embeds" not in samples.inputs:
            raise TypeError(
                f"these samples are tensors ({', '.join(samples.inputs)}), and {anatomy.family} reads tokens: "
                "give texts or token ids"
            )
        return
    width = samples.input_ids.shape[1]
    if anatomy.context and width > anatomy.context:
        padding = "" if int(samples.lengths.max()) == width else ", padding included"
        raise ValueError(
            f"the samples are {width} tokens wide{padding}, and the model's context is {anatomy.context}: "
            f"make them with scope.samples(texts, max_length={anatomy.context}), or split the texts"
        )
    seen = samples.attention_mask.bool()
    ids = samples.input_ids[seen]
    labels = samples.token_labels[seen] if anatomy.task in ("causal", "masked") else ids
    for name, values in (("token id", ids), ("label", labels[labels != IGNORED])):
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        if anatomy.n_vocab and (low < 0 or high >= anatomy.n_vocab):
            raise ValueError(
                f"{name} {low if low < 0 else high} is outside the model's vocabulary of {anatomy.n_vocab}: "
                "were the texts tokenized for another model?"
            )


def chunks(samples: Samples, anatomy: Anatomy, chunk: int | None, *, patterns: bool = False) -> Iterator[Samples]:
    """Consecutive pieces of ``samples``, as many rows at a time as ``chunk`` says or the memory option allows."""
    check(samples, anatomy)
    if chunk is not None and (not isinstance(chunk, Integral) or chunk < 1):
        raise ValueError(f"chunk is {chunk!r}: a pass needs at least 1 sample, a whole number")
    size = chunk or usual_chunk(samples, anatomy, patterns)
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def usual_chunk(samples: Samples, anatomy: Anatomy, patterns: bool = False) -> int:
    """64 samples, or as many short ones as have so many tokens; fewer where the memory option allows no more."""
    most = max(SAMPLES, TOKENS // samples.input_ids.shape[1]) if samples.has_tokens else SAMPLES
    return max(1, min(most, current().memory // bytes_per_sample(samples, anatomy, patterns)))


def bytes_per_sample(samples: Samples, anatomy: Anatomy, patterns: bool = False) -> int:
    """About what one sample takes: logits and their softmax, the residual streams, and the patterns where they are made."""
    if not samples.has_tokens:
        return 64 * sum(value[0].nelement() for value in samples.inputs.values())
    length = samples.input_ids.shape[1]
    values = 3 * length * anatomy.n_vocab + 6 * length * anatomy.d_model * anatomy.n_layers
    if patterns:
        values += 3 * anatomy.n_layers * anatomy.n_heads * length**2
    return 4 * max(values, length)


def inputs(samples: Samples, anatomy: Anatomy, device: Any, dtype: Any) -> dict[str, Any]:
    """What the model is called with. Positions count tokens, not padding: with left padding they would be wrong otherwise."""
    given = dict(samples.inputs)
    if samples.has_tokens and anatomy.n_vocab:  # padding may be an id that the model does not have
        known = samples.input_ids.clamp(0, anatomy.n_vocab - 1)
        given["input_ids"] = torch.where(samples.attention_mask.bool(), samples.input_ids, known)
    if samples.has_tokens and anatomy.positions and "position_ids" not in given:
        given["position_ids"] = (samples.attention_mask.cumsum(1) - 1).clamp(min=0)
    moved = {name: value.to(device, dtype if value.is_floating_point() else value.dtype) for name, value in given.items()}
    return moved | ({"use_cache": False} if samples.has_tokens and anatomy.task == "causal" else {})


def call(model: nn.Module, samples: Samples, anatomy: Anatomy) -> Any:
    """The model's own output for one chunk."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None:
        parameter = next(model.parameters())
    given = inputs(samples, anatomy, parameter.device, parameter.dtype)
    return model(given.pop("x"), **given) if "x" in given else model(**given)


def check_output(output: Tensor, samples: Samples, model: nn.Module) -> None:
    """An output that is not a number is an error that names the sample and its cause."""
    by_token = samples.has_tokens and output.shape[:2] == samples.attention_mask.shape
    for i, row in enumerate(output):
        if not bool((row[samples.attention_mask[i].bool()] if by_token else row).isfinite().all()):
            raise ValueError(f"the model's output for sample {samples.ids[i]!r} is not finite: {cause_of_nan(model)}")


def cause_of_nan(model: nn.Module) -> str:
    broken = [name for name, p in model.named_parameters() if not bool(p.isfinite().all())]
    return f"the parameter {broken[0]} holds NaN or infinity" if broken else "the parameters are finite, its activations overflow"


def output_of(model: nn.Module, samples: Samples, anatomy: Anatomy) -> Tensor:
    """What the model says of one chunk: its logits (n, T, vocabulary), (n, C) …, or its last states where it has no head."""
    with allowed():
        return main_tensor(call(model, samples, anatomy))
