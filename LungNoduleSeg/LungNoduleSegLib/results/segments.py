"""Names, colours and codes of segments, and `.seg.nrrd` files.

Slicer scenes, result files and DICOM SEG share these names, colours and codes. The codes are those
of DICOM PS3.16 (lung: CID 7155, laterality as modifier: CID 244, nodule: CID 7159) and match
entries of the terminologies that Slicer ships, so that its terminology selector finds them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.geometry import LPS_TO_RAS, box_of, ijk_to_lps
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, LOBES, RIGHT_LUNG, Lobe

TAG = "CTLungScreening"
"""Tag of segments made by this project; its value is the segment's `fingerprint`."""

ALGORITHM_TAGS = {
    "DICOM.SegmentAlgorithmType": "AUTOMATIC",
    "DICOM.SegmentAlgorithmName": TAG,
}
"""Tags by which Slicer's DICOM export recognizes segments made by an algorithm."""

UNSMOOTHED = "0"
"""Surface smoothing factor in Slicer, whose default shrinks small nodules."""

ANATOMY_CONTEXT = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class Code:
    """A SNOMED CT concept."""

    value: str
    meaning: str

    @property
    def triplet(self) -> list[str]:
        """Coding scheme, value, meaning."""
        return ["SCT", self.value, self.meaning]


LUNG = Code("39607008", "Lung")
RIGHT = Code("24028007", "Right")
LEFT = Code("7771000", "Left")
NODULE = Code("27925004", "Nodule")
ANATOMICAL_STRUCTURE = Code("123037004", "Anatomical Structure")
ALTERED_STRUCTURE = Code("49755003", "Morphologically Altered Structure")


@dataclass(frozen=True)
class Terminology:
    """The structure a segment shows, and its region unless implied by `type`.

    Attributes:
        context: name of the terminology in Slicer that has the entry.
        category: DICOM's segmented property category.
        type: DICOM's segmented property type.
        modifier: of the type, for instance its side.
        region: DICOM's anatomic region.
        region_modifier: of the region.
    """

    context: str
    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None

    def to_slicerio(self) -> dict[str, str | list[str]]:
        """Return the entry in slicerio's format."""
        entry: dict[str, str | list[str]] = {
            "contextName": self.context,
            "category": self.category.triplet,
            "type": self.type.triplet,
            "anatomicContextName": ANATOMY_CONTEXT,
        }
        optional = {
            "typeModifier": self.modifier,
            "anatomicRegion": self.region,
            "anatomicRegionModifier": self.region_modifier,
        }
        return entry | {key: code.triplet for key, code in optional.items() if code}

    def to_slicer(self) -> str:
        """Return the entry in the format of Slicer's segment tag."""

        def code(one: Code | None) -> str:
            return "^".join(one.triplet if one else ("", "", ""))

        return "~".join(
            (
                self.context,
                *map(code, (self.category, self.type, self.modifier)),
                ANATOMY_CONTEXT,
                *map(code, (self.region, self.region_modifier)),
            )
        )


@dataclass(frozen=True)
class SegmentStyle:
    """The appearance of a segment.

    Attributes:
        id: identifier within a segmentation.
        name: display name.
        color: red, green, blue from 0 to 1.
        terminology: its codes.
    """

    id: str
    name: str
    color: tuple[float, float, float]
    terminology: Terminology


def _rgb(red: int, green: int, blue: int) -> tuple[float, float, float]:
    return red / 255, green / 255, blue / 255


# Okabe and Ito's colour-blind-safe palette (Color Universal Design, 2008).
_SKY_BLUE = _rgb(86, 180, 233)
_BLUISH_GREEN = _rgb(0, 158, 115)
_NODULE_COLORS = (
    _rgb(230, 159, 0),
    _rgb(213, 94, 0),
    _rgb(204, 121, 167),
    _rgb(240, 228, 66),
)

_LOBE_COLORS = (
    _SKY_BLUE,
    _rgb(0, 114, 178),
    _rgb(190, 225, 245),
    _BLUISH_GREEN,
    _rgb(150, 215, 185),
)

_LOBE_CODES = {
    Lobe.RIGHT_UPPER: Code("45653009", "Upper lobe of lung"),
    Lobe.RIGHT_MIDDLE: Code("72481006", "Middle lobe of right lung"),
    Lobe.RIGHT_LOWER: Code("90572001", "Lower lobe of lung"),
    Lobe.LEFT_UPPER: Code("45653009", "Upper lobe of lung"),
    Lobe.LEFT_LOWER: Code("90572001", "Lower lobe of lung"),
}

_LUNG_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_NODULE_CONTEXT = "Segmentation category and type - DICOM master list"

LUNG_STYLES = {
    RIGHT_LUNG: SegmentStyle(
        "CTLungScreening_RightLung",
        "Right lung",
        _SKY_BLUE,
        Terminology(_LUNG_CONTEXT, ANATOMICAL_STRUCTURE, LUNG, RIGHT),
    ),
    LEFT_LUNG: SegmentStyle(
        "CTLungScreening_LeftLung",
        "Left lung",
        _BLUISH_GREEN,
        Terminology(_LUNG_CONTEXT, ANATOMICAL_STRUCTURE, LUNG, LEFT),
    ),
}
"""Styles by label in the lung mask."""

LOBE_STYLES = {
    number: SegmentStyle(
        f"CTLungScreening_Lobe_{number}",
        f"{lobe.capitalize()} lobe",
        color,
        Terminology(
            _LUNG_CONTEXT,
            ANATOMICAL_STRUCTURE,
            LUNG,
            RIGHT if lobe.is_right else LEFT,
            region=_LOBE_CODES[lobe],
        ),
    )
    for number, (lobe, color) in enumerate(zip(LOBES, _LOBE_COLORS, strict=True), 1)
}
"""By label in the image of the lobes."""


def nodule_style(nodule: int, side: int) -> SegmentStyle:
    """Return the style of a nodule; `side` is `RIGHT_LUNG`, `LEFT_LUNG` or 0 for neither."""
    sides = {RIGHT_LUNG: RIGHT, LEFT_LUNG: LEFT}
    return SegmentStyle(
        f"CTLungScreening_Nodule_{nodule}",
        f"Nodule {nodule}",
        _NODULE_COLORS[(nodule - 1) % len(_NODULE_COLORS)],
        Terminology(
            _NODULE_CONTEXT,
            ALTERED_STRUCTURE,
            NODULE,
            region=LUNG,
            region_modifier=sides.get(side),
        ),
    )


_LUNG_LAYER, _NODULE_LAYER = 0, 1


def fingerprint(name: str, mask: NDArray[np.bool_]) -> str:
    """Hash a segment's name and the shape of its voxels.

    A segment whose tag differs from its fingerprint has been renamed or edited.

    Args:
        name: the segment's name.
        mask: its voxels (z, y, x), with any margin of zeros.
    """
    digest = hashlib.sha256(name.encode())
    box = box_of(mask)
    if box is not None:
        digest.update(repr(mask[box].shape).encode())
        digest.update(np.packbits(mask[box]).tobytes())
    return digest.hexdigest()


class _Uncopied(np.ndarray[Any, np.dtype[Any]]):
    """An array whose bytes pynrrd gets without a copy, as it needs the memory of a whole scan."""

    def tobytes(self, order: Any = "C") -> Any:
        """Return a view of the bytes in their order in memory."""
        return self.data.cast("B") if order == "C" else super().tobytes(order)


def write_segmentation(path: Path, lungs: sitk.Image, nodules: sitk.Image) -> None:
    """Write lungs and nodules as one `.seg.nrrd` with two layers, because nodules lie in lungs.

    Args:
        path: the new file.
        lungs: `RIGHT_LUNG`, `LEFT_LUNG`, 0 elsewhere; any orientation, LPS mm.
        nodules: nodule ids from 1, 0 elsewhere, on the grid of `lungs`.

    Raises:
        InputError: if `path` exists.
        ValueError: if the two grids differ.
    """
    import slicerio  # noqa: PLC0415 - not installed in Slicer

    if not lungs.IsSameImageGeometryAs(nodules):
        raise ValueError("Lungs and nodules are not on the same grid.")
    lung_labels = sitk.GetArrayViewFromImage(lungs)
    nodule_labels = sitk.GetArrayViewFromImage(nodules)
    segments = [
        _segment(style, _LUNG_LAYER, label, lung_labels == label)
        for label, style in LUNG_STYLES.items()
    ]
    # Few voxels are nodules' and all nodules lie in a box: to look there alone is much faster.
    around = box_of(nodule_labels > 0) or (slice(1),) * 3
    labels, sides = nodule_labels[around], lung_labels[around]
    nodule_boxes = find_objects(labels)
    for nodule, box in enumerate(nodule_boxes, start=1):
        if box is not None:
            mask = labels[box] == nodule
            counts = np.bincount(sides[box][mask], minlength=max(LUNG_STYLES) + 1)
            style = nodule_style(nodule, int(np.argmax(counts)))
            segments.append(_segment(style, _NODULE_LAYER, nodule, mask))

    voxels = np.empty((*lung_labels.shape, 2), np.min_scalar_type(max(2, len(nodule_boxes))))
    voxels[..., _LUNG_LAYER] = lung_labels
    voxels[..., _NODULE_LAYER] = nodule_labels
    # Slicer crops a layer to the extent of its first segment, so each segment has the full extent.
    extent = [bound for size in lungs.GetSize() for bound in (0, size - 1)]
    segmentation = {
        "voxels": voxels.view(_Uncopied),
        "ijkToLPS": ijk_to_lps(lungs),
        "containedRepresentationNames": ["Binary labelmap"],
        "Segmentation_ConversionParameters": (
            f"Reference image geometry|{_slicer_geometry(lungs)}|&Smoothing factor|{UNSMOOTHED}|&"
        ),
        "segments": [segment | {"extent": extent} for segment in segments],
    }
    with new_file(path) as temporary:
        slicerio.write_segmentation(
            str(temporary), segmentation, compression_level=1, index_order="C"
        )


def _segment(
    style: SegmentStyle,
    layer: int,
    label: int,
    mask: NDArray[np.bool_],
) -> dict[str, Any]:
    """Describe one segment for slicerio."""
    return {
        "id": style.id,
        "name": style.name,
        "color": list(style.color),
        "terminology": style.terminology.to_slicerio(),
        "tags": {TAG: fingerprint(style.name, mask), **ALGORITHM_TAGS},
        "labelValue": label,
        "layer": layer,
    }


def _slicer_geometry(image: sitk.Image) -> str:
    """Serialize a grid as Slicer does: the IJK to RAS matrix by rows, then the extent."""
    ijk_to_ras = LPS_TO_RAS @ ijk_to_lps(image)
    extent = [bound for size in image.GetSize() for bound in (0, size - 1)]
    return "".join(f"{value};" for value in [*ijk_to_ras.ravel().tolist(), *extent])
