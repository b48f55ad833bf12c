"""Old versions go, but for a number of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from chatbot.errors import ModelError
from chatbot.registry import Registry
from storage.errors import StorageError
from storage.versions import Kind, Version

MARK = "retrained"
"""In the settings of versions that a retraining made: no other is removed."""


async def prune(registry: Registry, kind: Kind, keep: int, named: set[str]) -> Sequence[Version]:
    """Remove all but the `keep` newest retrained versions; returns those that went.

    The one in use stays, the one that a roll-back would bring back, what conversations have `named`, and whatever
    another version of a chat model was made from.
    """
    listed = [row.version for row in await registry.list(kind)]
    chosen = [one.ref for one in await registry.history(kind) if not one.undone]
    needed = {(await registry.current(kind)).ref, *chosen[:2], *named}
    needed |= {str(version.settings["base"]) for version in listed if "base" in version.settings}
    if kind == "gpt":  # a picture model is whole, whatever it was made from
        needed |= {version.parent for version in listed if version.parent is not None}
    ours = sorted((one for one in listed if one.settings.get(MARK)), key=lambda one: one.created, reverse=True)
    gone = []
    for version in ours[keep:]:
        if version.ref not in needed:
            with suppress(ModelError, StorageError):  # it stays, and is tried again next time
                await registry.remove(version.ref)
                gone.append(version)
    return gone
