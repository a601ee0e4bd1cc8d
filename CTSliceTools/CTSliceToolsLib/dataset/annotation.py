"""The annotation of a scan: which slice shows which landmark, as JSON beside the slices.

The format is the tutorial's (Building a CT Slice Localizer With Keras, 2019): landmark → file name,
such as `{"C7": "32.dcm", "T1": "27.dcm"}`. For other scans than DICOM series it has slice numbers
from 0 at the feet.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.json_files import read_object, replace_object
from CTLungScreeningLib.reading.ct_scan import SeriesInfo, check_geometry
from CTLungScreeningLib.reading.dicom_headers import Frame, looks_like_dicom, read_instance
from CTLungScreeningLib.reading.dicom_pixels import read_hu
from CTLungScreeningLib.reading.slice_stack import is_axial
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME, LANDMARKS
from CTSliceToolsLib.slice_image import stored_slice_image


@dataclass(frozen=True)
class SliceFile:
    """One axial slice and its series."""

    series: SeriesInfo
    frame: Frame

    @property
    def series_instance_uid(self) -> str:
        """The SeriesInstanceUID."""
        return self.series.series_instance_uid

    @cached_property
    def z_mm(self) -> float:
        """LPS z of the slice's centre in mm.

        It differs from Image Position (Patient), which is a corner, if the gantry was tilted.
        """
        return float(self.frame.centre[2])

    def picture(self) -> NDArray[np.uint8]:
        """Read the pixels and make the slice's image, see `slice_image.stored_slice_image`.

        Raises:
            InputError: if the pixels cannot be read.
        """
        between_rows, between_columns = self.frame.spacing
        (hu,) = read_hu([self.frame])
        return stored_slice_image(hu, self.frame.orientation, (between_columns, between_rows))


def read_slice_file(file: Path) -> SliceFile:
    """Read the header of a DICOM file with one axial CT slice.

    Raises:
        InputError: if it is missing, damaged or of another kind.
    """
    if not file.is_file():
        raise InputError(f"{file} does not exist: name a file of the series.")
    if not looks_like_dicom(file):
        raise InputError(f"{file} is not a DICOM file, or damaged: export it again.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        instance = read_instance(file)
    if instance is None:
        raise InputError(f"{file} is a DICOMDIR, not a slice: choose a slice.")
    if instance.modality != "CT":
        raise InputError(f"{file} is not CT but {instance.modality or 'of unknown modality'}.")
    if instance.problem:
        raise InputError(instance.problem)
    if not instance.frames:
        raise InputError(f"{file} is a localizer (scout) or a picture, not a slice.")
    if len(instance.frames) > 1:
        raise InputError(
            f"{file} has {len(instance.frames)} slices: export the series as one file per slice."
        )
    (frame,) = instance.frames
    if not is_axial(np.cross(*frame.orientation)):
        raise InputError(f"{file} is not an axial slice.")
    check_geometry(str(file), frame.shape, frame.spacing, frame.position)
    return SliceFile(instance.series, frame)


def dicom_files(folder: Path) -> Iterator[Path]:
    """Yield the DICOM files directly in a folder, by name."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name.upper() != "DICOMDIR" and looks_like_dicom(file):
            yield file


def read_slice_files(folder: Path) -> tuple[dict[str, SliceFile], tuple[str, ...]]:
    """Read the headers of the slices in a folder.

    Returns:
        The slices by file name, and a sentence for each other DICOM file.

    Raises:
        InputError: if it is not a folder or has no slices.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name the folder of a DICOM series.")
    slices, others = {}, []
    for file in dicom_files(folder):
        try:
            slices[file.name] = read_slice_file(file)
        except InputError as other:
            others.append(str(other))
    if not slices:
        more = f" {others[0]}" if others else ""
        raise InputError(f"{folder} has no CT slices: name the folder of a DICOM series.{more}")
    return slices, tuple(others)


ANNOTATION = "annotation.json"
"""Name of the file in the folder of a series."""

SliceName: TypeAlias = str | int
"""The name of a slice's DICOM file, or its number from 0 at the feet."""


@dataclass(frozen=True)
class Annotation:
    """Landmarks of one scan, in anatomical order.

    Attributes:
        source: its name in messages, the file or the scan.
        slices: landmark → slice.
        z_mm: landmark → LPS z of that slice in mm.

    Raises:
        InputError: on construction, if a landmark is unknown, has no finite z, or is not below all
            landmarks that must be above it.
    """

    source: str
    slices: Mapping[str, SliceName]
    z_mm: Mapping[str, float]

    def __post_init__(self) -> None:
        landmarks = from_head_to_feet(self.source, self.slices)
        for landmark in landmarks:
            if not isfinite(self.z_mm[landmark]):
                raise InputError(
                    f"{self.source} has no height for {landmark}: give its LPS z in mm."
                )
        for upper, lower in pairwise(landmarks):
            if self.z_mm[upper] <= self.z_mm[lower]:
                where = "on the same level as" if self.z_mm[upper] == self.z_mm[lower] else "above"
                raise InputError(
                    f"{self.source} contradicts anatomy: {self._described(lower)} lies {where} "
                    f"{self._described(upper)}; correct one of the two."
                )

    def _described(self, landmark: str) -> str:
        return f"{landmark} (slice {self.slices[landmark]}, z = {self.z_mm[landmark]:.1f} mm)"


def from_head_to_feet(source: str, landmarks: Iterable[str]) -> list[str]:
    """Sort names of landmarks.

    Raises:
        InputError: if a name is not a landmark; it names `source`.
    """
    names = list(landmarks)
    for name in names:
        if name not in LANDMARK_BY_NAME:
            known = ", ".join(landmark.name for landmark in LANDMARKS)
            raise InputError(f"{source} has an unknown landmark, “{name}”: use one of {known}.")
    return sorted(names, key=lambda name: LANDMARK_BY_NAME[name].location)


def read_slice_names(file: Path) -> dict[str, SliceName]:
    """Read an annotation file without reading the slices.

    Returns:
        Landmark → slice, from head to feet; either all file names or all numbers.

    Raises:
        InputError: if the file is missing or not an annotation, or has an unknown landmark.
    """
    content = read_object(file)
    landmarks = from_head_to_feet(str(file), content)
    for landmark, name in content.items():
        if not _is_file_name(name) and not _is_number(name):
            raise InputError(
                f"{file} has for {landmark} neither the name of a file in the folder of the "
                "series nor a slice number: correct it."
            )
    if len({type(name) for name in content.values()}) > 1:
        raise InputError(f"{file} mixes file names and slice numbers: use one of the two.")
    return {landmark: content[landmark] for landmark in landmarks}


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not {*name} & {*"/\\:\0"}


def _is_number(name: Any) -> bool:
    return type(name) is int and name >= 0


def read_annotation(file: Path, z_mm: Mapping[Any, float] | None = None) -> Annotation:
    """Read and check the annotation of a scan.

    Args:
        file: the annotation file.
        z_mm: LPS z in mm of the scan's slices by name; None to read it from the headers of the
            annotated files, which are beside `file`.

    Raises:
        InputError: if it is not an annotation, has an unknown landmark or slice, or contradicts
            anatomy.
    """
    names = read_slice_names(file)
    if z_mm is None:
        files = {}
        for landmark, name in names.items():
            if not isinstance(name, str):
                raise InputError(
                    f"{file} has slice numbers, not file names: it belongs to a volume; "
                    "read it together with the volume."
                )
            files[landmark] = file.parent / name
        return annotation_of_slices(str(file), read_annotated_slices(str(file), files))
    for landmark, name in names.items():
        if name not in z_mm:
            raise InputError(
                f"{file} names for {landmark} the slice {name}, which is not in the scan: "
                "put it back or correct the annotation."
            )
    return Annotation(str(file), names, {one: z_mm[name] for one, name in names.items()})


def read_annotated_slices(source: str, files: Mapping[str, Path]) -> dict[str, SliceFile]:
    """Read the headers of the annotated files.

    Raises:
        InputError: if a file is missing or not an axial slice, or they are of several series.
    """
    slices = {}
    for landmark, file in files.items():
        if not file.is_file():
            raise InputError(
                f"{source} names for {landmark} the file {file.name}, which is not in "
                f"{file.parent}: put it back or correct the annotation."
            )
        slices[landmark] = _read_once(file, file.stat().st_mtime_ns)
    if len({one.series_instance_uid for one in slices.values()}) > 1:
        raise InputError(f"{source} names files of several series: annotate them separately.")
    return slices


@lru_cache(maxsize=8 * len(LANDMARKS))
def _read_once(file: Path, _changed_ns: int) -> SliceFile:
    """Read a header, cached because it is needed again whenever the annotation is saved."""
    return read_slice_file(file)


def annotation_of_slices(source: str, slices: Mapping[str, SliceFile]) -> Annotation:
    """Make an annotation from landmarks and their slices.

    Raises:
        InputError: see `Annotation`.
    """
    names = {landmark: one.frame.file.name for landmark, one in slices.items()}
    return Annotation(source, names, {landmark: one.z_mm for landmark, one in slices.items()})


def annotation_from_z(
    source: str, landmark_z_mm: Mapping[str, float], slice_z_mm: Mapping[SliceName, float]
) -> Annotation:
    """Make an annotation from the z of landmarks, for example from a prediction.

    Args:
        source: its name in messages.
        landmark_z_mm: landmark → LPS z in mm.
        slice_z_mm: slice name → LPS z in mm; at least one.

    Returns:
        Each landmark with the nearest slice.

    Raises:
        InputError: if a landmark is more than half a slice outside the scan, or two are on the same
            slice or in an order that contradicts anatomy.
    """
    heights = sorted(slice_z_mm.values())
    half = max((upper - lower for lower, upper in pairwise(heights)), default=0.0) / 2
    names = {}
    for landmark, z in landmark_z_mm.items():
        if not heights[0] - half <= z <= heights[-1] + half:
            raise InputError(
                f"{source} has {landmark} at z = {z:.1f} mm, outside the scan from "
                f"{heights[0]:.1f} to {heights[-1]:.1f} mm: leave it out."
            )
        names[landmark] = min(slice_z_mm, key=lambda name: abs(slice_z_mm[name] - z))
    return Annotation(source, names, {one: slice_z_mm[name] for one, name in names.items()})


def read_heights(file: Path) -> dict[str, float]:
    """Read the z of landmarks from a JSON file of `predict`.

    Returns:
        Landmark → LPS z in mm, from `z_mm` of each entry of `landmarks`.

    Raises:
        InputError: if the file has no such entries.
    """
    landmarks = read_object(file).get("landmarks")
    try:
        heights = {name: float(about["z_mm"]) for name, about in dict(landmarks or {}).items()}
    except DAMAGE:
        heights = {}
    if not heights:
        raise InputError(f"{file} has no landmark with z_mm: choose a file that predict wrote.")
    return heights


def _require_same_scan(heights: Path, folder: Path, series: SeriesInfo) -> None:
    """Refuse a file of `predict` for a scan whose z is not that of a series.

    The first of frame of reference, study and series that is known of both decides. A file made by
    hand names none.
    """
    scan = read_object(heights).get("scan")
    predicted = scan.get("series") if isinstance(scan, dict) else None
    if not isinstance(predicted, dict):
        return
    for key in ("frame_of_reference_uid", "study_instance_uid", "series_instance_uid"):
        there, here = predicted.get(key), getattr(series, key)
        if there and here:
            if there != here:
                raise InputError(
                    f"{heights} was predicted for series {predicted.get('series_instance_uid')}, "
                    f"whose z is not that of series {series.series_instance_uid} in {folder}: give "
                    "the prediction of this series."
                )
            return


def annotate_series(folder: Path, heights: Path) -> Annotation:
    """Annotate a DICOM series from the z of landmarks, for a person to check and correct.

    Args:
        folder: of the series; gets `ANNOTATION`.
        heights: see `read_heights`.

    Raises:
        InputError: if the series is already annotated, the heights are those of another scan, or as
            `annotation_from_z`.
    """
    if (folder / ANNOTATION).exists():
        raise InputError(
            f"{folder} is already annotated: move its {ANNOTATION} away to make a new one."
        )
    slices, _ = read_slice_files(folder)
    if len({one.series_instance_uid for one in slices.values()}) > 1:
        raise InputError(f"{folder} has several series: run organize on it first.")
    z_mm: dict[SliceName, float] = {name: one.z_mm for name, one in slices.items()}
    landmarks = read_heights(heights)
    _require_same_scan(heights, folder, next(iter(slices.values())).series)
    annotation = annotation_from_z(str(heights), landmarks, z_mm)
    write_annotation(annotation, folder / ANNOTATION)
    return annotation


def write_annotation(
    annotation: Annotation, file: Path, there: Mapping[str, SliceName] | None = None
) -> dict[str, SliceName]:
    """Save an annotation, replacing an existing one atomically.

    Args:
        annotation: to save.
        file: to write.
        there: what `file`, if there is one, is to hold before; None for any annotation.

    Returns:
        What it holds now: landmark → slice, from head to feet.

    Raises:
        InputError: if `file` is not an annotation, or neither as it is to be before nor after, or
            cannot be written, or a slice has a name that `read_slice_names` refuses; it is then
            unchanged.
    """
    landmarks = from_head_to_feet(annotation.source, annotation.slices)
    content = {landmark: annotation.slices[landmark] for landmark in landmarks}
    for name in content.values():
        if not _is_file_name(name) and not _is_number(name):
            raise InputError(
                f"{file.parent} has a slice named “{name}”, which an annotation cannot name: run "
                "organize on the folder, which renames its files."
            )
    if there is not None and file.exists() and read_slice_names(file) not in (there, content):
        raise InputError(f"{file} was changed by somebody else: load it or move it away.")
    replace_object(file, content, lambda held: held.keys() <= LANDMARK_BY_NAME.keys())
    return content
