"""Ids of what comes from elsewhere: the same each time, so that importing twice adds nothing."""

from __future__ import annotations

import hashlib


def derived_id(*parts: str) -> str:
    """16 hexadecimal digits that stand for `parts`."""
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:16]
