"""Each implausible property of the lungs, and where they are cut, gives one sentence."""

import numpy as np
import pytest
import SimpleITK as sitk

from LungNoduleSegLib.lungs.labels import cut_lungs, implausible


def lungs(*boxes: tuple[int, slice]) -> sitk.Image:
    """Lungs of 100 by 100 mm on voxels of 5 mm, each box with its label and its slices."""
    array = np.zeros((80, 50, 60), np.uint8)
    for label, z in boxes:
        array[z, 10:30, 30 * (label - 1) + 5 : 30 * (label - 1) + 25] = label
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((5, 5, 5))
    return image


def scan_of(image: sitk.Image, air_rows: int = 0) -> sitk.Image:
    """HU of these lungs, the left one's foremost rows of 20 being air alone."""
    array = sitk.GetArrayViewFromImage(image)
    hu = np.where(array > 0, -870, 40).astype(np.int16)
    front = hu[:, 10 : 10 + air_rows]
    front[array[:, 10 : 10 + air_rows] == 2] = -1000
    scan = sitk.GetImageFromArray(hu)
    scan.CopyInformation(image)
    return scan


@pytest.mark.parametrize(
    ("image", "sentences"),
    [
        (lungs((1, slice(10, 60)), (2, slice(10, 60))), []),
        (lungs((1, slice(10, 60))), ["No left lung was found"]),
        (lungs((1, slice(10, 18)), (2, slice(10, 18))), ["hold 800 ml, outside 1000 to 9000"]),
        (
            lungs((1, slice(10, 60)), (2, slice(10, 40)), (2, slice(45, 55))),
            ["left lung lies in 2 parts, 25% of it outside"],
        ),
        (
            lungs((1, slice(10, 60)), (2, slice(10, 30))),
            ["The left lung holds 40% of what the right one holds"],
        ),
    ],
)
def test_each_implausible_property_gives_one_sentence(
    image: sitk.Image, sentences: list[str]
) -> None:
    found = implausible(image, scan_of(image))
    assert len(found) == len(sentences)
    for expected, sentence in zip(sentences, found, strict=True):
        assert expected in sentence


@pytest.mark.parametrize(("air_rows", "share"), [(2, None), (6, "30%"), (20, "100%")])
def test_a_lung_that_is_largely_air_is_named(air_rows: int, share: str | None) -> None:
    image = lungs((1, slice(10, 60)), (2, slice(10, 60)))
    found = implausible(image, scan_of(image, air_rows))
    assert len(found) == (share is not None)
    assert all(f"{share} of the left lung is as black as air" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("image", "ends"),
    [
        (lungs((1, slice(10, 60)), (2, slice(10, 60))), None),
        (lungs((1, slice(60)), (2, slice(10, 60))), "bottom"),
        (lungs((1, slice(40)), (2, slice(80))), "bottom and the top"),
        (lungs((1, slice(10, 60)), (2, slice(10, 60)))[:, 15:], "front"),
        (lungs((1, slice(10, 60)), (2, slice(10, 60)))[40:], "right"),
        (lungs((1, slice(10, 60)), (2, slice(10, 60)))[:40], "left"),
    ],
)
def test_an_end_within_the_lungs_is_named(image: sitk.Image, ends: str | None) -> None:
    found = cut_lungs(image)
    assert len(found) == (ends is not None)
    assert all(f"at the {ends}:" in sentence for sentence in found)
