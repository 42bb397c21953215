"""Small charts as SVG text: lines with bands, intervals in rows, and bars. No library, network or style sheet needed.

Series are told apart by colour, dash and marker, so that a print in black and white can be read. Text takes its
colour from the page (``currentColor``). Nothing here knows what the numbers mean.
"""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("#0b62a4", "#c8501e", "#26834a", "#8a4fa3", "#a07800", "#33858c", "#b03060", "#5a5a5a")
DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2", "1 2", "12 4", "6 2 1 2")
GREY = "#8a8f98"
GREY_DASHES = ("3 3", "1 4", "9 4", "8 3 1 3")
_FONT = 'font-family="inherit" font-size="12"'


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line; ``lo`` and ``hi`` draw a band where both are given. ``style`` indexes colours; None is a baseline, and
    -1, -2 ... are further ones."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    lo: Sequence[float | None] = ()
    hi: Sequence[float | None] = ()
    style: int | None = 0
    faint: bool = False
    """Raw values behind a smoothed line."""
    markers: bool = True


def colour(style: int | None) -> str:
    """The colour of a style."""
    return GREY if style is None or style < 0 else COLOURS[style % len(COLOURS)]


def swatch(style: int | None) -> str:
    """A short sample of a style's line, for legends outside the chart."""
    return (
        f'<svg class="swatch" width="34" height="12" viewBox="0 0 34 12" aria-hidden="true">'
        f'<line x1="1" x2="33" y1="6" y2="6" stroke="{colour(style)}" stroke-width="2.2"{_dash(style)}/>'
        f"{_marker(17, 6, style)}</svg>"
    )


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    title: str,
    from_zero: bool = False,
    x_marks: Sequence[float] = (),
    width: int = 520,
) -> str:
    """Lines over a common x. Points that are not finite are left out. Returns an ``<svg>`` element.

    ``x_marks``: numbers below the axis; by default round ones.
    """
    height = 290
    points = [(x, y) for s in series for x, y in zip(s.x, s.y, strict=True) if math.isfinite(y)]
    ends = [v for s in series if not s.faint for v in (*s.lo, *s.hi) if v is not None and math.isfinite(v)]
    ys = [y for s in series if not s.faint for y in s.y if math.isfinite(y)] + ends
    if not points or not ys:
        return ""
    low, high = min(ys), max(ys)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    y_ticks = ticks(low, high)
    x_ticks = list(x_marks) or ticks(min(x for x, _ in points), max(x for x, _ in points), 6)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    left, right, top, bottom = 22 + 7 * max(len(label(v, y_ticks)) for v in y_ticks), 14, 30, 44
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)

    def px(x: float) -> float:
        return left + (x - x_low) / ((x_high - x_low) or 1) * (width - left - right)

    def py(y: float) -> float:
        y = min(max(y, low), high)
        return height - bottom - (y - low) / ((high - low) or 1) * (height - top - bottom)

    parts = [_open(width, height, title)]
    for value in y_ticks:
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{py(value):.1f}" y2="{py(value):.1f}" '
            f'stroke="currentColor" stroke-opacity="{0.45 if value == 0 else 0.13}"/>'
            + _text(left - 8, py(value) + 4, label(value, y_ticks), "end")
        )
    for value in x_ticks:
        if x_low <= value <= x_high:
            parts.append(_text(px(value), height - bottom + 18, label(value, x_ticks), "middle"))
    parts.append(_text((left + width - right) / 2, height - 6, x_label, "middle", faint=True))
    parts.append(_text(4, 14, y_label, "start", faint=True))
    for s in series:
        band = [
            (x, lo, hi)
            for x, lo, hi in zip(s.x, s.lo, s.hi, strict=False)
            if lo is not None and hi is not None
        ]
        if len(band) > 1:
            edge = [f"{px(x):.1f},{py(hi):.1f}" for x, _, hi in band]
            edge += [f"{px(x):.1f},{py(lo):.1f}" for x, lo, _ in reversed(band)]
            parts.append(f'<polygon points="{" ".join(edge)}" fill="{colour(s.style)}" fill-opacity="0.12"/>')
    for s in series:
        line = [(px(x), py(y)) for x, y in zip(s.x, s.y, strict=True) if math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        stroke = 'stroke-width="1" stroke-opacity="0.3"' if s.faint else f'stroke-width="2.2"{_dash(s.style)}'
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour(s.style)}" {stroke} '
            'stroke-linejoin="round"/>'
        )
        if s.markers and not s.faint:
            parts += [_marker(x, y, s.style) for x, y in line]
    return "".join(parts) + "</svg>"


def interval_chart(
    rows: Sequence[tuple[str, float, float | None, float | None, int | None]],
    *,
    x_label: str,
    title: str,
    digits: int,
    width: int = 520,
) -> str:
    """A row for each (label, mean, low end, high end, style): a marker on its interval. An ``<svg>`` element.

    A mean that is not finite is said at the right and not drawn.
    """
    ends = [v for _, mean, lo, hi, _ in rows for v in (mean, lo, hi) if v is not None and math.isfinite(v)]
    marks = ticks(min(ends), max(ends), 5) if ends else []
    low, high = (min(*ends, marks[0]), max(*ends, marks[-1])) if ends else (0.0, 1.0)
    right, top, step = 56, 8, 30
    # Wide enough for letters a fifth larger, which small screens ask for.
    left = min(228, 24 + 8 * max(len(name) for name, *_ in rows))
    most = (left - 14) // 8
    height = top + step * len(rows) + 42

    def px(x: float) -> float:
        return left + (min(max(x, low), high) - low) / ((high - low) or 1) * (width - left - right)

    parts = [_open(width, height, title)]
    for value in marks:
        parts.append(
            f'<line x1="{px(value):.1f}" x2="{px(value):.1f}" y1="{top}" y2="{height - 40}" '
            'stroke="currentColor" stroke-opacity="0.13"/>'
            + _text(px(value), height - 24, label(value, marks), "middle")
        )
    for index, (name, mean, lo, hi, style) in enumerate(rows):
        y = top + step * (index + 0.5)
        short = name if len(name) <= most else name[: most - 1] + "…"
        parts.append(_text(left - 12, y + 4, short, "end"))
        if lo is not None and hi is not None and math.isfinite(lo):
            parts.append(
                f'<line x1="{px(lo):.1f}" x2="{px(hi):.1f}" y1="{y}" y2="{y}" stroke="{colour(style)}" '
                'stroke-width="3" stroke-opacity="0.45" stroke-linecap="round"/>'
            )
        said = f"{mean:,.{digits}f}" if math.isfinite(mean) else "\N{INFINITY}"
        parts.append(_marker(px(mean), y, style, 5) if math.isfinite(mean) else "")
        parts.append(_text(width - right + 12, y + 4, said, "start"))
    parts.append(_text((left + width - right) / 2, height - 5, x_label, "middle", faint=True))
    return "".join(parts) + "</svg>"


def bar_chart(
    values: Sequence[float],
    *,
    x_label: str,
    y_label: str,
    title: str,
) -> str:
    """A bar from zero for each value, in their order; infinite ones fill the height. An ``<svg>`` element.

    Bars below zero are of another colour and lighter.
    """
    width, height = 760, 240
    finite = [value for value in values if math.isfinite(value)]
    marks = ticks(min([0.0, *finite]), max([0.0, *finite]), 5)
    low, high = marks[0], marks[-1]
    left, right, top, bottom = 22 + 7 * max(len(label(v, marks)) for v in marks), 14, 30, 30

    def py(y: float) -> float:
        return (
            height - bottom - (min(max(y, low), high) - low) / ((high - low) or 1) * (height - top - bottom)
        )

    parts = [_open(width, height, title)]
    for value in marks:
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{py(value):.1f}" y2="{py(value):.1f}" '
            f'stroke="currentColor" stroke-opacity="{0.45 if value == 0 else 0.13}"/>'
            + _text(left - 8, py(value) + 4, label(value, marks), "end")
        )
    step = (width - left - right) / max(len(values), 1)
    for index, value in enumerate(values):
        if value == 0 or math.isnan(value):
            continue
        upper, lower = sorted((py(value), py(0.0)))
        parts.append(
            f'<rect x="{left + index * step:.2f}" y="{upper:.1f}" width="{max(step * 0.85, 0.4):.2f}" '
            f'height="{lower - upper:.1f}" fill="{COLOURS[0 if value > 0 else 1]}" '
            f'fill-opacity="{1 if value > 0 else 0.75}"/>'
        )
    parts.append(_text((left + width - right) / 2, height - 6, x_label, "middle", faint=True))
    parts.append(_text(4, 14, y_label, "start", faint=True))
    return "".join(parts) + "</svg>"


def sheet(charts: Sequence[str], series: Sequence[Series], *, heading: str) -> str:
    """Charts side by side under a heading and a legend of their series: an SVG file that stands alone, on white."""
    sizes = [tuple(map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', chart).groups())) for chart in charts]
    margin, top, line = 14, 40, 20
    width = sum(w for w, _ in sizes) + margin * (len(charts) + 1)
    bottom = top + max(h for _, h in sizes)
    height = bottom + line * len(series) + margin
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" color="#222">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(margin, 24, heading, "start"),
    ]
    x = margin
    for chart, (w, h) in zip(charts, sizes, strict=True):
        parts.append(chart.replace("<svg ", f'<svg x="{x}" y="{top}" width="{w}" height="{h}" ', 1))
        x += w + margin
    for number, one in enumerate(series):
        y = bottom + line * (number + 0.5)
        parts.append(swatch(one.style).replace("<svg ", f'<svg x="{margin}" y="{y - 6}" ', 1))
        parts.append(_text(margin + 44, y + 4, one.label, "start"))
    return "\n".join(parts) + "</svg>\n"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover low to high: about ``count`` of them, steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        high = low + (abs(low) * 0.1 or 1.0)
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def label(value: float, of: Sequence[float]) -> str:
    """A tick's text, with as many digits as the step between ticks needs."""
    step = abs(of[1] - of[0]) if len(of) > 1 else abs(value) or 1
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _open(width: int, height: int, title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(title, quote=True)}"><title>{html.escape(title)}</title>'
    )


def _text(x: float, y: float, text: str, anchor: str, *, faint: bool = False) -> str:
    opacity = ' fill-opacity="0.65"' if faint else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor" {_FONT}{opacity}>'
        f"{html.escape(text)}</text>"
    )


def _dash(style: int | None) -> str:
    if style is None or style < 0:
        dash = GREY_DASHES[(style or 0) % len(GREY_DASHES)]
    else:
        dash = DASHES[style % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _marker(x: float, y: float, style: int | None, size: float = 3.6) -> str:
    fill = f'fill="{colour(style)}"'
    if style is None or style < 0:
        lines = (
            f"M{x - size:.1f} {y:.1f}h{2 * size}M{x:.1f} {y - size:.1f}v{2 * size}"
            if (style or 0) % 2 == 0
            else f"M{x - size:.1f} {y - size:.1f}l{2 * size} {2 * size}"
            f"M{x + size:.1f} {y - size:.1f}l{-2 * size} {2 * size}"
        )
        return f'<path d="{lines}" stroke="{GREY}" stroke-width="1.4"/>'
    shape = style % 4
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {fill}/>'
    if shape == 1:
        return f'<rect x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size}" height="{2 * size}" {fill}/>'
    sign = 1 if shape == 2 else -1
    a, b = size * 1.25, size * sign
    return f'<polygon points="{x - a:.1f},{y + b:.1f} {x + a:.1f},{y + b:.1f} {x:.1f},{y - 1.3 * b:.1f}" {fill}/>'
