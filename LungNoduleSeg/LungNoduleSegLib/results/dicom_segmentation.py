"""Lungs and nodules as a DICOM Segmentation of their source series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from scipy.ndimage import find_objects

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, OWN_METHODS, RIGHT_LUNG, LungMethod
from LungNoduleSegLib.nodules.table import Nodule, Side
from LungNoduleSegLib.results.dicom_source import DicomSource
from LungNoduleSegLib.results.segments import (
    LUNG_STYLES,
    Code,
    SegmentStyle,
    nodule_style,
)

MAKER = "CTLungScreening"
"""Manufacturer, model and algorithm source of the objects."""

SERIAL_NUMBER = "0"
"""Required by DICOM."""

SERIES_NUMBER = 9001

_SIDES = {Side.RIGHT: RIGHT_LUNG, Side.LEFT: LEFT_LUNG}


@dataclass(frozen=True)
class Algorithm:
    """The algorithm that made a segment or a measurement, from `run.json`.

    Attributes:
        name: of the method or the model.
        family: a code of DICOM's CID 7162.
        version: of this software.
        parameters: by name.
    """

    name: str
    family: Any
    version: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Algorithms:
    """The algorithms of lungs and nodules; None for lungs from an external mask."""

    lungs: Algorithm | None
    nodules: Algorithm

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Algorithms":
        """Read them from the record of a run, the content of `run.json`.

        Raises:
            InputError: if the record is incomplete.
        """
        try:
            version = record["software"][MAKER]
            parameters, model = record["parameters"], record["model"]
            method = parameters["lung_method"]
            own = method in OWN_METHODS
            lungs = Algorithm(
                f"{MAKER} lungs, {method}",
                codes.DCM.MorphologicalOperations if own else codes.DCM.ArtificialIntelligence,
                version,
                {"method": method},
            )
            nodules = Algorithm(
                f"{MAKER} nodules, {model['name']}"[:64],
                codes.DCM.ArtificialIntelligence,
                version,
                {"model": model["name"], "sha256": model["sha256"]} | parameters["rules"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The record of the run is incomplete ({error} is missing): run the scan again."
            ) from error
        return cls(lungs if method in list(LungMethod) else None, nodules)


def sct(code: Code) -> hd.sr.CodedConcept:
    """Return a SNOMED CT concept for highdicom."""
    return hd.sr.CodedConcept(code.value, "SCT", code.meaning)


def style_of(nodule: Nodule) -> SegmentStyle:
    """Name, colour and codes of a nodule's segment."""
    return nodule_style(nodule.id, _SIDES[nodule.side])


def make_segmentation(
    source: DicomSource,
    lungs: sitk.Image,
    labels: sitk.Image,
    nodules: Sequence[Nodule],
    algorithms: Algorithms,
    labelmap: bool = False,
) -> hd.seg.Segmentation:
    """Make a segmentation on the slices of the source series.

    Empty frames and lungs without voxels are left out. Lungs from an external mask and nodules
    without a probability are marked as manual.

    Args:
        source: the series.
        lungs: `RIGHT_LUNG`, `LEFT_LUNG`, 0 elsewhere, on the grid of the scan.
        labels: ids of the nodules, on the same grid.
        nodules: those to write.
        algorithms: that made them.
        labelmap: one frame per slice with segment numbers, instead of one per slice and segment;
            smaller, but not read by every viewer. Nodules are then not part of the lungs.

    Raises:
        InputError: if there is nothing to write or a nodule has no voxels.
    """
    lung_planes, nodule_planes = source.planes(lungs), source.planes(labels)
    lung_boxes, boxes = find_objects(lung_planes), find_objects(nodule_planes)
    parts: list[tuple[NDArray[Any], int, tuple[slice, ...]]] = []
    descriptions: list[SegmentDescription] = []
    for label, style in LUNG_STYLES.items():
        if label <= len(lung_boxes) and lung_boxes[label - 1]:
            parts.append((lung_planes, label, lung_boxes[label - 1]))
            descriptions.append(_description(len(parts), style, algorithms.lungs))
    for nodule in nodules:
        if nodule.id > len(boxes) or not boxes[nodule.id - 1]:
            raise InputError(
                f"Nodule {nodule.id} is in the table but has no voxels on the source's slices: "
                "remove it from the table, or run the scan again."
            )
        parts.append((nodule_planes, nodule.id, boxes[nodule.id - 1]))
        found_by = None if nodule.probability is None else algorithms.nodules
        descriptions.append(_description(len(parts), style_of(nodule), found_by))
    if not parts:
        raise InputError("There is neither a lung nor a nodule to write as DICOM segmentation.")
    # Contiguous per segment, so that only memory pages with voxels are ever touched.
    stack = np.zeros((len(parts), *lung_planes.shape), bool)
    for mask, (planes, label, box) in zip(stack, parts, strict=True):
        mask[box] = planes[box] == label
    kind = SegmentationTypeValues.LABELMAP if labelmap else SegmentationTypeValues.BINARY
    pixels = _numbered(stack) if labelmap else np.moveaxis(stack, 0, -1)
    made = hd.seg.Segmentation(
        source_images=source.images,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_number=SERIES_NUMBER,
        series_description="Lungs and lung nodules",
        **new_instance(algorithms),
        content_label="LUNG_NODULES",
        content_description="Lungs and lung nodules",
        omit_empty_frames=True,
    )
    if source.numbers:
        _refer_to_frames(made, source.numbers)
    if not labelmap:
        _name_segment_in_each_frame(made)
    return made


def _numbered(stack: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Number each pixel (planes, rows, columns) by the last segment that contains it."""
    numbers = np.zeros(stack.shape[1:], np.uint8 if len(stack) < 256 else np.uint16)
    for number, mask in enumerate(stack, start=1):
        numbers[mask] = number
    return numbers


def new_instance(algorithms: Algorithms) -> dict[str, Any]:
    """Return the identifying arguments of a new highdicom object."""
    return {
        "series_instance_uid": hd.UID(),
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": algorithms.nodules.version,
        "device_serial_number": SERIAL_NUMBER,
    }


def _refer_to_frames(made: hd.seg.Segmentation, numbers: Sequence[int]) -> None:
    """Replace the frames of `DicomSource.images` in all references by those of the file."""
    references = {  # several frames share one
        id(reference): reference
        for frame in made.PerFrameFunctionalGroupsSequence
        for reference in frame.DerivationImageSequence[0].SourceImageSequence
    }
    for reference in references.values():
        reference.ReferencedFrameNumber = numbers[reference.ReferencedFrameNumber - 1]


def _name_segment_in_each_frame(made: hd.seg.Segmentation) -> None:
    """Identify the segment in each frame, even if there is only one.

    highdicom writes a single segment once for all frames, but expects it in each for references.
    """
    shared = made.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:
        for frame in made.PerFrameFunctionalGroupsSequence:
            frame.SegmentIdentificationSequence = shared.SegmentIdentificationSequence
        del shared.SegmentIdentificationSequence


def _description(
    number: int, style: SegmentStyle, algorithm: Algorithm | None
) -> SegmentDescription:
    """Describe a segment; without an algorithm it is marked as manual."""
    terms = style.terminology
    identification = algorithm and hd.AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=algorithm.family,
        version=algorithm.version,
        source=MAKER,
        parameters=dict(algorithm.parameters),
    )
    description = SegmentDescription(
        segment_number=number,
        segment_label=style.name,
        segmented_property_category=sct(terms.category),
        segmented_property_type=sct(terms.type),
        algorithm_type=(
            SegmentAlgorithmTypeValues.AUTOMATIC if algorithm else SegmentAlgorithmTypeValues.MANUAL
        ),
        algorithm_identification=identification,
        tracking_id=style.name,
        tracking_uid=hd.UID(),
        anatomic_regions=[sct(terms.region)] if terms.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*(round(255 * part) for part in style.color)),
    )
    if terms.modifier:
        (kind,) = description.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [sct(terms.modifier)]
    if terms.region_modifier:
        (region,) = description.AnatomicRegionSequence
        region.AnatomicRegionModifierSequence = [sct(terms.region_modifier)]
    return description
