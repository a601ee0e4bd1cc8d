"""The prediction of a volume as nodes: tables, a chart and landmark points. Needs slicer.

The table of slices holds it together: it refers to the volume and to the other nodes, and its
attribute keeps the fit, so that all is there again when a saved scene is opened. Heights are LPS z
of the world in mm, which is also the offset of an axial slice view.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_scan import SliceSource
from CTLungScreeningSlicer.scene.mrml_tables import (
    BLUE,
    VERMILION,
    add_column,
    add_series,
    series_of,
)
from CTLungScreeningSlicer.scene.mrml_volume import (
    VolumeSlices,
    add_node,
    ijk_to_world,
    middles_of_grid,
    place_beside,
)
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME
from CTSliceToolsLib.localizer.prediction import ModelUsed, ScanPrediction, SliceLocation
from CTSliceToolsLib.localizer.scan_fit import ScanFit

PREDICTION = "CTSliceTools.prediction"
"""Attribute of the table of slices: fit, model and the volume's place, as JSON."""

_ROLE = "CTSliceTools.{}"
"""Node references of the table of slices."""

_SAME_MM = 0.01
"""A volume that was moved by less is where it was."""

_SLICE_COLUMNS = {
    "z_mm": ("z", "mm", "LPS z of the slice's centre in the world"),
    "location": ("Location", "", "Normalized location that fits with the other slices"),
    "uncertainty_mm": ("±", "mm", "The level lies this near with 95 % probability; 1000: unknown"),
    "raw": ("Raw", "", "Normalized location as the network gives it"),
    "nearest": ("Nearest", "", "The nearest landmark"),
    "description": ("Lies", "", "The landmarks it lies between"),
    "sop_instance_uid": ("Instance", "", "SOP Instance UID, of a volume from DICOM"),
}
_LANDMARK_COLUMNS = {
    "name": ("Landmark", "", "Name of the landmark"),
    "z_mm": ("z", "mm", "LPS z of the landmark in the world"),
    "uncertainty_mm": ("±", "mm", "The landmark lies this near with 95 % probability"),
    "location": ("Location", "", "Its normalized location"),
}

RAW_COLOUR, FIT_COLOUR, LANDMARK_COLOUR = (0.55, 0.55, 0.55), BLUE, VERMILION


@dataclass(frozen=True)
class PredictionNodes:
    """The nodes of one prediction.

    Attributes:
        table: one row per slice, from feet to head.
        landmarkTable: one row a landmark in the field of view, from head to feet.
        chart: predicted location against z, each slice by itself and all together, and landmarks.
        markups: the landmarks, each on the volume's centre line.
    """

    table: Any
    landmarkTable: Any  # noqa: N815 - Slicer's way of naming
    chart: Any
    markups: Any


def add_prediction(volume_node: Any, prediction: ScanPrediction) -> PredictionNodes:
    """Add the nodes of a prediction to the scene, beside the volume it is of."""
    prediction = _at_stored_slices(volume_node, prediction)
    scene = volume_node.GetScene()

    def add(kind: str, what: str) -> Any:
        return add_node(scene, kind, f"{volume_node.GetName()} {what}")

    nodes = PredictionNodes(
        add("Table", "slice locations"),
        add("Table", "landmark heights"),
        add("PlotChart", "location against z"),
        add("MarkupsFiducial", "predicted landmarks"),
    )
    _fill_table(nodes.table, _SLICE_COLUMNS, _slice_rows(volume_node, prediction))
    found = prediction.landmarks
    rows = [
        (name, place.z_mm, place.uncertainty_mm, LANDMARK_BY_NAME[name].location)
        for name, place in found.items()
    ]
    _fill_table(nodes.landmarkTable, _LANDMARK_COLUMNS, rows)
    _plot(nodes, volume_node.GetName())
    nodes.chart.SetTitle(f"{volume_node.GetName()}: residual {prediction.fit.residual_mm:.0f} mm")
    nodes.chart.SetXAxisTitle("z (mm)")
    nodes.chart.SetYAxisTitle("Normalized location")
    _fill_points(nodes.markups, volume_node, prediction)

    nodes.table.SetAttribute(PREDICTION, json.dumps(_record(volume_node, prediction)))
    nodes.table.SetNodeReferenceID(_ROLE.format("volume"), volume_node.GetID())
    for name, node in vars(nodes).items():
        if node is not nodes.table:
            nodes.table.SetNodeReferenceID(_ROLE.format(name), node.GetID())
        place_beside(volume_node, node)
    return nodes


def _at_stored_slices(volume_node: Any, prediction: ScanPrediction) -> ScanPrediction:
    """Give slices the heights that they were stored at, which a tilted gantry moves in the grid."""
    try:
        slices = VolumeSlices.of(volume_node)
    except InputError:
        return prediction
    grid = replace(slices, middles=middles_of_grid(slices.size, slices.axis)).world_z_mm()
    z_mm, then = slices.world_z_mm(), np.array([one.z_mm for one in prediction.slices])
    if grid.shape != then.shape or not np.allclose(grid, then, atol=_SAME_MM):
        return prediction
    if np.allclose(grid, z_mm, atol=_SAME_MM):
        return prediction
    raw = np.interp(z_mm, then, [one.raw for one in prediction.slices])
    location = prediction.fit.location_at(z_mm)
    stored = tuple(
        replace(one, z_mm=float(z), raw=float(judged), location=float(at))
        for one, z, judged, at in zip(prediction.slices, z_mm, raw, location, strict=True)
    )
    return replace(prediction, slices=stored)


def find_prediction(volume_node: Any) -> PredictionNodes | None:
    """Return the nodes of a volume's last prediction; None without, or if one was deleted."""
    for table in reversed(slicer.util.getNodesByClass("vtkMRMLTableNode", volume_node.GetScene())):
        if table.GetAttribute(PREDICTION) is None:
            continue
        if table.GetNodeReference(_ROLE.format("volume")) is not volume_node:
            continue
        others = [
            table.GetNodeReference(_ROLE.format(name))
            for name in ("landmarkTable", "chart", "markups")
        ]
        if all(node is not None for node in others):
            return PredictionNodes(table, *others)
    return None


def remove_prediction(nodes: PredictionNodes) -> None:
    """Remove the nodes of a prediction from the scene."""
    scene = nodes.table.GetScene()
    for node in (*vars(nodes).values(), *series_of(nodes.chart)):
        scene.RemoveNode(node)


def read_prediction_nodes(volume_node: Any) -> ScanPrediction:
    """Return a volume's last prediction as it is kept in the scene.

    Raises:
        InputError: if there is none, it is damaged, or the volume was moved since.
    """
    name = volume_node.GetName()
    nodes = find_prediction(volume_node)
    if nodes is None:
        raise InputError(f"{name} has no slice locations yet: run the localizer on it.")
    try:
        record = json.loads(nodes.table.GetAttribute(PREDICTION))
        fit = ScanFit(
            np.array(record["landmark_z_mm"], float),
            float(record["residual_mm"]),
            tuple(record["warnings"]),
            np.array(record["uncertainty_mm"], float),
        )
        model = ModelUsed(**record["model"])
        place = np.reshape(record["ijk_to_world"], (4, 4))
        slices = _slices(nodes.table)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{nodes.table.GetName()} was changed and holds no prediction any more: run the "
            f"localizer on {name} again."
        ) from error
    if not np.allclose(place, ijk_to_world(volume_node), atol=_SAME_MM):
        raise InputError(f"{name} was moved since it was localized: run the localizer again.")
    return ScanPrediction(Path(name), None, slices, fit, model)


def _record(volume_node: Any, prediction: ScanPrediction) -> dict[str, Any]:
    return {
        "landmark_z_mm": prediction.fit.landmark_z_mm.tolist(),
        "uncertainty_mm": prediction.fit.uncertainty_mm.tolist(),
        "residual_mm": prediction.fit.residual_mm,
        "warnings": list(prediction.fit.warnings),
        "model": asdict(prediction.model),
        "ijk_to_world": ijk_to_world(volume_node).ravel().tolist(),
    }


def _slice_rows(volume_node: Any, prediction: ScanPrediction) -> list[tuple[Any, ...]]:
    z_mm = np.array([one.z_mm for one in prediction.slices])
    uids, uncertainty = _instance_uids(volume_node, z_mm), prediction.fit.uncertainty_at(z_mm)
    return [
        (one.z_mm, one.location, float(off), one.raw, one.nearest, one.description, uid)
        for one, off, uid in zip(prediction.slices, uncertainty, uids, strict=True)
    ]


def _instance_uids(volume_node: Any, z_mm: np.ndarray[Any, Any]) -> Sequence[str]:
    """SOP Instance UIDs of the slices at these heights; empty strings if it is not known."""
    unknown = [""] * len(z_mm)
    try:
        slices = VolumeSlices.of(volume_node)
    except InputError:
        return unknown
    there = slices.world_z_mm()
    same = there.shape == z_mm.shape and np.allclose(there, z_mm, atol=_SAME_MM)
    return slices.uids if same and slices.uids else unknown


def _slices(table_node: Any) -> tuple[SliceLocation, ...]:
    table = table_node.GetTable()
    z_mm, raw, location, uids = (
        table.GetColumnByName(name) for name in ("z_mm", "raw", "location", "sop_instance_uid")
    )
    return tuple(
        SliceLocation(
            index,
            z_mm.GetValue(index),
            raw.GetValue(index),
            location.GetValue(index),
            SliceSource(uid, Path()) if (uid := uids.GetValue(index)) else None,
        )
        for index in range(table.GetNumberOfRows())
    )


def _fill_table(
    table_node: Any, columns: dict[str, tuple[str, str, str]], rows: Sequence[Sequence[Any]]
) -> None:
    for (name, about), values in zip(
        columns.items(), zip(*rows, strict=True) if rows else [()] * len(columns), strict=True
    ):
        words = name in ("name", "nearest", "description", "sop_instance_uid")
        add_column(table_node, name, values, str if words else float, about)
    table_node.SetLocked(True)


def _plot(nodes: PredictionNodes, name: str) -> None:
    """Plot the locations of slices and landmarks against z, named after the volume."""
    chart, table = nodes.chart, nodes.table
    raw = add_series(chart, table, "z_mm", "raw", f"{name} each slice by itself", RAW_COLOUR)
    raw.SetLineStyle(raw.LineStyleNone)
    raw.SetMarkerSize(4)
    fit = add_series(chart, table, "z_mm", "location", f"{name} all slices together", FIT_COLOUR)
    fit.SetMarkerStyle(fit.MarkerStyleNone)
    table, title = nodes.landmarkTable, f"{name} landmarks plotted"
    landmarks = add_series(chart, table, "z_mm", "location", title, LANDMARK_COLOUR)
    landmarks.SetLineStyle(landmarks.LineStyleNone)
    landmarks.SetMarkerSize(10)
    landmarks.SetLabelColumnName("name")


def _fill_points(markups: Any, volume_node: Any, prediction: ScanPrediction) -> None:
    """Add a locked point for each landmark, on the line through the centres of the slices."""
    if markups.GetDisplayNode() is None:
        markups.CreateDefaultDisplayNodes()
    display = markups.GetDisplayNode()
    for set_colour in (display.SetColor, display.SetSelectedColor):
        set_colour(*FIT_COLOUR)  # not that of landmarks that a reader has set
    display.SetGlyphType(display.Diamond2D)
    to_world = ijk_to_world(volume_node)
    middle = (np.array(volume_node.GetImageData().GetDimensions()) - 1) / 2
    centre = (to_world @ [*middle, 1])[:3]
    axes = to_world[:3, :3]
    upward = axes[:, np.abs(axes[2] / np.linalg.norm(axes, axis=0)).argmax()]
    for name, place in prediction.landmarks.items():
        position = centre + upward * (place.z_mm - centre[2]) / upward[2]
        index = markups.AddControlPoint(vtk.vtkVector3d(*position), name)
        where = f"predicted at z = {place.z_mm:.1f} ± {place.uncertainty_mm:.0f} mm"
        markups.SetNthControlPointDescription(index, where)
        markups.SetNthControlPointLocked(index, True)
