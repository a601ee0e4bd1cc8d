"""The tutorial's experiment, nodule features to cancer, on artificial patients.

    python LungNoduleSeg/Scripts/tutorial_risk_experiment.py -o /tmp/experiment

Each patient has the lungs of a phantom with lesions of its own, on a grid of 2 mm; features are
taken from the lesions' exact masks. Whether there is cancer is drawn by chance, with odds that
depend on three features only: longest diameter, relative height and type of the largest nodule.
A classifier that works must find these three. The docs show what comes out.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.geometry import crop_to, image_like
from CTLungScreeningLib.progress import ProgressStyle, shown
from LungNoduleSegLib.lesions import insert_lesion, random_lesion
from LungNoduleSegLib.nodules.measures import measure_labels
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom
from LungNoduleSegLib.risk.features import (
    IDENTIFIERS,
    SCAN_FEATURES,
    Features,
    nodule_features,
    scan_features,
)
from LungNoduleSegLib.risk.training import train_risk

FEATURES, LABELS = "features.csv", "labels.csv"
KINDS = (NoduleKind.SOLID, NoduleKind.PART_SOLID, NoduleKind.NON_SOLID, NoduleKind.CALCIFIED)


@dataclass(frozen=True)
class Chest:
    """A phantom without lesions, cropped to its lungs; places are indices well inside them."""

    hu: sitk.Image
    lungs: sitk.Image
    places: np.ndarray


def chest(seed: int) -> Chest:
    """Make the lungs that several patients share."""
    spec = PhantomSpec(seed=seed, size=(180, 140, 130), spacing=(2.0, 2.0, 2.0), lesions=())
    phantom = make_phantom(spec)
    lungs, hu = crop_to(phantom.lungs, phantom.image)
    depth = ndimage.distance_transform_edt(sitk.GetArrayViewFromImage(lungs) > 0) * 2.0
    return Chest(hu, lungs, np.argwhere(depth > 14))


def patient(lungs: Chest, rng: np.random.Generator) -> Features:
    """Put one to five lesions into the lungs and measure them; the truth's masks are the labels."""
    hu = sitk.GetArrayFromImage(lungs.hu)
    inside = sitk.GetArrayViewFromImage(lungs.lungs) > 0
    labels = np.zeros(hu.shape, np.uint16)
    centres: list[np.ndarray] = []
    for number in range(1, int(rng.integers(1, 6)) + 1):
        while True:
            index = lungs.places[rng.integers(len(lungs.places))]
            if all(np.linalg.norm((index - other) * 2.0) > 34 for other in centres):
                break
        centres.append(index)
        place = lungs.hu.TransformIndexToPhysicalPoint(index[::-1].tolist())
        kind = KINDS[rng.choice(4, p=(0.45, 0.35, 0.1, 0.1))]
        diameter = rng.uniform(7, 28) if number == 1 else rng.uniform(5, 10)
        lesion = random_lesion(rng, place, kind, float(diameter))
        inserted = insert_lesion(hu, lungs.hu, lesion, 0.8, inside)
        labels[inserted.box][inserted.mask] = number
    label_image, hu_image = image_like(labels, lungs.hu), image_like(hu, lungs.hu)
    rows = measure_labels(label_image, hu_image, lungs.lungs, lungs.hu)
    return scan_features(label_image, nodule_features(label_image, rows, lungs.lungs).values())


def log_odds(features: Features) -> float:
    """The truth behind the labels: size, height in the lung, and type of the largest nodule."""
    return (
        -2.7
        + 0.28 * (features["largest_diameter_mm"] - 19)
        + 8.0 * (features["largest_relative_height"] - 0.5)
        + 4.0 * features["largest_part_solid"]
    )


def main() -> None:
    """Make the cohort, train, print the report."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    output: Path = arguments.output
    refuse_existing(output, [FEATURES, LABELS])
    output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)
    with (
        shown(ProgressStyle.BAR) as report,
        (output / FEATURES).open("x", encoding="utf-8", newline="") as table,
        (output / LABELS).open("x", encoding="utf-8", newline="") as truth,
    ):
        rows, labels = csv.writer(table), csv.writer(truth)
        rows.writerow([*IDENTIFIERS, *SCAN_FEATURES])
        labels.writerow(["patient_id", "label"])
        chests = [chest(100 + number) for number in range(4)]
        for number in range(arguments.patients):
            report("Patients", number, arguments.patients)
            features = patient(chests[number % len(chests)], rng)
            name = f"P{number:03}"
            rows.writerow([name, name, "", "phantom", *(f"{v:.6g}" for v in features.values())])
            labels.writerow([name, int(rng.random() < 1 / (1 + np.exp(-log_odds(features))))])
        report("Patients", arguments.patients, arguments.patients)
    result = train_risk(output / FEATURES, output / LABELS, output / "models")
    print(result.report)


if __name__ == "__main__":
    main()
