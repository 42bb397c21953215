"""Dense matching by frozen features: where does the patch that looks at a point lie in another view?

Two readings. ``knn``: cosine nearest neighbour on the patch grid, nothing trained. ``linear``: the trained
layer of `probes.linear`, read by the most likely patch's centre (argmax) and, as ``linear-soft``, by the
kernel's expectation over all centres. Each is scored on the features as they are and with the mean feature
of every grid position over the data set removed, because features that merely encode their position score
well on pairs that look alike. Beside them stand baselines that look at no feature: same position, chance,
and the oracle on the grid.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from probes import report
from probes.encoders import Encoder, choose_layers, open_encoder
from probes.errors import NoPairs, ProbeError, nearest
from probes.features import FeatureMaps, extract
from probes.ground_truth import content_hash, open_pairs, shortest_side
from probes.linear import LinearConfig, train_linear
from probes.metrics import end_point_errors, patch_centres, patch_of, score_chance, score_pair
from probes.pairs import Pair, PairConfig, PairSet
from probes.results import METRICS, Results, Row, read_finished, scene_note, versions

READINGS = ("knn", "linear")
VERSION = 1
"""Raise when numbers change for the same input."""
DEFAULT_SIZE = 448
COLUMNS = (
    *("data", "pair", "scene", "frame_a", "frame_b", "angle", "queries", "size"),
    *("encoder", "layer", "reading", "position"),
    *METRICS,
)
"""Columns of a row."""

Predictions = dict[tuple[str, str], dict[str, NDArray]]
"""Of each (data, encoder): predicted points (n, 2) of every pair, by the leading reading, last layer."""


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """What is measured and how; part of the identity of a result."""

    size: int
    readings: tuple[str, ...] = READINGS
    layers: Literal["last", "all"] | tuple[int, ...] = "last"
    seed: int = 0
    pairs: int = 384
    """Scored pairs of each data set, spread evenly over its scenes."""
    train_pairs: int = 960
    """Training pairs of each data set the linear probe is trained on."""
    train_scenes: int = 160
    angles: tuple[float, float] = (10.0, 60.0)
    min_queries: int = 16
    baselines: bool = True
    """Add `pixels`, same position, chance and the oracle."""
    linear: LinearConfig = field(default_factory=LinearConfig)

    def __post_init__(self) -> None:
        for reading in self.readings:
            if reading not in READINGS:
                raise ProbeError(f"unknown reading {reading!r}{nearest(reading, READINGS)}")
        if not self.readings:
            raise ProbeError(f"no reading is asked for: known are {', '.join(READINGS)}")
        if self.size < 8:
            raise ProbeError(f"the evaluated size is {self.size} px: at least 8 are needed")


def run(
    encoders: Sequence[str],
    data: Sequence[str],
    *,
    train_data: Sequence[str] | None = None,
    out: str | Path | None = None,
    size: int | None = None,
    readings: Sequence[str] | None = None,
    layers: Literal["last", "all"] | Sequence[int] = "last",
    seed: int = 0,
    cache: str | Path | None = None,
    device: str | torch.device = "cpu",
    batch: int = 32,
    force: bool = False,
    progress: bool = False,
    command: str | None = None,
    **options: Any,
) -> Results:
    """Score encoders on data sets by matching; the Python door of ``python -m probes run matching``.

    Args:
        encoders: specs as of `probes.encoders.open_encoder`, each optionally ``LABEL=SPEC``.
        data: shard folders with depth (their ``val`` split is scored) or ``colmap:PATH``.
        train_data: what the linear probe is trained on (``train`` splits, whole COLMAP models); by default
            the shard folders among ``data``. Images that are scored are never trained on.
        out: result folder; None writes nothing.
        size: evaluated size in px; by default 448, or less where the images are smaller.
        readings: of `READINGS`; by default both, or `knn` alone where there is nothing to train on.
        layers: ``"last"``, ``"all"`` or block numbers from 1.
        seed: of random encoders and of the linear probe.
        cache: folder of the feature cache; None keeps features in memory.
        device: where encoders run and the probe trains.
        batch: images a forward pass.
        force: replace a result of another configuration in ``out``.
        progress: show bars on stderr.
        command: the command line, kept in the results.
        **options: further fields of `MatchingConfig`.

    Returns:
        The results, with a row for every pair and prediction.

    Raises:
        ProbeError: bad input, in one sentence.
    """
    began = time.monotonic()
    device = torch.device(device)
    if not encoders or not data:
        raise ProbeError("at least one encoder and one data set are needed")
    size = size or _default_size(data)
    trained_on = list(train_data) if train_data else [spec for spec in data if not spec.startswith("colmap:")]
    if readings is None:
        readings = READINGS if trained_on else ("knn",)
    elif "linear" in readings and not trained_on:
        raise ProbeError(
            "the linear reading needs training pairs, and a COLMAP model has no training split: "
            "name other scenes with --train-data, or take --readings knn"
        )
    config = MatchingConfig(
        size=size,
        readings=tuple(readings),
        layers=layers if isinstance(layers, str) else tuple(layers),
        seed=seed,
        **options,
    )
    cache = Path(cache) if cache is not None else None
    named = _open_encoders(encoders, config, device)
    trained_on = trained_on if "linear" in config.readings else []
    identity = {
        "probe": "matching",
        "version": VERSION,
        "config": asdict(config),
        "encoders": [
            {"label": label, **encoder.identity, "run": _run_hash(encoder)}
            for label, encoder in named.items()
        ],
        "data": [{"data": spec, "hash": content_hash(spec)} for spec in data],
        "train_data": [{"data": spec, "hash": content_hash(spec)} for spec in trained_on],
    }
    if out is not None and (finished := read_finished(Path(out), identity, force=force)):
        return finished

    wanted = PairConfig(size=size, angles=config.angles, min_queries=config.min_queries, pairs=config.pairs)
    scored = [open_pairs(spec, wanted) for spec in data]
    train, dropped, barren = _training_pairs(trained_on, scored, config)
    with _few_threads(size):
        rows, predictions, described = _score_encoders(
            named, scored, train, config, cache=cache, device=device, batch=batch, progress=progress
        )
    descriptions = [_describe(found) for found in scored]
    results = Results(
        identity=identity,
        encoders=described,
        data=descriptions,
        train_data=[_describe(found) for found in train],
        rows=[{column: row[column] for column in COLUMNS} for row in rows],
        notes=_notes(scored, descriptions, dropped, barren, size),
        versions=versions(),
        command=command,
        seconds=time.monotonic() - began,
    )
    if out is not None:
        results.write(Path(out), report.page(results, scored, predictions))
    return results


def _score_encoders(
    named: dict[str, Encoder],
    scored: Sequence[PairSet],
    train: Sequence[PairSet],
    config: MatchingConfig,
    *,
    cache: Path | None,
    device: torch.device,
    batch: int,
    progress: bool,
) -> tuple[list[Row], Predictions, list[dict[str, Any]]]:
    """Rows of all encoders and baselines, predictions for the pictures, and what each encoder was."""
    size, leading = config.size, "linear" if "linear" in config.readings else "knn"
    rows: list[Row] = []
    predictions: Predictions = {}
    described, grids = [], {}
    for label, encoder in tqdm(named.items(), desc="encoders", disable=not progress, leave=False):
        chosen = choose_layers(encoder, config.layers)
        maps = [
            extract(encoder, found.images, chosen, cache=cache, batch=batch, progress=progress)
            for found in [*scored, *train]
        ]
        for layer in chosen:
            readers = _readers(config, train, [part[layer] for part in maps[len(scored) :]], device)
            for found, part in zip(scored, maps, strict=False):
                for row, pair, points in _score(found, part[layer], readers, size, device):
                    rows.append(row | {"encoder": label, "layer": layer})
                    if layer == chosen[-1] and (row["reading"], row["position"]) == (leading, "kept"):
                        predictions.setdefault((found.data, label), {})[pair.name] = points
        grids[label] = maps[0][chosen[-1]].grid
        described.append(
            {
                "label": label,
                "spec": encoder.spec,
                "patch": encoder.patch_size,
                "grid": list(grids[label]),
                "layers": list(chosen),
                "run": str(encoder.run) if encoder.run else None,
                "identity": encoder.identity,
            }
        )
    if config.baselines:
        for found in scored:
            for grid in dict.fromkeys(grids.values()):
                rows += _baselines(found, grid, size)
    return rows, predictions, described


@contextmanager
def _few_threads(size: int) -> Iterator[None]:
    """One CPU thread for small images: steps this short lose more to threads that wait for each other.

    Beside another busy process, two threads took eight times as long as one; alone they win little.
    """
    before = torch.get_num_threads()
    if size <= 128:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -- readings


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A way to read matches: project tokens, compare by cosine, take the best patch or the expectation."""

    reading: str
    position: Literal["kept", "removed"]
    project: Callable[[Tensor], Tensor]
    soft_temperature: float | None = None

    def match(self, view_a: Tensor, view_b: Tensor, asked: Tensor, centres: Tensor) -> Tensor:
        """Predicted points (n, 2) in B, of tokens (L, C) of both views and the queries' patches (n,) in A."""
        cosine = self.project(view_a[asked]) @ self.project(view_b).T
        if self.soft_temperature is None:
            return centres[cosine.argmax(dim=1)]
        return torch.softmax(cosine / self.soft_temperature, dim=1) @ centres


def _readers(
    config: MatchingConfig, train: Sequence[PairSet], maps: Sequence[FeatureMaps], device: torch.device
) -> list[Reader]:
    readers = []
    for position in ("kept", "removed"):
        if "knn" in config.readings:
            project = partial(F.normalize, dim=-1)
            readers.append(Reader(reading="knn", position=position, project=project))
        if "linear" in config.readings:
            joined = FeatureMaps.joined(maps)
            probe = train_linear(
                joined.without_position() if position == "removed" else joined,
                _joined_pairs(train),
                size=config.size,
                seed=config.seed,
                config=config.linear,
                device=device,
            )
            readers.append(Reader(reading="linear", position=position, project=probe))
            temperature = config.linear.temperature
            readers.append(
                Reader(reading="linear-soft", position=position, project=probe, soft_temperature=temperature)
            )
    return readers


def _joined_pairs(sets: Sequence[PairSet]) -> list[Pair]:
    pairs, first = [], 0
    for found in sets:
        pairs += [replace(pair, a=pair.a + first, b=pair.b + first) for pair in found.pairs]
        first += len(found.images)
    return pairs


@torch.inference_mode()
def _score(
    found: PairSet, maps: FeatureMaps, readers: Sequence[Reader], size: int, device: torch.device
) -> Iterator[tuple[Row, Pair, NDArray]]:
    """Row, pair and predicted points (n, 2) of every pair by every reader."""
    variants = {"kept": maps, "removed": maps.without_position()}
    centres = patch_centres(*maps.grid, size)
    places = torch.from_numpy(centres).float().to(device)
    for pair in found.pairs:
        asked = torch.from_numpy(patch_of(pair.queries, *maps.grid, size)).to(device)
        views = {name: variant.tokens([pair.a, pair.b]).to(device) for name, variant in variants.items()}
        for reader in readers:
            points = reader.match(*views[reader.position], asked, places).double().cpu().numpy()
            errors = end_point_errors(points, pair.targets)
            score = score_pair(errors, patch=_step(maps.grid, size), size=size)
            row = _row(found, pair) | {"reading": reader.reading, "position": reader.position}
            yield row | score.to_dict(), pair, points


def _baselines(found: PairSet, grid: tuple[int, int], size: int) -> Iterator[Row]:
    """Rows of the predictions that look at no feature, on one encoder's grid."""
    centres, step = patch_centres(*grid, size), _step(grid, size)
    for pair in found.pairs:
        own = centres[patch_of(pair.queries, *grid, size)]
        best = centres[patch_of(pair.targets, *grid, size)]
        scores = {
            "chance": score_chance(centres, pair.targets, patch=step, size=size),
            "same position": score_pair(end_point_errors(own, pair.targets), patch=step, size=size),
            "oracle": score_pair(end_point_errors(best, pair.targets), patch=step, size=size),
        }
        for name, score in scores.items():
            label = f"{name} ({grid[0]} x {grid[1]})"
            row = _row(found, pair) | {"reading": "baseline", "position": "kept"}
            yield row | {"encoder": label, "layer": None} | score.to_dict()


def _step(grid: tuple[int, int], size: int) -> float:
    """One patch in px of the evaluated size."""
    return size / max(grid)


def _row(found: PairSet, pair: Pair) -> Row:
    return {
        "data": found.data,
        "pair": f"{found.data}:{pair.name}",
        "scene": pair.scene,
        "frame_a": found.images.names[pair.a],
        "frame_b": found.images.names[pair.b],
        "angle": pair.angle,
        "queries": len(pair.queries),
        "size": found.config.size,
    }


# -- what goes in


def _open_encoders(specs: Sequence[str], config: MatchingConfig, device: torch.device) -> dict[str, Encoder]:
    given = [_labelled(spec) for spec in specs]
    if config.baselines and not any(spec.partition(":")[0] == "pixels" for _, spec in given):
        given.append((None, "pixels"))
    short = [label or _short_name(spec) for label, spec in given]
    named: dict[str, Encoder] = {}
    for (label, spec), name in zip(given, short, strict=True):
        unique = name if short.count(name) == 1 or label else spec
        if unique in named:
            raise ProbeError(f"two encoders are called {unique!r}: name them apart as LABEL=SPEC")
        named[unique] = open_encoder(spec, size=config.size, seed=config.seed, device=device)
    return named


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


def _run_hash(encoder: Encoder) -> str | None:
    """Hash of a run's curves, which the report shows: a run that went on gives another report."""
    if encoder.run is None:
        return None
    files = [encoder.run / name for name in ("metrics.jsonl", "probes.jsonl")]
    content = [file.read_bytes() for file in files if file.is_file()]
    return hashlib.sha256(b"".join(content)).hexdigest() if content else None


def _default_size(data: Sequence[str]) -> int:
    return max(16, min(DEFAULT_SIZE, min(map(shortest_side, data)) // 16 * 16))


def _training_pairs(
    specs: Sequence[str], scored: Sequence[PairSet], config: MatchingConfig
) -> tuple[list[PairSet], int, list[str]]:
    """The training pairs without those that show an image that is scored, the number of those, and why some of
    the data have none."""
    held_out = {name for found in scored for name in found.images.hashes}
    kept, dropped, barren = [], 0, []
    wanted = PairConfig(
        size=config.size,
        angles=config.angles,
        min_queries=config.min_queries,
        pairs=config.train_pairs,
        scenes=config.train_scenes,
    )
    for spec in specs:
        try:
            found = open_pairs(spec, wanted, split="train")
        except NoPairs as error:
            barren.append(str(error))
            continue
        hashes = found.images.hashes
        pairs = tuple(pair for pair in found.pairs if not held_out & {hashes[pair.a], hashes[pair.b]})
        dropped += len(found.pairs) - len(pairs)
        if pairs:
            kept.append(replace(found, pairs=pairs))
    if specs and len(barren) == len(specs):
        raise ProbeError("; ".join(barren))
    if specs and not kept:
        raise ProbeError(
            "all images of the training data are also scored: name other scenes with --train-data"
        )
    return kept, dropped, barren


# -- what comes out


def _describe(found: PairSet) -> dict[str, Any]:
    angles = [pair.angle for pair in found.pairs]
    return {
        "data": found.data,
        "truth": found.truth,
        "split": found.split,
        "size": found.config.size,
        "scenes": len(found.scenes),
        "pairs": len(found.pairs),
        "images": len(found.images),
        "queries": sum(len(pair.queries) for pair in found.pairs),
        "mean_angle": float(np.mean(angles)),
        "refused": found.refused,
        "hash": found.hash,
    }


def _notes(
    scored: Sequence[PairSet],
    data: Sequence[dict[str, Any]],
    dropped: int,
    barren: Sequence[str],
    size: int,
) -> list[str]:
    notes = [note for described in data if (note := scene_note(described))]
    for found in scored:
        if found.shortest_side < size:
            notes.append(
                f"{found.data}: its images are smaller ({found.shortest_side} px) than the evaluated size "
                f"({size} px) and were enlarged."
            )
    notes += [f"Not used for training: {reason}." for reason in barren]
    if dropped:
        notes.append(f"{dropped} training pairs were left out because they show images that are scored.")
    return notes
