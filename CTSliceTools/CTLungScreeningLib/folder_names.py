"""Folder names made from DICOM identifiers: legal on every system, never the same for two."""

import hashlib
import string
from pathlib import Path

MAX_LENGTH = 64
"""Of a name; as long as a UID may be."""

MISSING = "+missing"
"""The name for an empty identifier."""

_PLAIN = frozenset(string.ascii_letters + string.digits + "-_.")
_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10)),
}
"""Names that Windows keeps for itself, also with a suffix."""


def folder_name(identifier: str, marked: bool = False) -> str:
    """Give the folder name of a patient, study or series identifier.

    Letters, digits, `-`, `_` and inner dots stand for themselves, and so does a UID. Other bytes of
    its UTF-8 form become `+` and two hexadecimal digits, so do a dot at either end and the first
    letter of a Windows device name. A name that would be longer than `MAX_LENGTH` is cut; `++` and
    a SHA-256 digest of the identifier (124 bits) follow.

    Args:
        identifier: any text.
        marked: append `@` and the hexadecimal number whose bits say which letters are small, which
            keeps "Ab" and "AB" apart where the file system does not.

    Returns:
        A name of ASCII characters. Different identifiers have different names, which differ in more
        than case if one of them is marked.
    """
    if not identifier:
        return MISSING
    raw = identifier.encode("utf-8", "surrogatepass")
    characters = [chr(byte) if chr(byte) in _PLAIN else f"+{byte:02x}" for byte in raw]
    if identifier.partition(".")[0].upper() in _DEVICES or characters[0] == ".":
        characters[0] = f"+{raw[0]:02x}"
    if characters[-1] == ".":
        characters[-1] = "+2e"
    small = int("0" + "".join("01"[one.islower()] for one in characters if one.isalpha()), 2)
    name = "".join(characters) + (f"@{small:x}" if marked else "")
    if len(name) > MAX_LENGTH:
        half = MAX_LENGTH // 2 - 1
        name = f"{name[:half]}++{hashlib.sha256(raw).hexdigest()[:half]}"
    return name


class FolderNames:
    """Names of the folders below some others, no two of which differ in case alone."""

    def __init__(self) -> None:
        self._there: dict[Path, dict[str, str]] = {}

    def child(self, parent: Path, identifier: str) -> Path:
        """Give the folder of an identifier: its plain name, marked if that is taken but for case.

        What is in `parent` when it is first asked for counts as taken.
        """
        if parent not in self._there:
            there = parent.iterdir() if parent.is_dir() else ()
            self._there[parent] = {path.name.casefold(): path.name for path in there}
        name = folder_name(identifier)
        if self._there[parent].setdefault(name.casefold(), name) != name:
            name = folder_name(identifier, marked=True)
        return parent / name
