"""Induction heads: which heads find what followed the current token before."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics import t_interval
from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.samples import IGNORED, Samples, datasets
from tensorscope_nb.scope.readout import DirectLogits, output_weights
from tensorscope_nb.settings import current
from tensorscope_nb.sweep import Chunk, sweep

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from tensorscope_nb.scope import Scope

PERIOD = 50
SHARE = "share of attention"
ABOVE_NULL, LEAST = 5, 0.2  # the rule for is_induction; our choice, stated in the docstring

SCORES = {
    "prefix_matching": ("prefix matching", SHARE),
    "previous_token": ("attention to the previous token", SHARE),
    "duplicate_token": ("attention to earlier copies of the token", SHARE),
    "copying": ("copying: direct logit of the next token", "standard deviations"),
}


def earlier_copies(samples: Samples) -> Tensor:
    """(n, query, key): the key holds the same token as the query, and stands before it."""
    ids, seen = samples.input_ids, samples.attention_mask.bool()
    same = ids[:, :, None] == ids[:, None, :]
    return (same & seen[:, :, None] & seen[:, None, :]).tril(-1)


def after_copies(samples: Samples) -> Tensor:
    """(n, query, key): the key is what followed an earlier copy of the query's token. This is what induction looks at."""
    return torch.nn.functional.pad(earlier_copies(samples), (1, 0))[:, :, :-1]


def fixed_distance(samples: Samples, distance: int) -> Tensor:
    """(n, query, key): the key stands ``distance`` tokens before the query."""
    n, length = samples.input_ids.shape
    offset = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    return (offset == distance).expand(n, -1, -1)


def attention_on(pattern: Tensor, targets: Tensor, queries: Tensor) -> Tensor:
    """The attention that falls on ``targets`` (n, query, key), summed, and averaged over ``queries`` (n, query): (n, head).

    A sample without a query gives NaN.
    """
    on_target = torch.einsum("nhqk,nqk->nhq", pattern.float(), targets.float().to(pattern.device))
    weights = queries.float().to(pattern.device)
    return (on_target * weights[:, None]).sum(-1) / weights.sum(-1)[:, None]


class RepeatScores:
    """Reads every score of a head from sequences whose second half repeats the first; keeps one row per sequence."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.needs = ("layers.*.attn.pattern", "layers.*.attn.z")
        self.logits = DirectLogits(scope.model, scope.anatomy)
        self.rows: dict[str, list[np.ndarray]] = {}

    def update(self, chunk: Chunk) -> None:
        samples, anatomy = chunk.samples, self.scope.anatomy
        second = samples.token_labels != IGNORED
        copies, followers = earlier_copies(samples), after_copies(samples)
        targets = {
            "prefix_matching": (followers, second),
            "duplicate_token": (copies, second),
            "previous_token": (fixed_distance(samples, 1), torch.arange(second.shape[1]).expand_as(second) >= 1),
        }
        visible = torch.arange(1, second.shape[1] + 1)
        uniform = (followers.float() / visible[:, None]).sum(-1)
        null = (uniform * second).sum(-1) / second.sum(-1)
        self._keep("null", null[:, None, None].expand(-1, anatomy.n_layers, anatomy.n_heads))
        for name, (target, queries) in targets.items():
            scores = [attention_on(chunk.site(f"layers.{i}.attn.pattern"), target, queries) for i in range(anatomy.n_layers)]
            self._keep(name, torch.stack(scores, 1))
        self._keep("copying", torch.stack([self._copying(chunk, i, second) for i in range(anatomy.n_layers)], 1))

    def _copying(self, chunk: Chunk, layer: int, second: Tensor) -> Tensor:
        model, anatomy = self.scope.model, self.scope.anatomy
        z = chunk.site(f"layers.{layer}.attn.z")[:, :-1]
        written = torch.einsum("nthd,hde->nthe", z, output_weights(model, anatomy, layer))
        following = chunk.samples.input_ids[:, 1:].to(z.device)
        scores = self.logits.z(written, following[..., None].expand(*z.shape[:3]))
        known = (second[:, :-1] & second[:, 1:]).float().to(z.device)
        return (scores * known[..., None]).sum(1) / known.sum(1)[:, None]

    def _keep(self, name: str, values: Tensor) -> None:
        self.rows.setdefault(name, []).append(values.double().cpu().numpy())

    def result(self) -> dict[str, np.ndarray]:
        """{score: (sequence, layer, head)}"""
        return {name: np.concatenate(parts) for name, parts in self.rows.items()}


class TargetScores:
    """Keeps, per sample, the attention on one kind of target."""

    def __init__(self, scope: Scope, distance: int | None = None) -> None:
        self.scope = scope
        self.needs = ("layers.*.attn.pattern",)
        self.distance = distance
        self.rows: list[np.ndarray] = []
        self.n_queries: list[np.ndarray] = []

    def update(self, chunk: Chunk) -> None:
        samples = chunk.samples
        if self.distance is None:
            targets, queries = after_copies(samples), earlier_copies(samples).any(-1)
        else:
            targets, queries = fixed_distance(samples, self.distance), samples.token_labels != IGNORED
        layers = range(self.scope.anatomy.n_layers)
        scores = [attention_on(chunk.site(f"layers.{i}.attn.pattern"), targets, queries) for i in layers]
        self.rows.append(torch.stack(scores, 1).cpu().numpy())
        self.n_queries.append(queries.sum(1).numpy())

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(sample, layer, head) scores, and the number of queries of each sample."""
        return np.concatenate(self.rows), np.concatenate(self.n_queries)


@recipe(question="Which heads continue what came before?", source="Olsson et al. 2022, arXiv:2209.11895", needs=("patterns", "z"))
def induction_heads(
    scope: Scope,
    samples: Any = None,
    *,
    period: int | None = None,
    n_sequences: int = 8,
    token_range: tuple[int, int] | None = None,
    bos: int | None = None,
    seed: int | None = None,
    chunk: int | None = None,
) -> xr.Dataset:
    """How strongly each head attends to what followed the current token before, and what it then writes.

    What it answers: which heads complete [A][B] … [A] → [B], on random tokens that repeat once (a beginning-of-sequence
    token, then ``period`` distinct random tokens, twice; ``n_sequences`` of them; by default 50, or as many as the context
    takes), where nothing but the repetition helps.

    Equation: with S(t) = {s ≤ t : x[s−1] = x[t]}, prefix matching is the mean over the queries t of the second copy of
    Σ_{s ∈ S(t)} A[t, s]; duplicate token sums over {s < t : x[s] = x[t]}; previous token is the mean of A[t, t−1].
    Copying is the z-score over the vocabulary of the head's direct logit for the token that comes next
    (W_U · γ ∘ centred(W_O z)). Source: Olsson et al. 2022.

    Result, ``[layer, head]``: ``prefix_matching, previous_token, duplicate_token`` (shares of attention, 0 to 1),
    ``copying`` (standard deviations), each with ``<name>_ci_low/_ci_high`` (prefix matching: ``ci_low, ci_high``), 95 %
    Student intervals over sequences; ``null``, the prefix score of uniform attention; ``fixed_distance``, the control:
    attention ``period − 1`` tokens back where the second copy is shuffled (high for a head that counts instead of
    matching); ``is_induction``: ``ci_low`` above 5 times the null and the score at least .2 (our rule: by matching alone;
    copying stands beside it). With ``samples``: ``[sample, layer, head] prefix_matching_text`` over the positions of each
    text whose token occurred before (NaN where there is none), and ``[sample] n_repeats``, their number.

    Errors: UnsupportedModel for a model that predicts no next token; ValueError for a period below 3, or one that does not
    fit the context. Cost: two forwards of ``n_sequences`` short sequences, and one of ``samples``.
    How to read it: a high score with high copying is an induction head. When not to trust it: a score is what a head
    looks at, not what depends on it (``ablation`` says that), and redundant heads look unimportant one at a time.

    >>> import tensorscope_nb as ts
    >>> heads = ts.recipes.induction_heads(ts.load("tiny"))
    >>> bool(heads["is_induction"].sel(layer=1).any()), bool(heads["is_induction"].sel(layer=0).any())
    (True, False)
    """
    scope.require_patterns()
    if scope.anatomy.task != "causal":
        raise UnsupportedModel(f"no next token: {scope.name} is no causal language model with its head; induction is about one")
    if n_sequences < 2:
        raise ValueError(f"n_sequences is {n_sequences}: an interval needs at least 2 sequences")
    period = min(PERIOD, datasets.longest_period(scope)) if period is None else period
    seed = current().seed if seed is None else seed
    make = partial(datasets.repeats, scope, n_sequences, period, token_range=token_range, bos=bos, seed=seed)
    repeated = RepeatScores(scope)
    sweep(scope, make(), [repeated], chunk=chunk, label="repeated tokens")
    control = TargetScores(scope, distance=period - 1)
    sweep(scope, make(shuffled=True), [control], chunk=chunk, label="control")
    variables = _head_variables(repeated.result(), control.result()[0])
    coords: dict[str, Any] = {}
    if samples is not None:
        samples = scope.samples(samples)
        text = TargetScores(scope)
        sweep(scope, samples, [text], chunk=chunk, label="texts")
        scores, n_repeats = text.result()
        variables["prefix_matching_text"] = (
            ("sample", "layer", "head"),
            scores,
            "prefix matching on the text",
            SHARE,
        )
        variables["n_repeats"] = (("sample",), n_repeats, "positions whose token occurred before", "positions")
        coords = sample_coords(samples)
    result = dataset(variables, coords, seed=seed, period=period, n_used=n_sequences)
    for name in SCORES:
        result[name].attrs["interval"] = f"95 % Student interval over {n_sequences} sequences"
    result["prefix_matching"].attrs["null"] = "uniform attention"
    rule = f"lower end above {ABOVE_NULL} × null, score at least {LEAST}"
    result["is_induction"].attrs |= {"marks": "prefix_matching", "rule": rule}
    for variable in result.data_vars.values():
        if variable.attrs["units"] == SHARE:
            variable.attrs["bounds"] = [0.0, 1.0]
    return result


def _head_variables(rows: dict[str, np.ndarray], control: np.ndarray) -> dict[str, Variable]:
    by_head = ("layer", "head")
    variables: dict[str, Variable] = {}
    for name, (long_name, unit) in SCORES.items():
        mean, low, high = t_interval(rows[name])
        if unit == SHARE:
            low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
        prefix = "" if name == "prefix_matching" else f"{name}_"
        variables[name] = (by_head, mean, long_name, unit)
        variables[f"{prefix}ci_low"] = (by_head, low, f"{long_name}, lower end of the 95 % interval", unit)
        variables[f"{prefix}ci_high"] = (by_head, high, f"{long_name}, upper end of the 95 % interval", unit)
    null = rows["null"].mean(0)
    if (ABOVE_NULL * null >= 1).any():
        raise ValueError(
            f"uniform attention alone would score {null.max():.2f} here, so no score could stand {ABOVE_NULL} times above it: "
            "ask for a longer period, or a wider token_range"
        )
    score, low = variables["prefix_matching"][1], variables["ci_low"][1]
    variables["null"] = (by_head, null, "prefix matching of uniform attention", SHARE)
    variables["fixed_distance"] = (
        by_head,
        control.mean(0),
        "attention as far back where the copy is shuffled",
        SHARE,
    )
    variables["is_induction"] = (by_head, (low > ABOVE_NULL * null) & (score >= LEAST), "induction head by prefix matching", "")
    return variables
