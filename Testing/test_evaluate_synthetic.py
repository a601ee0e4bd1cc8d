"""Lesions of the stress test lie where they should and are scored like any others."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.cli import app
from LungNoduleSegLib.evaluation.lesion_placement import (
    SIZES_MM,
    LesionType,
    find_lung_sites,
    insert_synthetic_lesions,
)
from LungNoduleSegLib.evaluation.synthetic_lesions import OUTPUTS, evaluate_synthetic_lesions
from LungNoduleSegLib.lesions import VESSEL_HU
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom, write_phantom

SPACING = (2.0, 2.0, 3.0)
SHAPE = (80, 105, 165)


def chest(direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> tuple[sitk.Image, ...]:
    """Two lungs of noisy air with vessels as parallel tubes, and their labels."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING[::-1], strict=True))
    lungs = np.zeros(SHAPE, np.uint8)
    for label, side in ((1, -75), (2, 75)):
        distance = (
            (z[:, None, None] / 110) ** 2 + (y[None, :, None] / 95) ** 2 + ((x - side) / 68) ** 2
        )
        lungs[distance < 1] = label
    hu = np.where(lungs > 0, -850, 40) + np.random.default_rng(0).normal(0, 20, lungs.shape)
    across = np.hypot((y[:, None] + 12) % 50 - 25, x[None, :] % 50 - 25)
    hu[:, across < 3] = 30
    images = []
    for array in (hu.astype(np.int16), lungs):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING)
        image.SetDirection(direction)
        image.SetOrigin((-10, 20, 30))
        images.append(image)
    return tuple(images)


@pytest.mark.parametrize(
    "direction",
    [
        (1, 0, 0, 0, 1, 0, 0, 0, 1),
        (-1, 0, 0, 0, -1, 0, 0, 0, 1),
        sitk.VersorTransform([0.3, 1, 0.2], np.radians(4)).GetMatrix(),
    ],
)
def test_one_lesion_of_each_type_and_size_where_it_belongs(direction: tuple[float, ...]) -> None:
    hu, lungs = chest(direction)
    sites = find_lung_sites(hu, lungs)
    own = hu.TransformIndexToPhysicalPoint((45, 52, 40))
    occupied = [(np.array(own), 10.0)]
    changed, lesions = insert_synthetic_lesions(
        hu, lungs, sites, occupied, np.random.default_rng(1)
    )
    assert len(lesions) == len(SIZES_MM) * len(LesionType)
    assert changed.IsSameImageGeometryAs(hu)
    before, after = (sitk.GetArrayFromImage(image) for image in (hu, changed))
    inside = sitk.GetArrayFromImage(lungs) > 0
    assert (after >= before).all()
    depth = sitk.SignedMaurerDistanceMap(lungs > 0, False, False, True)
    for one in lesions:
        radius = one.lesion.diameter_mm / 2
        assert one.size_mm[0] <= one.lesion.diameter_mm <= one.size_mm[1]
        assert np.linalg.norm(np.subtract(one.centre, own)) > radius + 10
        i, j, k = hu.TransformPhysicalPointToIndex(one.centre)
        assert inside[k, j, i]
        assert after[k, j, i] > before[k, j, i] or before[k, j, i] > VESSEL_HU
        at_depth = 1 - depth[hu.TransformPhysicalPointToIndex(one.lesion.centre)]
        if one.type is LesionType.JUXTAPLEURAL:
            assert at_depth < radius
        else:
            assert at_depth > radius
    for n, one in enumerate(lesions):
        for other in lesions[n + 1 :]:
            apart = np.linalg.norm(np.subtract(one.lesion.centre, other.lesion.centre))
            assert apart > (one.lesion.diameter_mm + other.lesion.diameter_mm) / 2
    touching = [one for one in lesions if one.type is LesionType.JUXTAVASCULAR]
    vessels = sites.position[sites.vessel_mm <= 0]
    for one in touching:
        nearest = np.linalg.norm(vessels - one.lesion.centre, axis=1).min()
        assert nearest < one.lesion.diameter_mm / 2 + max(SPACING)


def test_the_seed_decides() -> None:
    hu, lungs = chest()
    sites = find_lung_sites(hu, lungs)
    (first, lesions), (again, same) = (
        insert_synthetic_lesions(hu, lungs, sites, (), np.random.default_rng(1)) for _ in range(2)
    )
    assert lesions == same
    assert np.array_equal(*(sitk.GetArrayFromImage(image) for image in (first, again)))


def test_lungs_without_room_get_fewer() -> None:
    hu, lungs = chest()
    sites = find_lung_sites(hu, lungs)
    middle = sites.position.mean(axis=0)
    _, lesions = insert_synthetic_lesions(
        hu, lungs, sites, [(middle, 500.0)], np.random.default_rng(0)
    )
    assert lesions == ()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "froc.png").touch()
    with pytest.raises(InputError, match="nothing was overwritten"):
        evaluate_synthetic_lesions(tmp_path / "scan.nrrd", tmp_path)


@pytest.mark.slow
def test_a_phantom_with_the_bundled_model(tmp_path: Path) -> None:
    write_phantom(make_phantom(PhantomSpec(seed=5)), tmp_path / "phantom")
    own = next((tmp_path / "phantom" / "truth").glob("*nodules*"))
    out = tmp_path / "out"
    command = ["evaluate", "inserted", str(tmp_path / "phantom" / "dicom"), "-o", str(out)]
    options = ["--nodules", str(own), "--rounds", "1", "--progress", "none"]
    run = CliRunner().invoke(app, [*command, *options])
    assert run.exit_code == 0, run.output
    assert {path.name for path in out.iterdir()} == set(OUTPUTS)
    told = json.loads((out / "inserted.json").read_text())
    by_size = told["at_threshold"]["found_of_by_size"]
    assert by_size["12-20 mm"][0] >= by_size["12-20 mm"][1] / 2
    with (out / "lesions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    threshold = told["at_threshold"]["threshold"]
    found = sum(float(row["probability"] or 0) >= threshold for row in rows)
    assert found == sum(found for found, _ in by_size.values())
    names = {
        "submission": "submission.csv",
        "annotations": "annotations.csv",
        "excluded": "annotations_excluded.csv",
        "seriesuids": "seriesuids.csv",
    }
    files = [word for name, file in names.items() for word in (f"--{name}", str(out / file))]
    again = ["evaluate", "detection", *files, "--json", str(tmp_path / "o.json")]
    run = CliRunner().invoke(app, [*again, "--progress", "none"])
    assert run.exit_code == 0, run.output
    scored = json.loads((tmp_path / "o.json").read_text())
    for key in ("cpm", "sensitivity", "found", "false_positives", "candidates"):
        assert scored[key] == told[key]
