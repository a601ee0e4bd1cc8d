"""Slices put in order: one regular, upright stack out of the frames of a series."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.dicom_headers import ACQUISITION_TAGS, Frame

MIN_SLICES = 6
"""Fewer slices than this are not a volume to work on."""

MAX_AXIAL_TILT_DEGREES = 35.0
"""A stack is axial if its normal lies this close to the patient's axis; gantries tilt to 30°."""

SAME_ORIENTATION_DEGREES = 0.5
SAME_POSITION_MM = 0.05
GAP = 1.5
"""A distance of this many times the median from slice to slice means slices are missing."""

MAX_JITTER = 0.1
"""Maximum deviation of a slice from a regular stack, as a fraction of the slice spacing."""

MAX_SHIFT_PIXELS = 0.5
"""Slices that lie this close to one line along the normal, in the plane, count as not shifted."""

_LASTING = 3
"""A slice distance that is kept for so many slices is one; otherwise slices are missing."""

Identical = Callable[[Frame, Frame], bool]
"""Whether two frames hold the same pixels."""


@dataclass(frozen=True, eq=False)
class SliceStack:
    """A regular stack of slices.

    Attributes:
        frames: in order; for an axial stack from feet to head, else along row × column.
        direction: (3, 3), columns: along a row, along a column, across the slices; LPS. Left-handed
            where the pixels of an axial stack are seen from the head.
        step: (3,), mm from one slice's position to the next; not parallel to the third column of
            `direction` if the gantry was tilted.
        notes: on repairs.
    """

    frames: tuple[Frame, ...]
    direction: NDArray[np.float64]
    step: NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Mm between columns, rows and slices, in SimpleITK's order (x, y, z)."""
        between_rows, between_columns = self.frames[0].spacing
        return between_columns, between_rows, float(self.step @ self.direction[:, 2])

    @property
    def drift(self) -> tuple[float, float]:
        """Pixels (x, y) by which each slice is shifted in its plane against the one before."""
        x, y = self.step @ self.direction[:, :2] / self.spacing[:2]
        return float(x), float(y)

    @property
    def tilted(self) -> bool:
        """Whether the slices are shifted against each other, as those of a tilted gantry are."""
        return max(map(abs, self.drift)) * (len(self.frames) - 1) > MAX_SHIFT_PIXELS

    @property
    def axial(self) -> bool:
        """Whether the slices are axial."""
        return is_axial(self.direction[:, 2])


def is_axial(normal: NDArray[np.float64]) -> bool:
    """Whether slices with this unit normal are axial."""
    return bool(abs(normal[2]) >= np.cos(np.radians(MAX_AXIAL_TILT_DEGREES)))


def build_stack(frames: Sequence[Frame], name: str, identical: Identical) -> SliceStack:
    """Sort frames along their normal and check that they make one complete, regular stack.

    Args:
        frames: all the slices of a series, in any order; at least one.
        name: of the series, for the sentences.
        identical: asked only about frames that lie at the same place.

    Raises:
        InputError: if they do not, with the place of the fault.
    """
    notes: list[str] = []
    frames = _largest_orientation(list(frames), notes)
    _check_same_grid(frames, name)
    direction = _direction(frames)
    normal = direction[:, 2]
    frames = sorted(frames, key=lambda frame: float(frame.position @ normal))
    frames = _drop_copies(frames, normal, identical, notes)
    if len(frames) < MIN_SLICES:
        raise InputError(
            f"{name} has only {counted(len(frames), 'slice')}: "
            f"a volume needs at least {MIN_SLICES}; choose another series."
        )
    fault = _fault(frames, normal)
    first = _first_acquisition(frames, normal, notes, interleaved=not fault)
    if fault and not first:
        raise InputError(f"{name} {_overlap(frames, normal) or fault}")
    frames = first or frames

    positions = np.array([frame.position for frame in frames])
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    places = positions[0] + np.arange(len(frames))[:, None] * step
    shift = np.abs((positions - places) @ direction[:, :2]) / frames[0].spacing[::-1]
    if shift.max() > MAX_SHIFT_PIXELS:
        worst = frames[int(shift.max(axis=1).argmax())]
        raise InputError(
            f"{name} has slices that are shifted against each other in their plane, most of all "
            f"{worst.file}: reconstruct the series with one field of view."
        )
    return SliceStack(tuple(frames), direction, step, (*notes, *_mixed_notes(frames)))


def _largest_orientation(frames: list[Frame], notes: list[str]) -> list[Frame]:
    groups: list[list[Frame]] = []
    tolerance = 2 * np.sin(np.radians(SAME_ORIENTATION_DEGREES) / 2)
    for frame in frames:
        for group in groups:
            apart = np.linalg.norm(frame.orientation - group[0].orientation, axis=1)
            if apart.max() <= tolerance:
                group.append(frame)
                break
        else:
            groups.append([frame])
    largest = max(groups, key=len)
    if len(groups) > 1:
        notes.append(
            f"{len(frames) - len(largest)} of {len(frames)} images lie in another orientation and "
            "were left out."
        )
    return largest


def _check_same_grid(frames: list[Frame], name: str) -> None:
    usual_shape = Counter(frame.shape for frame in frames).most_common(1)[0][0]
    usual_spacing = Counter(frame.spacing for frame in frames).most_common(1)[0][0]
    for frame in frames:
        if frame.shape != usual_shape:
            rows, columns = usual_shape
            raise InputError(
                f"{name} mixes image sizes: {frame.file} has {frame.shape[0]} rows and "
                f"{frame.shape[1]} columns, most have {rows} and {columns}; "
                "take the odd images out."
            )
        if not np.allclose(frame.spacing, usual_spacing, rtol=1e-3):
            raise InputError(
                f"{name} mixes pixel spacings: {frame.file} has {frame.spacing[0]:g} × "
                f"{frame.spacing[1]:g} mm, most have {usual_spacing[0]:g} × "
                f"{usual_spacing[1]:g} mm; take the odd images out."
            )


def _direction(frames: list[Frame]) -> NDArray[np.float64]:
    row, column = np.mean([frame.orientation for frame in frames], axis=0)
    row /= np.linalg.norm(row)
    column -= (column @ row) * row
    column /= np.linalg.norm(column)
    normal = np.cross(row, column)
    if is_axial(normal) and normal[2] < 0:
        normal = -normal
    return np.column_stack([row, column, normal])


def _drop_copies(
    frames: list[Frame], normal: NDArray[np.float64], identical: Identical, notes: list[str]
) -> list[Frame]:
    """Leave out frames that are there twice; `frames` are sorted along `normal`."""
    kept: list[Frame] = []
    differ = _repeated(frames)  # then an identifier is no proof of a copy
    for frame in frames:
        copy = False
        for other in reversed(kept):
            if (frame.position - other.position) @ normal > SAME_POSITION_MM:
                break
            same_instance = (frame.sop_instance_uid, frame.index) == (
                other.sop_instance_uid,
                other.index,
            )
            copy = bool(frame.sop_instance_uid) and same_instance
            if not copy and not differ:
                copy = identical(frame, other)
                differ = not copy
            if copy:
                break
        if not copy:
            kept.append(frame)
    if len(kept) < len(frames):
        notes.append(
            f"{len(frames) - len(kept)} of {len(frames)} images are copies of others and were "
            "left out."
        )
    return kept


def _fault(frames: list[Frame], normal: NDArray[np.float64]) -> str | None:
    """Why sorted frames are not a regular stack, as the end of a sentence, or None."""
    places = np.array([frame.position @ normal for frame in frames])
    gaps = np.diff(places)
    axis = "z" if is_axial(normal) else "position along the normal"

    def mm(index: int) -> str:
        place = frames[index].position[2] if axis == "z" else places[index]
        return f"{place:.2f} mm"

    same = np.flatnonzero(gaps <= SAME_POSITION_MM)
    if same.size:
        first = int(same[0])
        return (
            f"has differing images at the same place, {axis} = {mm(first)}: "
            f"{frames[first].file} and {frames[first + 1].file}; keep one acquisition."
        )
    median = float(np.median(gaps))
    missing = np.flatnonzero(gaps >= GAP * median)
    regular = np.linspace(places[0], places[-1], len(places))
    off = np.abs(places - regular)
    uneven = missing.size > 0 or off.max() > MAX_JITTER * median
    if uneven and (change := _changed_distance(gaps)):
        return (
            f"changes its slice distance from {gaps[0]:.4g} to {gaps[change]:.4g} mm at {axis} = "
            f"{mm(change)}: reconstruct it with one slice distance."
        )
    if missing.size:
        first = int(missing[0])
        count = [max(1, round(gaps[gap] / median) - 1) for gap in missing]
        more = f" and {sum(count[1:])} elsewhere" if len(count) > 1 else ""
        return (
            f"lacks {counted(count[0], 'slice')} between {axis} = {mm(first)} and "
            f"{mm(first + 1)}{more}: get the complete series."
        )
    if off.max() > MAX_JITTER * median:
        worst = int(off.argmax())
        return (
            f"is not evenly spaced: the slice at {axis} = {mm(worst)} lies {off[worst]:.2f} mm "
            f"from its place; reconstruct it with one slice distance."
        )
    return None


def _changed_distance(gaps: NDArray[np.float64]) -> int | None:
    """Index at which the slice distance changes for good; None if slices are missing."""
    changes = np.flatnonzero(np.abs(np.diff(gaps)) > MAX_JITTER * np.minimum(gaps[1:], gaps[:-1]))
    runs = np.diff([0, *(changes + 1), len(gaps)])
    if not changes.size or runs.min() < _LASTING or len(changes) > len(gaps) // 4:
        return None
    return int(changes[0]) + 1


def _mixed_notes(frames: list[Frame]) -> list[str]:
    """Notes on kernels and intercepts that differ, and identifiers that repeat in the series."""
    notes = []
    kernels = {frame.acquisition.get("ConvolutionKernel", "") for frame in frames} - {""}
    if len(kernels) > 1:
        notes.append(
            f"The series mixes the kernels {' and '.join(sorted(kernels)[:3])}: measures of "
            "nodules depend on the kernel."
        )
    intercepts = {frame.intercept for frame in frames if frame.slope == frames[0].slope}
    if len(intercepts) > 1:
        notes.append(
            f"The Rescale Intercept differs between slices ({min(intercepts):g} to "
            f"{max(intercepts):g}): check whether some are brighter than their neighbours."
        )
    if _repeated(frames):
        notes.append(
            "Images of the series share a SOP Instance UID, so no DICOM result can refer to them."
        )
    return notes


def _repeated(frames: list[Frame]) -> bool:
    """Whether one SOP Instance UID stands for images at different places."""
    places: dict[tuple[str, int | None], NDArray[np.float64]] = {}
    for frame in frames:
        if frame.sop_instance_uid:
            first = places.setdefault((frame.sop_instance_uid, frame.index), frame.position)
            if np.abs(first - frame.position).max() > SAME_POSITION_MM:
                return True
    return False


def _first_acquisition(
    frames: list[Frame], normal: NDArray[np.float64], notes: list[str], interleaved: bool
) -> list[Frame]:
    """The first of several complete acquisitions of one range; empty if none stands out.

    Args:
        frames: of all of them, sorted along `normal`.
        normal: of the slices.
        notes: gets a sentence if there are several.
        interleaved: whether all the frames together make a regular stack. Then only what has every
            second slice of it or fewer is an acquisition, and what is written for each slice, such
            as its time and its thickness to the last digit, tells nothing.
    """
    first, last = (float(frames[end].position @ normal) for end in (0, -1))
    beyond = ACQUISITION_TAGS.index("SliceThickness") if interleaved else None
    most = (len(frames) + 1) // 2 if interleaved else len(frames)
    for tag in ACQUISITION_TAGS[:beyond]:
        counts = Counter(frame.acquisition.get(tag, "") for frame in frames)
        for value in sorted(counts, key=_by_number) if len(counts) > 1 else ():
            if not MIN_SLICES <= counts[value] <= most:
                continue
            part = [frame for frame in frames if frame.acquisition.get(tag, "") == value]
            if _fault(part, normal):
                continue
            low, high = (float(part[end].position @ normal) for end in (0, -1))
            spacing = (high - low) / (len(part) - 1)
            if low - first <= spacing and last - high <= spacing:
                notes.append(
                    f"The series holds {len(counts)} acquisitions of the same range; the one "
                    f"with {tag} {value or 'missing'} was taken."
                )
                return part
    return []


def _overlap(frames: list[Frame], normal: NDArray[np.float64]) -> str | None:
    """How the sentence ends for acquisitions in succession that share some of their range."""
    for tag in ACQUISITION_TAGS[:5]:
        values = sorted({frame.acquisition.get(tag, "") for frame in frames}, key=_by_number)
        parts = [[f for f in frames if f.acquisition.get(tag, "") == value] for value in values]
        if len(parts) != 2 or min(map(len, parts)) < MIN_SLICES:
            continue
        if any(_fault(part, normal) for part in parts):
            continue
        ends = [(part[0].position @ normal, part[-1].position @ normal) for part in parts]
        low, high = max(one for one, _ in ends), min(other for _, other in ends)
        if low <= high:
            return (
                f"holds two acquisitions ({tag} {values[0] or 'missing'} and {values[1]}) that "
                f"overlap from {low:.2f} to {high:.2f} mm: separate them, and give one folder."
            )
    return None


def _by_number(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def tilt_degrees(stack: SliceStack) -> float:
    """Angle between the slices' normal and the line along which they lie."""
    across = stack.step @ stack.direction[:, 2]
    along = np.linalg.norm(stack.step @ stack.direction[:, :2])
    return float(np.degrees(np.arctan2(along, across)))


def rectify(hu: NDArray[Any], stack: SliceStack) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Shift each slice in its plane, interpolating linearly, to where its position says it lies.

    Args:
        hu: (slices, rows, columns).
        stack: their geometry.

    Returns:
        A larger volume that covers all the slices, air around them, and the position of its first
        voxel in LPS mm.
    """
    last = len(hu) - 1
    shifts = np.arange(len(hu))[:, None] * np.array(stack.drift)[::-1]
    start = np.floor(np.minimum(0, shifts[last]))
    extra = np.ceil(np.maximum(0, shifts[last])) - start
    shape = tuple(np.array(hu.shape[1:]) + extra.astype(int))
    rectified = np.empty((len(hu), *shape), hu.dtype)
    for k, shift in enumerate(shifts):
        moved = ndimage.affine_transform(
            hu[k].astype(np.float32),
            np.ones(2),
            start - shift,
            output_shape=shape,
            order=1,
            mode="constant",
            cval=AIR_HU,
        )
        rectified[k] = np.rint(moved) if hu.dtype.kind == "i" else moved
    in_plane = stack.direction[:, :2] @ (start[::-1] * stack.spacing[:2])
    return rectified, stack.frames[0].position + in_plane
