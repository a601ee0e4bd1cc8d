"""The default detector: a segmentation network and a classifier of its candidates."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from CTLungScreeningLib.engine import Device, Network, device_of, notes_of, takes
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import ModelCard, load_network, read_card
from CTLungScreeningLib.progress import ProgressCallback, silent
from LungNoduleSegLib.detectors.detection import Detector
from LungNoduleSegLib.network.classifier import CUBE, reduce_false_positives
from LungNoduleSegLib.network.inference import Preparation, nodule_probability
from LungNoduleSegLib.nodules.cavities import fill_cavities


@dataclass(frozen=True)
class NoduleDetector(Detector):
    """Finds nodules with the networks of this project.

    Attributes:
        card: of the segmentation network.
        network: the segmentation network.
        second: another one, see `add_second_opinion`; None for none.
        classifier: scores what both mark; None leaves it as it is.
        partners: cards of the others by `PARTNERS`.
    """

    card: ModelCard
    network: Network
    second: Network | None = None
    classifier: Network | None = None
    partners: dict[str, ModelCard] = field(default_factory=dict)

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
        hu = fill_cavities(hu, lungs)
        probability = nodule_probability(
            self.network, preparation, hu, lungs, progress, self.second
        )
        if self.classifier is None:
            return probability
        return reduce_false_positives(self.classifier, probability, hu, progress)

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each GPU that was found and is not used."""
        networks = (self.network, self.second, self.classifier)
        return tuple(dict.fromkeys(note for one in networks for note in notes_of(one)))

    def record(self) -> dict[str, Any]:
        """Name all networks by the hashes of their files, and the device that runs them."""
        hashes = {f"{name}_sha256": card.sha256 for name, card in self.partners.items()}
        return {**super().record(), "device": device_of(self.network), **hashes}


PARTNERS = ("second_opinion", "classifier")
"""Attributes of a segmentation network's card that name the files of other networks."""


def read_partner_cards(model_file: Path, card: ModelCard) -> dict[str, ModelCard]:
    """Read and check the cards of the networks that the card of a model names, by `PARTNERS`.

    Raises:
        InputError: as `CTLungScreeningLib.model_card.read_card`, or if the second opinion has
            another preparation.
    """
    files = _partner_files(model_file, card)
    return _checked(model_file, card, {name: read_card(file) for name, file in files.items()})


def load_networks(model_file: Path, device: Device | None = None) -> NoduleDetector:
    """Load a segmentation network and the others that its card names.

    Args:
        model_file: any of the segmentation network's files.
        device: where they run; None for a GPU if there is one.

    Raises:
        InputError: as `CTLungScreeningLib.model_card.load_network` and `read_partner_cards`.
    """
    network, card = load_network(model_file, device)
    preparation = Preparation(**card.preparation)
    slices = (1, preparation.size, preparation.size, preparation.channels)
    _require_input(network, model_file, slices)
    files = _partner_files(model_file, card)
    loaded = {name: load_network(file, device) for name, file in files.items()}
    partners = _checked(model_file, card, {name: own for name, (_, own) in loaded.items()})
    inputs = {"second_opinion": slices, "classifier": (1, *CUBE, 1)}
    for name, (partner, _) in loaded.items():
        _require_input(partner, files[name], inputs[name])
    second, classifier = (loaded[name][0] if name in loaded else None for name in PARTNERS)
    return NoduleDetector(card, network, second, classifier, partners)


def _require_input(network: Network, card_file: Path, shape: tuple[int, ...]) -> None:
    """Refuse a network that does not take arrays of this shape."""
    if takes(network.input_shape, shape):
        return
    needed, taken = (
        " × ".join("any" if n is None else str(n) for n in lengths[1:])
        for lengths in (shape, network.input_shape)
    )
    raise InputError(
        f"{card_file.with_suffix('.json')} describes a network for {needed} values, but its file "
        f"takes {taken}: get both files of one model, or choose one of the right kind."
    )


def _checked(
    model_file: Path, card: ModelCard, partners: dict[str, ModelCard]
) -> dict[str, ModelCard]:
    second = partners.get("second_opinion")
    if second is not None and second.preparation != card.preparation:
        raise InputError(
            f"{model_file.with_name(card.second_opinion)} prepares scans in another way than "
            f"{model_file}: name a network with the same preparation."
        )
    return partners


def _partner_files(model_file: Path, card: ModelCard) -> dict[str, Path]:
    files = {name: getattr(card, name) for name in PARTNERS if getattr(card, name)}
    for name, file in files.items():
        if Path(file).name != file:
            raise InputError(
                f"{model_file.with_suffix('.json')} names the {name.replace('_', ' ')} {file}: it "
                "must be the name of a file in the same folder."
            )
    return {name: model_file.with_name(file).with_suffix(".json") for name, file in files.items()}
