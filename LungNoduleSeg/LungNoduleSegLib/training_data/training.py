"""Train a U-Net on a store, reading scans on demand."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.files import new_file
from CTLungScreeningLib.keras_loader import keras
from CTLungScreeningLib.keras_training import (
    Epoch,
    EpochBatches,
    TrainingResult,
    best_epoch,
    fit,
    hardware,
    remove_intermediate,
    require_new_training,
    training_notes,
)
from CTLungScreeningLib.model_card import (
    CARD,
    TRAIN,
    ModelCard,
    file_sha256,
    load_model,
    read_card,
    require_files,
    require_new_model,
    save_models,
    training_folder,
)
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.volume_files import write_image
from CTLungScreeningLib.staging import only_writer
from LungNoduleSegLib.network.classifier_cubes import (
    ClassifierPlan,
    gather_cubes,
    mistaken_places,
)
from LungNoduleSegLib.network.classifier_training import train_classifier
from LungNoduleSegLib.network.inference import Preparation, nodule_probability
from LungNoduleSegLib.network.patch_batches import PatchBatches
from LungNoduleSegLib.network.patches import Batch, PatchTrainingPlan
from LungNoduleSegLib.network.transplants import NoduleCube, cubes_sha256, cut_cubes, read_cubes
from LungNoduleSegLib.network.unet import (
    build_unet,
    compile_for_training,
    dice_coefficient,
    dice_loss,
    load_weights,
    with_mistakes,
)
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.options import Preset, StoreTrainingPlan
from LungNoduleSegLib.training_data.store import (
    EXAMPLE_PREPARATION,
    Example,
    StoredScan,
    StoredScans,
    mistakes_file,
    read_store,
    split_examples,
    split_scans,
)


class ExampleBatches(EpochBatches):
    """Whole slices, each once per epoch in a new order; the last batch is filled up.

    Args:
        examples: of a store.
        batch: slices in a batch.
        seed: of the order; None for no shuffling.
    """

    def __init__(self, examples: Sequence[Example], batch: int, seed: int | None) -> None:
        super().__init__()
        self._examples, self._batch, self._seed = examples, batch, seed

    def __len__(self) -> int:
        return math.ceil(len(self._examples) / self._batch)

    def __getitem__(self, index: int) -> Batch:
        """Return images and masks, (batch, 512, 512, 1)."""
        count = len(self._examples)
        order: NDArray[np.intp] = np.arange(count)
        if self._seed is not None:
            order = np.random.default_rng((self._seed, self.epoch)).permutation(count)
        numbers = np.arange(index * self._batch, (index + 1) * self._batch) % count
        chosen = [self._examples[n] for n in order[numbers]]
        images = np.stack([example.scan.images()[example.row, 0] for example in chosen])
        masks = np.stack([example.scan.masks()[example.row, 0] for example in chosen])
        return images[..., None], masks[..., None]


class DrawnBatches(EpochBatches):
    """The batches of one epoch, drawn once and kept, for a validation that is always the same."""

    def __init__(self, batches: PatchBatches) -> None:
        super().__init__()
        with closing(batches):
            self._drawn = [batches[n] for n in range(len(batches))]

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, index: int) -> Batch:
        """Return patches and masks."""
        return self._drawn[index]


def note_mistakes(
    model: keras.Model,
    preparation: Preparation,
    scans: Sequence[StoredScan],
    folder: Path,
    progress: ProgressCallback,
) -> None:
    """Write a mask of each scan's false positives, unless it exists.

    Args:
        model: trained.
        preparation: that it was trained with.
        scans: that it was trained on.
        folder: for one mask per scan.
        progress: counts the scans, in the stage "Mistakes".
    """
    stored = StoredScans(scans)
    for n, scan in enumerate(scans):
        progress("Mistakes", n, len(scans))
        file = mistakes_file(folder, scan)
        if not file.exists():
            read = stored[n]
            probability = nodule_probability(model, preparation, read.hu, read.lungs)
            with new_file(file) as temporary:
                write_image(with_mistakes(read, probability).mistaken, temporary)
    progress("Mistakes", len(scans), len(scans))


PATCH_PREPARATION = Preparation(size=384, context=2, slab_mm=2.5)
_MISTAKES = "mistakes"


def train_on_store(
    store: Path,
    output: Path,
    plan: StoreTrainingPlan | None = None,
    preparation: Preparation = PATCH_PREPARATION,
    progress: ProgressCallback = silent,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> TrainingResult:
    """Train a network on four fifths of a store's patients and keep the best on the others.

    A repeated call with the same arguments continues an interrupted training after its last epoch.

    Args:
        store: made by `prepare_luna` or `prepare_lidc`.
        output: the new `.keras` file; its card is put beside it, the preset patches'
            classifier as NAME-classifier.keras, and curves and checkpoints into NAME-training.
        plan: settings; None for those of the preset patches.
        preparation: of the slices, for the preset patches.
        progress: callback; "Training", "Training on mistakes" and "Classifier" count batches,
            "Mistakes" and "Cubes" scans.
        on_epoch: called with the metrics of each epoch, see `TrainingResult.epochs`; numbered over
            all stages, from 1.

    Raises:
        InputError: if store or weights cannot be used, or output or another training exists.
    """
    plan = plan or StoreTrainingPlan.of(Preset.PATCHES)
    classifier = output.parent / f"{output.stem}-classifier.keras"
    with_classifier = plan.preset is Preset.PATCHES and plan.hard_negatives
    folder = training_folder(output)
    require_new_training(output, folder, _MISTAKES)
    if with_classifier:
        require_new_model(classifier)
    with only_writer(output, "training"):
        scans = read_store(store)
        earlier = _earlier_card(plan.weights)
        if plan.preset is Preset.TUTORIAL:
            preparation = EXAMPLE_PREPARATION
        began = time.monotonic()
        with hardware(plan.batch) as used:
            keras.utils.set_random_seed(plan.seed)
            model = _build(plan, preparation)
            if plan.weights is not None:
                load_weights(model, plan.weights)
            settings = _settings(plan, preparation, scans)
            cubes = _cubes(plan, scans)
            training = _Training(plan, preparation, folder, settings, cubes, progress, on_epoch)
            if plan.preset is Preset.TUTORIAL:
                epochs = training.tutorial(model, scans)
            else:
                epochs = training.patches(model, scans)
        # Rebuilt, because the layers above may keep the half precision of the training.
        plain = _build(plan, preparation)
        plain.set_weights(model.get_weights())
        last = [epoch for epoch in epochs if epoch["stage"] == epochs[-1]["stage"]]
        best = best_epoch(last)
        facts = {"used": used, "seconds": round(time.monotonic() - began), "scans": len(scans)}
        card = _card(output.stem, plan, preparation, settings | facts, best)
        cases = dict.fromkeys([*earlier.training_cases, *(scan.name for scan in scans)])
        card = replace(
            card,
            training_cases=list(cases),
            licence=earlier.licence,
            citation=earlier.citation,
        )
        if with_classifier:
            separate = training.classifier(split_scans(scans, plan.seed)[0], classifier)
            card = replace(card, classifier=classifier.name)
            saved = save_models(separate, (plain, card, output))
        else:
            saved = save_models((plain, card, output))
        remove_intermediate(folder, _MISTAKES)
        return TrainingResult(output, folder, epochs, best, training_notes(used, folder, saved))


@dataclass(frozen=True)
class _Training:
    """The common settings of a training's stages."""

    plan: StoreTrainingPlan
    preparation: Preparation
    folder: Path
    settings: dict[str, Any]
    cubes: Sequence[NoduleCube]
    progress: ProgressCallback
    on_epoch: Callable[[Epoch], None]

    def tutorial(self, model: keras.Model, scans: Sequence[StoredScan]) -> list[Epoch]:
        plan = self.plan
        split = split_examples(scans, plan.seed, plan.tutorial_split)
        model.compile(
            keras.optimizers.Adam(plan.learning_rate), dice_loss, metrics=[dice_coefficient]
        )
        return self._stage(
            1,
            model,
            ExampleBatches(split.training, plan.batch, plan.seed),
            ExampleBatches(split.test, plan.batch, None),
            plan.epochs,
        )

    def patches(self, model: keras.Model, scans: Sequence[StoredScan]) -> list[Epoch]:
        plan = self.plan
        training, test = split_scans(scans, plan.seed)
        shown = self._patches(StoredScans(test), plan.seed + 1, PatchTrainingPlan.refresh)
        validation = DrawnBatches(shown)
        epochs = self._patch_stage(
            1, model, StoredScans(training), validation, plan.epochs, plan.learning_rate
        )
        if plan.hard_negatives:
            mistakes = self.folder / _MISTAKES
            note_mistakes(model, self.preparation, training, mistakes, self.progress)
            epochs += self._patch_stage(
                2,
                model,
                StoredScans(training, mistakes),
                validation,
                math.ceil(plan.epochs / 2),
                plan.learning_rate / 2,
                len(epochs),
            )
        return epochs

    def classifier(
        self, scans: Sequence[StoredScan], file: Path
    ) -> tuple[keras.Model, ModelCard, Path]:
        """Train the network that separates nodules from false positives, to be saved as `file`."""
        stored = StoredScans(scans, self.folder / _MISTAKES)
        places = []
        for scan in stored:
            assert scan.mistaken is not None
            places.append(mistaken_places(sitk.Cast(scan.mistaken, sitk.sitkFloat32), None))
        plan = ClassifierPlan(
            lesions=self.plan.lesions, steps=self.plan.classifier_steps, seed=self.plan.seed
        )
        cubes = gather_cubes(stored, places, plan, self.progress, self.cubes)
        model, losses = train_classifier(cubes, plan, self.progress)
        card = ModelCard(
            name=file.stem,
            summary="Separates nodules from the false positives of the U-Net that names it.",
            label="probability that there is a nodule in the middle of the cube",
            preparation={},
            training={**asdict(plan), "data": self.settings["data"], "losses": losses},
            limitations=["Not evaluated on other scans."],
        )
        return model, card, file

    def _patch_stage(
        self,
        number: int,
        model: keras.Model,
        scans: StoredScans,
        validation: DrawnBatches,
        epochs: int,
        rate: float,
        before: int = 0,
    ) -> list[Epoch]:
        compile_for_training(model, rate, epochs * self.plan.steps)
        seed = self.plan.seed + 10 * number
        with closing(self._patches(scans, seed, self.plan.steps)) as batches:
            return self._stage(number, model, batches, validation, epochs, before)

    def _patches(self, scans: StoredScans, seed: int, count: int) -> PatchBatches:
        plan = PatchTrainingPlan(
            batch=self.plan.batch, patch=self.plan.patch, lesions=self.plan.lesions, seed=seed
        )
        return PatchBatches(scans, self.preparation, plan, count, self.cubes)

    def _stage(
        self,
        number: int,
        model: keras.Model,
        batches: keras.utils.PyDataset,
        validation: keras.utils.PyDataset,
        epochs: int,
        before: int = 0,
    ) -> list[Epoch]:
        def named(epoch: Epoch) -> Epoch:
            return {**epoch, "epoch": before + epoch["epoch"] + 1, "stage": number}

        name = "Training" if number == 1 else "Training on mistakes"
        figures = fit(
            model,
            batches,
            self.folder / f"stage-{number}",
            epochs=epochs,
            settings=self.settings,
            validation=validation,
            patience=self.plan.patience,
            on_epoch=lambda epoch: self.on_epoch(named(epoch)),
            progress=lambda _, done, total: self.progress(name, done, total),
        )
        return list(map(named, figures))


def _cubes(plan: StoreTrainingPlan, scans: Sequence[StoredScan]) -> list[NoduleCube]:
    """Return the nodules to transplant: from the folder, and outlined in training scans."""
    if plan.preset is Preset.TUTORIAL:
        return []
    cubes = read_cubes(plan.transplants) if plan.transplants else []
    for scan in split_scans(scans, plan.seed)[0]:
        if any(nodule.readers for nodule in scan.nodules):
            cubes += cut_cubes(scan.name, scan.volume("hu"), scan.volume("nodules"))
    return cubes


def _build(plan: StoreTrainingPlan, preparation: Preparation) -> keras.Model:
    if plan.preset is Preset.TUTORIAL:
        return build_unet(preparation.size, preparation.channels, plan.filters)
    return build_unet(None, preparation.channels, plan.filters, batch_norm=True)


def _settings(
    plan: StoreTrainingPlan, preparation: Preparation, scans: Sequence[StoredScan]
) -> dict[str, Any]:
    """All that determines the training; files by digests, as a path could name a patient."""
    data, files = hashlib.sha256(), hashlib.sha256()
    for scan in scans:
        files.update(scan.state().encode())
        data.update(repr(replace(scan, folder=Path(scan.folder.name), source="")).encode())
    weights = None if plan.weights is None else file_sha256(plan.weights)
    return {
        **asdict(plan),
        "weights": weights,
        "transplants": plan.transplants and cubes_sha256(plan.transplants),
        "preparation": asdict(preparation),
        "data": data.hexdigest(),
        "data_files": files.hexdigest(),
    }


def _earlier_card(weights: Path | None) -> ModelCard:
    """Return the card of the model that a training starts from, an empty one if it has none."""
    if weights is not None and weights.suffix == TRAIN:
        if weights.with_suffix(".json").is_file():
            return load_model(weights)[1]
        added = weights.with_name(CARD)
        if added.is_file() and weights.name in (card := read_card(added)).files:
            require_files(added, card)
            return card
    return ModelCard("", "", "")


def _card(
    name: str,
    plan: StoreTrainingPlan,
    preparation: Preparation,
    training: dict[str, Any],
    best: Epoch,
) -> ModelCard:
    held_out = "slices" if plan.preset is Preset.TUTORIAL else "patches"
    return ModelCard(
        name=name,
        summary=f"U-Net that marks lung nodules in axial chest CT, preset {plan.preset}.",
        label="probability that a voxel belongs to a lung nodule",
        preparation=asdict(preparation),
        rules=asdict(NoduleRules()),
        training=training,
        results={f"held-out {held_out}, best epoch": best},
        limitations=[
            "The best epoch was chosen on the held-out patients: their figures flatter it.",
            "Not tried on scans of other hospitals.",
        ],
    )
