"""Encoded pictures to uint8 crops: simplejpeg, then torch's antialiased bicubic resize, into a given buffer.

The resize works on uint8 and stays within one grey level of Pillow's bicubic. It is fast only on pictures
whose channels lie innermost, so batches are kept that way: shape (..., 3, H, W), memory (..., H, W, 3),
torch's `channels_last`. Crops are (top, left, height, width) in whole pixels. This file knows nothing of
datasets.
"""

import numpy as np
import simplejpeg
import torch
from torch.nn.functional import interpolate

MAX_PIXELS = 1 << 26
"""Largest picture that is decoded; a header that promises more is damage, not a photograph of a dataset."""

Crop = tuple[int, int, int, int]


class Decoder:
    """Decodes into memory that it keeps, since touching fresh pages costs a third of a decode. Not thread-
    safe."""

    def __init__(self) -> None:
        self._picture = np.empty(0, np.uint8)
        self._crop = np.empty(0, np.uint8)

    def decode(self, jpeg: bytes) -> np.ndarray:
        """(H, W, 3) uint8 RGB, valid until the next call. ValueError where the bytes are no sound JPEG."""
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
        if height * width > MAX_PIXELS:
            raise ValueError(f"a picture of {width} x {height} px is larger than any that is stored")
        if self._picture.size < height * width * 3:
            self._picture = np.empty(height * width * 3, np.uint8)
        return simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=self._picture)

    def resize_crop(self, image: np.ndarray, crop: Crop, out: torch.Tensor, *, flip: bool = False) -> None:
        """Write the crop of `image` (H, W, 3), resized to fill `out` (3, h, w), mirrored if `flip`."""
        top, left, height, width = crop
        # The fast path needs the crop dense; copying it into warm memory is cheap.
        if self._crop.size < height * width * 3:
            self._crop = np.empty(height * width * 3, np.uint8)
        dense = self._crop[: height * width * 3].reshape(height, width, 3)
        np.copyto(dense, image[top : top + height, left : left + width])
        batch = torch.from_numpy(dense)[None].permute(0, 3, 1, 2)
        if (height, width) == tuple(out.shape[1:]):
            resized = batch
        else:
            resized = interpolate(batch, size=tuple(out.shape[1:]), mode="bicubic", antialias=True)
        out.copy_(resized[0].flip(-1) if flip else resized[0])


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


def empty_batch(images: int, height: int, width: int, *, shared: bool = False) -> torch.Tensor:
    """Uninitialised (images, 3, height, width) uint8, channels innermost; in shared memory if asked."""
    buffer = torch.empty(images, height, width, 3, dtype=torch.uint8)
    return (buffer.share_memory_() if shared else buffer).permute(0, 3, 1, 2)
