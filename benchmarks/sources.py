"""How exactly each source is converted: a small tree in its real form is built and held against the rendered truth.

Depth: every pixel warped by stored depth and cameras into every other view, against the true warp. Poses: the world's
true 3-D points through stored cameras, against where the views see them. Pixels: where a source has neither, or beside
it, the mean difference of a stored picture and the view it must be; JPEG is lossy, another view differs by 40.

    python benchmarks/sources.py

Results: benchmarks/results/sources.md.
"""

import importlib
import sys
import tempfile
from pathlib import Path

from shards.sources import SOURCES

HEAD = """# What conversion does to the truth

`python benchmarks/sources.py`: largest errors over all frames of a tree in each dataset's own form, in stored pixels.

| source | scenes | frames | proof | error, px | pixels, grey levels | left out, by name |
|---|---|---|---|---|---|---|
"""


def main() -> int:
    """Build and measure every source; 0 if none is off by half a pixel."""
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the trees are the tests'
    rows, worst = [], 0.0
    for source in SOURCES:
        with tempfile.TemporaryDirectory() as folder:
            found = importlib.import_module(f"tests.trees.{source}").figures(Path(folder))
        worst = max(worst, found.error or 0.0)
        error = "-" if found.error is None else f"{found.error:.3f}" if found.error >= 5e-4 else "< 0.001"
        reasons = "; ".join(dict.fromkeys(why.split(folder)[0].strip() for _, why in found.refused)) or "-"
        reasons = reasons.replace("<", "\\<")
        cells = (
            f"`{source}`",
            found.scenes,
            found.frames,
            found.proof,
            error,
            f"{found.pixels:.1f}",
            reasons,
        )
        rows.append(f"| {' | '.join(map(str, cells))} |")
        print(rows[-1], flush=True)
    (Path(__file__).parent / "results" / "sources.md").write_text(HEAD + "\n".join(rows) + "\n")
    return int(worst >= 0.5)


if __name__ == "__main__":
    sys.exit(main())
