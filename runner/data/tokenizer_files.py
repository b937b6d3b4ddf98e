"""The files of a tokenizer, in a folder or from a hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner import underway
from runner.errors import BadCheckpoint, first_line

TEMPLATE = "chat_template.jinja"
"""The chat template, where it is not in the configuration."""
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Special tokens that have a name, which chat templates can use; those of transformers."""
PATTERNS = ["tokenizer*.json", "special_tokens_map.json", TEMPLATE]
"""Names of the files that make a tokenizer."""


def folder_of(place: str | Path) -> Path:
    """The folder with a tokenizer's files; those of a hub id are fetched.

    Raises:
        BadCheckpoint: there is no such folder, and the hub does not give it.
    """
    if Path(place).is_dir():
        return Path(place)
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        with underway.work(f"fetching {place}"):
            return Path(huggingface_hub.snapshot_download(str(place), allow_patterns=PATTERNS))
    except HFValidationError as error:
        raise BadCheckpoint(f"there is no folder {place}, and no hub has such a name") from error
    except RepositoryNotFoundError as error:
        raise BadCheckpoint(f"there is no folder {place}, and {constants.ENDPOINT} gives no such model") from error
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} does not answer"
        raise BadCheckpoint(f"there is no folder {place}, and the hub cannot be asked: {why}") from error
    except (HfHubHTTPError, OSError) as error:
        raise BadCheckpoint(f"there is no folder {place}, and the hub does not give it: {first_line(error)}") from error


def config(folder: Path) -> Mapping[str, Any]:
    """What `tokenizer_config.json` says; nothing where there is none.

    Raises:
        BadCheckpoint: it is damaged.
    """
    return _json(folder / "tokenizer_config.json")


def special_tokens(folder: Path) -> dict[str, str]:
    """Special tokens by name, such as `eos_token`."""
    # files of earlier versions say it in a file of its own, which wins there too
    given = {**config(folder), **_json(folder / "special_tokens_map.json")}
    texts = {name: token.get("content") if isinstance(token := given.get(name), dict) else token for name in NAMED}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _json(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadCheckpoint(f"{file} is damaged: {error}") from error
    return found if isinstance(found, dict) else {}
