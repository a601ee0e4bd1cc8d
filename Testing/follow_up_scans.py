"""One phantom patient at two times, with the truth as what a run found."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.reading.ct_reading import read_ct
from LungNoduleSegLib.lesions import Lesion
from LungNoduleSegLib.nodules.measures import measure_labels
from LungNoduleSegLib.nodules.table import Nodule, write_nodules_csv
from LungNoduleSegLib.phantom.chest import LesionRequest, Phantom, PhantomSpec, Place, make_phantom
from LungNoduleSegLib.phantom.dicom import SeriesText, write_dicom_series
from LungNoduleSegLib.results.reading import LUNGS, NODULES, RECORD, TABLE

PRIOR_SPEC = PhantomSpec(
    seed=3,
    size=(160, 160, 75),
    spacing=(2.2, 2.2, 4.0),
    lesions=(
        LesionRequest(16),
        LesionRequest(14, place=Place.PLEURA),
        LesionRequest(20),
        LesionRequest(15),
        LesionRequest(18),
    ),
)
DOUBLED, STEADY, HALVED, GONE = 1, 2, 3, 4
"""Numbers of the lesions of the prior scan; the fifth comes only later."""


def follow_up_scans() -> tuple[Phantom, Phantom]:
    """Make the patient before and after: one lesion doubled, one halved, one gone, one new."""
    *first, late = make_phantom(PRIOR_SPEC).lesions
    prior = make_phantom(replace(PRIOR_SPEC, lesions=tuple(first)))
    doubled, steady, halved, _ = first
    later: tuple[Lesion, ...] = (
        late,
        replace(halved, diameter_mm=halved.diameter_mm / 2 ** (1 / 3)),
        replace(doubled, diameter_mm=doubled.diameter_mm * 2 ** (1 / 3)),
        steady,
    )
    return prior, make_phantom(replace(PRIOR_SPEC, lesions=later))


NEW_NOW, HALVED_NOW, DOUBLED_NOW, STEADY_NOW = 1, 2, 3, 4
"""Numbers of the lesions of the current scan."""


def breathed() -> sitk.AffineTransform:
    """From points of the scan at the other time to those of the phantom: moved, turned, inhaled."""
    turn = np.reshape(sitk.VersorTransform((0.36, 0.48, 0.8), 0.08).GetMatrix(), (3, 3))
    transform = sitk.AffineTransform(3)
    transform.SetCenter((0.0, 12.0, -38.0))
    transform.SetMatrix((turn @ np.diag([1.0, 0.97, 0.93])).ravel().tolist())
    transform.SetTranslation((12.0, -15.0, 25.0))
    return transform


def taken_again(
    image: sitk.Image,
    to_phantom: sitk.Transform,
    spacing: tuple[float, float, float] = (2.4, 2.4, 3.0),
    tilt: float = 0.0,
    code: str = "LPS",
) -> sitk.Image:
    """Resample CT (int16) or labels as another scanner would take them, on a grid of its own."""
    is_ct = image.GetPixelID() == sitk.sitkInt16
    extent = np.array(image.GetSize()) * image.GetSpacing() * 1.1
    direction = sitk.VersorTransform((0.6, 0.0, 0.8), tilt).GetMatrix()
    size = np.ceil(extent / spacing).astype(int)
    middle = to_phantom.GetInverse().TransformPoint((0.0, 12.0, -38.0))
    origin = middle - np.reshape(direction, (3, 3)) @ (size / 2 * spacing)
    taken = sitk.Resample(
        image,
        size.tolist(),
        to_phantom,
        sitk.sitkLinear if is_ct else sitk.sitkNearestNeighbor,
        origin.tolist(),
        spacing,
        direction,
        AIR_HU if is_ct else 0,
    )
    return sitk.DICOMOrient(taken, code)


def measured(image: sitk.Image, lungs: sitk.Image, labels: sitk.Image) -> tuple[Nodule, ...]:
    """Measure the true nodules as a run would."""
    view = AxialView.of(image, AIR_HU).image
    on_view = [
        sitk.Resample(one, view, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        for one in (labels, lungs)
    ]
    return measure_labels(on_view[0], view, on_view[1], image)


def write_truth_as_run(
    folder: Path,
    image: sitk.Image,
    lungs: sitk.Image,
    labels: sitk.Image,
    date: str,
    patient: str = "PHANTOM",
) -> Path:
    """Write a series with its study date, and the truth as the results of a run on it."""
    dicom = folder / "dicom"
    write_dicom_series(image, dicom, SeriesText(date=date, patient_id=patient), circle=False)
    run = folder / f"run {date}"
    run.mkdir()
    sitk.WriteImage(lungs, run / LUNGS)
    sitk.WriteImage(labels, run / NODULES)
    write_nodules_csv(run / TABLE, measured(image, lungs, labels))
    series = read_ct(dicom).series
    assert series is not None
    record = {"input": {"source": str(dicom), "series": asdict(series)}}
    (run / RECORD).write_text(json.dumps(record), encoding="utf-8")
    return run
