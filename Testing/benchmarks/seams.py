"""How well a classifier tells the rims of transplanted nodules from those of real ones.

    python Testing/benchmarks/seams.py [--nodules 100] [--data ../shared/data]

Real: the rim of a nodule of LIDC-IDRI as it was scanned. Transplanted: the same nodule, unscaled,
put over a smaller one of another patient, so that both classes come from the same scanners. Patches
of 7 by 5.6 mm cross the rim from inside to outside; a boosted forest learns from them, and from
their means, noise and sharpness by distance from the rim, and is asked about patients that it has
not seen. Where 0.5 is chance, prints the area under the curve with the limits of 95 % of resamples
of the patients; then of the outermost rows alone, which are only lung: what is above chance there
is that the hosts are other patients than the donors. Last a control, real rims of patients of even
numbers against those of odd numbers.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from CTLungScreeningLib.hu import DENSE_HU
from LungNoduleSegLib.network.transplants import NoduleCube, read_cubes, transplant

STEP_MM, OUTWARDS, ALONG = 0.7, 11, 9
INSIDE_MM = 1.4
"""Where a patch begins, inside the outline."""

PATCHES = 12
"""From each nodule."""

TRIES = 4
SIDE, ENDS_MM = 16, 16.0
"""Voxels and mm by which a host is extended, so that a nodule fits; nothing is looked at there."""

LUNG_ROWS = slice(7, None)
"""Rows of a patch that hold nothing but lung."""

Array = NDArray[np.float32]


def middle(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the slices in which a nodule is nearly as large as anywhere."""
    areas = mask.sum(axis=(1, 2))
    return mask & (areas >= 0.6 * areas.max())[:, None, None]


def rims(
    hu: NDArray[np.int16] | Array,
    mask: NDArray[np.bool_],
    spacing: Sequence[float],
    rng: np.random.Generator,
) -> Array:
    """Cut up to `PATCHES` patches (n, `OUTWARDS`, `ALONG`) in HU across a rim that borders on lung.

    Args:
        hu: (z, y, x) HU.
        mask: the nodule.
        spacing: mm along z, y, x.
        rng: decides which.
    """
    pixel = np.array(spacing[1:])
    places = []
    for k in np.flatnonzero(mask.sum(axis=(1, 2)) >= 12):
        outside, inside = (ndimage.distance_transform_edt(m, pixel) for m in (~mask[k], mask[k]))
        down = np.stack(np.gradient(ndimage.gaussian_filter(outside - inside, 1 / pixel), *pixel))
        for y, x in np.argwhere(mask[k] & ~ndimage.binary_erosion(mask[k])):
            length = np.linalg.norm(down[:, y, x])
            if length > 0.3:
                places.append((k, np.array([y, x]), down[:, y, x] / length))
    out = STEP_MM * np.arange(OUTWARDS)[:, None] - INSIDE_MM
    along = STEP_MM * (np.arange(ALONG) - ALONG // 2)[None]
    patches: list[Array] = []
    for i in rng.permutation(len(places)):
        k, start, (ny, nx) = places[i]
        at = np.stack([out * ny - along * nx, out * nx + along * ny]) / pixel[:, None, None]
        at += start[:, None, None]
        if at.min() < 0 or (at.max(axis=(1, 2)) > np.array(mask.shape[1:]) - 1).any():
            continue
        patch = ndimage.map_coordinates(hu[k].astype(np.float32), at, order=1)
        other = ndimage.map_coordinates(mask[k].astype(np.float32), at, order=1)[5:] > 0.5
        if (patch[5:] > DENSE_HU).mean() <= 0.15 and not other.any():
            patches.append(patch)
        if len(patches) == PATCHES:
            break
    return np.reshape(patches, (-1, OUTWARDS, ALONG)).astype(np.float32)


def put_over(
    cube: NoduleCube, small: NoduleCube, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]] | None:
    """Transplant a nodule over a smaller one, which lung replaces first; None if it is not covered.

    Returns:
        HU and mask on the smaller one's grid.
    """
    ends = int(np.ceil(ENDS_MM / small.spacing[0]))
    around = ((0, 0), (SIDE, SIDE), (SIDE, SIDE)), ((ends, ends), (0, 0), (0, 0))
    hu = np.pad(np.pad(small.hu, around[0], mode="symmetric"), around[1], mode="edge")
    own = np.pad(np.pad(small.mask, around[0]), around[1], mode="edge")
    spacing = np.array(small.spacing)
    away = ndimage.distance_transform_edt(~own, spacing)
    inside = ndimage.binary_opening(hu < DENSE_HU) | (away < 2.5)
    inside = ndimage.binary_closing(np.pad(inside, 3, mode="edge"), iterations=3)[
        (np.s_[3:-3],) * 3
    ]
    near = away <= 1.5
    host = _filled(hu, near, spacing)
    grid = sitk.GetImageFromArray(near.view(np.uint8))
    grid.SetSpacing(spacing[::-1].tolist())
    z, y, x = (round(v) for v in np.argwhere(own).mean(axis=0))
    placed = transplant(host, grid, inside, cube, (z, y, x), rng, scale=(1.0, 1.0))
    if placed is None:
        return None
    whole = np.zeros(host.shape, bool)
    whole[placed[0]] = placed[1]
    inner = np.s_[ends:-ends, SIDE:-SIDE, SIDE:-SIDE]
    seen = middle(whole)[inner]
    used = seen.any(axis=(1, 2))
    bare = near[inner] & (ndimage.distance_transform_edt(~whole, spacing)[inner] > 0.5)
    return None if not used.any() or bare[used].any() else (host[inner], seen)


def _filled(hu: NDArray[np.int16], hole: NDArray[np.bool_], spacing: NDArray[np.float64]) -> Array:
    """Fill a hole with the lung that mirrors it in the slice."""
    nearest = ndimage.distance_transform_edt(
        hole, (1e3, *spacing[1:]), return_distances=False, return_indices=True
    )[:, hole]
    there = 2 * nearest - np.argwhere(hole).T
    there = [np.clip(v, 0, n - 1) for v, n in zip(there, hu.shape, strict=True)]
    values = hu[tuple(there)]
    host = hu.astype(np.float32)
    host[hole] = np.where(values < DENSE_HU, values, np.median(hu[(hu < DENSE_HU) & ~hole]))
    return host


def gather(
    cubes: Sequence[NoduleCube], count: int, rng: np.random.Generator
) -> tuple[Array, Array, NDArray[np.intp], NDArray[np.intp]]:
    """Cut patches of real and transplanted rims of up to `count` nodules, and whose they are."""
    free = [cube for cube in cubes if cube.attachment is None]
    small = [cube for cube in free if cube.diameter_mm < 6]
    large = [cube for cube in free if 9 < cube.diameter_mm < 20]
    both: tuple[list[Array], list[Array]] = [], []
    owners: tuple[list[int], list[int]] = [], []
    nodules = 0
    reach = np.array([_reach_mm(cube) for cube in small])
    for cube in large:
        patient = cube.name.split("_")[0]
        depth = ndimage.distance_transform_edt(cube.mask, cube.spacing).max()
        for n in rng.permutation(np.flatnonzero(reach + 1 < depth))[:TRIES]:
            if small[n].name.startswith(patient):
                continue
            placed = put_over(cube, small[n], rng)
            if placed is None:
                continue
            pair = (
                rims(cube.hu, middle(cube.mask), cube.spacing, rng),
                rims(*placed, small[n].spacing, rng),
            )
            if min(map(len, pair)) >= 4:
                for patches, whose, kind in zip(pair, owners, both, strict=True):
                    kind.append(patches)
                    whose.extend([int(patient[-4:])] * len(patches))
                nodules += 1
                break
        if nodules == count:
            break
    real, moved = (np.concatenate(kind) for kind in both)
    return real, moved, np.array(owners[0]), np.array(owners[1])


def _reach_mm(cube: NoduleCube) -> float:
    """Distance of the farthest voxel of a nodule from its centre."""
    places = np.argwhere(cube.mask) * cube.spacing
    return float(np.linalg.norm(places - places.mean(axis=0), axis=1).max())


def features(patches: Array) -> Array:
    """Describe patches (n, rows, columns) by row and as they are."""
    mean, fine = patches.mean(axis=2), np.diff(patches, axis=2)
    spread, step = patches.std(axis=2), fine.std(axis=2)
    finer = np.diff(fine, axis=2).std(axis=2)
    across = np.diff(patches, axis=1)
    columns = (
        *(mean, spread, step, finer, step / (spread + 5), finer / (step + 5)),
        *(np.percentile(patches, 10, axis=2), np.percentile(patches, 90, axis=2)),
        *(across.mean(axis=2), across.std(axis=2), patches.reshape(len(patches), -1)),
    )
    return np.concatenate(columns, axis=1)


def area_under_curve(
    real: Array, moved: Array, owners: NDArray[np.intp], resamples: int = 200
) -> tuple[float, float, float]:
    """Area under the ROC curve of a classifier that has not seen the patient, with 95 % limits.

    Args:
        real, moved: features (n, m) of both classes.
        owners: patient of each row, first of `real`, then of `moved`.
        resamples: of the patients.
    """
    x = np.concatenate([real, moved])
    y = np.repeat([0, 1], [len(real), len(moved)])
    score = np.zeros(len(y))
    for train, test in GroupKFold(5).split(x, y, owners):
        forest = HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.08, max_leaf_nodes=12, l2_regularization=1, random_state=0
        )
        score[test] = forest.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(owners == one) for one in np.unique(owners)]
    areas = []
    for _ in range(resamples):
        drawn = np.concatenate([rows[n] for n in rng.integers(len(rows), size=len(rows))])
        if 0 < y[drawn].mean() < 1:
            areas.append(roc_auc_score(y[drawn], score[drawn]))
    low, high = np.percentile(areas, (2.5, 97.5))
    return float(roc_auc_score(y, score)), float(low), float(high)


def main() -> None:
    """Print both areas."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodules", type=int, default=100)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    cubes = read_cubes(options.data / "lidc_nodules")
    real, moved, *owners = gather(cubes, options.nodules, np.random.default_rng(0))
    whose = np.concatenate(owners)
    print(f"{len(real)} real and {len(moved)} transplanted patches of {len(set(whose))} patients")
    even = owners[0] % 2 == 0
    for title, one, other, own in (
        ("real against transplanted", real, moved, whose),
        ("their outermost rows, only lung", real[:, LUNG_ROWS], moved[:, LUNG_ROWS], whose),
        (
            "real against real, other patients",
            real[even],
            real[~even],
            np.concatenate([owners[0][even], owners[0][~even]]),
        ),
    ):
        area, low, high = area_under_curve(features(one), features(other), own)
        print(f"{title:34} {area:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
