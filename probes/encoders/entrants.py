"""The encoders that enter, each under a label: ``LABEL=SPEC``, or the short name of its spec.

Knows how encoders are named and opened, and nothing of what they are scored on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.encoders.encoder import Encoder, open_encoder
from probes.errors import ProbeError


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What is known of an encoder without holding it: enough to score features that are in the cache."""

    spec: str
    identity: dict[str, Any]
    patch_size: int
    num_layers: int
    run: Path | None
    grid: tuple[int, int]
    """Rows and columns of its patches at the evaluated size."""

    def encode(self, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Never: the encoder itself stays where its features are made."""
        raise RuntimeError(f"{self.spec}: features are read from the cache, not made, while units are scored")


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """An encoder under its label."""

    label: str
    encoder: Encoder = field(repr=False)
    sheet: Sheet
    seed: int
    """Of random weights without their own."""

    def described(self, layers: Sequence[int]) -> dict[str, Any]:
        """JSON types for results and report; ``layers`` are those that were read."""
        return {
            "label": self.label,
            "spec": self.sheet.spec,
            "patch": self.sheet.patch_size,
            "grid": list(self.sheet.grid),
            "layers": list(layers),
            "depth": self.sheet.num_layers,
            "run": str(self.sheet.run) if self.sheet.run else None,
            "identity": self.sheet.identity,
        }

    @property
    def run_hash(self) -> str | None:
        """Hash of a run's curves, which the report shows: a run that went on gives another report."""
        if self.sheet.run is None:
            return None
        files = [self.sheet.run / name for name in ("metrics.jsonl", "probes.jsonl")]
        content = [file.read_bytes() for file in files if file.is_file()]
        return hashlib.sha256(b"".join(content)).hexdigest() if content else None


def open_entrants(
    specs: Sequence[str], *, size: int, seed: int, device: torch.device, pixels: bool = True
) -> list[Entrant]:
    """Open all encoders for images of ``size`` px.

    Args:
        specs: as of `probes.encoders.encoder.open_encoder`, each optionally ``LABEL=SPEC``.
        size: evaluated size in px.
        seed: of random weights without their own.
        device: where they run.
        pixels: add the baseline without weights, where it is not among them.

    Raises:
        ProbeError: bad specs, or two encoders of one name.
    """
    given = [_labelled(spec) for spec in specs]
    if pixels and not any(spec.partition(":")[0] == "pixels" for _, spec in given):
        given.append((None, "pixels"))
    short = [label or _short_name(spec) for label, spec in given]
    named: dict[str, Entrant] = {}
    for (label, spec), name in zip(given, short, strict=True):
        unique = name if short.count(name) == 1 or label else spec
        if unique in named:
            raise ProbeError(f"two encoders are called {unique!r}: name them apart as LABEL=SPEC")
        encoder = open_encoder(spec, size=size, seed=seed, device=device)
        blank = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        last = encoder.num_layers
        sheet = Sheet(
            spec=spec,
            identity=encoder.identity,
            patch_size=encoder.patch_size,
            num_layers=last,
            run=encoder.run,
            grid=tuple(encoder.encode(blank, (last,))[last].shape[1:3]),
        )
        named[unique] = Entrant(label=unique, encoder=encoder, sheet=sheet, seed=seed)
    return list(named.values())


def _labelled(text: str) -> tuple[str | None, str]:
    label, equals, spec = text.partition("=")
    if equals and label and "/" not in label and ":" not in label and not Path(text).exists():
        return label, spec
    return None, text


def _short_name(spec: str) -> str:
    path = Path(spec)
    if not path.exists():
        return spec
    return path.resolve().name if path.is_dir() else path.stem
