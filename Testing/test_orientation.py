"""Scans whose anatomy does not lie as their axes say."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from CTLungScreeningLib.geometry import image_like
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.localizer.anchors import MIRRORED
from CTSliceToolsLib.localizer.orientation import contradictions
from CTSliceToolsLib.localizer.scan_fit import UPSIDE_DOWN
from LungNoduleSegLib.phantom.chest import Phantom, PhantomSpec
from LungNoduleSegLib.pipeline import wrong_way_round
from LungNoduleSegLib.segmenter import NoduleSegmenter

SPEC = PhantomSpec(seed=2, size=(128, 128, 75), spacing=(2.8, 2.8, 4.0), lesions=())


def flipped(image: sitk.Image, *axes: int) -> sitk.Image:
    """Exchange the voxels along axes of the array (z, y, x), and leave the header as it is."""
    return image_like(np.flip(sitk.GetArrayFromImage(image), axes).copy(), image)


def test_mirrored_and_upside_down_are_told(phantom: Phantom) -> None:
    assert contradictions(phantom.image) == ()
    assert contradictions(sitk.DICOMOrient(phantom.image, "PIR")) == ()
    assert contradictions(flipped(phantom.image, 2)) == (MIRRORED,)
    assert contradictions(flipped(phantom.image, 0)) == (UPSIDE_DOWN,)
    assert contradictions(flipped(phantom.image, 0, 2)) == (MIRRORED, UPSIDE_DOWN)
    assert contradictions(phantom.image[:, :, :1]) == ()
    assert contradictions(sitk.Image([8, 8, 8], sitk.sitkInt16)) == ()


def test_fluid_in_place_of_a_lung_is_no_liver(phantom: Phantom) -> None:
    mirrored, lungs = flipped(phantom.image, 2), flipped(phantom.lungs, 2)
    assert wrong_way_round(mirrored, lungs) == (MIRRORED,)
    assert wrong_way_round(mirrored, lungs == 1) == ()


def test_a_run_notes_it(phantom: Phantom, tmp_path: Path) -> None:
    sitk.WriteImage(flipped(phantom.image, 0, 2), tmp_path / "turned.nrrd")
    found = NoduleSegmenter().run(tmp_path / "turned.nrrd", tmp_path / "out")
    assert {MIRRORED, UPSIDE_DOWN} <= set(found.notes)
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert {MIRRORED, UPSIDE_DOWN} <= set(record["input"]["notes"])
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert MIRRORED in report and UPSIDE_DOWN in report


@pytest.mark.slow
def test_no_real_scan_or_part_of_one_contradicts_its_axes(shared_data: Path) -> None:
    names = ("LIDC-IDRI-0001", "LIDC-IDRI-0012.nii.gz", "CMB-CRC-MSB-01068.nrrd")
    for name in (*names, "ACRIN-FLT-Breast_001_headchest.nrrd", "chest_low_resolution/ct.nrrd"):
        image = read_ct(shared_data / name).image
        count = image.GetDepth()
        for part in (slice(count), slice(count // 2), slice(count // 2, count)):
            assert contradictions(image[:, :, part]) == (), (name, part)
        assert UPSIDE_DOWN in contradictions(flipped(image, 0)), name
