"""Review state in the nodes of the results, and the scan for measurements."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import SimpleITK as sitk
import vtk
from numpy.typing import NDArray

from CTLungScreeningLib.child_process import Pause, Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import (
    MARGIN_MM,
    AxialView,
    Box,
    CroppedMask,
    Grid,
    box_around,
    box_between,
    box_of,
    cut_out,
    grown,
    imaged_slices,
    masks_meet,
    onto_grid,
    shared_box,
)
from CTLungScreeningLib.hu import AIR_HU
from LungNoduleSegLib.nodules.finding import lobe_of
from LungNoduleSegLib.nodules.measures import NoduleMeter
from LungNoduleSegLib.nodules.outline import NoduleOutline
from LungNoduleSegLib.nodules.region_growing import grow_work
from LungNoduleSegLib.nodules.table import Column, Nodule, Outline, Verdict
from LungNoduleSegLib.nodules.threshold import LabelledNodule, ThresholdedNodules
from LungNoduleSegLib.results.segments import TAG, fingerprint, nodule_style
from LungNoduleSegSlicer.scene import mrml_results, nodule_segments, result_nodes
from LungNoduleSegSlicer.scene.nodule_segments import segment_id
from LungNoduleSegSlicer.scene.result_nodes import (
    POINTS_ROLE,
    VERDICT,
    ResultNodes,
    lobes_of,
    lungs_of,
    nodules_of,
    require_in_place,
    verdicts_of,
    volume_image,
    volume_node_of,
    volume_of,
)

VERDICT_TAG = f"{TAG}.{VERDICT}"
"""Tag of a segment with the verdict on its nodule."""

MEASURED = f"{TAG}.measured"
"""Attribute of the table: the fingerprints of the voxels that its rows were measured on, as JSON.

A tag of the segment would go back with the voxels when the Segment Editor undoes. Earlier scenes
have one of this name.
"""

Rows: TypeAlias = tuple[Sequence[Nodule], Mapping[int, str]]
"""Nodules of a table, and by number the fingerprints of the voxels that they were measured on."""

VERDICT_COLUMN = Column("Verdict", "", "A reader's: accepted, rejected or uncertain")


def show(
    results: ResultNodes,
    nodules: Sequence[Nodule],
    measured: Mapping[int, str],
    verdicts: Mapping[int, Verdict],
) -> None:
    """Make table, points and tags say what the nodules and verdicts are, see `Rows`."""
    modified = results.table.StartModify()
    mrml_results.fill_table(results.table, nodules)
    column = vtk.vtkStringArray()
    column.SetName(VERDICT)
    for one in nodules:
        column.InsertNextValue(verdicts.get(one.id, ""))
    results.table.AddColumn(column)
    results.table.SetColumnTitle(VERDICT, VERDICT_COLUMN.title)
    results.table.SetColumnDescription(VERDICT, VERDICT_COLUMN.description)
    keep_measured(results.table, {one.id: measured.get(one.id, "") for one in nodules})
    results.table.EndModify(modified)
    mrml_results.fill_points(results.fiducials, nodules)
    for one in nodules:
        _set_verdict_tag(results, one.id, verdicts.get(one.id, ""))


def edited(results: ResultNodes) -> tuple[int, ...]:
    """Return the nodules whose segments were edited or removed since they were measured."""
    measured = measured_on(results)
    now = fingerprints(results.segmentation.GetSegmentation(), measured)
    return tuple(number for number, mark in measured.items() if now.get(number) != mark)


def fingerprints(segmentation: Any, numbers: Iterable[int]) -> dict[int, str]:
    """Return the fingerprints of the voxels of nodules in a vtkSegmentation, if they have any."""
    ids = {segment_id(number): number for number in numbers}
    masks = nodule_segments.voxels_by_id(segmentation, ids)
    return {ids[one]: fingerprint("", mask.voxels) for one, mask in masks.items()}


def measured_on(results: ResultNodes) -> dict[int, str]:
    """Return by number the fingerprints of the voxels that the rows were measured on, or "".

    Raises:
        InputError: if the table is not one of nodules.
    """
    numbers = [one.id for one in nodules_of(results.table, rejected=True)]
    kept = results.table.GetAttribute(MEASURED)
    if kept is not None:
        marks = json.loads(kept)
        return {number: marks.get(str(number), "") for number in numbers}
    segmentation = results.segmentation.GetSegmentation()
    found = {
        number: nodule_segments.tag(segmentation.GetSegment(segment_id(number)), MEASURED)
        for number in numbers
    }
    for one, mask in nodule_segments.voxels_by_id(segmentation, map(segment_id, numbers)).items():
        (number,) = nodule_segments.numbers_of([one]).values()
        as_made = fingerprint(nodule_style(number, 0).name, mask.voxels)
        if nodule_segments.tag(segmentation.GetSegment(one), TAG) == as_made:
            found[number] = found[number] or fingerprint("", mask.voxels)
    return found


def keep_measured(table_node: Any, measured: Mapping[int, str]) -> None:
    """Keep by number the fingerprints of the voxels that the rows of a table were measured on."""
    table_node.SetAttribute(MEASURED, json.dumps(measured))


def require_measured(results: ResultNodes) -> None:
    """Raise `InputError` if a nodule that is not rejected was edited since it was measured."""
    verdicts = verdicts_of(results.table)
    for number in edited(results):
        if verdicts.get(number) is not Verdict.REJECTED:
            raise InputError(
                f"Nodule {number} of {volume_node_of(results).GetName()} was edited "
                "after it was measured: press Remeasure, then try again."
            )


def _set_verdict_tag(results: ResultNodes, number: int, value: str) -> None:
    """Set the tag of a nodule's segment, if the segment exists; "" removes the tag."""
    segment = results.segmentation.GetSegmentation().GetSegment(segment_id(number))
    if segment is None or nodule_segments.tag(segment, VERDICT_TAG) == value:
        return
    if value:
        segment.SetTag(VERDICT_TAG, str(value))
    else:
        segment.RemoveTag(VERDICT_TAG)


def keep(results: ResultNodes, segment_ids: Sequence[str]) -> Callable[[], None]:
    """Remember all that a review may change, and return what brings it back.

    `segment_ids` are those that are to be added or removed; of others only the tags change. What
    later changes add to the table is taken out too. A nodule of these that a reader has redrawn by
    then stays, see `nodule_segments.keep`.
    """
    before = nodules_of(results.table, rejected=True), measured_on(results)
    verdicts = verdicts_of(results.table)
    rules = results.probability and result_nodes.rules_of(results.probability)
    restore_segments = nodule_segments.keep(results.segmentation, segment_ids, before[1])

    def restore() -> None:
        there = still_there(results)
        if there is None:
            return
        later = rows_now(results)
        new = [segment_id(one.id) for one in later[0] if one.id not in before[1]]
        moved = restore_segments(new)
        if rules is not None:
            result_nodes.set_threshold(results.probability, rules.threshold)
        show(there, *with_drawn(before, later, moved), verdicts)

    return restore


def still_there(results: ResultNodes) -> ResultNodes | None:
    """Return results with their point list, perhaps made again; None if a node is gone."""
    points = results.table.GetNodeReference(POINTS_ROLE)
    nodes = (results.segmentation, results.table, points)
    if any(node is None or node.GetScene() is None for node in nodes):
        return None
    return replace(results, fiducials=points)


def rows_now(results: ResultNodes) -> Rows:
    """Return the rows of the table, none if somebody put something else into it."""
    try:
        return nodules_of(results.table, rejected=True), measured_on(results)
    except InputError:
        return (), {}


def with_drawn(before: Rows, later: Rows, moved: Mapping[int, int]) -> Rows:
    """Add to the rows from before a change those of nodules drawn since that show none of them.

    Args:
        before: the rows from before the change.
        later: those of the drawn nodules, and perhaps others.
        moved: the numbers of the drawn nodules by those that they have in `later`.
    """
    nodules, measured = {one.id: one for one in before[0]}, dict(before[1])
    for one in later[0]:
        new = moved.get(one.id)
        if new is not None and new not in nodules:
            nodules[new], measured[new] = replace(one, id=new), later[1][one.id]
    return list(nodules.values()), measured


@dataclass(frozen=True)
class ReviewedScan:
    """A scan with its lungs, and the kept probability if there is one.

    Attributes:
        grid: of the volume.
        whole: of the volume on axial slices.
        axial: HU, lungs and measures on an axial grid cropped to the lungs.
        finder: of nodules at any threshold, None without the probability.
        lobes: labels on the axial grid; None if they are not known.
    """

    grid: Grid
    whole: Grid
    axial: NoduleMeter
    finder: ThresholdedNodules | None
    lobes: sitk.Image | None

    @classmethod
    def work(cls, results: ResultNodes) -> Work["ReviewedScan"]:
        """Read a scan out of the scene, step by step: it takes seconds in all.

        Raises:
            InputError: as `lungs_of`, `volume_of` and `require_in_place`, or if the lungs lie
                outside the scan.
        """
        require_in_place(results)
        volume = volume_of(results)
        yield Pause("Preparing", 0, 2)
        view = imaged_slices(AxialView.of(volume, AIR_HU).image)
        grid = Grid.of(volume)
        original = grid.first_voxel
        yield Pause("Preparing", 0, 2)
        steps = results.probability and volume_image(results.probability)
        yield Pause("Preparing", 0, 2)
        hu = yield from _surroundings(results, view, steps)
        yield Pause("Preparing", 0, 2)
        lungs = lungs_of(results.segmentation, hu)
        yield Pause("Preparing", 0, 2)
        lobes = lobes_of(results.segmentation, lungs)
        whole = Grid.of(view)
        if steps is None:
            meter = yield from NoduleMeter.work(hu, lungs, None, original)
            return cls(grid, whole, meter, None, lobes)
        steps = onto_grid(steps, hu)
        yield Pause("Preparing", 0, 2)
        finder = yield from ThresholdedNodules.work(steps, hu, lungs, original)
        return cls(grid, whole, finder.ruler, finder, lobes)

    def grow_work(self, ras: Sequence[float]) -> Work[NoduleOutline]:
        """Outline a nodule about a point of the world, RAS mm; it lies on the axial grid.

        From the network's mark there, if it has one, else grown from the point.

        Raises:
            InputError: as `grow_nodule`.
        """
        x, y, z = ras
        point = (-x, -y, z)
        mark = self.finder.mark_at(point) if self.finder else None
        if mark is None:
            grown = yield from grow_work(self.axial.filled, self.axial.lungs, point)
            yield Pause("Outlining", 0, 1)
            outline, *_ = self.axial.outlines([(grown.box, grown.sure)])
            if outline.image is None:
                return NoduleOutline(grown.box, grown.mask, Outline.IMAGE)
            return outline
        yield Pause("Outlining", 0, 1)
        outlines = list(self.axial.outlines([mark]))
        index = np.array(self.axial.lungs.TransformPhysicalPointToIndex(point))[::-1]
        clicked = box_between(index, index + 1), np.ones((1, 1, 1), bool)
        held = (one for one in outlines if masks_meet(*clicked, one.box, one.mask))
        return next(held, outlines[0])

    def measure(self, number: int, mask: CroppedMask, *, by_hand: bool) -> Nodule:
        """Measure a nodule that was drawn or edited by hand, on any grid.

        Raises:
            InputError: if it lies outside the lungs and their surroundings.
        """
        here = self.on_axial(mask)
        if here is None and mask.on(self.whole) is None:
            raise InputError(
                f"Nodule {number} holds no voxel of the scan: draw it larger, or remove it."
            )
        if here is None:
            raise InputError(
                f"Nodule {number} lies outside the lungs: move it there, or remove its segment."
            )
        ruler = self.axial if self.finder is None or by_hand else self.finder
        return ruler.measure(number, NoduleOutline(here.box, here.voxels, Outline.HAND))

    def with_lobe(self, nodule: Nodule, box: Box, mask: NDArray[np.bool_]) -> Nodule:
        """Name the lobe of a nodule on the axial grid, if the lobes are known."""
        return (
            nodule if self.lobes is None else replace(nodule, lobe=lobe_of(self.lobes, box, mask))
        )

    def holds(self, mask: CroppedMask) -> bool:
        """Whether no voxel of a nodule in the scan lies beyond the cropped grid."""
        here, there = self.on_axial(mask), mask.on(self.whole)
        return there is None or (here is not None and here.voxels.sum() == there.voxels.sum())

    def on_axial(self, mask: CroppedMask) -> CroppedMask | None:
        """Resample a nodule to the axial grid; None if no voxel is inside."""
        return mask.on(Grid.of(self.axial.lungs))

    def on_volume(self, one: LabelledNodule | NoduleOutline) -> CroppedMask | None:
        """Resample a nodule of the axial grid to that of the volume."""
        return CroppedMask(Grid.of(self.axial.lungs), one.box, one.mask).on(self.grid)


def _surroundings(
    results: ResultNodes, view: sitk.Image, steps: sitk.Image | None
) -> Work[sitk.Image]:
    """Cut an axial scan to the lungs as they are now, the probability, and nodules that reach out.

    Raises:
        InputError: as `lungs_of`, or if the lungs lie outside the scan.
    """
    grid = Grid.of(view)
    lungs = lungs_of(results.segmentation)
    yield Pause("Preparing", 0, 2)
    held = box_of(sitk.GetArrayViewFromImage(lungs) > 0)
    box = held and Grid.of(lungs).covered(held, grid)
    if box is None:
        raise InputError(f"The lungs of {results.segmentation.GetName()} lie outside its scan.")
    margin = np.ceil(MARGIN_MM / np.array(grid.spacing[::-1])).astype(int)
    around = grown(box, margin, grid.size[::-1])
    ids = [segment_id(one.id) for one in nodules_of(results.table, rejected=True)]
    masks = nodule_segments.voxels_by_id(results.segmentation.GetSegmentation(), ids).values()
    nodules = (mask.grid.covered(mask.box, grid) for mask in masks)
    boxes = [around, *(one for one in nodules if one and shared_box(one, around))]
    if steps is not None:
        kept = Grid.of(steps)
        whole = kept.covered(box_between((0, 0, 0), kept.size[::-1]), grid)
        boxes += [whole] if whole else []
    yield Pause("Preparing", 0, 2)
    return cut_out(view, box_around(boxes))
