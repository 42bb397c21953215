"""Randomness by number: generators and permutations that are pure functions of a seed and a few integers.

Nothing here has state, so any place of any stream is as near as its beginning. It knows nothing of what the
numbers mean.
"""

import numpy as np

_ROUNDS = 8


def stream(seed: int, purpose: int, *numbers: int) -> np.random.Generator:
    """The generator that belongs to (seed, purpose, up to 3 numbers): equal everywhere, independent of all
    others (NumPy's Philox, seed and purpose as key, the numbers as counter)."""
    # The lowest counter word stays free: it is what the generator itself counts.
    counter = np.array([0, *numbers, *(0,) * (3 - len(numbers))], np.uint64)
    return np.random.Generator(np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=counter))


def permute(index: np.ndarray, length: int | np.ndarray, key: int | np.ndarray) -> np.ndarray:
    """Images of `index` under permutations of 0 .. length - 1, one for every key.

    `index` (any shape) lies in 0 .. length - 1; `length` and the 64-bit `key` are single or of its shape. A
    Feistel network on a x b >= length numbers, a and b nearly its root, walked until it lands inside (Black
    and Rogaway, 2002).
    """
    index = np.asarray(index)
    length = np.broadcast_to(np.asarray(length, np.int64), index.shape).ravel()
    key = np.broadcast_to(np.asarray(key, np.uint64), index.shape).ravel()
    value, inside = np.empty(len(length), np.int64), np.zeros(len(length), bool)
    high = np.ceil(np.sqrt(length)).astype(np.int64)
    low = -(-length // high)
    high, low, now = high.astype(np.uint64), low.astype(np.uint64), index.ravel().astype(np.uint64)
    while not inside.all():
        left, right = now // low, now % low
        for turn in range(0, _ROUNDS, 2):
            left = (left + mix(right, key + np.uint64(turn))) % high
            right = (right + mix(left, key + np.uint64(turn + 1))) % low
        now = left * low + right
        value = np.where(inside, value, now.astype(np.int64))
        inside = value < length
    return value.reshape(index.shape)


def mix(value: np.ndarray, key: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014) on uint64 value and key."""
    value = (value + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ key * np.uint64(0xD1342543DE82EF95)
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)
