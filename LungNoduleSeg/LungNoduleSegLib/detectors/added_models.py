"""Models added by the user, each unpacked from a zip into its own folder."""

import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import private_folder
from CTLungScreeningLib.model_card import CARD, ModelCard, card_from_text, require_files
from LungNoduleSegLib.run_cost import settings_folder

MAX_CARD_BYTES = 2_000_000

MAX_BYTES = 4 * 2**30
"""What the files of a model may take together once they are unpacked."""


def models_folder() -> Path:
    """Give the folder with one folder for each added model; it need not be there."""
    return settings_folder() / "models"


def added_models() -> Iterator[Path]:
    """Give the cards of the added models by their names."""
    yield from sorted(models_folder().glob(f"*/{CARD}"))


def read_zip_card(file: Path) -> ModelCard:
    """Read the card in a model's zip file, and nothing else.

    Raises:
        InputError: if it is no such file, or naming the field of the card that is wrong.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entry = archive.getinfo(CARD)
            if entry.file_size > MAX_CARD_BYTES:
                raise InputError(f"{file}: its {CARD} is too large for a card.")
            text = archive.read(entry).decode("utf-8")
    except (
        OSError,
        zipfile.BadZipFile,
        KeyError,
        UnicodeDecodeError,
        NotImplementedError,
    ) as error:
        raise InputError(f"{file} is no model: it must be a zip file with a {CARD}.") from error
    card = card_from_text(text, f"{CARD} in {file}")
    if not card.name.replace("-", "").replace("_", "").isalnum() or not card.name.isascii():
        raise InputError(
            f"{CARD} in {file}: the field `name` may have letters, digits, - and _ only."
        )
    return card


def what_runs(card: ModelCard) -> str:
    """Say which program a model runs on this computer, "" if it is data only."""
    return " ".join(card.command) if card.kind == "command" else ""


def add_model(file: Path, may_run: str = "") -> Path:
    """Unpack a model's zip file, which may come from anywhere; all of it or nothing.

    Args:
        file: the zip file.
        may_run: what the user agreed to, see `what_runs`.

    Returns:
        The card of the added model.

    Raises:
        InputError: if it is no model, holds a file that its card does not name, or one that is not
            what the card says; if a model of its name is there; or if it would run another
            program than the one agreed to.
    """
    card = read_zip_card(file)
    if what_runs(card) != may_run:
        raise InputError(
            f"{card.name} runs a program on this computer, {what_runs(card)!r}: agree to it first."
        )
    folder = models_folder()
    target = folder / card.name
    if target.exists():
        raise InputError(f"There is a model {card.name} already: remove it first.")
    folder.mkdir(parents=True, exist_ok=True)
    with private_folder(folder, ".adding-") as temporary:
        unpacked = temporary / card.name
        unpacked.mkdir()
        with zipfile.ZipFile(file) as archive:
            _unpack(archive, card, unpacked, file)
        require_files(unpacked / CARD, card)
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
    shutil.rmtree(card.parent)


def _unpack(archive: zipfile.ZipFile, card: ModelCard, folder: Path, file: Path) -> None:
    entries = [one for one in archive.infolist() if not one.is_dir()]
    if sum(one.file_size for one in entries) > MAX_BYTES:
        raise InputError(f"{file} unpacks to more than {MAX_BYTES // 2**30} GiB: it is no model.")
    named = {CARD, *card.files}
    for entry in entries:
        link = stat.S_ISLNK(entry.external_attr >> 16)
        if entry.filename not in named or link:
            raise InputError(f"{file} holds {entry.filename!r}, which its card does not name.")
        place = folder / entry.filename
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with archive.open(entry) as source, place.open("xb") as copy:
                shutil.copyfileobj(source, copy)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise InputError(f"{file}: {entry.filename} cannot be unpacked: {error}.") from error
