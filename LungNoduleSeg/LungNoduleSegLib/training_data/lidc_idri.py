"""Training data from the scans and outlines of LIDC-IDRI.

Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative
(IDRI), Medical Physics 2011;38:915. Four radiologists outlined each nodule of 3 mm or more on every
slice and rated it; smaller ones, and other findings, have a point only.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.draw import polygon

from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.geometry import Box, box_between, image_like, in_crop, masks_meet, onto_grid
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import IndexedScan, index_scans
from LungNoduleSegLib.nodules.table import sphere_diameter
from LungNoduleSegLib.options import ExampleChoice, LidcOptions
from LungNoduleSegLib.training_data.preparation import (
    Case,
    Marks,
    PreparationOutcome,
    prepare_cases,
)

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
"""Rated characteristics, 1 to 5; `internalStructure` 1 to 4 and `calcification` 1 to 6."""

_ROOT = "LidcReadMessage"


@dataclass(frozen=True, eq=False)
class Contour:
    """A contour on one slice.

    Attributes:
        z_mm: LPS z of the slice.
        inclusion: whether it bounds the nodule; otherwise a hole in it.
        points: (n, 2), column and row of each contour pixel, from 0; these are not nodule.
    """

    z_mm: float
    inclusion: bool
    points: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Finding:
    """A finding of one radiologist.

    Attributes:
        name: the radiologist's number for it.
        contours: a single point if it is smaller than 3 mm or not a nodule.
        characteristics: ratings by `CHARACTERISTICS`, possibly empty.
    """

    name: str
    contours: tuple[Contour, ...]
    characteristics: Mapping[str, int]

    @property
    def outlined(self) -> bool:
        """Whether it is a nodule of 3 mm or more, with a contour instead of a point."""
        return any(len(contour.points) > 1 for contour in self.contours)


@dataclass(frozen=True)
class Reading:
    """All findings of one radiologist in a scan.

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
        InputError: if it is damaged or of another kind.
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
    except (ET.ParseError, *DAMAGE) as error:
        raise InputError(f"{file} cannot be read ({error}): download it again.") from error
    uid = root.findtext("{*}ResponseHeader/{*}SeriesInstanceUid", "").strip()
    if not root.tag.endswith(_ROOT):
        raise InputError(
            f"{file} is not a reading of a CT scan: choose one that begins with {_ROOT}."
        )
    if not uid:
        raise InputError(f"{file} names no series: download it again.")
    return ScanReadings(file, uid, readings)


def find_lidc_xml(folder: Path) -> list[Path]:
    """Find the XML files of CT scans below a folder, without those of radiographs."""
    return [
        file for file in sorted(folder.rglob("*")) if file.suffix.lower() == ".xml" and _on_ct(file)
    ]


def _on_ct(file: Path) -> bool:
    """Whether a file is a reading of a CT scan, or cannot be opened, which reading it will say."""
    try:
        with file.open("rb") as stream:
            start = stream.read(8192)
    except OSError:
        return True
    return f"<{_ROOT}".encode() in start.replace(b"\0", b"")  # UTF-16 has every other byte 0


def _nodule(node: ET.Element) -> Finding:
    ratings = {
        name: int(text)
        for name in CHARACTERISTICS
        if (text := node.findtext(f"{{*}}characteristics/{{*}}{name}", "").strip())
    }
    contours = tuple(
        Contour(
            z_mm=_z_mm(roi),
            inclusion=roi.findtext("{*}inclusion", "").strip().upper() == "TRUE",
            points=_points(roi.iterfind("{*}edgeMap")),
        )
        for roi in node.iterfind("{*}roi")
    )
    return Finding(node.findtext("{*}noduleID", "").strip(), contours, ratings)


def _other(node: ET.Element) -> Finding:
    point = Contour(_z_mm(node), True, _points(node.iterfind("{*}locus")))
    return Finding(node.findtext("{*}nonNoduleID", "").strip(), (point,), {})


def _z_mm(node: ET.Element) -> float:
    z_mm = float(node.findtext("{*}imageZposition", ""))
    if not math.isfinite(z_mm):
        raise ValueError(f"a place at {z_mm} mm")
    return z_mm


def _points(nodes: Iterator[ET.Element]) -> NDArray[np.intp]:
    listed = [
        [int(node.findtext(f"{{*}}{axis}", "")) for axis in ("xCoord", "yCoord")] for node in nodes
    ]
    return np.array(listed, np.intp).reshape(-1, 2)


def finding_mask(finding: Finding, image: sitk.Image) -> tuple[Box, NDArray[np.bool_]]:
    """Fill the contours of a nodule.

    The pixels of a contour lie just outside the nodule; those around a hole belong to the hole (the
    consortium's definition, see issue 15 and pull request 16 of pylidc).

    Args:
        finding: with contours.
        image: the scan as read from DICOM, with axial slices and the pixel order of the files.

    Returns:
        A box (z, y, x) of the image's array and the nodule's voxels in it.

    Raises:
        InputError: if a contour is not on a slice or outside the image.
    """
    columns, rows, slices = image.GetSize()
    x, y, _ = image.GetOrigin()
    points = np.concatenate([contour.points for contour in finding.contours])
    if points.min() < 0 or np.any(points.max(axis=0) >= (columns, rows)):
        raise InputError(
            f"{finding.name} is outlined outside the image: download scan and XML again."
        )
    levels = []
    for contour in finding.contours:
        level = image.TransformPhysicalPointToContinuousIndex((x, y, contour.z_mm))[2]
        if abs(level - round(level)) > 0.25 or not 0 <= round(level) < slices:
            raise InputError(
                f"{finding.name} is outlined at {contour.z_mm:g} mm, where the scan has no slice: "
                "download scan and XML again."
            )
        levels.append(round(level))
    low = np.array([min(levels), *points.min(axis=0)[::-1]])
    high = np.array([max(levels), *points.max(axis=0)[::-1]]) + 1
    mask = np.zeros(high - low, bool)
    for inclusion in (True, False):
        for level, contour in zip(levels, finding.contours, strict=True):
            if contour.inclusion is inclusion:
                column, row = (contour.points - low[:0:-1]).T
                plane = np.zeros(mask.shape[1:], bool)
                plane[polygon(row, column, plane.shape)] = True
                plane[row, column] = not inclusion
                here = mask[level - low[0]]
                here[plane] = inclusion
    return box_between(low, high), mask


@dataclass(frozen=True, eq=False)
class ConsensusNodule:
    """A nodule with the contours of all radiologists.

    Attributes:
        box: (z, y, x) of the image's array.
        votes: (z, y, x) within the box, the number of radiologists that outlined each voxel.
        readers: number of radiologists that outlined the nodule.
        ratings: of each radiologist who outlined it, see `CHARACTERISTICS`.
    """

    box: Box
    votes: NDArray[np.uint8]
    readers: int
    ratings: tuple[Mapping[str, int], ...]


def consensus_nodules(scan: ScanReadings, image: sitk.Image) -> tuple[ConsensusNodule, ...]:
    """Group overlapping outlines into nodules.

    Args:
        scan: the readings.
        image: the scan, see `finding_mask`.

    Raises:
        InputError: if an outline does not match the image.
    """
    found = []
    for reader, reading in enumerate(scan.readings):
        for nodule in reading.nodules:
            if nodule.outlined:
                box, mask = finding_mask(nodule, image)
                if mask.any():
                    found.append((reader, nodule.characteristics, box, mask))
    count = len(found)
    pairs = [
        (a, b)
        for a in range(count)
        for b in range(a)
        if masks_meet(found[a][2], found[a][3], found[b][2], found[b][3])
    ]
    ends = np.array(pairs, np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), bool), tuple(ends)), (count, count))
    clusters, cluster_of = connected_components(graph, directed=False)
    nodules = []
    for cluster in range(clusters):
        members = [found[n] for n in np.flatnonzero(cluster_of == cluster)]
        low = np.min([[part.start for part in box] for _, _, box, _ in members], axis=0)
        high = np.max([[part.stop for part in box] for _, _, box, _ in members], axis=0)
        outlined = np.zeros((len(scan.readings), *(high - low)), bool)
        whole = box_between(low, high)
        for reader, _, box, mask in members:
            outlined[reader][in_crop(box, whole)] |= mask
        ratings = tuple(ratings for _, ratings, _, _ in members)
        votes = outlined.sum(axis=0, dtype=np.uint8)
        readers = len({reader for reader, *_ in members})
        nodules.append(ConsensusNodule(whole, votes, readers, ratings))
    return tuple(nodules)


def consensus_labels(
    nodules: tuple[ConsensusNodule, ...], image: sitk.Image, agreement: int
) -> sitk.Image:
    """Mark the voxels that at least `agreement` radiologists outlined.

    Returns:
        uint16 on the grid of `image`: the number of the nodule, from 1, or 0. Numbers of nodules
        without agreement are not used.
    """
    labels = np.zeros(image.GetSize()[::-1], np.uint16)
    for number, nodule in enumerate(nodules, 1):
        labels[nodule.box][nodule.votes >= agreement] = number
    return image_like(labels, image)


def prepare_lidc(
    folder: Path,
    output: Path,
    agreement: int = LidcOptions.agreement,
    choice: ExampleChoice | None = None,
    *,
    empty_scans: bool = LidcOptions.empty_scans,
    progress: ProgressCallback = silent,
) -> PreparationOutcome:
    """Prepare the scans of LIDC-IDRI; a repeated call continues with missing scans.

    Args:
        folder: DICOM files and XML files, in any nesting. XML files that are there twice count
            once; a note counts those whose scans are not there.
        output: the store.
        agreement: number of radiologists, of four, that must have outlined a voxel.
        choice: of training examples.
        empty_scans: keep scans without nodules too.
        progress: callback, in the stages "Searching" and "Scans".

    Raises:
        InputError: if there is nothing to prepare, or the output is not a store.
    """
    choice = choice or ExampleChoice()
    left_out: list[str] = []
    found = index_scans(folder, progress, notes=left_out)
    scans = {scan.uid: scan for scan in sorted(found, key=_size) if scan.uid}  # the largest copy
    cases: dict[str, Case] = {}
    files: dict[str, Path] = {}
    failed: dict[str, str] = {}
    for file in find_lidc_xml(folder):
        name = str(file.relative_to(folder))  # many files are called 068.xml
        try:
            readings = read_lidc_xml(file)
        except InputError as error:
            failed[name] = str(error)
            continue
        uid = readings.series_instance_uid
        first = files.setdefault(uid, file)
        if uid in scans and first is file:
            mark = partial(_mark_consensus, readings, agreement, empty_scans)
            cases[uid] = Case(scans[uid], None, mark)
        elif uid in scans and file.read_bytes() != first.read_bytes():
            failed[name] = f"{file} reads series {uid} otherwise than {first}: keep one."
    if absent := {uid: file for uid, file in files.items() if uid not in scans}:
        uid, file = next(iter(absent.items()))
        if not cases and not failed:
            raise InputError(f"{file} reads series {uid}, which is not in {folder}: add the scan.")
        left_out.append(
            f"Readings left out as their scans are not there: {len(absent)}, such as "
            f"{file.relative_to(folder)}."
        )
    if not cases and not failed:
        raise InputError(
            f"{folder} has no XML files of LIDC-IDRI's radiologists: choose the folder with the "
            "scans and the XML files."
        )
    without = len(scans) - len(cases)
    outcome = prepare_cases(
        list(cases.values()), output, choice, {"agreement": agreement}, without, failed, progress
    )
    notes = {str(folder): tuple(left_out)} if left_out else {}
    return replace(outcome, notes={**notes, **outcome.notes})


def _size(scan: IndexedScan) -> int:
    return len(scan.files)


def _mark_consensus(
    readings: ScanReadings,
    agreement: int,
    empty_scans: bool,
    image: sitk.Image,
    axial: sitk.Image,
) -> Marks | None:
    nodules = consensus_nodules(readings, image)
    own = consensus_labels(nodules, image, agreement)
    marked = sitk.LabelShapeStatisticsImageFilter()
    marked.Execute(own)
    agreed = [number for number in range(1, len(nodules) + 1) if marked.HasLabel(number)]
    if not agreed and not empty_scans:
        return None
    labels = onto_grid(own, axial)
    volumes = [marked.GetPhysicalSize(number) for number in agreed]
    return Marks(
        labels,
        np.array([marked.GetCentroid(number) for number in agreed]).reshape(-1, 3),
        sphere_diameter(np.array(volumes)),
        [
            {
                "number": number,
                "readers": nodules[number - 1].readers,
                "ratings": nodules[number - 1].ratings,
            }
            for number in agreed
        ],
    )
