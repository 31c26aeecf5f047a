"""From the residual stream to the logits, as the model itself goes: final norm, unembedding, and what it does after that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.scope.norms import Norm
from tensorscope_nb.scope.stream import tolerance

if TYPE_CHECKING:
    from tensorscope_nb.scope.scope import Scope


class Unembedding:
    """The end of a causal language model. Some cap its logits softly or scale them (Gemma 2, Cohere); the config says so."""

    def __init__(self, scope: Scope) -> None:
        anatomy, self.model = scope.anatomy, scope.model
        if anatomy.task != "causal" or (anatomy.table and not anatomy.unembed):
            raise UnsupportedModel(f"no next token: {scope.name} is no causal language model with its head (an unembedding)")
        anatomy.require_heads()
        if not anatomy.final_norm:
            raise UnsupportedModel(f"{scope.name} has no final norm that is known here: its stream cannot be read as logits")
        config: Any = self.model.config
        config = config.get_text_config()
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)
        self.factor = float(getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1))
        self.n_layers = anatomy.n_layers
        self.stream = f"layers.{anatomy.n_layers - 1}.resid_post"
        self.raw = anatomy.unembed
        self.norm = self.model.get_submodule(anatomy.final_norm)
        self.head: Any = self.model.get_submodule(anatomy.unembed)
        self.final_norm, self.d_model = anatomy.final_norm, anatomy.d_model

    @property
    def said(self) -> str:
        """What the model does to what its unembedding gives, in words; empty where that is the logits."""
        words = [f"scales it by {self.factor:g}"] if self.factor != 1 else []
        words += [f"caps it softly at {self.cap:g}"] if self.cap else []
        return " and ".join(words)

    def after(self, raw: Tensor) -> Tensor:
        """The logits, of what the unembedding gives."""
        raw = raw if self.factor == 1 else raw * self.factor
        return raw if not self.cap else self.cap * torch.tanh(raw / self.cap)

    def logits(self, stream: Tensor) -> Tensor:
        """What the model would say, were this the stream after its last layer."""
        return self.after(self.head(self.norm(stream)))

    def check(self, made: Tensor, logits: Tensor, seen: Tensor) -> None:
        """Raises where the way known here does not lead to the model's own logits."""
        seen = seen.to(logits.device)
        off, largest = ((x.abs().amax(-1)[seen].max()) for x in (made - logits, logits))
        gap = float(off / largest.clamp(min=1e-30))
        if not gap <= tolerance(self.model, 4):
            raise UnsupportedModel(
                f"the logits of {type(self.model).__name__} are not its final norm and unembedding of the stream (off by "
                f"{gap:.2g} of the largest): it does something after that which is not known here"
            )

    def final(self) -> Norm:
        """The final norm, taken apart."""
        return Norm.of(self.model, self.final_norm, self.d_model)
