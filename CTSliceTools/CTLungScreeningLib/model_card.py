"""A model and its card: `NAME.keras` with `NAME.json` beside it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file, refuse_existing

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class ModelCard:
    """What has to be known to use a model and to judge it.

    Attributes:
        name: short name, also shown to the user.
        summary: what it does, in one sentence.
        label: what the output means.
        preparation: arguments of the preparation that the model was trained with.
        rules: arguments of the rules applied to its output.
        training: data, command, steps and seeds.
        results: measured figures, each with the data it was measured on.
        limitations: where it is not to be trusted.
        second: name of another model's file in the same folder, which goes over what this one
            says; empty if there is none.
        sha256: of the `.keras` file, checked on loading.
    """

    name: str
    summary: str
    label: str
    preparation: dict[str, Any]
    rules: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    limitations: list[str] = field(default_factory=list)
    second: str = ""
    sha256: str = ""


def read_card(model_file: Path) -> ModelCard:
    """Read the card beside a `.keras` file and check that it belongs to it.

    Raises:
        InputError: if the model or the card is missing or damaged, or they do not match.
    """
    card_file = model_file.with_suffix(".json")
    for file in (model_file, card_file):
        if not file.is_file():
            raise InputError(f"{file} is missing: a model is a .keras file with its .json card.")
    try:
        card = ModelCard(**json.loads(card_file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{card_file} is not a model card: {error}.") from error
    if card.sha256 != file_sha256(model_file):
        raise InputError(f"{model_file} is not the file that {card_file.name} describes: get both.")
    return card


def load_model(model_file: Path) -> "tuple[keras.Model, ModelCard]":
    """Load a `.keras` file and its card for inference; code in the file is never run.

    Raises:
        InputError: as `read_card`, or if the file is not a Keras model.
    """
    from CTLungScreeningLib.keras_loader import keras  # noqa: PLC0415 - slow to import

    card = read_card(model_file)
    try:
        return keras.saving.load_model(model_file, compile=False, safe_mode=True), card
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"{model_file} cannot be read as a Keras model: {error}.") from error


def require_new_model(model_file: Path) -> None:
    """See that a model can be saved under a name, hours before that is done.

    Raises:
        InputError: if the name has another suffix, or the model or its card exists.
    """
    if model_file.suffix != ".keras":
        raise InputError(f"{model_file} must end with .keras, as a model is such a file.")
    refuse_existing(model_file.parent, [model_file.name, model_file.with_suffix(".json").name])


def save_model(model: "keras.Model", card: ModelCard, model_file: Path) -> ModelCard:
    """Save a model for inference, and its card, under new names; returns the card with the hash.

    The state of the optimizer, twice the size of the weights, is left out.

    Raises:
        InputError: if either file exists.
    """
    from CTLungScreeningLib.keras_loader import keras  # noqa: PLC0415 - slow to import

    with new_file(model_file) as temporary:
        keras.Model(model.inputs, model.outputs, name=model.name).save(temporary)
        card = replace(card, sha256=file_sha256(temporary))
        with new_file(model_file.with_suffix(".json")) as temporary_card:
            temporary_card.write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")
    return card


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
