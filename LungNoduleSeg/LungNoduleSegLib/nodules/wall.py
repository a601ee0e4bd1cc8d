"""The wall of the lung beside a nodule, as a smooth surface, and the lung border near it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from CTLungScreeningLib.child_process import Pause, Work, complete
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import Box
from LungNoduleSegLib.lungs.labels import LEFT_LUNG, RIGHT_LUNG
from LungNoduleSegLib.nodules.table import Side

_PROGRESS = "Preparing", 1, 2


@dataclass(frozen=True)
class LungBorder:
    """What measuring needs to know of the lungs: where each lies and what borders it.

    Attributes:
        centre_x: mean voxel index x of each lung that is there.
        outside: places (z, y, x) in mm of the voxels that border it.
        spacing: mm along (z, y, x).
    """

    centre_x: dict[Side, float]
    outside: dict[Side, KDTree]
    spacing: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        lungs: NDArray[Any],
        spacing: NDArray[np.float64],
        nodules: NDArray[Any] | None = None,
    ) -> "LungBorder":
        """Look at lungs; see `work` for the arguments and errors."""
        return complete(cls.work(lungs, spacing, nodules))

    @classmethod
    def work(
        cls,
        lungs: NDArray[Any],
        spacing: NDArray[np.float64],
        nodules: NDArray[Any] | None = None,
    ) -> Work["LungBorder"]:
        """Look at lungs in steps, for a window.

        Args:
            lungs: (z, y, x), 1 in the right and 2 in the left lung.
            spacing: mm along (z, y, x).
            nodules: their labels, which count as lung; None if all lie within the lungs.

        Raises:
            InputError: if the lungs are empty or fill the image.
        """
        if lungs.all() or not lungs.any():
            raise InputError(
                "The lung mask is empty or fills the whole image: segment the lungs of a scan that "
                "shows their border."
            )
        centre_x, outside = {}, {}
        for side, value in ((Side.RIGHT, RIGHT_LUNG), (Side.LEFT, LEFT_LUNG)):
            lung = lungs == value
            columns = lung.sum(axis=(0, 1))
            if columns.any():
                centre_x[side] = float(np.average(np.arange(len(columns)), weights=columns))
            inside = lung if nodules is None else lung | (nodules > 0)
            yield Pause(*_PROGRESS)
            around = _beside(inside)
            yield Pause(*_PROGRESS)
            beside = np.argwhere(around)
            yield Pause(*_PROGRESS)
            outside[side] = KDTree(beside * spacing, balanced_tree=False)
            yield Pause(*_PROGRESS)
        return cls(centre_x, outside, spacing)

    def side(self, lung_values: NDArray[Any], voxels: NDArray[np.int64]) -> Side:
        """Lung with most of the voxels; for a nodule outside both, the one nearer in x."""
        right, left = (np.count_nonzero(lung_values == value) for value in (RIGHT_LUNG, LEFT_LUNG))
        if right == left:
            x = voxels[:, 2].mean()
            return min(self.centre_x, key=lambda side: abs(self.centre_x[side] - x))
        return Side.RIGHT if right > left else Side.LEFT

    def distance_mm(self, side: Side, mask: NDArray[np.bool_], box: Box) -> float:
        """Distance (mm) from the faces of the nodule's voxels to those outside the lung."""
        surface = np.argwhere(mask & ~ndimage.binary_erosion(mask))
        surface = (surface + [part.start for part in box]) * self.spacing
        outside = self.outside[side]
        centre = surface.mean(axis=0)
        reach = np.linalg.norm(surface - centre, axis=1).max()
        near = outside.query_ball_point(centre, outside.query(centre)[0] + reach + 1e-6)
        border = outside.data[near]
        distance, nearest = KDTree(surface).query(border)
        apart = np.abs(surface[nearest] - border)[distance.argmin()]
        return float(np.linalg.norm(np.maximum(apart - self.spacing, 0)))


def _beside(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels that share a face with `inside` without belonging to it."""
    beside = np.zeros_like(inside)
    for axis in range(inside.ndim):
        there, here = np.moveaxis(beside, axis, 0), np.moveaxis(inside, axis, 0)
        there[1:] |= here[:-1]
        there[:-1] |= here[1:]
    return beside & ~inside


REACH_MM = 12.0
"""How far from the mark of the nodule the wall is looked at."""

NEAR_MM = 3.0
"""Surfaces this near to what the lung mask leaves out are wall."""

LEAST_VOXELS = 60
MOST_ROUGH_MM = 1.5
"""A wall that no smooth surface fits within this is left to the lung mask."""

FACES = ndimage.generate_binary_structure(3, 1)


def lung_side(
    dense: NDArray[np.bool_],
    lung: NDArray[np.bool_],
    mark: NDArray[np.bool_],
    away: NDArray[np.float32],
    spacing: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Determine the lung's side of the wall near a nodule.

    To the places where aerated lung meets the wall around the nodule a quadratic surface is
    fitted: it runs on beneath the nodule whether the wall is hollow, as at the ribs, or bulges, as
    the diaphragm does. The nodule's own surface, vessels and folds are outliers of the fit.

    Args:
        dense: (z, y, x) denser than half-way from lung to nodule.
        lung: the lung mask.
        mark: rough mask of the nodule.
        away: distance (mm) to the mark.
        spacing: mm along (z, y, x).

    Returns:
        bool (z, y, x); all true where no wall is near.
    """
    around = away < REACH_MM
    outside = ~lung & dense & around
    if not (outside & (away < NEAR_MM)).any():
        return np.ones_like(lung)
    fallback = lung | mark
    to_wall = ndimage.distance_transform_edt(~outside, sampling=spacing)
    air = lung & ~dense
    meets = (ndimage.binary_dilation(air, FACES) & dense) | (
        ndimage.binary_dilation(dense, FACES) & air
    )
    middle = np.argwhere(mark).mean(0) * spacing
    places = np.argwhere(meets & around & (to_wall < NEAR_MM)) * spacing - middle
    if len(places) < LEAST_VOXELS or not (air & around).any():
        return fallback
    normal = np.argwhere(outside).mean(0) - np.argwhere(air & around).mean(0)
    radius = float(np.cbrt(3 / 4 / np.pi * mark.sum() * spacing.prod()))
    normal = normal * spacing
    for _ in range(2):
        if not np.linalg.norm(normal) > 0:
            return fallback
        frame = _frame(normal)
        fit, rough = _fitted(places @ frame.T, radius)
        normal = frame[2] - fit[1] * frame[0] - fit[2] * frame[1]
    if not rough <= MOST_ROUGH_MM:
        return fallback
    grid = np.argwhere(around) * spacing - middle
    u, v, height = frame @ grid.T
    side = np.ones_like(lung)
    side[~around] = lung[~around]
    side[around] = height <= _terms(u, v) @ fit
    return side


def _frame(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return three unit vectors as rows, the last along `normal`."""
    across = np.linalg.svd(normal[None])[2][1:]
    return np.vstack([across, normal / np.linalg.norm(normal)])


def _fitted(places: NDArray[np.float64], radius: float) -> tuple[NDArray[np.float64], float]:
    """Fit a quadratic height by re-weighted least squares; also give the spread about it in mm."""
    u, v, height = places.T
    terms = _terms(u, v)
    weight = (np.hypot(u, v) > radius).astype(float)
    if weight.sum() < LEAST_VOXELS:
        return np.zeros(6), np.inf
    for _ in range(15):
        root = np.sqrt(weight)
        fit = np.linalg.lstsq(terms * root[:, None], height * root, rcond=None)[0]
        off = height - terms @ fit
        spread = max(0.25, 1.4826 * float(np.median(np.abs(off[weight > 0.05]))))
        weight = 1 / (1 + (off / (2 * spread)) ** 2) ** 2
    return fit, spread


def _terms(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)
