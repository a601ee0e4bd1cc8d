"""Find and open a model by file or name."""

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import CARD, ModelCard, read_card
from LungNoduleSegLib.default_model import DEFAULT_MODEL
from LungNoduleSegLib.detectors.added_models import added_models, models_folder
from LungNoduleSegLib.detectors.command_detector import CommandDetector
from LungNoduleSegLib.detectors.detection import Detector
from LungNoduleSegLib.detectors.network_detector import load_networks, second_card
from LungNoduleSegLib.detectors.onnx_detector import OnnxDetector

ENTRY_POINTS = "ctlungscreening.detectors"
"""Group of the entry points of packages that bring detectors; each names a `Detector` class that is
made without arguments and has its card."""


def model_names() -> list[str]:
    """Give the names of the models that are there: the bundled one, those added, of packages."""
    added = [one.parent.name for one in added_models()]
    packages = [one.name for one in entry_points(group=ENTRY_POINTS)]
    return list(dict.fromkeys([DEFAULT_MODEL.stem, *added, *packages]))


def find_card(model: Path) -> ModelCard:
    """Read the card of a model and check its files.

    Args:
        model: one of its files, or one of `model_names`.

    Raises:
        InputError: if there is none, or its card or files cannot be used.
    """
    found = _find(model)
    return read_card(found) if isinstance(found, Path) else _class_of(found).card


def open_detector(model: Path, device: Device | None = None) -> Detector:
    """Open a model, unless it is open.

    Args:
        model: one of its files, or one of `model_names`.
        device: where networks run; None for a GPU if there is one.

    Raises:
        InputError: as `find_card`, or if it runs a program that nobody agreed to.
    """
    card = find_card(model)
    cards = [repr(card)]
    found = _find(model)
    if isinstance(found, Path) and card.kind == "network" and card.second:
        cards.append(repr(second_card(found, card)))
    return _opened(model, device, *cards)


@lru_cache(maxsize=1)
def _opened(model: Path, device: Device | None, *_cards: str) -> Detector:
    """Open a model once for all the scans that a process runs with it."""
    found = _find(model)
    if not isinstance(found, Path):
        return _class_of(found)()
    card = read_card(found)
    if card.kind == "onnx":
        return OnnxDetector(card, found, device)
    if card.kind == "command":
        if found.resolve().parents[1] != models_folder().resolve():
            raise InputError(
                f"{card.name} runs a program on this computer: add it first, with "
                "`lung-nodule-seg models add`, which shows what it runs."
            )
        return CommandDetector(card, found)
    return load_networks(found, device)


def _find(model: Path) -> Path | EntryPoint:
    if model.is_file():
        return model
    if model.name == str(model):
        if model.name == DEFAULT_MODEL.stem:
            return DEFAULT_MODEL
        added = models_folder() / model.name / CARD
        if added.is_file():
            return added
        for one in entry_points(group=ENTRY_POINTS, name=model.name):
            return one
    raise InputError(
        f"{model} is missing: give one of a model's files, or a name that `lung-nodule-seg models "
        "list` shows."
    )


def _class_of(point: EntryPoint) -> type[Detector]:
    try:
        found = point.load()
    except Exception as error:  # whatever another's code raises
        raise InputError(
            f"The detector {point.name} cannot be loaded ({type(error).__name__}: {error}): see to "
            f"the package of {point.value}."
        ) from error
    if not isinstance(getattr(found, "card", None), ModelCard) or not hasattr(found, "detect"):
        raise InputError(
            f"{point.value} is no detector: it must be a class with `card` and `detect`."
        )
    return found
