"""One table per family of models: where its parts live. Adding an architecture is adding a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope_nb.scope.families import bert, gpt2, gpt_neox, llama, vit
from tensorscope_nb.scope.families.family import Family

if TYPE_CHECKING:
    from torch import nn

TABLES = (gpt2, gpt_neox, llama, bert, vit)


def recognise(body: nn.Module, model_type: str) -> Family | None:
    """The table that fits the body of a transformer (the model without its head), or None."""
    return next((family for table in TABLES if (family := table.recognise(body, model_type))), None)


__all__ = ["Family", "recognise"]
