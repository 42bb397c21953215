"""JSON that a dataset comes with, read with one sentence for whatever is wrong with it."""

import json
from pathlib import Path
from typing import Any

from shards.format import ShardsError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ShardsError names the file and says why it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ShardsError(f"{path} cannot be read: {error.strerror or 'no such file'}") from None
    except (ValueError, RecursionError) as error:
        raise ShardsError(f"{path} is no JSON file: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ShardsError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value
