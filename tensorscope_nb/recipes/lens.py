"""The logit lens: what the model would say after each layer, were it the last."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tensorscope_nb.numerics import t_interval
from tensorscope_nb.recipes.chosen import chosen
from tensorscope_nb.recipes.dataset import Variable, dataset, sample_coords, token_variable
from tensorscope_nb.recipes.next_token import next_tokens
from tensorscope_nb.recipes.recipe import recipe
from tensorscope_nb.samples import IGNORED
from tensorscope_nb.samples.tokenize import token_strings
from tensorscope_nb.scope.unembedding import Unembedding
from tensorscope_nb.sweep import Chunk, sweep

if TYPE_CHECKING:
    import xarray as xr

    from tensorscope_nb.scope import Scope

NATS = "nats"


class Lens:
    """Reads what each layer's stream says; logits of one layer and one chunk are held at a time."""

    def __init__(self, end: Unembedding, layers: Sequence[int], targets: Tensor, k: int) -> None:
        self.end, self.last = end, end.n_layers - 1
        self.layers, self.targets, self.k = layers, targets, k
        self.needs = (*dict.fromkeys(f"layers.{i}.resid_post" for i in (*layers, self.last)), "logits")
        self.done = 0
        self.rows: dict[str, list[np.ndarray]] = {}

    def update(self, chunk: Chunk) -> None:
        n = len(chunk.samples)
        logits = chunk.site("logits")
        targets = self.targets[self.done : self.done + n].to(logits.device)
        seen = chunk.samples.attention_mask.bool()
        self.done += n
        self.end.check(self.end.logits(chunk.site(self.end.stream)), logits, seen)
        final = _log_softmax(logits)
        ended = final.exp()
        by_layer: dict[str, list[Tensor]] = {}
        for layer in self.layers:
            # the last layer's logits are the model's own
            said = final if layer == self.last else _log_softmax(self.end.logits(chunk.site(f"layers.{layer}.resid_post")))
            for name, value in self._read(said, final, ended, targets).items():
                by_layer.setdefault(name, []).append(value)
        for name, values in by_layer.items():
            stacked = torch.stack(values, 2).cpu()
            hidden = ~seen.reshape(*seen.shape, *[1] * (stacked.ndim - 2))
            nothing = -1 if name == "tokens" else torch.nan
            self.rows.setdefault(name, []).append(stacked.masked_fill(hidden, nothing).numpy())

    def _read(self, said: Tensor, final: Tensor, ended: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Of log probabilities (n, T, V), with those that the model ends with and their exponential."""
        top, tokens = said.topk(self.k, dim=-1)
        own = said.gather(-1, targets.clamp(min=0)[..., None])
        unknown = targets == IGNORED
        rank = 1 + (said > own).sum(-1)
        entropy = -torch.einsum("ntv,ntv->nt", said.exp(), said)
        kl = torch.einsum("ntv,ntv->nt", ended, final) - torch.einsum("ntv,ntv->nt", ended, said)
        return {
            "tokens": tokens,
            "probabilities": top.exp(),
            "entropy": entropy,
            "kl": kl.clamp(min=0),  # below 0 by rounding alone
            "target_log": own[..., 0].masked_fill(unknown, torch.nan),
            "target_rank": rank.to(said.dtype).masked_fill(unknown, torch.nan),
        }

    def result(self) -> dict[str, np.ndarray]:
        """Each quantity, first axes sample, position and layer."""
        return {name: np.concatenate(parts) for name, parts in self.rows.items()}


@recipe(
    question="At which layer does the model know the next token?",
    source="nostalgebraist 2020, the logit lens; as in Belrose et al. 2023, arXiv:2303.08112",
    needs=("resid_post", "logits"),
)
def logit_lens(
    scope: Scope,
    samples: Any,
    *,
    layers: Sequence[int] | None = None,
    k: int = 1,
    chunk: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """What the model would predict after each layer, read with its own final norm and unembedding.

    What it answers: how the prediction forms over depth: when the next token becomes the top one, and where the model
    changes its mind.
    Equation: p_ℓ = softmax(f(W_U · norm(x_ℓ))), x_ℓ the stream after layer ℓ, norm, W_U and f (a soft cap, a scale) those of
    the model; the last layer's are the model's own output. entropy = −Σ p_ℓ ln p_ℓ, at most ln V;
    kl = Σ p_L ln(p_L / p_ℓ), from what the model ends with, 0 at the last layer. Source: nostalgebraist 2020.

    Result: ``[sample, position, layer] top_token`` (its id; −1 at padding), ``top_token_text``, ``probability`` of it,
    ``entropy`` and ``kl`` (nats), ``target_probability`` and ``target_rank`` (1: the most probable) of the token that comes
    next (NaN where none is predicted); ``[layer] loss, ci_low, ci_high``, the mean loss of the lens over the predicted
    tokens of each sample, then over samples (nats per token, 95 % Student interval), which at the last layer is the
    model's; ``[sample, position] token``. With ``k`` > 1 also ``[sample, position, layer, rank] top_tokens,
    top_tokens_text, probabilities``.
    Errors: UnsupportedModel without a language-model head, or where norm and unembedding of the last layer are not the
    model's output, which is checked on every sample; LookupError for a layer that is not there. Cost: one forward, and one
    unembedding per layer.
    How to read it: a loss that falls early says that late layers only sharpen. When not to trust it: an early layer need not
    write in the basis that the unembedding reads: what looks like nothing known may be known in another basis (the
    tuned lens of Belrose et al. 2023, arXiv:2303.08112, learns it), and for some families the early layers of the lens are
    the input token or noise.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> lens = ts.recipes.logit_lens(scope, ts.datasets.repeats(scope, n=4))
    >>> [round(float(loss)) for loss in lens["loss"]]                # layer 1 has the induction heads
    [8, 0]
    """
    end = Unembedding(scope)
    of_layers = chosen(layers, "layers", scope.anatomy.n_layers)
    if not isinstance(k, Integral) or isinstance(k, bool) or not 1 <= k <= scope.anatomy.n_vocab:
        raise ValueError(f"k is {k!r}: ask for 1 to {scope.anatomy.n_vocab} top tokens, a whole number")
    samples = scope.samples(samples)
    reducer = Lens(end, of_layers, next_tokens(scope, samples), int(k))
    sweep(scope, samples, [reducer], chunk=chunk, progress=progress, label="logit lens")
    found = reducer.result()
    place = ("sample", "position", "layer")
    tokens, texts = found["tokens"], _texts(scope.tokenizer, found["tokens"])
    losses = _losses(found["target_log"])
    mean, low, high = t_interval(losses)
    nats = "nats per token"
    variables: dict[str, Variable] = {
        "probability": (place, found["probabilities"][..., 0], "probability of the top token", "probability"),
        "top_token": (place, tokens[..., 0], "id of the top token, −1 at padding", ""),
        "top_token_text": (place, texts[..., 0], "top token", ""),
        "entropy": (place, found["entropy"], "entropy of what the layer says", NATS),
        "kl": (place, found["kl"], "divergence of what the layer says from what the model ends with", NATS),
        "target_probability": (place, np.exp(found["target_log"]), "probability of the next token", "probability"),
        "target_rank": (place, found["target_rank"], "rank of the next token, 1 the most probable", "rank"),
        "loss": (("layer",), mean, "loss of the lens, mean over samples", nats),
        "ci_low": (("layer",), low, "loss of the lens, lower end of the 95 % interval", nats),
        "ci_high": (("layer",), high, "loss of the lens, upper end of the 95 % interval", nats),
        "token": token_variable(samples),
    }
    if k > 1:
        ranked = (*place, "rank")
        variables["top_tokens"] = (ranked, tokens, "ids of the top tokens, −1 at padding", "")
        variables["top_tokens_text"] = (ranked, texts, "top tokens", "")
        variables["probabilities"] = (ranked, found["probabilities"], "probability of each of the top tokens", "probability")
    coords = sample_coords(samples) | {"layer": of_layers} | ({"rank": np.arange(1, k + 1)} if k > 1 else {})
    result = dataset(variables, coords, n_used=len(samples), n_available=len(samples))
    result["loss"].attrs["interval"] = f"95 % Student interval over {int(np.isfinite(losses[:, 0]).sum())} samples"
    for name in ("probability", "target_probability"):
        result[name].attrs["bounds"] = [0.0, 1.0]
    return result


def _log_softmax(logits: Tensor) -> Tensor:
    """Finite also for a token that is impossible, whose probability of 0 times it is 0."""
    return logits.log_softmax(-1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32).clamp_(min=-1e30)


def _texts(tokenizer: Any, tokens: np.ndarray) -> np.ndarray:
    """The tokens as strings; their ids in words where there is no tokenizer, and nothing at padding."""
    ids = [i for i in np.unique(tokens).tolist() if i >= 0]
    named = dict(zip(ids, map(str, ids) if tokenizer is None else token_strings(tokenizer, ids), strict=True))
    return np.array([named.get(i, "") for i in tokens.ravel().tolist()], dtype=object).reshape(tokens.shape)


def _losses(target_log: np.ndarray) -> np.ndarray:
    """(sample, layer): the mean of −ln p over the predicted tokens; NaN where there is none."""
    there = np.isfinite(target_log)
    n = there.sum(1)
    return np.divide(-np.where(there, target_log, 0).sum(1, dtype=np.float64), n, out=np.full(n.shape, np.nan), where=n > 0)
