"""A reader's verdicts and corrections on the nodules of a run, in a Slicer scene."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import vtk

from CTSliceToolsLib.errors import InputError
from CTSliceToolsLib.scene.undo import Change, Undoable
from LungNoduleSegLib.nodules.table import Column, Nodule, Verdict
from LungNoduleSegLib.nodules.threshold import LabelledNodule
from LungNoduleSegLib.results.segments import LUNG_STYLES, TAG, fingerprint
from LungNoduleSegLib.scene import mrml_results, nodule_segments
from LungNoduleSegLib.scene.mrml_results import BINARY_LABELMAP
from LungNoduleSegLib.scene.nodule_segments import segment_id
from LungNoduleSegLib.scene.result_nodes import VERDICT, ResultNodes, nodules_of, verdicts_of
from LungNoduleSegLib.scene.reviewed_scan import ReviewedScan

VERDICT_TAG = f"{TAG}.{VERDICT}"
"""Tag of a segment with the verdict on its nodule."""

MEASURED_TAG = f"{TAG}.measured"
"""Tag of a segment: the fingerprint of the voxels that its row was measured on."""

VERDICT_COLUMN = Column("Verdict", "", "A reader's: accepted, rejected or uncertain")


@dataclass(frozen=True)
class ReviewedNodule:
    """A nodule of the table with the reader's verdict, None as long as there is none."""

    nodule: Nodule
    verdict: Verdict | None


class ReviewLogic(Undoable):
    """Lets a reader judge and correct the nodules of a run; each change can be undone.

    Nodules keep their numbers whatever is changed. Segments that are no nodule of the table are
    never touched. A threshold makes all nodules new but those that a reader judged, added or
    edited.
    """

    def __init__(self) -> None:
        super().__init__()
        self._scan: tuple[Any, ReviewedScan] | None = None

    def nodules(self, results: ResultNodes) -> tuple[ReviewedNodule, ...]:
        """Give the nodules in the order of the table.

        Raises:
            InputError: if the table is not one of nodules.
        """
        verdicts = verdicts_of(results.table)
        found = nodules_of(results.table, rejected=True)
        return tuple(ReviewedNodule(one, verdicts.get(one.id)) for one in found)

    def neighbour(self, results: ResultNodes, number: int | None, step: int = 1) -> int | None:
        """Give the nodule that is `step` further in the table, from the last on to the first.

        Args:
            results: of a run.
            number: of the nodule to go on from; None, or one that is gone: before the first.
            step: negative to go back.

        Returns:
            Its number; None if there is no nodule.
        """
        numbers = [one.nodule.id for one in self.nodules(results)]
        if not numbers:
            return None
        start = numbers.index(number) if number in numbers else (-1 if step > 0 else 0)
        return numbers[(start + step) % len(numbers)]

    def place(self, results: ResultNodes, number: int) -> tuple[float, float, float]:
        """Give the centre of a nodule in the world, RAS mm.

        Raises:
            InputError: if there is no such nodule.
        """
        one = self._nodule(results, number)
        return -one.x, -one.y, one.z

    def setVerdict(self, results: ResultNodes, number: int, verdict: Verdict | None) -> None:
        """Accept or reject a nodule or call it uncertain; None takes the verdict back.

        Raises:
            InputError: if there is no such nodule.
        """
        self._nodule(results, number)
        verdicts = verdicts_of(results.table)
        verdicts.pop(number, None)
        if verdict is not None:
            verdicts[number] = verdict
        with self._change(results, []):
            self._show(results, nodules_of(results.table, rejected=True), verdicts)

    def addNodule(self, results: ResultNodes, ras: Sequence[float]) -> int:
        """Add a nodule grown from a point.

        Args:
            results: of a run.
            ras: the point in the world, mm.

        Returns:
            Its number.

        Raises:
            InputError: as `grow_nodule`, or if there is a nodule already.
        """
        scan = self.prepare(results)
        mask = scan.grow(ras)
        nodules = nodules_of(results.table, rejected=True)
        for other in self._labelled(results, scan, nodules):
            if other.overlaps(mask.box, mask.voxels):
                raise InputError(
                    f"Nodule {other.nodule.id} is there already: edit it in the Segment Editor."
                )
        number = self._free_number(results, nodules)
        nodule = scan.measure(number, mask, by_hand=True)
        there = mask.on(scan.grid)
        if there is None:
            raise InputError("The point lies outside the scan: click on a nodule in a lung.")
        with self._change(results, [segment_id(number)]):
            nodule_segments.add_nodule(results.segmentation, nodule, there, by_run=False)
            self._show(results, (*nodules, nodule), verdicts_of(results.table))
        return number

    def removeNodule(self, results: ResultNodes, number: int) -> None:
        """Remove a nodule with its segment and its point.

        Raises:
            InputError: if there is no such nodule.
        """
        self._nodule(results, number)
        left = [one for one in nodules_of(results.table, rejected=True) if one.id != number]
        with self._change(results, [segment_id(number)]):
            nodule_segments.remove(results.segmentation, [segment_id(number)])
            self._show(results, left, verdicts_of(results.table))

    def remeasure(self, results: ResultNodes) -> tuple[int, ...]:
        """Measure the nodules again whose segments were edited; those without voxels leave.

        Returns:
            The numbers of the nodules that were measured or left.

        Raises:
            InputError: if one lies outside the lungs and their surroundings.
        """
        scan = self.prepare(results)
        kept, changed, marks = [], [], {}
        for nodule in nodules_of(results.table, rejected=True):
            one = segment_id(nodule.id)
            mask = nodule_segments.read_voxels(results.segmentation, one)
            if mask is None:
                changed.append(nodule.id)
                continue
            mark = fingerprint("", mask.voxels)
            segment = results.segmentation.GetSegmentation().GetSegment(one)
            measured = nodule_segments.tag(segment, MEASURED_TAG)
            unchanged = measured == mark if measured else not self._is_edited(results, nodule)
            if unchanged:
                kept.append(nodule)
                continue
            by_hand = nodule.probability is None
            kept.append(scan.measure(nodule.id, mask, by_hand=by_hand))
            marks[one] = mark
            changed.append(nodule.id)
        if changed:
            with self._change(results, []):
                for one, mark in marks.items():
                    segment = results.segmentation.GetSegmentation().GetSegment(one)
                    segment.SetTag(MEASURED_TAG, mark)
                self._show(results, kept, verdicts_of(results.table))
        return tuple(changed)

    def prepare(self, results: ResultNodes) -> ReviewedScan:
        """Make ready for changes, which takes seconds the first time; afterwards it is known.

        Raises:
            InputError: if the segmentation has no lungs of a run, or its scan is gone.
        """
        key = results, _made_of(results)
        if self._scan is None or self._scan[0] != key:
            self._scan = key, ReviewedScan.of(results)
            numbers = [one.id for one in nodules_of(results.table, rejected=True)]
            nodule_segments.separate(results.segmentation, [segment_id(n) for n in numbers])
        return self._scan[1]

    def lowestThreshold(self, results: ResultNodes) -> float | None:
        """Give the smallest threshold; None if the probability was not kept."""
        finder = self.prepare(results).finder
        return None if finder is None else finder.lowest

    def setThreshold(self, results: ResultNodes, threshold: float) -> None:
        """Find the nodules again at another threshold, without running the network.

        Steps that follow each other are undone together.

        Raises:
            InputError: if the run did not keep its probability.
        """
        scan = self.prepare(results)
        if scan.finder is None:
            raise InputError(
                f"The probability of {results.segmentation.GetName()} was not kept: run it again."
            )
        verdicts = verdicts_of(results.table)
        before = nodules_of(results.table, rejected=True)
        stay = [
            one
            for one in before
            if one.id in verdicts or one.probability is None or self._is_edited(results, one)
        ]
        numbers = {one.id for one in stay}
        go = [segment_id(one.id) for one in before if one.id not in numbers]
        found = scan.finder.find(
            replace(scan.rules, threshold=threshold),
            avoid=self._labelled(results, scan, stay),
            numbers=[*numbers, *self._foreign_numbers(results, before)],
        )
        new = [segment_id(one.nodule.id) for one in found]
        with self._change(results, [*go, *new], kind=f"threshold {results.table.GetID()}"):
            nodule_segments.remove(results.segmentation, go)
            shown = []
            for one in found:
                there = scan.on_volume(one)
                if there is not None:
                    nodule_segments.add_nodule(results.segmentation, one.nodule, there, by_run=True)
                    shown.append(one.nodule)
            together = sorted([*stay, *shown], key=lambda one: one.id)
            self._show(results, together, verdicts)

    def _nodule(self, results: ResultNodes, number: int) -> Nodule:
        for one in nodules_of(results.table, rejected=True):
            if one.id == number:
                return one
        raise InputError(f"{results.table.GetName()} has no nodule {number}: choose another.")

    def _is_edited(self, results: ResultNodes, nodule: Nodule) -> bool:
        return not nodule_segments.is_as_made(results.segmentation, segment_id(nodule.id))

    def _labelled(
        self, results: ResultNodes, scan: ReviewedScan, nodules: Sequence[Nodule]
    ) -> list[LabelledNodule]:
        """Give nodules with their voxels on the axial grid, of those that have any there."""
        found = []
        for nodule in nodules:
            mask = nodule_segments.read_voxels(results.segmentation, segment_id(nodule.id))
            here = None if mask is None else scan.on_axial(mask)
            if here is not None:
                found.append(LabelledNodule(nodule, here.box, here.voxels))
        return found

    def _foreign_numbers(self, results: ResultNodes, nodules: Sequence[Nodule]) -> list[int]:
        """Numbers whose segment is there, but is no nodule of the table."""
        ours = {segment_id(one.id) for one in nodules}
        ids = results.segmentation.GetSegmentation().GetSegmentIDs()
        return [
            int(tail)
            for one in ids
            if one not in ours and (tail := one.removeprefix(segment_id(0)[:-1])).isdecimal()
        ]

    def _free_number(self, results: ResultNodes, nodules: Sequence[Nodule]) -> int:
        """A number above all that were ever given here, as far as the scene shows."""
        taken = [one.id for one in nodules] + self._foreign_numbers(results, nodules)
        return max(taken, default=0) + 1

    def _show(
        self, results: ResultNodes, nodules: Sequence[Nodule], verdicts: Mapping[int, Verdict]
    ) -> None:
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
            self._tag(results, one.id, verdicts.get(one.id))

    def _tag(self, results: ResultNodes, number: int, verdict: Verdict | None) -> None:
        segment = results.segmentation.GetSegmentation().GetSegment(segment_id(number))
        if segment is None or nodule_segments.tag(segment, VERDICT_TAG) == (verdict or ""):
            return
        if verdict is None:
            segment.RemoveTag(VERDICT_TAG)
        else:
            segment.SetTag(VERDICT_TAG, str(verdict))

    @contextmanager
    def _change(
        self, results: ResultNodes, segment_ids: Sequence[str], kind: str = ""
    ) -> Iterator[None]:
        """Leave all as it was if the block fails; else remember how to take it back.

        `segment_ids` are those that the block adds or removes; of others only the tags change.
        """
        restore = self._keep(results, segment_ids)
        try:
            yield
        except BaseException:
            restore()
            raise
        self.remember(Change(restore, kind))

    def _keep(self, results: ResultNodes, segment_ids: Sequence[str]) -> Callable[[], None]:
        nodules = nodules_of(results.table, rejected=True)
        verdicts = verdicts_of(results.table)
        segmentation = results.segmentation.GetSegmentation()
        measured = {
            one: nodule_segments.tag(segmentation.GetSegment(one), MEASURED_TAG)
            for one in (segment_id(nodule.id) for nodule in nodules)
        }
        restore_segments = nodule_segments.keep(results.segmentation, segment_ids)

        def restore() -> None:
            if any(
                node.GetScene() is None
                for node in (results.segmentation, results.table, results.fiducials)
            ):
                return
            restore_segments()
            for one, mark in measured.items():
                segment = segmentation.GetSegment(one)
                if segment is not None and nodule_segments.tag(segment, MEASURED_TAG) != mark:
                    segment.SetTag(MEASURED_TAG, mark)
            self._show(results, nodules, verdicts)

        return restore


def _made_of(results: ResultNodes) -> list[Any]:
    """What a `ReviewedScan` is made of, and when each was last changed."""
    role = results.segmentation.GetReferenceImageGeometryReferenceRole()
    volumes = results.segmentation.GetNodeReference(role), results.probability
    segmentation = results.segmentation.GetSegmentation()
    lungs = [segmentation.GetSegment(style.id) for style in LUNG_STYLES.values()]
    images = [one and one.GetImageData() for one in volumes]
    images += [one and one.GetRepresentation(BINARY_LABELMAP) for one in lungs]
    return [(image, image and image.GetMTime()) for image in images]
