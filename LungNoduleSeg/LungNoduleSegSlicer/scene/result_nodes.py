"""The nodes that hold the results of one volume, its probability too, and lungs from any node."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
import SimpleITK as sitk
import slicer

from CTLungScreeningLib.child_process import Pause, Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import LPS_TO_RAS, CroppedMask, Grid, ijk_to_lps
from CTLungScreeningLib.json_files import parse_json
from CTLungScreeningLib.reading.volume_files import read_labels
from CTLungScreeningSlicer.scene.mrml_volume import add_node, has_voxels, ijk_to_world
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.nodules.table import COLUMNS, REQUIRED, Nodule, Verdict
from LungNoduleSegLib.results.reading import PROBABILITY, RECORD, RunMasks
from LungNoduleSegLib.results.segments import LOBE_STYLES, LUNG_STYLES, TAG, nodule_style
from LungNoduleSegLib.risk.facts import coarse_steps
from LungNoduleSegLib.risk.growth import ChestScan, study_date
from LungNoduleSegSlicer.scene.mrml_results import BINARY_LABELMAP
from LungNoduleSegSlicer.scene.nodule_segments import (
    coarse_voxels,
    labelmap_grid,
    segments_of,
    voxels_by_id,
)

SEGMENTATION_ROLE = f"{TAG}.segmentation"
POINTS_ROLE = f"{TAG}.points"
PROBABILITY_ROLE = f"{TAG}.probability"
VOLUME_ROLE = f"{TAG}.volume"
"""Node references from the table of nodules to the other nodes of the results, and their volume."""

RUN_RECORD = f"{TAG}.record"
"""Attribute of the table: what made the results, the contents of `run.json` as JSON."""

PLACE = f"{TAG}.place"
"""Attribute of the table: `ijk_to_world` of the volume that the results are from, as JSON."""

_SAME_MM = 1e-3

VERDICT = "verdict"
"""Column of the table, and the last part of the segments' tag, that holds a reader's verdict."""


@dataclass(frozen=True)
class ResultNodes:
    """The nodes that hold the results of one volume.

    Attributes:
        segmentation: lungs and nodules.
        table: one row per nodule.
        fiducials: one control point per nodule.
        probability: the network's output in steps of 1 / `STEPS`; None if it was not kept, or a
            scene was opened without its file.
    """

    segmentation: Any
    table: Any
    fiducials: Any
    probability: Any | None = None


def connect(results: ResultNodes, volume_node: Any) -> None:
    """Make the table refer to the other nodes of the results and to their volume, and its place."""
    results.table.SetNodeReferenceID(VOLUME_ROLE, volume_node.GetID())
    results.table.SetNodeReferenceID(SEGMENTATION_ROLE, results.segmentation.GetID())
    results.table.SetNodeReferenceID(POINTS_ROLE, results.fiducials.GetID())
    results.table.SetAttribute(PLACE, json.dumps(_place(results)))


def _place(results: ResultNodes) -> list[list[float]] | None:
    """`ijk_to_world` of the volume; None if it is gone, or lies where no run allows it."""
    try:
        return ijk_to_world(volume_node_of(results)).tolist()
    except InputError:
        return None


def is_in_place(results: ResultNodes) -> bool:
    """Whether the volume lies where it lay when its nodules were found, as far as is known."""
    place, now = json.loads(results.table.GetAttribute(PLACE) or "null"), _place(results)
    return place is None or (now is not None and np.allclose(now, place, atol=_SAME_MM))


def require_in_place(results: ResultNodes) -> None:
    """Raise `InputError` unless the volume `is_in_place`."""
    if not is_in_place(results):
        raise InputError(
            f"{volume_node_of(results).GetName()} was moved since its nodules were "
            "found: move it back, or run it again."
        )


def find_results(volume_node: Any) -> ResultNodes | None:
    """Return the results of a volume, those that came last; None if the scene has none."""
    for one in results_in(volume_node.GetScene()):
        if one.fiducials is not None and reference_of(one) is volume_node:
            return one
    return None


def results_without_points(scene: Any) -> list[ResultNodes]:
    """Return the results in a scene of which the point list alone was deleted; it is None."""
    return [one for one in results_in(scene) if one.fiducials is None]


def results_in(scene: Any) -> Iterator[ResultNodes]:
    """Return all results in a scene, the last first, also those without a point list."""
    for table in reversed(slicer.util.getNodesByClass("vtkMRMLTableNode", scene)):
        roles = SEGMENTATION_ROLE, POINTS_ROLE, PROBABILITY_ROLE
        segmentation, points, probability = map(table.GetNodeReference, roles)
        if segmentation is not None:
            there = probability if has_voxels(probability) else None
            yield ResultNodes(segmentation, table, points, there)


def verdicts_of(table_node: Any) -> dict[int, Verdict]:
    """Return the verdict on each nodule of a table that has one."""
    table = table_node.GetTable()
    ids, verdicts = table.GetColumnByName("id"), table.GetColumnByName(VERDICT)
    if ids is None or verdicts is None:
        return {}
    return {
        int(ids.GetValue(row)): Verdict(verdicts.GetValue(row))
        for row in range(table.GetNumberOfRows())
        if verdicts.GetValue(row) in list(Verdict)
    }


def nodules_of(table_node: Any, *, rejected: bool = False) -> tuple[Nodule, ...]:
    """Read the nodules back from a table node that holds those of a run.

    Args:
        table_node: of a run.
        rejected: also those that a reader rejected.

    Raises:
        InputError: if it holds something else.
    """
    table = table_node.GetTable()
    columns = {name: table.GetColumnByName(name) for name in COLUMNS}
    if any(columns[name] is None for name in REQUIRED):
        raise InputError(f"{table_node.GetName()} is not a table of nodules: choose that of a run.")
    types = get_type_hints(Nodule)
    verdicts = {} if rejected else verdicts_of(table_node)
    try:
        found = tuple(
            Nodule(
                **{
                    name: _value(column.GetValue(row), types[name])
                    for name, column in columns.items()
                    if column is not None
                }
            )
            for row in range(table.GetNumberOfRows())
        )
    except ValueError as error:
        raise InputError(
            f"{table_node.GetName()} holds a value that no nodule has ({error}): "
            "correct it or run the scan again."
        ) from error
    return tuple(one for one in found if verdicts.get(one.id) is not Verdict.REJECTED)


def lungs_of(segmentation_node: Any, grid: sitk.Image | None = None) -> sitk.Image:
    """Return the lungs of a segmentation node as labels in the world, LPS mm.

    Args:
        segmentation_node: of a run.
        grid: to bring them to; None for their own.

    Raises:
        InputError: if it has no segment of a lung as a run makes them.
    """
    ids = _lung_ids(segmentation_node)
    return merged_segments(segmentation_node, ids, grid, np.uint8)


def lobes_of(segmentation_node: Any, grid: sitk.Image) -> sitk.Image | None:
    """Return the lobes that a run brought, as labels (`LOBES`) on a grid; None if there are none.

    Raises:
        InputError: if one is not kept as voxels.
    """
    ids = segments_of(segmentation_node, LOBE_STYLES)
    found = merged_segments(segmentation_node, ids, grid, np.uint8) if ids else None
    return found if found and sitk.GetArrayViewFromImage(found).any() else None


def coarse_lungs_of(segmentation_node: Any) -> sitk.Image:
    """Fast equivalent of `coarse_lungs` of `lungs_of`.

    Raises:
        InputError: as `lungs_of`.
    """
    ids = _lung_ids(segmentation_node)
    for segment_id in ids:
        _require_voxels(segmentation_node, segment_id)
    masks = {one: coarse_voxels(segmentation_node, one, coarse_steps) for one in ids}
    return _merged(masks, ids, _around([mask.grid for mask in masks.values()]), np.uint8)


def _lung_ids(segmentation_node: Any) -> dict[str, int]:
    """Return the labels of the lungs of a run by the ids of their segments."""
    found = segments_of(segmentation_node, LUNG_STYLES)
    if not found or segmentation_node.GetParentTransformNode() is not None:
        raise InputError(
            f"{segmentation_node.GetName()} has no lungs of a run, or is under a transform: "
            "choose the segmentation of a run, its transform hardened."
        )
    return found


def nodule_labels_of(result: ResultNodes) -> sitk.Image:
    """Return the nodules of the table as labels, their numbers, on the grid of the volume.

    Raises:
        InputError: if the segmentation lacks a nodule of the table, or names no volume.
    """
    hu = volume_of(result)
    numbers = _nodule_ids(result)
    if not numbers:
        empty = sitk.Image(hu.GetSize(), sitk.sitkUInt16)
        empty.CopyInformation(hu)
        return empty
    return merged_segments(result.segmentation, numbers, hu)


def _nodule_ids(result: ResultNodes) -> dict[str, int]:
    """Return the numbers of the nodules that are not rejected by the ids of their segments."""
    segmentation = result.segmentation.GetSegmentation()
    found = {nodule_style(one.id, 0).id: one.id for one in nodules_of(result.table)}
    for segment_id, number in found.items():
        if segmentation.GetSegment(segment_id) is None:
            raise InputError(
                f"{result.segmentation.GetName()} has no segment of nodule {number} of "
                f"{result.table.GetName()}: choose segmentation and table of the same run."
            )
    return found


def masks_work(result: ResultNodes) -> Work[RunMasks]:
    """Return lungs, lobes and nodules of the table, but for rejected ones, segment by segment.

    They are those at the moment it returns: if any is changed meanwhile, it begins again.

    Raises:
        InputError: if the segmentation lacks the lungs of a run or a nodule, or is under a
            transform, or the volume was moved.
    """
    segmentation = result.segmentation.GetSegmentation()
    while True:
        require_in_place(result)
        made_of = kinds, _ = _masks_made_of(result)
        found: dict[str, CroppedMask] = {}
        for done, segment_id in enumerate([one for ids in kinds for one in ids], start=1):
            _require_voxels(result.segmentation, segment_id)
            found |= voxels_by_id(segmentation, [segment_id])
            yield Pause("Reading segments", done, sum(map(len, kinds)))
            if made_of != _masks_made_of(result):
                break
        else:
            return RunMasks(
                volume_grid(volume_node_of(result)),
                *({ids[one]: found[one] for one in ids if one in found} for ids in kinds),
            )


def _masks_made_of(result: ResultNodes) -> tuple[list[dict[str, int]], list[Any]]:
    """The segments of lungs, nodules and lobes, and their images with the times of change."""
    node = result.segmentation
    kinds = [_lung_ids(node), _nodule_ids(result), segments_of(node, LOBE_STYLES)]
    segments = [node.GetSegmentation().GetSegment(one) for ids in kinds for one in ids]
    images = [one.GetRepresentation(BINARY_LABELMAP) for one in segments]
    return kinds, [(image, image and image.GetMTime()) for image in images]


def volume_of(results: ResultNodes) -> sitk.Image:
    """Return the HU of the volume that results are of, in the world, LPS mm.

    Raises:
        InputError: as `volume_node_of`.
    """
    return volume_image(volume_node_of(results))


def volume_image(volume_node: Any) -> sitk.Image:
    """Return a volume node as an image in the world, LPS mm; its voxels are copied."""
    return _placed(slicer.util.arrayFromVolume(volume_node), volume_grid(volume_node))


def volume_grid(volume_node: Any) -> Grid:
    """Return the grid of a volume node in the world, LPS mm."""
    to_lps = LPS_TO_RAS @ ijk_to_world(volume_node)
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    return Grid(
        tuple(to_lps[:3, 3].tolist()),
        tuple(spacing.tolist()),
        tuple((to_lps[:3, :3] / spacing).ravel().tolist()),
        volume_node.GetImageData().GetDimensions(),
    )


def chest_of(result: ResultNodes) -> ChestScan:
    """Return a scan with its lungs and nodules, named after the volume, dated as its study.

    Raises:
        InputError: as `lungs_of`, `volume_of`, `nodules_of` and `require_in_place`.
    """
    require_in_place(result)
    volume = volume_node_of(result)
    return ChestScan(
        volume.GetName(),
        volume_of(result),
        lungs_of(result.segmentation),
        nodules_of(result.table),
        study_date_of(volume),
        dicom_ids(result)[0],
    )


def dicom_ids(results: ResultNodes) -> tuple[str, str]:
    """Return patient ID and SeriesInstanceUID of the volume, as the subject hierarchy holds them.

    Either is empty where the volume is not from DICOM.
    """
    volume = volume_node_of(results)
    names = slicer.vtkMRMLSubjectHierarchyConstants
    patient = dicom_attribute(volume, names.GetDICOMPatientIDAttributeName())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    item = hierarchy.GetItemByDataNode(volume)
    return patient, hierarchy.GetItemUID(item, names.GetDICOMUIDName()) if item else ""


def dicom_attribute(volume_node: Any, name: str) -> str:
    """Return an attribute of a volume's patient or study in the subject hierarchy, "" if unset.

    Args:
        volume_node: from DICOM, or not.
        name: of an attribute, such as `DICOM.PatientID`; those of patients begin with this.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume_node.GetScene())
    names = slicer.vtkMRMLSubjectHierarchyConstants
    item = hierarchy.GetItemByDataNode(volume_node)
    if not item:
        return ""
    of_patient = name.startswith(f"{names.GetDICOMAttributePrefix()}Patient")
    level = names.GetDICOMLevelPatient() if of_patient else names.GetDICOMLevelStudy()
    return str(hierarchy.GetAttributeFromItemAncestor(item, name, level))


def study_date_of(volume_node: Any) -> datetime.date | None:
    """Return the date of a volume's study; None if it is not known."""
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMStudyDateAttributeName()
    return study_date(dicom_attribute(volume_node, name))


def reference_of(results: ResultNodes) -> Any | None:
    """Return the volume node that results are of, None if it is gone.

    In earlier scenes only the geometry of the segmentation says which it is.
    """
    return results.table.GetNodeReference(VOLUME_ROLE) or geometry_source(results.segmentation)


def geometry_source(segmentation_node: Any) -> Any | None:
    """Return the volume node that a segmentation has its geometry from, None if it is from none.

    It is what the user chose last as Specify geometry in the Segment Editor.
    """
    role = segmentation_node.GetReferenceImageGeometryReferenceRole()
    source = segmentation_node.GetNodeReference(role)
    return source if isinstance(source, slicer.vtkMRMLVolumeNode) else None


def volume_node_of(results: ResultNodes) -> Any:
    """Return the volume node that results are of.

    Raises:
        InputError: if it is gone, or has no image.
    """
    volume = reference_of(results)
    if not has_voxels(volume):
        raise InputError(
            f"{results.segmentation.GetName()} names no volume that it is from: choose the "
            "segmentation of a run, with its scan in the scene."
        )
    return volume


def merged_segments(
    segmentation_node: Any,
    values: Mapping[str, int],
    grid: sitk.Image | None = None,
    kind: Any = np.uint16,
) -> sitk.Image:
    """Combine segments into one label image in the world, LPS mm.

    Args:
        segmentation_node: not under a transform.
        values: segment id → its value; where segments overlap the highest counts.
        grid: to bring them to; None for the first one's.
        kind: of the image's voxels, numpy's.

    Raises:
        InputError: if one is not kept as voxels.
    """
    segmentation = segmentation_node.GetSegmentation()
    for segment_id in values:
        _require_voxels(segmentation_node, segment_id)
    place = _around([labelmap_grid(segmentation, one) for one in values])
    if grid is not None:
        place = Grid.of(grid)
    masks = voxels_by_id(segmentation, values)
    return _merged(masks, values, place, kind)


def _merged(
    masks: Mapping[str, CroppedMask], values: Mapping[str, int], grid: Grid, kind: Any
) -> sitk.Image:
    """Combine masks into one label image on a grid; the highest value wins where they overlap."""
    merged = np.zeros(grid.size[::-1], kind)
    for one in sorted(masks, key=values.__getitem__):
        here = masks[one].on(grid)
        if here is not None:
            merged[here.box][here.voxels] = values[one]
    return _placed(merged, grid)


def _require_voxels(segmentation_node: Any, segment_id: str) -> None:
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    if labelmap is None or labelmap.GetPointData().GetScalars() is None:
        raise InputError(
            f"{segment.GetName()} of {segmentation_node.GetName()} has no voxels: make binary "
            "labelmap its source in the Segmentations module, or choose another segmentation."
        )


def _placed(voxels: np.ndarray[Any, Any], grid: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin(grid.origin)
    image.SetSpacing(grid.spacing)
    image.SetDirection(grid.direction)
    return image


def _around(grids: Sequence[Grid]) -> Grid:
    """Extend the first grid so that it holds them all."""
    first = grids[0]
    voxel = first.first_voxel
    corners = np.array(
        [
            voxel.TransformPhysicalPointToContinuousIndex(place)
            for one in grids
            for place in one.corners().tolist()
        ]
    )
    last = np.array(first.size) - 1
    low = np.maximum(-np.floor(corners.min(axis=0) + 1e-3), 0).astype(int)
    high = np.maximum(np.ceil(corners.max(axis=0) - 1e-3) - last, 0).astype(int)
    return replace(
        first,
        origin=voxel.TransformIndexToPhysicalPoint((-low).tolist()),
        size=tuple((np.array(first.size) + low + high).tolist()),
    )


def _value(value: Any, kind: Any) -> Any:
    if isinstance(kind, UnionType):
        nothing = value == "" if isinstance(value, str) else np.isnan(value)
        return None if nothing else _value(value, get_args(kind)[0])
    return kind(value)


RULES = f"{TAG}.rules"
"""Attribute of the probability's node: the rules by which the nodules were found, as JSON."""


def of_table(table_node: Any | None) -> Any | None:
    """Return the probability that a table was made from, if it was kept."""
    return None if table_node is None else table_node.GetNodeReference(PROBABILITY_ROLE)


def bring(folder: Path, table_node: Any) -> Any:
    """Load the probability of a run into the scene and replace the table's earlier one.

    A run that is about to end has no record yet: its rules are kept by `set_rules`.

    Args:
        folder: of the run.
        table_node: of its nodules.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        image = read_labels(folder / PROBABILITY)
    except InputError as error:
        raise InputError(f"{folder / PROBABILITY} is damaged: run the scan again.") from error
    node = of_table(table_node)
    if node is None:
        # Slicer names the file of a hidden node after it, whatever the signs: none of the user's.
        node = add_node(table_node.GetScene(), "ScalarVolume", "Nodule probability")
        node.SetHideFromEditors(True)  # else it would be offered as a chest CT
        table_node.SetNodeReferenceID(PROBABILITY_ROLE, node.GetID())
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayViewFromImage(image))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(LPS_TO_RAS @ ijk_to_lps(image)))
    record = folder / RECORD
    node.SetAttribute(RULES, json.dumps(_rules(record) if record.exists() else {}))
    return node


def rules_of(node: Any) -> NoduleRules:
    """Return the rules by which the nodules in the scene were found."""
    return NoduleRules(**json.loads(node.GetAttribute(RULES) or "{}"))


def set_rules(node: Any, rules: NoduleRules) -> None:
    """Keep in the scene by which rules the nodules were found."""
    node.SetAttribute(RULES, json.dumps(asdict(rules)))


def set_threshold(node: Any, threshold: float) -> None:
    """Keep in the scene that the nodules were found at another threshold."""
    set_rules(node, replace(rules_of(node), threshold=threshold))


def _rules(file: Path) -> dict[str, Any]:
    try:
        rules: dict[str, Any] = parse_json(file.read_bytes())["parameters"]["rules"]
        return rules
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not the record of a run: run the scan again.") from error


def write_lungs(segmentation_node: Any, file: Path) -> None:
    """Write the lungs of a segmentation for `lung-nodule-seg run --lungs-file`.

    They are those of a run, else the segments with "lung" in their name, with "right" or "left" in
    it if they are of one side, such as the lobes of TotalSegmentator; else its only segment.

    Raises:
        InputError: if there is no such segment, the node is under a transform, or it holds the
            results of a volume that was moved since.
    """
    name = segmentation_node.GetName()
    for one in results_in(segmentation_node.GetScene()):
        if one.segmentation is segmentation_node and not is_in_place(one):
            raise InputError(
                f"The lungs of {name} are from before its scan was moved: choose no lungs, or move "
                "the scan back."
            )
    if segmentation_node.GetParentTransformNode() is not None:
        raise InputError(
            f"{name} is under a transform: harden it in the Transforms module and try again."
        )
    sides = _sides(segmentation_node)
    if not sides:
        raise InputError(
            f"{name} has no lungs: name their segments Right lung and Left lung and try again."
        )
    if 0 in sides.values():  # a segment of both sides: the run separates them
        sides = dict.fromkeys(sides, RIGHT_LUNG)
    lungs = merged_segments(segmentation_node, sides)
    sitk.WriteImage(sitk.Cast(lungs, sitk.sitkUInt8), file, useCompression=True, compressionLevel=1)


def _sides(segmentation_node: Any) -> dict[str, int]:
    """Segment ids of lungs with their side, 0 for both."""
    if run := segments_of(segmentation_node, LUNG_STYLES):
        return run
    segmentation = segmentation_node.GetSegmentation()
    ids = list(segmentation.GetSegmentIDs())
    names = {one: segmentation.GetSegment(one).GetName().lower() for one in ids}
    named = {one: _side(name) for one, name in names.items() if "lung" in name}
    return named or (dict.fromkeys(ids, 0) if len(ids) == 1 else {})


def _side(name: str) -> int:
    return RIGHT_LUNG if "right" in name else LEFT_LUNG if "left" in name else 0
