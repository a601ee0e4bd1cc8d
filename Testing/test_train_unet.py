"""Training on a store: what is learnt from, both presets, going on, weights that fit or do not."""

import json
import multiprocessing
import os
import pickle
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from annotated_scans import chest, write_luna
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningLib.json_files import changed_names
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import TENSORBOARD, read_history
from CTLungScreeningLib.model_card import ModelCard, load_model, save_model
from LungNoduleSegLib.cli import app
from LungNoduleSegLib.detectors.network_detector import load_networks
from LungNoduleSegLib.network import patch_batches
from LungNoduleSegLib.network.inference import Preparation, nodule_probability
from LungNoduleSegLib.network.patch_batches import PatchBatches
from LungNoduleSegLib.network.patches import (
    LOOSE_MM,
    PatchTrainingPlan,
    loosen_lungs,
    random_tilt,
    tilt,
)
from LungNoduleSegLib.network.unet import build_unet, load_weights
from LungNoduleSegLib.options import Preset, StoreTrainingPlan
from LungNoduleSegLib.training_data.luna16 import prepare_luna
from LungNoduleSegLib.training_data.preparation import ExampleChoice
from LungNoduleSegLib.training_data.store import (
    EXAMPLE_PREPARATION,
    Example,
    StoredScans,
    read_store,
    split_scans,
)
from LungNoduleSegLib.training_data.training import (
    ExampleBatches,
    _earlier_card,
    _settings,
    train_on_store,
)
from stopped_training import stop_at

TINY = Preparation(size=64, context=1)
TUTORIAL = StoreTrainingPlan.of(Preset.TUTORIAL, filters=1, epochs=2, learning_rate=1e-3)
PATCHES_PLAN = StoreTrainingPlan.of(
    Preset.PATCHES, filters=2, epochs=2, steps=2, batch=4, patch=32, lesions=3, classifier_steps=2
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients with two examples each."""
    folder = tmp_path_factory.mktemp("luna16")
    scans, annotations = write_luna(folder, {f"1.2.{n}": chest(n) for n in (1, 2)})
    prepare_luna(scans, annotations, folder / "store", ExampleChoice(neighbours=0))
    return folder / "store"


def test_each_example_comes_once_an_epoch_in_an_order_that_follows_from_the_seed(
    store: Path,
) -> None:
    examples = [Example(scan, n) for scan in read_store(store) for n in range(2)][:3]
    batches = ExampleBatches(examples, 2, seed=5)
    orders = []
    for epoch in range(4):
        batches.epoch = epoch
        assert len(batches) == 2
        x, y = (
            np.concatenate(parts) for parts in zip(*(batches[n] for n in range(2)), strict=True)
        )
        assert x.shape == y.shape == (4, 512, 512, 1)
        orders.append(
            [
                next(
                    n
                    for n, e in enumerate(examples)
                    if np.array_equal(e.scan.images()[e.row, 0], i)
                )
                for i in x[..., 0]
            ]
        )
        assert set(orders[-1][:3]) == {0, 1, 2} and orders[-1][3] == orders[-1][0]
        for number, mask in zip(orders[-1], y[..., 0], strict=True):
            stored = examples[number]
            np.testing.assert_array_equal(mask, stored.scan.masks()[stored.row, 0])
    assert len({tuple(order) for order in orders}) > 1
    again = ExampleBatches(examples, 2, seed=5)
    again.epoch = 3
    np.testing.assert_array_equal(again[0][0], x[:2])


def test_patches_follow_from_the_number_of_their_batch(store: Path) -> None:
    plan = PatchTrainingPlan(batch=4, patch=32, lesions=3, refresh=2, kept=2, seed=7)

    def batches() -> PatchBatches:
        return PatchBatches(StoredScans(read_store(store)), TINY, plan, 3)

    one, other = batches(), batches()
    first = [one[n] for n in range(3)]
    one.epoch = other.epoch = 1
    for n in (2, 0, 1):
        for mine, theirs in zip(one[n], other[n], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(first[0][0], one[0][0])
    x, y = first[0]
    assert x.shape == (4, 32, 32, 3) and y.shape == (4, 32, 32, 1)
    for _, masks in first:
        assert masks[0].max() > 0.5 and masks[2].max() > 0.5  # inserted, and outlined
        assert masks.min() == 0 and masks.max() <= 1


@pytest.mark.parametrize(
    ("cores", "gib", "count"), [(None, 64, 0), (4, 64, 0), (5, 64, 4), (16, 11, 5), (16, 1, 0)]
)
def test_processes_prepare_patches_where_cores_and_memory_are_to_spare(
    cores: int | None, gib: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=gib << 30))
    assert patch_batches.spare_processes() == count


def test_patches_prepared_in_processes_are_the_same(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PatchTrainingPlan(batch=4, patch=32, lesions=3, refresh=2, kept=2, seed=7)
    scans = StoredScans(read_store(store))

    def batches(processes: int) -> PatchBatches:
        monkeypatch.setattr(patch_batches, "spare_processes", lambda: processes)
        return PatchBatches(scans, TINY, plan, 3)

    here, elsewhere = batches(0), batches(1)
    for n in (0, 2):
        for mine, theirs in zip(here[n], elsewhere[n], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    here.close()
    elsewhere.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        elsewhere[20]


def test_a_lost_process_that_prepares_patches_is_reported(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_batches, "spare_processes", lambda: 1)
    plan = PatchTrainingPlan(batch=4, patch=32, lesions=3, refresh=2, kept=2)
    with closing(PatchBatches(StoredScans(read_store(store)), TINY, plan, 30)) as batches:
        batches[0]
        (process,) = multiprocessing.active_children()
        process.kill()
        with pytest.raises(InputError, match="Training was cut short"):
            batches[20]


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, 1, -1, 0, 0, 0, -1, 0)])
def test_loose_lungs_grow_in_places_and_by_a_few_millimetres(direction: tuple[int, ...]) -> None:
    array = np.zeros((30, 60, 50), np.uint8)
    array[8:22, 20:40, 15:35] = 2
    lungs = sitk.GetImageFromArray(array)
    lungs.SetSpacing((1.5, 1.0, 2.5))
    lungs.SetOrigin((-70, 30, 110))
    lungs.SetDirection(direction)
    away = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(lungs > 0, False, False, True))
    for seed in range(5):
        loose = loosen_lungs(lungs, np.random.default_rng(seed))
        grown = sitk.GetArrayFromImage(loose) > 0
        assert loose.GetDirection() == lungs.GetDirection()
        assert grown[array > 0].all()
        assert 0 < away[grown].max() <= LOOSE_MM[1] + 2.5  # a voxel's rounding
        near = (away > 0) & (away < 1.6)  # beside the lungs
        assert 0.05 < grown[near].mean() < 0.95


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_a_tilted_scan_holds_all_of_it_where_the_transform_says(
    direction: tuple[int, ...], seed: int
) -> None:
    array = np.zeros((24, 40, 50), np.uint8)
    array[18:22, 4:10, 38:46] = 1
    mask = sitk.GetImageFromArray(array)
    mask.SetSpacing((0.8, 0.8, 2.0))
    mask.SetOrigin((10, -20, 30))
    mask.SetDirection(direction)
    hu = sitk.Cast(mask, sitk.sitkInt16) * 1000 - 1000
    transform = random_tilt(hu, np.random.default_rng(seed))
    scan, nodule = tilt(hu, transform), tilt(mask, transform)
    assert scan.GetSize() == nodule.GetSize() and scan.GetSpacing() == hu.GetSpacing()
    values, inside = (sitk.GetArrayFromImage(one) for one in (scan, nodule > 0))
    assert ((values >= -500) == inside).mean() > 0.999

    def middle(image: sitk.Image) -> np.ndarray:
        places = np.argwhere(sitk.GetArrayFromImage(image) > 0)[:, ::-1].mean(axis=0)
        return np.array(image.TransformContinuousIndexToPhysicalPoint(places.tolist()))

    assert np.linalg.norm(transform.TransformPoint(middle(nodule).tolist()) - middle(mask)) < 0.5
    stretch = abs(np.linalg.det(np.reshape(transform.GetMatrix(), (3, 3))))
    assert inside.sum() * stretch == pytest.approx(array.sum(), rel=0.15)


@pytest.mark.slow
def test_the_tutorial_is_trained_stopped_and_gone_on_with(store: Path, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    with pytest.raises(Cancelled):
        train_on_store(store, tmp_path / "unet.keras", TUTORIAL, progress=stop_at("Training", 2))
    assert not (tmp_path / "unet.keras").exists()
    with pytest.raises(InputError, match="other seed"):
        train_on_store(
            store,
            tmp_path / "unet.keras",
            StoreTrainingPlan.of(
                Preset.TUTORIAL, **{"filters": 1, "epochs": 2, "learning_rate": 1e-3, "seed": 2}
            ),
        )
    result = train_on_store(store, tmp_path / "unet.keras", TUTORIAL, on_epoch=seen.append)
    assert [epoch["epoch"] for epoch in result.epochs] == [1, 2]
    assert seen == result.epochs  # the first, done before, is told too
    assert result.epochs[1]["loss"] == pytest.approx(-result.epochs[1]["dice_coefficient"])
    assert read_history(result.folder / "stage-1")[1]["val_loss"] == result.epochs[1]["val_loss"]
    assert list((result.folder / "stage-1" / TENSORBOARD).rglob("events.*"))
    assert not list(result.folder.rglob("*.h5"))
    model, card = load_model(result.model)
    assert model.input_shape == (None, 512, 512, 1)
    assert Preparation(**card.preparation) == EXAMPLE_PREPARATION
    assert card.training_cases
    assert card.training["batch"] == 2 and card.training["used"] == "CPU"
    held_out = split_scans(read_store(store), TUTORIAL.seed)[1][0]
    probability = nodule_probability(
        model, EXAMPLE_PREPARATION, held_out.volume("hu"), held_out.volume("lungs")
    )
    assert 0 < sitk.GetArrayFromImage(probability).max() <= 1
    with pytest.raises(InputError, match="already holds"):
        train_on_store(store, tmp_path / "unet.keras", TUTORIAL)


@pytest.mark.slow
def test_a_model_trained_on_from_another_names_the_scans_of_both(
    store: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first.keras"
    save_model(
        build_unet(512, 1, 1),
        ModelCard("a", "b", "c", training_cases=["9.9", "1.2.1"], licence="MIT", citation="Doe"),
        first,
    )
    plan = StoreTrainingPlan.of(Preset.TUTORIAL, filters=1, epochs=1, weights=first)
    train_on_store(store, tmp_path / "second.keras", plan)
    _, card = load_model(tmp_path / "second.keras")
    assert card.training_cases == ["9.9", "1.2.1", "1.2.2"]
    assert (card.licence, card.citation) == ("MIT", "Doe")


def test_the_card_of_an_added_model_is_that_of_its_weights(tmp_path: Path) -> None:
    weights, card_file = tmp_path / "first.keras", tmp_path / "model.json"
    save_model(build_unet(512, 1, 1), ModelCard("a", "b", "c", licence="MIT"), weights)
    weights.with_suffix(".json").rename(card_file)
    assert _earlier_card(weights).licence == "MIT"
    other = tmp_path / "other.keras"
    shutil.copy(weights, other)
    assert _earlier_card(other).licence == ""
    weights.write_bytes(b"another")
    with pytest.raises(InputError, match=r"first\.keras is not the file that model\.json"):
        _earlier_card(weights)


def test_data_that_changed_since_an_interruption_is_noticed(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    nodules = tmp_path / "Hans_Mueller" / "image" / "a.nii.gz"
    nodules.parent.mkdir(parents=True)
    nodules.write_bytes(b"1")
    plan = replace(TUTORIAL, transplants=tmp_path / "Hans_Mueller")
    before = _settings(plan, TINY, read_store(copy))
    assert "Hans" not in json.dumps(before)
    assert changed_names(before, _settings(plan, TINY, read_store(copy))) == []
    nodules.write_bytes(b"22")
    assert changed_names(before, _settings(plan, TINY, read_store(copy))) == ["transplants"]
    nodules.unlink()
    next(copy.rglob("hu.nrrd")).write_bytes(b"")
    changed = changed_names(before, _settings(plan, TINY, read_store(copy)))
    assert changed == ["data_files", "transplants"]


def test_a_copied_and_browsed_store_has_the_same_data(store: Path, tmp_path: Path) -> None:
    data, cubes = tmp_path / "data", tmp_path / "cubes"
    shutil.copytree(store, data)
    for name in ("image", "mask"):
        (cubes / name).mkdir(parents=True)
        (cubes / name / "a.nii.gz").write_bytes(b"1")

    def settings() -> dict[str, Any]:
        return _settings(replace(TUTORIAL, transplants=cubes), TINY, read_store(data))

    before = settings()
    for file in (*data.rglob("*"), *cubes.rglob("*")):
        os.utime(file, (1, 1))
        if file.is_dir():
            (file / ".DS_Store").write_bytes(b"view")
    assert changed_names(before, settings()) == []
    for file in (next(data.rglob("nodules.nrrd")), cubes / "mask" / "a.nii.gz"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        os.utime(file, (1, 1))
    assert changed_names(before, settings()) == ["data_files", "transplants"]


@pytest.mark.slow
def test_ours_learns_from_its_mistakes_after_interruptions_and_by_processes_too(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_on_store(store, tmp_path / "whole.keras", PATCHES_PLAN, TINY)
    assert [epoch["stage"] for epoch in whole.epochs] == [1, 1, 2]
    assert [epoch["epoch"] for epoch in whole.epochs] == [1, 2, 3]
    assert whole.best["stage"] == 2
    parts = tmp_path / "parts.keras"
    monkeypatch.setattr(patch_batches, "spare_processes", lambda: 2)
    for stage, step in (("Training", 3), ("Mistakes", 1)):
        with pytest.raises(Cancelled):
            train_on_store(store, parts, PATCHES_PLAN, TINY, progress=stop_at(stage, step))
    assert not multiprocessing.active_children()
    assert len(list((tmp_path / "parts-training" / "mistakes").iterdir())) == 1
    resumed = train_on_store(store, parts, PATCHES_PLAN, TINY)
    for one, other in zip(whole.epochs, resumed.epochs, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    (model, card), (again, _) = load_model(whole.model), load_model(resumed.model)
    for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert model.input_shape == (None, None, None, 3)
    assert Preparation(**card.preparation) == TINY
    detector = load_networks(resumed.model)
    assert detector.classifier is not None
    assert card.classifier == "whole-classifier.keras"
    scan = read_store(store)[0]
    probability = detector.detect(scan.volume("hu"), scan.volume("lungs"))
    assert 0 <= sitk.GetArrayFromImage(probability).max() <= 1


@pytest.mark.slow
def test_a_real_training_finds_the_nodules_of_a_patient_it_never_saw(
    store: Path, tmp_path: Path
) -> None:
    plan = StoreTrainingPlan.of(
        Preset.PATCHES,
        filters=8,
        epochs=6,
        steps=25,
        batch=8,
        patch=32,
        lesions=4,
        learning_rate=3e-3,
        hard_negatives=False,
    )
    result = train_on_store(store, tmp_path / "unet.keras", plan, Preparation(size=96, context=1))
    assert result.epochs[-1]["loss"] < 0.7 * result.epochs[0]["loss"]
    model, card = load_model(result.model)
    held_out = split_scans(read_store(store), plan.seed)[1][0]
    probability = sitk.GetArrayFromImage(
        nodule_probability(
            model, Preparation(**card.preparation), held_out.volume("hu"), held_out.volume("lungs")
        )
    )
    labels = sitk.GetArrayFromImage(held_out.volume("nodules"))
    lungs = sitk.GetArrayFromImage(held_out.volume("lungs")) > 0
    for number in (1, 2):
        assert probability[labels == number].mean() > 3 * probability[lungs & (labels == 0)].mean()


def small_unet(filters: int = 2) -> keras.Model:
    keras.utils.set_random_seed(filters)
    return build_unet(32, 1, filters)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.h5"])
def test_weights_of_the_same_network_are_loaded(tmp_path: Path, name: str) -> None:
    trained, model = small_unet(), small_unet()
    model.set_weights([weight + 1 for weight in model.get_weights()])
    if name.endswith("weights.h5"):
        trained.save_weights(tmp_path / name)
    else:
        trained.save(tmp_path / name)
    load_weights(model, tmp_path / name)
    for mine, theirs in zip(model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.h5"])
def test_weights_of_another_network_are_refused(tmp_path: Path, name: str) -> None:
    other = small_unet(3)
    if name.endswith("weights.h5"):
        other.save_weights(tmp_path / name)
    else:
        other.save(tmp_path / name)
    with pytest.raises(InputError, match=r"same preset and size") as error:
        load_weights(small_unet(), tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


class Payload:
    """What a pickle must not do."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def test_files_that_could_run_code_are_refused(tmp_path: Path) -> None:
    for name in ("a.pkl", "a.npy", "a.h5", "a.keras"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload()))
        with pytest.raises(InputError):
            load_weights(small_unet(), tmp_path / name)
    with pytest.raises(InputError, match=r"a\.keras cannot be read .*: it is damaged"):
        load_weights(small_unet(), tmp_path / "a.keras")
    with pytest.raises(InputError, match="does not exist"):
        load_weights(small_unet(), tmp_path / "none.keras")
    inputs = keras.Input((32, 32, 1))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(InputError, match="does not have the weights"):
        load_weights(small_unet(), tmp_path / "lambda.keras")


def test_the_command_trains_from_existing_weights(store: Path, tmp_path: Path) -> None:
    run = CliRunner()
    call = ["train", str(store), "-o", str(tmp_path / "a.keras"), "--progress", "jsonl"]
    tutorial = [*call, "--preset", "tutorial", "--epochs", "1", "--filters", "1"]
    build_unet(512, 1, 2).save(tmp_path / "other.keras")
    shown = run.invoke(app, [*tutorial, "--weights", str(tmp_path / "other.keras")])
    assert "is of another network" in str(shown.exception)
    shown = run.invoke(app, [*tutorial, "--weights", str(tmp_path / "none.keras")])
    assert "none.keras does not exist" in str(shown.exception)
    shown = run.invoke(app, [*call, "--preset", "patches", "--tutorial-split"])
    assert "--tutorial-split is for" in str(shown.exception)
    shown = run.invoke(app, [*tutorial, "--learning-rate=-1"])
    assert shown.exit_code == 2 and "--learning-rate" in shown.output
    build_unet(512, 1, 1).save(tmp_path / "same.keras")
    shown = run.invoke(app, [*tutorial, "--weights", str(tmp_path / "same.keras")])
    events = [json.loads(line) for line in shown.output.splitlines()]
    assert shown.exit_code == 0, shown.output
    assert any("val_loss" in event.get("epoch", ()) for event in events)
    assert events[-1]["result"]["output"] == str(tmp_path / "a.keras")
    model, card = load_model(tmp_path / "a.keras")
    assert model.input_shape == (None, 512, 512, 1)
    assert Preparation(**card.preparation) == EXAMPLE_PREPARATION


def test_the_presets_differ() -> None:
    plan = StoreTrainingPlan.of(Preset.TUTORIAL)
    assert (plan.batch, plan.learning_rate, plan.filters, plan.epochs) == (2, 1e-5, 32, 20)
    assert StoreTrainingPlan.of(Preset.PATCHES, batch=None, seed=3).batch == 16
    assert list(Preset) == [Preset.TUTORIAL, Preset.PATCHES]
