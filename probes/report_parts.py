"""Small parts that the sections of the report share: legends, figures, words."""

import html
from collections.abc import Mapping
from typing import Any

from probes import charts


def legend(styles: Mapping[str, int | None]) -> str:
    """What is drawn how: names and the style of their line; None is a baseline."""
    items = "".join(f"<span>{charts.swatch(style)}{escape(name)}</span>" for name, style in styles.items())
    return f"<p class=legend>{items}</p>"


def figure(content: str) -> str:
    """A figure around a chart or picture."""
    return f"<figure>{content}</figure>"


def plural(count: int, noun: str) -> str:
    """A noun as it follows a count."""
    return noun if count == 1 else f"{noun}s"


def minus(text: str) -> str:
    """With the typographic minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def escape(value: Any) -> str:
    """Any value as text that HTML shows as it is."""
    return html.escape(str(value))
