"""The script that trains the bundled model: its pack of data, and going on after a stop."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import train_default_model as script
from training_pack import (
    MASKS,
    STEP_HU,
    TrainingSet,
    distance_to,
    patient_of,
    read_pack,
    write_pack,
)

from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.model_card import load_model
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.network import unet
from LungNoduleSegLib.network.inference import Preparation
from LungNoduleSegLib.network.patches import PatchTrainingPlan, training_scan
from stopped_training import stop_at
from test_transplants import host, sphere


def small_set() -> TrainingSet:
    hu, lungs = host()
    nodules = sitk.Image(hu.GetSize(), sitk.sitkUInt8)
    nodules.CopyInformation(hu)
    nodules[40:46, 45:51, 10:13] = 1
    scans = {
        "outlined": training_scan("outlined", hu, lungs, nodules, doubtful=nodules == 0),
        "other": training_scan("other", hu, lungs),
    }
    cubes = tuple(sphere(radius) for radius in (3, 4, 5))
    return TrainingSet(scans, cubes, ("A", "B", "B"))


def test_a_pack_gives_back_what_went_in(tmp_path: Path) -> None:
    before = small_set()
    write_pack(before, tmp_path / "data.zip")
    after = read_pack(tmp_path / "data.zip")
    assert list(after.scans) == list(before.scans)
    for name, scan in before.scans.items():
        other = after.scans[name]
        inside = sitk.GetArrayViewFromImage(scan.lungs) > 0
        hu, again = (sitk.GetArrayFromImage(one.hu) for one in (scan, other))
        assert np.abs(hu - again)[inside].max() <= STEP_HU // 2
        assert other.hu.GetSpacing() == pytest.approx(scan.hu.GetSpacing())
        for kind in MASKS:
            masks = getattr(scan, kind), getattr(other, kind)
            assert (masks[0] is None) == (masks[1] is None)
            if masks[0] is not None:
                one, two = map(sitk.GetArrayFromImage, masks)
                assert (one == two).all()
        assert (sitk.GetArrayFromImage(other.lungs) == sitk.GetArrayFromImage(scan.lungs)).all()
    assert after.patients == before.patients
    assert all((a.mask == b.mask).all() for a, b in zip(after.cubes, before.cubes, strict=True))
    with pytest.raises(InputError, match="already holds"):
        write_pack(before, tmp_path / "data.zip")


def test_the_distance_is_that_to_the_nearest_place_within_the_scan() -> None:
    hu, _ = host()
    near, far = hu.TransformIndexToPhysicalPoint((5, 6, 7)), (1e4, 0.0, 0.0)
    other = hu.TransformIndexToPhysicalPoint((20, 6, 7))
    distance = distance_to(hu, near, far, other)
    assert distance[5, 6, 7] <= 0 and distance[20, 6, 7] <= 0
    assert distance[9, 6, 7] == pytest.approx(4 * hu.GetSpacing()[0], abs=0.1)
    assert distance[18, 6, 7] == pytest.approx(2 * hu.GetSpacing()[0], abs=0.1)


def test_what_may_be_a_nodule_is_no_mistake() -> None:
    hu, lungs = host()
    left = sitk.Image(hu.GetSize(), sitk.sitkUInt8)
    left.CopyInformation(hu)
    left[: hu.GetWidth() // 2, :, :] = 1
    scan = training_scan("scan", hu, lungs, doubtful=left)
    everywhere = sitk.Cast(lungs > 0, sitk.sitkFloat32)
    mistaken = sitk.GetArrayFromImage(unet.with_mistakes(scan, everywhere).mistaken)
    half = hu.GetWidth() // 2
    assert mistaken[:, :, half:].any() and not mistaken[:, :, :half].any()


def test_no_patient_is_both_learnt_from_and_left_out() -> None:
    cubes = tuple(sphere(3) for _ in range(20))
    patients = tuple(f"LIDC-{n // 2}" for n in range(20))
    whole = TrainingSet({}, cubes, patients)
    left_out = []
    for fold in range(5):
        learnt, held = whole.split(fold)
        assert len(learnt) + len(held) == 20 and held
        left_out += held
    assert len(left_out) == 20
    learnt, held = whole.split(0, 1)
    assert len(learnt) == 12 and len(held) == 8
    assert len(whole.split()[0]) == 20
    assert patient_of(sphere(3)) == "sphere"


@pytest.mark.slow
def test_a_training_goes_on_from_its_checkpoint_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "EPOCH", 2)
    monkeypatch.setattr(script, "FILTERS", 2)
    monkeypatch.setattr(script, "PREPARATION", Preparation(size=64, context=2, slab_mm=2.5))
    data = small_set()
    plan = PatchTrainingPlan(steps=4, batch=4, patch=32, lesions=4, refresh=2, kept=2, seed=7)

    def train(file: Path, progress: ProgressCallback = silent) -> Path:
        return script.train_network(
            file, None, list(data.scans.values()), plan, data.cubes, progress
        )

    whole = train(tmp_path / "whole.keras")
    file = tmp_path / "stage.keras"
    with pytest.raises(Cancelled):
        train(file, stop_at("Training", 3))
    assert not file.exists()
    train(file)
    assert {one.name for one in tmp_path.iterdir() if one.is_dir()} == set()
    for one, two in zip(*(load_model(at)[0].get_weights() for at in (whole, file)), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
