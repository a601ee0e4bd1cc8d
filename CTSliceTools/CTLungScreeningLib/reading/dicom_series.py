"""The DICOM series under a folder: found by their headers, listed, one of them chosen."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_scan import SeriesInfo
from CTLungScreeningLib.reading.dicom_frames import (
    DAMAGED,
    DICOM_SUFFIXES,
    Instance,
    looks_like_dicom,
    read_instance,
)
from CTLungScreeningLib.reading.dicom_pixels import same_pixels
from CTLungScreeningLib.reading.slice_stack import SliceStack, build_stack
from CTLungScreeningLib.reading.volume_files import VOLUME_SUFFIXES


@dataclass(frozen=True)
class SeriesSummary:
    """One line of a list of series.

    Attributes:
        uid: SeriesInstanceUID.
        description: SeriesDescription.
        modality: such as CT.
        slices: how many slices the volume has, or images the series if it makes no volume.
        rows: of a slice; 0 if unknown, as are the next two.
        columns: of a slice.
        spacing: mm between columns, rows and slices (x, y, z).
        axial: whether the slices are axial.
        problem: a sentence if it cannot be read as a CT volume, else None.
    """

    uid: str
    description: str
    modality: str
    slices: int
    rows: int = 0
    columns: int = 0
    spacing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axial: bool = False
    problem: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it can be read as a CT volume."""
        return self.problem is None


@dataclass(frozen=True, eq=False)
class FoundSeries:
    """A series with its summary and, if it is usable, its slices in order."""

    summary: SeriesSummary
    info: SeriesInfo
    stack: SliceStack | None
    notes: tuple[str, ...] = ()


def list_series(folder: Path, progress: ProgressCallback = silent) -> list[SeriesSummary]:
    """List the DICOM series under a folder, the largest usable axial CT first.

    Raises:
        InputError: if it is no folder or holds no DICOM.
    """
    return [series.summary for series in find_series(folder, progress)[0]]


def format_series(summaries: Sequence[SeriesSummary]) -> str:
    """A list of series as text for the terminal, two lines each."""
    lines = []
    for one in summaries:
        lines.append(f"{one.uid}  {one.modality or '?'}  {one.description or '(no description)'}")
        if one.usable:
            spacing = " × ".join(f"{mm:.4g}" for mm in one.spacing)
            lines.append(
                f"    {one.columns} × {one.rows} × {one.slices} voxels of {spacing} mm, "
                f"{'axial' if one.axial else 'not axial'}"
            )
        else:
            images = f"{one.slices} image{'s' * (one.slices != 1)}"
            lines.append(f"    {images}, not usable: {one.problem}")
    return "\n".join(lines)


def find_series(
    folder: Path,
    progress: ProgressCallback = silent,
    only: str | None = None,
    nested: bool = True,
    files: Sequence[Path] | None = None,
) -> tuple[list[FoundSeries], tuple[str, ...]]:
    """Find the series under a folder by the headers of its files.

    Args:
        folder: searched with its subfolders, unless not `nested`.
        progress: told of the files looked at, as stage "Searching".
        only: a SeriesInstanceUID; the others are then left out.
        nested: whether to look into subfolders.
        files: the files to look at, if they are known; else all in the folder.

    Returns:
        The series, the largest usable axial CT first, and a note on files that were damaged.

    Raises:
        InputError: if it is no folder, holds no DICOM, or a file in it cannot be opened.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the DICOM files.")
    files = sorted(dicom_candidates(folder, nested) if files is None else files)
    by_uid: dict[str, list[Instance]] = defaultdict(list)
    damaged: list[Path] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        for done, file in enumerate(files):
            progress("Searching", done, len(files))
            if not looks_like_dicom(file):
                if file.suffix.lower() in DICOM_SUFFIXES:
                    damaged.append(file)
                continue
            try:
                instance = read_instance(file)
            except InputError:
                damaged.append(file)
                continue
            if instance:
                by_uid[instance.series.series_instance_uid].append(instance)
        progress("Searching", len(files), len(files))
        if not by_uid:
            raise InputError(_nothing_found(folder, files, damaged))
        series = [
            _examine(folder, instances)
            for uid, instances in by_uid.items()
            if only is None or uid == only
        ]
    series.sort(key=_largest_axial_first)
    if not damaged:
        return series, ()
    return series, (
        f"Damaged files left out: {len(damaged)} of {len(files)}, such as {damaged[0]}.",
    )


def _nothing_found(folder: Path, files: Sequence[Path], damaged: list[Path]) -> str:
    broken = f"; {damaged[0]} is damaged" if damaged else ""
    volumes = [file for file in files if file.name.lower().endswith(VOLUME_SUFFIXES)]
    advice = (
        f"give {volumes[0].relative_to(folder)} itself"
        if volumes
        else f"give the folder of a CT series or a file {', '.join(VOLUME_SUFFIXES)}"
    )
    return f"{folder} holds no DICOM image among its {len(files)} files{broken}: {advice}."


def choose_series(
    series: Sequence[FoundSeries], folder: Path, uid: str | None = None
) -> tuple[FoundSeries, tuple[str, ...]]:
    """The series named by `uid`, else the largest axial CT, and a note if there was a choice.

    Raises:
        InputError: if there is none, or the one named is not usable.
    """
    ct = [one for one in series if one.summary.modality == "CT"]
    if uid is not None:
        named = [one for one in series if one.summary.uid == uid]
        if not named:
            there = ", ".join(one.summary.uid for one in series)
            raise InputError(f"{folder} holds no series {uid}: choose one of {there}.")
        if problem := named[0].summary.problem:
            raise InputError(problem)
        note = f"Series {uid} was taken as asked, of {len(ct)} CT series."
        return named[0], (note,) if len(ct) > 1 else ()
    if not ct:
        modalities = Counter(one.summary.modality or "unknown" for one in series)
        found = ", ".join(f"{count} × {modality}" for modality, count in modalities.items())
        raise InputError(f"{folder} holds no CT series, only {found}: give the folder of a CT.")
    usable = [one for one in ct if one.summary.usable]
    if not usable:
        problem = ct[0].summary.problem
        more = "" if len(ct) == 1 else f" None of the {len(ct)} CT series there can be used."
        raise InputError(f"{problem}{more}")
    chosen = usable[0]
    notes = []
    if len(ct) > 1:
        notes.append(
            f"Series {chosen.summary.uid} ({chosen.summary.description or 'no description'}, "
            f"{chosen.summary.slices} slices) was chosen of {len(ct)} CT series as the largest"
            f"{' axial one' if chosen.summary.axial else '; none is axial'}."
        )
    notes += [
        f"Not usable: {one.summary.problem}"
        for one in ct
        if not one.summary.usable and one.summary.slices > chosen.summary.slices
    ]
    return chosen, tuple(notes)


def dicom_candidates(folder: Path, nested: bool = True) -> Iterator[Path]:
    """Give the files in a folder that may be DICOM: all but directories of DICOM files."""
    for parent, folders, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            if name.upper() != "DICOMDIR" and file.is_file():
                yield file
        if not nested:
            folders.clear()


def _examine(folder: Path, instances: list[Instance]) -> FoundSeries:
    """Put the slices of one series in order, or find out why that cannot be done."""
    first = instances[0]
    info = first.series
    name = f"{folder}, series {info.series_instance_uid}"
    count = sum(instance.count for instance in instances)
    summary = SeriesSummary(info.series_instance_uid, info.description, first.modality, count)

    def refused(problem: str) -> FoundSeries:
        return FoundSeries(SeriesSummary(**{**vars(summary), "problem": problem}), info, None)

    if first.modality != "CT":
        return refused(f"{name} is not CT but {first.modality or 'of no modality'}: choose a CT.")
    if problem := next((one.problem for one in instances if one.problem), None):
        return refused(problem)
    frames = [frame for instance in instances for frame in instance.frames]
    left_out = sum(instance.localizers for instance in instances)
    if not frames:
        return refused(
            f"{name} holds only localizers (scouts) or pictures, no slices: choose another series."
        )
    try:
        stack = build_stack(frames, name, same_pixels)
    except InputError as error:
        return refused(str(error))
    except DAMAGED as error:
        return refused(f"{name} has damaged headers ({error}): get the series again.")
    rows, columns = stack.frames[0].shape
    notes = list(stack.notes)
    if left_out:
        notes.insert(0, f"Localizers (scouts) and pictures left out: {left_out} of {count} images.")
    return FoundSeries(
        SeriesSummary(
            uid=info.series_instance_uid,
            description=info.description,
            modality=first.modality,
            slices=len(stack.frames),
            rows=rows,
            columns=columns,
            spacing=stack.spacing,
            axial=stack.axial,
        ),
        info,
        stack,
        tuple(notes),
    )


def _largest_axial_first(series: FoundSeries) -> tuple[bool, bool, bool, int, int, str]:
    one = series.summary
    return (
        one.modality != "CT",
        not one.usable,
        not one.axial,
        -one.slices,
        -one.rows * one.columns,
        one.uid,
    )
