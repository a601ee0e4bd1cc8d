"""A model and its card: `NAME.json` with `NAME.onnx` to run and `NAME.keras` to train on from."""

import hashlib
import importlib.util
import inspect
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin
from zipfile import ZipFile

from CTLungScreeningLib.engine import Device, Network, OnnxNetwork
from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.files import (
    is_path_below,
    new_file,
    new_files,
    refuse_existing,
    refuse_links,
    replace_text,
    require_unpacked,
)
from CTLungScreeningLib.json_files import is_number, parse_json

if TYPE_CHECKING:
    import keras

RUN, TRAIN = ".onnx", ".keras"
"""Suffixes of the files of a network: to run, and to train on from."""

CARD = "model.json"
"""Name of the card in a folder or zip file of its own."""

KINDS = ("network", "onnx", "command", "python")
"""Kind of model: a network of this project, any ONNX network, a program, or a Python class."""


Settings = TypeVar("Settings")


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to use a model and to judge it.

    Attributes:
        name: short name, also shown to the user.
        summary: what it does, in one sentence.
        label: meaning of the output.
        preparation: arguments of the preparation that the model was trained with.
        rules: arguments of the rules applied to its output.
        training: data, command, steps and seeds.
        results: measured accuracy, with the data it was measured on.
        limitations: cases in which it is not reliable.
        second_opinion: name of the file, in the same folder, of a model with the same preparation
            that looks at what this one finds; empty for none.
        classifier: likewise, of a model that removes false positives from the output.
        files: the model's files in the folder of the card with their SHA-256, checked on loading.
        kind: one of `KINDS`.
        input: input specification of an `onnx` model.
        output: output specification of an `onnx` or `command` model.
        command: arguments of the program that a `command` model runs.
        licence: of the model's files.
        citation: what to cite when it is used.
        training_cases: SeriesInstanceUIDs of the scans it was trained on; for a volume file, its
            name without the suffix.
        cost: `seconds` and `gib` of a run, for a scan of `megavoxels`.
    """

    name: str
    summary: str
    label: str
    preparation: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    limitations: list[str] = field(default_factory=list)
    second_opinion: str = ""
    classifier: str = ""
    files: dict[str, str] = field(default_factory=dict)
    kind: str = KINDS[0]
    input: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    licence: str = ""
    citation: str = ""
    training_cases: list[str] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """Summary, limitations, licence and cost, as text."""
        limits = "".join(f"\n• {one}" for one in self.limitations)
        cost = {name: self.cost.get(name) for name in ("seconds", "gib", "megavoxels")}
        measured = "{seconds:g} s and {gib:g} GiB for {megavoxels:g} million voxels"
        parts = {
            self.summary: "",
            "Known limits:": limits,
            "Licence: ": self.licence,
            "Please cite: ": self.citation,
            "Measured: ": measured.format(**cost) if None not in cost.values() else "",
        }
        return "\n\n".join(
            name + text for name, text in parts.items() if text or name == self.summary
        )

    def file(self, suffix: str) -> str | None:
        """Name of the model's file with a suffix, or None."""
        return next((name for name in self.files if name.endswith(suffix)), None)

    @property
    def sha256(self) -> str:
        """Hash of the network's file, or of the card for other kinds of models."""
        name = self.file(RUN) or self.file(TRAIN)
        return self.files[name] if name else hashlib.sha256(_text(self).encode()).hexdigest()


def read_card(model_file: Path) -> ModelCard:
    """Read the card of a model and check the file that will be run.

    Args:
        model_file: any of its files: `NAME.json`, `NAME.onnx` or `NAME.keras`.

    Raises:
        InputError: if a file is missing or damaged, or does not match the card.
    """
    card = _read(model_file)
    if card.kind == KINDS[0]:
        _check(model_file, card, card.file(RUN) or card.file(TRAIN))
    else:
        require_files(model_file.with_suffix(".json"), card)
    return card


def settings_of(kind: Callable[..., Settings], values: dict[str, Any], where: str) -> Settings:
    """Make a dataclass of what a card has in a field such as `rules`.

    Raises:
        InputError: naming `where`, the card and its field, if a name or a value is wrong.
    """
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except TypeError as error:
        known = inspect.signature(kind).parameters
        unknown = ", ".join(sorted(values.keys() - known.keys()))
        raise InputError(
            f"{where}: leave out {unknown}, which is not known here; known are {', '.join(known)}."
        ) from error


def require_files(card_file: Path, card: ModelCard) -> None:
    """Check that all files of a model match its card.

    Raises:
        InputError: naming a file that is missing or different.
    """
    for name in card.files:
        _check(card_file, card, name)


def load_network(model_file: Path, device: Device | None = None) -> tuple[Network, ModelCard]:
    """Load a model and its card to run it.

    Args:
        model_file: any of its files.
        device: that runs it; None for a GPU if available.

    Raises:
        InputError: as `read_card`, or if the model cannot be run; without an `.onnx` file it needs
            Keras.
    """
    card = read_card(model_file)
    if name := card.file(RUN):
        return OnnxNetwork(model_file.parent / name, device, small_batches=True), card
    if importlib.util.find_spec("keras") is None:
        raise InputError(
            f"{model_file.with_suffix(TRAIN)} runs with Keras only, which is not installed: make "
            "its .onnx file with `lung-nodule-seg models convert` on a computer that trains, or "
            'install "CTLungScreening[train]".'
        )
    return load_model(model_file)


def load_model(model_file: Path) -> "tuple[keras.Model, ModelCard]":
    """Load a `.keras` file and its card to train on from it; code in the file is never run.

    Raises:
        InputError: as `read_card`, or if the file is not a Keras model.
    """
    from CTLungScreeningLib.keras_loader import keras  # noqa: PLC0415 - slow to import

    card = _read(model_file)
    file = _check(model_file, card, card.file(TRAIN))
    require_whole(file)
    try:
        return keras.saving.load_model(file, compile=False, safe_mode=True), card
    except DAMAGE as error:
        saved_by = _saved_by(file)
        if saved_by and saved_by != keras.__version__:
            raise InputError(
                f"{file} was saved by Keras {saved_by} and cannot be read by {keras.__version__}, "
                "which is here: install that version or a newer one."
            ) from error
        raise InputError(f"{file} cannot be read as a Keras model: {error}.") from error


def _saved_by(file: Path) -> str:
    """Return the version of Keras that saved a file; "" if it does not say."""
    with suppress(*DAMAGE), ZipFile(file) as archive:
        return str(json.loads(archive.read("metadata.json"))["keras_version"])
    return ""


def require_whole(file: Path) -> None:
    """Check that a `.keras` file is not cut short, and packs nothing, before Keras opens it.

    Raises:
        InputError: if it is or does.
    """
    try:
        require_unpacked(file)
    except DAMAGE as error:
        raise InputError(
            f"{file} cannot be read as a Keras model: it is damaged, get it again."
        ) from error


def training_folder(output: Path) -> Path:
    """Name the folder of a training, beside its model."""
    return output.parent / f"{output.stem}-training"


def require_new_model(model_file: Path) -> None:
    """Check before a training that its model can be saved under a name.

    Raises:
        InputError: if the suffix is wrong, a card could not name the file, or one of the model's
            files exists.
    """
    if model_file.suffix != TRAIN:
        raise InputError(f"{model_file} is not a valid name for a model: it must end with .keras.")
    if not is_path_below(model_file.name):
        raise InputError(
            f"{model_file} is not a valid name for a model on every system: choose one without "
            "colons or backslashes that is not a Windows device name."
        )
    names = [model_file.with_suffix(suffix).name for suffix in (TRAIN, RUN, ".json")]
    refuse_existing(model_file.parent, names)


def save_model(model: "keras.Model", card: ModelCard, model_file: Path) -> ModelCard:
    """Save a model as `.keras` and `.onnx` with its card, as new files.

    The optimizer's state, twice the size of the weights, is not saved. A network that cannot be
    written as ONNX, for whatever reason, gets a `.keras` file only, so that no training is lost.

    Args:
        model: the network.
        card: without `files`.
        model_file: the `.keras` file; the others are written beside it.

    Returns:
        The card with the files.

    Raises:
        InputError: if one of the files exists.
    """
    (saved,) = save_models((model, card, model_file))
    return saved


def save_models(*models: "tuple[keras.Model, ModelCard, Path]") -> list[ModelCard]:
    """Save models that belong together, all or none, each with its card and file: `save_model`."""
    from CTLungScreeningLib.keras_loader import keras  # noqa: PLC0415 - slow to import

    contents: dict[Path, bytes] = {}
    for model, _, model_file in models:
        require_new_model(model_file)
        with suppress(Exception):
            from CTLungScreeningLib.onnx_export import to_onnx  # noqa: PLC0415

            contents[model_file.with_suffix(RUN)] = to_onnx(model)
    model_files = [model_file for *_, model_file in models]
    cards = [model_file.with_suffix(".json") for model_file in model_files]
    saved = []
    with new_files(*model_files, *contents, *cards) as written:
        for model, card, model_file in models:
            to_train, run_file = written[model_file], model_file.with_suffix(RUN)
            keras.Model(model.inputs, model.outputs, name=model.name).save(to_train)
            files = {model_file.name: file_sha256(to_train)}
            if run_file in contents:
                written[run_file].write_bytes(contents[run_file])
                files = {run_file.name: hashlib.sha256(contents[run_file]).hexdigest(), **files}
            saved.append(replace(card, files=files))
            written[model_file.with_suffix(".json")].write_text(_text(saved[-1]), encoding="utf-8")
    return saved


def convert_model(model_file: Path) -> ModelCard:
    """Add the `.onnx` file of a model with only a `.keras` file, and update its card.

    Raises:
        InputError: as `load_model`, or if an `.onnx` file exists, or the network cannot be written
            as ONNX.
    """
    run_file, card_file = (_sibling(model_file, suffix) for suffix in (RUN, ".json"))
    refuse_existing(run_file.parent, [run_file.name])
    refuse_links(card_file)
    model, card = load_model(model_file)
    from CTLungScreeningLib.onnx_export import to_onnx  # noqa: PLC0415 - slow to import

    with new_file(run_file) as temporary:
        temporary.write_bytes(to_onnx(model))
        files = {run_file.name: "", **card.files}
        files[run_file.name] = file_sha256(temporary)
    card = replace(card, files=files)
    try:
        replace_text(card_file, _text(card))
    except BaseException:
        run_file.unlink()  # the card does not name it
        raise
    return card


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def contents_sha256(files: Iterable[Path]) -> str:
    """Digest the names and contents of those files that are there, in order."""
    states = [(file.name, file_sha256(file)) for file in files if file.is_file()]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def _text(card: ModelCard) -> str:
    return json.dumps(asdict(card), indent=2) + "\n"


def _sibling(model_file: Path, suffix: str) -> Path:
    """The path of another of a model's files; of any path, even one without a name such as `/`."""
    return model_file.parent / f"{model_file.stem}{suffix}"


def _read(model_file: Path) -> ModelCard:
    card_file = _sibling(model_file, ".json")
    for file in (model_file, card_file):
        if not file.is_file():
            raise InputError(f"{file} is missing: a model is an .onnx or .keras file with a card.")
    try:
        text = card_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{card_file} is not a model card: {error}.") from error
    return card_from_text(text, str(card_file))


def card_from_text(text: str, source: str) -> ModelCard:
    """Parse a card and check the type of each field.

    Args:
        text: JSON.
        source: name of the card in messages.

    Raises:
        InputError: naming the field that is missing, unknown or invalid.
    """

    def wrong(why: str) -> InputError:
        return InputError(f"{source} is not a model card: {why}.")

    try:
        values = parse_json(text)
    except ValueError as error:
        raise wrong(str(error)) from error
    if not isinstance(values, dict):
        raise wrong("it must be an object with fields")
    known = {one.name: one for one in fields(ModelCard)}
    for name, value in values.items():
        if name not in known:
            raise wrong(f"it has no field `{name}`")
        if why := _mistyped(value, known[name].type):
            raise wrong(f"the field `{name}` must {why}")
    for name in ("name", "summary", "label"):
        if name not in values:
            raise wrong(f"the field `{name}` is missing")
    for name in values.get("files", {}):
        if not is_path_below(name):
            raise wrong(f"the field `files` has {name!r}, which is not a path below the card")
    card = ModelCard(**values)
    if card.kind not in KINDS:
        raise wrong(f"the field `kind` must be one of {', '.join(KINDS)}")
    return card


def _mistyped(value: Any, declared: Any) -> str:
    """Say what a field of the wrong type must be or hold; "" if its type is right."""
    kind = get_origin(declared) or declared
    if not isinstance(value, kind):
        words: dict[Any, str] = {str: "be a string", dict: "be an object", list: "be a list"}
        return words[kind]
    inner = get_args(declared)[-1] if get_args(declared) else Any
    held = value.values() if kind is dict else value
    if inner is str and not all(isinstance(one, str) for one in held):
        return "hold only strings"
    if inner is float and not all(is_number(n) and n >= 0 for n in held):
        return "hold only numbers from 0 on"
    return ""


def _check(model_file: Path, card: ModelCard, name: str | None) -> Path:
    """Return the path of one of a model's files after checking its hash."""
    card_file = model_file.with_suffix(".json")
    if name is None:
        raise InputError(f"{card_file} names no file to run under `files`.")
    file = card_file.parent / name
    if not file.is_file():
        raise InputError(f"{file} is missing: {card_file.name} describes it.")
    if card.files[name] != file_sha256(file):
        raise InputError(f"{file} is not the file that {card_file.name} describes: get both.")
    return file
