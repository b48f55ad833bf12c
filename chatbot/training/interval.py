"""A figure and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the bounds between which it lies in 95 of 100 resamples."""

    value: float
    low: float
    high: float

    def as_json(self) -> list[float]:
        return [round(self.value, 4), round(self.low, 4), round(self.high, 4)]

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def signed(self) -> str:
        """Of a difference, for a person."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
