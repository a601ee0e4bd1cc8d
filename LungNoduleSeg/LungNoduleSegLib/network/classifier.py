"""The candidate classifier: a small 3-D network on cubes that rejects false positives."""

from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.engine import Network, predict_each
from CTLungScreeningLib.geometry import TOUCHING, image_like, voxels_to_lps
from CTLungScreeningLib.hu import LUNG_CONTENT_WINDOW
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.network.inference import LOWEST, average_slabs
from LungNoduleSegLib.nodules.marks import pieces_of
from LungNoduleSegLib.nodules.table import sphere_diameter

if TYPE_CHECKING:
    import keras


CUBE = (16, 36, 36)
"""Samples of the classifier's input along z, y and x."""

STEP_MM = (2.0, 1.0, 1.0)
"""Distance of samples along z, y and x."""

SLAB_MM = 2.5
"""Thinner slices are first averaged to about this thickness."""


def sampled_slices(hu: sitk.Image) -> sitk.Image:
    """Average an axial HU image to the slice thickness of cubes, float32."""
    return average_slabs(sitk.Cast(hu, sitk.sitkFloat32), SLAB_MM)


def cut_cubes(
    slices: sitk.Image,
    centres: NDArray[np.float64],
    shape: tuple[int, int, int] = CUBE,
    scale: float | NDArray[np.float64] = 1.0,
) -> NDArray[np.uint8]:
    """Sample a cube along the axes of the image around each centre.

    Args:
        slices: of `sampled_slices`.
        centres: (n, 3) LPS mm.
        shape: samples along z, y and x.
        scale: factor of the sample distance, of all or of each (n,); above 1 everything looks
            smaller.

    Returns:
        (n, *shape), `LUNG_CONTENT_WINDOW` as 0…255. Border voxels are repeated outside the image.
    """
    array = sitk.GetArrayViewFromImage(slices)
    offsets = [
        (np.arange(n) - (n - 1) / 2) * step / spacing
        for n, step, spacing in zip(shape, STEP_MM, slices.GetSpacing()[::-1], strict=True)
    ]
    cubes = np.empty((len(centres), *shape), np.uint8)
    scales = np.broadcast_to(scale, len(centres))
    for cube, centre, factor in zip(cubes, centres, scales, strict=True):
        middle = slices.TransformPhysicalPointToContinuousIndex(centre.tolist())[::-1]
        grid = [axis * factor + place for axis, place in zip(offsets, middle, strict=True)]
        low = [
            int(np.clip(np.floor(g[0]), 0, n - 1)) for g, n in zip(grid, array.shape, strict=True)
        ]
        high = [
            int(np.clip(np.ceil(g[-1]) + 1, k + 1, n))
            for g, k, n in zip(grid, low, array.shape, strict=True)
        ]
        box = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        places = np.meshgrid(
            *(axis - k for axis, k in zip(grid, low, strict=True)), indexing="ij", copy=False
        )
        values = ndimage.map_coordinates(box, places, order=1, mode="nearest")
        cube[:] = LUNG_CONTENT_WINDOW.to_uint8(values)
    return cubes


SEED = 0.5
"""Connected voxels above this form one candidate."""

BATCH = 8
"""Candidates per batch."""

LARGE_MM, SHOWN_MM = 28.0, 20.0
"""A candidate whose sphere is wider than the first fills the cube: it is also looked at from
farther away, as wide as the second."""

MIRRORED = ((), (2,), (3,), (2, 3))
"""Mirrored axes of cubes (n, z, y, x); a score is the mean over all four."""


def build_classifier() -> "keras.Model":
    """Build the network: cubes (batch, *CUBE, 1) of 0…255 to probabilities (batch, 1).

    After four convolutions, the central features, where a nodule would lie, are kept by position,
    and combined with the global maximum.
    """
    from CTLungScreeningLib.keras_loader import keras  # noqa: PLC0415 - slow to import

    layers = keras.layers

    def activate(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))

    def convolve(x: Any, filters: int, size: Any, strides: Any = 1) -> Any:
        return activate(layers.Conv3D(filters, size, strides, padding="same", use_bias=False)(x))

    inputs = keras.Input((*CUBE, 1))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    x = convolve(x, 24, (3, 5, 5), (1, 2, 2))
    x = convolve(x, 32, 3, 2)
    x = convolve(x, 64, 3)
    x = convolve(x, 64, 3)
    middle = layers.Flatten()(layers.Cropping3D(3)(x))
    strongest = layers.GlobalMaxPooling3D()(layers.AveragePooling3D(2)(x))
    x = layers.Concatenate()([middle, strongest])
    x = activate(layers.Dense(64, use_bias=False)(x))
    x = layers.Dropout(0.3)(x)
    outputs = layers.Dense(1, activation="sigmoid", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="candidate_classifier")


def find_candidates(probability: sitk.Image) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Divide the output of a segmentation network into candidates.

    Args:
        probability: float, any grid.

    Returns:
        The candidate of each voxel (z, y, x), from 1, 0 for none, and the centres of mass (n, 3) by
        probability, in LPS mm.
    """
    values = sitk.GetArrayViewFromImage(probability)
    numbers, count = pieces_of(values >= LOWEST)
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
        part = numbers[box] == number
        seeds, found = ndimage.label(part & (values[box] >= SEED), TOUCHING)
        if found > 1:
            basins = _basins(values[box], seeds, part)
            others = basins > 1
            numbers[box][others] = basins[others] - 1 + count
            count += found - 1
    places = np.flatnonzero(numbers > 0)
    owner, weight = numbers.ravel()[places] - 1, values.ravel()[places]
    voxels = np.unravel_index(places, numbers.shape)
    total = np.bincount(owner, weight, count)
    middles = [np.bincount(owner, weight * axis, count) / total for axis in voxels]
    return numbers, voxels_to_lps(probability, np.stack(middles, axis=1))


def _basins(
    values: NDArray[np.float32], seeds: NDArray[np.int32], part: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Assign each voxel of `part` to a seed by a watershed of the probability."""
    level = sitk.GetImageFromArray(np.where(part, -values, 1).astype(np.float32))
    markers = sitk.GetImageFromArray(seeds.astype(np.uint32))
    basins = sitk.MorphologicalWatershedFromMarkers(level, markers, False, True)
    return np.where(part, sitk.GetArrayViewFromImage(basins), 0)


def score_candidates(
    classifier: Network,
    hu: sitk.Image,
    centres: NDArray[np.float64],
    progress: ProgressCallback = silent,
    scale: float | NDArray[np.float64] = 1.0,
) -> NDArray[np.float64]:
    """Probability (n,) that there is a nodule at each of the centres (n, 3) in LPS mm.

    Args:
        classifier: of `build_classifier`.
        hu: axial HU image.
        centres: to look at.
        progress: called after each batch.
        scale: see `cut_cubes`.
    """
    slices = sampled_slices(hu)
    scales = np.broadcast_to(scale, len(centres))
    parts = [slice(start, start + BATCH) for start in range(0, len(centres), BATCH)]
    batches = (_views(cut_cubes(slices, centres[part], scale=scales[part])) for part in parts)
    scores: list[float] = []
    for each in predict_each(classifier, batches):
        scores += each.reshape(len(MIRRORED), -1).mean(axis=0).tolist()
        progress("Candidates", len(scores), len(centres))
    return np.array(scores)


def _views(cubes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert cubes (n, z, y, x) to the network's input, in all orientations of `MIRRORED`."""
    views = np.concatenate([np.flip(cubes, axes) for axes in MIRRORED])
    return views[..., None].astype(np.float32)


def reduce_false_positives(
    classifier: Network,
    probability: sitk.Image,
    hu: sitk.Image,
    progress: ProgressCallback = silent,
) -> sitk.Image:
    """Limit each voxel's probability to its candidate's score; other voxels become 0.

    A candidate is then ranked by the classifier's score, and if that reaches the threshold it keeps
    the outline of the segmentation network. Of a large one, which fills the cube, the higher of the
    scores near by and from farther away counts.

    Args:
        classifier: of `build_classifier`.
        probability: of the segmentation network, float32, 0…1.
        hu: axial HU image on the same grid.
        progress: called after each batch of candidates.
    """
    numbers, centres = find_candidates(probability)
    marked = np.flatnonzero(numbers > 0)
    owner = numbers.ravel()[marked] - 1
    voxels = np.bincount(owner, minlength=len(centres))
    width_mm = sphere_diameter(voxels * np.prod(probability.GetSpacing()))
    large = np.flatnonzero(width_mm > LARGE_MM)
    places = np.concatenate([centres, centres[large]])
    scale = np.concatenate([np.ones(len(centres)), width_mm[large] / SHOWN_MM])
    scores = score_candidates(classifier, hu, places, progress, scale).astype(np.float32)
    near, far = np.split(scores, [len(centres)])
    near[large] = np.maximum(near[large], far)
    values = sitk.GetArrayViewFromImage(probability)
    capped = np.zeros(values.shape, np.float32)
    capped.ravel()[marked] = np.minimum(values.ravel()[marked], near[owner])
    return image_like(capped, probability)
