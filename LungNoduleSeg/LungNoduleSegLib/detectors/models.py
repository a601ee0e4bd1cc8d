"""Models the user adds, each unpacked from a zip, and opening any model by name or file."""

import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import IO

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.files import made_folder, private_folder
from CTLungScreeningLib.model_card import (
    CARD,
    ModelCard,
    card_from_text,
    file_sha256,
    read_card,
    settings_of,
)
from LungNoduleSegLib.detectors.added_detectors import CommandDetector, OnnxDetector
from LungNoduleSegLib.detectors.detection import Detector
from LungNoduleSegLib.detectors.network_detector import load_networks, read_partner_cards
from LungNoduleSegLib.network.inference import Preparation
from LungNoduleSegLib.nodules.finding import NoduleRules
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.run_cost import settings_folder

MAX_CARD_BYTES = 2_000_000

MAX_BYTES = 4 * 2**30
"""Maximum size of the unpacked files of a model."""

MAX_EXPANSION = 200
"""Times that a file may become larger when it is unpacked: zeros do, no network does."""

_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The ways of packing that unpack as much as is asked for, not all at once."""


def models_folder() -> Path:
    """Return the folder with one folder for each added model; it need not be there."""
    return settings_folder() / "models"


def added_models() -> Iterator[Path]:
    """Return the cards of the added models by their names."""
    yield from sorted(models_folder().glob(f"*/{CARD}"))


def read_zip_card(file: Path) -> ModelCard:
    """Read the card in a model's zip file, and nothing else.

    Raises:
        InputError: if it is not such a file, or naming the field of the card that is wrong.
    """
    try:
        with zipfile.ZipFile(file) as archive, _opened_part(archive, CARD) as part:
            text = part.read(MAX_CARD_BYTES + 1).decode("utf-8")
    except DAMAGE as error:
        raise InputError(f"{file} is not a model: it must be a zip file with a {CARD}.") from error
    if len(text) > MAX_CARD_BYTES:
        raise InputError(f"{file}: its {CARD} is too large for a card.")
    card = card_from_text(text, f"{CARD} in {file}")
    if not card.name.replace("-", "").replace("_", "").isalnum() or not card.name.isascii():
        raise InputError(
            f"{CARD} in {file}: the field `name` may have letters, digits, - and _ only."
        )
    return card


def what_runs(card: ModelCard) -> str:
    """Return the program that a model runs on this computer, "" if it is data only."""
    return " ".join(card.command) if card.kind == "command" else ""


def add_model(file: Path, may_run: str = "") -> Path:
    """Unpack a model's zip file, which may come from anywhere; all of it or nothing.

    Args:
        file: the zip file.
        may_run: what the user agreed to, see `what_runs`.

    Returns:
        The card of the added model.

    Raises:
        InputError: if it is not a model, holds a file that its card does not name, or one that is
            not what the card says; if another network that the card names is not in the file; if a
            model of its name is there; or if it would run another program than the one agreed to.
    """
    card = read_zip_card(file)
    if card.kind == "python":
        raise InputError(
            f"{file} is not a model file: Python models come with an installed package."
        )
    if what_runs(card) != may_run:
        raise InputError(
            f"{card.name} runs a program on this computer, {what_runs(card)!r}: agree to it first."
        )
    folder = models_folder()
    target = folder / card.name
    if card.name in model_names() or target.exists():
        raise InputError(
            f"There is a model {card.name} already: remove it first, or give this one another "
            f"`name` in its {CARD}."
        )
    require_settings(card, f"{CARD} in {file}")
    with made_folder(folder), private_folder(folder, "adding") as temporary:
        unpacked = temporary / card.name
        unpacked.mkdir()
        with zipfile.ZipFile(file) as archive:
            _unpack(archive, card, unpacked, file)
        for name, digest in card.files.items():
            if not (unpacked / name).is_file():
                raise InputError(f"{file} holds no {name}, which its {CARD} names: get it again.")
            if file_sha256(unpacked / name) != digest:
                raise InputError(
                    f"{file}: {name} is not the file that its {CARD} describes: get it again."
                )
        if card.kind == "network":
            _require_partners(file, unpacked / CARD, card)
        os.rename(unpacked, target)  # noqa: PTH104 - never replaces what is there
    return target / CARD


def remove_model(name: str) -> None:
    """Delete an added model.

    Raises:
        InputError: if no model of this name was added.
    """
    card = next((one for one in added_models() if one.parent.name == name), None)
    if card is None:
        raise InputError(f"No model {name} was added: see `lung-nodule-seg models list`.")
    with private_folder(models_folder(), "removing") as folder:  # all of it at once
        card.parent.rename(folder / name)


def _require_partners(file: Path, unpacked: Path, card: ModelCard) -> None:
    """Check that a zip file holds the other networks that a network's card names."""
    try:
        read_partner_cards(unpacked, card)
    except InputError as error:
        raise InputError(str(error).replace(str(unpacked.parent), str(file))) from error


def _opened_part(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    if archive.getinfo(name).compress_type not in _PACKINGS:
        raise zipfile.BadZipFile("it is packed otherwise than most zip files")
    return archive.open(name)


def _unpack(archive: zipfile.ZipFile, card: ModelCard, folder: Path, file: Path) -> None:
    entries = [one for one in archive.infolist() if not _is_aside(one.filename)]
    if sum(one.file_size for one in entries) > MAX_BYTES:
        raise InputError(f"{file} unpacks to more than {MAX_BYTES // 2**30} GiB: not a model.")
    if any(one.file_size > MAX_EXPANSION * (one.compress_size + 1) for one in entries):
        raise InputError(f"{file} unpacks to hundreds of times its size: not a model.")
    named = {CARD, *card.files}
    for entry in entries:
        link = stat.S_ISLNK(entry.external_attr >> 16)
        if entry.filename not in named or link:
            raise InputError(f"{file} holds {entry.filename!r}, which its card does not name.")
        place = folder / entry.filename
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _opened_part(archive, entry.filename) as source, place.open("xb") as copy:
                shutil.copyfileobj(source, copy)
        except DAMAGE as error:
            raise InputError(f"{file}: {entry.filename} cannot be unpacked: {error}.") from error


def _is_aside(name: str) -> bool:
    """Whether an entry is a folder, or one of those that macOS adds."""
    return name.endswith(("/", ".DS_Store")) or name.startswith("__MACOSX/")


ENTRY_POINTS = "ctlungscreening.detectors"
"""Group of the entry points of packages that bring detectors; each names a `Detector` class that is
made without arguments and has its card."""


def model_names() -> list[str]:
    """Return the names of the models that are there: the bundled one, those added, of packages."""
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
    if isinstance(found, Path):
        card, name = read_card(found), str(found.with_suffix(".json"))
    else:
        card = _class_of(found).card
        name = f"The card of {card.name}"
    require_settings(card, name)
    return card


def require_settings(card: ModelCard, name: str) -> None:
    """Check the rules of a card, and the preparation of a network of this project.

    Raises:
        InputError: naming the card, the field and what is wrong, or that it is a localizer's.
    """
    if "pixel_mm" in card.preparation:
        raise InputError(
            f"{name} describes a localizer of CT Slice Tools, which finds no nodules: choose a "
            "model of `lung-nodule-seg models list`, or one that `lung-nodule-seg train` made."
        )
    settings_of(NoduleRules, card.rules, f"{name}, field `rules`")
    if card.kind == "network":
        settings_of(Preparation, card.preparation, f"{name}, field `preparation`")


def open_detector(model: Path, device: Device | None = None) -> Detector:
    """Open a model, unless it is open.

    Args:
        model: one of its files, or one of `model_names`.
        device: where networks run; None for a GPU if there is one.

    Raises:
        InputError: as `find_card`, or if it runs a program that the user did not agree to.
    """
    card = find_card(model)
    cards = [repr(card)]
    found = _find(model)
    if isinstance(found, Path) and card.kind == "network":
        cards += map(repr, read_partner_cards(found, card).values())
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
            f"The detector {point.name} cannot be loaded ({type(error).__name__}: {error}): check "
            f"the package of {point.value}."
        ) from error
    if not isinstance(getattr(found, "card", None), ModelCard) or not hasattr(found, "detect"):
        raise InputError(
            f"{point.value} is not a detector: it must be a class with `card` and `detect`."
        )
    return found
