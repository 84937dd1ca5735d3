"""A model's source, as a user names it, and its files once they are on this machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cappy_model.paths import expanded
from schemas.errors import CappyError

CONFIG = "config.json"


class ModelError(CappyError):
    """A model that cannot be found, loaded or used for its purpose."""


@dataclass(frozen=True)
class ModelSource:
    """The location of a model and the permissions to load it.

    `name`: a folder, an fsspec URL, or a hub id with an optional `@revision`. Pickled weights and the model's own code
    can execute anything on this machine, so both are opt-in. `storage`: fsspec options for a URL.
    """

    name: str
    allow_pickle: bool = False
    trust_remote_code: bool = False
    storage: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", expanded(self.name))


@dataclass(frozen=True)
class Checkpoint:
    """A model's files on this machine.

    `content`: a hash of the files, or the commit of the hub repository. `base` is None, or, where `folder` holds a
    PEFT adapter, the model that it adapts; `content` then covers both.
    """

    source: ModelSource
    folder: Path
    content: str
    base: "Checkpoint | None" = None

    def folder_of(self, *names: str) -> Path:
        """Return the folder with the model's files of these names: an adapter's if it has one of them, else its base's.

        Without an adapter it is `folder`, whether the files exist or not.
        """
        own = any((self.folder / name).is_file() for name in names)
        return self.folder if own or self.base is None else self.base.folder

    def stored_config(self) -> dict[str, Any]:
        """Return the content of config.json, which transformers may not know. Raises ModelError if it is damaged."""
        try:
            content = json.loads((self.folder_of(CONFIG) / CONFIG).read_bytes())
        except ValueError as error:
            raise ModelError(f"{self.source.name}: cannot be loaded: its {CONFIG} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ModelError(f"{self.source.name}: cannot be loaded: its {CONFIG} holds no JSON object")
        return content
