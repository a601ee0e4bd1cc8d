"""Fuzz the readers that we wrote, guided by coverage: an hour, or as many seconds as are given.

    pip install atheris
    python Testing/fuzz_readers.py [SECONDS] [FOLDER]

The folder keeps what was found interesting, for the next time. A finding is anything but a result
or an `InputError`; the first input of each is kept in FOLDER-findings and its traceback printed,
and the search goes on. Make a test of its kind in `test_volume_headers.py` or `hostile_inputs.py`.
"""

import hashlib
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["CTLungScreeningLib", "CTSliceToolsLib", "LungNoduleSegLib"]
):
    from CTLungScreeningLib.errors import InputError
    from CTLungScreeningLib.json_files import read_object
    from CTLungScreeningLib.reading.dicom_headers import looks_like_dicom, read_instance
    from CTLungScreeningLib.reading.volume_files import read_labels
    from CTSliceToolsLib.organizing.identifiers import identify
    from LungNoduleSegLib.nodules.table import read_nodules_csv

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
PLACE = Path(tempfile.mkdtemp(prefix="fuzz-", dir=MEMORY))
MAX_BYTES = 4096


def seeds(folder: Path) -> None:
    """Write small files of every format as a beginning."""
    import numpy as np
    import SimpleITK as sitk

    import dicom_files

    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    for suffix in (".mha", ".nrrd", ".nii", ".nii.gz"):
        sitk.WriteImage(image, folder / f"seed{suffix}")
    dicom_files.save(
        dicom_files.ct_slice(dicom_files.AXIAL, (0, 0, 0), "chest"), folder / "seed.dcm"
    )


def read_dicom(file: Path) -> None:
    """Read a file as the search for series does."""
    if looks_like_dicom(file):
        read_instance(file)


READERS: tuple[Callable[[Path], object], ...] = (
    *(read_labels, identify, read_object, read_nodules_csv, read_dicom),
)


def one_input(data: bytes, corpus: Path) -> None:
    """Give bytes to every reader, and keep them if one fails in a way that is new."""
    file = PLACE / "input"
    file.write_bytes(data)
    for read in READERS:
        try:
            read(file)
        except InputError as error:
            if not str(error).endswith("."):
                keep(corpus, data, error)
        except Exception as error:
            keep(corpus, data, error)


def keep(corpus: Path, data: bytes, error: Exception) -> None:
    """Keep the first input of each finding: of the same error at the same line."""
    at = [f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)[1:]]
    name = hashlib.sha256(repr((type(error), at)).encode()).hexdigest()[:12]
    finding = corpus.parent / f"{corpus.name}-findings" / f"finding-{name}"
    if not finding.exists():
        finding.parent.mkdir(exist_ok=True)
        finding.write_bytes(data)
        print(f"FINDING {finding}", *traceback.format_exception(error), sep="\n", flush=True)


def main() -> None:
    """Fuzz until the time is up."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "3600"
    corpus = Path(sys.argv[2] if len(sys.argv) > 2 else "fuzz")
    seeds(corpus)
    warnings.simplefilter("ignore")
    options = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-rss_limit_mb=3072"]
    options += ["-timeout=20", f"-artifact_prefix={corpus}/", str(corpus)]
    atheris.Setup([sys.argv[0], *options], lambda data: one_input(data, corpus))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
