"""Models side by side, each with its own tokenizer: how well they predict the same bytes, and where they feel it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics import ratio_interval
from tensorscope_nb.numerics.depth import over_depth
from tensorscope_nb.recipes.dataset import Variable, dataset
from tensorscope_nb.recipes.groups import ByModule
from tensorscope_nb.recipes.modules import block_of, by_layer
from tensorscope_nb.recipes.recipe import of_model, recipe
from tensorscope_nb.recipes.same_bytes import Reading, Texts, check_readable
from tensorscope_nb.recipes.sensitivity import grad_x_weight
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.perplexity import perplexity, rows_of, token_losses
from tensorscope_nb.sweep.gradients import gradient_sweep
from tensorscope_nb.sweep.measure import Elementwise
from tensorscope_nb.sweep.reducers import Masses

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope

BLOCKS = ("Q", "K", "V", "QKV", "KV", "O", "mlp_in", "mlp_gate", "mlp_out", "norm", "embed", "unembed", "other")
BITS = "bits per byte"
ENDS = (("", ""), ("_ci_low", ", lower end of the 95 % interval"), ("_ci_high", ", upper end of the 95 % interval"))


@recipe(
    question="Which model predicts these texts best, and where in each does it matter?",
    source="Gao et al. 2020, arXiv:2101.00027 (bits per byte); Molchanov et al. 2019, arXiv:1906.10771 (grad × weight)",
    needs=("losses", "gradients", "weights"),
)
def compare_models(
    models: Mapping[str, Scope],
    texts: Any,
    *,
    stride: int | None = None,
    n_depths: int | None = None,
    per_sample: bool = False,
    chunk: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Bits per byte of several language models on the same texts, and how what their weights do is spread over depth.

    What it answers: which of ``models``, {name: scope}, predicts the texts better, whatever its tokenizer. Perplexities are
    per token, and tokens differ: a vocabulary of long tokens has few of them, each hard to guess, and a higher perplexity of
    the very same text. The bytes of a text are the same for all. ``texts`` are strings, a table with a column ``text``, or
    Samples made from texts (the texts are read whole, also where their tokens were cut).

    Equation: bits per byte = Σᵢ (−log₂ pᵢ) / Σᵢ bytesᵢ over the texts i, with pᵢ what the model gives to all that is predicted
    of text i. Each tokenizer's start token (its token for the beginning of a text, or else for the end) stands before every
    text, so that all of it is predicted. Where a tokenizer has none, every model predicts the text only from the first place
    on where each of them has a token begin: ``coverage`` is the share of all bytes that is left. Sensitivity: mᵢ = Σₖ |gᵢₖ wₖ|
    over the weights of a layer, gᵢ the gradient of the text's summed loss; layer i of L covers depth i/L to (i+1)/L, and its
    mass goes to ``n_depths`` equal bins (default: as many as the model with the fewest layers has) as they overlap it:
    n_depths · Σᵢ mass of the bin / Σᵢ mass of all layers, so that 1 is what evenly spread weights would have. Source: Gao et
    al. 2020; Molchanov et al. 2019.

    Result, ``[model]``: ``bits_per_byte, ci_low, ci_high``; ``perplexity`` (per token of its own: for comparing a model with
    itself only), ``n_tokens`` (predicted), ``n_bytes`` (predicted), ``coverage``, ``n_parameters, n_layers``. ``[model_a,
    model_b] difference, difference_ci_low, difference_ci_high``: bits per byte of a less those of b, paired by text: negative
    where a is better. ``[model, depth] sensitivity, sensitivity_ci_low, sensitivity_ci_high``, depth 0 (input) to 1 (output);
    NaN, with a note, for a model whose layers are not known, or of no effect. ``[model, block] sensitivity_by_block`` with its
    interval: the share of all weights that are trained, NaN where a model has no such block (tied weights count with the
    embedding). With ``per_sample``: ``[sample, model] bits_per_byte_by_sample``. Intervals are 95 % Student intervals of ratios
    over texts, each by itself (of many differences some leave out 0 by chance). The metadata names the dtype and weights of
    each model.

    Errors: UnsupportedModel for a model without tokenizer, or without a loss of next tokens; ValueError for a text longer than
    a context (pass ``stride``, as for ``scope.perplexity``), for a text that a tokenizer does not give back unchanged, and for
    an empty one. Cost: two forwards and one backward of all texts per model.
    How to read it: an interval of ``difference`` without 0 says which model is better on texts like these. When not to trust
    it: a model may have been trained on the texts; a longer context has more to predict from; texts that hang together
    (chapters of one book) are not independent. Sensitivity is of first order, and of the weights as they are scaled; where a
    text takes several windows, |g w| is summed over windows.

    >>> import tensorscope_nb as ts
    >>> models = {"early": ts.load("tiny", checkpoint=200), "final": ts.load("tiny")}
    >>> found = ts.recipes.compare_models(models, ["To be, or not to be", "Good morrow, cousin."])
    >>> bool(found["difference"].sel(model_a="early", model_b="final") > 0.5), found["sensitivity"].dims
    (True, ('model', 'depth'))
    """
    for name, scope in models.items():
        check_readable(name, scope)
    if n_depths is not None and (isinstance(n_depths, bool) or not isinstance(n_depths, Integral) or n_depths < 1):
        raise ValueError(f"n_depths is {n_depths!r}: divide depth into at least 1 bin, a whole number")
    layers = [scope.anatomy.n_layers for scope in models.values() if scope.anatomy.n_layers]
    n_depths = n_depths or min(layers, default=1)
    read = Texts.of(texts)
    reading = Reading.of(models, read)
    found = {name: _measured(name, scope, reading, stride, chunk, progress) for name, scope in models.items()}
    depths = {name: _by_depth(scope, found[name].masses, n_depths) for name, scope in models.items()}
    blocks = {name: _by_block(scope, found[name].masses) for name, scope in models.items()}
    kinds = [block for block in BLOCKS if any(block in of for of in blocks.values())]
    by_block = [np.array([of.get(kind, (np.nan,) * 3) for kind in kinds]).T for of in blocks.values()]
    bits = {name: each.bits for name, each in found.items()}
    variables = _predictions(models, found, reading) | _differences(bits, reading)
    variables |= _with_ends("sensitivity", ("model", "depth"), list(depths.values()), "share of sensitivity, 1 if evenly spread")
    variables |= _with_ends("sensitivity_by_block", ("model", "block"), by_block, "share of sensitivity")
    names = np.array(list(models), dtype=object)
    coords: dict[str, Any] = {"model": names, "model_a": names, "model_b": names, "block": np.array(kinds, dtype=object)}
    coords["depth"] = (np.arange(n_depths) + 0.5) / n_depths
    if per_sample:
        each = np.stack([value / reading.n_bytes for value in bits.values()], 1)
        variables["bits_per_byte_by_sample"] = (("sample", "model"), each, f"{BITS} of each text", BITS)
        coords |= read.coords
    said: dict[str, Any] = {"data": read.fingerprint, "n_used": len(read), "n_available": len(read)}
    return dataset(variables, coords, **said, start_tokens=reading.start_tokens, notes=_notes(models, depths))


@dataclass(frozen=True)
class _Measured:
    """Of one model, text by text."""

    bits: np.ndarray
    counts: np.ndarray  # predicted tokens
    masses: dict[str, np.ndarray]  # Σ |g w| by module


def _measured(
    name: str, scope: Scope, reading: Reading, stride: int | None, chunk: int | None, progress: bool | None
) -> _Measured:
    lengths, context = reading.samples[name].lengths, scope.anatomy.context
    if stride is None and context and int(lengths.max()) > context:
        i = int(lengths.argmax())
        known = reading.samples[name].ids[i]
        raise ValueError(
            f"{known!r} is {int(lengths[i])} tokens of the model {name!r}, whose context is {context}: read "
            f"it in windows (stride={max(1, context // 2)}), or give a shorter text"
        )
    try:
        rows = rows_of(scope, reading.samples[name], stride=stride)
        total, counts = token_losses(scope, rows, chunk=chunk)
        some = scope.rule.predicted(rows.samples).any(1)  # in the row, and not only beyond its end
        source, own = rows.source[some].numpy(), _masses(scope, rows.samples[some], chunk, progress)
    except (ValueError, UnsupportedModel) as error:
        raise type(error)(f"the model {name!r}: {error}") from error
    masses = {module: np.bincount(source, values, minlength=len(total)) for module, values in own.items()}
    return _Measured(total / np.log(2), counts, masses)


def _masses(scope: Scope, samples: Samples, chunk: int | None, progress: bool | None) -> dict[str, np.ndarray]:
    """Σ |g w| over the weights of each module (rows,)."""
    masses = Masses(ByModule(scope, Elementwise(grad_x_weight, "sample")))
    covered = gradient_sweep(scope, samples, [masses], reduction="sum", chunk=chunk, progress=progress)
    if covered.interrupted:
        raise KeyboardInterrupt
    return {module: values.numpy() for module, values in masses.values.items()}


def _by_depth(scope: Scope, masses: Mapping[str, np.ndarray], n_depths: int) -> np.ndarray:
    """(value and ends, depth)"""
    n = scope.anatomy.n_layers
    of_layers = by_layer(scope, masses)
    if not of_layers:
        return np.full((3, n_depths), np.nan)
    texts = len(next(iter(of_layers.values())))
    table = np.stack([of_layers.get(layer, np.zeros(texts)) for layer in range(n)], 1)
    return _shares(n_depths * over_depth(table, n_depths), table.sum(1))


def _by_block(scope: Scope, masses: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{block: its share and the ends}"""
    found: dict[str, np.ndarray] = {}
    for module, values in masses.items():
        block = block_of(scope, module)
        found[block] = found.get(block, 0) + values
    total = np.sum(list(found.values()), 0)
    return dict(zip(found, _shares(np.stack(list(found.values()), 1), total).T, strict=True))


def _shares(parts: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Σ part / Σ whole over texts with its interval, for each part: (3, parts); a share is not negative."""
    if not whole.sum():
        return np.full((3, parts.shape[1]), np.nan)
    found = np.array([ratio_interval(part, whole) for part in parts.T]).T
    return np.maximum(found, 0)


def _predictions(models: Mapping[str, Scope], found: Mapping[str, _Measured], reading: Reading) -> dict[str, Variable]:
    of_bytes = np.array([ratio_interval(each.bits, reading.n_bytes) for each in found.values()]).T
    n = len(models)
    of_tokens = [perplexity(each.bits * np.log(2), each.counts) for each in found.values()]
    parameters = [sum(p.nelement() for p in scope.model.parameters()) for scope in models.values()]
    layers = [scope.anatomy.n_layers for scope in models.values()]
    along = ("model",)
    return {
        "bits_per_byte": (along, of_bytes[0], BITS, BITS),
        "ci_low": (along, of_bytes[1], f"{BITS}{ENDS[1][1]}", BITS),
        "ci_high": (along, of_bytes[2], f"{BITS}{ENDS[2][1]}", BITS),
        "perplexity": (along, [each.value for each in of_tokens], "perplexity, per token of the model's own", ""),
        "n_tokens": (along, [each.n_tokens for each in of_tokens], "predicted tokens", "tokens"),
        "n_bytes": (along, [int(reading.n_bytes.sum())] * n, "predicted bytes", "bytes"),
        "coverage": (along, [reading.coverage] * n, "share of the bytes that is predicted", ""),
        "n_parameters": (along, parameters, "parameters", "parameters"),
        "n_layers": (along, layers, "layers", "layers"),
    }


def _differences(bits: Mapping[str, np.ndarray], reading: Reading) -> dict[str, Variable]:
    found = np.array([[ratio_interval(a - b, reading.n_bytes) for b in bits.values()] for a in bits.values()])
    values = np.moveaxis(found, -1, 0)
    return {
        f"difference{end}": (("model_a", "model_b"), value, f"{BITS} of a less those of b{words}", BITS)
        for (end, words), value in zip(ENDS, values, strict=True)
    }


def _with_ends(name: str, dims: tuple[str, str], found: list[np.ndarray], long_name: str) -> dict[str, Variable]:
    values = np.stack(found, 1)
    return {f"{name}{end}": (dims, value, f"{long_name}{words}", "") for (end, words), value in zip(ENDS, values, strict=True)}


def _notes(models: Mapping[str, Scope], depths: Mapping[str, np.ndarray]) -> list[str]:
    notes = []
    dtypes = {name: of_model(scope)["dtype"] for name, scope in models.items()}
    if len(set(dtypes.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        notes.append(f"the models do not compute in one precision: {listed}")
    for name, scope in models.items():
        if np.isnan(depths[name][0]).any():
            why = "the loss feels none of the weights in its layers" if scope.anatomy.n_layers else "its layers are not known"
            notes.append(f"{name} has no sensitivity over depth: {why}")
    return notes
