"""Review state in the nodes of the results, and the scan for measurements."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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

MEASURED_TAG = f"{TAG}.measured"
"""Tag of a segment: the fingerprint of the voxels that its row was measured on."""

VERDICT_COLUMN = Column("Verdict", "", "A reader's: accepted, rejected or uncertain")


def show(results: ResultNodes, nodules: Sequence[Nodule], verdicts: Mapping[int, Verdict]) -> None:
    """Make table, points and tags say what the nodules and verdicts are."""
    modified = results.table.StartModify()
    mrml_results.fill_table(results.table, nodules)
    column = vtk.vtkStringArray()
    column.SetName(VERDICT)
    for one in nodules:
        column.InsertNextValue(verdicts.get(one.id, ""))
    results.table.AddColumn(column)
    results.table.SetColumnTitle(VERDICT, VERDICT_COLUMN.title)
    results.table.SetColumnDescription(VERDICT, VERDICT_COLUMN.description)
    results.table.EndModify(modified)
    mrml_results.fill_points(results.fiducials, nodules)
    for one in nodules:
        set_tag(results, one.id, VERDICT_TAG, verdicts.get(one.id, ""))


def edited(results: ResultNodes) -> tuple[int, ...]:
    """Return the nodules whose segments were edited or removed since they were measured."""
    ids = {one.id: segment_id(one.id) for one in nodules_of(results.table, rejected=True)}
    segmentation = results.segmentation.GetSegmentation()
    there = nodule_segments.voxels_by_id(segmentation, ids.values())
    return tuple(
        number
        for number, one in ids.items()
        if one not in there or not _is_measured(results, number, there[one])
    )


def _is_measured(results: ResultNodes, number: int, mask: CroppedMask) -> bool:
    """Whether these voxels are those that the row of a nodule was measured on."""
    segment = results.segmentation.GetSegmentation().GetSegment(segment_id(number))
    measured = nodule_segments.tag(segment, MEASURED_TAG)
    if measured:
        return measured == fingerprint("", mask.voxels)
    as_made = fingerprint(nodule_style(number, 0).name, mask.voxels)
    return nodule_segments.tag(segment, TAG) == as_made


def require_measured(results: ResultNodes) -> None:
    """Raise `InputError` if a nodule that is not rejected was edited since it was measured."""
    verdicts = verdicts_of(results.table)
    for number in edited(results):
        if verdicts.get(number) is not Verdict.REJECTED:
            raise InputError(
                f"Nodule {number} of {volume_node_of(results.segmentation).GetName()} was edited "
                "after it was measured: press Remeasure, then try again."
            )


def set_tag(results: ResultNodes, number: int, name: str, value: str) -> None:
    """Set a tag of a nodule's segment, if the segment exists; "" removes the tag."""
    segment = results.segmentation.GetSegmentation().GetSegment(segment_id(number))
    if segment is None or nodule_segments.tag(segment, name) == value:
        return
    if value:
        segment.SetTag(name, str(value))
    else:
        segment.RemoveTag(name)


def keep(results: ResultNodes, segment_ids: Sequence[str]) -> Callable[[], None]:
    """Remember all that a review may change, and return what brings it back.

    `segment_ids` are those that are to be added or removed; of others only the tags change. What
    later changes add to the table is taken out too. A nodule of these that a reader has redrawn by
    then stays, see `nodule_segments.keep`.
    """
    nodules = nodules_of(results.table, rejected=True)
    verdicts = verdicts_of(results.table)
    segmentation = results.segmentation.GetSegmentation()
    measured = {
        one.id: nodule_segments.tag(segmentation.GetSegment(segment_id(one.id)), MEASURED_TAG)
        for one in nodules
    }
    rules = results.probability and result_nodes.rules_of(results.probability)
    restore_segments = nodule_segments.keep(results.segmentation, segment_ids, measured)

    def restore() -> None:
        there = still_there(results)
        if there is None:
            return
        later = rows_now(results)
        new = [segment_id(one.id) for one in later if one.id not in measured]
        moved = restore_segments(new)
        for number, mark in measured.items():
            set_tag(results, number, MEASURED_TAG, mark)
        if rules is not None:
            result_nodes.set_threshold(results.probability, rules.threshold)
        show(there, with_drawn(nodules, later, moved), verdicts)

    return restore


def still_there(results: ResultNodes) -> ResultNodes | None:
    """Return results with their point list, perhaps made again; None if a node is gone."""
    points = results.table.GetNodeReference(POINTS_ROLE)
    nodes = (results.segmentation, results.table, points)
    if any(node is None or node.GetScene() is None for node in nodes):
        return None
    return replace(results, fiducials=points)


def rows_now(results: ResultNodes) -> tuple[Nodule, ...]:
    """Return the nodules of the table, none if somebody put something else into it."""
    try:
        return nodules_of(results.table, rejected=True)
    except InputError:
        return ()


def with_drawn(
    nodules: Sequence[Nodule], later: Sequence[Nodule], moved: Mapping[int, int]
) -> list[Nodule]:
    """Add to the rows from before a change those of nodules drawn since that show none of them.

    Args:
        nodules: from before.
        later: the rows of the drawn nodules, and perhaps others.
        moved: the numbers of the drawn nodules by those that they have in `later`.
    """
    rows = {one.id: one for one in nodules}
    for one in later:
        if one.id in moved:
            rows.setdefault(moved[one.id], replace(one, id=moved[one.id]))
    return list(rows.values())


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
        volume = volume_of(results.segmentation)
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
