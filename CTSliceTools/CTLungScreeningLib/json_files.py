"""JSON files: read from anywhere, written without loss."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file, replace_text


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        InputError: if it cannot be read, is not a JSON object, or names a key twice.
    """
    try:
        content = parse_json(file.read_bytes(), object_pairs_hook=_once_each)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist: give the file or the folder it is in.") from None
    except OSError as error:
        raise InputError(
            f"{file} cannot be read ({error.strerror}): make it readable and try again."
        ) from error
    except _TwiceError as twice:
        raise InputError(f"{file} names “{twice}” twice: keep one of the two.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not a JSON file ({error}): repair or move it.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no JSON object: repair it or move it away.")
    return content


def write_object(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as a new JSON file.

    Raises:
        InputError: if there is something at `path`.
        ValueError: if a number in it is not finite.
    """
    with new_file(path) as temporary:
        temporary.write_text(json_text(content, allow_nan=False), encoding="utf-8")


def changed_names(kept: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    """Name what `content` has otherwise than an object that was read from a JSON file, sorted."""
    wanted = json.loads(json.dumps(content))
    return sorted(name for name in kept | wanted if kept.get(name) != wanted.get(name))


def replace_object(
    file: Path, content: Mapping[str, Any], is_ours: Callable[[dict[str, Any]], bool]
) -> None:
    """Write an object as a JSON file; one of ours that is there already is replaced.

    Args:
        file: to write; its folder exists.
        content: what it is to hold.
        is_ours: whether what the file holds now is what this program writes there.

    Raises:
        InputError: if the file there is not ours, or cannot be written.
    """
    if file.exists():
        try:
            ours = is_ours(read_object(file))
        except InputError:
            ours = False
        if not ours:
            raise InputError(
                f"{file} holds something other than what this program writes there: move it away; "
                "nothing was overwritten."
            )
    replace_text(file, json_text(content))


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Parse JSON from a file that may come from anywhere, with the options of `json.loads`.

    Bytes may be UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        ValueError: if it is not JSON, or nested so deeply that Python gives up.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number, and one that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def json_text(content: object, allow_nan: bool = True) -> str:
    """Return the content of a JSON file; file names that are not Unicode are escaped.

    Raises:
        ValueError: if a number in it is not finite and that is not allowed.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2, allow_nan=allow_nan) + "\n"
    return text


class _TwiceError(Exception):
    """A key that an object names twice."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise _TwiceError(key)
        content[key] = value
    return content
