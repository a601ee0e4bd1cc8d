"""Volumes in one file: MetaImage, NRRD and NIfTI, of CT and of labels."""

import bz2
import hashlib
import math
import stat
import sys
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.child_process import Pause, Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import image_like
from CTLungScreeningLib.reading.ct_scan import check_geometry, check_hu
from CTLungScreeningLib.reading.slice_stack import MIN_SLICES
from CTLungScreeningLib.reading.volume_headers import VolumeHeader, orthonormal, read_header

VOLUME_SUFFIXES = (".mhd", ".mha", ".nrrd", ".nhdr", ".nii", ".nii.gz")


def volume_stem(name: str) -> str:
    """Return the name of a volume file without its suffix."""
    fitting = [suffix for suffix in VOLUME_SUFFIXES if name.lower().endswith(suffix)]
    return name[: len(name) - max(map(len, fitting), default=0)]


_BLOCK = 1 << 20
_PART = 16 << 20
"""Bytes that are written at a time: a few hundredths of a second."""

_ANY_HEADER = 47
"""Makes zlib accept streams with its own header or that of gzip."""

_MOST_PACKED = 1032
"""Maximum compression of deflate, https://zlib.net/zlib_tech.html; bzip2 exceeds it for zeros."""

_LARGE_BYTES = 1 << 30
_SUSPICIOUS_PACKING = 100
"""No CT of a gigabyte is packed as well as this."""


def read_volume_file(file: Path) -> tuple[sitk.Image, tuple[str, ...]]:
    """Read a CT volume from a MetaImage, NRRD or NIfTI file, by whatever name.

    Returns:
        HU, int16 if all values are whole and fit, else float32, on the file's own grid; and notes.

    Raises:
        InputError: if the file is damaged, cut short, not a 3-D volume, or not CT in HU.
    """
    header, spacing, directions = _judged_header(file)
    notes = (*header.notes, *check_geometry(str(file), header.size, spacing, header.origin))
    if min(header.size) < MIN_SLICES:
        raise InputError(
            f"{file} is {' × '.join(map(str, header.size))} voxels: a volume needs at least "
            f"{MIN_SLICES} slices."
        )
    if header.dtype.itemsize == 1:
        raise InputError(
            f"{file} holds 8-bit values, too few for HU: it is a picture or a label map; give the "
            "CT itself."
        )
    stored = _stored(file, header)
    if (header.slope, header.intercept) != (1.0, 0.0):
        stored = stored.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)
    hu, more = _hu(str(file), stored)
    return _image(hu, spacing, directions, header), (*notes, *more)


def to_hu(image: sitk.Image, name: str) -> tuple[sitk.Image, tuple[str, ...]]:
    """Return a 3-D scalar image as HU, as `read_volume_file` does.

    Args:
        image: the values as they were stored, LPS mm.
        name: of the image, for the sentences.

    Raises:
        InputError: if they cannot be a CT in HU, or the axes are not perpendicular.
    """
    notes = check_geometry(name, image.GetSize(), image.GetSpacing(), image.GetOrigin())
    hu, more = _hu(name, sitk.GetArrayFromImage(image))
    direction = np.reshape(image.GetDirection(), (3, 3))
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise InputError(f"{name} has axes that are not perpendicular: resample it first.")
    return image_like(hu, image), (*notes, *more)


def _hu(name: str, values: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Judge values and give them as int16 if all are whole and fit, else as float32."""
    whole = values.dtype.kind in "iu" or bool(
        (values == np.rint(values))[np.isfinite(values)].all()
    )
    hu, notes = check_hu(name, values if values.dtype == np.int16 else values.astype(np.float32))
    if whole and hu.max() <= np.iinfo(np.int16).max:
        hu = hu.astype(np.int16, copy=False)
    return hu, notes


def is_label_map(file: Path) -> bool:
    """Whether a volume file holds 8-bit values, too few for HU; False if that cannot be read."""
    try:
        return read_header(file, layered=True).dtype.itemsize == 1
    except (InputError, OSError):
        return False


def read_labels(file: Path) -> sitk.Image:
    """Read any 3-D volume of one number per voxel, such as a label map, on its own grid.

    Raises:
        InputError: if the file is damaged, cut short or something else.
    """
    header, spacing, directions = _judged_header(file)
    stored = _stored(file, header)
    if (header.slope, header.intercept) != (1.0, 0.0):
        stored = stored * header.slope + header.intercept
    return _image(stored, spacing, directions, header)


def read_layers(file: Path) -> tuple[NDArray[Any], sitk.Image, Mapping[str, str]]:
    """Read the layers of a segmentation in one NRRD file, `.seg.nrrd`.

    Returns:
        The values (z, y, x, layers); an image of the first layer on the file's own grid; and what
        the file says of its segments.

    Raises:
        InputError: as `read_labels`, or if the voxels are in another file.
    """
    header, spacing, directions = _judged_header(file, layered=True)
    if header.data_file != file:
        raise InputError(f"{file} keeps its voxels in another file: save it again from Slicer.")
    layers = _stored(file, header).reshape(*header.size[::-1], header.layers)
    return layers, _image(layers[..., 0], spacing, directions, header), header.texts


def write_image(image: sitk.Image, file: Path, level: int = -1, packed: bool = True) -> None:
    """Write a volume, and read it again: ITK does not report a full disk.

    Args:
        image: 3-D.
        file: new, `.nii.gz` or `.nrrd`.
        level: of the packing, from 1 for fast to 9 for small; ITK's own unless given.
        packed: whether to compress it.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        sitk.WriteImage(image, file, useCompression=packed, compressionLevel=level)
        header = _judged_header(file)[0]
        whole = header.size == image.GetSize() and _stored(file, header).size > 0
    except (RuntimeError, InputError):
        whole = False
    if not whole:
        raise InputError(
            f"{file.name} cannot be written: make room on the disk, or choose another folder."
        )


def raw_nrrd_work(array: NDArray[Any], to_lps: NDArray[np.float64], file: Path) -> Work[None]:
    """Write a volume as an unpacked `.nrrd`, a part at a time, fast and with room for a window.

    Args:
        array: (z, y, x), numbers.
        to_lps: 4×4, from voxel indices (x, y, z) to LPS mm.
        file: new.

    Raises:
        InputError: if it cannot be written.
    """
    header = {
        "type": {"f4": "float", "f8": "double"}.get(array.dtype.str[1:], array.dtype.name),
        "dimension": 3,
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, array.shape[::-1])),
        "space directions": " ".join(_vector(to_lps[:3, axis]) for axis in range(3)),
        "kinds": "domain domain domain",
        "endian": sys.byteorder,
        "encoding": "raw",
        "space origin": _vector(to_lps[:3, 3]),
    }
    lines = ["NRRD0004", *(f"{name}: {value}" for name, value in header.items())]
    slices = max(1, _PART // max(array[:1].nbytes, 1))
    try:
        with file.open("xb") as stream:
            stream.write(("\n".join(lines) + "\n\n").encode())
            for k in range(0, len(array), slices):
                stream.write(np.ascontiguousarray(array[k : k + slices]).data)
                yield Pause("Writing", min(k + slices, len(array)), len(array))
    except OSError as error:
        raise InputError(
            f"{file.name} cannot be written ({error.strerror}): make room on the disk."
        ) from error


def _vector(values: NDArray[np.float64]) -> str:
    return f"({','.join(map(repr, values.tolist()))})"


def volume_size(file: Path) -> tuple[int, int, int]:
    """Return the voxels along x, y and z by the header alone.

    Raises:
        InputError: as `read_labels`.
    """
    return _judged_header(file)[0].size


def volume_parts(file: Path) -> list[Path]:
    """Return a volume file and, if its voxels lie in another, that one too.

    Raises:
        InputError: if its header cannot be read.
    """
    return sorted({file, read_header(file).data_file})


def volume_sha256(file: Path) -> str:
    """Return the SHA-256 of a volume file and its data, one after the other.

    Raises:
        InputError: if its header cannot be read.
    """
    digest = hashlib.sha256()
    for part in volume_parts(file):
        with part.open("rb") as stream:
            while block := stream.read(_PART):
                digest.update(block)
    return digest.hexdigest()


def _judged_header(
    file: Path, layered: bool = False
) -> tuple[VolumeHeader, NDArray[np.float64], NDArray[np.float64]]:
    try:
        _require_regular(file)
        header, spacing, directions = orthonormal(file, read_header(file, layered))
        if header.data_file != file:
            _require_regular(header.data_file)
        return header, spacing, directions
    except OSError as error:
        raise InputError(
            f"{error.filename or file} cannot be opened ({error.strerror or error}): make it "
            "readable."
        ) from error


def _require_regular(file: Path) -> None:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{file} is not a regular file: give the file of a volume.")
    on_disk = getattr(status, "st_blocks", status.st_size) * 512
    if status.st_size > _LARGE_BYTES and status.st_size > _SUSPICIOUS_PACKING * on_disk:
        raise InputError(
            f"{file} claims {status.st_size / 1e9:.0f} GB but is almost empty: get it again."
        )


def _image(
    array: NDArray[Any],
    spacing: NDArray[np.float64],
    directions: NDArray[np.float64],
    header: VolumeHeader,
) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(header.origin.tolist())
    image.SetDirection(directions.ravel().tolist())
    return image


def _stored(file: Path, header: VolumeHeader) -> NDArray[Any]:
    """The values of a volume (z, y, x × layers) as stored, in this machine's byte order."""
    columns, rows, slices = header.size
    shape = slices, rows, columns * header.layers
    needed = math.prod(shape) * header.dtype.itemsize
    there = header.data_file.stat().st_size
    data = "" if header.data_file == file else f" (its data file {header.data_file.name})"
    short = InputError(f"{file}{data} is cut short: get it again.")
    if header.packing:
        if needed > _LARGE_BYTES * header.layers and needed > _SUSPICIOUS_PACKING * there:
            raise InputError(
                f"{file} would unpack to {needed / 1e9:.1f} GB from {there / 1e6:.1f} MB, which no "
                "CT does: give the CT itself."
            )
        if header.packing != "bzip2" and needed > _MOST_PACKED * there:
            raise short
    elif there < needed + max(header.offset, 0):
        raise short
    slice_bytes = needed // slices
    longer = InputError(
        f"{file}{data} holds more than the {needed} bytes of the voxels that its header describes: "
        "save it again."
    )
    if not header.packing and header.offset >= 0 and there >= needed + header.offset + slice_bytes:
        raise longer
    values = np.empty(math.prod(shape), header.dtype)
    try:
        filled, more = _fill(header, values.view(np.uint8).data, slice_bytes)
    except EOFError:
        filled = more = 0
    except OSError as error:
        if error.errno is not None:
            raise InputError(
                f"{file}{data} cannot be read ({error.strerror}): make it readable."
            ) from error
        raise _damaged(f"{file}{data}", error) from error
    except zlib.error as error:
        raise _damaged(f"{file}{data}", error) from error
    if filled < needed:
        raise short
    if more >= slice_bytes:
        raise longer
    native = values.astype(header.dtype.newbyteorder("="), copy=False)
    return native.reshape(shape)


def _damaged(name: str, error: Exception) -> InputError:
    return InputError(f"{name} is damaged ({error}): get it again.")


def _fill(header: VolumeHeader, target: memoryview, enough: int) -> tuple[int, int]:
    """Fill memory with the bytes of the voxels.

    Returns:
        How many there were, and how many more the packed data holds, counted up to `enough`.
    """
    with header.data_file.open("rb") as raw:
        if not header.packing:
            raw.seek(*((header.offset, 0) if header.offset >= 0 else (-len(target), 2)))
            return raw.readinto(target), 0
        raw.seek(header.packed_from)
        skip = max(header.offset - header.packed_from, 0)
        filled = more = 0
        for piece in _unpacked(raw, header.packing):
            block = piece[skip:]
            skip = max(skip - len(piece), 0)
            part = block[: len(target) - filled]
            target[filled : filled + len(part)] = part
            filled += len(part)
            more += len(block) - len(part)
            if more >= enough:
                break
    return filled, more


def _unpacked(stream: IO[bytes], packing: str) -> Iterator[bytes]:
    """Unpack in pieces of bounded size; zlib checks the sums of what it has come to the end of."""
    if packing == "bzip2":
        with bz2.open(stream) as opened:
            yield from iter(partial(opened.read, _BLOCK), b"")
        return
    machine = zlib.decompressobj(_ANY_HEADER)
    block = stream.read(_BLOCK)
    while block:
        yield machine.decompress(block, _BLOCK)
        block = machine.unconsumed_tail
        if machine.eof:  # gzip allows several parts, one after the other
            block = machine.unused_data or stream.read(_BLOCK)
            if not block.startswith(b"\x1f\x8b"):
                return
            machine = zlib.decompressobj(_ANY_HEADER)
        block = block or stream.read(_BLOCK)
