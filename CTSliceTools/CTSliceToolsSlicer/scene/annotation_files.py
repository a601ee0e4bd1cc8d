"""Slice numbers of a volume's landmarks in annotation files, and back. Needs slicer."""

from collections.abc import Mapping
from pathlib import Path

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.scene.volume_slices import VolumeSlices
from CTSliceToolsLib.dataset.annotation import (
    Annotation,
    SliceName,
    annotation_of_slices,
    read_annotated_slices,
    read_annotation,
    read_slice_names,
    write_annotation,
)


def numbered(slices: VolumeSlices, numbers: Mapping[str, int]) -> Annotation:
    """Make an annotation that gives slice numbers.

    Raises:
        InputError: if the landmarks contradict anatomy.
    """
    z_mm = {landmark: slices.z_mm(number) for landmark, number in numbers.items()}
    return Annotation(slices.node.GetName(), numbers, z_mm)


def write_numbers(
    slices: VolumeSlices,
    numbers: Mapping[str, int],
    file: Path,
    files: Mapping[str, Path] | None,
) -> None:
    """Write an annotation file, see `AnnotationLogic.saveAnnotation`."""
    if files is None or not slices.uids:
        write_annotation(numbered(slices, numbers), file)
        return
    name = slices.node.GetName()
    paths = {}
    for landmark, number in numbers.items():
        if slices.uids[number] not in files:
            raise InputError(
                f"The DICOM file of slice {number} of {name} is not known: "
                "put it back into the folder or the DICOM database."
            )
        paths[landmark] = Path(files[slices.uids[number]])
    read = read_annotated_slices(name, paths)
    for landmark, one in read.items():
        if one.frame.sop_instance_uid != slices.uids[numbers[landmark]]:
            raise InputError(
                f"{paths[landmark]} is not slice {numbers[landmark]} of {name}: "
                "load the volume again."
            )
    write_annotation(annotation_of_slices(name, read), file)


def read_numbers(
    slices: VolumeSlices, file: Path, files: Mapping[str, Path] | None
) -> dict[str, int]:
    """Read an annotation file: landmark → slice number, see `AnnotationLogic.loadAnnotation`."""
    names = read_slice_names(file)
    if all(isinstance(name, int) for name in names.values()):
        heights = {number: slices.z_mm(number) for number in range(slices.count)}
        found = read_annotation(file, heights).slices
        return {landmark: int(number) for landmark, number in found.items()}
    return _numbers_of_files(slices, file, names, files or {})


def _numbers_of_files(
    slices: VolumeSlices,
    file: Path,
    names: Mapping[str, SliceName],
    files: Mapping[str, Path],
) -> dict[str, int]:
    """Landmark → number of the slice, found by the SOP Instance UIDs in the annotated files."""
    volume = slices.node.GetName()
    if not slices.uids:
        raise InputError(
            f"{file} names DICOM files, but {volume} does not tell which of them it is made of: "
            "load the series from the DICOM database."
        )
    by_name = {Path(path).name: Path(path) for path in files.values()}
    paths = {
        landmark: by_name.get(str(name), file.parent / str(name))
        for landmark, name in names.items()
    }
    read = read_annotated_slices(str(file), paths)
    annotation_of_slices(str(file), read)
    numbers = {}
    for landmark, one in read.items():
        if one.frame.sop_instance_uid not in slices.uids:
            raise InputError(
                f"{file} names for {landmark} the file {names[landmark]}, which is no slice of "
                f"{volume}: choose the volume it belongs to."
            )
        numbers[landmark] = slices.uids.index(one.frame.sop_instance_uid)
    return numbers
