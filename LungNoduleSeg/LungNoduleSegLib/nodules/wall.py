"""The wall of the lung beside a nodule, as a smooth surface that runs on beneath it."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
    """Tell the lung's side of the wall near a nodule.

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
    """Give three unit vectors as rows, the last along `normal`."""
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
