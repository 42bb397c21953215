"""Fifty random kill -9s of one rank or of the whole tree, and what is left of the difference.

    python benchmarks/kills.py             # 36 minutes on two shared cores; --kills 6 --steps 60 for less

Half of the kills befall a run of two ranks that stays one of two ranks: one rank dies and torchrun starts all anew,
or the whole tree does and the same command is given again. Its trace must be the undisturbed run's bit for bit. The
other half befall a run that is begun again with another number of ranks every time, of 1, 2 and 4: its losses must
be within 1e-5. In both the images of every step must be the same. Saves are asynchronous, every tenth step; kills
come at random steps, during saves and while the ranks start. Exit code 0 if all of that holds.

Results: benchmarks/results/kills.md.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from shards.build import build
from shards.sources import scenes
from tests.pretrain.kills import Disturbed, Kill, disturb, furthest, plans, trace

BAR = 1e-5
HEAD = """# Kills

`python benchmarks/kills.py`: random `kill -9`s of one rank, which torchrun starts anew, or of the whole tree,
after which the same command is given by hand, with another number of ranks every time in the second row. The
trace is all that metrics.jsonl says of the training: loss, gradient norm, learning rate, hash of the images of
every lane, held-out figures. "Steps done again" is what was lost: steps told at the kill beyond the newest
whole checkpoint, where one is begun every tenth step and written beside the next ones.

"""
COLUMNS = (
    "ranks",
    "kills",
    "of one rank",
    "of the tree",
    "at a step",
    "during a save",
    "at the start",
    "launches by hand",
    "steps done again: median, most",
    "same images",
    "largest difference of a loss",
    "weights at the end",
)


def main() -> int:
    """Run undisturbed, then through the kills, and print a row a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--steps", type=int, default=300, help="steps of each run (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the kills (default: 0)")
    parser.add_argument("--results", type=Path, help="file to write, as benchmarks/results/kills.md")
    parser.add_argument("--log", type=Path, help="folder that keeps what the runs said")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.log or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        data = Path(scratch) / "data"
        build(
            "scenes",
            [],
            data,
            source_options=scenes.Options(scenes=8, val_scenes=3, frames=4, size=32),
            workers=1,
        )

        def run(name: str, plan: Sequence, rng: random.Random) -> tuple[Path, Disturbed]:
            out = Path(scratch) / name
            return out, disturb(
                command(data, out, arguments.steps),
                out,
                plan,
                world=2,
                log=folder / f"{name}.log",
                rng=rng,
                tell=lambda kill: print(f"{name}: {said(kill)}", file=sys.stderr, flush=True),
            )

        rng = random.Random(arguments.seed)
        half = arguments.kills // 2
        undisturbed, _ = run("undisturbed", [], rng)
        reference = trace(undisturbed)
        same = plans(rng, kills=arguments.kills - half, steps=arguments.steps, worlds=(2,), trees=0.5)
        other = plans(rng, kills=half, steps=arguments.steps, worlds=(2, 1, 4), trees=1.0)
        lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        held = True
        for name, plan, exact in (("2 throughout", same, True), ("1, 2 and 4", other, False)):
            out, done = run(name.replace(" ", "-").replace(",", ""), plan, rng)
            off = furthest(trace(out), reference)
            equal = trace(out) == reference
            held &= equal if exact else off <= BAR
            lines.append(row(name, done, off, equal, weights(out, undisturbed)))
    lines.append(
        f"\n{arguments.kills} kills in runs of {arguments.steps} steps, seed {arguments.seed}, "
        f"{(time.perf_counter() - began) / 60:.0f} minutes: {'all holds' if held else 'NOT all holds'}"
    )
    print("\n".join(lines))
    if arguments.results:
        arguments.results.write_text(HEAD + "\n".join(lines) + "\n")
    return 0 if held else 1


def command(data: Path, out: Path, steps: int) -> list[str]:
    """mum_tiny on 16 px, so that a step takes little and the kills come between many of them."""
    return [
        *("mum_tiny", "--data", str(data), "--out", str(out), "--steps", str(steps)),
        *("--size", "16", "--images-per-lane", "4", "--views", "2", "2"),
        *("--workers", "1", "--parallel.threads", "1", "--checkpoint.every", "10"),
        *("--evaluation.every", "50", "--evaluation.views", "2", "--evaluation.pictures", "1"),
        *("--log.every", "1", "--log.no-tensorboard"),
    ]


def said(kill: Kill) -> str:
    """A kill in words."""
    what = "a rank" if kill.kind == "rank" else f"the tree, then {kill.plan.world} ranks"
    return f"step {kill.reached}, saved {kill.saved}{', saving' * kill.saving}{', starting' * kill.starting}: {what}"


def weights(here: Path, there: Path) -> str:
    """How far the final weights of two runs are apart."""
    a, b = (load_file(max((out / "checkpoints").iterdir()) / "model.safetensors") for out in (here, there))
    off = max(float(abs(a[name] - b[name]).max()) for name in a)
    return "the same bits" if all((a[name] == b[name]).all() for name in a) else f"within {off:.1e}"


def row(name: str, done: Disturbed, off: float, equal: bool, end: str) -> str:
    """A line of the table."""
    kinds = Counter(kill.kind for kill in done.kills)
    moments = Counter("start" if k.starting else "save" if k.saving else "step" for k in done.kills)
    lost = [max(0, kill.reached - kill.saved) for kill in done.kills if not kill.starting] or [0]
    cells = (
        name,
        len(done.kills),
        kinds["rank"],
        kinds["tree"],
        moments["step"],
        moments["save"],
        moments["start"],
        len(done.worlds) - 1,
        f"{statistics.median(lost):g}, {max(lost)}",
        "yes",
        "0, every figure the same bits" if equal else f"{off:.1e}",
        end,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
