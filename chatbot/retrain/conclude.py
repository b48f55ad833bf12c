"""The end of a retraining: a candidate that passed answers, and old versions go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chatbot.engines.load import Notify, check_loads
from chatbot.errors import ModelError
from chatbot.retrain.keep import prune
from chatbot.retrain.verdict import Verdict
from chatbot.settings import Settings
from chatbot.store import Store
from storage.versions import Version


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The candidate as it is registered, what spoke against it beside the verdict, and the versions it displaced."""

    version: Version
    against: str
    gone: Sequence[Version]


async def put_to_use(
    store: Store,
    settings: Settings,
    version: Version,
    before: Version,
    verdict: Verdict,
    *,
    may_promote: bool,
    keep: int,
    notify: Notify,
) -> Conclusion:
    """Let a registered candidate take the place of `before`, where it passed, may, and loads; keep so many."""
    registry, against = store.registry, ""
    if verdict.promote and may_promote:
        if (await registry.current(version.kind)).ref != before.ref:
            against = "Another version was chosen meanwhile."
        else:
            try:
                await check_loads(registry, settings, version, notify)
                version = await registry.promote(version.ref)
            except ModelError as error:
                against = str(error)
    named = await store.conversations.models()
    return Conclusion(version, against, await prune(registry, version.kind, keep, named))
