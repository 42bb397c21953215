"""Pictures for the report: items shown under every encoder, side by side, chosen by rank and never by hand."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture with what stands below it."""

    label: str
    """Whose it is: an encoder, ``image``, ``truth``."""
    caption: str
    content: str = field(repr=False)
    """Self-contained HTML: an ``<img>`` of `image_tag`, or an ``<svg>``."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One item, shown as a row of panels."""

    title: str
    """``Median pair``."""
    detail: str
    """``43° apart, castle``."""
    panels: tuple[Panel, ...]
    caption: str = ""
    """Said once for all exhibits of a task that carry it: how to read them."""


def choose(errors: Mapping[str, float]) -> list[tuple[str, str]]:
    """(title, item) of the best, median and worst item by error (averaged over encoders); fewer of few items."""
    order = sorted(errors, key=lambda item: (errors[item], item))
    places = (("Best", 0), ("Median", (len(order) - 1) // 2), ("Worst", len(order) - 1))
    chosen: dict[str, tuple[str, str]] = {}
    for title, place in places if order else ():
        chosen.setdefault(order[place], (title, order[place]))
    return list(chosen.values())


def data_uri(image: NDArray[np.uint8], *, lossless: bool) -> str:
    """A picture (H, W, 3) as a ``data:`` address: PNG, or JPEG at quality 88."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG" if lossless else "JPEG", quality=88)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def image_tag(image: NDArray[np.uint8], alt: str) -> str:
    """An ``<img>`` of a picture (H, W, 3)."""
    return f'<img src="{data_uri(image, lossless=max(image.shape[:2]) <= 128)}" alt="{html.escape(alt, quote=True)}">'


def mean_errors(by_encoder: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Error of every item, averaged over encoders; items that one of them lacks are left out."""
    shared = set.intersection(*(set(found) for found in by_encoder)) if by_encoder else set()
    return {item: float(np.mean([found[item] for found in by_encoder])) for item in sorted(shared)}
