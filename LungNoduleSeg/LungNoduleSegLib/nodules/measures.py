"""Measures of nodules given as a label image: size, attenuation, type, side and place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from CTLungScreeningLib.child_process import Work, complete
from CTLungScreeningLib.geometry import Box, grown, in_crop, out_of_crop, shared_box
from LungNoduleSegLib.nodules.attenuation import (
    Attenuation,
    lung_noise,
    nodule_kind,
    solid_part,
)
from LungNoduleSegLib.nodules.cavities import air_in, fill_cavities
from LungNoduleSegLib.nodules.outline import (
    ImageOutline,
    NoduleOutline,
    reach_mm,
    refine_outline,
)
from LungNoduleSegLib.nodules.table import (
    Nodule,
    NoduleKind,
    Outline,
    Plane,
    mean_axial_mm,
    sphere_diameter,
)
from LungNoduleSegLib.nodules.uncertainty import measurement_interval
from LungNoduleSegLib.nodules.wall import LungBorder

THIN_MM = 1.5
"""Slices no farther apart than this show a nodule in other planes well enough to measure it."""

NEAR_MM = 10
"""So far around a nodule lies the lung whose noise counts."""

VOLUME_MEASUREMENT = "corrected for blur and lung, lobes by volume, from marks down to half"
"""How sizes are measured: growth is not taken between runs that differ in it."""

LEAST_SECTION = 0.5
"""Diameters are taken on slices that show this share of the largest section at least: spicules,
vessels and satellites above or below a mass make longer, thinner ones (our own choice)."""

LEAST_LEFT_MM, LEAST_ROUND, MOST_CONTACT = 4.0, 0.8, 0.3
"""What the outline of a nodule leaves of its mark is another one if a ball of the first fits in;
if one as wide as that share of its sphere fits into its own outline, most of which is marked; and
if no more of its surface than the last borders on others. The rest are stumps of vessels."""

Points = NDArray[np.float64]
BoxedMask = tuple[Box, NDArray[np.bool_]]
"""A mask (z, y, x), and the box of the grid in which it lies."""


@dataclass(frozen=True)
class AxialDiameters:
    """The two diameters of a nodule on one axial slice: see `axial_diameters`.

    Attributes:
        slice: index k on the axial grid.
        outlines: closed outlines on that slice, each (n, 2), columns x and y in pixels of the
            grid, (0, 0) being the centre of its first pixel.
        longest: ends (2, 2) of the longest diameter, in the same coordinates.
        across: ends (2, 2) of the longest diameter perpendicular to it.
        longest_mm: length of `longest`.
        across_mm: length of `across`.
    """

    slice: int
    outlines: tuple[Points, ...]
    longest: Points
    across: Points
    longest_mm: float
    across_mm: float


def measure_labels(
    labels: sitk.Image,
    hu: sitk.Image,
    lungs: sitk.Image,
    original: sitk.Image,
) -> tuple[Nodule, ...]:
    """Measure every label of a label image that was drawn by hand.

    Centres and diameters are in mm, rounded to 0.001.

    Args:
        labels: axial image of whole numbers, 0 for background; each label is one nodule.
        hu: HU on the same grid.
        lungs: 1 in the right and 2 in the left lung, on the same grid, which should show a
            margin around the lungs: the edge of the grid does not count as pleura.
        original: any image on the input's grid; gives the slice number.

    Returns:
        One `Nodule` per label, in the order of the labels, which become the ids.

    Raises:
        InputError: if there are nodules, but the lungs are empty or fill the image.
    """
    label_array = sitk.GetArrayViewFromImage(labels)
    boxes = ndimage.find_objects(label_array)
    if not boxes:
        return ()
    ruler = NoduleMeter.of(hu, lungs, None, original, label_array)
    return tuple(
        ruler.measure(label, NoduleOutline(box, label_array[box] == label, Outline.HAND))
        for label, box in enumerate(boxes, start=1)
        if box is not None
    )


@dataclass(frozen=True)
class NoduleMeter:
    """What the nodules of one scan are measured on.

    Attributes:
        hu: HU, axial.
        filled: the same with cavities filled, which outlines follow.
        lungs: 1 in the right and 2 in the left lung, on the same grid.
        probability: the network's output on it, None for nodules drawn by hand.
        border: of the lungs.
        original: any image on the input's grid; gives the slice number.
    """

    hu: sitk.Image
    filled: sitk.Image
    lungs: sitk.Image
    probability: sitk.Image | None
    border: LungBorder
    original: sitk.Image
    _outlined: dict[bytes, NoduleOutline] = field(default_factory=dict, repr=False, compare=False)
    """What `outlines` found, by the mark and what others have of its surroundings."""

    @classmethod
    def of(
        cls,
        hu: sitk.Image,
        lungs: sitk.Image,
        probability: sitk.Image | None,
        original: sitk.Image,
        nodules: NDArray[Any] | None = None,
    ) -> "NoduleMeter":
        """Prepare to measure; see `work`."""
        return complete(cls.work(hu, lungs, probability, original, nodules))

    @classmethod
    def work(
        cls,
        hu: sitk.Image,
        lungs: sitk.Image,
        probability: sitk.Image | None,
        original: sitk.Image,
        nodules: NDArray[Any] | None = None,
    ) -> Work["NoduleMeter"]:
        """Prepare to measure, in steps, for a window; see `measure_labels`.

        Args:
            hu: HU, axial.
            lungs: labels on the same grid.
            probability: on the same grid.
            original: on the input's grid.
            nodules: their labels, which count as lung; None if all lie within the lungs.

        Raises:
            InputError: if the lungs are empty or fill the image.
        """
        spacing = np.array(lungs.GetSpacing())[::-1]
        array = sitk.GetArrayViewFromImage(lungs)
        border = yield from LungBorder.work(array, spacing, nodules)
        return cls(hu, fill_cavities(hu, lungs), lungs, probability, border, original)

    def outlines(
        self, marks: Sequence[BoxedMask], taken: Sequence[BoxedMask] = ()
    ) -> Iterator[NoduleOutline]:
        """Outline nodules by the image, one after the other; without an outline the mark is used.

        No voxel comes to belong to two; what has not changed is not outlined again. One mark may
        hold several nodules that touch: what the outline of the first leaves of it and is a nodule
        follows after all the others.

        Args:
            marks: rough masks, each with its box.
            taken: nodules that stay as they are.
        """
        owner = np.zeros(self.hu.GetSize()[::-1], np.uint16)
        for number, (box, mask) in enumerate((*marks, *taken), start=1):
            owner[box][mask] = number
        for number, (box, mark) in enumerate(marks, start=1):
            one = self._outline(box, mark, owner, number)
            owner[box][mark & (owner[box] == number)] = 0
            owner[one.box][one.mask] = number
            yield one
        beyond = len(marks) + len(taken) + 1
        for number, (box, piece) in enumerate(self._left_over(marks, owner), start=beyond):
            one = self._outline(box, piece, owner, number)
            if _stands_alone(one, box, piece, self.border.spacing):
                owner[one.box][one.mask] = number
                yield one

    def _outline(
        self, box: Box, mark: NDArray[np.bool_], owner: NDArray[np.uint16], number: int
    ) -> NoduleOutline:
        """Outline what is marked; the mark itself if the image shows no outline."""
        hu, lungs = map(sitk.GetArrayViewFromImage, (self.filled, self.lungs))
        spacing = self.border.spacing
        # What `refine_outline` looks at about a mark, or a little more.
        margin = np.ceil(reach_mm(mark, spacing) / spacing).astype(int) + 1
        others = owner[grown(box, margin, owner.shape)]
        key = f"{box}".encode() + mark.tobytes() + ((others != 0) & (others != number)).tobytes()
        one = self._outlined.get(key)
        if one is None:
            one = refine_outline(hu, lungs, spacing, box, mark, owner, number)
            if one is None or (one.image is not None and one.image.field.max() <= 0.5):
                one = NoduleOutline(box, mark, Outline.NETWORK)
            self._outlined[key] = one
        return one

    def _left_over(self, marks: Sequence[BoxedMask], owner: NDArray[Any]) -> Iterator[BoxedMask]:
        """Yield the pieces of marks that no outline holds and that are wide enough for a nodule."""
        spacing = self.border.spacing
        for box, mark in marks:
            pieces, _ = ndimage.label(mark & (owner[box] == 0))
            width = sphere_diameter(np.bincount(pieces.ravel()) * spacing.prod())
            for number, inner in enumerate(ndimage.find_objects(pieces), start=1):
                piece = pieces[inner] == number
                if width[number] >= LEAST_LEFT_MM <= _widest_mm(piece, spacing):
                    yield out_of_crop(inner, box), piece

    def _noise_hu(self, box: Box) -> float:
        """Noise of the lung within `NEAR_MM` of a box."""
        hu, lungs = map(sitk.GetArrayViewFromImage, (self.filled, self.lungs))
        near = grown(box, np.ceil(NEAR_MM / self.border.spacing).astype(int), lungs.shape)
        return lung_noise(hu[near][lungs[near] > 0])

    def measure(self, number: int, outline: NoduleOutline) -> Nodule:
        """Measure one nodule of the grid."""
        spacing = self.border.spacing
        box, mask, image = outline.box, outline.mask, outline.image
        voxels = np.argwhere(mask) + [part.start for part in box]
        middle = voxels.mean(axis=0)[::-1].tolist()
        centre = self.lungs.TransformContinuousIndexToPhysicalPoint(middle)
        x, y, z = (_rounded(value) for value in centre)
        hu = sitk.GetArrayViewFromImage(self.hu)[box]
        lung_values = sitk.GetArrayViewFromImage(self.lungs)[box][mask]
        shape = mask if image is None else image.field
        diameters = axial_diameters(shape, box, spacing)
        volume = len(voxels) * spacing.prod() if image is None else image.volume_mm3
        attenuation = Attenuation.of(hu[mask])
        cavity = mask & air_in(box, self.hu, self.filled)
        tissue = mask if cavity[mask].all() else mask & ~cavity
        kind = _kind(hu, tissue, image, spacing, self._noise_hu(box))
        solid: NDArray[Any] | None = None
        if kind is NoduleKind.PART_SOLID:
            solid = solid_part(hu, mask) if image is None else image.solid
        odds = None
        if self.probability is not None:
            odds = sitk.GetArrayViewFromImage(self.probability)[box][mask]
        side = self.border.side(lung_values, voxels)
        longest, across = _rounded(diameters.longest_mm), _rounded(diameters.across_mm)
        mean = mean_axial_mm(longest, across)
        plane, largest = largest_plane(shape, spacing, mean)
        ends = np.array(self.lungs.GetSize())[::-1] - 1
        cut = bool((voxels == 0).any() or (voxels == ends).any())
        return Nodule(
            id=number,
            x=x,
            y=y,
            z=z,
            slice=self.original.TransformPhysicalPointToIndex(centre)[2],
            diameter_mm=longest,
            perpendicular_mm=across,
            equivalent_diameter_mm=_rounded(sphere_diameter(volume)),
            volume_mm3=_rounded(volume),
            mean_hu=_rounded(attenuation.mean),
            std_hu=_rounded(attenuation.std),
            min_hu=_rounded(attenuation.min),
            p10_hu=_rounded(attenuation.p10),
            median_hu=_rounded(attenuation.median),
            p90_hu=_rounded(attenuation.p90),
            max_hu=_rounded(attenuation.max),
            kind=kind,
            solid_mm=None if solid is None else min(_solid_mm(solid, box, spacing), longest),
            side=side,
            pleura_mm=_rounded(self.border.distance_mm(side, mask, box)),
            probability=None if odds is None else _rounded(odds.max()),
            mean_probability=None if odds is None else _rounded(odds.mean(dtype=np.float64)),
            mean_diameter_mm=mean,
            outline=outline.made_by,
            largest_plane=plane,
            largest_plane_mm=largest,
            cavity_mm3=_rounded(cavity.sum() * spacing.prod()) if cavity.any() else None,
            **_intervals(None if cut else image, (longest + across) / 2, volume, kind, spacing),
        )


def _stands_alone(
    one: NoduleOutline, box: Box, mark: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> bool:
    """Whether an outline, made from what another one left of its mark, is that of a nodule."""
    if one.image is None or one.image.contact > MOST_CONTACT:
        return False
    marked = np.zeros_like(one.mask)
    if shared := shared_box(one.box, box):
        marked[in_crop(shared, one.box)] = mark[in_crop(shared, box)]
    width = sphere_diameter(one.mask.sum() * spacing.prod())
    return bool(
        _widest_mm(one.mask, spacing) >= LEAST_ROUND * width and np.mean(marked[one.mask]) >= 0.5
    )


def _widest_mm(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> float:
    """Diameter of the widest ball within a mask."""
    return float(2 * ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing).max())


def _intervals(
    image: ImageOutline | None,
    diameter_mm: float,
    volume_mm3: float,
    kind: NoduleKind,
    spacing: NDArray[np.float64],
) -> dict[str, Any]:
    """Half the 95 % intervals by column, if the outline is from the image and whole."""
    if image is None:
        return {}
    half = measurement_interval(
        diameter_mm,
        volume_mm3,
        spacing.tolist(),
        kind,
        image.attached,
        image.contact,
        image.noise_hu,
    )
    columns = {
        "diameter_pm_mm": half.longest_mm,
        "perpendicular_pm_mm": half.across_mm,
        "mean_diameter_pm_mm": half.mean_mm,
        "volume_pm_mm3": half.volume_mm3,
        "solid_pm_mm": half.solid_mm,
    }
    return {name: _rounded(value) for name, value in columns.items() if value is not None}


def _kind(
    hu: NDArray[Any],
    tissue: NDArray[np.bool_],
    image: ImageOutline | None,
    spacing: NDArray[np.float64],
    noise_hu: float,
) -> NoduleKind:
    """Type of a nodule by its tissue; an outline from the image decides if it is part-solid."""
    kind = nodule_kind(hu, tissue, spacing, noise_hu)
    if image is None or kind in (NoduleKind.CALCIFIED, NoduleKind.NON_SOLID):
        return kind
    return NoduleKind.SOLID if image.solid is None else NoduleKind.PART_SOLID


def cut_off(labels: sitk.Image) -> list[int]:
    """Return the labels that reach an end of their image, in ascending order."""
    array = sitk.GetArrayViewFromImage(labels)
    ends = [np.moveaxis(array, axis, 0)[[0, -1]].ravel() for axis in range(array.ndim)]
    numbers = np.unique(np.concatenate(ends))
    return numbers[numbers > 0].tolist()


def outlines(mask: NDArray[np.bool_] | NDArray[np.float32]) -> list[Points]:
    """Outline a 2-D mask (y, x), or where a field crosses 0.5, below the size of the pixels.

    The steps of a mask are smoothed by a Gaussian of 1.2 pixels, less for small masks so that
    they keep their size, and followed at half level. The longest diameter of a disc is kept within
    half a pixel on average over its position on the grid, within three quarters at worst.

    Returns:
        Closed lines (n, 2), columns x and y in pixels; (0, 0) is the centre of the first pixel.
    """
    # Not at the top: the logic is imported in Slicer before any package is installed.
    from skimage.measure import find_contours  # noqa: PLC0415

    margin = 4
    if mask.dtype != bool:
        field = np.pad(mask, margin, constant_values=mask.min(initial=0))
        return [line[:, ::-1] - margin for line in find_contours(field, 0.5)]
    radius = np.sqrt(mask.sum() / np.pi)
    smooth = ndimage.gaussian_filter(
        np.pad(mask, margin).astype(np.float32), min(1.2, radius / 4), truncate=3
    )
    return [line[:, ::-1] - margin for line in find_contours(smooth, 0.5)]


def axial_diameters(
    mask: NDArray[np.bool_] | NDArray[np.float32], box: Box, spacing: NDArray[np.float64]
) -> AxialDiameters:
    """Find the longest axial diameter of a nodule and the longest one across it on that slice.

    Of the slices whose section has at least `LEAST_SECTION` of the area of the largest one, that
    with the longest diameter is taken. Both are taken on the convex outline, as with callipers.
    Where a slice cuts the nodule in several pieces, the longest piece counts. This is how the
    Fleischner Society has nodules measured: Bankier et al., Radiology 2017;285:584-600.

    Args:
        mask: (z, y, x) voxels of one nodule, or a field that crosses 0.5 at its surface.
        box: where `mask` lies in the axial grid.
        spacing: mm along (z, y, x).
    """
    pixel = spacing[:0:-1]
    corner = np.array([box[2].start, box[1].start])
    best: tuple[float, int, Points, Points] | None = None
    found = []
    inside = mask >= 0.5
    areas = inside.sum(axis=(1, 2))
    inside[areas < LEAST_SECTION * areas.max()] = False
    at_most = _longest_possible(inside, pixel)
    for k in np.argsort(-at_most, kind="stable"):
        if best is not None and at_most[k] <= best[0]:
            break
        lines = outlines(mask[k])
        for line in lines:
            hull = _convex(line) * pixel
            apart = squareform(pdist(hull))
            ends = np.unravel_index(apart.argmax(), apart.shape)
            if best is None or apart[ends] > best[0]:
                best = float(apart[ends]), int(k), hull[list(ends)], hull
                found = lines
    if best is None:
        raise ValueError("the mask is empty")
    length, k, longest, hull = best
    across = _longest_across(hull, longest)
    return AxialDiameters(
        slice=box[0].start + k,
        outlines=tuple(line + corner for line in found),
        longest=longest / pixel + corner,
        across=across / pixel + corner,
        longest_mm=length,
        across_mm=float(np.hypot(*np.diff(across, axis=0)[0])),
    )


def largest_plane(
    mask: NDArray[np.bool_] | NDArray[np.float32], spacing: NDArray[np.float64], axial_mm: float
) -> tuple[Plane, float]:
    """Find the plane in which the mean of longest and perpendicular diameter is largest.

    "The long and short axis measurements may be in any plane to reflect the true size of the
    nodule", says Lung-RADS v2022. Slices farther apart than `THIN_MM` are measured axially only.

    Args:
        mask: as for `axial_diameters`.
        spacing: mm along (z, y, x).
        axial_mm: mean of the axial diameters.

    Returns:
        The plane, and the mean of its diameters as `mean_axial_mm` rounds it.
    """
    best = Plane.AXIAL, axial_mm
    for plane, axis in ((Plane.CORONAL, 1), (Plane.SAGITTAL, 2)):
        if spacing[0] > THIN_MM:
            break
        turned = np.moveaxis(mask, axis, 0)
        order = [axis, *(i for i in range(3) if i != axis)]
        found = axial_diameters(turned, (slice(0, 0),) * 3, spacing[order])
        mean = mean_axial_mm(found.longest_mm, found.across_mm)
        if mean > best[1]:
            best = plane, mean
    return best


def _longest_possible(mask: NDArray[np.bool_], pixel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bound the longest diameter (mm) of each slice from its widths in eight directions."""
    z, y, x = np.nonzero(mask)
    angle = np.arange(8) * np.pi / 8
    across = np.outer(x * pixel[0], np.cos(angle)) + np.outer(y * pixel[1], np.sin(angle))
    held, first = np.unique(z, return_index=True)
    width = np.maximum.reduceat(across, first) - np.minimum.reduceat(across, first)
    bound = np.zeros(len(mask))
    bound[held] = width.max(axis=1) / np.cos(np.pi / 16) + np.hypot(*pixel)
    return bound


def _convex(line: Points) -> Points:
    try:
        return line[ConvexHull(line).vertices]
    except QhullError:
        return line


def _longest_across(hull: Points, longest: Points) -> Points:
    """Ends of the longest chord of a convex polygon perpendicular to its diameter."""
    along = np.diff(longest, axis=0)[0] / np.hypot(*np.diff(longest, axis=0)[0])
    axes = np.array([along, [-along[1], along[0]]])
    turned = (hull - longest[0]) @ axes.T
    start, end = turned[:, 0].argmin(), turned[:, 0].argmax()
    ring = np.roll(turned, -start, axis=0)
    turn = (end - start) % len(ring)
    one, other = ring[: turn + 1], np.vstack([ring[turn:], ring[:1]])[::-1]
    where = np.union1d(one[:, 0], other[:, 0])
    low = np.interp(where, one[:, 0], one[:, 1])
    high = np.interp(where, other[:, 0], other[:, 1])
    widest = np.abs(high - low).argmax()
    chord = np.array([[where[widest], low[widest]], [where[widest], high[widest]]])
    return chord @ axes + longest[0]


def _solid_mm(solid: NDArray[np.bool_], box: Box, spacing: NDArray[np.float64]) -> float:
    """Mean of the two axial diameters of the solid part, as Lung-RADS and Fleischner take it.

    The smooth outline of a few voxels may be a little longer than that of all.
    """
    diameters = axial_diameters(solid, box, spacing)
    return _rounded((diameters.longest_mm + diameters.across_mm) / 2)


def _rounded(value: float) -> float:
    return round(float(value), 3)
