"""The report's section on a run: its curves, the scores taken while it went on beside them, and what it paints."""

from typing import Literal

import numpy as np
from PIL import Image

from probes import charts
from probes.charts import Series
from probes.exhibits import data_uri
from probes.report.parts import escape, figure, legend, minus, plural
from probes.report.runs import ProbeCurve, RunStory, smoothed


def run_section(name: str, story: RunStory) -> str:
    """The section on the run behind the encoder of that name, as HTML."""
    about = f"recipe {story.recipe}, " if story.recipe else ""
    steps = f"{story.steps[-1]:,} steps" if story.steps else "no steps yet"
    parts = [f"<section><h2>The run behind {escape(name)}</h2><p>{escape(about)}{steps}"]
    parts.append(f", {escape(story.state)}" if story.state else "")
    parts.append(f" <code>{escape(str(story.path))}</code></p><div class=charts>")
    if story.steps:
        every = max(1, len(story.steps) // 400)
        smooth = smoothed(story.loss, max(1, len(story.loss) // 40))
        curves = [
            Series(label="loss", x=story.steps[::every], y=story.loss[::every], faint=True, style=0),
            Series(label="smoothed", x=story.steps[::every], y=smooth[::every], style=0, markers=False),
            Series(label="held out", x=story.eval_steps, y=story.own, style=1),
        ]
        shown = {"training, smoothed": 0}
        if story.eval_steps:
            shown["held out, own views"] = 1
        chart = charts.line_chart(
            [c for c in curves if c.x],
            x_label="step",
            y_label="masked loss",
            title="masked loss by step",
        )
        parts.append(figure(legend(shown) + chart))
    if story.probe.steps:
        parts.append(_probe_chart(story.probe, "pck"))
    if story.eval_steps:
        chart = charts.line_chart(
            [Series(label="gain", x=story.eval_steps, y=story.gain, style=2)],
            x_label="step",
            y_label="cross-view gain",
            title="cross-view gain by step",
            from_zero=True,
        )
        parts.append(figure(legend({f"cross-view gain, last {minus(f'{story.gain[-1]:.4f}')}": 2}) + chart))
    if story.probe.steps:
        parts.append(_probe_chart(story.probe, "epe"))
    parts.append("</div><p class=caption>The loss is the mean squared error on masked patches, each normalised by its "
                 "own mean and deviation: 1.0 is what predicting the mean of a patch would give. The "
                 "cross-view gain is how much the held-out loss rises when a scene's other views are replaced by "
                 "strangers': what the model owes to seeing the scene from several sides.")  # fmt: skip
    if story.probe.steps:
        probe = story.probe
        band = ", with their 95 % bootstrap intervals over scenes" if probe.scenes > 1 else ""
        parts.append(
            " Right patch and mean error are those of nearest-neighbour matching by the frozen encoder as it was at "
            f"that step, on {probe.pairs:,} {plural(probe.pairs, 'pair')} of {probe.scenes:,} "
            f"{plural(probe.scenes, 'scene')} at {probe.size} px{band}."
        )
    parts.append("</p>")
    if story.picture is not None:
        with Image.open(story.picture) as image:
            pixels = np.asarray(image.convert("RGB"))
        at = f" at step {story.picture_step:,}" if story.picture_step is not None else ""
        uri = data_uri(pixels, lossless=pixels.size < 3_000_000)
        parts.append(
            f'<h3>Reconstructions{at}</h3><figure class=wide><img src="{uri}" alt="reconstructions of held-out '
            'views"></figure><p class=caption>Held-out scenes: each view as it is, as the model sees it (masked '
            "patches in grey), and as the model paints the masked patches from what is left of all views.</p>"
        )
    return "".join(parts) + "</section>"


def _probe_chart(probe: ProbeCurve, metric: Literal["pck", "epe"]) -> str:
    """A score of the frozen encoder by step, above or below that of raw pixels."""
    own, pixels, ends, digits, y_label = (
        (probe.pck, probe.pixels_pck, probe.pck_ends, 3, "right patch")
        if metric == "pck"
        else (probe.epe, probe.pixels_epe, probe.epe_ends, 1, "mean error, px")
    )
    lo, hi = zip(*ends, strict=True)
    chart = charts.line_chart(
        [
            Series(label="encoder", x=probe.steps, y=own, lo=lo, hi=hi, style=3),
            Series(label="raw pixels", x=probe.steps, y=pixels, style=None, markers=False),
        ],
        x_label="step",
        y_label=y_label,
        title=f"{y_label} by step",
    )
    return figure(legend({f"frozen encoder, last {own[-1]:.{digits}f}": 3, "raw pixels": None}) + chart)
