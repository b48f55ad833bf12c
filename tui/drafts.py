"""What is typed and not sent: kept by conversation, soon after each change, and whatever happens on leaving."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.conversations import Conversations

NEW = "new"
"""Key of what is typed for a conversation that has not begun."""


class Drafts:
    """Remembers what it stored, since another chat may store under the same key."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._saved: tuple[str, str] = (NEW, "")

    async def open(self, conversation: str | None) -> str:
        """The draft of a conversation; None: of a new one."""
        key = conversation or NEW
        self._saved = key, await self._conversations.draft(key)
        return self._saved[1]

    async def save(self, conversation: str | None, text: str) -> None:
        """Store what is typed; what belongs to a conversation that is gone becomes that of a new one."""
        key = conversation or NEW
        if self._saved == (key, text):
            return
        if conversation is not None and not await self._conversations.exists(conversation):
            if text:
                await self._add(NEW, text)
            return
        if text:
            await self._conversations.save_draft(key, text)
        else:
            await self.sent()
        self._saved = key, text

    async def save_for_good(self, conversation: str | None, text: str) -> None:
        """The same on leaving: what another chat has stored meanwhile stays beside it."""
        key = conversation or NEW
        if text and await self._conversations.draft(key) not in ("", text, self._saved[1]):
            await self._add(key, text)
        else:
            self._saved = (key, "") if text else self._saved
            await self.save(conversation, text)

    async def sent(self) -> None:
        """Forget what was stored last, unless another chat has stored something else there since."""
        key, text = self._saved
        if text and await self._conversations.draft(key) == text:
            await self._conversations.save_draft(key, "")
        self._saved = key, ""

    async def _add(self, key: str, text: str) -> None:
        there = await self._conversations.draft(key)
        if text not in there:
            await self._conversations.save_draft(key, f"{there}\n\n{text}".strip())
