"""What a user can get wrong, said in one sentence; and the nearest known name for one that is not known."""

import difflib
from collections.abc import Iterable


class ProbeError(ValueError):
    """Bad input from the user: the message is one sentence that says what, where and how to mend it."""


class Unfed(ProbeError):
    """Data that can be read and cannot feed a probe: nothing to score, or nothing to train on.

    Among several data sets or probes it leaves out one; alone it is an error.
    """


class NoPairs(Unfed):
    """Data that can be read and hold no pair of views to score."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'knn'?``, or the known names where none is near and they are few."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(names)}" if 0 < len(names) <= 12 else ""
