"""A trace of some steps: what ran when, on the CPU and on the GPU, for chrome://tracing or ui.perfetto.dev.

One process traces itself. Until its window opens and after it has closed this costs nothing; inside, steps are
slower than they are otherwise, so their speed is not the run's.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule


class Profile:
    """Records one window of steps into `folder`, and tells `say` where it is."""

    def __init__(
        self, folder: Path, *, start: int, window: tuple[int, int], say: Callable[[str], None]
    ) -> None:
        """`start` counts updates done before; `window` are the steps to let pass and the steps to record."""
        self._folder, self._say = folder, say
        passed, steps = window
        self._first = start + passed + 1
        self._recorded = -passed
        self._written = False
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        else:
            # The profiler's library looks for a GPU all the same, and calls it an error that there is none.
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        # The last step that passes warms the profiler up, which would else slow the first that is recorded.
        when = schedule(wait=passed - 1, warmup=1, active=steps, repeat=1)
        self._profile: profile | None = profile(
            activities=activities, schedule=when, on_trace_ready=self._write
        )
        self._profile.start()

    def step(self) -> None:
        """Note that a step is over."""
        if self._profile is None:
            return
        self._recorded += 1
        self._profile.step()
        if self._written:
            self._profile.stop()
            self._profile = None

    def close(self) -> None:
        """End, with what was recorded where the run was over before the window."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None
        if not self._written:
            self._say(f"no trace: the run ended before step {self._first}, where the profile begins")

    def _write(self, recorded: profile) -> None:
        if self._recorded < 1 or self._written:
            return
        self._written = True
        path = self._folder / f"steps-{self._first:08d}.json.gz"
        temporary = self._folder / f".{path.name}.part.json.gz"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            recorded.export_chrome_trace(str(temporary))
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            self._say(f"the trace could not be written: {error}")
            return
        many = f"{self._recorded} steps from step" if self._recorded > 1 else "step"
        self._say(f"a trace of {many} {self._first} is in {path}: open it at https://ui.perfetto.dev")
