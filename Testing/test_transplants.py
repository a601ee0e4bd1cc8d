"""Transplanted nodules lie where they were put, on the right side, and spill nowhere."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.network.patches import find_sites, insert_random_lesions
from LungNoduleSegLib.network.transplants import (
    SCALE,
    NoduleCube,
    cut_cubes,
    read_cubes,
    transplant,
)
from LungNoduleSegLib.nodules.table import NoduleKind

SPACING = (2.0, 0.8, 0.8)


def sphere(radius_mm: float, spacing: tuple[float, float, float] = (1.0, 0.6, 0.6)) -> NoduleCube:
    """A free nodule of 40 HU in a lung of -870 HU."""
    half = [int(np.ceil((radius_mm + 8) / step)) for step in spacing]
    axes = np.meshgrid(
        *(np.arange(-n, n + 1) * s for n, s in zip(half, spacing, strict=True)), indexing="ij"
    )
    mask = sum(axis**2 for axis in axes) <= radius_mm**2
    noise = np.random.default_rng(0).normal(0, 20, mask.shape)
    hu = ndimage.gaussian_filter(np.where(mask, 40.0, -870.0), 0.7) + noise
    return NoduleCube("sphere", hu.astype(np.int16), mask, spacing)


def attached() -> NoduleCube:
    """The same on a wall at its right, towards larger x."""
    cube = sphere(4)
    wall = np.indices(cube.mask.shape)[2] > cube.mask.shape[2] // 2 + 4
    mask = cube.mask & ~wall
    return NoduleCube("attached", np.where(wall, 30, cube.hu).astype(np.int16), mask, cube.spacing)


def host(shape: tuple[int, int, int] = (30, 100, 100)) -> tuple[sitk.Image, sitk.Image]:
    """A lung, a cylinder along z, in a wall."""
    _, y, x = np.indices(shape)
    inside = (y - 50) ** 2 + (x - 50) ** 2 < 36**2
    noise = np.random.default_rng(1).normal(0, 25, shape)
    images = []
    for array in (
        np.where(inside, -860 + noise, 40 + noise).astype(np.int16),
        inside * np.uint8(1),
    ):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING[::-1])
        images.append(image)
    return images[0], images[1]


@pytest.mark.parametrize("seed", range(8))
def test_a_free_nodule_keeps_its_place_and_size(seed: int) -> None:
    hu, lungs = host()
    array, inside = sitk.GetArrayFromImage(hu), sitk.GetArrayFromImage(lungs) > 0
    cube = sphere(6)
    placed = transplant(array, hu, inside, cube, (15, 50, 50), np.random.default_rng(seed))
    assert placed is not None
    box, mask = placed
    whole = np.zeros(array.shape, bool)
    whole[box] = mask
    away = (np.argwhere(whole).mean(axis=0) - (15, 50, 50)) * SPACING
    assert np.linalg.norm(away) < 0.5
    volume = np.count_nonzero(whole) * np.prod(SPACING)
    expected = np.count_nonzero(cube.mask) * np.prod(cube.spacing)
    assert 0.9 * SCALE[0] ** 3 < volume / expected < 1.1 * SCALE[1] ** 3
    assert array[ndimage.binary_erosion(whole)].mean() == pytest.approx(40, abs=60)
    untouched = ndimage.distance_transform_edt(~whole, SPACING) > 5
    assert (array == sitk.GetArrayFromImage(hu))[untouched].all()


@pytest.mark.parametrize("seed", range(8))
def test_an_attached_nodule_turns_its_base_to_the_wall(seed: int) -> None:
    hu, lungs = host()
    array, inside = sitk.GetArrayFromImage(hu), sitk.GetArrayFromImage(lungs) > 0
    cube = attached()
    assert cube.attachment is not None and cube.attachment @ (0, 1) > 0.95
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    site = (15, round(50 + 33 * np.sin(angle)), round(50 + 33 * np.cos(angle)))
    placed = transplant(array, hu, inside, cube, site, rng)
    if placed is None:
        pytest.skip("it does not fit there")
    box, mask = placed
    # The lung side of the nodule is round: the brightened lung is there, not behind the wall.
    before = sitk.GetArrayFromImage(hu)
    grown = ndimage.binary_dilation(inside, iterations=3)
    assert (array == before)[~grown].all()
    outward = np.array([np.sin(angle), np.cos(angle)])
    centre = np.argwhere(mask).mean(axis=0)[1:] + np.array([box[1].start, box[2].start])
    assert (centre - site[1:]) @ outward < 3


@pytest.mark.parametrize(("level", "noise"), [(-780, 8), (-930, 40)])
def test_lung_and_noise_around_it_are_those_of_the_host(level: float, noise: float) -> None:
    hu, lungs = host()
    array, inside = sitk.GetArrayFromImage(hu), sitk.GetArrayFromImage(lungs) > 0
    cube = sphere(6)
    rng = np.random.default_rng(3)
    own = np.where(cube.mask, 40.0, level) + rng.normal(0, noise, cube.mask.shape)
    cube = NoduleCube("other", own.astype(np.int16), cube.mask, cube.spacing)
    placed = transplant(array, hu, inside, cube, (15, 50, 50), rng)
    assert placed is not None
    box, mask = placed
    apart = ndimage.distance_transform_edt(~mask, SPACING)
    ring = array[box][(apart > 2.2) & (apart < 3.5)]
    assert ring.mean() == pytest.approx(-860, abs=20)
    assert ring.std() == pytest.approx(25, rel=0.4)
    assert np.median(array[box][ndimage.binary_erosion(mask)]) == pytest.approx(40, abs=30)


def test_nothing_is_put_where_it_does_not_fit() -> None:
    hu, lungs = host()
    array, inside = sitk.GetArrayFromImage(hu), sitk.GetArrayFromImage(lungs) > 0
    for voxel in ((0, 50, 50), (15, 5, 5)):
        assert transplant(array, hu, inside, sphere(6), voxel, np.random.default_rng(0)) is None
    assert (array == sitk.GetArrayFromImage(hu)).all()


def test_most_inserted_lesions_are_real_where_there_are_any_to_take() -> None:
    hu, lungs = host((30, 100, 100))
    sites = find_sites(hu, lungs)
    rng = np.random.default_rng(2)
    _, labels, real = insert_random_lesions(hu, lungs, sites, 20, rng, [sphere(3), attached()])
    assert 6 <= real <= 18
    assert len(np.unique(sitk.GetArrayViewFromImage(labels))) > 10
    again = insert_random_lesions(
        hu, lungs, sites, 20, np.random.default_rng(2), [sphere(3), attached()]
    )
    assert (sitk.GetArrayFromImage(again[1]) == sitk.GetArrayFromImage(labels)).all()


def write_cubes(cubes: list[NoduleCube], folder: Path) -> None:
    for part, pixels in (("image", "hu"), ("mask", "mask")):
        (folder / part).mkdir(parents=True)
        for cube in cubes:
            image = sitk.GetImageFromArray(np.asarray(getattr(cube, pixels), np.int16))
            image.SetSpacing(cube.spacing[::-1])
            sitk.WriteImage(image, folder / part / f"{cube.name}.nii.gz")


def test_cubes_are_cut_and_read(tmp_path: Path) -> None:
    hu, _ = host()
    labels = sitk.Image(hu.GetSize(), sitk.sitkUInt8)
    labels.CopyInformation(hu)
    labels[40:50, 45:55, 10:14] = 1
    labels[60:64, 45:49, 20:22] = 3
    cubes = cut_cubes("scan", hu, labels)
    assert [cube.name for cube in cubes] == ["scan-1", "scan-3"]
    assert np.count_nonzero(cubes[0].mask) == 400
    write_cubes(cubes, tmp_path / "cubes")
    (tmp_path / "cubes" / "image" / ".DS_Store").write_bytes(b"view")
    again = read_cubes(tmp_path / "cubes")
    for one, two in zip(cubes, again, strict=True):
        assert (one.hu == two.hu).all() and (one.mask == two.mask).all()
        assert two.spacing == pytest.approx(one.spacing, abs=1e-5)
    table = tmp_path / "cubes" / "nodules.csv"
    table.write_text("file,Texture_value\nscan-1.nii.gz,1\nscan-3.nii.gz,\n")
    assert [one.texture for one in read_cubes(table.parent)] == [NoduleKind.NON_SOLID, None]
    table.write_text("file,texture\nscan-1.nii.gz,solid\nscan-3.nii.gz,9\n")
    with pytest.raises(InputError, match=r"nodules\.csv line 3: '9' is not a texture"):
        read_cubes(table.parent)
    table.unlink()
    for part in ("image", "mask"):
        file = tmp_path / "cubes" / part / "scan-1.nii.gz"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="missing or damaged"):
            read_cubes(tmp_path / "cubes")
        file.write_bytes(whole)
    file.unlink()
    with pytest.raises(InputError, match="missing or damaged"):
        read_cubes(tmp_path / "cubes")
    with pytest.raises(InputError, match="is empty"):
        read_cubes(tmp_path)


@pytest.mark.slow
def test_rims_of_transplants_resemble_real_ones(shared_data: Path) -> None:
    file = Path(__file__).parent / "benchmarks" / "seams.py"
    spec = importlib.util.spec_from_file_location("seams", file)
    assert spec is not None and spec.loader is not None
    seams = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seams)
    cubes = read_cubes(shared_data / "lidc_nodules")
    real, moved, *owners = seams.gather(cubes, 60, np.random.default_rng(0))
    area, *_ = seams.area_under_curve(*map(seams.features, (real, moved)), np.concatenate(owners))
    assert area < 0.77  # 0.82 before lung and noise were matched; 0.73 with these sixty
