"""Gradient health: how large the gradients are, how much of them is signal, how they fade with depth, and dead units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.recipes.dataset import Variable, dataset
from tensorscope_nb.recipes.groups import ByModule
from tensorscope_nb.recipes.modules import module_coords
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.forward import chunks
from tensorscope_nb.sweep.reducers import Masses, Sums
from tensorscope_nb.sweep.request import GradientRequest

if TYPE_CHECKING:
    from tensorscope_nb.recipes.recipe import Answered
    from tensorscope_nb.scope import Scope


ROUNDING = 1e-5  # what sums in single precision leave, relative


@recipe(
    question="Are the gradients healthy, layer by layer?", source="McCandlish et al. 2018, arXiv:1812.06162", needs=("gradients",)
)
def gradient_health(
    scope: Scope,
    samples: Any,
    *,
    learning_rate: float | None = None,
    dead_tolerance: float = 0.0,
    bounds: tuple[float, float] = (1e-8, 1e2),
    update_bounds: tuple[float, float] = (1e-6, 1e-1),
    modules: str | list[str] | None = None,
    chunk: int | None = None,
    progress: bool | None = None,
) -> Answered:
    """The size of the gradient of each module, its signal and noise over samples, its fading with depth, and dead units.

    What it answers: whether training signal reaches every layer, and how much of a gradient is more than sampling noise.
    Equation, with ḡ the mean of the n per-sample gradients of a module of d weights: grad_norm = ‖ḡ‖, grad_rms = ‖ḡ‖ / √d;
    signal = (‖Σ g_i‖² − Σ ‖g_i‖²) / (n (n − 1)), unbiased for ‖E g‖² and therefore sometimes negative; noise =
    Σ ‖g_i − ḡ‖² / (n − 1); snr = signal / noise; noise_scale = noise / signal (NaN where the signal is not positive): the
    batch size at which the two are equal. backward_rms is the root mean square of ∂ℓ/∂(output of the layer); ``depth_slope``
    the least-squares slope of its logarithm against the layer: positive where gradients fade towards the input.
    Source: McCandlish et al. 2018.

    Result: ``[module] grad_norm, grad_rms, signal, noise, snr, noise_scale, vanishing, exploding`` (grad_rms outside
    ``bounds``; with ``learning_rate``, η ‖ḡ‖ / ‖w‖ outside ``update_bounds``, and ``update_ratio``); ``[layer] backward_rms,
    n_neurons, n_dead, dead_fraction``; scalar ``depth_slope`` (an attribute as well);
    ``[layer, neuron] dead`` (1, 0; NaN beyond a layer's own). A unit of a transformer's
    MLP is dead where |activation| ≤ ``dead_tolerance`` × the layer's RMS at every token; a unit of an MLP or CNN where the
    gradient of its output is.
    Errors: UnsupportedModel where the loss is missing; ValueError for fewer than 2 samples. Cost: two forwards and backwards.
    How to read it: compare modules, checkpoints or data at equal n. When not to trust it: signal and noise are those of these
    samples; a negative signal says that n is too small to see one.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> health = ts.recipes.gradient_health(scope, ts.datasets.shakespeare(scope, n=8))
    >>> health["snr"].dims, health["backward_rms"].dims
    (('module',), ('layer',))
    """
    samples = scope.samples(samples)
    n = len(samples)
    if n < 2:
        raise ValueError(f"there is {n} sample: signal and noise need at least 2")
    sums, masses = Sums(), Masses(n, ByModule(scope).of)
    covered = yield GradientRequest(samples, [sums, masses], modules=modules, chunk=chunk, progress=progress)
    names = [str(name) for name in masses.values]
    total = np.array([sum(float((sums.totals[p.name] ** 2).sum()) for p in covered.parameters if p.module == m) for m in names])
    size = np.array([sum(p.tensor.nelement() for p in covered.parameters if p.module == m) for m in names])
    each = np.array([float(masses.values[m].sum()) for m in names])
    norm = np.sqrt(total) / n
    signal, noise = (total - each) / (n * (n - 1)), (each - total / n) / (n - 1)
    rms = norm / np.sqrt(size)
    noise = np.where(noise > ROUNDING * each / (n - 1), noise, 0.0)  # equal samples: what is left is rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(signal > 0, noise / signal, np.nan)
        snr = signal / noise
    judged, (low, high) = rms, bounds
    dims, unit = ("module",), "loss per unit of weight"
    variables: dict[str, Variable] = {
        "grad_norm": (dims, norm, "norm of the mean gradient", unit),
        "grad_rms": (dims, rms, "root mean square of the mean gradient", unit),
        "signal": (dims, signal, "squared norm of the expected gradient, unbiased", f"({unit})²"),
        "noise": (dims, noise, "variance of the gradient over samples", f"({unit})²"),
        "snr": (dims, snr, "signal to noise", ""),
        "noise_scale": (dims, scale, "gradient noise scale", "samples"),
    }
    if learning_rate is not None:
        weights = [
            sum(float((p.tensor.detach().double() ** 2).sum()) for p in covered.parameters if p.module == m) for m in names
        ]
        judged, (low, high) = learning_rate * norm / np.sqrt(np.maximum(weights, 1e-30)), update_bounds
        variables["update_ratio"] = (dims, judged, "learning rate × gradient norm / weight norm", "")
    variables["vanishing"] = (dims, judged < low, f"below {low:g}", "")
    variables["exploding"] = (dims, judged > high, f"above {high:g}", "")
    layers, slope = _layers(scope, samples, dead_tolerance, chunk)
    variables["depth_slope"] = ((), slope, "slope of the log backward signal over layers", "per layer")
    result = dataset(variables | layers, module_coords(scope, names), n_used=n, n_available=n, by_reference=covered.by_reference)
    result.attrs["depth_slope"] = slope
    return result


def _layers(scope: Scope, samples: Samples, tolerance: float, chunk: int | None) -> tuple[dict[str, Variable], float]:
    """The backward signal of each layer, and its dead units."""
    anatomy = scope.anatomy
    if not anatomy.n_layers:
        return {}, float("nan")
    outputs = [f"layers.{i}.{'resid_post' if anatomy.table else 'out'}" for i in range(anatomy.n_layers)]
    units = [f"layers.{i}.{'mlp.post' if anatomy.table else 'out'}" for i in range(anatomy.n_layers)]
    squares, counts = np.zeros(anatomy.n_layers), np.zeros(anatomy.n_layers)
    largest: list[np.ndarray] = [np.zeros(0)] * anatomy.n_layers
    power, n_seen = np.zeros(anatomy.n_layers), np.zeros(anatomy.n_layers)
    for part in chunks(scope.rule.prepared(samples), anatomy, chunk):
        record = scope.record(part, list(dict.fromkeys(outputs + units)), gradients=True, chunk=len(part))
        for i, (output, unit) in enumerate(zip(outputs, units, strict=True)):
            delta = _at_tokens(record.gradients[output], part)
            squares[i] += (delta**2).sum()
            counts[i] += delta.size
            seen = np.abs(_at_tokens(record[unit] if anatomy.table else record.gradients[unit], part))
            power[i] += (seen**2).sum()
            n_seen[i] += seen.size
            reached = seen.max(0)
            largest[i] = np.maximum(largest[i], reached) if largest[i].size else reached
    rms = np.sqrt(squares / counts)
    widths = [len(peak) for peak in largest]
    dead = np.full((anatomy.n_layers, max(widths)), np.nan)
    for i, peak in enumerate(largest):
        dead[i, : len(peak)] = peak <= tolerance * np.sqrt(power[i] / n_seen[i])
    n_dead = np.nansum(dead, 1)
    kind = "|activation| at every token" if anatomy.table else "gradient of the output at every sample"
    positive = rms > 0
    slope = float(np.polyfit(np.flatnonzero(positive), np.log(rms[positive]), 1)[0]) if positive.sum() > 1 else float("nan")
    by_layer = ("layer",)
    variables: dict[str, Variable] = {
        "backward_rms": (by_layer, rms, "root mean square of the gradient at the layer's output", "loss per unit"),
        "n_neurons": (by_layer, widths, "units", "units"),
        "n_dead": (by_layer, n_dead, f"dead units, by {kind}", "units"),
        "dead_fraction": (by_layer, n_dead / widths, f"share of dead units, by {kind}", ""),
        "dead": (("layer", "neuron"), dead, f"dead, by {kind}", ""),
    }
    return variables, slope


def _at_tokens(value: Any, part: Samples) -> np.ndarray:
    """(tokens, units): positions that hold something; of a convolution every place, its channels as units."""
    if value.ndim == 2:
        return value.double().cpu().numpy()
    if part.has_tokens:
        return value[part.seen(value.shape[1]).to(value.device)].double().cpu().numpy()
    if value.ndim == 4:
        value = value.movedim(1, -1)
    return value.flatten(0, -2).double().cpu().numpy()
