"""A run into the results of an earlier one: what a reader has done to these stays."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import slicer

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.nodules.table import Nodule, Verdict
from LungNoduleSegLib.results.segments import TAG, fingerprint
from LungNoduleSegSlicer.scene import nodule_segments, review_state
from LungNoduleSegSlicer.scene.mrml_results import BINARY_LABELMAP, own_segments, take_segment
from LungNoduleSegSlicer.scene.nodule_segments import segment_id
from LungNoduleSegSlicer.scene.result_nodes import (
    POINTS_ROLE,
    PROBABILITY_ROLE,
    SEGMENTATION_ROLE,
    VOLUME_ROLE,
    ResultNodes,
    geometry_source,
    nodules_of,
    reference_of,
    results_in,
    verdicts_of,
)


@dataclass(frozen=True)
class RerunMerge:
    """Changes that a run makes to the results of an earlier one.

    Attributes:
        kept: the nodules that a reader judged, added or edited, as far as they have voxels.
        verdicts: on them, by number.
        new: the nodules of the run that are none of these, with numbers that are free.
        measured: of both, see `Rows`.
        segments: vtkSegmentation with the lungs of the run and the new nodules.
    """

    kept: tuple[Nodule, ...]
    verdicts: Mapping[int, Verdict]
    new: tuple[Nodule, ...]
    measured: Mapping[int, str]
    segments: Any

    @classmethod
    def of(cls, earlier: ResultNodes, segments: Any, nodules: Sequence[Nodule]) -> "RerunMerge":
        """Find out which nodules of a run are new.

        A nodule is one that was kept if both share a voxel.

        Args:
            earlier: the results that the run goes into.
            segments: vtkSegmentation of the run; its labelmaps are moved, not copied.
            nodules: of the run.
        """
        reviewed = reviewed_nodules(earlier)
        masks = {
            one.id: nodule_segments.read_voxels(earlier.segmentation, segment_id(one.id))
            for one in reviewed
        }
        there = {number: mask for number, mask in masks.items() if mask is not None}
        found = [segment_id(one.id) for one in nodules]
        known = {one for mask in there.values() for one in _overlapping(segments, found, mask)}
        new = [one for one in nodules if segment_id(one.id) not in known]
        taken = {*there, *foreign_numbers(earlier)}
        numbers: dict[int, int] = {}
        for one in new:
            free = one.id if one.id not in taken else max(taken | {two.id for two in new}) + 1
            numbers[one.id] = free
            taken.add(free)
        left_out = {segment_id(one.id): None for one in nodules}
        selected = _selected(segments, left_out | _ids(numbers))
        measured = review_state.measured_on(earlier)
        return cls(
            tuple(one for one in reviewed if one.id in there),
            {n: verdict for n, verdict in verdicts_of(earlier.table).items() if n in there},
            tuple(replace(one, id=numbers[one.id]) for one in new),
            measured | review_state.fingerprints(selected, numbers.values()),
            selected,
        )

    @property
    def stay(self) -> list[str]:
        """Ids of the segments of the nodules that are kept."""
        return [segment_id(one.id) for one in self.kept]

    def show(self, results: ResultNodes) -> None:
        """Make table, points and tags say what is kept and what is new."""
        together = sorted([*self.kept, *self.new], key=lambda one: one.id)
        review_state.show(results, together, self.measured, self.verdicts)


def earlier_results(
    segmentation_node: Any | None, table_node: Any | None, point_list_node: Any | None
) -> ResultNodes | None:
    """Return nodes as results, None if they do not belong together."""
    if table_node is None or segmentation_node is None or point_list_node is None:
        return None
    if table_node.GetNodeReference(SEGMENTATION_ROLE) is not segmentation_node:
        return None
    if table_node.GetNodeReference(POINTS_ROLE) is not point_list_node:
        return None
    return ResultNodes(segmentation_node, table_node, point_list_node)


def keep_earlier(
    segmentation_node: Any, table_node: Any, earlier: ResultNodes | None
) -> Callable[[], AbstractContextManager[None]]:
    """Return a context that takes a run out of these nodes, around restoring the table's content.

    What a reader has drawn since the run stays, see `nodule_segments.keep`.

    Args:
        segmentation_node: that the run goes into, or None.
        table_node: likewise.
        earlier: the results that both belong to; None if they do not, and then nodules that are
            drawn have no row.
    """
    roles = (SEGMENTATION_ROLE, POINTS_ROLE, PROBABILITY_ROLE, VOLUME_ROLE)
    referenced = {role: table_node and table_node.GetNodeReference(role) for role in roles}
    rows = ((), {}) if earlier is None else review_state.rows_now(earlier)
    if segmentation_node is not None:
        before = set(segmentation_node.GetSegmentation().GetSegmentIDs())
        stay = () if earlier is None else reviewed_nodules(earlier)
        own = set(own_segments(segmentation_node)) - {segment_id(one.id) for one in stay}
        restore_segments = nodule_segments.keep(segmentation_node, own, rows[1])

    @contextmanager
    def restored() -> Iterator[None]:
        later = ((), {}) if earlier is None else review_state.rows_now(earlier)
        yield
        if table_node is not None and table_node.GetScene() is not None:
            for role, node in referenced.items():
                if node is None or node.GetScene() is not None:
                    table_node.SetNodeReferenceID(role, node and node.GetID())
        if segmentation_node is None or segmentation_node.GetScene() is None:
            return
        new = set(segmentation_node.GetSegmentation().GetSegmentIDs()) - before
        moved = restore_segments(
            [one for one in new if nodule_segments.is_of_run(segmentation_node, one)]
        )
        results = None if earlier is None else review_state.still_there(earlier)
        if results is not None and moved:
            together = review_state.with_drawn(rows, later, moved)
            review_state.show(results, *together, verdicts_of(results.table))

    return restored


def require_own_nodes(
    volume_node: Any,
    segmentation_node: Any | None,
    table_node: Any | None,
    point_list_node: Any | None,
) -> None:
    """Raise `InputError` if a node for the results of a volume holds those of another."""
    given = [segmentation_node, table_node, point_list_node]
    holders = [
        (node, one.segmentation, reference_of(one))
        for one in results_in(volume_node.GetScene())
        for node in (one.segmentation, one.table, one.fiducials)
        if node is not None and node in given
    ]
    if segmentation_node is not None and all(node is not segmentation_node for node, *_ in holders):
        holders.append((segmentation_node, segmentation_node, geometry_source(segmentation_node)))
    for node, segmentation, reference in holders:
        if segmentation.GetSegmentation().GetNumberOfSegments() == 0:
            continue
        if reference is not None and reference is not volume_node:
            raise InputError(
                f"{node.GetName()} holds the results of {reference.GetName()}: choose another for "
                f"those of {volume_node.GetName()}, or none."
            )


def reviewed_nodules(results: ResultNodes) -> tuple[Nodule, ...]:
    """Return the nodules that a reader judged, added, edited or took the voxels of."""
    verdicts = verdicts_of(results.table)
    return tuple(
        one
        for one in nodules_of(results.table, rejected=True)
        if one.id in verdicts
        or one.probability is None
        or not nodule_segments.is_as_made(results.segmentation, segment_id(one.id))
    )


def foreign_numbers(results: ResultNodes) -> list[int]:
    """Numbers of nodules whose segment is there, but no row of the table."""
    ours = {segment_id(one.id) for one in nodules_of(results.table, rejected=True)}
    numbers = nodule_segments.numbers_of(results.segmentation.GetSegmentation().GetSegmentIDs())
    return [number for one, number in numbers.items() if one not in ours]


def _overlapping(segmentation: Any, ids: Sequence[str], mask: Any) -> list[str]:
    """Return those segments that share a voxel with a mask."""
    values: dict[str, set[int]] = {}
    found = []
    for one in ids:
        segment = segmentation.GetSegment(one)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        layer = labelmap.GetAddressAsString("")
        if layer not in values:
            values[layer] = nodule_segments.values_under(mask, labelmap)
        if segment.GetLabelValue() in values[layer]:
            found.append(one)
    return found


def _ids(numbers: Mapping[int, int]) -> dict[str, int | None]:
    return {segment_id(old): new for old, new in numbers.items()}


def _selected(segmentation: Any, numbers: Mapping[str, int | None]) -> Any:
    """Move segments to a new vtkSegmentation, those of `numbers` renumbered; None leaves out."""
    selected = slicer.vtkSegmentation()
    selected.SetSourceRepresentationName(BINARY_LABELMAP)
    for one in segmentation.GetSegmentIDs():
        number = numbers.get(one)
        if one in numbers and number is None:
            continue
        segment = take_segment(segmentation.GetSegment(one))
        name = one
        if number is not None and one != segment_id(number):
            nodule_segments.renumber(segment, number)
            mask = nodule_segments.voxels_of(segment)
            if mask is not None:
                segment.SetTag(TAG, fingerprint(segment.GetName(), mask.voxels))
            name = segment_id(number)
        selected.AddSegment(segment, name)
    segmentation.RemoveAllSegments()  # takes the voxels that are left out from shared labelmaps
    return selected
