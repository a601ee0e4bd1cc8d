"""Lungs of a segmentation node, of a run or anybody's, as a label image. LPS mm out of RAS mm."""

from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.results.segments import LUNG_STYLES
from LungNoduleSegSlicer.scene.result_nodes import merged_segments


def has_run_lungs(segmentation_node: Any) -> bool:
    """Tell whether a segmentation has a lung as runs make them, edited or not."""
    segmentation = segmentation_node.GetSegmentation()
    return any(segmentation.GetSegment(style.id) is not None for style in LUNG_STYLES.values())


def write_lungs(segmentation_node: Any, file: Path) -> None:
    """Write the lungs of a segmentation for `lung-nodule-seg run --lungs-file`.

    They are those of a run, else the segments with "lung" in their name, with "right" or "left" in
    it if they are of one side, such as the lobes of TotalSegmentator; else its only segment.

    Raises:
        InputError: if there is no such segment, or the node is under a transform.
    """
    name = segmentation_node.GetName()
    if segmentation_node.GetParentTransformNode() is not None:
        raise InputError(
            f"{name} is under a transform: harden it in the Transforms module and try again."
        )
    sides = _sides(segmentation_node)
    if not sides:
        raise InputError(
            f"{name} has no lungs: name their segments Right lung and Left lung and try again."
        )
    if 0 in sides.values():  # a segment of both sides: they are told apart by the run
        sides = dict.fromkeys(sides, RIGHT_LUNG)
    lungs = merged_segments(segmentation_node, sides)
    sitk.WriteImage(sitk.Cast(lungs, sitk.sitkUInt8), file, useCompression=True, compressionLevel=1)


def _sides(segmentation_node: Any) -> dict[str, int]:
    """Segment ids of lungs with their side, 0 for both."""
    segmentation = segmentation_node.GetSegmentation()
    ids = list(segmentation.GetSegmentIDs())
    run = {style.id: side for side, style in LUNG_STYLES.items() if style.id in ids}
    if run:
        return run
    names = {one: segmentation.GetSegment(one).GetName().lower() for one in ids}
    named = {one: _side(name) for one, name in names.items() if "lung" in name}
    return named or (dict.fromkeys(ids, 0) if len(ids) == 1 else {})


def _side(name: str) -> int:
    return RIGHT_LUNG if "right" in name else LEFT_LUNG if "left" in name else 0
