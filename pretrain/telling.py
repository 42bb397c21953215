"""What a run says of itself while it goes on: the rows to every sink, pictures, and how it stands.

Rank 0 alone holds one. Nothing here decides anything about the run.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pretrain.evaluation import save_picture
from pretrain.guards import SpikeGuard
from pretrain.ledger import Row
from pretrain.recipes import RunConfig, to_dict
from pretrain.run_folder import RunFolder
from pretrain.sinks import Board, MetricsFile, ProgressLine, WandbRun, cut_back, last_rows
from shards.quarantine import Quarantine


class Telling:
    """Rank 0's voice: metrics.jsonl, quarantine.jsonl, status.json, boards, pictures, progress line."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, step: int, *, wandb_id: str | None = None
    ) -> None:
        self._config, self._folder = config, folder
        cut_back(folder.metrics, step)
        self._file = MetricsFile(folder.metrics)
        self._quarantine = Quarantine(folder.quarantine)
        self._spikes = SpikeGuard(config.guard)
        # What a run that goes on had seen, so that it judges as if it had never stopped.
        self._spikes.watch(last_rows(folder.metrics, self._spikes.window))
        self._line = ProgressLine(config.steps)
        self._boards: list[Board | WandbRun] = []
        if config.log.tensorboard:
            self._boards.append(Board(folder.tensorboard, step))
        if config.log.wandb and wandb_id:
            name = folder.root.resolve().name
            self._boards.append(
                WandbRun(config.log.wandb, wandb_id, name=name, folder=folder.root, config=to_dict(config))
            )

    def tell(self, rows: list[Row], picture: Any, notes: Sequence[str] = (), warning: str = "") -> None:
        """Write the rows of some steps, the last of which may have been evaluated.

        `notes` are sentences to be seen once; a `warning` stands in status.json until the next call.
        """
        step, steps = rows[-1]["step"], self._config.steps
        skipped = [f"step {row['step']} was skipped: {row['skipped']}" for row in rows if "skipped" in row]
        notes = [*skipped, *self._spikes.watch(rows), *notes]
        self._file.write(rows)
        self._line.show(rows, last=step == steps)
        met = [event for row in rows for event in row.get("substituted", ())]
        for new in self._quarantine.add(met):
            self._line.note(f"damaged: {new}")
        for note in notes:
            self._line.note(note)
        self._draw(lambda board: board.write(rows))
        if picture is not None:
            save_picture(picture, self._folder.pictures / f"reconstruction-{step:08d}.png")
            self._draw(lambda board: board.picture("reconstruction", picture, step))
        self._file.sync()
        self._folder.write_status("running", step, steps, warning=warning)

    def score(self, rows: list[Row]) -> None:
        """Tell the scores of snapshots, which are of steps before the newest."""
        for row in rows:
            if "failed" in row:
                self._line.note(f"step {row['step']} could not be probed: {row['failed']}")
            else:
                self._line.note(
                    f"step {row['step']}: nearest neighbours find the right patch of {row['probe_pck']:.1%} of the "
                    f"points (raw pixels {row['pixels_pck']:.1%}), mean error {row['probe_epe']:.1f} px"
                )
        self._draw(lambda board: board.write(rows))

    def note(self, text: str) -> None:
        """Say something in a line of its own."""
        self._line.note(text)

    def close(self) -> None:
        """Close what is open."""
        self._file.close()
        self._draw(lambda board: board.close())

    def _draw(self, act: Callable[[Board | WandbRun], None]) -> None:
        """Do something with every board; one that fails is told and left, since the run is worth more."""
        for board in tuple(self._boards):
            try:
                act(board)
            except Exception as error:
                self._boards.remove(board)
                self._line.note(
                    f"{type(board).__name__} is left out from here on: {type(error).__name__}: {error}"
                )
