"""Which scenes are held out: a hash of their names decides, so the split survives every change of order."""

import hashlib
from collections.abc import Sequence


def cut_split(names: Sequence[str], fraction: float) -> dict[str, str]:
    """Scene -> `train` or `val`: the share `fraction` whose names hash lowest.

    Of two or more scenes at least one is val (unless `fraction` is 0) and never all.
    """
    ranked = sorted(names, key=_rank)
    held_out = 0 if fraction == 0 else max(1, round(fraction * len(names)))
    held_out = min(held_out, max(0, len(names) - 1))
    return {name: "val" if rank < held_out else "train" for rank, name in enumerate(ranked)}


def split_alone(name: str, fraction: float) -> str:
    """The split of a scene that is cut without knowledge of the others: the same hash, against the share."""
    return "val" if int.from_bytes(_rank(name)[:8], "big") / 2**64 < fraction else "train"


def _rank(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
