"""The DICOM series under a folder: found by their headers, listed, the best chest CT chosen."""

import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_scan import SeriesInfo, check_geometry
from CTLungScreeningLib.reading.dicom_headers import (
    DAMAGED,
    DICOM_SUFFIXES,
    Instance,
    cannot_open,
    is_companion,
    looks_like_dicom,
    printable,
    read_instance,
)
from CTLungScreeningLib.reading.dicom_pixels import same_pixels
from CTLungScreeningLib.reading.slice_stack import SliceStack, build_stack
from CTLungScreeningLib.reading.volume_files import VOLUME_SUFFIXES

_CHEST = re.compile(r"chest|thora|torax|torac|lung|pulmo|poumon|thx|\bct?ap\b|whole ?body")
_ELSEWHERE = re.compile(
    r"head|brain|skull|neck|cervic|sinus|face|orbit|dental|abdo|pelvi|liver|kidney|renal|spine|"
    r"lumbar|hip\b|knee|ankle|foot|femur|shoulder|elbow|wrist|hand|leg\b|extremit"
)
_DERIVED = re.compile(
    r"\b(derived|secondary|reformatted|mpr|mip|minip|average|avg|mean|projection|maximum|minimum|"
    r"coronal|sagittal|subtract\w*|fusion|overlay|vrt|3d)\b",
    re.IGNORECASE,
)
_MATERIAL = re.compile(
    r"\bmat (specific|removed|fractional|value based|modified)\b|\beff atomic num\b|"
    r"\belectron\W*density\b|\bvnc\b|\bvirtual\W*(non|un)\W*(contrast|enhanced)\b|"
    r"\biodine\b(?! contrast)|\bmd \w+ ?\(|\bz\W*eff|\beff(ective)?\W*z\b|"
    r"\b(water|calcium|fat|uric acid) ?map\b",
    re.IGNORECASE,
)
"""Maps of a material, computed from several energies, whose values are not HU or not those that a
scanner would see: the fourth value of Image Type (DICOM PS3.3 C.8.2.1.1.1) and what scanners call
such series, with spaces for underscores."""

_SHARP = re.compile(
    r"lung|bone|edge|detail|sharp|^(b|br|bl|bv|hr|qr|i|j)[5-9]\d|^bl|^fc(3|5|8)\d|^y[abcd]$|^[ed]$|^l$",
    re.IGNORECASE,
)
"""Our rule for kernels of lung and bone: Siemens from 50 up and Bl, GE LUNG, BONE and EDGE, Canon
FC3x, FC5x and FC8x, Philips L, E, D and YA to YD."""

_WHOLE_MM = 150.0
"""A series shorter than this is not of a whole chest."""

_MAX_LISTED = 5


def best_first(series: "FoundSeries") -> tuple[object, ...]:
    """The key that sorts the series of a folder, the one to read first.

    Usable axial CT comes before all else; then, in this order: CT before maps of a material; chest,
    unknown part, other part of the body; original before reformatted, projected and averaged; a
    whole chest before a part; smaller slice distance; soft before sharp kernel; more slices; larger
    matrix. Body part and protocol, often those of the whole examination, count only if the
    description names no part.
    """
    one = series.summary
    values = series.stack.frames[0].acquisition if series.stack else {}
    kind = f"{values.get('ImageType', '')} {values.get('FrameType', '')} {one.description}"
    return (
        one.modality != "CT",
        not one.usable,
        not one.axial,
        bool(_MATERIAL.search(kind.replace("_", " "))),
        next(filter(None, map(_part, (one.description, series.body_part))), 0),
        bool(_DERIVED.search(kind)),
        one.slices * one.spacing[2] < _WHOLE_MM,
        round(one.spacing[2], 1),
        bool(_SHARP.search(values.get("ConvolutionKernel", "").strip("[]' "))),
        -one.slices,
        -one.rows * one.columns,
        one.uid,
    )


def _part(text: str) -> int:
    """The part of the body that a text names: -1 for the chest, 1 for another, 0 for none."""
    text = text.lower()
    return -1 if _CHEST.search(text) else 1 if _ELSEWHERE.search(text) else 0


def choose_series(
    series: Sequence["FoundSeries"], folder: Path, uid: str | None = None
) -> tuple["FoundSeries", tuple[str, ...]]:
    """The series named by `uid`, else the best CT of a chest, and notes if there was a choice.

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
    if len(ct) == 1:
        return chosen, ()
    others = [_described(one) for one in usable[1 : _MAX_LISTED + 1]]
    unlisted = len(usable) - 1 - len(others)
    notes = [
        f"Series {_described(chosen)} was chosen of {len(ct)} CT series"
        f"{'' if chosen.summary.axial else '; none is axial'}."
    ]
    if others:
        rest = f" and {unlisted} more" if unlisted > 0 else ""
        notes.append(f"Others to choose with --series: {'; '.join(others)}{rest}.")
    notes += [
        f"Not usable: {one.summary.problem}"
        for one in ct
        if not one.summary.usable and one.summary.slices > chosen.summary.slices
    ]
    return chosen, tuple(notes)


def _described(series: "FoundSeries") -> str:
    one = series.summary
    return (
        f"{one.uid} ({one.description or 'no description'}, {counted(one.slices, 'slice')} of "
        f"{one.spacing[2]:.4g} mm)"
    )


ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".dcm.gz", ".iso")

_FEW_MISSING = 50
"""Numbers that begin higher than this belong to a numbering of another kind."""


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
    body_part: str = ""


class SliceIdentity(NamedTuple):
    """Slices by their SOP Instance UIDs, and the patient to whose copies they belong."""

    instances: frozenset[str]
    patient_id: str

    def of(self, found: Iterable[Instance]) -> list[Instance]:
        """Those among the files found; of any patient, if none is of this one."""
        named = [
            one
            for one in found
            if any(frame.sop_instance_uid in self.instances for frame in one.frames)
        ]
        return [one for one in named if one.series.patient_id == self.patient_id] or named


def list_series(folder: Path, progress: ProgressCallback = silent) -> list[SeriesSummary]:
    """List the DICOM series under a folder, the best chest CT first.

    Raises:
        InputError: if it is not a folder or holds no DICOM.
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
            images = counted(one.slices, "image")
            lines.append(f"    {images}, not usable: {one.problem}")
    return "\n".join(lines)


def find_series(
    folder: Path,
    progress: ProgressCallback = silent,
    only: str | None = None,
    nested: bool = True,
    files: Sequence[Path] | None = None,
    among: SliceIdentity | None = None,
) -> tuple[list[FoundSeries], tuple[str, ...]]:
    """Find the series under a folder by the headers of its files.

    Args:
        folder: searched with its subfolders, unless not `nested`.
        progress: counts the files examined, in the stage "Searching".
        only: a SeriesInstanceUID; the others are then left out.
        nested: whether to look into subfolders.
        files: the files to look at, if they are known; else all in the folder.
        among: the slices to which each series is limited; None for all.

    Returns:
        The series, the best chest CT first, and notes on what is damaged or cannot be opened.

    Raises:
        InputError: if it is not a folder or holds no DICOM.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the DICOM files.")
    closed: list[str] = []
    files = sorted(dicom_candidates(folder, closed, nested) if files is None else files)
    by_uid: dict[str, list[Instance]] = defaultdict(list)
    damaged: list[Path] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        for done, file in enumerate(files):
            progress("Searching", done, len(files))
            try:
                if not looks_like_dicom(file):
                    if file.suffix.lower() in DICOM_SUFFIXES and not is_companion(file):
                        damaged.append(file)
                    continue
            except InputError as error:
                closed.append(str(error))
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
            raise InputError(_nothing_found(folder, files, damaged, closed))
        series = [
            _examine(folder, chosen, damaged)
            for uid, instances in by_uid.items()
            if only is None or uid == only
            if (chosen := among.of(instances) if among else instances)
        ]
    series.sort(key=best_first)
    notes = []
    if damaged:
        notes.append(
            f"Damaged files left out: {len(damaged)} of {len(files)}, such as {damaged[0]}."
        )
    if closed:
        notes.append(closed_note(closed))
    return series, tuple(notes)


def _nothing_found(
    folder: Path, files: Sequence[Path], damaged: list[Path], closed: list[str]
) -> str:
    if closed:
        return closed[0]
    broken = f"; {damaged[0]} is damaged" if damaged else ""
    archives = [file for file in files if file.name.lower().endswith(ARCHIVE_SUFFIXES)]
    volumes = [file for file in files if file.name.lower().endswith(VOLUME_SUFFIXES)]
    advice = (
        f"give {volumes[0].relative_to(folder)} itself"
        if volumes
        else f"unpack {archives[0].relative_to(folder)} first"
        if archives
        else f"give the folder of a CT series or a file {', '.join(VOLUME_SUFFIXES)}"
    )
    among = counted(len(files), "file")
    return f"{folder} holds no DICOM image among its {among}{broken}: {advice}."


def closed_note(closed: list[str]) -> str:
    """A note on what was left out as it cannot be opened, by a sentence for each."""
    return f"Left out: {len(closed)}; for example, {closed[0]}"


def dicom_candidates(folder: Path, closed: list[str], nested: bool = True) -> Iterator[Path]:
    """Return the files in a folder that may be DICOM: all but directories of DICOM files.

    Args:
        folder: searched with its subfolders, unless not `nested`; never through
            links to folders.
        closed: gets a sentence for each folder or file that cannot be accessed.
        nested: whether to look into subfolders.
    """

    def unreadable(error: OSError) -> None:
        closed.append(cannot_open(error))

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        for name in names:
            file = Path(parent, name)
            try:
                regular = file.is_file()
            except OSError as error:
                unreadable(error)
                continue
            if regular and name.upper() != "DICOMDIR":
                yield file
        if not nested:
            folders.clear()


def _examine(folder: Path, instances: list[Instance], damaged: list[Path]) -> FoundSeries:
    """Sort the slices of one series, or find the reason why they cannot be sorted.

    What is not a slice of a CT is left out, wherever it sorts; a slice that cannot be used counts
    as missing, and is named.
    """
    ct = [one for one in instances if one.modality == "CT"]
    first = (ct or instances)[0]
    info = first.series
    name = f"{folder}, series {info.series_instance_uid}"
    count = sum(instance.count for instance in ct or instances)
    summary = SeriesSummary(info.series_instance_uid, info.description, first.modality, count)

    def refused(problem: str) -> FoundSeries:
        return FoundSeries(SeriesSummary(**{**vars(summary), "problem": problem}), info, None)

    if not ct:
        return refused(f"{name} is not CT but {first.modality or 'of no modality'}: choose a CT.")
    usable = [one for one in ct if one.frames]
    frames = [frame for one in usable for frame in one.frames]
    faulty = [one for one in ct if one.problem]
    if not frames and faulty:
        return refused(str(faulty[0].problem))
    if not frames:
        return refused(
            f"{name} holds only localizers (scouts) or pictures, no slices: choose another series."
        )
    try:
        _check_one_patient(usable, name)
        stack = build_stack(frames, name, same_pixels)
        rows, columns = stack.frames[0].shape
        notes = [
            *_left_out(instances, ct, faulty),
            *stack.notes,
            *check_geometry(
                name,
                (columns, rows, len(stack.frames)),
                stack.spacing,
                stack.frames[0].position,
            ),
            *_end_notes(usable),
        ]
    except InputError as error:
        return refused(_with_faulty(str(error), faulty, damaged))
    except DAMAGED as error:
        return refused(f"{name} has damaged headers ({printable(error)}): get the series again.")
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
        usable[0].body_part,
    )


def _check_one_patient(instances: list[Instance], name: str) -> None:
    """Refuse slices of several patients, studies or frames of reference under one series UID."""
    for what, values in (
        ("patients", [one.patient[:1] for one in instances]),
        ("patients", [one.patient[1:2] for one in instances]),
        ("patients", [one.patient[2:] for one in instances]),
        ("studies", [(one.series.study_instance_uid,) for one in instances]),
        ("frames of reference", [(one.series.frame_of_reference_uid,) for one in instances]),
    ):
        known = [(value, one) for value, one in zip(values, instances, strict=True) if any(value)]
        other = next((one for value, one in known if value != known[0][0]), None)
        if other is not None:
            raise InputError(
                f"{name} mixes two {what}, as in {known[0][1].file} and {other.file}: separate "
                "the files and give the folder of one."
            )


def _left_out(
    instances: list[Instance], ct: list[Instance], faulty: list[Instance]
) -> Iterator[str]:
    """Notes on what lies in the series and is not a slice of it."""
    localizers = sum(one.localizers for one in ct)
    count = sum(one.count for one in ct)
    if localizers:
        yield f"Localizers (scouts) and pictures left out: {localizers} of {count} images."
    others = [one for one in instances if one.modality != "CT"]
    if others:
        kinds = ", ".join(sorted({one.modality or "no modality" for one in others}))
        yield (
            f"Files in the series that are not CT images left out: {len(others)} ({kinds}), such "
            f"as {others[0].file.name}."
        )
    if faulty:
        problem = str(faulty[0].problem).rstrip(".")
        yield f"Images left out: {len(faulty)} of {count}; for example, {problem}."


def _with_faulty(sentence: str, faulty: list[Instance], damaged: list[Path]) -> str:
    """Name the files whose damage may be why slices are missing."""
    if "lacks" not in sentence and "slice distance" not in sentence and "has only" not in sentence:
        return sentence
    if damaged:
        others = len(damaged) - 1
        verb = "is" if others == 1 else "are"
        more = f", as {verb} {counted(others, 'more file')}" if others else ""
        return f"{sentence.rstrip('.')}; {damaged[0].name} is damaged{more}."
    if faulty:
        return f"{sentence.rstrip('.')}; {str(faulty[0].problem).rstrip('.')}."
    return sentence


def _end_notes(instances: list[Instance]) -> Iterator[str]:
    """Note that slices may be missing at an end, if the header numbers or counts them."""
    numbers = sorted(one.number for one in instances if one.number is not None)
    announced = {one.announced for one in instances}
    if any(frame.index is not None for one in instances for frame in one.frames):
        return
    said = announced.pop() if len(announced) == 1 else None
    if said and 0 < said - len(instances) <= _FEW_MISSING:
        yield (
            f"The header announces {said} images of this acquisition, but {len(instances)} are "
            "here: slices may be missing at an end."
        )
    elif (
        len(numbers) == len(instances)
        and len(numbers) > 1
        and 1 < numbers[0] <= _FEW_MISSING
        and numbers[-1] - numbers[0] == len(numbers) - 1
    ):
        yield (f"The images are numbered from {numbers[0]}: slices may be missing at an end.")
