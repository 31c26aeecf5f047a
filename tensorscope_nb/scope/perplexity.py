"""Perplexity: exp of the mean loss per predicted token, with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass


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
        interval = f"95 % interval {self.ci_low:.4g} to {self.ci_high:.4g}"
        return f"perplexity {self.value:.4g} ({interval}, {self.n_tokens:,} predicted tokens)"
