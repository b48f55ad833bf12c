"""Does what a person wants done with a message."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import NotFoundError
from tui import picture_actions
from tui.acts import ACTS
from tui.dialogs import ActsMenu, ConfirmDialog, DeleteDialog, LineDialog
from tui.message import MessageView, ReplyView
from tui.picture import Shown

if TYPE_CHECKING:
    from chatbot.chat import ChatService
    from storage.records import Message
    from tui.chat_screen import ChatScreen

BEGINNING = 40


def _pictures(view: MessageView) -> list[Shown]:
    return view.pictures if isinstance(view, ReplyView) else []


class MessageActions:
    """One method an act of `tui.acts`; each is one call of the service, and shows what came of it."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen

    @property
    def _service(self) -> ChatService:
        return self._screen.service

    async def do(self, act: str, view: MessageView) -> None:
        """Raises what the service raises; what another process took away meanwhile is not shown any more."""
        try:
            await self._do(act, view)
        except NotFoundError:
            with suppress(NotFoundError):
                await self._screen.opening.refresh()
            raise

    async def _do(self, act: str, view: MessageView) -> None:
        if act == "menu":
            acts = [act for act in ACTS if act.applies(view.message)]
            chosen = await self._screen.app.push_screen_wait(ActsMenu(acts))
            if chosen is None:
                return
            act = chosen
        if not view.is_attached:  # another branch is shown meanwhile
            return
        message = view.message
        match act:
            case "edit":
                self._screen.editing.begin(message)
            case "retry":
                self._screen.follow(self._service.regenerate(message.conversation_id, message.id))
            case "continue":
                self._screen.follow(self._service.resume(message.conversation_id, message.id))
            case "previous":
                await self._screen.opening.turn_over(message, -1)
            case "next":
                await self._screen.opening.turn_over(message, 1)
            case "fork":
                fork = await self._service.fork(message.conversation_id, message.id)
                await self._screen.opening.switch(fork)
                self._screen.notify("From here on it is a conversation of its own; the other stays as it is.")
            case "pin":
                await self._service.pin(message.id, not message.pinned)
                await self._show_again(view)
            case "good":
                await self._service.rate(message.id, 0 if message.rating == 1 else 1, message.note)
                await self._show_again(view)
            case "bad":
                await self._service.rate(message.id, 0 if message.rating == -1 else -1, message.note)
                await self._show_again(view)
            case "note":
                await self._note(view)
            case "copy":
                self._screen.app.copy_to_clipboard(message.text)
                self._screen.notify(f"{len(message.text):,} characters went to the clipboard of the terminal.")
            case "save":
                await self._save(view)
            case "open":
                await self._open(view)
            case "summary":
                view.toggle_summary()
            case "delete":
                await self._delete(message)

    async def _save(self, view: MessageView) -> None:
        for shown in _pictures(view):
            name = await self._screen.app.push_screen_wait(
                LineDialog("Save the picture to which file? A PNG", picture_actions.file_name(shown))
            )
            if not name:
                return
            path = Path(name).expanduser()
            dialog = ConfirmDialog(f"{path} is there already. Write over it?", "y writes over it · n leaves it")
            if path.exists() and not await self._screen.app.push_screen_wait(dialog):
                return
            await picture_actions.save(shown, path)
            self._screen.notify(f"Written: {path.resolve()}", markup=False)

    async def _open(self, view: MessageView) -> None:
        for shown in _pictures(view):
            if not await picture_actions.show(shown):
                self._screen.notify(f"There is no desktop here to open it on; it lies in {shown.path}", markup=False)

    async def _show_again(self, view: MessageView) -> None:
        """After a change of what is known of the message, not of its text."""
        view.show(await self._service.conversations.message(view.message.id))
        self._screen.transcript.refresh_bindings()

    async def _note(self, view: MessageView) -> None:
        message = view.message
        question = f"Why is it {'good' if message.rating > 0 else 'bad'}? · Enter keeps · Esc cancels"
        note = await self._screen.app.push_screen_wait(LineDialog(question, message.note))
        if note is not None:
            await self._service.rate(message.id, 1 if message.rating > 0 else -1, note)
            await self._show_again(view)

    async def _delete(self, message: Message) -> None:
        line = " ".join(message.text.split())
        line = line if len(line) <= BEGINNING else f"{line[: BEGINNING - 1]}…"
        if not await self._screen.app.push_screen_wait(
            DeleteDialog(f"the message “{line}”, and keep what followed it")
        ):
            return
        ids = [view.message.id for view in self._screen.transcript.views]
        told = await self._service.delete_message(message.id)
        if told:
            self._screen.notify(told)
        index = ids.index(message.id) if message.id in ids else 0
        neighbour = [*ids[index + 1 :][:1], *ids[:index][-1:]][:1]
        await self._screen.opening.refresh(neighbour[0] if neighbour else None)
