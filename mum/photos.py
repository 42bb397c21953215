"""Photographs for the command line: find them, read them upright as RGB bytes, bring them to a size.

Any file Pillow reads is taken: EXIF orientation is applied, grey, palette, CMYK, 16-bit and transparent
images become RGB (transparency over white). Broken files are refused by name.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mum.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})


class PhotoError(InputError):
    """A photograph or folder that cannot be used, with its path and the reason."""


def find_photos(paths: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """Photographs in files and folders (searched through), sorted within each folder.

    Returns:
        (path, name) pairs; the name is relative to the folder that was given.

    Raises:
        PhotoError: a path that does not exist, or a folder without photographs.
    """
    found = []
    for given in map(Path, paths):
        if given.is_file():
            found.append((given, Path(given.name)))
        elif given.is_dir():
            inside = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise PhotoError(f"{given} holds no photographs ({', '.join(sorted(SUFFIXES))})")
            found += [(path, path.relative_to(given)) for path in inside]
        else:
            raise PhotoError(f"{given} does not exist")
    return found


def read_photo(path: Path) -> Image.Image:
    """Read one photograph, upright, RGB.

    Raises:
        PhotoError: not an image, or a truncated one.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PhotoError(f"{path} is not a readable image: {error}") from error
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        deep = 65535.0 if values.max(initial=0) > 255 else 255.0
        image = Image.fromarray((values.clip(0, deep) * (255 / deep)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> np.ndarray:
    """Centre square, resized: uint8 (3, size, size)."""
    return _channels_first(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def short_side(image: Image.Image, size: int, patch_size: int) -> np.ndarray:
    """Resize to a short side, keeping the aspect, and cut evenly to multiples of the patch: uint8 (3, H,
    W)."""
    scale = size / min(image.size)
    width, height = (max(patch_size, round(side * scale) // patch_size * patch_size) for side in image.size)
    return _channels_first(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))


def _channels_first(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
