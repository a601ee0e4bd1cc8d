"""Scan-consistent locations: landmarks found again, outliers ignored, odd scans named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from CTSliceToolsLib.landmarks import LANDMARKS, LOCATIONS, Landmark
from CTSliceToolsLib.localizer.body_grid import Anchor
from CTSliceToolsLib.localizer.scan_fit import (
    ANYWHERE_MM,
    ScanFit,
    fit_scan,
    landmark_fit,
    usual_heights,
)

CHEST = slice(3, 10)
"""C7 to L1."""


def _patient(scale: float, top: float) -> ScanFit:
    """A body whose distances are the usual ones times `scale`."""
    heights = top + scale * usual_heights()
    return landmark_fit(dict(zip((one.name for one in LANDMARKS), heights, strict=True)))


def _slices(patient: ScanFit, first: int, last: int, step: float) -> NDArray[np.float64]:
    return np.arange(patient.landmark_z_mm[last], patient.landmark_z_mm[first], step)


@settings(max_examples=40)
@given(
    scale=st.floats(0.92, 1.08),
    top=st.floats(-2000, 2000),
    step=st.floats(0.6, 6),
    seed=st.integers(0, 99),
)
def test_landmarks_of_a_chest_are_found_through_noise(
    scale: float, top: float, step: float, seed: int
) -> None:
    patient = _patient(scale, top)
    z = _slices(patient, 3, 9, step)
    rng = np.random.default_rng(seed)
    raw = (patient.location_at(z) + rng.normal(0, 0.008, len(z))).clip(0, 1)

    fit = fit_scan(z, raw)

    assert np.abs(fit.landmark_z_mm - patient.landmark_z_mm)[CHEST].max() < 20
    assert not fit.warnings


def test_a_tenth_of_wrong_slices_moves_the_landmarks_by_millimetres_only() -> None:
    patient = _patient(1.0, 0.0)
    z = _slices(patient, 3, 9, 2.5)
    raw = patient.location_at(z)
    wrong = np.random.default_rng(0).random(len(z)) < 0.1
    raw[wrong] = 0.9

    fit = fit_scan(z, raw)

    assert np.abs(fit.landmark_z_mm - patient.landmark_z_mm)[CHEST].max() < 10


@settings(max_examples=40)
@given(seed=st.integers(0, 99), offset=st.floats(-500, 500))
def test_the_fit_moves_with_the_scan_and_does_not_depend_on_the_order(
    seed: int, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    patient = _patient(1.0, 0.0)
    z = _slices(patient, 5, 9, 5.0)
    raw = (patient.location_at(z) + rng.normal(0, 0.01, len(z))).clip(0, 1)
    shuffled = rng.permutation(len(z))

    fit, moved = fit_scan(z, raw), fit_scan(z[shuffled] + offset, raw[shuffled])

    np.testing.assert_allclose(moved.landmark_z_mm, fit.landmark_z_mm + offset, atol=0.5)


@settings(max_examples=40)
@given(raw=st.lists(st.floats(0, 1), min_size=1, max_size=60), step=st.floats(0.3, 10))
def test_locations_fall_with_z_whatever_the_network_says(raw: list[float], step: float) -> None:
    z = step * np.arange(len(raw), dtype=float)

    fit = fit_scan(z, np.array(raw))

    assert (np.diff(fit.landmark_z_mm) < 0).all()
    assert (np.diff(fit.location_at(np.linspace(-1000, 1000, 500))) < 0).all()
    np.testing.assert_allclose(fit.z_at(fit.location_at(z)), z, atol=1e-6)
    np.testing.assert_allclose(fit.location_at(fit.landmark_z_mm), LOCATIONS, atol=1e-9)


def test_a_scan_upside_down_is_named() -> None:
    patient = _patient(1.0, 0.0)
    z = _slices(patient, 3, 9, 2.5)

    (first, *_) = fit_scan(-z, patient.location_at(z)).warnings

    assert "head first or feet first" in first


def test_slices_without_anatomy_are_named() -> None:
    z = np.arange(0, 400, 2.5)
    raw = np.random.default_rng(1).random(len(z))

    assert any("not to be trusted" in warning for warning in fit_scan(z, raw).warnings)


def test_legs_are_named() -> None:
    patient = _patient(1.0, 0.0)
    z = patient.landmark_z_mm[-1] - np.arange(0, 400, 5.0)

    warnings = fit_scan(z, patient.location_at(z)).warnings

    assert any("below the head of femur" in warning for warning in warnings)


def test_the_fit_through_known_landmarks_passes_through_them() -> None:
    known = {"C7": 0.0, "Aortic arch": -60.0, "L1": -250.0}

    fit = landmark_fit(known)

    by_name = dict(zip((one.name for one in LANDMARKS), fit.landmark_z_mm, strict=True))
    assert {name: by_name[name] for name in known} == pytest.approx(known)
    assert by_name["T1"] == pytest.approx(-12)  # a fifth of the way from 0.15 to 0.2
    usual = usual_heights()
    assert by_name["Tip of iliac crest"] == pytest.approx(-250 + usual[10] - usual[9])


@pytest.mark.parametrize("known", [{}, {"C7": 0.0, "T1": 1.0}, {"Nose": 0.0}])
def test_impossible_landmarks_are_refused(known: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="decreasing z"):
        landmark_fit(known)


def test_no_slices_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit_scan(np.array([]), np.array([]))


def _anchor(patient: ScanFit, name: str, off_mm: float = 0) -> Anchor:
    place = [one.name for one in LANDMARKS].index(name)
    return Anchor(name, name, float(patient.landmark_z_mm[place]) + off_mm, 5)


def test_anchors_put_right_what_the_network_is_off_by() -> None:
    patient = _patient(1.0, 0.0)
    z = _slices(patient, 3, 9, 2.5)
    raw = (patient.location_at(z) + 0.04).clip(0, 1)
    names = ("T1", "Bifurcation of trachea", "Right dome of diaphragm")
    anchors = [_anchor(patient, name) for name in names]

    alone, fit = fit_scan(z, raw), fit_scan(z, raw, anchors)

    assert np.abs(alone.landmark_z_mm - patient.landmark_z_mm)[CHEST].min() > 40
    assert np.abs(fit.landmark_z_mm - patient.landmark_z_mm)[CHEST].max() < 15
    assert not fit.warnings


def test_fewer_contradicting_anchors_give_fewer_notes() -> None:
    patient = _patient(1.0, 0.0)
    z = _slices(patient, 3, 9, 2.5)
    raw = (patient.location_at(z) + 0.04).clip(0, 1)
    anchors = [_anchor(patient, name) for name in ("T1", "Bifurcation of trachea")]

    (doubt,) = fit_scan(z, raw, anchors).warnings
    assert "check the landmarks" in doubt
    strange = fit_scan(z, np.random.default_rng(1).random(len(z)), anchors[:1])
    assert (strange.uncertainty_mm == ANYWHERE_MM).all()
    assert any("not to be trusted" in warning for warning in strange.warnings)


@pytest.mark.parametrize("off_mm", [-200, -90, 90, 200])
def test_a_wrong_anchor_is_outvoted_and_named(off_mm: float) -> None:
    patient = _patient(1.0, 0.0)
    z = _slices(patient, 3, 9, 2.5)
    anchors = [_anchor(patient, name) for name in ("T1", "Bifurcation of trachea")]
    wrong = _anchor(patient, "Right dome of diaphragm", off_mm)

    fit = fit_scan(z, patient.location_at(z), [*anchors, wrong])

    assert np.abs(fit.landmark_z_mm - patient.landmark_z_mm)[CHEST].max() < 10
    (warning,) = fit.warnings
    assert warning.startswith("Right dome of diaphragm")
    assert ("above" in warning) == (off_mm > 0)


def test_a_single_wrong_anchor_does_not_outvote_the_network() -> None:
    patient = _patient(1.0, 0.0)
    z = _slices(patient, 3, 9, 2.5)

    fit = fit_scan(z, patient.location_at(z), [_anchor(patient, "Head of femur", 400)])

    assert np.abs(fit.landmark_z_mm - patient.landmark_z_mm)[CHEST].max() < 15
    assert fit.warnings


@settings(max_examples=20)
@given(
    raw=st.lists(st.floats(0, 1), min_size=2, max_size=60),
    places=st.lists(st.tuples(st.sampled_from(LANDMARKS), st.floats(-300, 300)), max_size=5),
)
def test_the_order_of_anatomy_holds_whatever_the_anchors_say(
    raw: list[float], places: list[tuple[Landmark, float]]
) -> None:
    anchors = [Anchor("made up", landmark.name, z, 4) for landmark, z in places]

    fit = fit_scan(np.linspace(0, 5 * len(raw), len(raw)), np.array(raw), anchors)

    assert (np.diff(fit.landmark_z_mm) < 0).all()
    assert (fit.uncertainty_mm > 0).all()
    assert np.isfinite(fit.uncertainty_mm).all()


def test_uncertainty_grows_away_from_what_is_known() -> None:
    patient = _patient(1.0, 0.0)
    z = _slices(patient, 5, 8, 2.5)
    raw = patient.location_at(z)

    alone = fit_scan(z, raw)
    fit = fit_scan(z, raw, [_anchor(patient, "Bifurcation of trachea")])

    assert (fit.uncertainty_mm < alone.uncertainty_mm).all()
    assert (np.diff(fit.uncertainty_mm[6:]) > 0).all()
    assert (np.diff(fit.uncertainty_mm[2:7]) < 0).all()
    middle = (patient.landmark_z_mm[6] + patient.landmark_z_mm[7]) / 2
    assert fit.uncertainty_at(middle) == pytest.approx(fit.uncertainty_mm[6:8].mean(), rel=0.2)
