"""How an epoch's slots are filled: every chunk is cut into pieces of the sizes that the steps ask for.

A *slot* is a place for one scene in one lane-step, and its size is the number of views it shows. Chunks with
equal numbers of frames are alike, so the matching is done on the few numbers that matter (how many chunks of
N frames, how many slots of size S) and not on millions of chunks. Chunks cut in the same way are a *type*: a
type says how many chunks of N frames it stands for and into which pieces they fall. Every frame lies in
exactly one piece; a piece smaller than its slot is filled up with frames seen a second time.

This file knows nothing of which chunk or frame it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Type:
    """`count` chunks of `frames` frames that are cut alike."""

    count: int
    frames: int
    left: int
    """Frames that lie in no piece yet."""
    pieces: tuple[tuple[int, int], ...] = ()
    """(frames of the piece, size of its slot), in the order in which the chunk is cut."""


def cut(chunks: Mapping[int, int], slots: Mapping[int, int], least: int) -> tuple[list[Type], int]:
    """Match chunks (frames -> how many) to slots (size -> how many); `least` is the smallest size there can be.

    Returns:
        The types, and the number of frames that found no slot. Slots that are left over are not mentioned.
    """
    types = [Type(count, frames, frames) for frames, count in sorted(chunks.items()) if count]
    free = {size: number for size, number in slots.items() if number}

    def fill(kind: Type, size: int) -> None:
        """Give slots to as many chunks of this type as there are."""
        number, own = min(kind.count, free[size]), min(size, kind.left)
        free[size] -= number
        if number < kind.count:
            types.append(Type(kind.count - number, kind.frames, kind.left, kind.pieces))
            kind.count = number
        kind.left -= own
        kind.pieces += ((own, size),)

    # Large slots first, from the chunks with most frames left: what remains stays large and divisible. A piece
    # that uses a chunk up comes before all, one that leaves less than any slot holds comes last.
    for size in sorted(free, reverse=True):
        while free[size]:
            fitting = [kind for kind in types if kind.left >= size]
            if not fitting:
                break
            fill(max(fitting, key=lambda k: (k.left == size, not 0 < k.left - size < least, k.left)), size)
    # The remainders, largest first, into the tightest slot that is left; the rest of that slot is repeats.
    while True:
        open_types = [kind for kind in types if kind.left]
        if not open_types:
            return types, 0
        kind = max(open_types, key=lambda k: k.left)
        sizes = [size for size, number in free.items() if number and size <= kind.frames]
        if not sizes:
            return types, sum(k.count * k.left for k in open_types)
        enough = [size for size in sizes if size >= kind.left]
        fill(kind, min(enough) if enough else max(sizes))
