"""The JSON files of a dataset: one object each, read with care, replaced in one step."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import replace_text


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        InputError: if it cannot be read, is no JSON object, or names a key twice.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once_each)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist: give the file or the folder it is in.") from None
    except OSError as error:
        raise InputError(
            f"{file} cannot be read ({error.strerror}): make it readable and try again."
        ) from error
    except _TwiceError as twice:
        raise InputError(f"{file} names “{twice}” twice: keep one of the two.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is no JSON file ({error}): mend it or move it away.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no JSON object: mend it or move it away.")
    return content


def replace_object(
    file: Path, content: Mapping[str, Any], is_ours: Callable[[dict[str, Any]], bool]
) -> None:
    """Write an object as a JSON file; one of ours that is there already is replaced.

    Args:
        file: to write; its folder exists.
        content: what it shall hold.
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
                f"{file} holds something else than this program writes there: move it away; "
                "nothing was overwritten."
            )
    replace_text(file, json_text(content))


def json_text(content: object, allow_nan: bool = True) -> str:
    """Give what a JSON file shall hold; names of files that are not Unicode are escaped.

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
