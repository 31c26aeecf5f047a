"""``ts.detect``: the anatomy of a bare model, from the table of its family or from its modules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from tensorscope_nb.errors import UnsupportedModel
from tensorscope_nb.scope.anatomy import Anatomy, Task
from tensorscope_nb.scope.families import Family, recognise
from tensorscope_nb.scope.point import TAP, TAPPED, Point

if TYPE_CHECKING:
    from torch import nn

WHOLE = {"logits": Point("")}  # what the model returns


def detect(model: nn.Module) -> Anatomy:
    """The anatomy of a bare model; its sites are those of the table, not yet validated.

    >>> import torch, tensorscope_nb as ts
    >>> str(ts.detect(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))))
    'mlp'
    """
    _check_weights(model)
    if not hasattr(model, "config") or not hasattr(model, "base_model_prefix"):
        return _plain(model)
    prefix = _prefix(model)
    body: Any = model.get_submodule(prefix)
    config = cast(Any, model.config).get_text_config()
    family = recognise(body, config.model_type)
    if family is None:
        return _by_paths(model, config)
    return _transformer(model, body, f"{prefix}." if prefix else "", family, config)


def _check_weights(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise UnsupportedModel(f"the parameter {name} is on the meta device and holds no numbers: load the weights first")
    for name, module in model.named_modules():
        if getattr(module, "max_norm", None) is not None:
            raise UnsupportedModel(f"{name} changes its own weights in every forward (max_norm): set max_norm to None first")
        if type(module).__module__.startswith(
            ("bitsandbytes", "auto_gptq", "gptqmodel", "awq", "hqq", "optimum.quanto", "torchao")
        ):
            raise UnsupportedModel(
                f"the module {name} is quantised ({type(module).__name__}): load the model without quantisation, or dequantise it"
            )


def _prefix(model: Any) -> str:
    """The path of the body of a model with a head; empty for a body. Multimodal models hold it one level down."""
    prefix = model.base_model_prefix if model.base_model_prefix in model._modules else ""
    body = model.get_submodule(prefix)
    inner = "language_model"
    return f"{prefix}.{inner}".strip(".") if inner in body._modules else prefix


def _task(model: nn.Module) -> Task:
    from transformers.models.auto import modeling_auto as auto

    names = {cls.__name__ for cls in type(model).__mro__}

    def is_one_of(mapping: Any) -> bool:
        known = {n for value in mapping.values() for n in (value if isinstance(value, tuple | list) else (value,))}
        return bool(names & known)

    if is_one_of(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES):
        return "masked"
    if is_one_of(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return "causal"
    classifiers = (auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    return "classes" if any(map(is_one_of, classifiers)) else "none"


def _path_of(model: nn.Module, module: nn.Module | None) -> str:
    return next((name for name, candidate in model.named_modules() if candidate is module), "") if module is not None else ""


def _takes_positions(model: nn.Module) -> bool:
    import inspect

    return "position_ids" in inspect.signature(model.forward).parameters


def _transformer(model: Any, body: Any, prefix: str, family: Family, config: Any) -> Anatomy:
    blocks = list(body.get_submodule(family.layers))
    names = tuple(f"{prefix}{family.layers}.{i}" for i in range(len(blocks)))
    n_heads = config.num_attention_heads
    out = blocks[0].get_submodule(family.blocks["mlp_out"])
    sites = {name: Point(prefix + point.path, point.side) for name, point in family.sites.items()}
    embed = {"embed": sites.pop("embed")}
    layers: dict[str, Point] = {}
    for i, name in enumerate(names):
        layers |= {f"layers.{i}.{site}": point.under(name, n_heads) for site, point in _layer_sites(family).items()}
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    n_kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
    return Anatomy(
        family=family.name, task=_task(model), layers=tuple(blocks), names=names, n_heads=n_heads, n_kv_heads=n_kv_heads,
        d_head=getattr(config, "head_dim", None) or config.hidden_size // n_heads, d_model=config.hidden_size,
        d_mlp=out.weight.shape[0 if family.transposed else 1], n_vocab=getattr(config, "vocab_size", 0),
        context=getattr(config, "max_position_embeddings", 0), positions=_takes_positions(model),
        attention_paths=tuple(f"{name}.{family.attention}" for name in names), embed=prefix + family.embed,
        final_norm=prefix + family.final_norm if family.final_norm else "", unembed=_path_of(model, head),
        bias=blocks[0].get_submodule(family.blocks["O"]).bias is not None, table=family,
        sites=embed | layers | sites | (WHOLE if _task(model) != "none" else {}),
        missing_sites={f"layers.{i}.{s}": why for i in range(len(names)) for s, why in family.lacks.items()},
    )  # fmt: skip


def _layer_sites(family: Family) -> dict[str, Point]:
    """The sites of a block in the order in which the model runs them."""
    tapped = {f"attn.{name}": Point(f"{family.attention}.{TAP}.{name}") for name in TAPPED}
    by_head = {f"attn.{name}": replace(tapped[f"attn.{name}"], view="transposed") for name in ("q", "k", "v")}
    return {"resid_pre": family.layer_sites["resid_pre"], **tapped, **by_head, **family.layer_sites}


def _by_paths(model: nn.Module, config: Any) -> Anatomy:
    """A model of the transformers library that no table fits: its loss and its module paths work, its heads do not."""
    return Anatomy(
        family="module", task=_task(model), n_vocab=getattr(config, "vocab_size", None) or 0,
        context=getattr(config, "max_position_embeddings", None) or 0, positions=_takes_positions(model), sites=dict(WHOLE),
        no_heads=f"{type(model).__name__} (model_type {config.model_type!r}) follows none of the tables here, "
        "so its heads cannot be read safely",
    )  # fmt: skip


def _plain(model: nn.Module) -> Anatomy:
    from torch import nn as torch_nn

    convolutions = (torch_nn.Conv1d, torch_nn.Conv2d, torch_nn.Conv3d)
    leaves = [(name, m) for name, m in model.named_modules() if isinstance(m, (torch_nn.Linear, *convolutions))]
    modules = list(model.modules())
    recurrent = any(isinstance(m, torch_nn.RNNBase | torch_nn.MultiheadAttention) for m in modules)
    convolves = any(isinstance(m, convolutions) for m in modules)
    family = "module" if recurrent or not leaves else "cnn" if convolves else "mlp"
    kept = leaves if family != "module" else []
    return Anatomy(
        family=family, task="none", layers=tuple(m for _, m in kept), names=tuple(name for name, _ in kept),
        sites={f"layers.{i}.out": Point(name) for i, (name, _) in enumerate(kept)} | WHOLE,
        no_heads=f"{type(model).__name__} is no transformer that a table here describes",
    )  # fmt: skip
