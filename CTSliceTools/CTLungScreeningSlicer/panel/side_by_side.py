"""Two slice views that stay at the same level of two volumes.

The view beside belongs to a view group of its own, so that Slicer's linking of views leaves it
alone. What moves a view is looked at after the event, and both heights are then compared with those
that were left last: so a view that follows starts nothing, and when all views jump at once it is
the red one that counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import qt
import slicer
import vtk

from CTLungScreeningLib.geometry import ScanAlignment
from CTLungScreeningSlicer.panel.section import Debounced, Signal
from CTLungScreeningSlicer.panel.slice_views import BESIDE, RED, is_axial_view, view_centre

RED_NAME = "Red"
BESIDE_NAME = BESIDE.removeprefix("vtkMRMLSliceNode")

LAYOUT = 7206
"""Number of the layout; those of Slicer are below 1000."""

VIEW_GROUP = 7206

SETTLE_MS = 500
"""Pause after the views were opened before the second one leads too."""

_VIEW_XML = """
 <item splitSize="500">
  <view class="vtkMRMLSliceNode" singletontag="{name}">
   <property name="orientation" action="default">Axial</property>
   <property name="viewlabel" action="default">{label}</property>
   <property name="viewcolor" action="default">{color}</property>
  </view>
 </item>"""

LAYOUT_XML = (
    '<layout type="horizontal" split="true">'
    + _VIEW_XML.format(name=RED_NAME, label="R", color="#F34A33")
    + _VIEW_XML.format(name=BESIDE_NAME, label="2", color="#56B4E9")
    + "\n</layout>"
)


@dataclass(frozen=True)
class _Before:
    """Earlier state: number of the layout, volume in the red view, its orientation if not axial."""

    layout: int
    background_id: str | None
    slice_to_ras: Any | None


class SideBySide:
    """Two slice views, at the same level once an alignment is known.

    Attributes:
        closed: signal without arguments: the user has chosen another layout.
        settled: whether the view beside has come to rest since it was opened. Until then it only
            follows: Slicer moves a new view by itself, to 0 mm.
    """

    def __init__(self) -> None:
        self.closed = Signal()
        self.settled = False
        self._pair: tuple[Any, Any] | None = None
        self._alignment: ScanAlignment | None = None
        self._before: _Before | None = None
        self._levels: tuple[float, float] | None = None
        self._unzoomed: tuple[tuple[float, float, float], tuple[float, float]] | None = None
        self._tags: list[tuple[Any, int]] = []
        self._display_views: list[tuple[Any, list[str]]] = []
        self._settle_soon = Debounced(self._settle)
        self._rest = qt.QTimer()
        # Not `.singleShot =`, which is a function as well.
        self._rest.setProperty("singleShot", True)
        self._rest.interval = SETTLE_MS
        self._rest.timeout.connect(lambda: setattr(self, "settled", True))

    def show(self, volume: Any, other: Any) -> None:
        """Show a volume in the red view and another beside it, from now on or as before."""
        if slicer.app.layoutManager() is None or self._pair == (volume, other):
            return
        if self._before is None:
            self._open()
        self._show_markups_everywhere()
        self._pair = volume, other
        _show_alike(volume, other)
        self._fill()

    def keep_apart(self, own: Iterable[Any], others: Iterable[Any]) -> None:
        """Show markups in the view of their volume only: they mean nothing in the other."""
        if self._before is None:
            return
        known = [display for display, _ids in self._display_views]
        for nodes, view in ((own, RED), (others, BESIDE)):
            for display in (node.GetDisplayNode() for node in nodes):
                if display is not None and display not in known:
                    ids = [
                        display.GetNthViewNodeID(n) for n in range(display.GetNumberOfViewNodeIDs())
                    ]
                    # Ours come from a scene that was saved with the views side by side.
                    before = [one for one in ids if one not in (RED, BESIDE)]
                    self._display_views.append((display, before))
                    _show_in(display, [view])

    def align(self, alignment: ScanAlignment | None) -> None:
        """Keep the views at the same level from now on; with None each goes its own way."""
        self._alignment, self._levels = alignment, None
        self._follow()

    def go_to(self, other_z_mm: float) -> None:
        """Show an LPS z of the other volume beside the red view, which stays where it is."""
        if self._before is not None:
            _move(_slice_node(BESIDE_NAME), other_z_mm)
            self._levels = self._read_levels()

    def show_points(self, place: Sequence[float], other: Sequence[float], width_mm: float) -> None:
        """Show a point of the volume in the red view, and one of the other volume beside it.

        Args:
            place: in the world, RAS mm.
            other: likewise.
            width_mm: that each view shows from left to right.
        """
        if self._before is None:
            return
        if self._unzoomed is None:
            red = _slice_node(RED_NAME)
            x, y, _z = view_centre(red)
            self._unzoomed = red.GetFieldOfView(), (float(x), float(y))
        for name, point in ((RED_NAME, place), (BESIDE_NAME, other)):
            node = _slice_node(name)
            width, height, depth = node.GetFieldOfView()
            node.SetFieldOfView(width_mm, width_mm * height / width, depth)
            node.JumpSliceByCentering(*point)
        self._levels = self._read_levels()

    def close(self) -> None:
        """Show what was there before, unless the user has chosen another layout meanwhile."""
        before, unzoomed = self._before, self._unzoomed
        self._settle_soon.cancel()
        self._rest.stop()
        self._forget()
        if before is None:
            return
        red = _slice_node(RED_NAME)
        if unzoomed is not None:
            field_of_view, (x, y) = unzoomed
            red.SetFieldOfView(*field_of_view)
            red.JumpSliceByCentering(x, y, float(view_centre(red)[2]))
        if slicer.mrmlScene.GetNodeByID(before.background_id or "") is not None:
            _composite_node(RED_NAME).SetBackgroundVolumeID(before.background_id)
        if before.slice_to_ras is not None:
            red.GetSliceToRAS().DeepCopy(before.slice_to_ras)
            red.UpdateMatrices()
        if _layout_node().GetViewArrangement() == LAYOUT:
            _layout_node().SetViewArrangement(before.layout)

    def _open(self) -> None:
        self.settled = False
        self._rest.start()
        layout, red = _layout_node(), _slice_node(RED_NAME)
        number = layout.GetViewArrangement()
        slice_to_ras = None
        if not is_axial_view(red):
            slice_to_ras = vtk.vtkMatrix4x4()
            slice_to_ras.DeepCopy(red.GetSliceToRAS())
            red.SetOrientation("Axial")
        self._before = _Before(
            # A scene that was saved with the views side by side does not know what was before.
            layout.SlicerLayoutConventionalView if number == LAYOUT else number,
            _composite_node(RED_NAME).GetBackgroundVolumeID(),
            slice_to_ras,
        )
        register_layout()
        layout.SetViewArrangement(LAYOUT)
        beside = _slice_node(BESIDE_NAME)
        beside.SetViewGroup(VIEW_GROUP)
        beside.SetOrientation("Axial")
        modified = vtk.vtkCommand.ModifiedEvent
        self._tags = [
            (node, node.AddObserver(modified, self._settle_soon))
            for node in (
                layout,
                red,
                beside,
                _composite_node(RED_NAME),
                _composite_node(BESIDE_NAME),
            )
        ]

    def _show_markups_everywhere(self) -> None:
        for display, ids in self._display_views:
            _show_in(display, ids)
        self._display_views = []

    def _forget(self) -> None:
        self._show_markups_everywhere()
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = []
        self._pair = self._before = self._alignment = self._levels = self._unzoomed = None

    def _fill(self) -> None:
        """Show each view's volume again if Slicer has put another one into all views."""
        assert self._pair is not None
        for name, volume in zip((RED_NAME, BESIDE_NAME), self._pair, strict=True):
            if _composite_node(name).GetBackgroundVolumeID() != volume.GetID():
                _composite_node(name).SetBackgroundVolumeID(volume.GetID())
                _logic(name).FitSliceToAll()

    def _settle(self) -> None:
        """Respond to changes of the views."""
        if self._before is None:
            return
        if _layout_node().GetViewArrangement() != LAYOUT:
            self.close()
            self.closed.emit()
            return
        if not self.settled:
            self._rest.start()
        self._fill()
        self._follow()

    def _follow(self) -> None:
        """Make the other view follow the one that was moved."""
        if self._before is None or self._pair is None:
            return
        red, beside = _slice_node(RED_NAME), _slice_node(BESIDE_NAME)
        volume, other = self._pair
        if not self.settled:
            _move(red, _within(volume, self._read_levels()[0]))
        now = self._read_levels()
        if now == self._levels or not (is_axial_view(red) and is_axial_view(beside)):
            return
        red_moved = self._levels is None or now[0] != self._levels[0]
        if self._levels is not None and not red_moved and not self.settled:
            _move(beside, self._levels[1])
        elif self._alignment is not None and red_moved:
            _move(beside, _within(other, self._alignment.other_at(now[0])))
        elif self._alignment is not None:
            _move(red, _within(volume, self._alignment.z_at(now[1])))
        self._levels = self._read_levels()

    def _read_levels(self) -> tuple[float, float]:
        red, beside = (_slice_node(name) for name in (RED_NAME, BESIDE_NAME))
        return float(view_centre(red)[2]), float(view_centre(beside)[2])


def register_layout() -> None:
    """Tell Slicer the layout: a scene that was saved with it has its number only."""
    layout = _layout_node()
    if layout is not None and not layout.IsLayoutDescription(LAYOUT):
        layout.AddLayoutDescription(LAYOUT, LAYOUT_XML)


def _show_alike(volume: Any, other: Any) -> None:
    """Show a volume in the window of another."""
    like, display = volume.GetDisplayNode(), other.GetDisplayNode()
    if like is not None and display is not None:
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(like.GetWindow(), like.GetLevel())


def _within(volume: Any, z_mm: float) -> float:
    """Return the height in mm that is nearest to `z_mm` and not outside a volume."""
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    low, high = bounds[4:]
    half = min(volume.GetSpacing()[2], high - low) / 2
    return min(max(z_mm, low + half), high - half)


def _layout_node() -> Any:
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def _logic(name: str) -> Any:
    return slicer.app.applicationLogic().GetSliceLogicByLayoutName(name)


def _slice_node(name: str) -> Any:
    return _logic(name).GetSliceNode()


def _composite_node(name: str) -> Any:
    return _logic(name).GetSliceCompositeNode()


def _show_in(display_node: Any, view_ids: Iterable[str]) -> None:
    """Show what a display node shows in these views only; in all of them if there is none."""
    display_node.RemoveAllViewNodeIDs()
    for one in view_ids:
        display_node.AddViewNodeID(one)


def _move(slice_node: Any, z_mm: float) -> None:
    x, y, z = view_centre(slice_node)
    if z != z_mm:
        slice_node.JumpSliceByOffsetting(float(x), float(y), z_mm)
