"""The line under the composer: model, what it is doing, speed, and how full the context is."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from chatbot.events import Notice, Usage

GAUGE_WIDTH = 10


class StatusLine(Static):
    """Renders itself anew whenever one of its parts changes."""

    model: reactive[str] = reactive("")
    state: reactive[str] = reactive("opening")
    usage: reactive[Usage | None] = reactive(None)

    def show_notice(self, notice: Notice) -> None:
        """Progress while something is fetched or loaded."""
        if notice.fraction is None:
            self.state = notice.text
        else:
            self.state = f"{notice.text} {gauge(notice.fraction)} {notice.fraction:.0%}"

    def render(self) -> Content:
        parts = [Content.styled(self.model, "bold")] if self.model else []
        parts.append(Content(self.state))
        if self.usage is not None:
            used = self.usage.prompt_tokens + self.usage.completion_tokens
            full = used / self.usage.context_length
            parts.append(Content(f"{self.usage.decode_tokens_per_s:.0f} tokens/s"))
            parts.append(Content(f"context {gauge(full)} {used:,} of {self.usage.context_length:,}"))
        return Content("  ·  ").join(parts)


def gauge(fraction: float) -> str:
    """A bar of `GAUGE_WIDTH` cells; anything above nothing shows."""
    filled = min(GAUGE_WIDTH, -int(-fraction * GAUGE_WIDTH // 1))
    return "━" * filled + "╌" * (GAUGE_WIDTH - filled)
