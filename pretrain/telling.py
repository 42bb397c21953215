"""What a run says of itself while it goes on: the rows to every sink, pictures, and how it stands.

Rank 0 alone holds one. Nothing here decides anything about the run.
"""

from typing import Any

from pretrain.evaluation import save_picture
from pretrain.ledger import Row
from pretrain.recipes import RunConfig
from pretrain.run_folder import RunFolder
from pretrain.sinks import Board, MetricsFile, ProgressLine, cut_back
from shards.quarantine import Quarantine


class Telling:
    """Rank 0's voice: metrics.jsonl, quarantine.jsonl, status.json, TensorBoard, pictures, progress line."""

    def __init__(self, config: RunConfig, folder: RunFolder, step: int) -> None:
        self._config, self._folder = config, folder
        cut_back(folder.metrics, step)
        self._file = MetricsFile(folder.metrics)
        self._quarantine = Quarantine(folder.quarantine)
        self._board = Board(folder.tensorboard, step) if config.log.tensorboard else None
        self._line = ProgressLine(config.steps)

    def tell(self, rows: list[Row], picture: Any) -> None:
        """Write the rows of some steps, the last of which may have been evaluated."""
        step, steps = rows[-1]["step"], self._config.steps
        self._file.write(rows)
        self._line.show(rows, last=step == steps)
        met = [event for row in rows for event in row.get("substituted", ())]
        for new in self._quarantine.add(met):
            self._line.note(f"damaged: {new}")
        if self._board:
            self._board.write(rows)
        if picture is not None:
            save_picture(picture, self._folder.pictures / f"reconstruction-{step:08d}.png")
            if self._board:
                self._board.picture("reconstruction", picture, step)
        self._file.sync()
        self._folder.write_status("running", step, steps)

    def close(self) -> None:
        """Close what is open."""
        self._file.close()
        if self._board:
            self._board.close()
