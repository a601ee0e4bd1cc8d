"""Train the bundled slice localizer on annotated scans, and measure it on each left out in turn.

    python CTSliceTools/Scripts/train_default_localizer.py ../shared/data -o /tmp/localizer

For each patient a network is trained on the others alone and tried on all scans of that patient;
the network that is shipped is trained on all of them in the same way, and its card holds the
figures of the left-out scans. With `--folds` only the networks of the named patients are trained.
Networks that an earlier run has left in the folder are used again.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from CTLungScreeningLib.model_card import load_model, save_model
from CTLungScreeningLib.progress import ProgressStyle, shown
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.dataset.conversion import LabelledSlice, Part
from CTSliceToolsLib.landmarks import LANDMARK_BY_NAME
from CTSliceToolsLib.localizer.evaluation import (
    Evaluation,
    LabelledScan,
    ScanErrors,
    Way,
    judge,
    labelled_scan,
)
from CTSliceToolsLib.localizer.plots import plot_evaluation
from CTSliceToolsLib.localizer.prediction import predict_locations
from CTSliceToolsLib.localizer.scan_fit import landmark_fit
from CTSliceToolsLib.localizer.training import train
from CTSliceToolsLib.options import LocalizerTrainingPlan

PATIENTS = {
    "LIDC-IDRI-0001": ("LIDC-IDRI-0001",),
    "CMB-CRC-MSB-01068": ("CMB-CRC-MSB-01068.nrrd",),
    "ACRIN-FLT-Breast_001": (
        "ACRIN-FLT-Breast_001_headchest.nrrd",
        "ACRIN-FLT-Breast_001_abdopelvis.nrrd",
    ),
    "pyCERR_HN_pt1": ("pyCERR_HN_pt1.nrrd",),
    "TotalSegmentator_example": ("TotalSegmentator_example.nii.gz",),
}
"""The scans of each patient, by the names in landmarks.json."""

TORSO = ("T1", "Tip of iliac crest")
"""First and last landmark of what the card calls chest and abdomen."""

PLAN = LocalizerTrainingPlan(epochs=14, patience=14, batch=32, learning_rate=3e-3)
SURROUNDINGS = 2
"""Variants of each slice with the table, the clothes or the arms of another scan."""

SLAB_MM = 5.0
BODY_GREY = 80
"""Grey value of slice images, about −500 HU, that parts the body from air and clothes."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Patient:
    name: str
    scans: tuple[LabelledScan, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the scans and landmarks.json")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--epochs", type=int, default=PLAN.epochs, help="of each network")
    parser.add_argument("--folds", nargs="*", choices=PATIENTS, help="only without these patients")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    plan = replace(PLAN, epochs=options.epochs, patience=options.epochs)

    patients = read_patients(options.data)
    errors: list[ScanErrors] = []
    for held_out in patients:
        if options.folds is None or held_out.name in options.folds:
            others = [patient for patient in patients if patient is not held_out]
            file = options.output / f"without-{held_out.name}.keras"
            found = measure(train_on(others, file, plan), held_out)
            log.info("%s left out: %s", held_out.name, json.dumps(figures(found)))
            errors += found
    plot_evaluation(options.output, [Evaluation("left out", tuple(errors))])
    if options.folds is None:
        ship(train_on(patients, options.output / "all.keras", plan), figures(errors))


def read_patients(data: Path) -> list[_Patient]:
    """Read the scans with the true locations of their slices."""
    landmarks = json.loads((data / "landmarks.json").read_text(encoding="utf-8"))
    return [
        _Patient(name, tuple(_read_scan(data / scan, landmarks[scan]) for scan in scans))
        for name, scans in PATIENTS.items()
    ]


def _read_scan(path: Path, landmarks: dict[str, dict[str, float]]) -> LabelledScan:
    z_mm = {name: place["z_mm"] for name, place in landmarks.items()}
    scan = labelled_scan(path.name, read_ct(path).image, z_mm)
    return replace(scan, locations=landmark_fit(z_mm).location_at(scan.z_mm))


def train_on(patients: Sequence[_Patient], file: Path, plan: LocalizerTrainingPlan) -> Path:
    """Train one network on all scans of some patients, unless an earlier run has."""
    if file.exists():
        return file
    data = file.with_suffix("")
    scans = [scan for patient in patients for scan in patient.scans]
    if not data.exists():
        write_slices(data, scans, np.random.default_rng(plan.seed))
    began = time.monotonic()
    with shown(ProgressStyle.BAR) as report:
        result = train(data, file, plan, report)
    log.info("%s: %s in %.0f s", file.stem, result.best, time.monotonic() - began)
    return result.model


def write_slices(data: Path, scans: Sequence[LabelledScan], rng: np.random.Generator) -> None:
    """Write variants of all slices to train on, and the slices as they are to choose an epoch by.

    Each slice comes as it is, averaged with its neighbours to a thick one, without anything around
    the body, and with what is around the bodies of other scans. Thick slices are repeated, so that
    each mm of body counts alike.
    """
    bodies = [body_masks(scan.pictures) for scan in scans]
    around = np.concatenate(
        [np.where(body, 0, scan.pictures) for scan, body in zip(scans, bodies, strict=True)]
    )
    for scan, body in zip(scans, bodies, strict=True):
        step = float(np.ptp(scan.z_mm)) / (len(scan.z_mm) - 1)
        alone = np.where(body, scan.pictures, 0)
        variants = [(scan.pictures, scan.locations), (alone, scan.locations)]
        variants.append(_slabs(scan, max(2, round(SLAB_MM / step))))
        for _ in range(SURROUNDINGS):
            other = around[rng.integers(len(around), size=len(alone))]
            variants.append((np.maximum(alone, other), scan.locations))
        for n, (pictures, locations) in enumerate(variants * max(1, round(step / 2))):
            _write(data / Part.TRAINING / f"{scan.name}-{n}", scan.name, pictures, locations)
        _write(
            data / Part.VALIDATION / scan.name, scan.name, scan.pictures[::3], scan.locations[::3]
        )


def body_masks(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask the body in slice images: in each the largest thing, with what it encloses."""
    masks = np.zeros(pictures.shape, bool)
    for picture, mask in zip(pictures, masks, strict=True):
        dense = ndimage.binary_opening(picture > BODY_GREY, iterations=2)
        labels, count = ndimage.label(dense)
        if count:
            largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
            mask[:] = ndimage.binary_fill_holes(ndimage.binary_dilation(largest, iterations=2))
    return masks


def _slabs(scan: LabelledScan, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Average every `count` neighbouring slices."""
    thick = ndimage.uniform_filter1d(scan.pictures.astype(np.float32), count, axis=0)
    return thick.astype(np.uint8), ndimage.uniform_filter1d(scan.locations, count)


def _write(
    stem: Path, name: str, pictures: NDArray[np.uint8], locations: NDArray[np.float64]
) -> None:
    for n, (pixels, location) in enumerate(zip(pictures, locations, strict=True)):
        LabelledSlice(pixels, float(location), name).write(Path(f"{stem}-{n:04}.npz"))


def measure(model: Path, patient: _Patient) -> list[ScanErrors]:
    """Try a network on all scans of a patient, in both ways."""
    return [
        errors
        for scan in patient.scans
        for errors in judge(scan, predict_locations(scan.pictures, model))
    ]


def figures(errors: Sequence[ScanErrors]) -> dict[str, Any]:
    """Sum up errors: mean absolute errors at the landmarks in mm, and of the slices' location."""
    return dict(_figures(errors))


def _figures(errors: Sequence[ScanErrors]) -> Iterator[tuple[str, Any]]:
    first, last = (LANDMARK_BY_NAME[name].location for name in TORSO)
    for way in Way:
        scans = [scan for scan in errors if scan.way is way]
        found = [
            (name, abs(mm), LANDMARK_BY_NAME[name].location)
            for scan in scans
            for name, mm in scan.landmark_mm.items()
        ]
        torso = [mm for _, mm, location in found if first <= location <= last]
        head = [mm for _, mm, location in found if location < first]
        slices = np.concatenate([np.abs(scan.predicted - scan.truth) for scan in scans])
        truth = np.concatenate([scan.truth for scan in scans])
        yield (
            way,
            {
                "landmarks_mm": _mean([mm for _, mm, _ in found]),
                "landmarks_of_chest_and_abdomen_mm": _mean(torso),
                "landmarks_of_head_and_neck_mm": _mean(head),
                "by_landmark_mm": {
                    name: _mean([mm for other, mm, _ in found if other == name])
                    for name in LANDMARK_BY_NAME
                    if any(other == name for other, *_ in found)
                },
                "by_scan_mm": {
                    scan.scan: {name: round(mm) for name, mm in scan.landmark_mm.items()}
                    for scan in scans
                },
                "location_of_slices": round(float(slices.mean()), 4),
                "location_of_slices_by_range": {
                    f"{low:.1f} to {low + 0.1:.1f}": round(float(slices[inside].mean()), 4)
                    for low in np.arange(0, 0.6, 0.1)
                    if (inside := (truth >= low) & (truth < low + 0.1)).any()
                },
            },
        )


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 1) if values else None


def ship(model_file: Path, left_out: dict[str, Any]) -> None:
    """Save the network that was trained on all scans with its card."""
    model, card = load_model(model_file)
    card = replace(
        card,
        name="slice-localizer",
        summary="Tells where between the top of the head and the head of femur an axial CT slice "
        "lies.",
        training=card.training
        | {
            "script": "CTSliceTools/Scripts/train_default_localizer.py",
            "scans": {
                "LIDC-IDRI-0001": "LIDC-IDRI, The Cancer Imaging Archive, CC BY 3.0",
                "CMB-CRC-MSB-01068": "CMB-CRC, The Cancer Imaging Archive",
                "ACRIN-FLT-Breast_001": "two scans of one patient; ACRIN-FLT-Breast, The Cancer "
                "Imaging Archive",
                "pyCERR_HN_pt1": "head-and-neck example of pyCERR",
                "TotalSegmentator_example": "test file of TotalSegmentator, Apache-2.0",
            },
            "labels": "landmarks read by eye by non-radiologists, uncertain by 4 to 8 mm, a "
            "vertebra by up to one level",
        },
        results={"each patient left out of training in turn": left_out},
        limitations=[
            "Trained on six scans of five adults: a research prototype.",
            "Head, neck and pelvis were seen in two patients each: the figures there are of "
            "a network trained on a single patient of that region. Where no anchor is found, do "
            "not trust it above C7.",
            "Legs below the head of femur, children, and scans of less than 60 mm were not in "
            "training.",
            "The two tolerances of the scan fit were chosen on these left-out predictions.",
            "Where the fit warns, the locations are not to be trusted.",
        ],
    )
    save_model(model, card, model_file.with_name("slice-localizer.keras"))


if __name__ == "__main__":
    main()
