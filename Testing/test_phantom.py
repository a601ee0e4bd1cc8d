"""The chest phantom: deterministic, anatomical, true to its masks, valid as DICOM."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage
from scipy import ndimage

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.hu import AIR_HU
from LungNoduleSegLib.lesions import Lesion
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.phantom.canvas import DIAMETER_EXPONENT, grow_tree
from LungNoduleSegLib.phantom.chest import DEMO_LESIONS, Phantom, PhantomSpec, make_phantom
from LungNoduleSegLib.phantom.dicom import PADDING, SeriesText, write_dicom_series

SMALL = PhantomSpec(size=(160, 160, 75), spacing=(2.2, 2.2, 4.0))
TINY = PhantomSpec(size=(72, 72, 30), spacing=(5.0, 5.0, 10.0), lesions=())


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(SMALL)


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayViewFromImage(image)


def millilitres(mask: np.ndarray, image: sitk.Image) -> float:
    return float(mask.sum() * np.prod(image.GetSpacing()) / 1000)


def test_one_seed_gives_one_phantom_and_another_seed_another_patient() -> None:
    first, again, other = (make_phantom(replace(TINY, seed=seed)) for seed in (3, 3, 4))
    for name in ("image", "lungs", "nodules", "airways"):
        np.testing.assert_array_equal(array(getattr(first, name)), array(getattr(again, name)))
    lungs = [millilitres(array(p.lungs) > 0, p.lungs) for p in (first, other)]
    bodies = [millilitres(array(p.image) > -300, p.image) for p in (first, other)]
    assert abs(lungs[0] / lungs[1] - 1) > 0.01
    assert abs(bodies[0] / bodies[1] - 1) > 0.01


@pytest.mark.parametrize("seed", range(1, 4))
def test_every_patient_has_two_lungs_of_human_size(seed: int) -> None:
    made = make_phantom(replace(TINY, seed=seed))
    labels = array(made.lungs)
    x = made.lungs.GetOrigin()[0] + np.arange(labels.shape[2]) * made.lungs.GetSpacing()[0]
    for label, side in ((1, -1), (2, 1)):
        lung = labels == label
        assert 1000 < millilitres(lung, made.lungs) < 3500
        parts = np.bincount(ndimage.label(lung)[0][lung])
        assert parts.max() > 0.99 * parts.sum()
        assert np.all(side * x[np.nonzero(lung)[2]] > -5)
        assert -900 < np.median(array(made.image)[lung]) < -800
    rim = np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()])
    assert not rim.any()


def test_organs_have_their_density(phantom: Phantom) -> None:
    def around(x: float, y: float, z: float) -> float:
        i, j, k = phantom.image.TransformPhysicalPointToIndex((x, y, z))
        return float(np.median(array(phantom.image)[k, j - 1 : j + 2, i - 1 : i + 2]))

    assert around(-70, -10, -115) == pytest.approx(62, abs=60)
    assert around(0, 15, 60) < -800
    assert around(120, -150, 0) == pytest.approx(AIR_HU, abs=40)
    assert 0 < around(20, -34, -58) < 300
    image = array(phantom.image)
    assert (image > 300).sum() > 0.004 * image.size
    assert (image > 300).sum() < 0.05 * image.size


def test_no_bone_lies_in_the_lungs(phantom: Phantom) -> None:
    tissue = (array(phantom.lungs) > 0) & (array(phantom.nodules) == 0)
    assert not (array(phantom.image)[tissue] > 250).any()


def test_airways_are_air_from_the_neck_into_both_lungs(phantom: Phantom) -> None:
    lumen = array(phantom.airways) > 0
    regions, _ = ndimage.label(lumen, np.ones((3, 3, 3)))
    largest = 1 + np.argmax(np.bincount(regions.ravel())[1:])
    tree = regions == largest
    lungs = array(phantom.lungs)
    assert tree[-1].any()
    assert (tree & (lungs == 1)).any()
    assert (tree & (lungs == 2)).any()
    assert np.median(array(phantom.image)[tree]) < -800
    assert millilitres(lumen & (lungs == 0), phantom.image) > 20


def test_each_nodule_is_where_and_what_it_says(phantom: Phantom) -> None:
    nodules, lungs, image = (array(i) for i in (phantom.nodules, phantom.lungs, phantom.image))
    assert len(phantom.lesions) == len(DEMO_LESIONS)
    assert set(np.unique(nodules)) == set(range(len(DEMO_LESIONS) + 1))
    assert np.all(lungs[nodules > 0] > 0)
    near_wall = ndimage.binary_dilation(lungs == 0, iterations=1)
    for number, (lesion, wanted) in enumerate(
        zip(phantom.lesions, DEMO_LESIONS, strict=True), start=1
    ):
        mask = nodules == number
        assert (lesion.kind, lesion.diameter_mm) == (wanted.kind, wanted.diameter_mm)
        assert near_wall[mask].any() == (wanted.place == "pleura")
        index = np.mean(np.nonzero(mask), axis=1)[::-1]
        place = phantom.nodules.TransformContinuousIndexToPhysicalPoint(index)
        assert np.linalg.norm(np.subtract(place, lesion.centre)) < 0.3 * lesion.diameter_mm
        volume, whole = 1000 * millilitres(mask, phantom.nodules), np.pi * lesion.diameter_mm**3 / 6
        if wanted.place != "pleura" and lesion.diameter_mm > 12:
            assert volume == pytest.approx(whole, rel=0.2)
        brightest = np.percentile(image[mask], 90)
        assert (brightest > -350) == (lesion.kind is not NoduleKind.NON_SOLID)


def test_the_grid_does_not_change_the_patient(phantom: Phantom) -> None:
    coarse = make_phantom(replace(SMALL, size=(100, 90, 40), spacing=(3.6, 4.0, 7.5)))
    assert coarse.lesions == phantom.lesions
    onto = sitk.Resample(phantom.lungs, coarse.lungs, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    here, there = array(onto) > 0, array(coarse.lungs) > 0
    assert 2 * (here & there).sum() / (here.sum() + there.sum()) > 0.97


def test_a_lesion_is_put_where_it_is_asked_for() -> None:
    wanted = Lesion((-80.0, 20.0, -30.0), 26)
    made = make_phantom(replace(TINY, lesions=(wanted,)))
    assert made.lesions == (wanted,)
    k, j, i = np.mean(np.nonzero(array(made.nodules)), axis=1)
    place = made.nodules.TransformContinuousIndexToPhysicalPoint((i, j, k))
    np.testing.assert_allclose(place, wanted.centre, atol=3)


def test_what_cannot_be_placed_is_refused() -> None:
    with pytest.raises(InputError, match="No place is left"):
        make_phantom(replace(TINY, lesions=DEMO_LESIONS * 40))
    with pytest.raises(InputError, match="outside the image"):
        make_phantom(replace(TINY, lesions=(Lesion((0, 0, 900), 10),)))


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), count=st.integers(1, 120))
def test_a_tree_reaches_every_end_and_keeps_its_flow(seed: int, count: int) -> None:
    root = np.array([0.0, 0, 60])
    ends = np.random.default_rng(seed).uniform(-40, 40, (count, 3))
    tree = grow_tree(root, ends)
    tips = {tuple(e) for e, n in zip(tree.end, tree.leaves, strict=True) if n == 1}
    assert {tuple(np.round(e, 6)) for e in ends} <= {tuple(np.round(t, 6)) for t in tips}
    starts = {tuple(root)} | {tuple(e) for e in tree.end}
    assert all(tuple(s) in starts for s in tree.start)
    flow = tree.radius**DIAMETER_EXPONENT
    for i, end in enumerate(tree.end):
        children = np.all(tree.start == end, axis=1)
        if children.any():
            assert flow[children].sum() == pytest.approx(flow[i])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "series"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def volume(
    direction: list[float] | None = None, size: tuple[int, int, int] = (12, 9, 5)
) -> sitk.Image:
    values = np.random.default_rng(0).integers(-1024, 3000, size[::-1]).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.703125, 0.8, 2.5))
    image.SetOrigin((-166.0, 171.699997, -340.25))
    if direction:
        image.SetDirection(direction)
    return image


@settings(max_examples=15)
@given(
    axis=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.1, 1)),
    angle=st.integers(-180, 180),
    flip=st.booleans(),
)
def test_a_series_read_back_has_the_same_values_at_the_same_places(
    tmp_path_factory: pytest.TempPathFactory,
    axis: tuple[float, float, float],
    angle: int,
    flip: bool,
) -> None:
    folder = tmp_path_factory.mktemp("oblique") / "series"
    matrix = np.reshape(sitk.VersorTransform(axis, np.radians(angle)).GetMatrix(), (3, 3))
    image = volume((matrix * (1, 1, -1 if flip else 1)).ravel().tolist())
    files = write_dicom_series(image, folder, circle=False)
    read = highdicom.get_volume_from_series([pydicom.dcmread(f) for f in files])
    for index in [(0, 0, 0), (11, 8, 4), (3, 7, 2)]:
        world = image.TransformIndexToPhysicalPoint(index)
        there = read.map_reference_to_indices(np.array([world]))[0]
        np.testing.assert_allclose(there, np.round(there), atol=1e-3)
        k, j, i = np.round(there).astype(int)
        assert read.array[k, j, i] == image[index]


def test_the_series_is_a_valid_ct(phantom: Phantom, folder: Path) -> None:
    text = SeriesText(patient_name="Phantom^Small", number=4)
    files = write_dicom_series(phantom.image, folder, text)
    headers = [pydicom.dcmread(f) for f in files]
    first = headers[0]
    assert first.SOPClassUID == CTImageStorage == first.file_meta.MediaStorageSOPClassUID
    assert (first.PatientName, first.SeriesNumber) == ("Phantom^Small", 4)
    assert len({h.SOPInstanceUID for h in headers}) == len(files)
    assert len({h.SeriesInstanceUID for h in headers}) == 1
    heights = [h.ImagePositionPatient[2] for h in headers]
    np.testing.assert_allclose(np.diff(heights), 4.0)
    assert sorted(files) != files
    for header in headers[:2]:
        for element in header:
            assert element.VR != "DS" or all(
                len(str(v)) <= 16 for v in np.atleast_1d(np.array(element.value, object))
            )

    corner = first.pixel_array[0, 0]
    assert corner == first.PixelPaddingValue == PADDING
    stored = np.stack([h.pixel_array for h in headers]).astype(int)
    hu = np.where(stored == PADDING, AIR_HU, stored + int(first.RescaleIntercept))
    np.testing.assert_array_equal(hu, array(phantom.image))


def test_the_same_volume_gives_the_same_files_and_another_one_other_uids(tmp_path: Path) -> None:
    image, other = volume(), volume()
    other[0, 0, 0] = 77
    written = [
        write_dicom_series(each, tmp_path / name)
        for each, name in ((image, "a"), (image, "b"), (other, "c"))
    ]
    for one, same in zip(written[0], written[1], strict=True):
        assert one.name == same.name
        assert one.read_bytes() == same.read_bytes()
    uids = [pydicom.dcmread(files[0]).SeriesInstanceUID for files in written]
    assert uids[0] == uids[1] != uids[2]


def test_nothing_is_written_into_a_folder_that_holds_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        write_dicom_series(volume(), tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]
