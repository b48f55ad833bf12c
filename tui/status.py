"""The line under the composer: what goes on, speed, how full the context is, and the model."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from chatbot.events import Progress, Usage

GAUGE_WIDTH = 8


class StatusLine(Static):
    """Renders itself anew whenever one of its parts changes."""

    model: reactive[str] = reactive("")
    state: reactive[str] = reactive("opening")
    usage: reactive[Usage | None] = reactive(None)

    def show_progress(self, progress: Progress) -> None:
        """Progress while something is fetched or loaded."""
        if progress.fraction is None:
            self.state = progress.text
        else:
            self.state = f"{progress.text} {gauge(progress.fraction)} {progress.fraction:.0%}"

    def render(self) -> Content:
        parts = [self.state]
        if self.usage is not None:
            used = self.usage.prompt_tokens + self.usage.completion_tokens
            full = used / max(1, self.usage.context_length)
            parts.append(f"{self.usage.decode_tokens_per_s:.0f} tokens/s")
            parts.append(f"context {gauge(full)} {full:.0%}")
        if self.model not in self.state:
            parts.append(self.model)
        return Content(" · ".join(parts))


def gauge(fraction: float) -> str:
    """A bar of `GAUGE_WIDTH` cells; anything above nothing shows."""
    filled = min(GAUGE_WIDTH, -int(-fraction * GAUGE_WIDTH // 1))
    return "━" * filled + "╌" * (GAUGE_WIDTH - filled)
