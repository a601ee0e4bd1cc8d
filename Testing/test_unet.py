"""The network of the tutorial, its Dice, and a network over a whole scan."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from CTLungScreeningLib.keras_loader import keras
from LungNoduleSegLib.network import inference
from LungNoduleSegLib.network.inference import (
    BACKGROUND_STD,
    Preparation,
    nodule_probability,
    predict_slices,
    prepare,
)
from LungNoduleSegLib.network.unet import (
    build_unet,
    dice_coefficient,
    dice_cross_entropy_loss,
    dice_loss,
)


def test_the_default_is_the_tutorials_network() -> None:
    model = build_unet()
    assert model.input_shape == (None, 512, 512, 1)
    assert model.output_shape == (None, 512, 512, 1)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    widths = [32, 64, 128, 256, 512, 256, 128, 64, 32]
    assert [layer.filters for layer in convolutions] == [w for w in widths for _ in range(2)] + [1]
    assert model.count_params() == 7_846_081  # the known count of this network


@given(
    truth=st.lists(st.integers(0, 1), min_size=16, max_size=16),
    predicted=st.lists(st.floats(0, 1, width=32), min_size=16, max_size=16),
)
def test_dice_is_that_of_the_tutorial(truth: list[int], predicted: list[float]) -> None:
    y_true = np.array(truth, np.float32).reshape(1, 4, 4, 1)
    y_pred = np.array(predicted, np.float32).reshape(1, 4, 4, 1)
    expected = (2 * (y_true * y_pred).sum() + 1) / (y_true.sum() + y_pred.sum() + 1)
    assert float(dice_coefficient(y_true, y_pred)) == pytest.approx(expected, rel=1e-4)
    assert float(dice_loss(y_true, y_pred)) == pytest.approx(-expected, rel=1e-4)


def small_scan() -> tuple[sitk.Image, sitk.Image]:
    rng = np.random.default_rng(3)
    lungs = np.zeros((11, 40, 48), np.uint8)
    lungs[2:9, 6:34, 4:44] = 1
    hu = sitk.GetImageFromArray(rng.normal(-800, 150, lungs.shape).astype(np.int16))
    return hu, sitk.GetImageFromArray(lungs)


@pytest.mark.parametrize("context", [0, 2])
def test_batches_give_what_the_whole_stack_gives_at_once(
    context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "GROUP_PIXELS", 2 * 64 * 64)
    preparation = Preparation(size=64, context=context)
    model = build_unet(64, preparation.channels, 2)
    prepared = prepare(*small_scan(), preparation)
    seen: list[tuple[int, int]] = []
    batched = predict_slices(
        model, preparation, prepared.pixels(), lambda _, done, total: seen.append((done, total))
    )
    at_once = model.predict_on_batch(prepared.inputs())[..., 0]
    np.testing.assert_allclose(batched, at_once, atol=1e-5)
    assert seen[-1] == (7, 7)
    assert len(seen) == 7


def test_a_network_for_any_size_sees_the_rectangle_around_the_lungs_only() -> None:
    preparation = Preparation(size=160)
    model = build_unet(None, 1, 2)
    pixels = np.full((3, 160, 160), BACKGROUND_STD, np.float32)
    lung = np.random.default_rng(1).normal(0, 1, (2, 20, 40))
    pixels[1:, 90:110, 5:45] = lung  # rows 82 to 118 with the margin, columns 0 to 53
    predicted = predict_slices(model, preparation, pixels)
    rows, columns = slice(82, 130), slice(0, 64)
    window = model.predict_on_batch(pixels[:, rows, columns, None])[..., 0]
    np.testing.assert_allclose(predicted[:, rows, columns], window, atol=1e-6)
    predicted[:, rows, columns] = 0
    assert not predicted.any()


def test_the_network_is_asked_about_slices_with_lung_only() -> None:
    hu, lungs = small_scan()
    probability = nodule_probability(build_unet(64, 1, 2), Preparation(size=64), hu, lungs)
    array = sitk.GetArrayFromImage(probability)
    inside = sitk.GetArrayViewFromImage(lungs) > 0
    assert (array[inside] > 0).all()  # an untrained network is never sure
    assert (array[~inside] == 0).all()


def test_training_finds_a_bright_ball_and_a_saved_model_is_the_same(tmp_path: object) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.3, (8, 32, 32, 1)).astype(np.float32)
    y = np.zeros_like(x)
    y[:, 8:16, 8:16] = 1
    x += 3 * y
    keras.utils.set_random_seed(1)
    model = build_unet(None, 1, 8)
    model.compile(keras.optimizers.Adam(3e-3), dice_cross_entropy_loss)
    for _ in range(80):
        model.train_on_batch(x, y)
    path = f"{tmp_path}/model.keras"
    model.save(path)
    again = keras.saving.load_model(path, compile=False, safe_mode=True)
    predicted = again.predict_on_batch(x)
    np.testing.assert_allclose(predicted, model.predict_on_batch(x), atol=1e-6)
    assert float(dice_coefficient(y, predicted)) > 0.9
