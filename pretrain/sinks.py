"""Where a run's rows go: metrics.jsonl, TensorBoard, Weights & Biases, a progress line. Rank 0 alone opens them.

Each takes rows as they come and knows nothing of the others, of ranks or of the loop.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pretrain.errors import InputError
from pretrain.ledger import Row


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """How often to tell."""

    every: int = 10
    """steps between readings of the figures; metrics.jsonl holds every step all the same"""
    tensorboard: bool = True
    """write curves and pictures for TensorBoard"""
    wandb: str | None = None
    """project at Weights & Biases that curves and pictures go to; with WANDB_MODE=offline they stay in the run's
    folder"""
    peak_tflops: float = 0.0
    """dense TFLOP/s of one device at most, for the MFU; 0: from the table of known devices"""
    profile_window: tuple[int, int] = (20, 3)
    """steps to let pass and steps to record, for --profile"""

    def __post_init__(self) -> None:
        if min(self.profile_window) < 1:
            raise InputError(
                f"--log.profile-window takes two numbers from 1 on, not {self.profile_window}: steps to let pass "
                "and steps to record"
            )


def cut_back(path: Path, step: int) -> None:
    """Drop the rows of metrics.jsonl after `step`, and a last line that a kill left torn.

    InputError if a row up to `step` is missing, since the file would then no longer tell the whole run.
    """
    if step == 0 and not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            number = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            break
        if number > step:
            break
        kept.append(line)
    if kept and json.loads(kept[-1])["step"] != step:
        raise InputError(
            f"{path} ends at step {json.loads(kept[-1])['step']}, before the checkpoint of step {step}"
        )
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text("".join(line + "\n" for line in kept))
    temporary.replace(path)


def last_rows(path: Path, count: int) -> list[Row]:
    """The newest rows of a metrics.jsonl, oldest first; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines[-count:]]


class MetricsFile:
    """metrics.jsonl, opened to append."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a")

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows and hand them to the operating system."""
        self._file.writelines(json.dumps(row) + "\n" for row in rows)
        self._file.flush()

    def sync(self) -> None:
        """Wait until all rows are on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


CURVES = {
    "train": (
        *("loss", "lr", "grad_norm", "images_per_s", "mfu", "data_wait", "memory_gb"),
        *("overlap", "outside_band"),
    ),
    "val": ("val_loss", "val_loss_ema", "val_loss_strangers", "cross_view_gain"),
    "probe": ("probe_pck", "probe_epe"),
}
"""What is drawn of a row, by the board's rooms."""


def curves(row: Row) -> dict[str, float]:
    """The points of a row by their curve's name, such as train/loss."""
    return {
        f"{room}/{name}": row[name]
        for room, names in CURVES.items()
        for name in names
        if row.get(name) is not None
    }


class Board:
    """TensorBoard's curves and pictures; what a run that is resumed had drawn after `start` is dropped."""

    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start + 1)

    def write(self, rows: Sequence[Row]) -> None:
        """Draw the points of some rows."""
        for row in rows:
            for name, value in curves(row).items():
                self._writer.add_scalar(name, value, row["step"])

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Show a uint8 (H, W, 3) picture."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write out what is pending."""
        self._writer.close()


def check_wandb(config: LogConfig) -> None:
    """InputError where Weights & Biases is asked for and not installed."""
    if config.wandb and find_spec("wandb") is None:
        raise InputError(
            f"--log.wandb {config.wandb}: wandb is not installed; pip install 'mumkit[wandb]' brings it"
        )


def new_wandb_id() -> str:
    """A name for a run at Weights & Biases that no other run has."""
    return secrets.token_hex(4)


class WandbRun:
    """A run at Weights & Biases. Begun again under the same `run_id` it goes on with the same curves.

    Its own step counter only rises, so curves are drawn over our `step`, and what it has already seen before a run
    was resumed is not told twice. Account and mode are those of the user's environment, and stay untouched.
    """

    def __init__(
        self, project: str, run_id: str, *, name: str, folder: Path, config: Mapping[str, Any]
    ) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=project,
                id=run_id,
                name=name,
                dir=str(folder),
                config=dict(config),
                resume="allow",
                # A run that goes on may have other workers, ranks or steps.
                allow_val_change=True,
                settings=wandb.Settings(console="off", quiet=True),
            )
        except wandb.Error as error:
            raise InputError(
                f"--log.wandb {project}: Weights & Biases did not begin the run ({error}); wandb login, or "
                "WANDB_MODE=offline, which keeps its files in the run's folder"
            ) from error
        self._image = wandb.Image
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._told = int(self._run.summary.get("step") or 0)

    def write(self, rows: Sequence[Row]) -> None:
        """Draw the points of some rows."""
        for row in rows:
            # Scores of snapshots come once, and late.
            if row["step"] > self._told or "loss" not in row:
                self._run.log({"step": row["step"], **curves(row)})

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Show a uint8 (H, W, 3) picture."""
        if step > self._told:
            self._run.log({"step": step, name: self._image(image)})

    def close(self) -> None:
        """Send what is pending; the run counts as failed while an exception is on its way."""
        self._run.finish(exit_code=int(sys.exception() is not None))


class ProgressLine:
    """One line on stderr: rewritten in place on a terminal, else a new one every `seconds`."""

    def __init__(self, steps: int, stream: TextIO | None = None, seconds: float = 10.0) -> None:
        self._steps, self._stream, self._seconds = steps, stream or sys.stderr, seconds
        self._tty = self._stream.isatty()
        self._last = 0.0
        self._gain: float | None = None

    def show(self, rows: Sequence[Row], *, last: bool = False) -> None:
        """Tell the newest row; the gain of the last evaluation stays in view."""
        if not rows:
            return
        row = rows[-1]
        self._gain = row.get("cross_view_gain", self._gain)
        now = time.monotonic()
        if not (self._tty or last or "val_loss" in row or now - self._last >= self._seconds):
            return
        self._last = now
        text = self.line(row)
        self._stream.write(f"\r\x1b[K{text}" if self._tty else text + "\n")
        if last and self._tty:
            self._stream.write("\n")
        self._stream.flush()

    def note(self, text: str) -> None:
        """A line of its own, for what should not be overwritten."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._tty else text + "\n")
        self._stream.flush()

    def line(self, row: Row) -> str:
        """The text for a row."""
        left = (self._steps - row["step"]) * row["images"] / row["step"] / max(row["images_per_s"], 1e-9)
        gain = "" if self._gain is None else f"  gain {self._gain:+.4f}"
        mfu = "" if row.get("mfu") is None else f"  MFU {row['mfu']:.0%}"
        loss = "skipped" if row["loss"] is None else f"{row['loss']:.4f}"
        return (
            f"step {row['step']}/{self._steps}  loss {loss}{gain}"
            f"  {row['images_per_s']:.0f} images/s{mfu}  data wait {row['data_wait']:.0%}  {_clock(left)} left"
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
