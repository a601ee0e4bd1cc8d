"""A reader's verdicts and corrections on the nodules of a run, in a Slicer scene."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from CTLungScreeningLib.child_process import Pause, Work, complete
from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene.history import History
from CTLungScreeningSlicer.scene.mrml_host import at_once
from LungNoduleSegLib.nodules.table import Nodule, Verdict
from LungNoduleSegLib.nodules.threshold import LabelledNodule
from LungNoduleSegLib.results.segments import LOBE_STYLES, LUNG_STYLES, fingerprint
from LungNoduleSegSlicer.scene import nodule_segments, result_nodes, review_state
from LungNoduleSegSlicer.scene.mrml_results import BINARY_LABELMAP
from LungNoduleSegSlicer.scene.nodule_segments import segment_id, segments_of
from LungNoduleSegSlicer.scene.rerun_merge import foreign_numbers, reviewed_nodules
from LungNoduleSegSlicer.scene.result_nodes import (
    ResultNodes,
    is_in_place,
    nodules_of,
    reference_of,
    verdicts_of,
)
from LungNoduleSegSlicer.scene.review_state import ReviewedScan

_DONE = {
    Verdict.ACCEPTED: "accept nodule {number}",
    Verdict.REJECTED: "reject nodule {number}",
    Verdict.UNCERTAIN: "call nodule {number} uncertain",
    None: "take back the verdict on nodule {number}",
}
"""Description of a change, by verdict."""


@dataclass(frozen=True)
class ReviewedNodule:
    """A nodule of the table with the reader's verdict, None as long as there is none."""

    nodule: Nodule
    verdict: Verdict | None


class ReviewLogic:
    """A reader's verdicts on the nodules of a run and corrections of them; each can be undone.

    Nodules keep their numbers whatever is changed. Segments that are not nodules of the table are
    never touched. A threshold makes all nodules new but those that a reader judged, added or
    edited.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._scan: tuple[Any, ReviewedScan] | None = None
        self._lobes: list[LabelledNodule] = []

    def nodules(self, results: ResultNodes) -> tuple[ReviewedNodule, ...]:
        """Return the nodules in the order of the table.

        Raises:
            InputError: if the table is not one of nodules.
        """
        verdicts = verdicts_of(results.table)
        found = nodules_of(results.table, rejected=True)
        return tuple(ReviewedNodule(one, verdicts.get(one.id)) for one in found)

    def place(self, results: ResultNodes, number: int) -> tuple[float, float, float]:
        """Return the centre of a nodule in the world, RAS mm.

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
        nodules = nodules_of(results.table, rejected=True)
        verdicts = verdicts_of(results.table)
        verdicts.pop(number, None)
        if verdict is not None:
            verdicts[number] = verdict
        with self._change(results, [], _DONE[verdict].format(number=number)):
            review_state.show(results, nodules, review_state.measured_on(results), verdicts)

    def addWork(self, results: ResultNodes, ras: Sequence[float]) -> Work[int]:
        """Add a nodule grown from a point; only the last step changes the scene.

        Args:
            results: of a run.
            ras: the point in the world, mm.

        Returns:
            Its number.

        Raises:
            InputError: as `grow_nodule`, or if there is a nodule already.
        """
        while True:
            scan = yield from self.prepareWork(results)
            outline = yield from scan.grow_work(ras)
            yield Pause("Adding", 0, 1)
            if self.isReady(results):
                break
        nodules = nodules_of(results.table, rejected=True)
        for other in self._labelled(results, scan, nodules):
            if other.overlaps(outline.box, outline.mask):
                raise InputError(
                    f"Nodule {other.nodule.id} is there already: edit it in the Segment Editor."
                )
        number = self._free_number(results, nodules)
        nodule = scan.axial.measure(number, outline)
        nodule = scan.with_lobe(nodule, outline.box, outline.mask)
        there = scan.on_volume(outline)
        if there is None:
            raise InputError("The point lies outside the scan: click on a nodule in a lung.")
        with self._change(results, [segment_id(number)], f"add nodule {number}"):
            nodule_segments.add_nodule(results.segmentation, nodule, there, by_run=False)
            measured = review_state.measured_on(results) | {number: fingerprint("", there.voxels)}
            review_state.show(results, (*nodules, nodule), measured, verdicts_of(results.table))
        return number

    addNodule = at_once(addWork)

    def removeNodule(self, results: ResultNodes, number: int) -> None:
        """Remove a nodule with its segment and its point.

        Raises:
            InputError: if there is no such nodule.
        """
        self._nodule(results, number)
        left = [one for one in nodules_of(results.table, rejected=True) if one.id != number]
        with self._change(results, [segment_id(number)], f"remove nodule {number}"):
            nodule_segments.remove(results.segmentation, [segment_id(number)])
            measured = review_state.measured_on(results)
            review_state.show(results, left, measured, verdicts_of(results.table))

    edited = staticmethod(review_state.edited)

    def remeasureWork(self, results: ResultNodes) -> Work[tuple[int, ...]]:
        """Measure the nodules again whose segments were edited; those without voxels leave.

        Only the last step changes the scene.

        Returns:
            The numbers of the nodules that were measured or left.

        Raises:
            InputError: if one lies outside the lungs and their surroundings.
        """
        scan = yield from self.prepareWork(results)
        edited = self.edited(results)
        drawn = {
            number: nodule_segments.read_voxels(results.segmentation, segment_id(number))
            for number in edited
        }
        if not all(mask is None or scan.holds(mask) for mask in drawn.values()):
            self._scan = None  # a nodule reaches out of the surroundings of the lungs
            scan = yield from self.prepareWork(results)
        kept, measured = [], review_state.measured_on(results)
        for nodule in nodules_of(results.table, rejected=True):
            if nodule.id not in edited:
                kept.append(nodule)
                continue
            mask = drawn[nodule.id]
            if mask is not None:
                again = scan.measure(nodule.id, mask, by_hand=nodule.probability is None)
                kept.append(replace(again, lobe=nodule.lobe))
                measured[nodule.id] = fingerprint("", mask.voxels)
        if edited:
            numbers = ", ".join(map(str, edited))
            with self._change(results, [], f"remeasure nodule {numbers}"):
                review_state.show(results, kept, measured, verdicts_of(results.table))
        return edited

    remeasure = at_once(remeasureWork)

    def isReady(self, results: ResultNodes) -> bool:
        """Whether changes take no time because `prepare` was called."""
        return self._scan is not None and self._scan[0] == (results, _made_of(results))

    def prepare(self, results: ResultNodes) -> ReviewedScan:
        """Run `prepareWork` at once."""
        return complete(self.prepareWork(results))

    def prepareWork(self, results: ResultNodes) -> Work[ReviewedScan]:
        """Prepare for changes; this takes seconds the first time and is then remembered.

        Raises:
            InputError: if the segmentation has no lungs of a run, or its scan is gone or was moved.
        """
        while self._scan is None or not self.isReady(results):
            made_of = _made_of(results)
            scan = yield from ReviewedScan.work(results)
            self._scan = (results, made_of), scan
            numbers = [one.id for one in nodules_of(results.table, rejected=True)]
            segmentation = results.segmentation.GetSegmentation()
            nodule_segments.separate(segmentation, [segment_id(n) for n in numbers])
            known = [one for one in nodules_of(results.table, rejected=True) if one.lobe]
            self._lobes = self._labelled(results, self._scan[1], known)
        return self._scan[1]

    def lowestThreshold(self, results: ResultNodes) -> float | None:
        """Return the smallest threshold; None if the probability was not kept."""
        finder = self.prepare(results).finder
        return None if finder is None else finder.lowest

    def threshold(self, results: ResultNodes) -> float | None:
        """Return the threshold of the nodules; None if the probability was not kept."""
        if results.probability is None:
            return None
        return result_nodes.rules_of(results.probability).threshold

    def thresholdWork(self, results: ResultNodes, threshold: float) -> Work[None]:
        """Find the nodules again at another threshold, without running the network.

        Only the last step changes the scene; changes that follow each other are undone together.
        If a reader or a run changes the results meanwhile, it begins again with what there is then.

        Raises:
            InputError: if the run did not keep its probability.
        """
        while True:
            scan = yield from self.prepareWork(results)
            if scan.finder is None:
                name = results.segmentation.GetName()
                raise InputError(f"The probability of {name} was not kept: run it again.")
            rules = replace(result_nodes.rules_of(results.probability), threshold=threshold)
            verdicts, stay = reviewed = verdicts_of(results.table), reviewed_nodules(results)
            numbers = {one.id for one in stay}
            found = yield from scan.finder.find_work(
                rules,
                avoid=self._labelled(results, scan, stay),
                numbers=[*numbers, *foreign_numbers(results)],
            )
            yield Pause("Showing", 0, 1)
            now = verdicts_of(results.table), reviewed_nodules(results)
            if reviewed == now and self.isReady(results):
                break
        before = nodules_of(results.table, rejected=True)
        go = [segment_id(one.id) for one in before if one.id not in numbers]
        found = tuple(_with_lobe(one, self._lobes, scan) for one in found)
        new = [segment_id(one.nodule.id) for one in found]
        kind = f"threshold {results.table.GetID()}"
        with self._change(results, [*go, *new], "change the threshold", kind):
            nodule_segments.remove(results.segmentation, [one for one in go if one not in new])
            shown, measured = [], review_state.measured_on(results)
            for one in found:
                there = scan.on_volume(one)
                if there is None:
                    nodule_segments.remove(results.segmentation, [segment_id(one.nodule.id)])
                    continue
                nodule_segments.add_nodule(results.segmentation, one.nodule, there, by_run=True)
                shown.append(one.nodule)
                measured[one.nodule.id] = fingerprint("", there.voxels)
            together = sorted([*stay, *shown], key=lambda one: one.id)
            review_state.show(results, together, measured, verdicts)
            result_nodes.set_threshold(results.probability, threshold)

    setThreshold = at_once(thresholdWork)

    def _nodule(self, results: ResultNodes, number: int) -> Nodule:
        for one in nodules_of(results.table, rejected=True):
            if one.id == number:
                return one
        raise InputError(f"{results.table.GetName()} has no nodule {number}: choose another.")

    def _labelled(
        self, results: ResultNodes, scan: ReviewedScan, nodules: Sequence[Nodule]
    ) -> list[LabelledNodule]:
        """Return the nodules that have voxels on the axial grid, with these."""
        found = []
        for nodule in nodules:
            mask = nodule_segments.read_voxels(results.segmentation, segment_id(nodule.id))
            here = None if mask is None else scan.on_axial(mask)
            if here is not None:
                found.append(LabelledNodule(nodule, here.box, here.voxels))
        return found

    def _free_number(self, results: ResultNodes, nodules: Sequence[Nodule]) -> int:
        """A number above all that were ever assigned in this scene."""
        taken = [one.id for one in nodules] + foreign_numbers(results)
        return max(taken, default=0) + 1

    def _change(
        self, results: ResultNodes, segment_ids: Sequence[str], what: str, kind: str = ""
    ) -> AbstractContextManager[None]:
        """Change results in a `with` block, see `History.step`.

        `segment_ids` are those that the block adds or removes; of others only the tags change.
        """
        scan = reference_of(results) or results.segmentation
        restore = review_state.keep(results, segment_ids)
        return self._history.step(restore, f"{what} of {scan.GetName()}", kind)


def _with_lobe(
    one: LabelledNodule, earlier: Sequence[LabelledNodule], scan: ReviewedScan
) -> LabelledNodule:
    """Name the lobe of a nodule if the lobes are known, or one that it overlaps has a lobe."""
    lobes = (other.nodule.lobe for other in earlier if other.overlaps(one.box, one.mask))
    nodule = replace(one.nodule, lobe=next(lobes, None))
    return replace(one, nodule=scan.with_lobe(nodule, one.box, one.mask))


def _made_of(results: ResultNodes) -> list[Any]:
    """The place of a `ReviewedScan`, its images, and their times of modification."""
    volumes = reference_of(results), results.probability
    styles = (LUNG_STYLES, LOBE_STYLES)
    ids = [one for kind in styles for one in segments_of(results.segmentation, kind)]
    lungs = map(results.segmentation.GetSegmentation().GetSegment, ids)
    images = [one and one.GetImageData() for one in volumes]
    images += [one.GetRepresentation(BINARY_LABELMAP) for one in lungs]
    times = [(image, image and image.GetMTime()) for image in images]
    return [is_in_place(results), *times]
