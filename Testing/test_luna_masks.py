"""Spheres of LUNA16's annotations, where they lie in the world, on any grid."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from annotated_scans import NODULES, ORIGIN, SIZE, SPACING, chest, write_luna
from ct_checks import voxel_points
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import AxialView
from LungNoduleSegLib.training_data.luna16 import prepare_luna, sphere_labels
from LungNoduleSegLib.training_data.preparation import ExampleChoice
from LungNoduleSegLib.training_data.store import read_store


def grid(
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    direction: np.ndarray,
    origin: tuple[float, float, float] = (-20.0, 13.5, -250.0),
) -> sitk.Image:
    image = sitk.Image(size, sitk.sitkInt16)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction.ravel().tolist())
    return image


@settings(max_examples=60)
@given(
    spacing=st.tuples(st.floats(0.4, 1.2), st.floats(0.4, 1.2), st.floats(0.5, 5)),
    flips=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    turn=st.integers(-180, 180),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    radius=st.floats(0.3, 12),
)
def test_a_sphere_is_the_voxels_within_its_radius_on_any_grid(
    spacing: tuple[float, float, float],
    flips: tuple[float, float, float],
    turn: int,
    at: tuple[float, float, float],
    radius: float,
) -> None:
    axes = Rotation.from_euler("zyx", [turn, turn / 3, turn / 7], degrees=True).as_matrix()
    image = grid((24, 20, 16), spacing, axes @ np.diag(flips))
    last = np.array(image.GetSize()) - 1
    centre = np.array(image.TransformContinuousIndexToPhysicalPoint((last * at).tolist()))
    labels = sphere_labels(image, centre[None], np.array([radius]))
    assert labels.GetDirection() == image.GetDirection()
    distance = np.linalg.norm(voxel_points(image) - centre, axis=-1)
    marked = sitk.GetArrayFromImage(labels) == 1
    unsure = np.abs(distance - radius) < 1e-6
    if (distance <= radius).any():
        np.testing.assert_array_equal(marked | unsure, (distance <= radius) | unsure)
    else:  # it lies between the voxel centres: the nearest one stands for it
        assert marked.sum() == 1
        steps = np.abs(last * at - np.argwhere(marked)[0][::-1])
        assert np.all(steps <= 0.5 + 1e-6)


def test_the_first_of_two_spheres_keeps_its_voxels_and_one_outside_has_none() -> None:
    image = grid((30, 30, 30), (1, 1, 1), np.eye(3), (0, 0, 0))
    centres = np.array([[10.0, 10, 10], [14, 10, 10], [-50, 0, 0]])
    labels = sitk.GetArrayFromImage(sphere_labels(image, centres, np.array([4.0, 4, 4])))
    assert labels[10, 10, 12] == 1
    assert labels[10, 10, 17] == 2
    assert set(np.unique(labels)) == {0, 1, 2}


def tutorial_mask(image: sitk.Image, centre: np.ndarray, diameter: float, k: int) -> np.ndarray:
    """One slice as the tutorial marks it: pixels no farther than the diameter."""
    x0, y0, z0 = image.GetOrigin()
    sx, sy, sz = image.GetSpacing()
    columns, rows, _ = image.GetSize()
    mask = np.zeros((rows, columns), bool)
    for row in range(rows):
        for column in range(columns):
            place = np.array([x0 + column * sx, y0 + row * sy, z0 + k * sz])
            mask[row, column] = np.linalg.norm(centre - place) <= diameter
    return mask


def test_masks_are_half_as_wide_as_the_tutorials_which_are_to_be_had(tmp_path: Path) -> None:
    luna, annotations = write_luna(tmp_path, {"1.2.3": chest(1)})
    choice = ExampleChoice(largest_only=True)
    stores = {}
    for tutorial in (False, True):
        stores[tutorial] = tmp_path / f"store-{tutorial}"
        prepare_luna(luna, annotations, stores[tutorial], choice, tutorial_masks=tutorial)
    centre, diameter = np.array(NODULES[0][0]), NODULES[0][1]
    (true,), (wide,) = (read_store(store) for store in stores.values())
    labels = wide.volume("nodules")
    k = wide.slices[1]
    held = sitk.GetArrayFromImage(labels)[k] == 1
    np.testing.assert_array_equal(held, tutorial_mask(labels, centre, diameter, k))
    distance = np.linalg.norm(voxel_points(true.volume("nodules")) - centre, axis=-1)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(true.volume("nodules")) == 1, distance <= diameter / 2
    )
    assert wide.masks()[1].sum() > 3 * true.masks()[1].sum()


def test_a_flipped_scan_has_its_masks_on_its_nodules(tmp_path: Path) -> None:
    plain, flipped = chest(1), chest(2)
    luna, annotations = write_luna(tmp_path, {"1.2": plain, "1.3": flipped}, flipped=("1.3",))
    prepare_luna(luna, annotations, tmp_path / "store")
    for scan in read_store(tmp_path / "store"):
        hu = sitk.GetArrayFromImage(scan.volume("hu"))
        labels = sitk.GetArrayFromImage(scan.volume("nodules"))
        for nodule, (centre, diameter) in zip(scan.nodules, NODULES, strict=True):
            assert (nodule.x, nodule.y, nodule.z) == centre
            assert nodule.diameter_mm == diameter
            assert hu[labels == nodule.number].min() > -100  # nothing of the lung around it


def test_an_oblique_scan_is_marked_where_its_nodules_lie(tmp_path: Path) -> None:
    scan = chest(1)
    oblique = Rotation.from_euler("y", 12, degrees=True).as_matrix()
    half = (np.array(SIZE) - 1) / 2 * SPACING
    origin = np.array(ORIGIN) + half - oblique @ half
    turned = sitk.Resample(
        scan.image,
        grid(SIZE, SPACING, oblique, tuple(origin.tolist())),
        sitk.Transform(),
        sitk.sitkLinear,
        -1000.0,
    )
    luna, annotations = write_luna(tmp_path, {"1.2": type(scan)(turned, scan.nodules)})
    assert AxialView.of(turned, -1000).resampled
    prepare_luna(luna, annotations, tmp_path / "store")
    (stored,) = read_store(tmp_path / "store")
    hu = sitk.GetArrayFromImage(stored.volume("hu"))
    labels = sitk.GetArrayFromImage(stored.volume("nodules"))
    for nodule in stored.nodules:
        half_way = (40 - 850) / 2
        assert np.mean(hu[labels == nodule.number] > half_way) > 0.8


def test_a_nodule_without_a_diameter_is_named(tmp_path: Path) -> None:
    luna, annotations = write_luna(tmp_path, {"1.2": chest(1, (((-70.0, 10.0, -190.0), -1.0),))})
    with pytest.raises(InputError, match=r"1\.2 has a nodule without a diameter"):
        prepare_luna(luna, annotations, tmp_path / "store")


def test_the_real_nodule_is_where_luna16_says(shared_data: Path, tmp_path: Path) -> None:
    from CTLungScreeningLib.reading.ct_reading import read_ct

    image = read_ct(shared_data / "LIDC-IDRI-0001").image
    outlined = sitk.ReadImage(shared_data / "LIDC-IDRI-0001_nodules_ge2of4readers.nrrd")
    outlined = sitk.Resample(outlined, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    sphere = sphere_labels(image, np.array([[56.2, 86.3, -115.9]]), np.array([23.4 / 2]))
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.Cast(outlined > 0, sitk.sitkUInt8), sitk.Cast(sphere, sitk.sitkUInt8))
    assert overlap.GetDiceCoefficient() > 0.85
