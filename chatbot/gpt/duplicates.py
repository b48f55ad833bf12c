"""Exact and near duplicates are learned once (near: MinHash with locality-sensitive hashing, Broder 1997)."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, Literal

from chatbot.gpt.samples import normalised

SIMILARITY = 0.8
"""Share of common shingles from which on two texts count as one."""

_PERMUTATIONS = 64
_SHORTEST = 40  # characters; what is shorter differs by a word or it is the same
_SHORT = 400
_LETTERS, _WORDS = 5, 3


class Duplicates:
    """Remembers what it was shown."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self._exact: set[bytes] = set()
        self._near: Any = MinHashLSH(threshold=SIMILARITY, num_perm=_PERMUTATIONS)

    def look(self, text: str) -> Literal["new", "same", "near"]:
        """Whether a text was seen before, exactly or nearly; if not, it has been seen from now on."""
        plain = normalised(text)
        digest = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).digest()
        if digest in self._exact:
            return "same"
        self._exact.add(digest)
        if len(plain) < _SHORTEST:
            return "new"
        signature = _signature(plain)
        if any(_close(signature, other) for other in self._candidates(signature)):
            return "near"
        self._near.insert(_Key(digest, signature), signature, check_duplication=False)
        return "new"

    def _candidates(self, signature: Any) -> list[Any]:
        return [key.signature for key in self._near.query(signature)]


class _Key:
    """A key of the index that has its signature at hand: what the index finds is looked at once more."""

    __slots__ = ("digest", "signature")

    def __init__(self, digest: bytes, signature: Any) -> None:
        self.digest, self.signature = digest, signature

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.digest == self.digest


def _signature(text: str) -> Any:
    from datasketch import MinHash

    signature = MinHash(num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
    signature.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in _shingles(text)])
    return signature


def _shingles(text: str) -> set[str]:
    if len(text) < _SHORT:
        return {text[at : at + _LETTERS] for at in range(len(text) - _LETTERS + 1)}
    words = text.split(" ")
    if len(words) < 3 * _WORDS:  # a language without spaces
        return {text[at : at + _LETTERS] for at in range(len(text) - _LETTERS + 1)}
    return {" ".join(words[at : at + _WORDS]) for at in range(len(words) - _WORDS + 1)}


def _close(one: Any, other: Any) -> bool:
    return bool(one.jaccard(other) >= SIMILARITY)
