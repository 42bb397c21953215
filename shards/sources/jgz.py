"""The reference's own annotation files, unchanged: gzip JSON that lists the pictures of every sequence.

Two forms are in use. MuM's: `{sequence: [{"filepath", "id"[, "qvec", "tvec"]}, ...]}`, poses as COLMAP writes
them, without intrinsics. VGGT's: the same with `extri` (3, 4) and `intri` (3, 3), or, for MegaDepth, a list of
such lists a scene: a scene's lists repeat its pictures, and are read as one scene that holds each once. Poses
are world-to-camera with OpenCV axes, intrinsics in pixels of the picture; paths are relative to a root. A file
is read scene by scene, so that none need fit into memory whole.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from shards.format import Frame, Scene, ShardsError
from shards.sources.folders import natural_key

_PIECE = 1 << 20
_LONGEST_WORD = 1 << 20
_ALWAYS_READ = 1 << 26
_LARGEST_RATIO = 100
"""Annotations shrink to a tenth or so; what unpacks to a hundred times its size is none."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build jgz`."""

    root: Path | None = None
    """Folder that the paths in the annotations start from; by default the folder of each annotation file."""
    ordered: bool = False
    """The lists follow time, as those of videos do: nearness in them stands for overlap where nothing else tells
    it."""
    licence: str = "unknown"
    """Licence tag of the photographs, kept with every chunk."""


@dataclass(frozen=True, kw_only=True)
class JgzTask:
    """One sequence or scene."""

    name: str
    annotation: Path
    root: str
    photographs: tuple[Path, ...]
    world_to_camera: np.ndarray
    """(N, 3, 4) float64, nan where a picture has no pose."""
    intrinsics: np.ndarray
    """(N, 3, 3) float64, nan where a picture has none."""
    ordered: bool
    licence: str

    @property
    def views(self) -> int:
        """Pictures of the scene."""
        return len(self.photographs)


def find(paths: Sequence[Path], options: Options) -> Iterator[JgzTask]:
    """A scene for every key of the annotation files."""
    if not paths:
        raise ShardsError("name at least one annotation file (.jgz)")
    for path in paths:
        root = options.root if options.root is not None else path.parent
        if not root.is_dir():
            raise ShardsError(f"--root {root} is no folder")
        for name, listed in read_annotation(path):
            yield _task(path, name, listed, root, options)


def read(task: JgzTask) -> Scene:
    """The scene's frames, their files not yet opened."""

    def known(values: np.ndarray) -> np.ndarray | None:
        return None if np.isnan(values).any() else values

    return Scene(
        name=task.name,
        frames=[
            Frame(
                name=path.relative_to(task.root).as_posix(),
                image=path,
                intrinsics=known(task.intrinsics[i]),
                world_to_camera=known(task.world_to_camera[i]),
            )
            for i, path in enumerate(task.photographs)
        ],
        licence=task.licence,
        ordered=task.ordered,
    )


def read_annotation(path: Path) -> Iterator[tuple[str, Any]]:
    """(scene, its value) of a gzip JSON object, one after another; ShardsError where the file is none."""
    try:
        size = path.stat().st_size
        with gzip.open(path) as packed, io.TextIOWrapper(packed, encoding="utf-8") as text:
            yield from _members(text, max(_ALWAYS_READ, _LARGEST_RATIO * size), path)
    except gzip.BadGzipFile:
        raise ShardsError(
            f"{path} is no gzip file: give the annotations as they were published (.jgz)"
        ) from None
    except (EOFError, zlib.error) as error:
        raise ShardsError(f"{path} is damaged, fetch it again: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ShardsError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, RecursionError):
        raise ShardsError(f"{path} holds no JSON of annotations") from None


class _Reader:
    """JSON values one at a time from a text that is longer than memory should hold."""

    def __init__(self, text: io.TextIOBase, most: int, path: Path) -> None:
        self.text, self.most, self.path = text, most, path
        self.buffer, self.at, self.read, self.ended = "", 0, 0, False
        self.decoder = json.JSONDecoder()

    def more(self) -> None:
        """Read on, as much again as is waiting."""
        piece = self.text.read(max(_PIECE, len(self.buffer) - self.at))
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        self.read += len(piece)
        self.ended = not piece
        if self.read > self.most:
            raise ShardsError(
                f"{self.path} unpacks to more than {self.most >> 20} MiB: it is no annotation file"
            )

    def sign(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at].isspace():
                self.at += 1
            if self.at < len(self.buffer) or self.ended:
                break
            self.more()
        self.at += 1
        return self.buffer[self.at - 1 : self.at]

    def expect(self, sign: str, wanted: str) -> None:
        """ValueError unless they are the same."""
        if sign != wanted:
            raise ValueError

    def value(self) -> Any:
        """The next value."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
                if end < len(self.buffer) or self.ended:
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended or len(self.buffer) - error.pos > _LONGEST_WORD:
                    raise
            self.more()


def _members(text: io.TextIOBase, most: int, path: Path) -> Iterator[tuple[str, Any]]:
    reader = _Reader(text, most, path)
    seen: set[str] = set()
    try:
        if (sign := reader.sign()) != "{":
            raise ShardsError(f"{path} must hold a JSON object of sequences, and begins with {sign!r}")
        sign = reader.sign()
        while sign != "}":
            reader.expect(sign, '"')
            reader.at -= 1
            name = reader.value()
            reader.expect(reader.sign(), ":")
            reader.sign()
            reader.at -= 1
            if name in seen:
                raise ValueError
            seen.add(name)
            yield name, reader.value()
            sign = reader.sign()
            if sign == ",":
                reader.expect(sign := reader.sign(), '"')
            else:
                reader.expect(sign, "}")
        reader.expect(reader.sign(), "")  # gzip compares its checksum at the end only
    except (ShardsError, UnicodeDecodeError):
        raise
    except ValueError:
        after = f" after {name!r}" if seen else ""
        raise ShardsError(f"{path} is broken JSON{after}; fetch it again") from None
    if not seen:
        raise ShardsError(f"{path} lists no sequence")


def _task(path: Path, name: str, listed: Any, root: Path, options: Options) -> JgzTask:
    where = f"{path}: sequence {name!r}"
    if not isinstance(listed, list):
        raise ShardsError(f"{where} must be a list of pictures, not a {type(listed).__name__}")
    nested = bool(listed) and isinstance(listed[0], list)
    entries: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for entry in (e for part in listed for e in part) if nested else listed:
        file, pose, intrinsics = _entry(entry, where)
        same = entries.setdefault(file, (pose, intrinsics))
        if not (
            np.array_equal(same[0], pose, equal_nan=True)
            and np.array_equal(same[1], intrinsics, equal_nan=True)
        ):
            raise ShardsError(f"{where} gives {file} two different cameras")
    files = sorted(entries, key=natural_key) if nested else list(entries)
    return JgzTask(
        name=name,
        annotation=path,
        root=str(root),
        photographs=tuple(root / file for file in files),
        world_to_camera=np.array([entries[file][0] for file in files]).reshape(-1, 3, 4),
        intrinsics=np.array([entries[file][1] for file in files]).reshape(-1, 3, 3),
        ordered=options.ordered and not nested,
        licence=options.licence,
    )


def _entry(entry: Any, where: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Path, pose (3, 4) and intrinsics (3, 3) of a picture, nan where it has none."""
    pose, intrinsics = np.full((3, 4), np.nan), np.full((3, 3), np.nan)
    try:
        file = entry["filepath"]
        parts = PurePosixPath(file).parts
        if not parts or ".." in parts or file.startswith("/"):
            raise ShardsError(
                f"{where} lists {file!r}, which leads out of the root; paths must be relative to it"
            )
        if "extri" in entry:
            pose = np.array(entry["extri"], np.float64)[:3]
        elif "qvec" in entry:
            pose = np.column_stack([_rotation(entry["qvec"]), np.array(entry["tvec"], np.float64)])
        if "intri" in entry:
            intrinsics = np.array(entry["intri"], np.float64)
        if pose.shape != (3, 4) or intrinsics.shape != (3, 3):
            raise ValueError(f"{file} has a pose of {pose.shape} and intrinsics of {intrinsics.shape}")
    except KeyError as error:
        raise ShardsError(f"{where} has a picture without {error.args[0]!r}") from None
    except ShardsError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise ShardsError(f"{where} has a picture that is not described as it should be: {error}") from None
    return PurePosixPath(file).as_posix(), pose, intrinsics


def _rotation(qvec: Sequence[float]) -> np.ndarray:
    """(3, 3) of a quaternion, w first."""
    q = np.array(qvec, np.float64)
    if q.shape != (4,) or not 0 < (length := float(np.linalg.norm(q))) < np.inf:
        raise ValueError(f"qvec {qvec} is no rotation")
    w, x, y, z = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
