"""Features of a scan for a cancer classifier: the tutorial's nine, and others in mm and HU.

Codes like YEKZ are those of the Image Biomarker Standardisation Initiative, whose reference manual
defines the features: Zwanenburg et al., Radiology 2020;295:328-338, arXiv:1612.07003.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from CTLungScreeningLib.geometry import AxialView, crop_to
from LungNoduleSegLib.nodules.measures import axial_diameters
from LungNoduleSegLib.nodules.table import Nodule, NoduleKind, Side, sphere_diameter
from LungNoduleSegLib.risk.facts import lung_heights, relative_height

Features = dict[str, float]

FEATURES_VERSION = 2
"""Increased whenever a feature changes its meaning; models of another version are refused."""

MAX_AREA_FRACTION = 0.10
"""Regions that cover a larger share of a slice are ignored, as in the tutorial."""

MASK_THRESHOLD = 0.5
"""Foreground threshold for masks, label images and probability maps."""


@dataclass(frozen=True)
class Feature:
    """The definition of a feature.

    Attributes:
        unit: empty for a pure number.
        description: its meaning; features of nodules are 0 for a scan without nodules.
        ibsi: code of the definition, or empty.
    """

    unit: str
    description: str
    ibsi: str = ""


SLICE_FEATURES = {
    "average_area": Feature("pixels", "Mean area of the regions of all slices"),
    "max_area": Feature("pixels", "Area of the largest region on any slice"),
    "average_eccentricity": Feature("", "Mean eccentricity of the regions; 0 is a circle"),
    "average_equivalent_diameter": Feature("pixels", "Mean diameter of circles of their areas"),
    "std_equivalent_diameter": Feature("pixels", "Standard deviation of these diameters"),
    "weighted_x": Feature("pixels", "Mean row of the regions by area; rows are the tutorial's X"),
    "weighted_y": Feature("pixels", "Mean column of the regions by area, the tutorial's Y"),
    "number_of_nodes": Feature("", "Number of regions, counted slice by slice"),
    "nodes_per_slice": Feature("", "Number of regions over the number of slices"),
}
"""The tutorial's nine, on the slices (index k) of the input's grid, with 8-connected regions."""

NODULE_FEATURES = {
    "volume_mm3": Feature("mm³", "Number of voxels times the volume of one", "YEKZ"),
    "equivalent_diameter_mm": Feature("mm", "Diameter of the sphere of the same volume"),
    "diameter_mm": Feature("mm", "Longest diameter on any axial slice"),
    "perpendicular_mm": Feature("mm", "Longest diameter across it on the same slice"),
    "longest_3d_mm": Feature("mm", "Longest diameter in space, over the surface mesh", "L0JK"),
    "surface_mm2": Feature("mm²", "Area of the surface mesh", "C0JK"),
    "sphericity": Feature("", "Area of the sphere of the mesh's volume over its own", "QCFX"),
    "surface_regularity": Feature(
        "", "Volume in the mesh over that in its convex hull; spikes and dents lower it", "R3ER"
    ),
    "elongation": Feature("", "Second principal axis over the first", "Q3CK"),
    "flatness": Feature("", "Third principal axis over the first", "N17B"),
    "mean_hu": Feature("HU", "Mean attenuation", "Q4LE"),
    "std_hu": Feature("HU", "Standard deviation of the attenuation, the root of IBSI's ECT3"),
    "min_hu": Feature("HU", "Lowest attenuation", "1GSF"),
    "p10_hu": Feature("HU", "10th percentile of the attenuation", "QG58"),
    "median_hu": Feature("HU", "Median attenuation", "Y12H"),
    "p90_hu": Feature("HU", "90th percentile of the attenuation", "8DWT"),
    "max_hu": Feature("HU", "Highest attenuation", "84IY"),
    "range_hu": Feature("HU", "Highest minus lowest attenuation", "2OJQ"),
    "part_solid": Feature("", "1 if it is part-solid"),
    "non_solid": Feature("", "1 if it is non-solid"),
    "calcified": Feature("", "1 if it is calcified"),
    "right_lung": Feature("", "1 if it lies in the patient's right lung"),
    "relative_height": Feature("", "Height in its lung, 0 at the lowest, 1 at the highest point"),
    "pleura_mm": Feature("mm", "Distance to the border of the lung"),
}
"""Features of one nodule in mm and HU. From `mean_hu` on they need the CT or its lungs."""

SCAN_FEATURES = (
    SLICE_FEATURES
    | {
        "nodule_count": Feature("", "Number of nodules"),
        "total_volume_mm3": Feature("mm³", "Volume of all nodules"),
        "mean_diameter_mm": Feature("mm", "Mean of the nodules' longest axial diameters"),
        "std_diameter_mm": Feature("mm", "Standard deviation of these diameters"),
    }
    | {
        f"largest_{name}": Feature(
            f.unit,
            f"Of the nodule of largest volume: {f.description[0].lower()}{f.description[1:]}",
        )
        for name, f in NODULE_FEATURES.items()
    }
)
"""All features of a scan, in the order of a feature table's columns."""


IDENTIFIERS = ("scan", "patient_id", "series_instance_uid", "source")
"""Columns before the features in a feature table."""


class Source(StrEnum):
    """The input from which the features of a scan were computed."""

    RUN = "run"
    SEGMENTATION = "segmentation"
    CT = "ct"


@dataclass(frozen=True)
class ScanFeatures:
    """One row of the feature table, and the nodules behind it.

    Attributes:
        scan: its path within the folder it was found in.
        patient_id, series_instance_uid: from DICOM, else empty.
        source: kind of input.
        features: `SCAN_FEATURES`; NaN where the source does not allow a value.
        nodules: `NODULE_FEATURES` of each nodule by its number.
    """

    scan: str
    patient_id: str
    series_instance_uid: str
    source: Source
    features: Features
    nodules: Mapping[int, Features]

    @property
    def identifiers(self) -> dict[str, str]:
        """The first columns of its row."""
        return {name: str(getattr(self, name)) for name in IDENTIFIERS}


def slice_features(segmentation: sitk.Image) -> Features:
    """Return the tutorial's nine features of a mask, a label image or a probability map.

    They are in pixels, so only scans of equal pixel size are comparable. Two things differ from
    the tutorial: nodules, not their surroundings, are the foreground, and probabilities are
    thresholded at `MASK_THRESHOLD` instead of the mean of each slice, which would turn the noise
    of an empty slice into nodules. Without a region all nine are 0.

    Args:
        segmentation: 3-D; features are computed on the slices k of its array (k, j, i).
    """
    # Not at the top: the logic is imported in Slicer before any package is installed.
    from skimage.measure import label, regionprops_table  # noqa: PLC0415

    array = sitk.GetArrayViewFromImage(segmentation)
    found: list[Mapping[str, NDArray[np.float64]]] = []
    for picture in array:
        mask = picture >= MASK_THRESHOLD
        if mask.any():
            wanted = ("area", "eccentricity", "equivalent_diameter_area", "centroid")
            found.append(regionprops_table(label(mask), properties=wanted))
    columns = {
        name: np.concatenate([table[name] for table in found]) if found else np.zeros(0)
        for name in (
            "area",
            "eccentricity",
            "equivalent_diameter_area",
            "centroid-0",
            "centroid-1",
        )
    }
    kept = columns["area"] <= MAX_AREA_FRACTION * array[0].size
    if not kept.any():
        return dict.fromkeys(SLICE_FEATURES, 0.0)
    area, eccentricity, diameter, row, column = (values[kept] for values in columns.values())
    values = (
        area.mean(),
        area.max(),
        eccentricity.mean(),
        diameter.mean(),
        diameter.std(),
        np.average(row, weights=area),
        np.average(column, weights=area),
        len(area),
        len(area) / len(array),
    )
    return {name: float(v) for name, v in zip(SLICE_FEATURES, values, strict=True)}


def nodule_features(
    labels: sitk.Image, rows: Iterable[Nodule] = (), lungs: sitk.Image | None = None
) -> dict[int, Features]:
    """Return `NODULE_FEATURES` of every nodule by its label.

    Args:
        labels: label image, 0 for background, on any grid.
        rows: table of the same nodules; without a nodule's row its attenuation, type, side and
            distance to the pleura are NaN.
        lungs: 1 in the right and 2 in the left lung, on any grid; without it the relative height
            is NaN.
    """
    if not sitk.GetArrayViewFromImage(labels).any():
        return {}
    (cropped,) = crop_to(labels)
    axial = sitk.Resample(
        cropped,
        AxialView.of(cropped, 0).image,
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
        0,
        sitk.sitkUInt32,
    )
    array = sitk.GetArrayViewFromImage(axial)
    spacing = np.array(axial.GetSpacing())[::-1]
    by_id = {row.id: row for row in rows}
    heights = {} if lungs is None else lung_heights(lungs)
    result = {}
    for number, box in enumerate(ndimage.find_objects(array), start=1):
        if box is None:
            continue
        mask = array[box] == number
        features = dict.fromkeys(NODULE_FEATURES, float("nan")) | _shape(mask, spacing)
        diameters = axial_diameters(mask, box, spacing)
        features["diameter_mm"] = diameters.longest_mm
        features["perpendicular_mm"] = diameters.across_mm
        if number in by_id:
            features |= _from_row(by_id[number], heights)
        result[number] = features
    return result


def scan_features(segmentation: sitk.Image, nodules: Iterable[Features]) -> Features:
    """Return `SCAN_FEATURES` of a segmentation and its nodules; all 0 without a nodule.

    Args:
        segmentation: as for `slice_features`.
        nodules: the values of `nodule_features`.
    """
    found = list(nodules)
    features = dict.fromkeys(SCAN_FEATURES, 0.0) | slice_features(segmentation)
    if not found:
        return features
    largest = max(found, key=lambda nodule: nodule["volume_mm3"])
    diameters = np.array([nodule["diameter_mm"] for nodule in found])
    features |= {
        "nodule_count": float(len(found)),
        "total_volume_mm3": float(sum(nodule["volume_mm3"] for nodule in found)),
        "mean_diameter_mm": float(diameters.mean()),
        "std_diameter_mm": float(diameters.std()),
    }
    return features | {f"largest_{name}": value for name, value in largest.items()}


def components(segmentation: sitk.Image) -> sitk.Image:
    """Label the connected components of a mask or probability map (26-connected), uint32."""
    above = sitk.Cast(segmentation, sitk.sitkFloat32) >= MASK_THRESHOLD
    return sitk.ConnectedComponent(above, True)


def _from_row(row: Nodule, heights: Mapping[Side, tuple[float, float]]) -> Features:
    """Return the features that need the CT, from the nodule table."""
    extent = heights.get(row.side)
    return {
        "mean_hu": row.mean_hu,
        "std_hu": row.std_hu,
        "min_hu": row.min_hu,
        "p10_hu": row.p10_hu,
        "median_hu": row.median_hu,
        "p90_hu": row.p90_hu,
        "max_hu": row.max_hu,
        "range_hu": row.max_hu - row.min_hu,
        "part_solid": float(row.kind is NoduleKind.PART_SOLID),
        "non_solid": float(row.kind is NoduleKind.NON_SOLID),
        "calcified": float(row.kind is NoduleKind.CALCIFIED),
        "right_lung": float(row.side is Side.RIGHT),
        "relative_height": float("nan") if extent is None else relative_height(row.z, extent),
        "pleura_mm": row.pleura_mm,
    }


def _shape(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> Features:
    """Measure a mask (z, y, x) and its marching-cubes mesh."""
    from skimage.measure import marching_cubes, mesh_surface_area  # noqa: PLC0415

    volume = float(mask.sum() * spacing.prod())
    padded = np.pad(mask, 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(padded, 0.5, spacing=tuple(spacing))
    vertices = vertices.astype(np.float64)
    corners = vertices[faces]
    enclosed = abs(np.einsum("ij,ij", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))) / 6
    surface = float(mesh_surface_area(vertices, faces))
    hull = ConvexHull(vertices)
    first, second, third = _principal_axes(mask, spacing)
    return {
        "volume_mm3": volume,
        "equivalent_diameter_mm": float(sphere_diameter(volume)),
        "longest_3d_mm": float(pdist(vertices[hull.vertices]).max()),
        "surface_mm2": surface,
        "sphericity": float(np.cbrt(36 * np.pi * enclosed**2) / surface),
        "surface_regularity": float(enclosed / hull.volume),
        "elongation": second / first if first else 1.0,
        "flatness": third / first if first else 1.0,
    }


def _principal_axes(
    mask: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Lengths (mm) of the axes, longest first; all 0 for a single voxel."""
    points = np.argwhere(mask) * spacing
    offset = points - points.mean(axis=0)
    variance = np.linalg.eigvalsh(offset.T @ offset / len(points)).clip(min=0)
    third, second, first = (4 * np.sqrt(variance)).tolist()
    return first, second, third
