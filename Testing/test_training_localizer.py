"""Training of a localizer: batches from disk, augmentation, stages, going on, what is written."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from CTLungScreeningLib.child_process import ChildProcess, module_command
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import BEST, CHECKPOINT, HISTORY, SETTINGS
from CTLungScreeningLib.model_card import load_model, read_card, save_model, training_folder
from CTSliceToolsLib.dataset.conversion import LabelledSlice
from CTSliceToolsLib.localizer.slice_batches import SliceBatches, SlicePack, pack_slices
from CTSliceToolsLib.localizer.training import (
    CURVES,
    TrainingResult,
    augmentation,
    train,
)
from CTSliceToolsLib.localizer.unlabelled import (
    RUN,
    USUAL_STEP,
    MixedBatches,
    mixed_loss,
    pack_scans,
)
from CTSliceToolsLib.options import Backbone, LocalizerTrainingPlan
from stopped_training import stop_at, without_seconds

QUICK = LocalizerTrainingPlan(epochs=1, batch=4)


def disc(location: float, seed: int) -> np.ndarray:
    """A disc that grows from head to feet, in noise."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    noise = np.random.default_rng(seed).integers(0, 40, x.shape)
    return ((x**2 + y**2 < (0.2 + location) ** 2) * 180 + noise).astype(np.uint8)


def write_slices(folder: Path, count: int, channels: int = 0) -> list[Path]:
    """Write slices at locations from 0 to 0.6."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{n:03}.npz" for n in range(count)]
    for n, (file, location) in enumerate(zip(files, np.linspace(0, 0.6, count), strict=True)):
        pixels = disc(location, n)
        pixels = np.stack([pixels] * channels, axis=-1) if channels else pixels
        LabelledSlice(pixels, location, "1.2.3").write(file)
    return files


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    write_slices(root / "training", 8)
    write_slices(root / "validation", 4)
    return root


@pytest.fixture(scope="session")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train(parts, tmp_path_factory.mktemp("models") / "mine.keras", QUICK)


def rows_seen(batches: SliceBatches, epoch: int) -> list[int]:
    """Slices of an epoch, by their locations, which count them."""
    batches.epoch = epoch
    return [round(float(y)) for n in range(len(batches)) for y in batches[n][1][:, 0]]


@given(count=st.integers(1, 40), batch=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_each_slice_comes_once_an_epoch(
    tmp_path_factory: pytest.TempPathFactory, count: int, batch: int, seed: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "numbers.npy"
    np.save(file, np.arange(count, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2))
    pack = SlicePack(file, np.arange(count, dtype=np.float32))
    in_order = SliceBatches(pack, batch)
    filled = -(-count // batch) * batch
    assert rows_seen(in_order, 0) == rows_seen(in_order, 5) == [n % count for n in range(filled)]
    shuffled = SliceBatches(pack, batch, seed)
    first = rows_seen(shuffled, 0)
    assert len(first) == max(count // batch, 1) * batch
    assert len(set(first)) == min(len(first), count)
    assert rows_seen(shuffled, 7) != first or count < 8
    assert rows_seen(shuffled, 0) == first == rows_seen(SliceBatches(pack, batch, seed), 0)
    for index in range(len(shuffled)):
        x, y = shuffled[index]
        assert x.dtype == np.uint8
        np.testing.assert_array_equal(x[:, 0, 0, 0], y[:, 0])


def unlabelled_scan(folder: Path, top: float = 0.0, slices: int = 40) -> Path:
    """Write a volume of 10 mm slices whose disc grows from head to feet as `disc` does."""
    hu = np.stack([disc(n * 10 * USUAL_STEP, n) * 6.0 - 1000 for n in range(slices)])[::-1]
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.SetSpacing((2.0, 2.0, 10.0))
    image.SetOrigin((-256, -256, top - 10 * (slices - 1)))
    folder.mkdir(exist_ok=True)
    file = folder / f"scan{top:.0f}.nrrd"
    sitk.WriteImage(image, file)
    return file


def test_unlabelled_slices_run_from_head_to_feet_beside_the_labelled(tmp_path: Path) -> None:
    file = tmp_path / "labelled.npy"
    np.save(file, np.zeros((12, 256, 256), np.uint8))
    labelled = SliceBatches(SlicePack(file, np.linspace(0, 0.5, 12, dtype=np.float32)), 4, 1)
    unlabelled_scan(tmp_path / "scans")
    unlabelled_scan(tmp_path / "scans", top=500)
    unlabelled_scan(tmp_path / "scans", top=900, slices=6)
    scans, notes = pack_scans(tmp_path / "scans", tmp_path)
    assert [len(scan.z_mm) for scan in scans] == [40, 40]
    assert "shorter" in notes[0]
    batches = MixedBatches(labelled, scans, 1)
    for index in range(len(batches)):
        pictures, truth = batches[index]
        assert pictures.shape == (4 + RUN, 256, 256, 1)
        run = truth[4:, 0]
        assert (np.diff(run) <= 0).all()
        assert np.ptp(run) > 50
        areas = (pictures[4:] > 100).sum((1, 2, 3))
        assert (np.diff(areas[:: RUN // 4]) > 0).all()  # the further down the larger
    assert (batches[0][1] == batches[0][1]).all()
    batches.epoch = 3
    assert batches[0][1][4:].tolist() != MixedBatches(labelled, scans, 1)[0][1][4:].tolist()


def test_packs_of_a_cancelled_training_do_not_stand_for_other_scans(tmp_path: Path) -> None:
    unlabelled_scan(tmp_path / "first")
    before, _ = pack_scans(tmp_path / "first", tmp_path)
    assert [one.file for one in pack_scans(tmp_path / "first", tmp_path)[0]] == [before[0].file]
    unlabelled_scan(tmp_path / "second", top=500)
    (other,), _ = pack_scans(tmp_path / "second", tmp_path)
    assert other.z_mm.max() == 500
    unlabelled_scan(tmp_path / "second", top=700).rename(tmp_path / "second" / "scan500.nrrd")
    (changed,), _ = pack_scans(tmp_path / "second", tmp_path)
    assert changed.z_mm.max() == 700


def test_the_loss_of_a_run_is_least_for_usual_steps_in_order() -> None:
    z_mm = np.linspace(300, 0, RUN)
    location = (0.2 + USUAL_STEP * (300 - z_mm))[:, None]
    labels = np.full((4, 1), 0.3)
    truth = np.concatenate([labels, z_mm[:, None]])

    def loss(run: np.ndarray, off: float = 0.0) -> float:
        return float(mixed_loss(4)(truth, np.concatenate([labels + off, run])))

    right = loss(location)
    assert loss(location + 0.1) == pytest.approx(right, abs=1e-6)  # the labels say where it lies
    for wrong in (location[::-1], location * 2, np.full_like(location, 0.3)):
        assert loss(wrong) > 1.2 * right
    assert loss(location, off=0.1) == pytest.approx(right + 0.01, abs=1e-6)
    assert float(mixed_loss(4)(labels, labels + 0.1)) == pytest.approx(0.01)  # validation


def test_training_learns_from_unlabelled_scans_as_well(parts: Path, tmp_path: Path) -> None:
    unlabelled_scan(tmp_path / "scans")
    plan = replace(QUICK, unlabelled=tmp_path / "scans")
    result = train(parts, tmp_path / "mine.keras", plan)
    assert np.isfinite(result.best["val_error"])
    training = read_card(result.model).training
    assert len(training["unlabelled"]) == 64
    assert str(tmp_path) not in result.model.with_suffix(".json").read_text()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        train(parts, tmp_path / "other.keras", replace(QUICK, unlabelled=tmp_path / "empty"))


@pytest.mark.parametrize("channels", [0, 3])
def test_pack_holds_the_slices_as_they_are(tmp_path: Path, channels: int) -> None:
    files = write_slices(tmp_path / "npz", 3, channels)
    pack = pack_slices(files, tmp_path / "pack", "training")
    pictures = pack.pictures(np.array([2, 0]))
    assert pictures.shape == (2, 256, 256, 1)
    np.testing.assert_array_equal(pictures[0, ..., 0], disc(0.6, 2))
    np.testing.assert_allclose(pack.locations, [0, 0.3, 0.6])


def test_pack_is_made_once_unless_the_slices_change(tmp_path: Path) -> None:
    files = write_slices(tmp_path / "npz", 3)
    first = pack_slices(files, tmp_path, "training")
    made = first.file.stat().st_mtime_ns
    assert pack_slices(files, tmp_path, "training").file.stat().st_mtime_ns == made
    files[1].unlink()
    LabelledSlice(disc(0.1, 9), -0.1, "1.2.3").write(files[1])
    again = pack_slices(files, tmp_path, "training")
    assert again.file != first.file
    np.testing.assert_array_equal(again.pictures(np.array([1]))[0, ..., 0], disc(0.1, 9))
    assert again.locations[1] == 0, "air above the head, which no sigmoid can reach"


@pytest.mark.parametrize("fault", ["damaged", "small", "not a number"])
def test_slices_that_cannot_be_used_are_named(tmp_path: Path, fault: str) -> None:
    files = write_slices(tmp_path / "npz", 2)
    files[1].unlink()
    if fault == "damaged":
        files[1].write_bytes(files[0].read_bytes()[:1000])
    else:
        size, location = (64, 0.1) if fault == "small" else (256, np.nan)
        LabelledSlice(np.zeros((size, size), np.uint8), location, "1.2").write(files[1])
    with pytest.raises(InputError, match=r"001\.npz"):
        pack_slices(files, tmp_path / "pack", "training")
    assert not (tmp_path / "pack").exists()


def test_augmentation_changes_training_slices_only() -> None:
    pictures = np.stack([disc(0.3, n) for n in range(4)])[..., None].astype(np.float32)
    model = keras.Sequential([keras.Input((256, 256, 1)), *augmentation(3)])
    np.testing.assert_array_equal(model.predict(pictures, verbose=0), pictures)
    changed = np.asarray(model(pictures, training=True))
    assert changed.shape == pictures.shape
    assert changed.min() >= 0 and changed.max() <= 255
    assert len({one.tobytes() for one in changed}) == 4
    assert np.abs(changed - pictures).mean((1, 2, 3)).min() > 3
    again = keras.Sequential([keras.Input((256, 256, 1)), *augmentation(3)])
    np.testing.assert_array_equal(np.asarray(again(pictures, training=True)), changed)


def test_augmentation_trains_where_keras_compiles_for_a_gpu() -> None:
    model = keras.Sequential(
        [
            keras.Input((256, 256, 1)),
            *augmentation(3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="jit_compile"):
        model.jit_compile = True  # what "auto" becomes with a GPU, if all layers allow it
    model.fit(np.zeros((2, 256, 256, 1), np.uint8), np.zeros((2, 1)), verbose=0)


def test_training_leaves_a_model_its_card_and_its_curves(trained: TrainingResult) -> None:
    (epoch,) = trained.epochs
    assert (epoch["epoch"], epoch["stage"]) == (1, 1)
    model, card = load_model(trained.model)
    assert not {type(layer).__name__ for layer in model.layers} & {"RandomAffine", "Sequential"}
    assert card.training["backbone"] == "compact"
    assert card.training["slices"] == {"training": 8, "validation": 4}
    assert card.results["best epoch, on the validation slices"] == epoch
    with Image.open(trained.folder / CURVES) as picture:
        assert picture.width > 600
    with (trained.folder / "stage-1" / HISTORY).open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["val_loss"]) == pytest.approx(epoch["val_loss"])
    assert list(trained.folder.rglob("events.out.tfevents*")), "for TensorBoard"
    assert not list(trained.folder.rglob("*.npy")) + list(trained.folder.rglob("*.h5"))


def test_model_is_that_of_the_best_epoch(trained: TrainingResult, parts: Path) -> None:
    model, _ = load_model(trained.model)
    loaded = [np.load(file) for file in sorted((parts / "validation").iterdir())]
    pictures = np.stack([one["pixels"] for one in loaded])[..., None]
    error = model.predict(pictures, verbose=0)[:, 0] - [float(one["norm_loc"]) for one in loaded]
    assert np.mean(error**2) == pytest.approx(trained.best["val_loss"], rel=1e-3)


def test_nothing_is_overwritten(trained: TrainingResult, parts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was overwritten"):
        train(parts, trained.model, QUICK)
    copy = tmp_path / "mine.keras"
    training_folder(copy).mkdir()
    (training_folder(copy) / CURVES).write_text("somebody else's")
    with pytest.raises(InputError, match=CURVES):
        train(parts, copy, QUICK)


def test_what_training_cannot_do_is_said_at_once(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    for data, output, message in (
        (tmp_path, "m.keras", "has no .npz files"),
        (parts, "m.h5", "must end with .keras"),
    ):
        with pytest.raises(InputError, match=message):
            train(data, tmp_path / output, QUICK)
    assert not training_folder(tmp_path / "m.keras").exists()


def test_what_changed_or_was_damaged_since_an_interruption_is_said_at_once(
    parts: Path, trained: TrainingResult, tmp_path: Path
) -> None:
    weights = tmp_path / "Hans_Mueller.keras"
    for suffix in (".keras", ".onnx", ".json"):
        shutil.copy(trained.model.with_suffix(suffix), weights.with_suffix(suffix))
    card = trained.model.with_suffix(".json").read_text().replace("mine.", "Hans_Mueller.")
    weights.with_suffix(".json").write_text(card)
    plan, output = replace(QUICK, epochs=9, patience=9, weights=weights), tmp_path / "new.keras"

    def stop(name: str, done: int, total: int) -> None:
        if name == "Stage 1" and done > total * 2 // 9:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(parts, output, plan, stop)
    stage = training_folder(output) / "stage-1"
    assert "Hans" not in (stage / SETTINGS).read_text()
    (checkpoint,) = (stage / CHECKPOINT).iterdir()
    for file in (stage / BEST, checkpoint):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="lacks a part of its training: start again"):
            train(parts, output, plan)
        file.write_bytes(whole)
    model, there = load_model(weights)
    model.set_weights([2 * weight for weight in model.get_weights()])
    for suffix in (".keras", ".onnx", ".json"):
        weights.with_suffix(suffix).unlink()
    save_model(model, there, weights)
    with pytest.raises(InputError, match="has a training with other weights"):
        train(parts, output, plan)


@pytest.mark.slow
def test_an_interrupted_training_ends_as_one_in_one_go(parts: Path, tmp_path: Path) -> None:
    plan = LocalizerTrainingPlan(epochs=3, fine_tune_epochs=2, batch=4, fine_tune_rate=1e-4)
    whole = train(parts, tmp_path / "whole.keras", plan)

    output = tmp_path / "parts.keras"
    for stage, step in (("Packing validation", 2), ("Stage 1", 1), ("Stage 1", 5), ("Stage 2", 3)):
        with pytest.raises(Cancelled):
            train(parts, output, plan, stop_at(stage, step))
        assert not output.exists()
    with pytest.raises(InputError, match="seed"):
        train(parts, output, LocalizerTrainingPlan(epochs=3, fine_tune_epochs=2, batch=4, seed=5))
    resumed = train(parts, output, plan)
    assert without_seconds(resumed.epochs) == [
        pytest.approx(epoch, rel=1e-4) for epoch in without_seconds(whole.epochs)
    ]
    first, _ = load_model(whole.model)
    second, _ = load_model(output)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_training_learns(tmp_path: Path) -> None:
    write_slices(tmp_path / "training", 64)
    write_slices(tmp_path / "validation", 21)
    plan = LocalizerTrainingPlan(epochs=15, batch=4, patience=15, augment=False)
    result = train(tmp_path, tmp_path / "m.keras", plan)
    assert result.best["val_error"] < 0.05, "guessing the middle is off by 0.15"


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [each for each in Backbone if each != "compact"])
def test_pretrained_backbones_train_in_two_stages(
    backbone: Backbone, parts: Path, tmp_path: Path
) -> None:
    plan = LocalizerTrainingPlan(backbone, random=True, epochs=1, fine_tune_epochs=1, batch=4)
    result = train(parts, tmp_path / "m.keras", plan)
    assert read_card(result.model).training["backbone"] == backbone
    model, _ = load_model(result.model)
    assert model.predict(np.zeros((1, 256, 256, 1), np.uint8), verbose=0).shape == (1, 1)


@pytest.mark.slow
def test_command_prints_a_live_curve_for_the_panel(parts: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.keras"
    options = ("--epochs", "2", "--batch", "4", "--progress", "jsonl")
    command = module_command("CTSliceToolsLib", "train", parts, "-o", output, *options)
    stages, curve = [], []
    with ChildProcess(command) as child:
        while child.running:
            for event in child.poll(0.1):
                if "stage" in event:
                    assert event["done"] <= event["total"]
                    stages.append(event["stage"])
                if "epoch" in event:
                    curve.append(event["epoch"])
        assert child.result()["output"] == str(output)
    assert [epoch["epoch"] for epoch in curve] == [1, 2]
    assert all(epoch["loss"] > 0 and epoch["val_loss"] > 0 for epoch in curve)
    assert stages[0] == "Packing training" and stages[-1] == "Stage 1"
    with (
        ChildProcess(command) as child,
        pytest.raises(InputError, match="nothing was overwritten"),
    ):
        child.result()
