"""Scope: a wrapped model. Thin: what it offers are functions of this package."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.numerics import bootstrap_ratio
from tensorscope_nb.samples import Samples, tokenize
from tensorscope_nb.scope.anatomy import Anatomy, detect
from tensorscope_nb.scope.forward import chunks, logits_of
from tensorscope_nb.scope.handles import Layers
from tensorscope_nb.scope.loss import Perplexity, check_finite, sample_losses, token_losses
from tensorscope_nb.scope.record import Edit, Record, edit_points_of, intercepted, record
from tensorscope_nb.scope.sites import TAPPED
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.scope.validate import validated
from tensorscope_nb.settings import current

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tensorscope_nb.scope.trace import ScopeTracer

T = TypeVar("T")


class Scope:
    """A model, its tokenizer, its anatomy, and the ways to look into it and change what it does.

    ``model`` is a language model of the transformers library; ``tokenizer`` is what texts are read with. Wrapping runs
    two short forwards that certify each site (``scope.anatomy`` says which), and changes nothing.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> samples = scope.samples(["To be, or not to be"])
    >>> scope.record(samples, "layers.1.attn.z")["layers.1.attn.z"].shape[2:]
    torch.Size([4, 24])
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None, *, name: str | None = None) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model is a {type(model).__name__}: give a torch.nn.Module, or use ts.load(name_or_folder)")
        self.model = model
        self.tokenizer = tokenizer
        self.name = name or type(model).__name__
        self.anatomy: Anatomy = validated(model, detect(model))
        self.tracer: ScopeTracer | None = None

    def samples(self, data: Any, *, task: str | None = None, max_length: int | None = None) -> Samples:
        """Samples from a text, texts, a data frame with a ``text`` column, a batch of the transformers library, or Samples.

        ``max_length`` cuts long texts, and nothing else does.
        """
        if isinstance(data, Samples):
            return data
        if isinstance(data, Mapping) and "input_ids" in data:
            return Samples.tokens(data["input_ids"], data.get("attention_mask"), data.get("labels"), task=task)
        if isinstance(data, torch.Tensor):
            return Samples.tokens(data, task=task)
        if hasattr(data, "columns"):
            if "text" not in data.columns:
                raise LookupError(f"the data frame has no column 'text': it has {', '.join(map(str, data.columns))}")
            data = data["text"].tolist()
        if isinstance(data, str | Sequence):
            return tokenize(data, self, task=task, max_length=max_length)
        raise TypeError(f"samples cannot be made from a {type(data).__name__}: give texts, a data frame, token ids or a batch")

    def record(
        self,
        samples: Any,
        sites: str | Sequence[str],
        *,
        gradients: bool = False,
        edits: Mapping[str, Edit] | None = None,
        chunk: int | None = None,
    ) -> Record:
        """Reads the tensors at ``sites`` for all samples; with ``gradients`` also those of the summed per-sample losses.

        ``sites`` are standard names, globs (``"layers.*.resid_post"``) or module paths. ``edits`` maps a site to a
        function of its tensor that returns the tensor to go on with. ``chunk`` samples are run at a time.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> def silence(z):                      # (batch, position, head, d_head)
        ...     z[:, :, 0] = 0
        ...     return z
        >>> record = scope.record("a b a b", "logits", edits={"layers.0.attn.z": silence})
        """
        return record(self.model, self.anatomy, self.samples(samples), sites, gradients=gradients, edits=edits, chunk=chunk)

    def losses(self, samples: Any, *, edits: Mapping[str, Edit] | None = None, chunk: int | None = None) -> Tensor:
        """The mean loss (nats per predicted token) of each sample (n,), optionally under ``edits`` as in :meth:`record`."""
        samples = self.samples(samples)
        return torch.cat(self._each(samples, sample_losses, edits, chunk))

    def perplexity(self, samples: Any, *, chunk: int | None = None, seed: int | None = None) -> Perplexity:
        """exp(Σ loss / Σ predicted tokens), with its token count and an interval from 2,000 resamplings of the samples."""
        samples = self.samples(samples)
        pairs = self._each(samples, lambda logits, part: [x.double().sum(1) for x in token_losses(logits, part)], None, chunk)
        total, count = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        if not bool(count.sum()):
            raise ValueError("no token is predicted: a sample needs at least two tokens and a label")
        nll = float(total.sum() / count.sum())
        low, high = bootstrap_ratio(total.cpu().numpy(), count.cpu().numpy(), seed=current().seed if seed is None else seed)
        return Perplexity(math.exp(nll), math.exp(low), math.exp(high), nll, int(count.sum()))

    def trace(self, samples: Any) -> ScopeTracer:
        """Opens an nnsight trace: inside the block the standard sites are live, to be read, written and differentiated.

        Touch the sites in the order in which the model runs them, and keep what you want with ``.save()``.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> with scope.trace("one two one two"):
        ...     pattern = scope.layers[0].attn.pattern.save()
        ...     scope.layers[1].attn.z[:, :, 2] = 0
        ...     logits = scope.logits.save()
        >>> pattern.shape[1]
        4
        """
        from tensorscope_nb.scope.trace import traced

        return traced(self, self.samples(samples))

    @property
    def layers(self) -> Layers:
        """The layers, for use inside a trace: ``scope.layers[0].attn.z``."""
        return Layers(self)

    def __getattr__(self, name: str) -> Any:
        if name in ("embed", "final_norm", "logits"):
            return self.live(name)
        raise AttributeError(f"Scope has no {name!r}: sites are scope.embed, scope.layers[i], scope.final_norm and scope.logits")

    def live(self, site: str) -> Tensor:
        """The value at a site of the trace that is running."""
        if self.tracer is None:
            raise ValueError(f"{site} is live only inside `with scope.trace(...)`: to read it for many samples use scope.record")
        if site not in self.anatomy.sites:
            raise LookupError(
                f"the model has no site {site!r}: {self.anatomy.missing_sites.get(site, 'it is not in its family')}"
            )
        return self.tracer.live(self.anatomy.sites[site])

    def require_patterns(self) -> None:
        """Raises where the model's attention cannot be tapped."""
        absent = next(
            (s for i in range(self.anatomy.n_layers) for t in TAPPED if (s := f"layers.{i}.attn.{t}") not in self.anatomy.sites),
            None,
        )
        if absent:
            raise UnsupportedModel(
                f"{self.name} has no {absent}: {self.anatomy.missing_sites.get(absent, 'it is not in its family')}"
            )

    def _each(
        self, samples: Samples, read: Callable[[Tensor, Samples], T], edits: Mapping[str, Edit] | None, chunk: int | None
    ) -> list[T]:
        """``read(logits, part)`` of every chunk, under ``edits``; a loss that is not a number is an error."""
        points = edit_points_of(edits, self.anatomy, self.model)
        found = []
        with (
            preserved(self.model, random_state=not edits),
            torch.no_grad(),
            intercepted(self.model, self.anatomy, {}, points),
        ):
            for part in chunks(samples, self.anatomy, chunk):
                logits = logits_of(self.model, part)
                check_finite(token_losses(logits, part)[0].sum(1), part, self.model)
                found.append(read(logits, part))
        return found

    def __repr__(self) -> str:
        return f"Scope({self.name}: {repr(self.anatomy).splitlines()[0]})"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), "embed", "final_norm", "logits"]
