"""Any orientation is worked on axially and comes back to its own grid."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from CTLungScreeningLib.geometry import AxialView

ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(["LR", "PA", "SI"])
    for letters in itertools.product(*axes)
]


def volume(spacing: tuple[float, float, float] = (0.7, 0.8, 2.5)) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(1).integers(-1000, 500, (9, 12, 14)))
    image = sitk.Cast(image, sitk.sitkInt16)
    image.SetSpacing(spacing)
    image.SetOrigin((-20.5, 31.0, -400.25))
    return image


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_every_orientation_is_reordered_without_a_change_and_returns(code: str) -> None:
    axial = volume()
    given_image = sitk.DICOMOrient(axial, code)
    view = AxialView.of(given_image, -1000)
    assert not view.resampled
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(view.image), sitk.GetArrayFromImage(axial)
    )
    np.testing.assert_allclose(view.image.GetOrigin(), axial.GetOrigin())
    back = view.restore(view.image)
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(back), sitk.GetArrayFromImage(given_image)
    )
    assert back.GetDirection() == given_image.GetDirection()
    assert back.GetOrigin() == given_image.GetOrigin()


@settings(max_examples=40)
@given(
    code=st.sampled_from(ORIENTATIONS),
    start=st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 4)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 5)),
)
def test_a_cropped_result_lands_where_it_was_cut(
    code: str, start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    view = AxialView.of(sitk.DICOMOrient(volume(), code), -1000)
    crop = sitk.RegionOfInterest(view.image, size, start)
    ones = sitk.Image(size, sitk.sitkUInt8) + 1
    ones.CopyInformation(crop)
    restored = view.restore(ones)
    assert sitk.GetArrayViewFromImage(restored).sum() == np.prod(size)
    corner = restored.TransformPhysicalPointToIndex(crop.GetOrigin())
    assert restored[corner] == 1
    if all(start):
        assert (
            restored[
                restored.TransformPhysicalPointToIndex(
                    view.image.TransformIndexToPhysicalPoint([s - 1 for s in start])
                )
            ]
            == 0
        )


@settings(max_examples=25)
@given(
    angle=st.floats(6, 40),
    axis=st.integers(0, 2),
    code=st.sampled_from(ORIENTATIONS),
)
def test_an_oblique_volume_is_resampled_and_a_point_returns(
    angle: float, axis: int, code: str
) -> None:
    size = (40, 36, 30)
    image = sitk.Image(size, sitk.sitkInt16) - 1000
    image.SetSpacing((1.0, 1.1, 1.5))
    rotation = sitk.VersorTransform(np.eye(3)[axis].tolist(), np.radians(angle)).GetMatrix()
    image.SetDirection(rotation)
    image = sitk.DICOMOrient(image, code)
    centre = np.array(image.GetSize()) // 2
    ball = tuple(slice(int(c) - 3, int(c) + 4) for c in centre)
    image[ball] = 200
    world = image.TransformIndexToPhysicalPoint(centre.tolist())

    view = AxialView.of(image, -1000)
    assert view.resampled
    assert np.allclose(np.reshape(view.image.GetDirection(), (3, 3)), np.eye(3))
    assert view.image[view.image.TransformPhysicalPointToIndex(world)] > 100

    back = view.restore(sitk.Cast(view.image > -200, sitk.sitkUInt8))
    truth = sitk.GetArrayFromImage(image) > -200
    found = sitk.GetArrayFromImage(back) > 0
    assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.85
