"""Where a long text is cut: what stands there decides, so that a change moves the cuts near it alone."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

BREAK = "<|endoftext|>"
"""Ends a document."""

SHORTEST, LONGEST = 2_000, 6_000
"""Characters of a part of a longer document, whose last may be shorter. Each part may be held out."""

_PLACES = tuple(re.compile(place) for place in (r"\n\s*\n", r"\n", r"[。！？\s]"))
_MIXING = np.uint32(2654435761)


def end_of_part(held: str) -> int | None:
    """Where the first part of `held` ends, or None where more of the text has to be seen to tell.

    It is the end of its document, where that is near. Else, of the best places there are (between paragraphs, lines,
    then words), it is the one with the smallest hash of the characters before it: content-defined chunking
    (Muthitacharoen et al. 2001, "A low-bandwidth network file system"), with a minimum in the place of a threshold.
    """
    mark = held.find(BREAK, 0, LONGEST + len(BREAK))
    if mark >= 0:
        return mark + len(BREAK)
    if len(held) < LONGEST + len(BREAK):
        return None
    places = ([match.end() for match in place.finditer(held, SHORTEST, LONGEST)] for place in _PLACES)
    cuts = np.asarray(next(filter(None, places), np.arange(SHORTEST, LONGEST)))
    return int(cuts[_hashes(held[:LONGEST])[cuts - 1].argmin()])


def _hashes(text: str) -> NDArray[np.uint32]:
    """A polynomial of each character and the 63 before it, by doubling how many it is of."""
    found = np.frombuffer(text.encode("utf-32-le"), np.uint32) * _MIXING
    for seen in (1, 2, 4, 8, 16, 32):
        found[seen:] += found[:-seen] * np.uint32(pow(int(_MIXING), seen, 2**32))
    return found
