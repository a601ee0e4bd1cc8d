"""Files written without loss, and folder names from DICOM identifiers.

Nothing here follows a symbolic link inside an output folder, writes through one or replaces one.
A run that is killed leaves private folders; the next that writes to the same names removes them,
and the files that belong to an unfinished set.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import string
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from CTLungScreeningLib.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def beside(path: Path | None, suffix: str) -> Path | None:
    """Return the path beside another that adds to its name; None for None.

    None also for a path that has no name to add to, such as the root of a drive.
    """
    return path.with_name(path.name + suffix) if path and path.name.strip(".") else None


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """List the files below a folder that match a pattern, by name.

    Hidden ones and those in hidden folders are left out, such as what a killed run left.
    """
    return sorted(
        file
        for file in folder.rglob(pattern)
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Raise `InputError` if any of `names` is already in `folder`, if only as a broken link.

    What a killed run left of a set of files that it did not finish is removed before.
    """
    names = list(names)
    for name in names:
        remove_leftovers(folder, name)
    there = sorted(name for name in names if os.path.lexists(folder / name))
    if there:
        raise InputError(
            f"{folder} already holds {', '.join(there)}: choose another output folder, "
            "nothing was overwritten."
        )


def require_new_files(*paths: Path) -> None:
    """Raise `InputError` if one of the paths is there, see `refuse_existing`, or is named twice."""
    seen: dict[Path, Path] = {}
    for path in paths:
        place = path.parent.resolve() / path.name
        if place in seen:
            names = " and ".join(dict.fromkeys(map(str, (seen[place], path))))
            raise InputError(f"{names} would be written twice: give each output its own name.")
        seen[place] = path
        refuse_existing(path.parent, [path.name])


def refuse_links(*paths: Path) -> None:
    """Raise `InputError` if one of the paths is a symbolic link."""
    for path in paths:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link, and nothing in an output folder is written through links: "
                "remove it, or choose another folder."
            )


@contextmanager
def private_folder(parent: Path, name: str = "") -> Iterator[Path]:
    """Yield a new folder in `parent` that only this user can open, and remove it at the end.

    Its name cannot be guessed, so no one can have put a link in its place. While the process lives
    it holds a lock on the folder, so that `remove_leftovers` leaves it alone.

    Args:
        parent: an existing folder.
        name: of the file or folder that is made in it, if there is one such.
    """
    remove_leftovers(parent, name)
    with ExitStack() as held:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=hidden_name(name, _UNFINISHED), dir=parent))
            if _lock(folder, held):
                break
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path, name: str | None = None) -> None:
    """Remove the private folders of processes that were killed, and what they half published.

    Args:
        parent: of the private folders.
        name: as for `private_folder`; None for any.
    """
    for folder in private_folders(parent, name):
        with ExitStack() as held:
            if sys.platform != "win32" and _lock(folder, held):
                with suppress(OSError, ValueError):
                    if not all(map(os.path.lexists, json.loads((folder / _SET).read_text()))):
                        take_back((file, parent / file.name) for file in folder.iterdir())
                shutil.rmtree(folder, ignore_errors=True)


def private_folders(parent: Path, name: str | None = None) -> list[Path]:
    """The folders that `private_folder` has made: real ones that no one else can open.

    None where a mount gives every folder the same open mode: anyone could have put files there.

    Args:
        parent: of the folders.
        name: as for `private_folder`; None for any.
    """
    found = []
    try:
        entries = list(os.scandir(parent))
    except OSError:
        return []
    for entry in entries:
        if not entry.name.startswith("." if name is None else hidden_name(name, _UNFINISHED)):
            continue
        if _UNFINISHED not in entry.name:
            continue
        with suppress(FileNotFoundError):  # another process has just removed its own
            status = entry.stat(follow_symlinks=False)
            private = os.name != "posix" or (
                status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            )
            if stat.S_ISDIR(status.st_mode) and private:
                found.append(Path(entry.path))
    return found


def _lock(folder: Path, held: ExitStack) -> bool:
    """Lock a folder until `held` ends; False if another process has it or has removed it."""
    if sys.platform == "win32":
        return True
    import fcntl  # noqa: PLC0415 - POSIX only

    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    held.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), folder.lstat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks: no one can mistake it for a leftover
        return True


@contextmanager
def new_files(*paths: Path) -> Iterator[dict[Path, Path]]:
    """Yield a temporary path for each path; on success all files appear in their places, or none.

    A temporary file has the name of its path in a private folder beside it, so that writers that
    choose the format by suffix work. On an exception no path is made.

    Raises:
        InputError: as `require_new_files`.
    """
    require_new_files(*paths)
    with ExitStack() as folders:
        temporaries = {}
        for path in paths:
            folders.enter_context(made_folder(path.parent))
            folder = folders.enter_context(private_folder(path.parent, path.name))
            temporaries[path] = folder / path.name
            if len(paths) > 1:
                names = [os.path.abspath(one) for one in paths]  # noqa: PTH100 - follows no link
                (folder / _SET).write_text(json.dumps(names))
        try:
            yield temporaries
        except OSError as error:
            _name_output(error, paths[0])
            raise
        publish([(temporary, path) for path, temporary in temporaries.items()])


def _name_output(error: OSError, path: Path) -> None:
    """Put the name of an output into the error of a full disk, which has none."""
    while error.errno is None and isinstance(error.__cause__, OSError):
        error = error.__cause__
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and error.filename is None:
        error.filename = str(path)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success the file written there appears at `path`.

    Raises:
        InputError: as `new_files`.
    """
    with new_files(path) as temporaries:
        yield temporaries[path]


_UNFINISHED = ".unfinished-"
"""Part of the names of private folders."""

_LONGEST = 40
"""Length at which a name is cut in the name of a private folder or a lock."""

_SET = ".set"
"""In a private folder: JSON file with the names of the files that belong together."""


def hidden_name(name: str, ending: str) -> str:
    """Return the name of what is kept for a file while it is written, of bounded length.

    A name that is cut has a digest, in which case does not count, as on some file systems.

    Args:
        name: of the file; empty for none.
        ending: says what is kept.
    """
    if len(name) > _LONGEST:
        digest = hashlib.sha256(os.fsencode(name.casefold())).hexdigest()[:8]
        name = f"{name[:_LONGEST]}+{digest}"
    return f".{name}{ending}" if name else ending


def publish(files: Sequence[tuple[Path, Path]]) -> None:
    """Rename all files, or none of them if a name is taken.

    Until the first is removed, two names of one file identify it as ours.

    Raises:
        InputError: if there is something at one of the targets.
        OSError: if one cannot be made.
    """
    try:
        for file, target in files:
            _link(file, target)
    except FileExistsError:
        take_back(files)
        refuse_existing(target.parent, [target.name])
        raise
    except BaseException:
        take_back(files)
        raise


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links here
        rename_new(file, target)


def take_back(files: Iterable[tuple[Path, Path]]) -> None:
    """Remove those targets that are the same file as the one that was to get that name."""
    for file, target in files:
        with suppress(OSError):
            if not file.is_dir() and os.path.samestat(file.lstat(), target.lstat()):
                target.unlink()


def rename_new(file: Path, target: Path) -> None:
    """Rename a file, but never over another, which `os.rename` does on POSIX.

    Raises:
        FileExistsError: if there is something at `target`, if only a broken link.
        OSError: if it cannot be renamed.
    """
    try:
        os.link(file, target)
    except FileExistsError:
        raise
    except OSError:  # No hard links here, or another file system.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        file.rename(target)
    else:
        file.unlink()


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder with its parents; if the work inside fails, new ones that are empty go again.

    Raises:
        OSError: if one cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


def make_folders(root: Path, folder: Path) -> None:
    """Make a folder below `root`, none of whose parents below `root` may be a link.

    Raises:
        InputError: if one of them is a link.
        OSError: if one cannot be made.
    """
    for inside in _below(root, folder):
        refuse_links(inside)
        inside.mkdir(exist_ok=True)


def refuse_links_below(root: Path, folder: Path) -> None:
    """Raise `InputError` if a folder below `root`, or one of its parents below it, is a link."""
    refuse_links(*_below(root, folder))


def _below(root: Path, folder: Path) -> list[Path]:
    """The folders from below `root` down to `folder`."""
    inside = [one for one in (folder, *folder.parents) if one.is_relative_to(root) and one != root]
    return inside[::-1]


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success the file written there replaces the one at `path`.

    Whatever fails, also if the process is killed, the old or the new file is there as a whole. For
    files of our own; the caller makes sure that the one at `path` is.

    Raises:
        InputError: if `path` is a link.
        OSError: if it cannot be written.
    """
    refuse_links(path)
    with private_folder(path.parent, path.name) as folder:
        temporary = folder / path.name
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)


def replace_text(path: Path, text: str) -> None:
    """Replace the text of a file of ours in one step, see `replaced_file`.

    Raises:
        InputError: if it cannot be written, or is a link.
    """
    try:
        with replaced_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM) and path.exists():
            raise InputError(
                f"{path} cannot be written ({error.strerror}): close it where it is open, or allow "
                "writing to it and its folder, and try again."
            ) from error
        raise InputError(
            f"{path} cannot be written ({error.strerror}): make room or choose another folder."
        ) from error


def fingerprint(files: Sequence[Path]) -> str:
    """Digest the names, sizes and times of files, in order; it changes when any of them does."""
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat()
        name = os.fsencode(file.name)
        digest.update(b"%b %d %d\n" % (name, facts.st_size, facts.st_mtime_ns))
    return digest.hexdigest()


def write_array(file: Path, array: "NDArray[Any]") -> None:
    """Write a `.npy` file; `numpy.save` does not report a disk that gets full at its end.

    Raises:
        OSError: if it cannot be written.
    """
    import numpy as np  # noqa: PLC0415 - slow to import

    with file.open("wb") as stream:
        array = np.ascontiguousarray(array)
        np.lib.format.write_array_header_1_0(
            stream, np.lib.format.header_data_from_array_1_0(array)
        )
        stream.write(array.tobytes())


def is_path_below(name: str) -> bool:
    """Whether a file that may come from anywhere names a path below its folder, on any system.

    Windows drops dots and spaces at the end of a name, keeps some names for devices, and takes a
    colon for the end of a drive or of a file's name.
    """
    if any(letter in "\\:" or unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return False
    parts = name.removeprefix("./").split("/")
    return all(part == part.rstrip(". ") != "" and not _is_device(part) for part in parts)


def _is_device(name: str) -> bool:
    return name.partition(".")[0].strip().upper() in _DEVICES


MAX_LENGTH = 64
"""Maximum length of a name, that of a UID."""

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
    """Return the folder name of a patient, study or series identifier.

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
    if _is_device(identifier) or characters[0] == ".":
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
        """Return the folder of an identifier: its plain name, marked if that is taken but for case.

        What is in `parent` when it is first asked for counts as taken.
        """
        if parent not in self._there:
            there = parent.iterdir() if parent.is_dir() else ()
            self._there[parent] = {path.name.casefold(): path.name for path in there}
        name = folder_name(identifier)
        if self._there[parent].setdefault(name.casefold(), name) != name:
            name = folder_name(identifier, marked=True)
        return parent / name


def changed_since(file: Path, others: Iterable[Path]) -> bool:
    """Whether other files or folders were changed, or put where they are, after one was written."""
    written = file.stat().st_mtime
    try:
        states = [other.stat() for other in others]
    except OSError:
        return True
    return any(max(state.st_mtime, state.st_ctime) > written for state in states)


def require_unpacked(file: Path) -> None:
    """Check that a zip file packs nothing: what is packed could unpack to any size.

    Raises:
        BadZipFile: if it packs something, or is no zip file.
        OSError: if it cannot be read.
    """
    with ZipFile(file) as archive:
        if any(one.compress_type != ZIP_STORED for one in archive.infolist()):
            raise BadZipFile("a part of it is packed")
