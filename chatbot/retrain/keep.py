"""Old versions go, but for a number of them."""

from __future__ import annotations

from collections.abc import Sequence

from chatbot.registry import Registry
from storage.versions import Kind, Version


async def prune(registry: Registry, kind: Kind, name: str, keep: int) -> Sequence[Version]:
    """Remove all but the `keep` newest versions of a name; returns those that went.

    The one in use stays, and the one that a roll-back would bring back, and whatever another one is an adapter of.
    """
    listed = [row.version for row in await registry.list(kind)]
    chosen = [one.ref for one in await registry.history(kind) if not one.undone]
    needed = {(await registry.current(kind)).ref, *chosen[:2]}
    needed |= {str(version.settings["base"]) for version in listed if "base" in version.settings}
    ours = sorted((one for one in listed if one.name == name), key=lambda one: one.created, reverse=True)
    gone = [version for version in ours[keep:] if version.ref not in needed]
    for version in gone:
        await registry.remove(version.ref)
    return gone
