"""Options that a command, a panel and the child process between them share.

Each is declared once, as an annotated field of a dataclass::

    @dataclass(frozen=True)
    class Plan:
        epochs: Annotated[int, Option("Maximum.", min=1)] = 30

`command_line.with_options` makes command-line options of the fields, `section.with_parameters`
parameters of a panel, and `arguments_of` what a panel passes to a command.
"""

from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from CTLungScreeningLib.errors import InputError

MAX_SEED = 2**31 - 1
"""Largest seed: scikit-learn and Keras take no more than 32 bits, a spin box of Qt 31."""


@dataclass(frozen=True)
class Option:
    """Declares a field as an option.

    Attributes:
        help: describes it on the command line.
        min: smallest number.
        max: largest number.
    """

    help: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class OptionField:
    """An option as it was declared.

    Attributes:
        name: of the field.
        type: of a value other than None.
        optional: whether it may be None. A field without a default may: its dataclass has a
            constructor `of` that replaces None.
        default: value of an option that was not set.
        option: see `Option`.
    """

    name: str
    type: Any
    optional: bool
    default: Any
    option: Option


def options_of(kind: Any) -> tuple[OptionField, ...]:
    """Return the fields of a dataclass that are declared as options."""
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in fields(kind):
        annotated, *metadata = get_args(hints[field.name]) or (None,)
        for option in metadata:
            if isinstance(option, Option):
                types = [one for one in get_args(annotated) if one is not NoneType] or [annotated]
                optional = NoneType in get_args(annotated) or field.default is MISSING
                default = None if field.default is MISSING else field.default
                found.append(OptionField(field.name, types[0], optional, default, option))
    return tuple(found)


def make_options(kind: Any, values: dict[str, Any]) -> Any:
    """Make a dataclass of options from their values; see `OptionField.optional`."""
    return getattr(kind, "of", kind)(**values)


def arguments_of(options: Any) -> list[str]:
    """Return the arguments that set a command's options to those of a dataclass.

    The field `empty_scans` is the option `--empty-scans`, and `--no-empty-scans` if it is False.
    Options that are None or have their default are left out.
    """
    arguments: list[str] = []
    for one in options_of(type(options)):
        value, name = getattr(options, one.name), one.name.replace("_", "-")
        if value is None or value == one.default:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        else:
            arguments += [f"--{name}", str(value)]
    return arguments


Choice = TypeVar("Choice", bound=StrEnum)


def choice_of(kind: type[Choice], value: str, name: str) -> Choice:
    """Return one of several choices, which a script may have given as text.

    Raises:
        InputError: naming the argument and its choices, if it is none of them.
    """
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"`{name}` must be one of {', '.join(kind)}, not {value!r}.") from None


def settle_choices(options: Any) -> None:
    """Make choices of the text that a script gave a dataclass for them: its `__post_init__`.

    Raises:
        InputError: as `choice_of`.
    """
    for name, kind in _choices(options.__class__).items():
        value = getattr(options, name)
        if value is not None:
            object.__setattr__(options, name, choice_of(kind, value, name))


@cache
def _choices(kind: type) -> dict[str, type[StrEnum]]:
    return {
        name: one
        for name, hint in get_type_hints(kind).items()
        for one in (get_args(hint) if isinstance(hint, UnionType) else (hint,))
        if isinstance(one, type) and issubclass(one, StrEnum)
    }


def spellings(member: StrEnum) -> tuple[str, str]:
    """Return the two spellings of a member, value and name; the one to type comes last."""
    value, name = str(member), member.name.lower().replace("_", "-")
    return (value, name) if " " in value else (name, value)
