"""Results as MRML nodes: segments, control points, tables of nodules, risk and growth. RAS mm."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import slicer
import vtk
from scipy.ndimage import find_objects

from CTLungScreeningLib import __version__
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import Grid
from CTLungScreeningLib.reading.volume_files import read_layers
from CTLungScreeningSlicer.scene.mrml_tables import add_column
from CTLungScreeningSlicer.scene.mrml_volume import add_node
from LungNoduleSegLib.nodules.table import COLUMNS, Column, Nodule
from LungNoduleSegLib.results.segments import (
    LOBE_STYLES,
    LUNG_STYLES,
    TAG,
    UNSMOOTHED,
    fingerprint,
)
from LungNoduleSegLib.risk.features import IDENTIFIERS, SCAN_FEATURES
from LungNoduleSegLib.risk.growth_table import Row

BINARY_LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()

CLOSED_SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()

OPACITY_2D = 0.25
"""Opacity of the fill of nodules in slice views; the image shows through."""

GLYPH_SCALE = 1.0
"""Size of the points, in % of a view: small enough not to hide a small nodule."""

LUNG_OPACITY_2D = 0.0
LUNG_OPACITY_3D = 0.3
"""Lungs are an outline in slice views and translucent in 3-D: the nodules in them can be seen."""


def read_segmentation(file: Path) -> Any:
    """Read a `.seg.nrrd` file into a vtkSegmentation outside the user's scene.

    Raises:
        InputError: if it cannot be read.
    """
    read_layers(file)  # a damaged file, read by Slicer, would end Slicer
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(file))
    if not storage.ReadData(node):
        raise InputError(f"{file} is not a segmentation that Slicer can read: run the scan again.")
    return node.GetSegmentation()


def reference_grid(segmentation: Any) -> Any:
    """Return a vtkOrientedImageData, without voxels, where a vtkSegmentation says it is from."""
    grid = slicer.vtkOrientedImageData()
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(
        segmentation.GetConversionParameter(
            slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
        ),
        grid,
        False,
    )
    return grid


def require_same_place(grid: Grid, volume_node: Any, file: Path) -> None:
    """Raise `InputError` unless a grid fills the same box as a volume; `file` says where it is."""
    to_lps = np.reshape(grid.direction, (3, 3)) * grid.spacing
    corners = np.array(list(np.ndindex(2, 2, 2))) * grid.size - 0.5
    world = (corners @ to_lps.T + grid.origin) * (-1, -1, 1)
    bounds = np.zeros(6)
    volume_node.GetRASBounds(bounds)
    difference = np.abs(np.reshape(bounds, (3, 2)) - np.c_[world.min(axis=0), world.max(axis=0)])
    if difference.max() > max(volume_node.GetSpacing()):
        raise InputError(
            f"{file} does not lie where {volume_node.GetName()} lies: choose the volume it is from."
        )


def require_usable(
    segmentation_node: Any | None, table_node: Any | None, point_list_node: Any | None
) -> None:
    """Raise `InputError` if adding results to a node would harm its content."""
    for node in (segmentation_node, point_list_node):
        if node is not None and node.GetParentTransformNode() is not None:
            raise InputError(
                f"{node.GetName()} is under a transform: harden it in the Transforms module, "
                "or choose another node."
            )
    if segmentation_node is not None:
        segmentation = segmentation_node.GetSegmentation()
        source = segmentation.GetSourceRepresentationName()
        if segmentation.GetNumberOfSegments() and source != BINARY_LABELMAP:
            raise InputError(
                f"{segmentation_node.GetName()} holds its segments as {source}: make binary "
                "labelmap its source in the Segmentations module, or choose another segmentation."
            )
    if table_node is not None and table_node.GetNumberOfRows() and not _is_marked(table_node):
        raise InputError(f"{table_node.GetName()} holds other data: choose an empty table.")


def add_segments(
    segmentation_node: Any,
    source: Any,
    volume_node: Any,
    *,
    keep_lungs: bool = False,
    stay: Collection[str] = (),
) -> None:
    """Replace our segments of an earlier run in a segmentation node.

    An earlier segment of ours is replaced if its name and voxels are as we made them. Renamed or
    edited, it is the user's: it stays, and the new one comes beside it. Lobes are hidden at first,
    because the lungs are shown.

    Args:
        segmentation_node: whose other segments stay as they are.
        source: the vtkSegmentation of a run; its labelmaps are moved, not copied.
        volume_node: becomes the reference of a segmentation that has none, or no other segments.
        keep_lungs: leave its lungs as they are, and add none.
        stay: ids of earlier segments that stay even if they are as we made them.
    """
    segmentation = segmentation_node.GetSegmentation()
    lungs, lobes = ({style.id for style in one.values()} for one in (LUNG_STYLES, LOBE_STYLES))
    left_alone = lungs if keep_lungs else set()
    ours = own_segments(segmentation_node)
    _remove_segments(segmentation, [one for one in ours if one not in {*left_alone, *stay}])
    if segmentation.GetNumberOfSegments() == 0:
        segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
        segmentation.SetConversionParameter("Smoothing factor", UNSMOOTHED)
    role = segmentation_node.GetReferenceImageGeometryReferenceRole()
    if segmentation.GetNumberOfSegments() == 0 or segmentation_node.GetNodeReference(role) is None:
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    if segmentation_node.GetDisplayNode() is None:
        segmentation_node.CreateDefaultDisplayNodes()
        segmentation_node.GetDisplayNode().SetOpacity2DFill(OPACITY_2D)
    display = segmentation_node.GetDisplayNode()
    for source_id in source.GetSegmentIDs():
        if source_id in left_alone:
            continue
        segment = take_segment(source.GetSegment(source_id))
        segment_id = segmentation.GenerateUniqueSegmentID(source_id)
        if not segmentation.AddSegment(segment, segment_id):
            raise RuntimeError(
                f"{segmentation_node.GetName()} did not take the segment {segment.GetName()}."
            )
        if source_id in lobes:
            display.SetSegmentVisibility(segment_id, False)
        if source_id in lungs:
            display.SetSegmentOpacity2DFill(segment_id, LUNG_OPACITY_2D)
            display.SetSegmentOpacity3D(segment_id, LUNG_OPACITY_3D)


def take_segment(original: Any) -> Any:
    """Make a vtkSegment from another, whose labelmap and surface are moved, not copied."""
    segment = slicer.vtkSegment()
    segment.DeepCopyMetadata(original)
    segment.SetLabelValue(original.GetLabelValue())
    for kind in (BINARY_LABELMAP, CLOSED_SURFACE):
        if original.GetRepresentation(kind) is not None:
            segment.AddRepresentation(kind, original.GetRepresentation(kind))
    original.RemoveRepresentation(BINARY_LABELMAP)  # else its end would erase the voxels
    return segment


def own_segments(segmentation_node: Any) -> list[str]:
    """Return the ids of the segments that we made and that were not renamed or edited since."""
    segmentation = segmentation_node.GetSegmentation()
    boxes: dict[str, list[tuple[slice, ...] | None]] = {}
    found = []
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        mark = vtk.reference("")
        if not segment.GetTag(TAG, mark):
            continue
        labels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(segmentation_node, segment_id)
        label = segment.GetLabelValue()
        sharing: list[str] = []
        segmentation.GetSegmentIDsSharingBinaryLabelmapRepresentation(segment_id, sharing, False)
        if not sharing:
            mask = labels == label
        else:
            layer = segment.GetRepresentation(BINARY_LABELMAP).GetAddressAsString("")
            if layer not in boxes:
                boxes[layer] = find_objects(labels)
            box = boxes[layer][label - 1] if label <= len(boxes[layer]) else None
            mask = labels[box] == label if box else np.zeros((0, 0, 0), bool)
        if str(mark) == fingerprint(segment.GetName(), mask):
            found.append(segment_id)
    return found


def _remove_segments(segmentation: Any, segment_ids: list[str]) -> None:
    """Remove segments; those they share a labelmap with keep theirs."""
    for segment_id in segment_ids:
        sharing: list[str] = []
        segmentation.GetSegmentIDsSharingBinaryLabelmapRepresentation(segment_id, sharing)
        if set(sharing) <= set(segment_ids):
            # Spares Slicer the pass over a labelmap that goes as a whole.
            segmentation.GetSegment(segment_id).RemoveRepresentation(BINARY_LABELMAP)
    for segment_id in segment_ids:
        segmentation.RemoveSegment(segment_id)


def fill_table(table_node: Any, nodules: Iterable[Nodule]) -> None:
    """Fill a table node with one row per nodule; each column has title, unit and description."""
    nodules = list(nodules)
    table_node.RemoveAllColumns()
    types = get_type_hints(Nodule)
    for name, about in COLUMNS.items():
        values = [getattr(nodule, name) for nodule in nodules]
        kind, *_nothing = get_args(types[name]) or [types[name]]
        add_column(table_node, name, values, kind, astuple(about))
    table_node.SetAttribute(TAG, "nodules")


def fill_points(point_list_node: Any, nodules: Iterable[Nodule]) -> None:
    """Replace the control points by one at each nodule.

    Ours are identified by label and description; others stay, as do ours that are still correct:
    Slicer draws all views anew for each point that changes.
    """
    wanted = {f"Nodule {one.id}": one for one in nodules}
    if point_list_node.GetNumberOfControlPoints() == 0:
        _show_inside_lungs(point_list_node)
    for index in reversed(range(point_list_node.GetNumberOfControlPoints())):
        label = point_list_node.GetNthControlPointLabel(index)
        about = point_list_node.GetNthControlPointDescription(index)
        if not label.startswith("Nodule ") or not about.startswith(f"{TAG}: "):
            continue
        if label in wanted:
            _place_point(point_list_node, index, wanted.pop(label))
        else:
            point_list_node.RemoveNthControlPoint(index)
    for label, nodule in wanted.items():
        index = point_list_node.AddControlPoint(vtk.vtkVector3d(*_ras(nodule)), label)
        _place_point(point_list_node, index, nodule)
        point_list_node.SetNthControlPointLocked(index, True)


def _show_inside_lungs(point_list_node: Any) -> None:
    """Show small points with their labels, also where the lungs are in front of them."""
    if point_list_node.GetDisplayNode() is None:
        point_list_node.CreateDefaultDisplayNodes()
    display = point_list_node.GetDisplayNode()
    display.SetGlyphScale(GLYPH_SCALE)
    display.SetOccludedVisibility(True)
    display.SetOccludedOpacity(1.0)


def _place_point(point_list_node: Any, index: int, nodule: Nodule) -> None:
    """Set position and label of a nodule's control point, unless they are correct already."""
    if tuple(point_list_node.GetNthControlPointPosition(index)) != _ras(nodule):
        point_list_node.SetNthControlPointPosition(index, *_ras(nodule))
    about = f"{TAG}: {nodule.diameter_mm:.1f} mm, {nodule.kind}, {nodule.place}"
    if point_list_node.GetNthControlPointDescription(index) != about:
        point_list_node.SetNthControlPointDescription(index, about)


def _ras(nodule: Nodule) -> tuple[float, float, float]:
    return -nodule.x, -nodule.y, nodule.z


def _is_marked(table_node: Any) -> bool:
    return table_node.GetAttribute(TAG) is not None


FEATURE_COLUMNS = {
    "scan": Column("Scan", "", "Name of the volume"),
    "patient_id": Column("Patient", "", "From DICOM, else empty"),
    "series_instance_uid": Column("Series", "", "From DICOM, else empty"),
    "source": Column("Source", "", "Kind of input the features were computed from"),
} | {name: Column(name, about.unit, about.description) for name, about in SCAN_FEATURES.items()}
"""Columns of the CSV file of `features`, one row per scan."""

PREDICTION_COLUMNS = {
    "scan": FEATURE_COLUMNS["scan"],
    "probability": Column("Probability", "", "Of cancer by the trained model, 0 to 1"),
    "moved_by": Column("Contributions", "", "The strongest features, in log odds (SHAP)"),
    "warnings": Column("Warnings", "", "Features outside the training data, and others"),
}
"""One row per scan."""

WORDS = frozenset(
    (
        *("change", "side", "kind", "prior_kind", "current_kind", "lung_rads_change"),
        *("scan", "date", "source"),
        *("moved_by", "warnings", *IDENTIFIERS),
    )
)
"""Columns of text; the others are of numbers."""

SOURCE_ROLE = "CTLungScreening.source"
"""Node reference from a result to the nodes it was made from."""


def add_table(
    scene: Any,
    name: str,
    columns: Mapping[str, Column],
    rows: Sequence[Mapping[str, str | int | float | None]],
    mark: str,
    attributes: Mapping[str, str],
    sources: Sequence[Any],
) -> Any:
    """Add a table node with its kind, parameters and sources.

    Args:
        scene: gets the node.
        name: made unique.
        columns: with title, unit and description.
        rows: a value for each column; None for an empty cell.
        mark: the value of the attribute `TAG`, the kind of table.
        attributes: parameters, stored as attributes `TAG.name`.
        sources: nodes to reference in the role `SOURCE_ROLE`.
    """
    node = add_node(scene, "Table", name)
    for key, about in columns.items():
        kind = str if key in WORDS else float
        add_column(node, key, [row[key] for row in rows], kind, astuple(about))
    node.SetAttribute(TAG, mark)
    node.SetAttribute(f"{TAG}.version", __version__)
    for key, value in attributes.items():
        node.SetAttribute(f"{TAG}.{key}", value)
    for source in sources:
        node.AddNodeReferenceID(SOURCE_ROLE, source.GetID())
    return node


def tables_of(scene: Any, mark: str) -> list[Any]:
    """Return the tables that `add_table` made with a mark, the last one first."""
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode", scene)
    return [node for node in reversed(tables) if node.GetAttribute(TAG) == mark]


def rows_of(table_node: Any, columns: Mapping[str, Column] | None = None) -> list[Row]:
    """Read a table node; an empty cell or NaN becomes None.

    Args:
        table_node: of any kind.
        columns: to read, all required; None for all columns.

    Raises:
        InputError: if a column is missing.
    """
    table = table_node.GetTable()
    names = columns or [table.GetColumnName(i) for i in range(table.GetNumberOfColumns())]
    found = {name: table.GetColumnByName(name) for name in names}
    if missing := [name for name, column in found.items() if column is None]:
        raise InputError(
            f"{table_node.GetName()} has no column {missing[0]}: choose another table."
        )
    return [
        {name: _cell(column.GetValue(row)) for name, column in found.items()}
        for row in range(table.GetNumberOfRows())
    ]


def _cell(value: Any) -> Any:
    return None if value == "" or value != value else value  # noqa: PLR0124 - NaN
