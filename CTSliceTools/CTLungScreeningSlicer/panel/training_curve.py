"""The live loss curve of a training in the panel."""

from typing import Any, TypeVar

from CTLungScreeningLib.child_work import Work
from CTLungScreeningSlicer.scene.loss_curve import LossCurve

T = TypeVar("T")


class TrainingCurve:
    """A loss curve in the scene that grows with the epochs of a training."""

    def __init__(self) -> None:
        self._curve: LossCurve | None = None

    def during(self, work: Work[T], name: str) -> Work[T]:
        """Show a curve during some work; it goes again unless the work ends well.

        Args:
            work: a training.
            name: of the model.
        """
        self._curve = LossCurve(name)
        self._curve.show()
        try:
            return (yield from work)
        except BaseException:
            self._curve.remove()
            raise
        finally:
            self._curve = None

    def hear(self, event: dict[str, Any]) -> None:
        """Take what a training command tells, see `WorkRunner.told`."""
        if "epoch" in event and self._curve is not None:
            self._curve.add(event["epoch"])
