"""Does what a person wants done with a whole conversation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.commands import file_name
from chatbot.errors import UserError
from tui.dialogs import ConfirmDialog, DeleteDialog, LineDialog

if TYPE_CHECKING:
    from chatbot.transfer.write import Format
    from storage.records import Conversation
    from tui.chat_screen import ChatScreen

FORMATS: dict[str, Format] = {".md": "markdown", ".json": "json", ".jsonl": "jsonl"}


class ConversationActions:
    """Each is about the conversation under the cursor in the list, else the one shown."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen

    async def _target(self) -> Conversation | None:
        screen = self._screen
        chosen = screen.sidebar.under_cursor or screen.conversation
        if not screen.is_open or chosen is None:
            screen.notify("There is no conversation here yet.")
            return None
        return await screen.service.conversations.get(chosen)

    async def rename(self) -> None:
        target = await self._target()
        if target is None:
            return
        dialog = LineDialog("New title · Enter renames · Esc cancels", target.title)
        if title := await self._screen.app.push_screen_wait(dialog):
            await self._screen.service.conversations.rename(target.id, title)
            await self._screen.refresh_sidebar()

    async def delete(self) -> None:
        screen = self._screen
        target = await self._target()
        if target is None or not await screen.app.push_screen_wait(delete_dialog(target)):
            return
        if target.id != screen.conversation:
            told = await screen.service.delete(target.id)
        else:
            async with screen.opening.lock:  # or what is typed here would be kept as the draft of a new one meanwhile
                typed = screen.editing.typed()
                if screen.editing.current is not None:
                    screen.editing.end()
                screen.composer.put("")
                try:
                    told = await screen.service.delete(target.id)
                except BaseException:
                    screen.composer.give_back(typed)
                    raise
        if told:
            screen.notify(told)
        if target.id == screen.conversation:
            await screen.opening.switch(None, save_typed=False)
        else:
            await screen.refresh_sidebar()

    async def duplicate(self) -> None:
        if (target := await self._target()) is not None:
            await self._screen.opening.switch(await self._screen.service.duplicate(target.id))
            self._screen.notify("This is the copy, with all branches.")

    async def export(self) -> None:
        from chatbot.transfer.write import export_to  # with all that stands below it, when it is wanted

        screen = self._screen
        target = await self._target()
        if target is None:
            return
        question = "Export to which file? .md to read, .json with everything, .jsonl of chat messages"
        name = await screen.app.push_screen_wait(LineDialog(question, f"{file_name(target.title)}.md"))
        if not name:
            return
        path = Path(name).expanduser()
        if path.suffix.lower() not in FORMATS:
            raise UserError(f"The name must end in .md, .json or .jsonl, which says how it is written: {name}")
        dialog = ConfirmDialog(f"{path} is there already. Write over it?", "y writes over it · n leaves it")
        if path.exists() and not await screen.app.push_screen_wait(dialog):
            return
        await export_to(screen.service.store, [target], FORMATS[path.suffix.lower()], path)
        screen.notify(f"Written: {path.resolve()}", markup=False)


def delete_dialog(conversation: Conversation) -> DeleteDialog:
    return DeleteDialog(f"“{conversation.title}” and all that was said in it")
