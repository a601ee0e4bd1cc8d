"""The models that a user brought: those that are there, and a further one from a zip file."""

from contextlib import suppress
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from CTLungScreeningLib.errors import InputError
from LungNoduleSegLib.detectors.added_models import add_model, read_zip_card, what_runs
from LungNoduleSegLib.detectors.opening import find_card, model_names


def about_model(model: Path) -> tuple[str, str]:
    """Give name and description of a model.

    Raises:
        InputError: if it cannot be used.
    """
    card = find_card(model)
    return card.name, f"{card.description}\n\n{model}"


def added_models() -> list[Path]:
    """Give the names of the models that were added before and can be used, as paths."""
    usable = []
    for name in model_names()[1:]:
        with suppress(InputError):
            find_card(Path(name))
            usable.append(Path(name))
    return usable


def added(file: Path) -> Path:
    """Add the model in a zip file and give its name, as a path; give any other file as it is.

    Raises:
        InputError: if the file is no model, or the user does not agree to the program it runs.
    """
    if file.suffix.lower() != ".zip":
        return file
    card = read_zip_card(file)
    command = what_runs(card)
    if command:
        question = _(
            "{model} runs this program on your computer, with your rights, each time it is used:"
            "\n\n{command}\n\nMay it?"
        ).format(model=card.name, command=command)
        if not slicer.util.confirmOkCancelDisplay(question, _("Add model")):
            raise InputError(f"{card.name} was not added, as its program may not run.")
    add_model(file, may_run=command)
    return Path(card.name)
