"""Pseudonyms in folder names: keyed hashes that only the holder of the key can make again."""

import hmac
import os
import secrets
from pathlib import Path

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import new_file

MIN_KEY_BYTES = 16
_LENGTH = 32


def pseudonym(key: bytes, level: str, identifier: str) -> str:
    """Give the folder name that stands for an identifier: half of its HMAC-SHA256 in hexadecimal.

    Args:
        key: the same key gives the same name.
        level: what is named, such as "patient", so that equal identifiers of two levels differ.
        identifier: of the patient, study or series.
    """
    message = f"{level}\0{identifier}".encode("utf-8", "surrogatepass")
    return hmac.digest(key, message, "sha256").hex()[:_LENGTH]


def read_or_make_key(file: Path, destination: Path) -> bytes:
    """Read the key in a file; if there is no such file, make it with a random key of 256 bits.

    A new file can be read and written by its owner only (on Windows: by whom its folder lets).

    Args:
        file: the key's file.
        destination: the folder that will hold pseudonyms; a key in it would go where they go.

    Raises:
        InputError: if the file is inside `destination`, cannot be read or made, holds fewer than
            `MIN_KEY_BYTES` bytes, or others than its owner may use it (not checked on Windows).
    """
    if file.resolve().is_relative_to(destination.resolve()):
        raise InputError(
            f"The key {file} would lie with the pseudonyms in {destination}: keep it elsewhere."
        )
    try:
        if not file.exists():
            _make_key(file)
        key = file.read_bytes().strip()
        mode = file.stat().st_mode
    except OSError as error:
        raise InputError(
            f"The key {file} can neither be read nor made ({error.strerror}): give another file."
        ) from error
    if len(key) < MIN_KEY_BYTES:
        raise InputError(
            f"The key {file} has {len(key)} bytes, fewer than {MIN_KEY_BYTES}: "
            "give another file, or a name that does not exist to have one made."
        )
    if os.name == "posix" and mode & 0o077:
        raise InputError(f"The key {file} is open to others than its owner: run chmod 600 {file}.")
    return key


def _make_key(file: Path) -> None:
    with new_file(file) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="ascii") as stream:  # noqa: PTH123 - a descriptor
            stream.write(secrets.token_hex(32) + "\n")
