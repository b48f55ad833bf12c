"""Search over everything said: results come as one types, Enter opens the conversation at that message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, get_args

from textual.app import ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from chatbot.errors import UserError
from storage.errors import StorageError

if TYPE_CHECKING:  # the first screen does not wait for what storage imports
    from storage.records import Role
    from storage.search import Hit, Search

SEARCH_AFTER_S = 0.12
PAGE = 50
HINT = 'Words in any order; "in double quotes" those in that order.'
WHO: dict[Role | None, str] = {None: "you and replies", "user": "you", "assistant": "replies"}
When = Literal["any time", "today", "this week", "this month", "this year"]
WHEN: tuple[When, ...] = get_args(When)


@dataclass(slots=True)
class Asked:
    """What was looked for last: it stands there again when the search is opened anew."""

    words: str = ""
    here: bool = False
    role: Role | None = None
    when: When = "any time"


@dataclass(frozen=True, slots=True)
class Found:
    """The message to go to."""

    conversation: str
    message: str


class SearchScreen(Screen[Found | None]):
    """Asks one question of the database at a time, and then at once the newest: typing never waits.

    Args:
        search: finds messages.
        conversation: the one shown, to which the search can be narrowed; None: there is none yet.
        asked: what to look for first; what is looked for here is kept in it.
    """

    AUTO_FOCUS = "#words"
    BINDINGS = [
        Binding("escape", "dismiss(None)", "Back"),
        Binding("enter", "open", "Open"),
        Binding("f3", "where", "Where"),
        Binding("f4", "who", "Who"),
        Binding("f5", "when", "When"),
        Binding("up", "move('cursor_up')", show=False),
        Binding("down", "move('cursor_down')", show=False),
        Binding("pageup", "move('page_up')", show=False),
        Binding("pagedown", "move('page_down')", show=False),
    ]

    def __init__(self, search: Search, conversation: str | None, asked: Asked) -> None:
        super().__init__()
        self._search = search
        self._conversation = conversation
        self._asked = asked
        self._words = Input(asked.words, id="words", placeholder="Search everything said")
        self._state = Static(markup=False, id="search-state")
        self._results = OptionList(id="results", markup=False)
        self._results.can_focus = False  # what is typed goes on to the words
        self._hits: list[Hit] = []
        self._complete = True
        self._wanted: Asked | None = None  # asked for, and not begun
        self._searching = False
        self._timer: Timer | None = None
        if conversation is None:
            asked.here = False

    def compose(self) -> ComposeResult:
        yield self._words
        yield self._state
        yield self._results
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self._look_again()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._asked.words = event.value
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(SEARCH_AFTER_S, self._look_again)

    def action_where(self) -> None:
        if self._conversation is not None:
            self._asked.here = not self._asked.here
        self._look_again()

    def action_who(self) -> None:
        roles = list(WHO)
        self._asked.role = roles[(roles.index(self._asked.role) + 1) % len(roles)]
        self._look_again()

    def action_when(self) -> None:
        self._asked.when = WHEN[(WHEN.index(self._asked.when) + 1) % len(WHEN)]
        self._look_again()

    def _look_again(self) -> None:
        self._wanted = replace(self._asked)
        if not self._searching:
            self._searching = True
            self.run_worker(self._look())

    async def _look(self) -> None:
        """Search until nothing newer is asked for."""
        try:
            while (asked := self._wanted) is not None:
                self._wanted = None
                hits = await self._find(asked, 0)
                if self._wanted is None:
                    self._show(hits)
        finally:
            self._searching = False

    async def _find(self, asked: Asked, offset: int) -> Sequence[Hit]:
        from storage.search import Query

        here = self._conversation if asked.here else None
        since = beginning(asked.when, datetime.now().astimezone())
        query = Query(asked.words, conversation=here, role=asked.role, since=since)
        try:
            return await self._search.find(query, PAGE, offset)
        except (UserError, StorageError) as error:
            self.notify(str(error), severity="error", markup=False)
            return []

    def _show(self, hits: Sequence[Hit]) -> None:
        self._hits = list(hits)
        self._complete = len(hits) < PAGE
        self._results.clear_options()
        self._results.add_options(_option(hit) for hit in hits)
        if hits:
            self._results.highlighted = 0
        self._tell()

    def _tell(self) -> None:
        if not self._asked.words.strip():
            count = HINT
        else:
            count = f"{len(self._hits)}{'' if self._complete else '+'} found" if self._hits else "nothing found"
        where = "this conversation" if self._asked.here else "everywhere"
        self._state.update(f"{where} · {WHO[self._asked.role]} · {self._asked.when} · {count}")

    async def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if self._complete or self._searching or event.option_index < len(self._hits) - 3:
            return
        self._searching = True
        try:
            more = await self._find(self._asked, len(self._hits))
            if self._wanted is None:
                known = {hit.message_id for hit in self._hits}
                self._complete = len(more) < PAGE
                fresh = [hit for hit in more if hit.message_id not in known]
                self._hits += fresh
                self._results.add_options(_option(hit) for hit in fresh)
                self._tell()
        finally:
            self._searching = False
        if self._wanted is not None:
            self._look_again()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._go(event.option_index)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_open()

    def action_open(self) -> None:
        if self._results.highlighted is not None:
            self._go(self._results.highlighted)

    def _go(self, index: int) -> None:
        hit = self._hits[index]
        self.dismiss(Found(hit.conversation_id, hit.message_id))

    def action_move(self, how: Literal["cursor_up", "cursor_down", "page_up", "page_down"]) -> None:
        getattr(self._results, f"action_{how}")()


def beginning(when: When, now: datetime) -> datetime | None:
    """The first moment of the day, the week (from Monday), the month or the year that `now` is in, where it is."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    begun: dict[When, datetime | None] = {
        "any time": None,
        "today": today,
        "this week": today - timedelta(days=today.weekday()),
        "this month": today.replace(day=1),
        "this year": today.replace(month=1, day=1),
    }
    first = begun[when]
    return first and first.replace(tzinfo=None).astimezone()  # the clock may have been put forward since


def _option(hit: Hit) -> Option:
    who = "you" if hit.role == "user" else "reply"
    snippet = Content(hit.snippet)
    for begin, end in hit.marks:
        snippet = snippet.stylize("$text-accent bold underline", begin, end)
    heading = Content.assemble(
        (hit.title or "New conversation", "bold"), (f" · {hit.created.astimezone():%d %b %Y %H:%M} · {who}", "dim")
    )
    return Option(Content("\n").join([heading, snippet]), id=hit.message_id)
