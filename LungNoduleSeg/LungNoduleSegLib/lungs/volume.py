"""3-D lung segmentation: air in the body minus airways and bowel gas, sides separated, closed.

Everything that asks for the shape of things is done on a grid of about 2.5 mm (`CoarseGrid`), where
a voxel is the mean of a block, in millimetres; only the surface is drawn on the scan's own grid.
"""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import grown
from CTLungScreeningLib.progress import ProgressCallback
from LungNoduleSegLib.lungs.air import (
    IN_PLANE,
    Box,
    CoarseGrid,
    Mask,
    find_airways,
    find_outside_air,
)
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.lungs.pleura import (
    LONGEST_MASS_MM,
    dents_at_ribs,
    dents_seen_from,
    soft_masses,
    standing_out,
)

MOST_WEAR_MM = 15
APART_MM = 50
"""The centres of two lungs are further apart than this from right to left."""
SMALLER_SHARE = 0.15
"""The smaller lung has at least this share of the larger one's volume, where both are whole."""
SLIVER_SHARE = 0.02
"""Likewise, of what a picture of one lung shows of the other one."""


def by_midline(right_to_left_mm: NDArray[np.floating], midline_mm: float) -> NDArray[np.uint8]:
    """The label of the side on which each LPS x lies."""
    return np.where(right_to_left_mm < midline_mm, RIGHT_LUNG, LEFT_LUNG).astype(np.uint8)


def separate_sides(coarse: CoarseGrid, lungs: Mask) -> NDArray[np.uint8]:
    """Label the right and the left lung, apart also where they touch.

    The mask is worn away until it falls into two large parts beside each other, or else into a
    large and a small one on either side of the middle of the body; each voxel then belongs to the
    part nearest to it. Where only one lung is there, its components belong to the side of the body
    on which their centres lie.
    """
    box = coarse.box(lungs, 0)
    mask = lungs[box]
    x_mm = coarse.x_mm[box[2]]
    parts, _ = ndimage.label(mask)
    x, size = _centres(parts, x_mm)
    middle = _between_lungs(x, size)
    side = None
    if middle is None:
        wear = round(MOST_WEAR_MM / min(coarse.spacing))
        side = _worn_apart(mask, x_mm, wear)
        if side is None:
            side = _worn_apart(mask, x_mm, wear, coarse.midline_mm)
    if side is None:
        side = by_midline(x, coarse.midline_mm if middle is None else middle)[parts]
    labels = np.zeros(lungs.shape, np.uint8)
    labels[box] = side * mask
    return labels


def _worn_apart(
    mask: Mask, x_mm: NDArray[np.floating], wear: int, midline_mm: float | None = None
) -> NDArray[np.uint8] | None:
    """Label the sides of what falls apart when worn away by up to `wear` blocks; None if none."""
    core = mask
    for worn in range(1, 1 + wear):
        core = ndimage.binary_erosion(core, border_value=1)
        cores, _ = ndimage.label(core)
        x, size = _centres(cores, x_mm)
        middle = _between_lungs(x, size, midline_mm)
        if middle is not None:
            core_side = by_midline(x, middle) * (size > SLIVER_SHARE * size.max())
            side = _regrown(core_side[cores], mask, worn + 1)
            return np.where(side, side, by_midline(x_mm, middle))
    return None


def _regrown(side: NDArray[np.uint8], mask: Mask, steps: int) -> NDArray[np.uint8]:
    """Grow both sides within `mask` at the same pace."""
    right, left = side == RIGHT_LUNG, side == LEFT_LUNG
    for _ in range(steps):
        right = ndimage.binary_dilation(right, mask=mask & ~left)
        left = ndimage.binary_dilation(left, mask=mask & ~right)
    return (right * RIGHT_LUNG + left * LEFT_LUNG).astype(np.uint8)


def _centres(
    parts: NDArray[np.int32], x_mm: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Mean LPS x and number of blocks of each label; 0 counts as empty."""
    where = np.nonzero(parts)
    label = parts[where]
    size = np.bincount(label, minlength=1)
    x = np.bincount(label, x_mm[where[2]], minlength=1) / np.maximum(size, 1)
    return x, size


def _between_lungs(
    x: NDArray[np.floating], size: NDArray[np.int64], midline_mm: float | None = None
) -> float | None:
    """LPS x between the two largest parts that can be the two lungs, if there are.

    Without `midline_mm` it is half-way between two large parts; with it, the smaller one may be
    small, but has to lie on the other side of it.
    """
    first = int(np.argmax(size))
    fits = np.abs(x - x[first]) > APART_MM
    if midline_mm is None:
        fits &= size > SMALLER_SHARE * size[first]
    else:
        fits &= (size > SLIVER_SHARE * size[first]) & ((x < midline_mm) != (x[first] < midline_mm))
    if not fits.any():
        return None
    second = int(np.argmax(size * fits))
    return float(x[first] + x[second]) / 2 if midline_mm is None else midline_mm


TISSUE_HU = -400
"""Half-way between aerated lung (about −850 HU) and soft tissue (about +50 HU)."""
LUNG_HU, SOFT_HU = -850, 50

GAS_HU = -935
"""Blocks of mere gas are blacker than this, the median of a lung is not."""
SHUT_IN = 0.9
"""Share of a gas pocket's rim that is not lung."""
SMALLEST_POCKET_ML, LARGEST_POCKET_ML = 0.05, 700
SMALLEST_AIR_ML = 2
BRONCHUS_MM = 8
"""Airways narrower than this count as lung where they lie within it."""
BRONCHUS_ML = 8
"""Air that is neither lung nor airway may be closed over up to this volume."""

SMALLEST_LUNG_ML = 200
SMALLEST_CUT_ML = 8
"""The same for a lung of which the scan shows only the apex or the base, and for a part of one."""

VESSEL_CLOSING_MM = 7
"""Radius of the ball that closes hilar vessels and nodules on the pleura of the mediastinum."""
MASS_CLOSING_MM = 20
"""Radius of the ball that closes masses on the ribs' side."""
MEDIASTINUM_MM = 50
"""Half the width within which this ball would fill the aorta and the pulmonary trunk."""
LARGEST_CLOSING_MM = 25
"""Radius of the ball that closes larger masses, also there, of which `standing_out` chooses."""
LARGEST_HOLE_ML = 200


def find_lungs(axial: sitk.Image, progress: ProgressCallback) -> NDArray[np.uint8]:
    """Label the right and the left lung in an axial volume in HU; all 0 where there is none."""
    steps = 6
    progress("Lungs", 0, steps)
    coarse = CoarseGrid.of(axial)
    air = coarse.hu < TISSUE_HU
    outside = find_outside_air(coarse, air)
    inside = _larger(air & ~outside, SMALLEST_AIR_ML / coarse.voxel_ml)
    if not inside.any():
        return np.zeros(coarse.full_shape, np.uint8)
    box = coarse.box(inside, LARGEST_CLOSING_MM + 5)
    box = (slice(0, len(inside)), box[1], box[2])
    coarse, inside, outside = coarse.cropped(box), inside[box], outside[box]
    progress("Lungs", 1, steps)
    airways = find_airways(coarse, inside)
    progress("Lungs", 2, steps)
    air = inside & ~ndimage.binary_dilation(airways)
    pockets = _gas_pockets(coarse, air)
    lungs = _choose(coarse, air & ~(pockets | _rims(air & ~pockets, pockets)))
    if not lungs.any():
        return np.zeros(coarse.full_shape, np.uint8)
    sides = separate_sides(coarse, lungs)
    progress("Lungs", 3, steps)
    steps_of_bronchus = max(1, round(BRONCHUS_MM / 2 / coarse.spacing[1]))
    wide_airways = ndimage.binary_opening(airways, IN_PLANE, steps_of_bronchus)
    other_air = _larger(inside & ~lungs & ~airways, BRONCHUS_ML / coarse.voxel_ml)
    forbidden = outside | wide_airways | other_air
    closed = _close(coarse, sides, forbidden)
    progress("Lungs", 4, steps)
    labels = _draw(coarse, closed, lungs, forbidden)
    progress("Lungs", steps, steps)
    return labels


def _gas_pockets(coarse: CoarseGrid, air: Mask) -> Mask:
    """Find gas that is shut in by tissue: bowel, stomach, sinuses, airways not followed.

    A bulla or a pneumothorax borders on lung and does not count; nor does anything as large as a
    lung, which only looks like gas where emphysema is severe.
    """
    inner = ndimage.binary_erosion(air, border_value=1)
    labels, _ = ndimage.label(inner)
    size = np.bincount(labels.ravel())
    size[0] = 0
    largest = coarse.hu[labels == np.argmax(size)] if inner.any() else np.array([GAS_HU])
    gas = coarse.hu < np.clip((np.median(largest) - 1000) / 2, GAS_HU, -880)
    not_a_lung = ~_larger(air & gas, LARGEST_POCKET_ML / coarse.voxel_ml)
    core = ndimage.binary_erosion(air & gas, border_value=1) & not_a_lung
    parenchyma = inner & ~gas
    labels, _ = ndimage.label(core)
    volume = np.bincount(labels.ravel()) * coarse.voxel_ml
    volume[0] = 0
    boxes = ndimage.find_objects(labels)
    pockets = np.zeros_like(air)
    for label in np.flatnonzero(volume > SMALLEST_POCKET_ML):
        around = grown(boxes[label - 1], 5, air.shape)
        seed = labels[around] == label
        pocket = ndimage.binary_dilation(seed, iterations=3, mask=air[around])
        shell = ndimage.binary_dilation(pocket, iterations=2) & ~pocket
        if np.mean(parenchyma[around][shell]) < 1 - SHUT_IN:
            pockets[around] |= pocket
    return pockets


def _larger(mask: Mask, blocks: float) -> Mask:
    """The components of `mask` that hold more than this number of blocks."""
    labels, _ = ndimage.label(mask)
    size = np.bincount(labels.ravel())
    size[0] = 0
    return (size > blocks)[labels]


def _rims(air: Mask, pockets: Mask) -> Mask:
    """Find what is left of the air beside gas pockets: their blurred walls and small bubbles."""
    if not pockets.any():
        return pockets
    box = grown(ndimage.find_objects(pockets.view(np.uint8))[0], 10, air.shape)
    deep = ndimage.binary_opening(air[box], iterations=2)
    beside = ndimage.binary_dilation(pockets[box], iterations=4)
    rims = np.zeros_like(pockets)
    rims[box] = beside & air[box] & ~ndimage.binary_dilation(deep, iterations=2)
    return rims


def _choose(coarse: CoarseGrid, candidates: Mask) -> Mask:
    """Keep the components of `candidates` that are lung.

    The largest one that is not mere gas has to be as large as a lung, or be cut by the top or the
    bottom of the scan; others are lung if they lie beside it. Where parts as black as gas dwarf it,
    they are lungs with severe emphysema.
    """
    labels, _ = ndimage.label(candidates)
    size = np.bincount(labels.ravel()) * coarse.voxel_ml
    size[0] = 0
    boxes = ndimage.find_objects(labels)
    parts = [
        _Part(int(label), coarse, labels, boxes[label - 1])
        for label in np.argsort(-size)[: np.count_nonzero(size >= SMALLEST_CUT_ML)]
    ]
    main = next((part for part in parts if part.is_parenchyma and part.is_lung_sized), None)
    black = [part for part in parts if part.ml > LARGEST_POCKET_ML and not part.is_parenchyma]
    if black and (main is None or main.ml < 0.25 * black[0].ml):
        kept = [part.label for part in black]
    else:
        kept = [
            part.label for part in parts if main and part.is_parenchyma and part.lies_beside(main)
        ]
    return np.isin(labels, kept)


class _Part:
    """A component of the air inside the body.

    Attributes:
        label: its label.
        ml: its volume.
        box: its bounding box.
        centre: its centre in blocks, (z, y).
        is_parenchyma: whether it is denser than gas.
        is_lung_sized: whether it can be a lung that stands alone.
    """

    def __init__(self, label: int, coarse: CoarseGrid, labels: NDArray[np.int32], box: Box) -> None:
        mask = labels[box] == label
        self.label = label
        self.ml = np.count_nonzero(mask) * coarse.voxel_ml
        self.box = box
        areas = np.count_nonzero(mask, axis=(1, 2)), np.count_nonzero(mask, axis=(0, 2))
        self.centre = [
            part.start + float(np.average(np.arange(len(area)), weights=area))
            for part, area in zip(box, areas, strict=False)
        ]
        core = ndimage.binary_erosion(mask, border_value=1)
        self.is_parenchyma = core.any() and bool(np.median(coarse.hu[box][core]) > GAS_HU)
        cut = box[0].start == 0 or box[0].stop == len(labels)
        self.is_lung_sized = self.ml > (SMALLEST_CUT_ML if cut else SMALLEST_LUNG_ML)

    def lies_beside(self, other: "_Part") -> bool:
        """Whether its centre is at the height and at the depth of another."""
        return all(other.box[a].start <= self.centre[a] < other.box[a].stop for a in (0, 1))


def _close(coarse: CoarseGrid, sides: NDArray[np.uint8], forbidden: Mask) -> NDArray[np.uint8]:
    """Close each lung over vessels and over nodules and masses on the pleura."""
    closed = sides.copy()
    middle = _between(sides)
    on_ribs = dents_at_ribs(coarse, sides > 0, middle)
    columns = np.arange(sides.shape[2])
    for side in (RIGHT_LUNG, LEFT_LUNG):
        lung = sides == side
        if not lung.any():
            continue
        box = coarse.box(lung, LARGEST_CLOSING_MM + 5)
        inwards = 1 if side == RIGHT_LUNG else -1
        # Cut by the end of the scan, the lung goes on: else the dome below it would be filled.
        ends = _slices_beyond(box[0], lung.shape[0], LARGEST_CLOSING_MM / coarse.spacing[0])
        extended = np.pad(lung[box], (ends, (0, 0), (0, 0)), "edge")
        filled, wide, wider = (
            mask[ends[0] : extended.shape[0] - ends[1]]
            for mask in coarse.closings(
                extended, (VESSEL_CLOSING_MM, MASS_CLOSING_MM, LARGEST_CLOSING_MM)
            )
        )
        across = columns[box[2]] - middle
        lateral = np.abs(across) * coarse.spacing[2] > MEDIASTINUM_MM
        filled |= wide & lateral
        filled |= _compact_behind(wide & ~filled & ~lateral, lung[box], coarse)
        filled |= lung[box]
        filled |= standing_out(wider & ~filled, filled, coarse.hu[box], coarse.spacing)
        dents = on_ribs[box] & (across * inwards < 0)
        for along_z in (1, -1):
            dents |= dents_seen_from(coarse, lung[box], (along_z, 0, 0))
        back = int(ndimage.center_of_mass(lung[box])[1])
        beside_spine = dents_seen_from(coarse, lung[box], (0, 1, inwards))
        dents[:, back:] |= beside_spine[:, back:]
        filled |= soft_masses(dents & ~filled, coarse.hu[box])
        rest, _ = ndimage.label(~filled)
        size = np.bincount(rest.ravel()) * coarse.voxel_ml
        small = size < LARGEST_HOLE_ML
        small[0] = False
        filled |= small[rest]
        filled &= ~forbidden[box]
        target = closed[box]
        target[filled & (target == 0)] = side
    return closed


def _compact_behind(added: Mask, lung: Mask, coarse: CoarseGrid) -> Mask:
    """Choose from what the larger ball adds near the midline the masses beside the spine.

    They are no longer than `LONGEST_MASS_MM` and lie in the back half of the lung; the aorta runs
    on from slice to slice, and the hilum lies further in front.
    """
    pieces, count = ndimage.label(added)
    if not count:
        return added
    depth = ndimage.center_of_mass(lung)[1]
    kept = [
        label
        for label, part in enumerate(ndimage.find_objects(pieces), 1)
        if part[1].start > depth
        and all(
            (one.stop - one.start) * mm <= LONGEST_MASS_MM
            for one, mm in zip(part, coarse.spacing, strict=True)
        )
    ]
    return np.isin(pieces, kept)


def _between(sides: NDArray[np.uint8]) -> float:
    """The column half-way between the lungs; the medial end of one that stands alone."""
    columns = [np.nonzero(sides == side)[2] for side in (RIGHT_LUNG, LEFT_LUNG)]
    if not columns[0].size:
        return float(columns[1].min())
    if not columns[1].size:
        return float(columns[0].max())
    return float(columns[0].mean() + columns[1].mean()) / 2


def _slices_beyond(part: slice, total: int, slices: float) -> tuple[int, int]:
    """How many slices to add below and above: none where the part ends within the volume."""
    beyond = int(np.ceil(slices)) + 1
    return (beyond if part.start == 0 else 0, beyond if part.stop == total else 0)


def _draw(
    coarse: CoarseGrid, closed: NDArray[np.uint8], lungs: Mask, forbidden: Mask
) -> NDArray[np.uint8]:
    """Draw the closed lungs on the scan's own grid.

    The surface of air follows the block means to less than a block, where they cross `TISSUE_HU`;
    what closing has added is taken whole.
    """
    box = coarse.box(closed > 0, 2 * max(coarse.spacing))
    closed, lungs = closed[box], lungs[box]
    region = closed > 0
    inner = ndimage.minimum_filter(region, 3, mode="nearest")
    spread = ndimage.maximum_filter(closed, 3, mode="nearest")
    near = (spread > 0) & ~forbidden[box]
    field = np.where(near, np.clip(coarse.hu[box], LUNG_HU, SOFT_HU), np.float32(SOFT_HU))
    field[inner | (region & ~lungs)] = LUNG_HU
    return coarse.draw(field, np.where(closed, closed, spread), TISSUE_HU, box)
