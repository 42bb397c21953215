"""Plain folders of photographs, a folder a scene, without cameras: overlap stays unknown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.format import Frame, Scene, ShardsError
from shards.sources.folders import check_folders, distinct_names, list_photographs, subfolders


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build images`."""

    licence: str = "unknown"
    """Licence tag of the photographs, kept with every chunk."""


@dataclass(frozen=True, kw_only=True)
class FolderTask:
    """One folder of photographs."""

    name: str
    photographs: tuple[Path, ...]
    licence: str

    @property
    def views(self) -> int:
        """Photographs in the folder."""
        return len(self.photographs)


def find(paths: Sequence[Path], options: Options) -> Iterator[FolderTask]:
    """A scene for every folder at or below `paths` that holds photographs directly."""
    check_folders(paths)
    found: dict[Path, list[Path]] = {}
    for path in paths:
        listed = {folder: list_photographs(folder) for folder in subfolders(path)}
        below = {folder: photographs for folder, photographs in listed.items() if photographs}
        if not below:
            raise ShardsError(f"{path} and its subfolders hold no photographs (.jpg, .png, .webp, .tif ...)")
        found.update((folder.resolve(), photographs) for folder, photographs in below.items())
    for (_, photographs), name in zip(found.items(), distinct_names(list(found)), strict=True):
        yield FolderTask(name=name, photographs=tuple(photographs), licence=options.licence)


def read(task: FolderTask) -> Scene:
    """The scene's frames, their files not yet opened."""
    return Scene(
        name=task.name,
        frames=[Frame(name=path.name, image=path) for path in task.photographs],
        licence=task.licence,
    )
