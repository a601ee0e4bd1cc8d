"""Single segments of nodules in a segmentation node: their voxels read, added, taken out, kept.

Each has a labelmap of its own that is no larger than the nodule, so that a change of one takes
no time and can touch no other.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import slicer
import vtk
from scipy.ndimage import find_objects
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from CTLungScreeningLib.child_process import Pause, Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import LPS_TO_RAS, CroppedMask, Grid
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.table import Nodule, Side
from LungNoduleSegLib.results.reading import RunMasks
from LungNoduleSegLib.results.segments import (
    ALGORITHM_TAGS,
    LOBE_STYLES,
    LUNG_STYLES,
    TAG,
    UNSMOOTHED,
    SegmentStyle,
    fingerprint,
    nodule_style,
)
from LungNoduleSegSlicer.scene.mrml_results import BINARY_LABELMAP, CLOSED_SURFACE

ADDED = "added"
"""The tag of a nodule that a reader added: it never equals the fingerprint of a run's segment."""


MOST_SURFACE_VOXELS = 4_000_000
"""The surface of a larger segment, a lung, is made of fewer voxels: it is but a backdrop in 3-D."""

_SMOOTHING = "Smoothing factor"


def segment_id(number: int) -> str:
    """Return the id of the segment of a nodule."""
    return nodule_style(number, 0).id


def numbers_of(ids: Iterable[str]) -> dict[str, int]:
    """Return the numbers of nodules by those ids that are of their segments."""
    start = segment_id(0)[:-1]
    tails = {one: one.removeprefix(start) for one in ids if one.startswith(start)}
    return {one: int(tail) for one, tail in tails.items() if tail.isdecimal()}


def segments_of(segmentation_node: Any, styles: Mapping[int, SegmentStyle]) -> dict[str, int]:
    """Return the labels, by segment id, of those of `LUNG_STYLES` or `LOBE_STYLES` that it has."""
    segmentation = segmentation_node.GetSegmentation()
    return {one.id: label for label, one in styles.items() if segmentation.GetSegment(one.id)}


def read_voxels(segmentation_node: Any, one: str) -> CroppedMask | None:
    """Read the voxels of a segment where they lie in its labelmap; None if it has none."""
    segment = segmentation_node.GetSegmentation().GetSegment(one)
    return None if segment is None else voxels_of(segment)


def voxels_of(segment: Any) -> CroppedMask | None:
    """Read the voxels of a vtkSegment where they lie in its labelmap; None if it has none."""
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    if labelmap is None or labelmap.GetPointData().GetScalars() is None:
        return None
    voxels = _array(labelmap) == segment.GetLabelValue()
    whole = tuple(slice(0, size) for size in voxels.shape)
    return CroppedMask.of(grid_of(labelmap), (whole[0], whole[1], whole[2]), voxels)


def voxels_by_id(segmentation: Any, ids: Iterable[str]) -> dict[str, CroppedMask]:
    """Read the voxels of segments that have any; a labelmap that they share is gone through once.

    Args:
        segmentation: a vtkSegmentation.
        ids: of its segments; those that are not there are left out.

    Returns:
        Masks by id, each as `voxels_of` gives it.
    """
    sharing: dict[Any, list[str]] = {}
    for one in ids:
        segment = segmentation.GetSegment(one)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP) if segment is not None else None
        if labelmap is not None and labelmap.GetPointData().GetScalars() is not None:
            sharing.setdefault(labelmap, []).append(one)
    found = {}
    for labelmap, together in sharing.items():
        labels, grid = _array(labelmap), grid_of(labelmap)
        if len(together) == 1:
            mask = voxels_of(segmentation.GetSegment(together[0]))
            if mask is not None:
                found[together[0]] = mask
            continue
        boxes = find_objects(labels)
        for one in together:
            value = segmentation.GetSegment(one).GetLabelValue()
            box = boxes[value - 1] if value <= len(boxes) else None
            if box is not None:
                found[one] = CroppedMask(grid, box, labels[box] == value)
    return found


def coarse_voxels(
    segmentation_node: Any, one: str, steps: Callable[[Sequence[float]], Sequence[int]]
) -> CroppedMask:
    """Read every so many voxels of a segment that has a labelmap.

    Args:
        segmentation_node: that holds it.
        one: its id.
        steps: returns the sampling steps in voxels for the spacing along x, y and z.
    """
    segment = segmentation_node.GetSegmentation().GetSegment(one)
    labelmap = segment.GetRepresentation(BINARY_LABELMAP)
    grid = grid_of(labelmap)
    i, j, k = steps(grid.spacing)
    voxels = _array(labelmap)[::k, ::j, ::i] == segment.GetLabelValue()
    spacing = np.multiply(grid.spacing, (i, j, k))
    coarse = replace(grid, spacing=tuple(spacing.tolist()), size=voxels.shape[::-1])
    z, y, x = (slice(0, size) for size in voxels.shape)
    return CroppedMask(coarse, (z, y, x), voxels)


def labelmap_grid(segmentation: Any, one: str) -> Grid:
    """Return the grid of the labelmap of a segment."""
    return grid_of(segmentation.GetSegment(one).GetRepresentation(BINARY_LABELMAP))


def values_under(mask: CroppedMask, labelmap: Any) -> set[int]:
    """Return the values of a labelmap under a mask on any grid."""
    here = mask.on(grid_of(labelmap))
    return set() if here is None else set(_array(labelmap)[here.box][here.voxels].tolist())


def is_as_made(segmentation_node: Any, one: str) -> bool:
    """Whether a segment is one that a run made, and neither renamed nor edited since."""
    segment = segmentation_node.GetSegmentation().GetSegment(one)
    mask = read_voxels(segmentation_node, one)
    mark = tag(segment, TAG)
    return mask is not None and mark == fingerprint(segment.GetName(), mask.voxels)


def is_redrawn(segmentation_node: Any, one: str) -> bool:
    """Whether a segment is one that a run made, and was renamed or edited since."""
    return is_of_run(segmentation_node, one) and not is_as_made(segmentation_node, one)


def is_of_run(segmentation_node: Any, one: str) -> bool:
    """Whether a segment is one that a run made, as it was or not."""
    return tag(segmentation_node.GetSegmentation().GetSegment(one), TAG) not in ("", ADDED)


def add_nodule(segmentation_node: Any, nodule: Nodule, mask: CroppedMask, *, by_run: bool) -> None:
    """Add the segment of a nodule, or change the one that a run made before.

    Args:
        segmentation_node: if `by_run` is off, without a segment of that nodule.
        nodule: gives number and side.
        mask: on the grid of the volume.
        by_run: whether the network found it: then a further run replaces it.
    """
    style = _style_of(nodule)
    segment = _segment(style, mask, by_run=by_run)
    if not by_run and segmentation_node.GetSegmentation().GetSegment(style.id) is not None:
        raise InputError(
            f"{segmentation_node.GetName()} did not take {style.name}: it has a segment of that "
            "nodule already."
        )
    _put(segmentation_node, style.id, segment)


def segments_work(masks: RunMasks, nodules: Iterable[Nodule]) -> Work[Any]:
    """Make the vtkSegmentation of a run, outside the scene, a segment at a time.

    Each segment brings its surface, so that the scene has none to make. That of a lung is coarse.

    Args:
        masks: of the run.
        nodules: of the table.
    """
    segmentation = slicer.vtkSegmentation()
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    segmentation.SetConversionParameter(_SMOOTHING, UNSMOOTHED)
    rows = {one.id: one for one in nodules}
    parts = [(LUNG_STYLES[side], mask) for side, mask in sorted(masks.lungs.items())]
    parts += [(LOBE_STYLES[number], mask) for number, mask in sorted(masks.lobes.items())]
    for number, mask in sorted(masks.nodules.items()):
        style = _style_of(rows[number]) if number in rows else nodule_style(number, 0)
        parts.append((style, mask))
    for done, (style, mask) in enumerate(parts, start=1):
        segment = _segment(style, mask, by_run=True)
        yield Pause("Importing", 2 * done - 1, 2 * len(parts))
        segment.AddRepresentation(CLOSED_SURFACE, _surface_of(mask))
        segmentation.AddSegment(segment, style.id)
        yield Pause("Importing", 2 * done, 2 * len(parts))
    return segmentation


def _segment(style: SegmentStyle, mask: CroppedMask, *, by_run: bool) -> Any:
    """A vtkSegment with a labelmap of its own."""
    segment = slicer.vtkSegment()
    segment.SetName(style.name)
    segment.SetColor(*style.color)
    segment.SetTag(segment.GetTerminologyEntryTagName(), style.terminology.to_slicer())
    segment.SetTag(TAG, fingerprint(style.name, mask.voxels) if by_run else ADDED)
    for name, value in ALGORITHM_TAGS.items() if by_run else ():
        segment.SetTag(name, value)
    segment.AddRepresentation(BINARY_LABELMAP, labelmap_of(mask))
    return segment


def _style_of(nodule: Nodule) -> SegmentStyle:
    return nodule_style(nodule.id, RIGHT_LUNG if nodule.side is Side.RIGHT else LEFT_LUNG)


def _surface_of(mask: CroppedMask) -> Any:
    """The surface of a mask as Slicer makes it, of every so many voxels if it has many."""
    step = math.ceil(np.cbrt(mask.voxels.size / MOST_SURFACE_VOXELS))
    start = [part.start for part in mask.box[::-1]]
    origin = mask.grid.first_voxel.TransformIndexToPhysicalPoint(start)
    voxels = mask.voxels[::step, ::step, ::step]
    spacing = tuple(step * one for one in mask.grid.spacing)
    grid = Grid(origin, spacing, mask.grid.direction, voxels.shape[::-1])
    z, y, x = (slice(0, size) for size in voxels.shape)
    segment = slicer.vtkSegment()
    segment.AddRepresentation(BINARY_LABELMAP, labelmap_of(CroppedMask(grid, (z, y, x), voxels)))
    alone = slicer.vtkSegmentation()
    alone.SetSourceRepresentationName(BINARY_LABELMAP)
    alone.SetConversionParameter(_SMOOTHING, UNSMOOTHED)
    alone.AddSegment(segment, "alone")
    alone.CreateRepresentation(CLOSED_SURFACE)
    return segment.GetRepresentation(CLOSED_SURFACE)


def _put(segmentation_node: Any, one: str, segment: Any) -> None:
    """Add a segment, or make the one that is there like it, as far as it is not.

    Slicer takes most of a second to draw a segment that is new, or that went.
    """
    segmentation = segmentation_node.GetSegmentation()
    there, mask = segmentation.GetSegment(one), voxels_of(segment)
    if there is None or mask is None:
        remove(segmentation_node, [one])
        segmentation.AddSegment(segment, one)
        return
    before = voxels_of(there)
    here = None if before is None else before.on(mask.grid)
    if (
        before is None
        or here is None
        or before.voxels.sum() != mask.voxels.sum()
        or here.box != mask.box
        or not np.array_equal(here.voxels, mask.voxels)
    ):
        separate(segmentation, [one])
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        logic.SetBinaryLabelmapToSegment(labelmap, segmentation_node, one, logic.MODE_REPLACE)
    if _about(there) != _about(segment):
        there.DeepCopyMetadata(segment)


def _about(segment: Any) -> tuple[Any, ...]:
    """The attributes of a segment other than its voxels and its review."""
    return segment.GetName(), segment.GetColor(), tag(segment, TAG)


def separate(segmentation: Any, ids: Iterable[str]) -> None:
    """Move segments into small labelmaps of their own; the voxels of all segments are unchanged.

    Args:
        segmentation: a vtkSegmentation.
        ids: of segments; one that is not there, or has no voxels, stays as it is.
    """
    for one, mask in voxels_by_id(segmentation, ids).items():
        segment = segmentation.GetSegment(one)
        before, value = segment.GetRepresentation(BINARY_LABELMAP), segment.GetLabelValue()
        if before.GetNumberOfPoints() == mask.voxels.size:
            continue
        left = _array(before)[mask.box]
        left[mask.voxels & (left == value)] = 0
        segment.SetLabelValue(1)
        segment.AddRepresentation(BINARY_LABELMAP, labelmap_of(mask))


def keep(
    segmentation_node: Any, ids: Collection[str], numbers: Collection[int]
) -> Callable[[Iterable[str]], dict[int, int]]:
    """Remember segments, or that there are none of these ids, and return what brings that back.

    What a reader has redrawn by then stays. A nodule takes the place of the remembered one that it
    shows; one that shows none keeps its number if that is free, and gets another if it is not.

    Args:
        segmentation_node: that holds them.
        ids: of the segments.
        numbers: of nodules of the table, which are not free.

    Returns:
        A function of the ids of segments added besides, which it takes out too. It returns the
        numbers of the redrawn nodules by those that they had.
    """
    segmentation = segmentation_node.GetSegmentation()
    order = list(segmentation.GetSegmentIDs())
    copies = {one: _copy(segmentation_node, one) for one in order if one in ids}

    def restore(added: Iterable[str]) -> dict[int, int]:
        if segmentation_node.GetScene() is None:
            return {}
        there = [*ids, *added]
        redrawn = [one for one in there if is_redrawn(segmentation_node, one)]
        alone = set(redrawn) - numbers_of(redrawn).keys()
        drawn, moved = _drawn(segmentation_node, numbers_of(redrawn), copies, numbers)
        put = {one: _deep_copy(copy) for one, copy in copies.items() if one not in alone} | drawn
        remove(segmentation_node, [one for one in there if one not in put and one not in alone])
        for one, segment in put.items():
            _put(segmentation_node, one, segment)
            if one in copies:
                place = min(order.index(one), segmentation.GetNumberOfSegments() - 1)
                if segmentation.GetSegmentIndex(one) != place:
                    segmentation.SetSegmentIndex(one, place)
        return moved

    return restore


def _drawn(
    segmentation_node: Any,
    redrawn: Mapping[str, int],
    copies: Mapping[str, Any],
    numbers: Collection[int],
) -> tuple[dict[str, Any], dict[int, int]]:
    """Copy redrawn nodules that have voxels for the places that `keep` gives them.

    Args:
        segmentation_node: that holds them.
        redrawn: their numbers by the ids of their segments.
        copies: the remembered segments by id.
        numbers: see `keep`.

    Returns:
        The copies by their new ids, and the new numbers by the old ones.
    """
    segmentation = segmentation_node.GetSegmentation()
    masks, kept = voxels_by_id(segmentation, redrawn), numbers_of(copies)
    shown = _shown_by(masks, {one: voxels_of(copies[one]) for one in kept})
    taken = numbers_of([*segmentation.GetSegmentIDs(), *copies]).values()
    last = max([*numbers, *taken], default=0)
    placed, moved = {}, {}
    for one in masks:
        segment, old, new = _copy(segmentation_node, one), redrawn[one], redrawn[one]
        name = segment.GetName()
        if one in shown:
            new = kept[shown[one]]
            segment.DeepCopyMetadata(copies[shown[one]])
        elif one in copies or old in numbers:
            new = last = last + 1
            renumber(segment, new)
        if name != nodule_style(old, 0).name:
            segment.SetName(name)
        placed[segment_id(new)], moved[old] = segment, new
    return placed, moved


def _shown_by(
    drawn: Mapping[str, CroppedMask], kept: Mapping[str, CroppedMask | None]
) -> dict[str, str]:
    """Return the kept nodule that each drawn one shows, if any; each is shown but once.

    Two masks show one nodule if they share at least half of the smaller one. Where several do, it
    is the pair that shares most.
    """
    shared: list[tuple[float, str, str]] = []
    for one, mask in drawn.items():
        for other, before in kept.items():
            here = None if before is None else mask.on(before.grid)
            if before is None or here is None:
                continue
            both = np.zeros(before.grid.size[::-1], np.uint8)
            both[before.box] += before.voxels
            both[here.box] += here.voxels
            volume = float(np.prod(before.grid.spacing) * (both == 2).sum())
            if volume >= min(_volume(mask), _volume(before)) / 2:
                shared.append((volume, one, other))
    found: dict[str, str] = {}
    for _, one, other in sorted(shared, reverse=True):
        if one not in found and other not in found.values():
            found[one] = other
    return found


def _volume(mask: CroppedMask) -> float:
    return float(np.prod(mask.grid.spacing) * mask.voxels.sum())


def renumber(segment: Any, number: int) -> None:
    """Give the vtkSegment of a nodule the name and colour of a number."""
    style = nodule_style(number, 0)
    segment.SetName(style.name)
    segment.SetColor(*style.color)


def remove(segmentation_node: Any, ids: Sequence[str]) -> None:
    """Remove segments; those they share a labelmap with keep theirs."""
    segmentation = segmentation_node.GetSegmentation()
    there = [one for one in dict.fromkeys(ids) if segmentation.GetSegment(one) is not None]
    separate(segmentation, there)
    for one in there:
        segmentation.RemoveSegment(one)


def tag(segment: Any, name: str) -> str:
    """Return the value of a segment's tag, "" if it has none."""
    value = vtk.reference("")
    return str(value) if segment is not None and segment.GetTag(name, value) else ""


def _copy(segmentation_node: Any, one: str) -> Any:
    """Copy a segment with a labelmap no larger than it."""
    segment = segmentation_node.GetSegmentation().GetSegment(one)
    copy = slicer.vtkSegment()
    copy.DeepCopyMetadata(segment)
    mask = read_voxels(segmentation_node, one)
    if mask is not None:
        copy.SetLabelValue(1)
        copy.AddRepresentation(BINARY_LABELMAP, labelmap_of(mask))
    return copy


def _deep_copy(segment: Any) -> Any:
    copy = slicer.vtkSegment()
    copy.DeepCopy(segment)
    return copy


def _array(labelmap: Any) -> np.ndarray[Any, Any]:
    low_x, high_x, low_y, high_y, low_z, high_z = labelmap.GetExtent()
    shape = (high_z - low_z + 1, high_y - low_y + 1, high_x - low_x + 1)
    return vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(shape)


def grid_of(labelmap: Any) -> Grid:
    """The grid of a labelmap whose first voxel is that of its extent."""
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    to_lps = LPS_TO_RAS @ slicer.util.arrayFromVTKMatrix(matrix)
    extent = labelmap.GetExtent()
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    return Grid(
        tuple((to_lps @ [*extent[::2], 1.0])[:3].tolist()),
        tuple(spacing.tolist()),
        tuple((to_lps[:3, :3] / spacing).ravel().tolist()),
        tuple(extent[2 * i + 1] - extent[2 * i] + 1 for i in range(3)),
    )


def labelmap_of(mask: CroppedMask) -> Any:
    """A labelmap of the extent of the box, 1 in the mask."""
    to_lps = np.eye(4)
    to_lps[:3, :3] = np.reshape(mask.grid.direction, (3, 3)) * mask.grid.spacing
    to_lps[:3, 3] = mask.grid.origin
    labelmap = slicer.vtkOrientedImageData()
    labelmap.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(LPS_TO_RAS @ to_lps))
    labelmap.SetExtent([end for part in mask.box[::-1] for end in (part.start, part.stop - 1)])
    values = numpy_to_vtk(mask.voxels.astype(np.uint8).ravel(), deep=True)
    values.SetName("ImageScalars")
    labelmap.GetPointData().SetScalars(values)
    return labelmap
