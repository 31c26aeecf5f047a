"""Which modules of a model LoRA can adapt, and which of their paths peft would take for more than one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from tensorscope_nb.recipes.modules import layer_of

if TYPE_CHECKING:
    from tensorscope_nb.scope import Scope


def eligible(scope: Scope) -> dict[str, tuple[int, int]]:
    """{path: (inputs, outputs)} of the Linear and Conv1D modules of the layers, in the order of the model.

    Of a model whose layers are not known (``anatomy.n_layers`` is 0), all but the unembedding.
    """
    from transformers.pytorch_utils import Conv1D

    model: Any = scope.model
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    found: dict[str, tuple[int, int]] = {}
    uncalled: set[str] = set()
    for name, module in model.named_modules():
        if type(module).__module__.startswith("peft."):
            raise ValueError(
                f"the model already carries an adapter ({name or 'it is a model of peft'}): get_peft_model changes the model "
                "that it is given, give it a copy.deepcopy, or take this one's .unload()"
            )
        if isinstance(module, nn.MultiheadAttention):  # reads its output weight and never calls it: an adapter would be idle
            uncalled.add(f"{name}.out_proj")
        inside = layer_of(scope, name) >= 0 if scope.anatomy.n_layers else module is not head
        if not inside or name in uncalled or next(module.children(), None) is not None:
            continue
        if isinstance(module, nn.Linear):
            found[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            found[name] = (module.nx, module.nf)
    return found


def twins_of(model: nn.Module, paths: Iterable[str]) -> dict[str, list[str]]:
    """{path: the other modules that end in it}, which peft would adapt too."""
    names = [name for name, _ in model.named_modules()]
    wanted, twins = set(paths), dict[str, list[str]]()
    for name in names:
        parts = name.split(".")
        for i in range(1, len(parts)):
            if (end := ".".join(parts[i:])) in wanted:
                twins.setdefault(end, []).append(name)
    return twins
