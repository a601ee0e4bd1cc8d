"""The default detector: a segmentation network and a classifier of its candidates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib.engine import Device, Network, device_of, notes_of
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import ModelCard, load_network, read_card
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.detectors.detection import Detector
from LungNoduleSegLib.network.classifier import reduce_false_positives
from LungNoduleSegLib.network.inference import Preparation, nodule_probability


@dataclass(frozen=True)
class NoduleDetector(Detector):
    """Finds nodules with the networks of this project.

    Attributes:
        card: of the segmentation network.
        network: the segmentation network.
        classifier: scores what that marks; None leaves it as it is.
        classifier_card: of the classifier.
    """

    card: ModelCard
    network: Network
    classifier: Network | None = None
    classifier_card: ModelCard | None = None

    def detect(
        self, hu: sitk.Image, lungs: sitk.Image, progress: ProgressCallback = silent
    ) -> sitk.Image:
        """Probability that a voxel belongs to a nodule, float32 on the scan's grid.

        Args:
            hu: axial HU image.
            lungs: label image on the same grid, non-zero in the lungs.
            progress: called after each batch.
        """
        preparation = Preparation(**self.card.preparation)
        probability = nodule_probability(self.network, preparation, hu, lungs, progress)
        if self.classifier is None:
            return probability
        return reduce_false_positives(self.classifier, probability, hu, progress)

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each GPU that was found and is not used."""
        notes = [*notes_of(self.network), *notes_of(self.classifier)]
        return tuple(dict.fromkeys(notes))

    def record(self) -> dict[str, Any]:
        """Name both networks by the hashes of their files, and the device that runs them."""
        record = {**super().record(), "device": device_of(self.network)}
        if self.classifier_card is not None:
            record["classifier_sha256"] = self.classifier_card.sha256
        return record


def read_classifier_card(model_file: Path, card: ModelCard) -> ModelCard:
    """Read and check the card of the classifier that the card of a model names.

    Raises:
        InputError: as `CTLungScreeningLib.model_card.read_card`.
    """
    return read_card(_classifier_file(model_file, card))


def load_networks(model_file: Path, device: Device | None = None) -> NoduleDetector:
    """Load a segmentation network and the classifier that its card names, if it names one.

    Args:
        model_file: any of the segmentation network's files.
        device: where they run; None for a GPU if there is one.

    Raises:
        InputError: as `CTLungScreeningLib.model_card.load_network`.
    """
    network, card = load_network(model_file, device)
    if not card.classifier:
        return NoduleDetector(card, network)
    classifier, classifier_card = load_network(_classifier_file(model_file, card), device)
    return NoduleDetector(card, network, classifier, classifier_card)


def _classifier_file(model_file: Path, card: ModelCard) -> Path:
    if Path(card.classifier).name != card.classifier:
        raise InputError(
            f"{model_file.with_suffix('.json')} names the classifier {card.classifier}: it must be "
            "the name of a file in the same folder."
        )
    return model_file.with_name(card.classifier).with_suffix(".json")
