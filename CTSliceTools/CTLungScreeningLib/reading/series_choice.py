"""Which of several series is read: the best CT of a chest, by a stated rule."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from CTLungScreeningLib.errors import InputError

if TYPE_CHECKING:
    from CTLungScreeningLib.reading.dicom_series import FoundSeries

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
_SHARP = re.compile(
    r"lung|bone|edge|detail|sharp|^(b|br|bl|bv|hr|qr)[5-9]\d|^bl|^fc(3|5|8)\d|^y[abcd]$|^[ed]$|^l$",
    re.IGNORECASE,
)
"""Our rule for kernels of lung and bone: Siemens from 50 up and Bl, GE LUNG, BONE and EDGE, Canon
FC3x, FC5x and FC8x, Philips L, E, D and YA to YD."""

_WHOLE_MM = 150.0
"""A series shorter than this is not of a whole chest."""

_MAX_LISTED = 5


def best_first(series: "FoundSeries") -> tuple[object, ...]:
    """The key that sorts the series of a folder, the one to read first.

    Usable axial CT comes before all else; then, in this order: chest, unknown part, other part of
    the body; original before reformatted, projected and averaged; a whole chest before a part;
    smaller slice distance; soft before sharp kernel; more slices; larger matrix.
    """
    one = series.summary
    values = series.stack.frames[0].acquisition if series.stack else {}
    part = 0 if _CHEST.search(series.body_part) else 2 if _ELSEWHERE.search(series.body_part) else 1
    kind = f"{values.get('ImageType', '')} {values.get('FrameType', '')} {one.description}"
    return (
        one.modality != "CT",
        not one.usable,
        not one.axial,
        part,
        bool(_DERIVED.search(kind)),
        one.slices * one.spacing[2] < _WHOLE_MM,
        round(one.spacing[2], 1),
        bool(_SHARP.search(values.get("ConvolutionKernel", "").strip("[]' "))),
        -one.slices,
        -one.rows * one.columns,
        one.uid,
    )


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
        f"{one.uid} ({one.description or 'no description'}, {one.slices} slices of "
        f"{one.spacing[2]:.4g} mm)"
    )
