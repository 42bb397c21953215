"""Small JSON files that a reader sees whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.errors import InputError


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` to `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(json.dumps(values, indent=1) + "\n")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The values of a file that `write_json` wrote; InputError if it is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None
