"""Candidates of the segmentation network and the classifier that doubts them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from CTLungScreeningLib.engine import device_of
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.model_card import ModelCard, save_model
from LungNoduleSegLib.detectors.network_detector import load_networks
from LungNoduleSegLib.network.classifier import (
    CUBE,
    STEP_MM,
    build_classifier,
    cut_cubes,
    find_candidates,
    reduce_false_positives,
    sampled_slices,
    score_candidates,
)
from LungNoduleSegLib.network.classifier_cubes import (
    ClassifierPlan,
    gather_cubes,
    mistaken_places,
)
from LungNoduleSegLib.network.classifier_training import train_classifier
from LungNoduleSegLib.network.inference import Preparation, add_second_opinion, predict_slices
from LungNoduleSegLib.network.patches import TrainingScan, training_scan

STRAIGHT, TURNED = (1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1)
OBLIQUE = sitk.VersorTransform((0.2, -0.3, 0.9), 0.7).GetMatrix()


def volume(array: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 2)) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    return image


def probabilities(*boxes: tuple[slice, slice, slice, float]) -> sitk.Image:
    array = np.zeros((12, 30, 30), np.float32)
    for z, y, x, value in boxes:
        array[z, y, x] = value
    return volume(array)


@given(
    direction=st.sampled_from([STRAIGHT, TURNED, OBLIQUE]),
    spacing=st.tuples(st.floats(0.6, 1.1), st.floats(0.6, 1.1), st.floats(2.6, 4)),
    index=st.tuples(*[st.floats(8.0, n) for n in (90, 90, 22)]),
)
def test_a_cube_shows_what_lies_around_a_place_in_the_world(
    direction: tuple[float, ...],
    spacing: tuple[float, float, float],
    index: tuple[float, float, float],
) -> None:
    image = sitk.Image((99, 99, 31), sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    image.SetOrigin((-31.0, 70.0, 12.0))
    # HU rises by 5 a mm along the third axis and by 3 along the first: known everywhere.
    z, _, x = np.indices((31, 99, 99))
    ramp = sitk.GetImageFromArray((5 * z * spacing[2] + 3 * x * spacing[0] - 600).astype("f4"))
    ramp.CopyInformation(image)
    centre = np.array(image.TransformContinuousIndexToPhysicalPoint(index))
    cube = cut_cubes(ramp, centre[None], (3, 5, 7))[0].astype(float) / 255 * 1400 - 1000
    k, _, i = np.indices((3, 5, 7))
    expected = 5 * (index[2] * spacing[2] + (k - 1) * STEP_MM[0])
    expected = expected + 3 * (index[0] * spacing[0] + (i - 3) * STEP_MM[2]) - 600
    expected = np.clip(expected, -1000, 400)
    assert np.abs(cube - expected).max() < 6  # one of 256 steps of grey


@pytest.mark.parametrize("axes", [1, 2, (1, 2)])
def test_a_mirrored_scan_has_the_same_score(axes: int | tuple[int, ...]) -> None:
    keras.utils.set_random_seed(1)
    classifier = build_classifier()
    rng = np.random.default_rng(1)
    array = rng.uniform(-1000, 400, (18, 40, 40)).astype(np.float32)
    centre = np.array([[19.5, 19.5, 17.0]])
    score, mirrored = (
        score_candidates(classifier, volume(values), centre)
        for values in (array, np.flip(array, axes).copy())
    )
    assert mirrored == pytest.approx(score, abs=1e-6)
    single = classifier.predict_on_batch(cut_cubes(volume(array), centre)[..., None])
    assert abs(single - score).max() > 1e-5  # or the test would say nothing


def test_beyond_the_image_its_rim_goes_on() -> None:
    image = volume(np.full((4, 6, 6), -300, np.float32))
    cubes = cut_cubes(image, np.array([[0.0, 0, 0], [500, 500, 500]]))
    assert cubes.shape == (2, *CUBE)
    assert (cubes == cubes[0, 0, 0, 0]).all()


def test_thin_slices_are_averaged_first() -> None:
    hu = volume(np.arange(8, dtype=np.int16).repeat(16).reshape(8, 4, 4), (1, 1, 1.25))
    slices = sampled_slices(hu)
    assert slices.GetSpacing()[2] == pytest.approx(2.5)
    np.testing.assert_allclose(sitk.GetArrayFromImage(slices)[:, 0, 0], [0.5, 2.5, 4.5, 6.5])


def test_candidates_that_touch_where_both_are_unsure_are_two() -> None:
    first = (slice(2, 5), slice(5, 9), slice(3, 8), 0.9)
    bridge = (slice(3, 4), slice(6, 7), slice(8, 12), 0.3)
    second = (slice(2, 5), slice(5, 9), slice(12, 17), 0.8)
    unsure = (slice(8, 10), slice(20, 23), slice(20, 23), 0.25)
    too_unsure = (slice(8, 10), slice(2, 5), slice(20, 23), 0.15)
    image = probabilities(first, bridge, second, unsure, too_unsure)
    numbers, centres = find_candidates(image)
    assert numbers.max() == len(centres) == 3
    assert len({numbers[3, 6, 4], numbers[3, 6, 14], numbers[8, 21, 21]}) == 3
    assert numbers[8, 3, 21] == 0
    np.testing.assert_allclose(centres[numbers[8, 21, 21] - 1], (21, 21, 17))
    np.testing.assert_allclose(centres[numbers[3, 6, 14] - 1], (14, 6.5, 6), atol=0.5)
    assert ((numbers > 0) == (sitk.GetArrayViewFromImage(image) >= 0.2)).all()


def test_nothing_marked_gives_no_candidate() -> None:
    numbers, centres = find_candidates(probabilities())
    assert not numbers.any()
    assert centres.shape == (0, 3)


def brightness_classifier() -> keras.Model:
    """A network that is sure of what is bright in the middle of the cube, and of nothing else."""
    inputs = keras.Input((*CUBE, 1))
    middle = keras.layers.Cropping3D(((7, 7), (17, 17), (17, 17)))(inputs)
    value = keras.layers.GlobalAveragePooling3D()(middle)
    scaled = keras.layers.Rescaling(0.1, -12.0)(value)
    return keras.Model(inputs, keras.layers.Activation("sigmoid")(scaled))


def test_a_candidate_is_as_probable_as_the_classifier_finds_it() -> None:
    bright = (slice(2, 6), slice(4, 10), slice(3, 9), 0.9)
    dark = (slice(2, 6), slice(4, 10), slice(18, 24), 1.0)
    probability = probabilities(bright, dark)
    array = np.full((12, 30, 30), -900, np.int16)
    array[2:6, 4:10, 3:9] = 50
    hu = volume(array)
    classifier = brightness_classifier()
    numbers, centres = find_candidates(probability)
    scores = score_candidates(classifier, hu, centres)
    assert scores[numbers[4, 6, 5] - 1] > 0.99
    assert scores[numbers[4, 6, 20] - 1] < 0.01
    reduced = sitk.GetArrayFromImage(reduce_false_positives(classifier, probability, hu))
    assert (reduced[2:6, 4:10, 3:9] == np.float32(0.9)).all()  # its outline is that of the network
    assert reduced[:, :, 18:24].max() < 0.01
    assert reduce_false_positives(classifier, probabilities(), hu) is not None


def lung_around_classifier() -> keras.Model:
    """A network that is sure of a cube with tissue in the middle and lung at its rim."""
    inputs = keras.Input((*CUBE, 1))
    middle = keras.layers.Cropping3D(((7, 7), (17, 17), (17, 17)))(inputs)
    inside, anywhere = map(keras.layers.GlobalAveragePooling3D(), (middle, inputs))
    contrast = keras.layers.Subtract()([inside, anywhere])
    scaled = keras.layers.Rescaling(0.2, -12.0)(contrast)
    return keras.Model(inputs, keras.layers.Activation("sigmoid")(scaled))


def test_a_mass_that_fills_the_cube_is_also_seen_from_farther_away() -> None:
    z, y, x = np.indices((50, 100, 100)) - np.array([25, 50, 50])[:, None, None, None]
    away_mm = np.sqrt((2.0 * z) ** 2 + y**2 + x**2)
    hu = volume(np.where(away_mm <= 22, 40, -850).astype(np.int16))
    classifier = lung_around_classifier()
    mass = volume((away_mm <= 22).astype(np.float32))
    centres = find_candidates(mass)[1]
    assert score_candidates(classifier, hu, centres)[0] < 0.1
    assert sitk.GetArrayFromImage(reduce_false_positives(classifier, mass, hu)).max() > 0.9
    part = volume((away_mm <= 10).astype(np.float32))  # of the same, small enough for the cube
    assert sitk.GetArrayFromImage(reduce_false_positives(classifier, part, hu)).max() < 0.1


def lung_with_tubes(seed: int) -> tuple[TrainingScan, np.ndarray]:
    """A lung crossed by bright tubes, and places (n, 3) in LPS mm on them."""
    rng = np.random.default_rng(seed)
    shape = (30, 100, 100)
    array = rng.normal(-850, 20, shape)
    y, x = np.indices(shape[1:])
    places = []
    for _ in range(12):
        cy, cx = rng.uniform(15, 85, 2)
        array[:, (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(2, 5) ** 2] = 30
        places += [(cx, cy, 2.0 * k) for k in (8, 15, 22)]
    lungs = np.zeros(shape, np.uint8)
    lungs[2:-2, 6:-6, 6:-6] = 1
    hu = volume(array.astype(np.int16))
    return training_scan("tubes", hu, volume(lungs)), np.array(places)


@pytest.mark.slow
def test_the_classifier_learns_to_tell_lesions_from_tubes() -> None:
    scan, tubes = lung_with_tubes(1)
    plan = ClassifierPlan(rounds=4, lesions=20, sites=10, steps=150, batch=32)
    cubes = gather_cubes([scan], [tubes], plan)
    assert len(cubes.nodules) > 60
    assert len(cubes.others) > 60
    model, losses = train_classifier(cubes, plan)
    assert losses[-1] < 0.4
    unseen, places = lung_with_tubes(2)
    other = gather_cubes([unseen], [places], ClassifierPlan(rounds=1, lesions=20, sites=10, seed=9))
    inner = np.s_[:, 2:-2, 4:-4, 4:-4]
    lesions, rest = (
        model.predict_on_batch(kind[inner][..., None])[:, 0]
        for kind in (other.nodules, other.others)
    )
    right = (lesions[:, None] > rest).mean()  # the area under the ROC curve
    assert right > 0.95


def test_mistakes_are_the_candidates_that_touch_no_nodule() -> None:
    nodule = (slice(2, 6), slice(4, 10), slice(3, 9), 0.9)
    wrong = (slice(2, 6), slice(4, 10), slice(18, 24), 1.0)
    probability = probabilities(nodule, wrong)
    outlined = np.zeros((12, 30, 30), np.uint8)
    outlined[3, 6, 6] = 1
    assert len(mistaken_places(probability, None)) == 2
    places = mistaken_places(probability, volume(outlined))
    np.testing.assert_allclose(places, [(20.5, 6.5, 7)], atol=0.1)


def test_what_may_be_a_nodule_is_never_a_negative() -> None:
    scan, tubes = lung_with_tubes(1)
    plan = ClassifierPlan(rounds=1, lesions=1, sites=10)
    assert len(gather_cubes([scan], [tubes], plan).others) > 20
    everywhere = replace(scan, doubtful=scan.lungs)
    assert len(gather_cubes([everywhere], [tubes], plan).others) == 0


def pixelwise(channels: int = 1) -> keras.Model:
    """A network that looks at one pixel at a time."""
    inputs = keras.Input((None, None, channels))
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(inputs))


def save_networks(folder: Path, classifier: str, second_opinion: str = "") -> Path:
    save_model(build_classifier(), ModelCard("classifier", "", "", {}), folder / "second.keras")
    for name, size in (("other", 384), ("another", 256)):
        card = ModelCard(name, "", "", {"size": size})
        save_model(pixelwise(), card, folder / f"{name}.keras")
    card = ModelCard("unet", "", "", {"size": 384}, second_opinion=second_opinion)
    save_model(pixelwise(), replace(card, classifier=classifier), folder / "first.keras")
    return folder / "first.keras"


def test_a_second_network_is_asked_around_what_the_first_one_marks() -> None:
    preparation = Preparation(size=160, context=1)
    pixels = np.random.default_rng(0).normal(size=(6, 160, 160)).astype(np.float32)
    network = pixelwise(preparation.channels)
    predictions = np.full(pixels.shape, 0.1, np.float32)
    predictions[2:4, 20:24, 30:36] = 0.9
    both = add_second_opinion(network, preparation, pixels, predictions)
    other = predict_slices(network, preparation, pixels)
    asked = both != predictions
    assert asked[2:4, 20:24, 30:36].all()
    assert not asked[[0, 1, 4, 5]].any() and not asked[:, 100:].any()
    np.testing.assert_allclose(both[asked], (predictions + other)[asked] / 2, atol=1e-6)


def test_without_a_mark_no_second_network_is_asked() -> None:
    pixels = np.zeros((3, 64, 64), np.float32)
    both = add_second_opinion(pixelwise(), Preparation(size=64), pixels, pixels)
    assert (both == pixels).all()


def test_a_model_brings_the_second_opinion_that_its_card_names(tmp_path: Path) -> None:
    detector = load_networks(save_networks(tmp_path, "", "other.keras"))
    assert detector.second is not None and detector.classifier is None
    assert detector.record()["second_opinion_sha256"] == detector.partners["second_opinion"].sha256


@pytest.mark.parametrize(
    ("second_opinion", "message"),
    [
        ("lost.keras", "lost.json is missing"),
        ("../other.keras", "in the same folder"),
        ("another.keras", "prepares scans in another way"),
    ],
)
def test_a_second_opinion_that_cannot_be_asked_is_reported(
    tmp_path: Path, second_opinion: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_networks(save_networks(tmp_path, "", second_opinion))


def test_a_model_brings_the_classifier_that_its_card_names(tmp_path: Path) -> None:
    detector = load_networks(save_networks(tmp_path, "second.keras"))
    assert detector.classifier is not None
    assert detector.record() == {
        "name": "unet",
        "kind": "network",
        "sha256": detector.card.sha256,
        "device": device_of(detector.network),
        "classifier_sha256": detector.partners["classifier"].sha256,
    }


@pytest.mark.parametrize(
    ("classifier", "message"),
    [("lost.keras", "lost.json is missing"), ("../second.keras", "in the same folder")],
)
def test_a_classifier_that_is_missing_or_elsewhere_is_reported(
    tmp_path: Path, classifier: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_networks(save_networks(tmp_path, classifier))
