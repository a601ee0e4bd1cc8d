"""The DICOM files of a volume's slices."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import slicer


def instance_files(uids: Iterable[str], known: Mapping[str, Path]) -> dict[str, Path]:
    """Give the file of each SOP Instance UID that is `known` or in Slicer's DICOM database.

    Files that are no longer there are left out.
    """
    database = getattr(slicer, "dicomDatabase", None)
    files = {}
    for uid in uids:
        if uid in known:
            files[uid] = known[uid]
        elif uid and database is not None and (file := database.fileForInstance(uid)):
            files[uid] = Path(file)
    return {uid: file for uid, file in files.items() if file.is_file()}
