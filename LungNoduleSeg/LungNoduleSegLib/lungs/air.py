"""Air in a CT on a grid of about 2.5 mm: around the body, and in trachea and main bronchi."""

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.geometry import Box, box_of, distance_mm, grown
from CTLungScreeningLib.hu import LOWEST_HU

Mask = NDArray[np.bool_]

BLOCK_MM = 2.5
HIGHEST_HU = 200
"""Replaces bone and metal, so that a block's mean separates air and tissue beside them too."""
DENSE_HU, SMOOTH_MM = 100, 15
"""Bone and contrast agent are denser: spine and mediastinum have far more of them than ribs."""
CUT, LEAST_AT_CUT = 0.3, 0.75
"""A picture that ends in the mediastinum has more of them in its outermost column there than at the
other side, by this share of the fullest column, and near there this share of the fullest at least;
one that ends in the ribs has less."""
IN_PLANE = ndimage.generate_binary_structure(3, 1)
IN_PLANE[[0, 2]] = False


@dataclass(frozen=True)
class CoarseGrid:
    """Block means of an axial volume.

    Attributes:
        hu: float32, (z, y, x), clipped to −1024…200 HU.
        spacing: of the blocks in mm, (z, y, x).
        factor: voxels in a block, (z, y, x); voxels left over at the far ends belong to none.
        first: the first block's place among all blocks of the scan, (z, y, x).
        x_mm: LPS x of each column of blocks.
        midline_mm: LPS x of the middle of the body, see `_middle_column`.
        full_shape: of the scan, (z, y, x).
    """

    hu: NDArray[np.float32]
    spacing: tuple[float, float, float]
    factor: tuple[int, int, int]
    first: tuple[int, int, int]
    x_mm: NDArray[np.floating]
    midline_mm: float
    full_shape: tuple[int, int, int]

    @classmethod
    def of(cls, axial: sitk.Image) -> "CoarseGrid":
        """Take the means of blocks of about `BLOCK_MM`."""
        factor = [
            min(size, max(1, round(BLOCK_MM / spacing)))
            for size, spacing in zip(axial.GetSize(), axial.GetSpacing(), strict=True)
        ]
        image = sitk.BinShrink(sitk.Clamp(axial, axial.GetPixelID(), LOWEST_HU, HIGHEST_HU), factor)
        hu = sitk.GetArrayFromImage(image).astype(np.float32)
        x_mm = image.GetOrigin()[0] + np.arange(hu.shape[2]) * image.GetSpacing()[0]
        return cls(
            hu,
            spacing=image.GetSpacing()[::-1],
            factor=(factor[2], factor[1], factor[0]),
            first=(0, 0, 0),
            x_mm=x_mm,
            midline_mm=float(x_mm[_middle_column(hu, image.GetSpacing()[0])]),
            full_shape=axial.GetSize()[::-1],
        )

    def cropped(self, box: Box) -> "CoarseGrid":
        """The blocks of a box."""
        z, y, x = (start + part.start for start, part in zip(self.first, box, strict=True))
        return replace(self, hu=self.hu[box], x_mm=self.x_mm[box[2]], first=(z, y, x))

    @property
    def voxel_ml(self) -> float:
        """Volume of a block."""
        return float(np.prod(self.spacing)) / 1000

    def closings(self, mask: Mask, radii_mm: tuple[float, ...]) -> list[Mask]:
        """Close `mask` with balls of each radius."""
        reach = distance_mm(mask, self.spacing)
        return [distance_mm(reach > radius, self.spacing) > radius for radius in radii_mm]

    def box(self, mask: Mask, margin_mm: float) -> Box:
        """The bounding box of `mask`, not empty, grown by a margin within the volume."""
        box = box_of(mask)
        assert box is not None
        return grown(box, np.ceil(margin_mm / np.array(self.spacing)).astype(int), mask.shape)

    def draw(
        self, field: NDArray[np.float32], labels: NDArray[np.uint8], level: float, box: Box
    ) -> NDArray[np.uint8]:
        """Draw `labels` on the scan's own grid where `field` is below `level`.

        Args:
            field: on the blocks of `box`; it is interpolated linearly.
            labels: on the same blocks; each voxel takes that of its block.
            level: the surface.
            box: a box of blocks; voxels outside it are 0.
        """
        factor = np.array(self.factor)
        start = np.array(self.first) + [part.start for part in box]
        first, last = start * factor, (start + labels.shape) * factor
        # Voxels left over at the far ends belong to the last block.
        last = np.where(last + factor > self.full_shape, self.full_shape, last)
        size = last - first

        z, y, x = (
            _Taps.of(blocks, int(voxels), f)
            for blocks, voxels, f in zip(field.shape, size, self.factor, strict=True)
        )
        drawn = np.zeros(self.full_shape, np.uint8)
        target = drawn[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        for k, plane in enumerate(target):
            surface = y.between_rows(x.between_rows(z.between(field, k).T).T)
            plane[:] = labels[z.own[k]][y.own][:, x.own] * (surface < level)
        return drawn


def _middle_column(hu: NDArray[np.float32], column_mm: float) -> int:
    """Find the column of the spine, or the one nearest to it in a picture that ends beside it."""
    dense = np.count_nonzero(hu > DENSE_HU, (0, 1)).astype(np.float32)
    if not dense.any():
        return hu.shape[2] // 2
    smooth = ndimage.gaussian_filter1d(dense, SMOOTH_MM / column_mm, mode="nearest")
    right, left = dense[[0, -1]] / dense.max()
    third = max(1, len(dense) // 3)
    columns = np.arange(len(dense))
    if right - left > CUT:
        columns = columns[:third]
    elif left - right > CUT:
        columns = columns[-third:]
    near = columns[smooth[columns].argmax()]
    return int(near if smooth[near] >= LEAST_AT_CUT * smooth.max() else smooth.argmax())


@dataclass(frozen=True)
class _Taps:
    """For each voxel along an axis: its own block, the two blocks around it, the second's weight.

    A block's centre lies half-way between its first and its last voxel's.
    """

    own: NDArray[np.intp]
    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, blocks: int, voxels: int, factor: int) -> "_Taps":
        place = np.clip((np.arange(voxels) - (factor - 1) / 2) / factor, 0, blocks - 1)
        low = place.astype(np.intp)
        return cls(
            own=np.minimum(np.arange(voxels) // factor, blocks - 1),
            low=low,
            high=np.minimum(low + 1, blocks - 1),
            weight=(place - low).astype(np.float32),
        )

    def between(self, field: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        weight = self.weight[k]
        return field[self.low[k]] * (1 - weight) + field[self.high[k]] * weight

    def between_rows(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        weight = self.weight[:, None]
        return rows[self.low] * (1 - weight) + rows[self.high] * weight


OPEN_AIR_HU = -930
"""Where the air at the edge of the picture is denser than this, it is lung cut by the edge."""
LEAST_BACKED = 0.3
"""Share of a lung cut by the edge that has tissue behind it."""
MOST_FLANKED = 0.8
"""Share of air outside that may lie between air of the body in the slices above and below."""


def find_outside_air(coarse: CoarseGrid, air: Mask) -> Mask:
    """Find the air that reaches the edge of the picture within its slice.

    The edge is the border of the slice, or of the reconstructed circle where the rest is padding
    of one value. Lung that is cut by the edge is not outside: it is denser than air, and unlike
    the foam of a mattress it has tissue behind it. Walls of less than three blocks (table top,
    clothes) do not hold the air back.

    Args:
        coarse: the volume.
        air: where it is air rather than tissue.
    """
    padding = _padding(coarse, air)
    # A wedge of tissue at the edge is thick: it goes on beyond.
    core = ndimage.binary_erosion(~air | padding, border_value=1)
    solid = ndimage.binary_dilation(core, mask=~air | padding)
    regions, count = ndimage.label(~solid & ~padding, IN_PLANE)

    beside_edge = ndimage.binary_dilation(padding, IN_PLANE, border_value=1)
    edge = ndimage.binary_dilation(beside_edge, IN_PLANE, 2, border_value=1) & ~beside_edge & air
    at_edge = regions[edge]
    touches = np.bincount(at_edge, minlength=count + 1)
    touches[0] = 0
    mean = np.bincount(at_edge, coarse.hu[edge], count + 1) / np.maximum(touches, 1)
    outside = (touches > 0) & (mean < OPEN_AIR_HU)
    cut = ((touches > 0) & ~outside)[regions]
    if cut.any():
        tissue = solid & ~padding
        before_tissue = np.logical_or.accumulate(tissue[:, ::-1], axis=1)[:, ::-1]
        size = np.maximum(np.bincount(regions[cut], minlength=count + 1), 1)
        backed = np.bincount(regions[cut], before_tissue[cut], count + 1) / size
        outside |= (touches > 0) & (backed < LEAST_BACKED)
    # Lung that the edge grazes in one slice is what it is in the slices beside.
    within = regions.astype(bool) & ~outside[regions]
    flanked = np.bincount(regions[1:-1][within[:-2] & within[2:]], minlength=count + 1)
    outside &= flanked <= MOST_FLANKED * np.bincount(regions.ravel(), minlength=count + 1)

    # Blocks half padding, half tissue look like air; half padding, half lung have air beside them.
    rind = beside_edge & air & ~padding
    rind &= ~ndimage.binary_dilation(air & ~beside_edge, IN_PLANE)
    return (outside[regions] | padding | rind) & air


def _padding(coarse: CoarseGrid, air: Mask) -> Mask:
    """What has exactly the value of the slice's corners and is joined to the slice's border."""
    corner = coarse.hu[:, :1, :1]
    same = (coarse.hu == corner) & air
    labels, _ = ndimage.label(same, IN_PLANE)
    border = np.zeros_like(air)
    border[:, [0, -1]] = border[:, :, [0, -1]] = True
    return _touched(labels, same & border)


def _touched(labels: np.ndarray, seeds: Mask) -> Mask:
    """The components that hold a seed."""
    chosen = np.zeros(labels.max() + 1, bool)
    chosen[labels[seeds]] = True
    chosen[0] = False
    return chosen[labels]


LUMEN_HU = -700
"""Above this is the wall, which blocks of 2.5 mm show at less than its true density."""
GAS_HU = -900
AREA_MM2 = (40.0, 900.0)
SHORTEST_MM = 20
WALLED = 0.6
"""Share of a lumen's rim that is not air; lower where a bronchus runs within the lung."""
STRICTER_HU = (-700, -800, -860, -900, -940)


def find_airways(coarse: CoarseGrid, inside: Mask) -> Mask:
    """Find the lumen of the trachea and of the bronchi as far as their walls part it from lung.

    The trachea is the longest vertical chain of round gas-filled regions near the middle of the
    body's air; from its top, the lumen is followed downwards slice by slice.
    """
    lumen = inside & (coarse.hu < LUMEN_HU)
    regions, count = ndimage.label(lumen, IN_PLANE)
    airways = np.zeros_like(inside)
    if not count:
        return airways
    chain = _trachea(coarse, regions, count)
    if not chain:
        return airways
    pixel = coarse.spacing[1] * coarse.spacing[2]
    for k, label in chain:
        airways[k] = regions[k] == label
    area = float(np.median([np.count_nonzero(airways[k]) for k, _ in chain])) * pixel
    reach = max(1, round(max(4.0, coarse.spacing[0]) / coarse.spacing[1]))
    for k in range(chain[0][0] - 1, -1, -1):
        followed = _follow(coarse, lumen[k], k, airways[k + 1], area / pixel, reach) | airways[k]
        if not followed.any():
            break
        airways[k] = followed
    return airways


def _trachea(coarse: CoarseGrid, regions: np.ndarray, count: int) -> list[tuple[int, int]]:
    """The longest chain of overlapping tracheal regions, from the top: (slice, label) pairs."""
    index = np.arange(1, count + 1)
    pixel = coarse.spacing[1] * coarse.spacing[2]
    area = np.concatenate([[0], np.bincount(regions.ravel(), minlength=count + 1)[1:] * pixel])
    where = regions > 0
    total = np.bincount(regions[where], coarse.hu[where], minlength=count + 1)
    mean = total * pixel / np.maximum(area, pixel)
    boxes = ndimage.find_objects(regions)
    columns = np.flatnonzero((regions > 0).any((0, 1)))
    width = columns[-1] - columns[0]
    round_enough = np.zeros(count + 1, bool)
    for label, box in zip(index, boxes, strict=True):
        if not AREA_MM2[0] <= area[label] <= AREA_MM2[1]:
            continue
        height_mm = (box[1].stop - box[1].start) * coarse.spacing[1]
        width_mm = (box[2].stop - box[2].start) * coarse.spacing[2]
        middle = (box[2].start + box[2].stop) / 2
        round_enough[label] = (
            max(height_mm, width_mm) < 3 * min(height_mm, width_mm)
            and area[label] > 0.5 * height_mm * width_mm
            and columns[0] + 0.25 * width < middle < columns[-1] - 0.25 * width
            and mean[label] < GAS_HU + 50
        )
    length = np.zeros(count + 1, int)
    after = np.zeros(count + 1, int)
    best = 0
    for k in range(1, len(regions)):
        lower, upper = regions[k - 1], regions[k]
        both = round_enough[upper] & round_enough[lower]
        if not both.any():
            continue
        for above, below in np.unique(np.stack([upper[both], lower[both]]), axis=1).T:
            if 0.4 < area[above] / area[below] < 2.5 and length[below] + 1 > length[above]:
                length[above] = length[below] + 1
                after[above] = below
                if length[above] > length[best]:
                    best = above
    if length[best] * coarse.spacing[0] < SHORTEST_MM:
        return []
    chain = []
    while best:
        chain.append((boxes[best - 1][0].start, int(best)))
        best = after[best]
    return chain


def _follow(
    coarse: CoarseGrid, lumen: np.ndarray, k: int, above: np.ndarray, area: float, reach: int
) -> np.ndarray:
    """The regions of slice `k` that continue the lumen `above`, each not larger than a trachea."""
    near = ndimage.binary_dilation(above, iterations=reach)
    found = np.zeros_like(above)
    open_regions = lumen
    for hu in STRICTER_HU:
        labels, count = ndimage.label(open_regions & (coarse.hu[k] < hu))
        if not count:
            break
        size = np.bincount(labels.ravel(), minlength=count + 1)
        inside = np.bincount(labels[near], minlength=count + 1)
        overlap = np.bincount(labels[above], minlength=count + 1)
        good = (overlap > 0) & (size <= 1.6 * area) & (inside >= 0.5 * size)
        good[0] = False
        for label in np.flatnonzero(good):
            region = labels == label
            wall = ndimage.binary_dilation(region) & ~region
            good[label] = np.mean(coarse.hu[k][wall] > LUMEN_HU) > WALLED
        found |= good[labels]
        open_regions = ((overlap > 0) & ~good)[labels] & (labels > 0)
    return found
