"""The files below a folder, in an order that does not depend on the file system."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from CTLungScreeningLib.progress import ProgressCallback
from CTSliceToolsLib.organizing.identifiers import Identifiers, Kind, LeftOut, identify

_BATCH = 64

FolderFiles = tuple[Path, list[str]]
"""A folder and the names of the files in it: a million names take less room than paths."""

Identified = tuple[Path, Identifiers | LeftOut]


def list_files(
    source: Path, without: Path, progress: ProgressCallback
) -> tuple[list[FolderFiles], list[tuple[Path, LeftOut]]]:
    """List the files below a folder, sorted; links to folders are not followed.

    Args:
        source: the folder.
        without: a folder, wherever it is, that is not looked into.
        progress: counts the folders examined, in the stage "Searching".

    Returns:
        The folders with their files, and what was left out: links to folders, and folders that
        cannot be opened.
    """
    files: list[FolderFiles] = []
    left_out: list[tuple[Path, LeftOut]] = []

    def unreadable(error: OSError) -> None:
        reason = f"is a folder that cannot be opened: {error.strerror}"
        left_out.append((Path(error.filename), LeftOut(Kind.BROKEN, reason)))

    excluded = without.stat()
    known = 1
    for done, (parent, folders, names) in enumerate(os.walk(source, onerror=unreadable)):
        progress("Searching", done, max(known, done + 1))
        inner = []
        for name in sorted(folders):
            folder = Path(parent, name)
            if folder.is_symlink():
                reason = "is a link to a folder, which was not followed"
                left_out.append((folder, LeftOut(Kind.NOT_DICOM, reason)))
            elif not os.path.samestat(folder.stat(), excluded):
                inner.append(name)
        folders[:] = inner
        known += len(inner)
        files.append((Path(parent), sorted(names)))
    progress("Searching", known, known)
    return files, left_out


def identified(files: Iterable[FolderFiles]) -> Iterator[Identified]:
    """Give each file with its identifiers.

    Headers are read a few dozen files ahead: one header, one copy in turn would empty the
    processor's caches again and again, and takes a tenth more time.
    """
    paths = (folder / name for folder, names in files for name in names)
    while batch := list(islice(paths, _BATCH)):
        yield from [(file, identify(file)) for file in batch]
