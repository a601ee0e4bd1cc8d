"""The bundled model of suspicion: honest about what it rates, sound, and alike for every nodule."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from LungNoduleSegLib.options import SUSPICION_MODEL
from LungNoduleSegLib.risk.features import NODULE_FEATURES, SCAN_FEATURES, ScanFeatures, Source
from LungNoduleSegLib.risk.prediction import OF_LARGEST, predict_risk, read_prediction, to_text
from LungNoduleSegLib.risk.risk_models import load_risk_model


def nodule(diameter: float, mean_hu: float, **changes: float) -> dict[str, float]:
    """A ball, roughly."""
    volume = math.pi / 6 * diameter**3
    features = dict.fromkeys(NODULE_FEATURES, math.nan) | {
        "volume_mm3": volume,
        "equivalent_diameter_mm": diameter,
        "diameter_mm": 1.1 * diameter,
        "perpendicular_mm": diameter,
        "longest_3d_mm": 1.2 * diameter,
        "sphericity": 0.75,
        "surface_regularity": 0.85,
        "elongation": 0.85,
        "flatness": 0.7,
        "mean_hu": mean_hu,
        "std_hu": 200.0,
        "median_hu": mean_hu + 40,
        "p90_hu": mean_hu + 200,
        "part_solid": 0.0,
        "non_solid": 0.0,
        "calcified": 0.0,
    }
    return features | changes


def scan(*nodules: dict[str, float]) -> ScanFeatures:
    largest = max(nodules, key=lambda one: one["volume_mm3"])
    features = dict.fromkeys(SCAN_FEATURES, 0.0) | {"nodule_count": float(len(nodules))}
    features |= {f"{OF_LARGEST}{name}": value for name, value in largest.items()}
    return ScanFeatures("scan", "", "", Source.RUN, features, dict(enumerate(nodules, start=1)))


def test_it_says_what_it_rates_and_how_well() -> None:
    card = load_risk_model(SUSPICION_MODEL).card
    assert card.target == "suspicion of malignancy as four radiologists rate it, not cancer"
    for words in ("LIDC-IDRI", "CC BY 3.0", "AUC 0.942", "slope of the calibration", "diagnosis"):
        assert words in card.about
    page = (Path(__file__).parents[1] / "docs" / "risk.md").read_text(encoding="utf-8")
    assert f"{card.scores['roc_auc']:.3f}" in page
    assert f"{card.scores['brier']:.3f}" in page
    text = to_text(predict_risk(scan(nodule(9, 0)), SUSPICION_MODEL))
    assert "suspicion of malignancy as four radiologists rate it, not cancer" in text
    assert "probability of cancer" not in text


def test_every_nodule_is_rated_and_the_largest_stands_for_the_scan() -> None:
    found = predict_risk(scan(nodule(5, 0), nodule(22, -20)), SUSPICION_MODEL)
    assert list(found.nodules) == ["1", "2"]
    assert found.nodules["1"] < 0.2
    assert found.nodules["2"] > 0.8
    assert found.probability == pytest.approx(found.nodules["2"], abs=1e-6)
    assert "nodule 1:" in to_text(found)
    added = found.constant or 0.0
    added += sum(one.log_odds for one in found.contributions)
    assert 1 / (1 + math.exp(-added)) == pytest.approx(found.probability, abs=1e-4)


def test_what_it_was_not_trained_on_is_said() -> None:
    found = predict_risk(scan(nodule(60, 0)), SUSPICION_MODEL)
    assert any(one.startswith("Nodule 1: volume_mm3 is 113097, outside") for one in found.warnings)
    other = predict_risk(scan(nodule(9, 0), nodule(7, 0, sphericity=0.01)), SUSPICION_MODEL)
    (warning,) = (one for one in other.warnings if "outside" in one)
    assert warning.startswith("Nodule 2: sphericity is 0.01, outside the ")
    unknown = predict_risk(scan(nodule(9, math.nan)), SUSPICION_MODEL)
    assert any("Unknown from" in warning and "mean_hu" in warning for warning in unknown.warnings)


def test_without_a_nodule_it_rates_nothing() -> None:
    features = dict.fromkeys(SCAN_FEATURES, 0.0)
    found = predict_risk(ScanFeatures("CT", "", "", Source.RUN, features, {}), SUSPICION_MODEL)
    assert (found.probability, found.constant, found.contributions) == (None, None, ())
    assert to_text(found) == "CT: No nodule was found in this scan."
    assert read_prediction(json.loads(json.dumps(asdict(found)))) == found
