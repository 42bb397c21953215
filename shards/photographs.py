"""Any user's picture, read upright: 8-bit sRGB (H, W, 3), whatever the file was.

EXIF orientation is applied and reported, greyscale repeated, CMYK and other colour profiles converted, 16
bits reduced to 8, transparency laid over white (as readers of rendered object scenes do), progressive files
decoded, animations and multi-picture files read at their first picture. What cannot be read whole is
refused by name: a truncated file never becomes a half-grey picture. This file knows nothing of scenes and
cameras.
"""

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageCms

from shards.format import BadPhotograph

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".gif", ".jp2", ".avif", ".heic", ".heif"}
)
"""File names that end so are taken for photographs (in lower case); one that is none is refused by name."""

SMALLEST = 16
"""Least pixels along the short side."""

_EXIF_ORIENTATION = 0x0112
_SCALED_DECODE = 2
"""A JPEG is decoded at a fraction of its size only down to this many times the size asked for."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """An upright picture and how it lay in its file."""

    pixels: np.ndarray
    """(H, W, 3) uint8 sRGB, upright; smaller than `size` where a reduced decode was allowed."""
    file_size: tuple[int, int]
    """(H, W) as the file stores it, before it is turned."""
    orientation: int
    """EXIF orientation, 1 to 8; 1 = stored upright."""
    data: bytes
    """The file."""
    is_plain_jpeg: bool
    """Whether the pixels are those of the JPEG data itself: no turning, no profile, no transparency."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) upright, before any reduction."""
        height, width = self.file_size
        return (width, height) if self.orientation >= 5 else (height, width)


def read_photograph(
    image: bytes | Path, name: str, *, short_side: int | None = None, orientation: int | None = None
) -> Photograph:
    """Read one picture. BadPhotograph names it and says why it cannot be used.

    With `short_side`, a large JPEG may be decoded at a fraction of its size, never below twice that side: the
    rest is left to an antialiased resize. `orientation` (1 to 8) stands in for the file's own.
    """
    try:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
    except OSError as error:
        raise BadPhotograph(name, error.strerror or "cannot be read") from None
    if not data:
        raise BadPhotograph(name, "the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; those too large raise
            with Image.open(io.BytesIO(data)) as opened:
                return _read(opened, data, name, short_side, orientation)
    except BadPhotograph:
        raise
    except Image.UnidentifiedImageError:
        heic = data[4:8] == b"ftyp" and data[8:12] in {b"heic", b"heix", b"mif1", b"hevc"}
        reason = "HEIC is not read here; convert it to JPEG first" if heic else "is not a picture"
        raise BadPhotograph(name, reason) from None
    except Image.DecompressionBombError:
        raise BadPhotograph(name, f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except Exception as error:  # decoders fail in many ways on broken files; each is the file's fault
        raise BadPhotograph(name, _reason(error)) from None


def _read(
    opened: Image.Image, data: bytes, name: str, short_side: int | None, orientation: int | None
) -> Photograph:
    width, height = opened.size
    if min(width, height) < SMALLEST:
        raise BadPhotograph(name, f"is {width}x{height}, at least {SMALLEST} pixels a side are needed")
    orientation = orientation or _orientation(opened)
    profile = _foreign_profile(opened)
    is_jpeg = opened.format in {"JPEG", "MPO"}
    pixels = None
    if is_jpeg and opened.mode in {"RGB", "L"} and profile is None:
        pixels = _decode_jpeg(data, name, short_side)
    if pixels is None:
        pixels = np.asarray(_to_rgb(opened, profile))
    return Photograph(
        pixels=np.ascontiguousarray(turn_upright(pixels, orientation)),
        file_size=(height, width),
        orientation=orientation,
        data=data,
        is_plain_jpeg=is_jpeg and opened.mode == "RGB" and profile is None and orientation == 1,
    )


def _decode_jpeg(data: bytes, name: str, short_side: int | None) -> np.ndarray | None:
    """Fast decode that fails on damage; None leaves a merely untidy file to Pillow."""
    least = _SCALED_DECODE * short_side if short_side else 0
    try:
        return simplejpeg.decode_jpeg(data, min_height=least, min_width=least, strict=True)
    except ValueError as error:
        if not _is_harmless(str(error), data):
            raise BadPhotograph(name, _reason(error)) from None
    return None


def _is_harmless(warning: str, data: bytes) -> bool:
    """Whether libjpeg complains of padding, which cameras do write, and not of damage."""
    if "not implemented" in warning.lower():
        return True  # a kind of JPEG that Pillow may know
    padding = re.search(r"(\d+) extraneous bytes before marker", warning)
    if padding is None:
        return False
    count, end = int(padding[1]), data.rfind(b"\xff\xd9")
    return count <= 8 or not data[end - count : end].strip(b"\0\xff")


def _to_rgb(image: Image.Image, profile: Any) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed white; convert it to 8 or 16 bits first")
    image.load()
    if image.mode in {"I", "I;16", "I;16L", "I;16B", "I;16N"}:
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((np.clip(values, 0, 65535) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, over).convert("RGB")
    if profile is not None and image.mode in {"RGB", "CMYK"}:
        try:
            srgb = ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB") or image
        except ImageCms.PyCMSError:
            pass  # a profile that does not fit its picture: take the numbers as they are
    return image.convert("RGB")


def _foreign_profile(image: Image.Image) -> Any:
    """The embedded colour profile, or None where there is none or it is sRGB (or unreadable)."""
    embedded = image.info.get("icc_profile")
    if not embedded or image.mode not in {"RGB", "RGBA", "CMYK"}:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        return None if "srgb" in ImageCms.getProfileDescription(profile).lower() else profile
    except (ImageCms.PyCMSError, OSError):
        return None


def _orientation(image: Image.Image) -> int:
    try:
        orientation = int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (H, W, ...) as its EXIF orientation (1 to 8) asks."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels


def upright_transform(orientation: int, height: int, width: int) -> np.ndarray:
    """(3, 3) float64: pixel of the file, `height` x `width`, -> pixel of the upright picture.

    The same turn as `turn_upright`, in continuous coordinates with pixel centres at +0.5.
    """
    matrix = np.eye(3)
    if orientation >= 5:
        matrix = matrix[[1, 0, 2]]
        height, width = width, height
    if orientation in {3, 4, 7, 8}:
        matrix = np.array([[1, 0, 0], [0, -1, height], [0, 0, 1.0]]) @ matrix
    if orientation in {2, 3, 6, 7}:
        matrix = np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1.0]]) @ matrix
    return matrix


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    truncated = any(word in text.lower() for word in ("truncated", "premature end", "eof", "end of file"))
    return f"is truncated ({text})" if truncated else f"cannot be decoded ({text})"


def file_geometry(path: Path) -> tuple[tuple[int, int], int] | None:
    """((H, W) as stored, EXIF orientation) from a picture's header; None where it has no readable one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                return (opened.height, opened.width), _orientation(opened)
    except Exception:  # as in read_photograph, which will name it
        return None
