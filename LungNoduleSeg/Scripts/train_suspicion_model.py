"""Train the bundled model that rates how suspicious a nodule is, as radiologists do.

    python LungNoduleSeg/Scripts/train_suspicion_model.py shared/data/lidc_nodules -o /tmp/suspicion

Each of the nodules of LIDC-IDRI is measured by its image and mask with the functions that measure
what a run finds. Learnt is whether its four radiologists called it suspicious or highly suspicious
(4 and 5), or unlikely or highly unlikely to be cancer (1 and 2); those between (3) are left out.
Both classifiers of the tutorial are trained and scored with patients apart. Then the chosen one is
trained without any patient whose diagnosis is known, and held against those diagnoses. Copy
`nodule-suspicion.ubj` and its card into `Resources/Models` to bundle them.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU
from CTLungScreeningLib.progress import ProgressStyle, shown
from LungNoduleSegLib.nodules.attenuation import Attenuation, lung_noise, nodule_kind
from LungNoduleSegLib.nodules.table import NoduleKind
from LungNoduleSegLib.options import SUSPICION_MODEL, RiskTrainingPlan, Weighting
from LungNoduleSegLib.risk.features import IDENTIFIERS, SCAN_FEATURES, nodule_features
from LungNoduleSegLib.risk.risk_models import Algorithm, RiskModel, save_risk_model
from LungNoduleSegLib.risk.training import classifier, train_risk
from LungNoduleSegLib.risk.training_data import FeatureSet

USED = (
    *("volume_mm3", "equivalent_diameter_mm", "diameter_mm", "perpendicular_mm", "longest_3d_mm"),
    *("sphericity", "surface_regularity", "elongation", "flatness"),
    *("mean_hu", "std_hu", "median_hu", "p90_hu", "part_solid", "non_solid", "calcified"),
)
"""Features that a mask drawn by hand and one found by a network agree about; the lowest attenuation
and the like depend on where exactly the outline lies."""

PLAN = RiskTrainingPlan(
    folds=5,
    weighting=Weighting.NONE,
    xgboost={
        "max_depth": 2,
        "n_estimators": 150,
        "learning_rate": 0.05,
        "subsample": 0.8,
        "colsample_bytree": 0.7,
        "reg_lambda": 3.0,
    },
    unit="nodule",
    classes=("Not suspicious", "Suspicious"),
)
TARGET = "suspicion of malignancy as four radiologists rate it, not cancer"
BENIGN, MALIGNANT = (1,), (2, 3)
"""Codes of `diagnosis.csv`; 0 is unknown."""


def measured(folder: Path) -> Iterator[tuple[dict[str, str], NDArray[np.float64]]]:
    """Measure every nodule: its row of `nodules.csv`, and the features `USED`."""
    with (folder / "nodules.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        hu, mask = (
            AxialView.of(sitk.ReadImage(folder / kind / row["file"]), outside).image
            for kind, outside in (("image", AIR_HU), ("mask", 0))
        )
        labels = sitk.Cast(mask > 0, sitk.sitkUInt8)
        features = nodule_features(labels)[1]
        inside = sitk.GetArrayFromImage(labels) > 0
        voxels = sitk.GetArrayFromImage(hu)
        attenuation = Attenuation.of(voxels[inside])
        kind = nodule_kind(voxels, inside, np.array(hu.GetSpacing())[::-1], lung_noise(voxels))
        features |= {
            "mean_hu": attenuation.mean,
            "std_hu": attenuation.std,
            "median_hu": attenuation.median,
            "p90_hu": attenuation.p90,
            "part_solid": float(kind is NoduleKind.PART_SOLID),
            "non_solid": float(kind is NoduleKind.NON_SOLID),
            "calcified": float(kind is NoduleKind.CALCIFIED),
        }
        yield row, np.array([features[name] for name in USED])


def write_tables(rows: list[dict[str, str]], x: NDArray[np.float64], output: Path) -> None:
    """Write features and labels of the nodules that are rated one way or the other."""
    columns = {f"largest_{name}": n for n, name in enumerate(USED)}
    with (
        (output / "features.csv").open("x", encoding="utf-8", newline="") as table,
        (output / "labels.csv").open("x", encoding="utf-8", newline="") as truth,
    ):
        features, labels = csv.writer(table), csv.writer(truth)
        features.writerow([*IDENTIFIERS, *SCAN_FEATURES])
        labels.writerow(["scan", "label"])
        for row, values in zip(rows, x, strict=True):
            if row["Malignancy_value"] == "3":
                continue
            cells = [f"{values[columns[n]]:.6g}" if n in columns else "" for n in SCAN_FEATURES]
            features.writerow([row["file"], row["patient_id"], row["seriesuid"], "mask", *cells])
            labels.writerow([row["file"], int(row["Malignancy_value"] in "45")])


def against_diagnoses(
    folder: Path, rows: list[dict[str, str]], x: NDArray[np.float64], algorithm: Algorithm
) -> str:
    """Train without the patients whose diagnosis is known, and say how it ranks them."""
    with (folder / "diagnosis.csv").open(encoding="utf-8", newline="") as stream:
        known = {row["patient_id"]: int(row["diagnosis"]) for row in csv.DictReader(stream)}
    rating = np.array([int(row["Malignancy_value"]) for row in rows])
    patients = np.array([row["patient_id"] for row in rows])
    held = np.isin(patients, list(known))
    used = ~held & (rating != 3)
    y = (rating > 3).astype(int)
    suspicion = classifier(algorithm, PLAN, y[used]).fit(x[used], y[used]).predict_proba(x)[:, 1]
    highest: dict[str, tuple[float, int]] = {}
    for patient, value, rated in zip(patients, suspicion, rating, strict=True):
        if known.get(patient, 0) in (*BENIGN, *MALIGNANT):
            most, most_rated = highest.get(patient, (0.0, 0))
            highest[patient] = max(most, float(value)), max(most_rated, int(rated))
    truth = [known[patient] in MALIGNANT for patient in highest]
    by_model, by_readers = (
        roc_auc_score(truth, [pair[n] for pair in highest.values()]) for n in (0, 1)
    )
    return (
        f"Held against the diagnosis of {len(truth)} patients whom it had not seen, {sum(truth)} "
        f"with cancer, the highest suspicion of a patient's nodules has an AUC of "
        f"{by_model:.2f}; the radiologists' own highest rating has {by_readers:.2f}."
    )


def calibration(y: NDArray[np.int64], probability: NDArray[np.float64]) -> str:
    """Say how well probabilities that were not trained on are calibrated."""
    log_odds = np.log(probability / (1 - probability))[:, None]
    fitted = LogisticRegression(C=np.inf).fit(log_odds, y)
    return (
        f"Mean prediction {100 * probability.mean():.1f} %, found {100 * y.mean():.1f} %; slope of "
        f"the calibration {fitted.coef_[0, 0]:.2f}, intercept {fitted.intercept_[0]:+.2f}."
    )


def main() -> None:
    """Measure, train, compare, write the model with its card."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("nodules", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    output: Path = arguments.output
    output.mkdir(parents=True)
    rows, values = zip(*measured(arguments.nodules), strict=True)
    x = np.stack(values)
    write_tables(list(rows), x, output)
    with shown(ProgressStyle.BAR) as report:
        result = train_risk(
            output / "features.csv",
            output / "labels.csv",
            output / "models",
            PLAN,
            FeatureSet.PHYSICAL,
            report,
        )
    print(result.report)
    best = min(Algorithm, key=lambda one: result.models[one].card.scores["brier"])
    with (output / "models" / "out-of-fold.csv").open(encoding="utf-8", newline="") as stream:
        found = [(int(row["label"]), float(row[best])) for row in csv.DictReader(stream)]
    y, probability = (np.array(column) for column in zip(*found, strict=True))
    sentences = [
        "Trained on the nodules of LIDC-IDRI (Armato et al., Med Phys 2011;38:915; The Cancer "
        "Imaging Archive, CC BY 3.0) that radiologists rated as suspicious (4, 5) or not (1, 2).",
        f"On nodules of patients apart: AUC {roc_auc_score(y, probability):.3f}.",
        calibration(y, probability),
        against_diagnoses(arguments.nodules, list(rows), x, best),
    ]
    model = result.models[best]
    card = replace(model.card, target=TARGET, about=" ".join(sentences))
    suffix = Path(best.file_name).suffix
    save_risk_model(RiskModel(card, model.model), output / f"{SUSPICION_MODEL.stem}{suffix}")
    print(f"{best.label} is better by its Brier score.", *sentences, sep="\n")


if __name__ == "__main__":
    main()
