"""The radiologists' outlines and ratings of LIDC-IDRI, as its XML files give them.

Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative
(IDRI), Medical Physics 2011;38:915. Four radiologists outlined each nodule of 3 mm or more on every
slice and rated it; smaller ones, and other findings, have a point only.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from skimage.draw import polygon

from CTLungScreeningLib.errors import InputError

CHARACTERISTICS = (
    "subtlety",
    "internalStructure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)
"""What was rated, 1 to 5; `internalStructure` 1 to 4 and `calcification` 1 to 6."""

_ROOT = "LidcReadMessage"


@dataclass(frozen=True, eq=False)
class Outline:
    """A line on one slice.

    Attributes:
        z_mm: LPS z of the slice.
        inclusion: whether it bounds the nodule; else a hole in it.
        points: (n, 2), column and row of each pixel on the line, from 0; none of them is nodule.
    """

    z_mm: float
    inclusion: bool
    points: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Finding:
    """What one radiologist marked.

    Attributes:
        name: the radiologist's own number for it.
        outlines: lines; a single point where it is smaller than 3 mm or no nodule.
        characteristics: ratings by `CHARACTERISTICS`; empty where there are none.
    """

    name: str
    outlines: tuple[Outline, ...]
    characteristics: Mapping[str, int]

    @property
    def outlined(self) -> bool:
        """Whether it is a nodule of 3 mm or more, and so has more than a point."""
        return any(len(outline.points) > 1 for outline in self.outlines)


@dataclass(frozen=True)
class Reading:
    """All that one radiologist marked in a scan.

    Attributes:
        nodules: of any size, see `Finding.outlined`.
        others: marks on structures that are not nodules.
    """

    nodules: tuple[Finding, ...]
    others: tuple[Finding, ...]


@dataclass(frozen=True)
class ScanReadings:
    """The readings of one scan."""

    file: Path
    series_instance_uid: str
    readings: tuple[Reading, ...]


def read_lidc_xml(file: Path) -> ScanReadings:
    """Read one of LIDC-IDRI's XML files on a CT scan.

    Raises:
        InputError: if it is damaged or something else.
    """
    try:
        root = ET.parse(file).getroot()
        readings = tuple(
            Reading(
                tuple(_nodule(node) for node in session.iterfind("{*}unblindedReadNodule")),
                tuple(_other(node) for node in session.iterfind("{*}nonNodule")),
            )
            for session in root.iterfind("{*}readingSession")
        )
    except (ET.ParseError, OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}): get it again.") from error
    uid = root.findtext("{*}ResponseHeader/{*}SeriesInstanceUid", "").strip()
    if not root.tag.endswith(_ROOT):
        raise InputError(f"{file} is no reading of a CT scan: give one that begins with {_ROOT}.")
    if not uid:
        raise InputError(f"{file} names no series: get it again.")
    return ScanReadings(file, uid, readings)


def find_lidc_xml(folder: Path) -> list[Path]:
    """Find the XML files on CT scans below a folder; those on radiographs are left out."""
    return [file for file in sorted(folder.rglob("*.xml")) if _on_ct(file)]


def _on_ct(file: Path) -> bool:
    with file.open("rb") as stream:
        return f"<{_ROOT}".encode() in stream.read(4096)


def _nodule(node: ET.Element) -> Finding:
    ratings = {
        name: int(text)
        for name in CHARACTERISTICS
        if (text := node.findtext(f"{{*}}characteristics/{{*}}{name}", "").strip())
    }
    outlines = tuple(
        Outline(
            z_mm=float(roi.findtext("{*}imageZposition", "")),
            inclusion=roi.findtext("{*}inclusion", "").strip().upper() == "TRUE",
            points=_points(roi.iterfind("{*}edgeMap")),
        )
        for roi in node.iterfind("{*}roi")
    )
    return Finding(node.findtext("{*}noduleID", "").strip(), outlines, ratings)


def _other(node: ET.Element) -> Finding:
    point = Outline(
        float(node.findtext("{*}imageZposition", "")), True, _points(node.iterfind("{*}locus"))
    )
    return Finding(node.findtext("{*}nonNoduleID", "").strip(), (point,), {})


def _points(nodes: Iterator[ET.Element]) -> NDArray[np.intp]:
    listed = [
        [int(node.findtext(f"{{*}}{axis}", "")) for axis in ("xCoord", "yCoord")] for node in nodes
    ]
    return np.array(listed, np.intp).reshape(-1, 2)


def position_mm(finding: Finding, image: sitk.Image) -> tuple[float, float, float]:
    """Place of a finding's first point in LPS mm; `image` as for `finding_mask`."""
    outline = finding.outlines[0]
    column, row = outline.points[0].tolist()
    x, y, _ = image.TransformIndexToPhysicalPoint((column, row, 0))
    return x, y, outline.z_mm


def finding_mask(
    finding: Finding, image: sitk.Image
) -> tuple[tuple[slice, slice, slice], NDArray[np.bool_]]:
    """Fill the outlines of a nodule.

    The pixels of a line that bounds the nodule lie just outside it; those of a line that bounds a
    hole belong to the hole (the consortium's ruling, see issue 15 and pull request 16 of pylidc).

    Args:
        finding: outlined.
        image: the scan as read from DICOM, so that its pixels lie as in the files; axial slices.

    Returns:
        A box (z, y, x) of the image's array and the nodule's voxels in it.

    Raises:
        InputError: if an outline lies on no slice or outside the image.
    """
    columns, rows, slices = image.GetSize()
    x, y, _ = image.GetOrigin()
    points = np.concatenate([outline.points for outline in finding.outlines])
    if points.min() < 0 or np.any(points.max(axis=0) >= (columns, rows)):
        raise InputError(f"{finding.name} is outlined outside the image: get scan and XML again.")
    levels = []
    for outline in finding.outlines:
        level = image.TransformPhysicalPointToContinuousIndex((x, y, outline.z_mm))[2]
        if abs(level - round(level)) > 0.25 or not 0 <= round(level) < slices:
            raise InputError(
                f"{finding.name} is outlined at {outline.z_mm:g} mm, where the scan has no slice: "
                "get scan and XML again."
            )
        levels.append(round(level))
    low = np.array([min(levels), *points.min(axis=0)[::-1]])
    high = np.array([max(levels), *points.max(axis=0)[::-1]]) + 1
    mask = np.zeros(high - low, bool)
    for inclusion in (True, False):
        for level, outline in zip(levels, finding.outlines, strict=True):
            if outline.inclusion is inclusion:
                column, row = (outline.points - low[:0:-1]).T
                plane = np.zeros(mask.shape[1:], bool)
                plane[polygon(row, column, plane.shape)] = True
                plane[row, column] = not inclusion
                here = mask[level - low[0]]
                here[plane] = inclusion
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (z, y, x), mask
