"""Text files with a row of numbers a line, as many datasets write their poses."""

from pathlib import Path

import numpy as np

from shards.format import ShardsError


def read_rows(path: Path, columns: int, *, skip: int = 0) -> np.ndarray:
    """(n, columns) float64 of a text file, n >= 1, without its first `skip` lines and without empty ones.

    ShardsError names the file, and the first line that is not `columns` finite numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ShardsError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    rows = []
    for number, line in enumerate(lines[skip:], skip + 1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != columns or not np.isfinite(row).all():
            raise ShardsError(f"{path}: line {number} must hold {columns} finite numbers")
        rows.append(row)
    if not rows:
        raise ShardsError(f"{path} holds no line of {columns} numbers")
    return np.array(rows)
