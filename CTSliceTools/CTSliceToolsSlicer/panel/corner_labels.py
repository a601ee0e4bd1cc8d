"""A line of text at the top of each slice view."""

from collections.abc import Callable
from typing import Any

import slicer
import vtk

COLOR = (0.95, 0.71, 0.25)


class CornerLabels:
    """Shows in each slice view the text that a function gives for it, kept up to date.

    Slicer's own corner texts belong to its Data Probe, which writes over others; so this is an
    actor of our own.
    """

    def __init__(self, text_of: Callable[[Any], str]) -> None:
        """Take the function, which gets the slice node of a view."""
        self._text_of = text_of
        self._actors: dict[str, tuple[Any, Any]] = {}
        self._tags: list[tuple[Any, int]] = []

    def enable(self) -> None:
        """Show the texts in the views that there are now."""
        layout = slicer.app.layoutManager()
        if self._actors or layout is None:
            return
        for name in layout.sliceViewNames():
            widget = layout.sliceWidget(name)
            actor = _make_actor()
            _renderer(widget.sliceView()).AddViewProp(actor)
            self._actors[name] = (widget, actor)
            node = widget.mrmlSliceNode()
            tag = node.AddObserver(
                vtk.vtkCommand.ModifiedEvent, lambda *_, name=name: self._update(name)
            )
            self._tags.append((node, tag))
        self.update()

    def disable(self) -> None:
        """Take the texts away."""
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        for widget, actor in self._actors.values():
            _renderer(widget.sliceView()).RemoveViewProp(actor)
            widget.sliceView().scheduleRender()
        self._tags, self._actors = [], {}

    def update(self) -> None:
        """Ask for all texts again."""
        for name in self._actors:
            self._update(name)

    def texts(self) -> dict[str, str]:
        """Give the text that each view shows, by the view's name."""
        return {name: actor.GetInput() for name, (_, actor) in self._actors.items()}

    def _update(self, name: str) -> None:
        widget, actor = self._actors[name]
        text = self._text_of(widget.mrmlSliceNode())
        if text != (actor.GetInput() or ""):
            actor.SetInput(text)
            widget.sliceView().scheduleRender()


def _make_actor() -> Any:
    actor = vtk.vtkTextActor()
    actor.SetInput("")
    actor.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
    actor.SetPosition(0.5, 0.96)
    look = actor.GetTextProperty()
    look.SetFontSize(18)
    look.SetColor(*COLOR)
    look.SetShadow(True)
    look.SetJustificationToCentered()
    look.SetVerticalJustificationToTop()
    return actor


def _renderer(view: Any) -> Any:
    return view.renderWindow().GetRenderers().GetFirstRenderer()
