"""Scope: a wrapped model. Thin: what it offers are functions of this package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.samples import Samples
from tensorscope_nb.scope.anatomy import Anatomy
from tensorscope_nb.scope.coerce import as_samples
from tensorscope_nb.scope.detect import detect
from tensorscope_nb.scope.forward import chunks, output_of
from tensorscope_nb.scope.handles import Layers
from tensorscope_nb.scope.loss import CustomLoss, LossRule, check_finite
from tensorscope_nb.scope.perplexity import Perplexity, perplexity, rows_of, token_losses
from tensorscope_nb.scope.point import TAPPED, Point
from tensorscope_nb.scope.record import Edit, Record, edit_points_of, intercepted, record
from tensorscope_nb.scope.sites import expand
from tensorscope_nb.scope.state import preserved
from tensorscope_nb.scope.validate import validated

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tensorscope_nb.scope.trace import Tracer

T = TypeVar("T")
WHOLE = ("embed", "final_norm", "logits")  # sites outside the layers


class Scope:
    """A model, its tokenizer, its anatomy, and the ways to look into it and change what it does.

    ``model`` is any ``torch.nn.Module``; ``tokenizer`` is what texts are read with; ``loss(output, targets)`` gives one
    loss per sample where the model's own kind of loss is not known (language models and classifiers need none). Wrapping
    a transformer runs two short forwards that certify each site (``scope.anatomy`` says which), and changes nothing.

    >>> import tensorscope_nb as ts
    >>> scope = ts.load("tiny")
    >>> samples = scope.samples(["To be, or not to be"])
    >>> scope.record(samples, "layers.1.attn.z")["layers.1.attn.z"].shape[2:]
    torch.Size([4, 24])
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any = None, loss: CustomLoss | None = None, *, name: str | None = None
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model is a {type(model).__name__}: give a torch.nn.Module, or use ts.load(name_or_folder)")
        self.model = model
        self.tokenizer = tokenizer
        self.name = name or type(model).__name__
        self.anatomy: Anatomy = validated(model, detect(model))
        self.rule = LossRule(self.anatomy, loss, getattr(tokenizer, "mask_token_id", None))
        self.tracer: Tracer | None = None
        size = len(tokenizer) if hasattr(tokenizer, "__len__") else 0
        if self.anatomy.n_vocab and size > self.anatomy.n_vocab:
            text = f"the tokenizer has {size} tokens and the model knows {self.anatomy.n_vocab}: do they belong together?"
            warnings.warn(text, stacklevel=2)

    def samples(self, data: Any, *, task: str | None = None, max_length: int | None = None) -> Samples:
        """Samples from whatever holds data: a text or texts, a data frame or ``datasets.Dataset`` with a ``text`` column, a
        batch of the transformers library, token ids (n, T), ``(x, y)``, a DataLoader of batches or pairs, or Samples.

        ``max_length`` cuts long texts, and nothing else does.
        """
        return as_samples(data, self, task, max_length)

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
        given = self.samples(samples)
        return record(self.model, self.anatomy, self.rule, given, sites, gradients=gradients, edits=edits, chunk=chunk)

    def losses(self, samples: Any, *, edits: Mapping[str, Edit] | None = None, chunk: int | None = None) -> Tensor:
        """The mean loss (nats per predicted token) of each sample (n,), optionally under ``edits`` as in :meth:`record`."""

        def read(output: Tensor, part: Samples) -> Tensor:
            losses = self.rule.per_sample(output, part)
            check_finite(losses, part, self.model)
            return losses

        return torch.cat(self._each(self.rule.prepared(self.samples(samples)), read, edits, chunk)).detach()

    def perplexity(
        self, samples: Any, *, stride: int | None = None, start_token: bool = False, chunk: int | None = None
    ) -> Perplexity:
        """exp(Σ loss / Σ predicted tokens), with its token count and a 95 % Student interval over samples (of the log).

        Texts longer than the context are read in windows as long as the context, moved on by ``stride`` tokens, each token
        predicted once: a small stride gives each more to read, and takes context / stride times as long. The interval is
        over texts, not windows. With ``start_token`` the tokenizer's token for the beginning of a text (where it has none,
        for its end) stands before every text that does not begin with it, so that the first token is predicted too.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> text = "To be, or not to be: that is the question. " * 20
        >>> scope.perplexity(text, stride=64).n_tokens == int(scope.samples(text).lengths) - 1
        True
        """
        rows = rows_of(self, self.samples(samples), stride=stride, start_token=start_token)
        return perplexity(*token_losses(self, rows, chunk=chunk))

    def trace(self, samples: Any = None, *, max_new_tokens: int | None = None, **generation: Any) -> Tracer:
        """Opens a trace: inside the block the standard sites are live, to be read, written and differentiated.

        The model runs as far as the block asks: touch the sites in the order in which it runs them. Without ``samples``,
        each ``with tracer.invoke(samples):`` in the block is a run. With ``max_new_tokens`` the model generates, greedily
        unless further options of its ``generate`` say otherwise, and ``for step in tracer.iter[:]`` goes through the steps.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> with scope.trace("one two one two"):
        ...     pattern = scope.layers[0].attn.pattern.save()
        ...     scope.layers[1].attn.z[:, :, 2] = 0
        ...     logits = scope.logits.save()
        >>> pattern.shape[1]
        4
        """
        from tensorscope_nb.scope.trace import Tracer

        if max_new_tokens is None and generation:
            raise TypeError(f"{', '.join(generation)} is an option of a generation: give max_new_tokens= too")
        options = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens, **generation}
        return Tracer(self, None if samples is None else self.samples(samples), options)

    def run(self, fn: Callable[[Scope], T], samples: Any) -> T:
        """``fn(scope)`` inside a trace of ``samples``, and its value: the trace as one call. The model runs as far as it asks.

        >>> import tensorscope_nb as ts
        >>> scope = ts.load("tiny")
        >>> scope.run(lambda s: s.layers[1].attn.pattern[0, :, -1, 0], "one two one two").shape
        torch.Size([4])
        """
        from tensorscope_nb.scope.trace import run

        return run(self, fn, self.samples(samples))

    def per_sample_gradients(self, samples: Any, modules: str | Sequence[str] | None = None) -> dict[str, Tensor]:
        """The gradient of each sample's mean loss, {parameter: (n, *shape)}, one backward per sample.

        It is the reference that faster ways are tested against: for small models, or a few ``modules`` (globs of module
        paths, or of parameter names; default: all trainable parameters). Tied weights appear once.

        >>> import tensorscope_nb as ts
        >>> gradients = ts.load("tiny").per_sample_gradients(["one two", "three four"], "transformer.h.*.attn.c_proj")
        >>> {name: tuple(value.shape) for name, value in gradients.items() if name.endswith("0.attn.c_proj.weight")}
        {'transformer.h.0.attn.c_proj.weight': (2, 96, 96)}
        """
        from tensorscope_nb.scope.reference import per_sample_gradients

        return per_sample_gradients(self, self.samples(samples), modules)

    @property
    def layers(self) -> Layers:
        """The layers, for use inside a trace: ``scope.layers[0].attn.z``."""
        return Layers(self)

    def __getattr__(self, name: str) -> Any:
        if name in WHOLE:
            return self.live(name)
        raise AttributeError(f"Scope has no {name!r}: sites are scope.embed, scope.layers[i], scope.final_norm and scope.logits")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in WHOLE:
            self.write(name, value)
        else:
            object.__setattr__(self, name, value)

    def live(self, site: str) -> Tensor:
        """The value at a site of the trace that is running."""
        tracer, point = self._traced(site)
        return tracer.read(site, point)

    def write(self, site: str, value: Any) -> None:
        """Replaces the value at a site of the trace that is running."""
        tracer, point = self._traced(site)
        tracer.write(site, point, value)

    def _traced(self, site: str) -> tuple[Tracer, Point]:
        if self.tracer is None or self.tracer.thread != get_ident():
            raise ValueError(f"{site} is live only inside `with scope.trace(...)`: to read it for many samples use scope.record")
        if site in self.anatomy.sites:
            return self.tracer, self.anatomy.sites[site]
        points = expand(site, self.anatomy, self.model)
        if len(points) > 1:
            raise LookupError(f"{site!r} names {len(points)} sites: a trace reads one at a time, scope.record many")
        return self.tracer, next(iter(points.values()))

    def require_patterns(self) -> None:
        """Raises where the model has no attention patterns that can be read."""
        self.anatomy.require_heads()
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
        """``read(output, part)`` of every chunk, under ``edits``."""
        points = edit_points_of(edits, self.anatomy, self.model)
        found = []
        with (
            preserved(self.model, random_state=not edits),
            torch.no_grad(),
            intercepted(self.model, self.anatomy, {}, points),
        ):
            for part in chunks(samples, self.anatomy, chunk):
                found.append(read(output_of(self.model, part, self.anatomy), part))
        return found

    def __repr__(self) -> str:
        return f"Scope({self.name}: {self.anatomy.summary()})"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *WHOLE]
