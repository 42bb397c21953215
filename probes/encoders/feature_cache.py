"""Where features are kept: a folder for everything but the image, a file for each image, nothing stale ever read.

A folder is named by the hash of its key: the encoder's identity (weights, preprocessing, norm, code), the layer, the
evaluated size, the rule that makes images square, and the number format. It holds the key itself in ``key.json``,
so a folder that was renamed or copied over another is refused, and encoders may share a cache. Files are plain
``.npy`` named by the hash of the image's bytes, written under a temporary name: any number of processes may fill the
same cache. Nothing here runs an encoder.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import ProbeError
from probes.files import write_whole

KEY_FILE = "key.json"
FORMAT = "npy (h, w, C), float16, or float32 where that overflows"


def default_cache() -> Path:
    """The user's cache folder: $XDG_CACHE_HOME/mumkit, by default below ~/.cache; features are in ``features``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mumkit"


class MapFolder:
    """Maps of one encoder, layer and size, a file an image.

    Args:
        cache: folder of all of them; made if there is none.
        key: everything but the image that the maps depend on; JSON types.

    Raises:
        ProbeError: the folder cannot be written, or holds maps of another key.
    """

    def __init__(self, cache: Path, key: Mapping[str, Any]) -> None:
        text = json.dumps({**key, "format": FORMAT}, sort_keys=True)
        self.path = cache / hashlib.sha256(text.encode()).hexdigest()[:24]
        self._shape: tuple[int, ...] | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # In this order: a key is always written before the first map.
            filled = next(self.path.glob("*.npy"), None) is not None
            found = _read_key(self.path / KEY_FILE)
            if found is None and not filled:
                write_whole(self.path / KEY_FILE, text)
                return
        except OSError as error:
            raise ProbeError(
                f"the feature cache {cache} cannot be written ({error}): choose another"
            ) from error
        if found != json.loads(text):
            raise ProbeError(
                f"{self.path} holds features of something else ({_difference(found, json.loads(text))}): it was "
                "renamed or copied, or its key.json was lost; delete that folder"
            )

    def file(self, name: str) -> Path:
        """Where the map of an image is kept, by the image's hash."""
        return self.path / f"{name}.npy"

    def holds(self, name: str) -> bool:
        """Whether there is a whole map of an image; a damaged one counts as none and will be written anew."""
        try:
            shape = map_shape(self.file(name))
        except (OSError, ValueError, EOFError):
            return False
        self._shape = self._shape or shape
        return len(shape) == 3 and shape == self._shape

    def write(self, name: str, value: NDArray) -> Path:
        """Keep the map (h, w, C) of an image. ProbeError where the disk refuses."""
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        try:
            write_whole(self.file(name), buffer.getvalue())
        except OSError as error:
            raise ProbeError(f"the feature cache cannot be written ({error}): choose another") from error
        return self.file(name)


def map_shape(path: Path) -> tuple[int, ...]:
    """Shape in the header of a map's file, which must be as long as that says. ValueError where it is damaged."""
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.dtype not in (np.float16, np.float32):
        raise ValueError(f"{path} holds {found.dtype}")
    return found.shape


def read_map(path: Path) -> NDArray:
    """A kept map (h, w, C). ProbeError where it was damaged or removed meanwhile."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ProbeError(
            f"{path} can no longer be read ({error}): run it again, what is damaged is made anew"
        ) from error


def _read_key(path: Path) -> dict[str, Any] | None:
    """The key beside the maps; None where there is none; empty where it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _difference(found: dict[str, Any] | None, wanted: dict[str, Any]) -> str:
    """Where two keys differ, in a few words."""
    if not found:
        return "it has no readable key.json"
    flat = [
        {**{k: v for k, v in key.items() if k != "encoder"}, **key.get("encoder", {})}
        for key in (found, wanted)
    ]
    names = sorted(name for name in flat[0].keys() | flat[1].keys() if flat[0].get(name) != flat[1].get(name))
    shown = ", ".join(f"{n} {_short(flat[0].get(n))} instead of {_short(flat[1].get(n))}" for n in names[:2])
    return shown + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else text[:12] + "..."
