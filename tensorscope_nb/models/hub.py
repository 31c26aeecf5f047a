"""Whether the model hub answers, asked once and briefly: its client would try for half a minute, file by file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorscope_nb.models.short_names import no_owner


def check_id(name: str) -> None:
    """Raises where ``name`` can be no id of the hub."""
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except ValueError as error:
        raise FileNotFoundError(
            f"there is no folder {name!r}, and it is no id of the model hub either (name or owner/name): "
            "give a folder written by save_pretrained, a .gguf file, a hub id, or 'tiny'"
        ) from error


def cached_folder(name: str, options: dict[str, Any]) -> Path | None:
    """Where an earlier download of the model lies."""
    from huggingface_hub import try_to_load_from_cache

    where = {key: options[key] for key in ("revision", "cache_dir") if options.get(key) is not None}
    file = try_to_load_from_cache(name, options.get("gguf_file") or "config.json", **where)
    return Path(file).parent if isinstance(file, str) else None


def reach(name: str, options: dict[str, Any], asked: str) -> dict[str, Any]:
    """The options to load with: where the hub does not answer, those that read an earlier download only.

    ``asked`` is the name that was given, which may be short for ``name``.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if options.get("local_files_only"):
        return options
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # the errors of the client differ between its versions
        if cached_folder(name, options) is None:
            at = "" if asked == name else f", where it is {name!r},"
            raise OSError(
                f"there is no folder {asked!r}{no_owner(name)}, and the model hub{at} does not answer ({_reason(error)}): "
                "give a local folder, try again with a network, or take 'tiny', which needs none"
            ) from error
        return options | {"local_files_only": True}
    return options


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
