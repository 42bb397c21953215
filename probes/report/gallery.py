"""Exhibits: items shown under every encoder, each as a row of pictures."""

from collections.abc import Sequence

from probes.exhibits import Exhibit
from probes.report.parts import breakable, escape

MANY = 5
"""Panels of an exhibit from which on they are drawn small."""


def gallery(exhibits: Sequence[Exhibit], title: str = "Items to look at", css: str = "") -> str:
    """The exhibits under a title, the captions they share said once; empty where there are none."""
    if not exhibits:
        return ""
    parts, said = [f"<h4>{escape(title)}</h4>"], ""
    for exhibit in exhibits:
        if exhibit.caption and exhibit.caption != said:
            said = exhibit.caption
            parts.append(f"<p class=caption>{escape(said)}</p>")
        panels = "".join(
            f"<figure>{panel.content}<figcaption><b>{breakable(panel.label)}</b> {escape(panel.caption)}"
            "</figcaption></figure>"
            for panel in exhibit.panels
        )
        # Drawings need width; photographs and maps stand side by side even on a phone.
        pictures = sum(panel.content.startswith("<img") for panel in exhibit.panels)
        images = 2 * pictures > len(exhibit.panels)
        many = "many" if images and len(exhibit.panels) >= MANY else "images" if images else ""
        parts.append(
            f"<h5>{escape(exhibit.title)} <small>{escape(exhibit.detail)}</small></h5>"
            f'<div class="panels {many} {css}">{panels}</div>'
        )
    return "".join(parts)
