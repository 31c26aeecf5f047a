"""A model of the transformers library, from a folder, a .gguf file or the hub, as the class that it was saved as."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tensorscope_nb.models.faults import check_config, explained
from tensorscope_nb.models.hub import cached_folder, check_id, reach
from tensorscope_nb.models.short_names import hub_id

WHERE = ("revision", "token", "cache_dir", "local_files_only", "subfolder", "trust_remote_code")
HEADS = ("ForCausalLM", "ForMaskedLM", "ForSequenceClassification", "ForImageClassification", "")


def pretrained(name: str | Path, *, device: Any = None, **options: Any) -> tuple[Any, Any, str]:
    """The model, its tokenizer or None, and what to call it."""
    import torch

    _check_options(device, options)
    # False, not None: at None the library asks on the terminal whether to run the model's code
    options = {"trust_remote_code": False} | options
    asked = text = str(name)
    path = _local(name, text)
    if path is None and (text := hub_id(asked)) != asked:
        path = _local(text, text)
    if path is None:
        check_id(text)
        options = reach(text, options, asked)
        source, files, called = text, cached_folder(text, options), text
    else:
        files = path.parent if path.is_file() else path
        source, called = str(files), path.stem if path.is_file() else path.resolve().name
        if path.is_file():
            options["gguf_file"] = path.name
        if options.get("gguf_file"):
            # the whole path: a bare name would first be looked for in the working folder
            options["gguf_file"] = str((files / options["gguf_file"]).resolve())
            if not Path(options["gguf_file"]).is_file():
                raise FileNotFoundError(f"there is no file {options['gguf_file']}: gguf_file= names a file in {text!r}")
        else:
            check_config(files / (options.get("subfolder") or ""), text)
    if options.get("gguf_file"):
        options = _with_gguf(options)
    try:
        with torch.random.fork_rng(devices=[]), _without_bars():
            model, info = _model(source, options)
        tokenizer = _tokenizer(source, options)
    except MemoryError:
        raise
    except Exception as error:  # whatever the readers of four file formats raise
        raise explained(error, text, files or cached_folder(text, options), options.get("gguf_file")) from error
    _check_complete(model, info, text)
    return model if device is None else model.to(device), tokenizer, called


@contextmanager
def _without_bars() -> Iterator[None]:
    """The library's own progress bars would stay in a notebook."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_options(device: Any, options: dict[str, Any]) -> None:
    import torch

    if options.get("weights_only") is False:
        raise ValueError("weights_only is False: ts.load reads weights only; save the model as safetensors first")
    if options.get("device_map") is not None:
        if device is not None:
            raise ValueError("device= and device_map= are both given: device= moves the whole model, device_map= spreads it")
        _require("device_map=", "accelerate")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {device!r}, which cannot be used here: {str(error).splitlines()[0]}") from error


def _require(what: str, *packages: str) -> None:
    lacking = [package for package in packages if find_spec(package) is None]
    if lacking:
        raise ImportError(f"{what} needs {' and '.join(lacking)}: pip install {' '.join(lacking)}, then restart the kernel")


def _local(name: str | Path, text: str) -> Path | None:
    """The folder or .gguf file that is meant, or None for an id of the hub."""
    path = Path(name).expanduser()
    if not (isinstance(name, Path) or text.startswith((".", "/", "~")) or text.endswith(".gguf") or path.exists()):
        return None
    if not path.exists():
        what = "file" if text.endswith(".gguf") else "folder"
        raise FileNotFoundError(f"there is no {what} {text!r}: give a folder written by save_pretrained, a hub id, or 'tiny'")
    if path.is_file() and path.suffix != ".gguf":
        raise FileNotFoundError(f"{text!r} is a file: give its folder, where config.json is too; only a .gguf is read alone")
    return path


def _with_gguf(options: dict[str, Any]) -> dict[str, Any]:
    """A plain float model from the file's quantised blocks."""
    _require("a .gguf file", "gguf", "accelerate")
    import torch
    from transformers import GgufConfig

    return {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)} | options


def _model(source: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    cls = _class(source, options)
    load = lambda **more: cls.from_pretrained(source, output_loading_info=True, **options, **more)
    model, info = load()
    if info["missing_keys"] and all(key.startswith("pooler.") for key in info["missing_keys"]):
        return load(add_pooling_layer=False)  # it was saved without one
    return model, info


def _class(source: str, options: dict[str, Any]) -> Any:
    """The class that ``config.json`` names; where it names none of the library's, the nearest Auto class."""
    import transformers

    if options.get("gguf_file"):
        return transformers.AutoModelForCausalLM
    where = {key: options[key] for key in WHERE if key in options}
    config = options.get("config") or transformers.AutoConfig.from_pretrained(source, **where)
    kernel = getattr(config, "_attn_implementation", None)
    if isinstance(kernel, str) and "/" in kernel and "attn_implementation" not in options:
        raise ValueError(f"its config.json asks for code from the hub ({kernel}): pass attn_implementation='eager'")
    named = (getattr(config, "architectures", None) or [""])[0]
    own = getattr(config, "auto_map", None) or {} if options["trust_remote_code"] else {}
    cls = getattr(transformers, named, None)
    if not own and isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel):
        return cls
    for head in HEADS:
        auto = getattr(transformers, f"AutoModel{head}")
        if f"AutoModel{head}" in own or (not own and head and named.endswith(head)):
            return auto
    # without a name: a language model where that is the one head its kind can have, else its body
    causal, masked = transformers.MODEL_FOR_CAUSAL_LM_MAPPING, transformers.MODEL_FOR_MASKED_LM_MAPPING
    only_causal = type(config) in causal and type(config) not in masked
    return transformers.AutoModelForCausalLM if only_causal else transformers.AutoModel


def _check_complete(model: Any, info: dict[str, Any], text: str) -> None:
    """Parameters that no file holds are random numbers: nothing may be measured on them."""
    missing = sorted(set(info["missing_keys"]) & {name for name, _ in model.named_parameters(remove_duplicate=False)})
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f"the files of {text!r} hold no {missing[0]}{more}, which would be random: save all of {type(model).__name__}, "
            "or load it yourself and wrap it with ts.Scope(model, tokenizer)"
        )


def _tokenizer(source: str, options: dict[str, Any]) -> Any:
    """The tokenizer that was saved with the model, or None: texts then raise and say so, token ids work."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **{k: options[k] for k in (*WHERE, "gguf_file") if k in options})
    except (OSError, ValueError):
        return None
    # where there are no files, the library makes a tokenizer that knows its special tokens and no others
    return tokenizer if set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens) else None
