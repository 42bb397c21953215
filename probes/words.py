"""How numbers and names are written, in every table: text, HTML and LaTeX alike."""

from math import isinf
from pathlib import Path

from probes.probe import Metric

NONE = "\N{EN DASH}"


def shown(value: float | None, metric: Metric, *, sign: bool = False, digits: int | None = None) -> str:
    """A stored value as it is read: scaled, with the metric's digits; a sign where it is infinite or missing."""
    if value is None:
        return NONE
    if isinf(value):
        return "∞" if value > 0 else "-∞"
    digits = metric.digits if digits is None else digits
    text = f"{value * metric.scale:{'+' if sign else ''},.{digits}f}"
    # What rounds to zero has no sign.
    return text if any(digit in text for digit in "123456789") else text.lstrip("+-")


def short_data(spec: str) -> str:
    """Of a data set, in headings: ``megadepth1500`` of ``megadepth1500:/data/megadepth``, a folder's last part."""
    kind, colon, path = spec.partition(":")
    if colon and kind and "/" not in kind:
        return f"{kind} {Path(path).name}".strip() if kind == "colmap" else kind
    return Path(spec).name or spec
