"""The figures of every step, gathered over the ranks into rows.

They stay on the device until a flush and are then read together, so that no step waits for the host. Rows are
gathered on every rank (the collectives are shared) and are the same on each. Row n is the n-th update. Who is
told of them, and how, stands elsewhere.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pretrain.devices import peak_memory

Row = dict[str, Any]


class Ledger:
    """Collects the figures of the steps since the last flush, and gathers them over the ranks.

    `peak` is the FLOP/s of one rank's device at most, None where it is not known: then there is no MFU.
    """

    def __init__(
        self, *, lanes: int, images_per_step: int, device: torch.device, peak: float | None = None
    ) -> None:
        self._lanes, self._images = lanes, images_per_step
        self._rank_device, self._peak = device, peak
        self._host: list[tuple[int, float, np.ndarray]] = []
        self._device: list[torch.Tensor] = []
        self._events: list[Mapping[str, Any]] = []
        self._since = time.perf_counter()

    def add(
        self,
        *,
        step: int,
        lr: float,
        loss: torch.Tensor,
        grad_norm: torch.Tensor,
        checks: Mapping[int, int],
        drawn: Sequence[tuple[float, float]],
        wait: float,
        flops: int,
        substituted: Sequence[Mapping[str, Any]],
    ) -> None:
        """Note one update.

        `loss` and `grad_norm` are scalars on the device, equal on all ranks; `checks` maps this rank's lanes
        to 32-bit sums of what they held; `drawn` are mean overlap and share of views outside the band of each of
        its micro-batches, nan where unknown, `wait` the seconds spent on data, and `flops` what the model asks for
        in all of them, forward and backward.
        """
        # A row of figures to be summed over the ranks: every lane's check stands in its own column.
        figures = np.zeros(self._lanes + 5)
        for lane, check in checks.items():
            figures[lane] = check
        known = np.array([pair for pair in drawn if np.isfinite(pair[0])]).reshape(-1, 2)
        figures[-5:] = (*known.sum(0), len(known), wait, flops)
        self._host.append((step, lr, figures))
        self._device.append(torch.stack((loss.detach().float(), grad_norm.detach().float())))
        self._events.extend(substituted)

    def flush(self) -> list[Row]:
        """The rows of all steps since the last flush; all ranks call it at the same step.

        Figures that are not finite are None in a row, and what they were stands under `skipped`.
        """
        if not self._host:
            return []
        values = torch.stack(self._device).cpu().tolist()
        figures = torch.from_numpy(np.stack([row for _, _, row in self._host]))
        dist.all_reduce(figures)
        memory = torch.tensor(peak_memory(self._rank_device))
        dist.all_reduce(memory, dist.ReduceOp.MAX)
        events = self._gather_events()
        now = time.perf_counter()
        seconds = (now - self._since) / len(self._host)
        ranks = dist.get_world_size()
        rows: list[Row] = []
        for (step, lr, _), (loss, norm), row in zip(self._host, values, figures.numpy(), strict=True):
            overlap, outside, known, wait, flops = row[-5:]
            rows.append(
                {
                    "step": step,
                    "loss": loss if np.isfinite(loss) else None,
                    "lr": lr,
                    "grad_norm": norm if np.isfinite(norm) else None,
                    "images": self._images * step,
                    "images_per_s": round(self._images / seconds, 1),
                    "mfu": round(flops / seconds / (self._peak * ranks), 4) if self._peak else None,
                    "data_wait": round(wait / ranks / seconds, 4),
                    "memory_gb": round(memory.item() / 1e9, 3),
                    "overlap": round(overlap / known, 4) if known else None,
                    "outside_band": round(outside / known, 4) if known else None,
                    "batch": hashlib.sha256(row[: self._lanes].astype("<u4").tobytes()).hexdigest()[:16],
                }
            )
            if not (np.isfinite(loss) and np.isfinite(norm)):
                rows[-1]["skipped"] = f"gradient norm {norm}, loss {loss}"
        for event in events:
            rows[event["step"] - rows[0]["step"]].setdefault("substituted", []).append(event)
        self._host, self._device, self._events = [], [], []
        self._since = now
        return rows

    def restart_clock(self) -> None:
        """Leave what happened since the last flush (an evaluation, a save) out of the next speed."""
        self._since = time.perf_counter()

    def _gather_events(self) -> list[dict[str, Any]]:
        number = torch.tensor(len(self._events))
        dist.all_reduce(number)
        if not number.item():
            return []
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self._events)
        return sorted((dict(e) for part in parts for e in part), key=lambda e: json.dumps(e, sort_keys=True))
