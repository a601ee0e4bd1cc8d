"""Fuzz the readers that we wrote, guided by coverage: an hour, or as many seconds as are given.

    pip install atheris
    python Testing/fuzz_readers.py [SECONDS] [FOLDER]

The folder keeps what was found interesting, for the next time, and `crash-…` files. A finding is
anything but a result or an `InputError`: make a test of its kind in `test_volume_headers.py` or
`hostile_inputs.py`.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["CTLungScreeningLib", "CTSliceToolsLib", "LungNoduleSegLib"]
):
    from CTLungScreeningLib.errors import InputError
    from CTLungScreeningLib.files import read_object
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


def one_input(data: bytes) -> None:
    """Give bytes to every reader."""
    file = PLACE / "input"
    file.write_bytes(data)
    for read in (read_labels, identify, read_object, read_nodules_csv):
        try:
            read(file)
        except InputError as error:
            assert str(error).endswith("."), error
    try:
        if looks_like_dicom(file):
            read_instance(file)
    except InputError as error:
        assert str(error).endswith("."), error


def main() -> None:
    """Fuzz until the time is up or something is found."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "3600"
    corpus = Path(sys.argv[2] if len(sys.argv) > 2 else "fuzz")
    seeds(corpus)
    warnings.simplefilter("ignore")
    options = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-rss_limit_mb=3072"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/", str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
