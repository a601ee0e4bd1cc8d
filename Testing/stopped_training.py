"""Trainings that are stopped in the middle, and their curves, for tests."""

from collections.abc import Mapping, Sequence

from CTLungScreeningLib.errors import Cancelled
from CTLungScreeningLib.progress import ProgressCallback


def stop_at(stage: str, step: int) -> ProgressCallback:
    """Cancel at a step of a stage."""

    def progress(name: str, done: int, total: int) -> None:
        if (name, done) == (stage, step):
            raise Cancelled

    return progress


def without_seconds(epochs: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return what must be the same however fast a training was."""
    return [{key: value for key, value in one.items() if key != "seconds"} for one in epochs]
