"""What the terminal can show, as far as its environment tells: asking it would swallow keys typed meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Graphics = Literal["kitty", "sixel", "cells"]
"""Kitty's graphics protocol with Unicode placeholders, DEC's sixel, or half cells in two colours each."""

_KITTY = ("kitty", "ghostty")
_SIXEL = ("wezterm", "iterm", "konsole", "foot", "contour", "mlterm", "mintty")


def graphics(environment: Mapping[str, str]) -> Graphics:
    """How pictures can be shown. Through tmux, screen or a browser, and where it is unknown: half cells."""
    if any(environment.get(name) for name in ("TMUX", "STY", "TEXTUAL_DRIVER")):
        return "cells"
    name = f"{environment.get('TERM_PROGRAM', '')} {environment.get('TERM', '')}".lower()
    if environment.get("KITTY_WINDOW_ID") or any(known in name for known in _KITTY):
        return "kitty"
    if environment.get("KONSOLE_VERSION") or any(known in name for known in _SIXEL):
        return "sixel"
    return "cells"
