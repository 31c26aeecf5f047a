"""Gradient health: how large the gradients are, how much of them is signal, how they fade with depth, and dead units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope_nb.recipes.covered import said
from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords
from tensorscope_nb.recipes.groups import ByModule, modules_of
from tensorscope_nb.recipes.modules import module_coords
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.recipes.signals import LayerSignals
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
    per_sample: bool = False,
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
    gradient of its output is. With ``per_sample`` also ``[sample, module] grad_norm_by_sample`` and ``[sample, layer]
    backward_rms_by_sample``.
    Errors: UnsupportedModel where the loss is missing; ValueError for fewer than 2 samples. Cost: one forward and one backward.
    How to read it: compare modules, checkpoints or data at equal n. When not to trust it: signal and noise are those of these
    samples; a negative signal says that n is too small to see one.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> health = ts.recipes.gradient_health(scope, ts.datasets.shakespeare(scope, n=8))
    >>> health["snr"].dims, health["backward_rms"].dims
    (('module',), ('layer',))
    """
    samples = scope.samples(samples)
    if len(samples) < 2:
        raise ValueError(f"there is {len(samples)} sample: signal and noise need at least 2")
    sums, masses, layers = Sums(), Masses(ByModule(scope)), LayerSignals(scope.anatomy)
    covered = yield GradientRequest(samples, [sums, masses, layers], modules=modules, chunk=chunk, progress=progress)
    n = len(covered.samples)
    names = modules_of(covered.parameters, masses.values)
    parameters = {name: [p for p in covered.parameters if p.module == name] for name in names}
    total = np.array([sum(float((sums.totals[p.name].double() ** 2).sum()) for p in parameters[name]) for name in names])
    size = np.array([sum(p.tensor.nelement() for p in parameters[name]) for name in names])
    by_sample = np.stack([masses.values[name][:n].numpy() for name in names], 1)
    each, norm = by_sample.sum(0), np.sqrt(total) / n
    rms = norm / np.sqrt(size)
    with np.errstate(divide="ignore", invalid="ignore"):
        signal, noise = (total - each) / (n * (n - 1)), (each - total / n) / (n - 1)
        noise = np.where(noise > ROUNDING * each / (n - 1), noise, 0.0)  # equal samples: what is left is rounding
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
        weights = [sum(float((p.matrix.double() ** 2).sum()) for p in parameters[name]) for name in names]
        judged, (low, high) = learning_rate * norm / np.sqrt(np.maximum(weights, 1e-30)), update_bounds
        variables["update_ratio"] = (dims, judged, "learning rate × gradient norm / weight norm", "")
    variables["vanishing"] = (dims, judged < low, f"below {low:g}", "")
    variables["exploding"] = (dims, judged > high, f"above {high:g}", "")
    slope = layers.slope(n)
    variables |= layers.variables(n, dead_tolerance, per_sample)
    variables["depth_slope"] = ((), slope, "slope of the log backward signal over layers", "per layer")
    coords = module_coords(scope, names)
    if per_sample:
        variables["grad_norm_by_sample"] = (("sample", "module"), np.sqrt(by_sample), "norm of the sample's gradient", unit)
        coords |= sample_coords(covered.samples)
    result = dataset(variables, coords, **said(samples, covered.samples, covered))
    result.attrs["depth_slope"] = slope
    return result
