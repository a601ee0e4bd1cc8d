"""Common parts of the guidelines: their results and required inputs."""

from dataclasses import dataclass

from LungNoduleSegLib.risk.facts import NoduleFacts, PatientFacts


@dataclass(frozen=True)
class GuidelineResult:
    """A class with its management, or why there is none.

    Exactly one of `category`, `missing` (what is still asked for, by name) and `not_for` (a
    sentence: the guideline has no class for this nodule) is filled. `months` is the interval to
    the next CT where the guideline names one.
    """

    guideline: str
    source: str
    scope: str
    category: str = ""
    reason: str = ""
    management: str = ""
    months: tuple[int, int] | None = None
    missing: tuple[str, ...] = ()
    not_for: str = ""
    notes: tuple[str, ...] = ()


class MissingFactsError(Exception):
    """Facts a rule needs are not known; their names."""


class NoClassError(Exception):
    """The guideline has no class for the nodule."""


def ask(facts: NoduleFacts | PatientFacts, *names: str) -> list[str]:
    """Give the names of the facts that are not known."""
    return [name for name in names if getattr(facts, name) is None]


def diameters(nodule: NoduleFacts) -> tuple[float, float]:
    """Give longest and perpendicular diameter, or raise `MissingFactsError`."""
    if nodule.longest_mm is None or nodule.perpendicular_mm is None:
        raise MissingFactsError(*ask(nodule, "longest_mm", "perpendicular_mm"))
    return nodule.longest_mm, nodule.perpendicular_mm
