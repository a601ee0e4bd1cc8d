"""The progress of a run in words."""

from dataclasses import dataclass
from typing import Any

from slicer.i18n import tr as _


@dataclass(frozen=True)
class RunProgress:
    """How far a stage of a run is.

    Attributes:
        stage: its name, such as "Reading".
        percent: of the stage, None while that is not known.
        remaining_s: of the stage in seconds, None while that is not known.
    """

    stage: str
    percent: int | None = None
    remaining_s: float | None = None

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> "RunProgress":
        """Read a progress line of one of our commands, see `progress.JsonLines`."""
        total = event["total"]
        percent = round(100 * event["done"] / total) if total else None
        return cls(event["stage"], percent, event.get("remaining_s"))

    @property
    def text(self) -> str:
        """The stage, percentage and remaining time, as far as known."""
        parts = [self.stage]
        if self.percent is not None:
            parts.append(f"{self.percent} %")
        if self.remaining_s is not None and self.percent != 100:
            parts.append(_("about {time} left").format(time=duration_text(self.remaining_s)))
        return ", ".join(parts)


def duration_text(seconds: float) -> str:
    """Say a duration as people do: "5 s", "3 min", "2 h 10 min"."""
    if seconds < 59.5:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
