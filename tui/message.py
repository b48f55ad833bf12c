"""One message of the transcript."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from markdown_it import MarkdownIt
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.conversations import Message


SHOWN_CHARACTERS = 10_000
"""Most of a person's message that is laid out; all of it is kept and sent."""


def _parser() -> MarkdownIt:
    return MarkdownIt("gfm-like", {"html": False})  # tags in a reply are text like any other


class SaidView(Vertical):
    """What the person said: plain text, nothing in it is interpreted."""

    def __init__(self, text: str) -> None:
        super().__init__(classes="said")
        self._text = text

    def compose(self) -> ComposeResult:
        text = self._text
        if len(text) > SHOWN_CHARACTERS:
            text = f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"
        yield Static(text, markup=False)


class ReplyView(Vertical):
    """A reply: Markdown, growing while it streams, and a mark beneath where it did not end well."""

    def __init__(self, text: str = "", mark: str = "") -> None:
        super().__init__(classes="reply")
        self._markdown = Markdown(text, parser_factory=_parser, open_links=False)
        self._mark = Static(mark, markup=False, classes="mark")
        self._stream: MarkdownStream | None = None

    def compose(self) -> ComposeResult:
        yield self._markdown
        yield self._mark

    def on_mount(self) -> None:
        self._mark.display = bool(self._mark.content)

    async def append(self, text: str) -> None:
        """Add to a streaming reply."""
        if self._stream is None:
            self._stream = Markdown.get_stream(self._markdown)
        await self._stream.write(text)

    async def end(self, mark: str) -> None:
        """No more will come; `mark` is empty where all is well."""
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None
        self.set_mark(mark)

    def set_mark(self, mark: str) -> None:
        self._mark.update(mark)
        self._mark.display = bool(mark)

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        event.stop()
        if event.href.startswith(("https://", "http://")):  # a model may write anything: files and schemes stay shut
            self.app.open_url(event.href)


class NoticeView(Static):
    """Something said by the program itself; it is not part of the conversation."""

    def __init__(self, text: str, kind: Literal["notice", "error"]) -> None:
        super().__init__(text, markup=False, classes=kind)


def mark_of(message: Message) -> str:
    """What stands beneath a stored reply."""
    match message.status:
        case "interrupted":
            return "interrupted"
        case "stopped":
            return "stopped"
        case "failed":
            return message.error or "failed"
        case "streaming":
            return "still being written, by another chatbot"
        case _:
            return "cut: the longest reply was reached" if message.finish_reason == "length" else ""


def view_of(message: Message) -> SaidView | ReplyView:
    """The widget of a stored message."""
    if message.role == "user":
        return SaidView(message.text)
    return ReplyView(message.text, mark_of(message))
