"""One message of the transcript."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from markdown_it import MarkdownIt
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message as Posted
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from chatbot.events import Failed, Finished
from chatbot.terminal import Graphics
from tui.picture import PictureView, Shown

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.records import Message


SHOWN_CHARACTERS = 10_000
"""Most of a person's message that is laid out; all of it is kept and sent."""


def _parser() -> MarkdownIt:
    return MarkdownIt("gfm-like", {"html": False})  # tags in a reply are text like any other


class MessageView(Vertical):
    """A message with what is known of it beneath, and the summary that reaches up to it."""

    def __init__(self, message: Message, kind: Literal["said", "reply"]) -> None:
        super().__init__(classes=kind)
        self.message = message
        self._mark = Static(markup=False, classes="mark")
        self._summary = SummaryView()

    def on_mount(self) -> None:
        self.show(self.message)

    def show(self, message: Message) -> None:
        """The same message, as it is now."""
        self.message = message
        mark = " · ".join(self.details())
        self._mark.update(mark)
        self._mark.display = bool(mark)
        self._summary.tell(message.summary)

    def details(self) -> list[str]:
        """What stands beneath it."""
        message = self.message
        found = [f"‹{message.position}/{message.siblings}›"] if message.siblings > 1 else []
        return found + (["pinned"] if message.pinned else [])

    def toggle_summary(self) -> None:
        self._summary.toggle()


class SaidView(MessageView):
    """What the person said: plain text, nothing in it is interpreted."""

    def __init__(self, message: Message) -> None:
        super().__init__(message, "said")

    def compose(self) -> ComposeResult:
        text = self.message.text
        if len(text) > SHOWN_CHARACTERS:
            text = f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"
        yield Static(text, markup=False)
        yield self._mark
        yield self._summary


class ReplyView(MessageView):
    """A reply: pictures, Markdown, growing while it streams, and a mark beneath where it did not end well."""

    @dataclass
    class PicturesWanted(Posted):
        """There are pictures to be shown here."""

        view: ReplyView

    def __init__(self, message: Message) -> None:
        super().__init__(message, "reply")
        self.live = False
        """Whether it is being written here and now."""
        self._markdown = Markdown(message.text, parser_factory=_parser, open_links=False)
        self._stream: MarkdownStream | None = None
        self._growing = asyncio.Lock()

    @property
    def pictures(self) -> list[Shown]:
        """Those that are shown."""
        return [view.shown for view in self.query(PictureView)]

    async def add_picture(self, shown: Shown, how: Graphics) -> None:
        """Show a picture above the text."""
        self.message = replace(self.message, attached=max(1, self.message.attached))
        await self.mount(PictureView(shown, how), before=self._markdown)

    def on_mount(self) -> None:
        super().on_mount()
        if self.message.attached:
            self.post_message(self.PicturesWanted(self))

    def compose(self) -> ComposeResult:
        yield self._markdown
        yield self._mark
        yield self._summary

    def details(self) -> list[str]:
        message = self.message
        rating = {1: "+ good", -1: "- bad", 0: ""}[message.rating]
        if rating and message.note:
            rating = f"{rating}: {' '.join(message.note.split())}"
        mark = "" if self.live else mark_of(message)
        return [*super().details(), *filter(None, (rating, mark))]

    async def append(self, text: str) -> None:
        """Add to a streaming reply."""
        async with self._growing:
            if self._stream is None:
                self._stream = Markdown.get_stream(self._markdown)
            await self._stream.write(text)

    async def end(self, text: str, end: Finished | Failed) -> None:
        """No more will come; `text` is all of it."""
        # A stream that is stopped before its task has begun shows nothing of it, and cancels who stops it.
        async with self._growing:
            if self._stream is not None:
                await self._stream.stop()
                self._stream = None
        self.live = False
        if isinstance(end, Failed):
            self.show(replace(self.message, text=text, status="failed", error=end.text))
        else:
            status: Literal["stopped", "complete"] = "stopped" if end.reason == "stopped" else "complete"
            self.show(
                replace(self.message, text=text, status=status, finish_reason=end.reason, model=end.model or None)
            )

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        event.stop()
        if event.href.startswith(("https://", "http://")):  # a model may write anything: files and schemes stay shut
            self.app.open_url(event.href)


class SummaryView(Static):
    """What the model is given in the place of all above: a line that opens."""

    def __init__(self) -> None:
        super().__init__(markup=False, classes="summary")
        self._text: str | None = None
        self._is_open = False

    def tell(self, text: str | None) -> None:
        """The text, where there is one."""
        self._text = text
        self.display = text is not None
        line = "Earlier, summarised by the model"
        if self._is_open and text is not None:
            self.update(Content.assemble((f"▾ {line}", "bold"), "\n", text))
        else:
            self.update(Content.assemble((f"▸ {line}", "bold")))

    def toggle(self) -> None:
        self._is_open = not self._is_open
        self.tell(self._text)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.toggle()


class NoticeView(Static):
    """Something said by the program itself; it is not part of the conversation."""

    def __init__(self, text: str, kind: Literal["notice", "error"]) -> None:
        super().__init__(text, markup=False, classes=kind)


def mark_of(message: Message) -> str:
    """What stands beneath a stored reply about its end."""
    match message.status:
        case "interrupted":
            return "interrupted"
        case "stopped":
            return "stopped"
        case "failed":
            return message.error or "failed"
        case "streaming":
            return "still being written, by another chatbot"
        case _ if message.finish_reason == "length":
            return "cut: the longest reply was reached"
        case _:
            return "" if message.text else "the model said nothing"


def view_of(message: Message) -> SaidView | ReplyView:
    """The widget of a stored message."""
    return SaidView(message) if message.role == "user" else ReplyView(message)
