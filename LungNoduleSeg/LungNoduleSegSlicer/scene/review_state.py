"""What a review changes in the nodes of the results: written to them, kept, brought back."""

from collections.abc import Callable, Mapping, Sequence

import vtk

from LungNoduleSegLib.nodules.table import Column, Nodule, Verdict
from LungNoduleSegLib.results.segments import TAG
from LungNoduleSegSlicer.scene import mrml_results, nodule_segments, probability_node
from LungNoduleSegSlicer.scene.nodule_segments import segment_id
from LungNoduleSegSlicer.scene.result_nodes import VERDICT, ResultNodes, nodules_of, verdicts_of

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


def set_tag(results: ResultNodes, number: int, name: str, value: str) -> None:
    """Give the segment of a nodule a tag, if there is the segment; "" takes the tag away."""
    segment = results.segmentation.GetSegmentation().GetSegment(segment_id(number))
    if segment is None or nodule_segments.tag(segment, name) == value:
        return
    if value:
        segment.SetTag(name, str(value))
    else:
        segment.RemoveTag(name)


def keep(results: ResultNodes, segment_ids: Sequence[str]) -> Callable[[], None]:
    """Remember all that a review may change, and return what brings it back.

    `segment_ids` are those that are to be added or removed; of others only the tags change.
    """
    nodules = nodules_of(results.table, rejected=True)
    verdicts = verdicts_of(results.table)
    segmentation = results.segmentation.GetSegmentation()
    measured = {
        one.id: nodule_segments.tag(segmentation.GetSegment(segment_id(one.id)), MEASURED_TAG)
        for one in nodules
    }
    rules = results.probability and probability_node.rules_of(results.probability)
    restore_segments = nodule_segments.keep(results.segmentation, segment_ids)

    def restore() -> None:
        nodes = (results.segmentation, results.table, results.fiducials)
        if any(node.GetScene() is None for node in nodes):
            return
        restore_segments()
        for number, mark in measured.items():
            set_tag(results, number, MEASURED_TAG, mark)
        if rules is not None:
            probability_node.set_threshold(results.probability, rules.threshold)
        show(results, nodules, verdicts)

    return restore
