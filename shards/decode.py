"""Encoded pictures to uint8 crops: simplejpeg, then torch's antialiased bicubic resize, into a given buffer.

Only the part of a picture that a crop needs is decoded (`shards/cut.py`). The resize works on uint8 and stays
within one grey level of Pillow's bicubic. It is fast only on pictures whose channels lie innermost, so batches
are kept that way: shape (..., 3, H, W), memory (..., H, W, 3), torch's `channels_last`. Crops are (top, left,
height, width) in whole pixels. This file knows nothing of datasets.
"""

from collections.abc import Callable

import numpy as np
import simplejpeg
import torch

from shards.cut import Crop, cut

MAX_PIXELS = 1 << 26
"""Largest picture that is decoded; a header that promises more is damage, not a photograph of a dataset."""

_PIXELS_A_BYTE = 512
"""No JPEG holds more: every block of 8 x 8 pixels costs at least a bit."""


class Decoder:
    """Decodes and resizes in memory that it keeps, since touching fresh pages costs a third of a decode. Not
    thread-safe."""

    def __init__(self) -> None:
        self._picture, self._crop = _Memory(), _Memory()
        # Once a large block was freed, glibc keeps the memory of smaller ones instead of returning it each time.
        np.empty(1 << 24, np.uint8)

    def decode(self, jpeg: bytes) -> np.ndarray:
        """(H, W, 3) uint8 RGB, valid until the next call. ValueError where the bytes are no sound JPEG."""
        return self._decode(jpeg, _checked_size(jpeg))

    def decode_crop(
        self, jpeg: bytes, choose: Callable[[int, int], Crop], out: torch.Tensor, *, flip: bool = False
    ) -> Crop:
        """Write the crop that `choose(H, W)` says to `out` (3, h, w), as `resize_crop` does; return the crop.

        ValueError where the bytes are no sound JPEG; damage outside the part that is decoded may pass.
        """
        size = _checked_size(jpeg)
        crop = choose(*size)
        image, inner = self._decode_around(jpeg, size, crop)
        self.resize_crop(image, inner, out, flip=flip)
        return crop

    def _decode_around(self, jpeg: bytes, size: tuple[int, int], crop: Crop) -> tuple[np.ndarray, Crop]:
        found = cut(jpeg, size, crop)
        if found is not None:
            part, part_size, inner = found
            try:
                return self._decode(part, part_size), inner
            except ValueError:
                pass  # the whole picture shall say what is wrong with it
        return self._decode(jpeg, size), crop

    def _decode(self, jpeg: bytes | bytearray, size: tuple[int, int]) -> np.ndarray:
        return simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=self._picture.array(*size))

    def resize_crop(self, image: np.ndarray, crop: Crop, out: torch.Tensor, *, flip: bool = False) -> None:
        """Write the crop of `image` (H, W, 3), resized to fill `out` (3, h, w), mirrored if `flip`."""
        top, left, height, width = crop
        pixels = image[top : top + height, left : left + width]
        # The resize wants its input dense: mirroring makes it so, and copying a crop into warm memory is cheap.
        if flip:
            dense = torch.from_numpy(pixels).flip(1).permute(2, 0, 1)[None]
        else:
            np.copyto(self._crop.array(height, width), pixels)
            dense = self._crop.tensor(height, width)
        wanted = tuple(out.shape[1:])
        if (height, width) == wanted:
            out.copy_(dense[0])
        else:
            # `torch.nn.functional.interpolate` with antialias, which by itself cannot write into `out`.
            torch._C._nn._upsample_bicubic2d_aa(dense, wanted, False, None, None, out=out[None])


class _Memory:
    """Room for one picture that grows to the largest: as an array (h, w, 3), or the same bytes as a tensor (1, 3,
    h, w)."""

    def __init__(self) -> None:
        self._grow(0)

    def _grow(self, size: int) -> None:
        self._bytes = np.empty(size, np.uint8)
        self._tensor = torch.from_numpy(self._bytes)

    def array(self, height: int, width: int) -> np.ndarray:
        size = height * width * 3
        if size > self._bytes.size:
            self._grow(size)
        return self._bytes[:size].reshape(height, width, 3)

    def tensor(self, height: int, width: int) -> torch.Tensor:
        size = height * width * 3
        if size > self._bytes.size:
            self._grow(size)
        return self._tensor.as_strided((1, 3, height, width), (size, 1, width * 3, 3))


def _checked_size(jpeg: bytes) -> tuple[int, int]:
    """Height and width by the header; ValueError where they are none that a picture of so many bytes can have."""
    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    if height * width > min(MAX_PIXELS, _PIXELS_A_BYTE * len(jpeg)):
        raise ValueError(f"{len(jpeg)} bytes that promise {width} x {height} px are no stored picture")
    return height, width


def resize_crop(image: np.ndarray, crop: Crop, size: int | tuple[int, int]) -> torch.Tensor:
    """(3, h, w) uint8: the crop of `image` (H, W, 3) uint8, resized to `size`, a side or (h, w).

    The pixel (x, y) of `image` goes to ((x - left) * w / width, (y - top) * h / height), pixel centres at
    +0.5; `shards.augment.follow_crop` takes intrinsics the same way.
    """
    height, width = (size, size) if isinstance(size, int) else size
    out = empty_batch(1, height, width)
    Decoder().resize_crop(image, crop, out[0])
    return out[0].contiguous()


def centre_square(height: int, width: int) -> Crop:
    """The largest square in the middle of a picture."""
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def load_square(picture: bytes | np.ndarray, size: int) -> tuple[torch.Tensor, Crop]:
    """(3, size, size) uint8 of the centre square of a JPEG or of (H, W, 3) uint8 RGB, and the crop it was."""
    image = Decoder().decode(picture) if isinstance(picture, bytes) else picture
    crop = centre_square(*image.shape[:2])
    return resize_crop(image, crop, size), crop


def empty_batch(images: int, height: int, width: int) -> torch.Tensor:
    """Uninitialised (images, 3, height, width) uint8, channels innermost."""
    return torch.empty(images, height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
