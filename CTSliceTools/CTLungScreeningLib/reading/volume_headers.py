"""The headers of MetaImage, NRRD and NIfTI files, parsed and judged before anything believes them.

Formats: MetaImage, https://itk.org/Wiki/MetaIO/Documentation; NRRD,
https://teem.sourceforge.net/nrrd/format.html; NIfTI-1 and 2, https://nifti.nimh.nih.gov.
"""

import gzip
import math
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.files import is_path_below

_HEADER_BYTES = 1 << 20
"""A text header ends before this, or is not a header."""

_MAX_AXIS = 1 << 20
_MOST_LAYERS = 1 << 10
_SAME_MM = 1.0
_UNIT_MM = {"": 1.0, "mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3}
_UNIT_MM |= {"millimeter": 1.0, "centimeter": 10.0, "meter": 1000.0, "micron": 1e-3}
_UNIT_MM |= {"micrometer": 1e-3, "metre": 1000.0, "millimetre": 1.0}

UNKNOWN_ORIENTATION = (
    "The file does not say how the patient lies in it; its axes were taken as they are."
)

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """The header of one 3-D volume.

    Attributes:
        size: voxels along (x, y, z), the first of which varies fastest in the file.
        dtype: of the stored values, with their byte order.
        axes: (3, 3), columns: mm from one voxel to the next along x, y and z, in LPS.
        origin: (3,), centre of the first voxel in LPS mm.
        data_file: where the voxels are.
        offset: of the first voxel in that file, after unpacking if all of it is packed; negative
            where the voxels are the last of the file.
        packing: "" for none, "gzip", "bzip2" or "zlib".
        slope, intercept: what makes stored values HU.
        notes: sentences for whoever reads the results.
        packed_from: where the packed data begins in the file.
        layers: values per voxel, which vary faster than x.
        texts: what an NRRD says besides its fields, such as the names of segments.
    """

    size: tuple[int, int, int]
    dtype: np.dtype[Any]
    axes: Matrix
    origin: Matrix
    data_file: Path
    offset: int = 0
    packing: str = ""
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = ()
    packed_from: int = 0
    layers: int = 1
    texts: Mapping[str, str] = field(default_factory=dict)


def read_header(file: Path, layered: bool = False) -> VolumeHeader:
    """Parse the header of a volume file, whatever its name says of its format.

    Args:
        file: MetaImage, NRRD or NIfTI.
        layered: allow several values per voxel, as an NRRD of overlapping segments has.

    Raises:
        InputError: if it is none of the formats, or not one 3-D volume of numbers.
        OSError: if it cannot be opened.
    """
    packed, start = _beginning(file)
    try:
        if start.startswith(b"NRRD0"):
            return _nrrd(file, start, packed, layered)
        if start[:4] in _NIFTI_SIZES:
            return _nifti(file, start, packed)
        if b"ElementDataFile" in start and b"=" in start:
            return _metaimage(file, start, packed)
    except (ValueError, LookupError, OverflowError, struct.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file} has a header that makes no sense ({_short(error)}): get it again."
        ) from error
    raise InputError(f"{file} {_what_else(start)}: give a file .mha, .mhd, .nrrd or .nii.gz.")


def _beginning(file: Path) -> tuple[bool, bytes]:
    """Whether the whole file is packed with gzip, and its first bytes, unpacked."""
    with file.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    if not start.startswith(b"\x1f\x8b"):
        return False, start
    try:
        with gzip.open(file) as packed:
            return True, packed.read(_HEADER_BYTES)
    except (EOFError, OSError, zlib.error):
        try:  # A file cut short still has a header.
            return True, zlib.decompressobj(31).decompress(start, _HEADER_BYTES)
        except zlib.error as error:
            raise InputError(f"{file} is damaged ({_short(error)}): get it again.") from error


def _what_else(start: bytes) -> str:
    if not start.strip(b"\0"):
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself"
    if start[:1024].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page or XML, perhaps of a download that failed"
    if start[128:132] == b"DICM":
        return "is DICOM, whatever its name says"
    return "is neither MetaImage nor NRRD nor NIfTI"


def _short(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text.splitlines()[0])[:80].rstrip(".")


# --- MetaImage -------------------------------------------------------------------------------

_META_TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2"},
    **{"MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4"},
    **{"MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}


_SCALES = (("Slope", 1.0), ("Offset", 0.0))


def _metaimage(file: Path, start: bytes, packed: bool) -> VolumeHeader:
    fields: dict[str, str] = {}
    at = 0
    while "ElementDataFile" not in fields:
        end = start.find(b"\n", at)
        if end < 0:
            raise ValueError("it has no end")
        key, equals, value = _text(start[at:end]).partition("=")
        if equals:
            fields[key.strip()] = value.strip()
        at = end + 1
    dims = int(fields["NDims"])
    sizes = _numbers(fields["DimSize"], dims, int)
    if _truth(fields.get("ElementNumberOfChannels", "1")) > 1:
        raise _several_values(file, fields["ElementNumberOfChannels"])
    kind = _META_TYPES.get(fields["ElementType"])
    if kind is None or fields.get("BinaryData", "True").lower() == "false":
        raise _not_numbers(file, fields["ElementType"])
    if [float(fields.get(f"ElementToIntensityFunction{one}", usual)) for one, usual in _SCALES] != [
        usual for _, usual in _SCALES
    ]:
        raise InputError(
            f"{file} asks for its values to be scaled, which most programs overlook: save it again "
            "with the values in HU."
        )
    size = _one_volume(file, sizes)
    spacing = fields.get("ElementSpacing", fields.get("ElementSize"))
    matrix = next(
        (fields[k] for k in ("TransformMatrix", "Rotation", "Orientation") if k in fields), None
    )
    known = matrix is not None or fields.get("AnatomicalOrientation") == "RAI"
    directions = (
        np.eye(dims) if matrix is None else np.reshape(_numbers(matrix, dims * dims), (dims, dims))
    )
    origin = next((fields[k] for k in ("Offset", "Position", "Origin") if k in fields), None)
    big = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    name = fields["ElementDataFile"]
    local = name.upper() == "LOCAL"
    offset = int(fields.get("HeaderSize", "0"))
    zlib_packed = fields.get("CompressedData", "False").lower() == "true"
    return VolumeHeader(
        size=size,
        dtype=np.dtype((">" if big.lower() == "true" else "<") + kind),
        axes=np.array(directions)[:3, :3].T
        * _mm(file, _numbers(spacing, dims)[:3] if spacing else None),
        origin=np.zeros(3) if origin is None else np.array(_numbers(origin, dims)[:3]),
        data_file=file if local else _beside(file, name),
        offset=at if local else max(offset, -1),
        packing="gzip" if packed and local else "zlib" if zlib_packed else "",
        packed_from=at if local and not packed else 0,
        notes=() if known else (UNKNOWN_ORIENTATION,),
    )


def _truth(text: str) -> int:
    return int(float(text))


# --- NRRD ------------------------------------------------------------------------------------

_NRRD_TYPES = {
    name: kind
    for kind, names in {
        "i1": "signed char/int8/int8_t",
        "u1": "uchar/unsigned char/uint8/uint8_t",
        "i2": "short/short int/signed short/signed short int/int16/int16_t",
        "u2": "ushort/unsigned short/unsigned short int/uint16/uint16_t",
        "i4": "int/signed int/int32/int32_t",
        "u4": "uint/unsigned int/uint32/uint32_t",
        "i8": "longlong/long long/long long int/signed long long/int64/int64_t",
        "u8": "ulonglong/unsigned long long/unsigned long long int/uint64/uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split("/")
}
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_VALUE_KINDS = {"list", "vector", "point", "normal", "color", "covariant-vector", "complex"}


def _nrrd(file: Path, start: bytes, packed: bool, layered: bool) -> VolumeHeader:
    head, gap, _ = start.partition(b"\n\n")
    other, other_gap, _ = start.partition(b"\r\n\r\n")
    if other_gap and len(other) < len(head):
        head, gap = other, other_gap
    fields: dict[str, str] = {}
    texts: dict[str, str] = {}
    for line in _text(head).split("\n")[1:]:
        key, _, value = line.partition(":")
        if value.startswith("="):
            texts[key.strip()] = value[1:].strip()
        elif not line.startswith("#"):
            fields[key.strip().lower()] = value.strip()
    dims = int(fields["dimension"])
    sizes = _numbers(fields["sizes"], dims, int)
    name = fields.get("data file", fields.get("datafile"))
    if not gap and name is None:
        raise ValueError("it has no end")
    kind = _NRRD_TYPES.get(fields["type"].lower())
    encoding = fields["encoding"].lower()
    packing = {"raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
    if kind is None or encoding not in packing:
        raise _not_numbers(file, fields["type"] if kind is None else f"text ({encoding})")
    spatial, axes = _nrrd_axes(file, fields, sizes)
    kinds = fields.get("kinds", "").lower().split() or [""] * dims
    layers = sizes[0] if layered and spatial == [1, 2, 3] else 1
    if not 0 < layers <= _MOST_LAYERS:
        raise ValueError(f"{layers} layers")
    for axis, count in enumerate(sizes):
        if axis not in spatial and count > layers:
            values = kinds[axis] in _VALUE_KINDS or re.search("color|vector|matrix", kinds[axis])
            raise _several_values(file, count) if values else _several_times(file, count)
    size = _one_volume(file, [sizes[axis] for axis in spatial])
    space = fields.get("space", "").lower()
    to_lps = np.array(_TO_LPS.get(space, (1, 1, 1)))
    to_lps = to_lps * _nrrd_units(file, fields.get("space units", ""), range(3))
    origin = _vectors(fields["space origin"])[0] if "space origin" in fields else (0.0, 0.0, 0.0)
    skip, lines = int(fields.get("byte skip", "0")), int(fields.get("line skip", "0"))
    if lines or skip < -1 or (skip and packing[encoding]):
        raise InputError(f"{file} skips parts of its data: save it again without a data offset.")
    at = 0 if name else len(head) + len(gap)
    return VolumeHeader(
        size=size,
        dtype=np.dtype((">" if fields.get("endian", "little").lower() == "big" else "<") + kind),
        axes=axes * to_lps[:, None],
        origin=np.array(origin) * to_lps,
        data_file=_beside(file, name) if name else file,
        offset=-1 if skip < 0 else at + skip,
        packing="gzip" if packed and not name else packing[encoding],
        packed_from=0 if packed else at,
        notes=() if space in _TO_LPS else (UNKNOWN_ORIENTATION,),
        layers=layers,
        texts=texts,
    )


def _nrrd_axes(
    file: Path, fields: Mapping[str, str], sizes: Sequence[int]
) -> tuple[list[int], Matrix]:
    """Which axes are those of space, and the step along each."""
    if "space directions" in fields:
        found = _vectors(fields["space directions"])
        spatial = [axis for axis, vector in enumerate(found) if vector is not None]
        axes = np.array([found[axis] for axis in spatial], float).T
    else:
        spacings = _numbers(fields.get("spacings", "nan " * len(sizes)), len(sizes))
        spatial = [axis for axis, mm in enumerate(spacings) if math.isfinite(mm)]
        if not spatial:
            spatial = list(range(len(sizes)))[:3]
        spatial = spatial[:3]
        axes = np.diag(_mm(file, [spacings[axis] for axis in spatial]))
    if axes.shape != (3, 3):
        _one_volume(file, [sizes[axis] for axis in spatial])
        raise ValueError("its space directions are not three")
    if not np.isfinite(axes).all():
        _mm(file, None)
    if "space units" not in fields:
        axes = axes * _nrrd_units(file, fields.get("units", ""), spatial)
    return spatial, axes


def _nrrd_units(file: Path, text: str, axes: Sequence[int]) -> Matrix:
    """Mm of the units of three axes, written as `"mm" "mm" "s"`; 1 where none are given."""
    units = re.findall(r'"([^"]*)"', text)
    units = [units[axis] for axis in axes] if max(axes) < len(units) else []
    for unit in units:
        if unit.lower().removesuffix("s") not in _UNIT_MM:
            raise InputError(f"{file} measures in {unit!r}: save it in mm.")
    return np.array([_UNIT_MM[unit.lower().removesuffix("s")] for unit in units] or np.ones(3))


def _vectors(text: str) -> list[tuple[float, ...] | None]:
    """Vectors written as `(1,0,0) none (0,1,0)`."""
    found: list[tuple[float, ...] | None] = []
    for inside, none in re.findall(r"\(([^()]*)\)|(\S+)", text):
        if none and none.lower() != "none":
            raise ValueError(f"{none} is not a vector")
        found.append(None if none else tuple(float(part) for part in inside.split(",")))
    return found


# --- NIfTI -----------------------------------------------------------------------------------

_NIFTI_SIZES = {struct.pack(order + "i", size): order for order in "<>" for size in (348, 540)}
_NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
_NIFTI_TYPES |= {1024: "i8", 1280: "u8"}
_NIFTI_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 1e-3}


def _nifti(file: Path, start: bytes, packed: bool) -> VolumeHeader:
    order = _NIFTI_SIZES[start[:4]]

    def get(code: str, one: int, two: int) -> tuple[Any, ...]:
        """Values at their places in NIfTI-1 and 2."""
        place, lengths = (two, {"h": "q", "f": "d"}) if second else (one, {})
        wide = "".join(lengths.get(c, c) for c in code)
        return struct.unpack_from(order + wide, start, place)

    second = struct.unpack_from(order + "i", start)[0] == 540
    dims, *sizes = get("8h", 40, 16)
    if not 1 <= dims <= 7:
        raise ValueError(f"{dims} dimensions")
    magic = start[4:8] if second else start[344:348]
    if magic[:2] == b"ni":
        raise InputError(f"{file} keeps its voxels in another file: save it as one .nii.gz.")
    datatype = struct.unpack_from(order + "h", start, 12 if second else 70)[0]
    if datatype not in _NIFTI_TYPES:
        raise _not_numbers(file, f"values of NIfTI type {datatype}")
    size = _one_volume(file, sizes[:dims])
    pixdim = get("8f", 76, 104)
    slope, intercept = get("2f", 112, 176)
    offset = struct.unpack_from(order + ("q" if second else "f"), start, 168 if second else 108)[0]
    codes = struct.unpack_from(order + ("2i" if second else "2h"), start, 344 if second else 252)
    units = struct.unpack_from(order + "i", start, 500)[0] if second else start[123]
    affines = _nifti_affines(
        codes, pixdim, get("6f", 256, 352), np.reshape(get("12f", 280, 400), (3, 4))
    )
    affine, notes = _agreed(file, affines, size)
    if max(codes) <= 0:
        notes = (UNKNOWN_ORIENTATION,)
    scale = np.array([[-1.0], [-1.0], [1.0]]) * _NIFTI_UNIT_MM.get(units & 7, 1.0)  # RAS to LPS
    scaled = math.isfinite(slope) and slope != 0 and math.isfinite(intercept)
    return VolumeHeader(
        size=size,
        dtype=np.dtype(order + _NIFTI_TYPES[datatype]),
        axes=affine[:, :3] * scale,
        origin=affine[:, 3] * scale[:, 0],
        data_file=file,
        offset=max(int(offset), 544 if second else 352),
        packing="gzip" if packed else "",
        slope=slope if scaled else 1.0,
        intercept=intercept if scaled else 0.0,
        notes=notes,
    )


def _nifti_affines(
    codes: tuple[int, int], pixdim: Sequence[float], quaternion: Sequence[float], rows: Matrix
) -> list[Matrix]:
    """The affines that are said to hold, best first: sform, qform, else voxel sizes alone."""
    affines = [rows] if codes[1] > 0 else []
    spacing = np.abs(pixdim[1:4])
    if codes[0] > 0:
        # Not at the top: it takes a second, and panels are opened with this.
        from scipy.spatial.transform import Rotation  # noqa: PLC0415

        b, c, d, *offset = quaternion
        a = math.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
        turn = Rotation.from_quat([b, c, d, a]).as_matrix()
        turn[:, 2] *= -1 if pixdim[0] < 0 else 1
        affines.append(np.column_stack([turn * spacing, offset]))
    if not affines:
        # Without codes the axes are taken as they are, which is LPS for everything else here.
        return [np.column_stack([np.diag(spacing * [-1, -1, 1]), np.zeros(3)])]
    return affines


def _agreed(
    file: Path, affines: list[Matrix], size: Sequence[int]
) -> tuple[Matrix, tuple[str, ...]]:
    """The first of the affines, with a note or a refusal if another says something else."""
    first = affines[0]
    if len(affines) == 1:
        return first, ()
    lengths = [np.linalg.norm(one[:, :3], axis=0) for one in affines]
    turned = np.einsum("ij,ij->j", first[:, :3], affines[1][:, :3]) / np.maximum(
        lengths[0] * lengths[1], 1e-30
    )
    if not np.allclose(lengths[0], lengths[1], rtol=0.01) or turned.min() < 0.7:
        raise InputError(
            f"{file} has a qform and an sform that contradict each other (voxels of "
            f"{_sizes_text(lengths[1])} and {_sizes_text(lengths[0])} mm): save it with one."
        )
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in size])).reshape(3, -1)
    apart = (first[:, :3] - affines[1][:, :3]) @ corners + (first[:, 3:] - affines[1][:, 3:])
    most = float(np.linalg.norm(apart, axis=0).max())
    if most <= _SAME_MM:
        return first, ()
    return first, (f"Its qform and sform lie up to {most:.0f} mm apart; the sform was taken.",)


# --- What all have in common -----------------------------------------------------------------


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _numbers(text: str, count: int, kind: type = float) -> list[Any]:
    if not 1 <= count <= 16:
        raise ValueError(f"{count} dimensions")
    parts = text.split()
    if len(parts) != count:
        raise ValueError(f"{len(parts)} numbers where {count} should be")
    return [kind(part) for part in parts]


def _beside(file: Path, name: str) -> Path:
    """The file of the voxels, which a header names by its path below the header's folder.

    A header that comes from elsewhere must not choose which of the user's files is read.
    """
    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(f"{file} spreads its voxels over several files: save it as one .mha.")
    shown = "".join(c if c.isprintable() else "?" for c in name)[:80]
    data = file.parent / name
    if not is_path_below(name):
        raise InputError(
            f"{file} names the data file {shown!r}, in another folder or by a name that not all "
            "systems take: put both into one folder, and write only a plain name into the header."
        )
    if not data.is_file():
        raise InputError(f"{file} names the data file {shown!r}, which is not there: add it.")
    return data


def _mm(file: Path, spacing: Sequence[float] | None) -> Matrix:
    if spacing is None:
        raise InputError(
            f"{file} does not say how large its voxels are: save it again with their spacing in mm."
        )
    if min(spacing) < 0:
        raise InputError(
            f"{file} has voxels of {_sizes_text(np.array(spacing))} mm: save it with their true "
            "spacing."
        )
    return np.array(spacing, float)


def _one_volume(file: Path, sizes: Sequence[int]) -> tuple[int, int, int]:
    """The three sizes of a volume; further axes may have one entry."""
    if any(not 0 < size <= _MAX_AXIS for size in sizes):
        raise ValueError(f"a size of {' × '.join(map(str, sizes))}")
    if math.prod(sizes[3:]) > 1:
        raise _several_times(file, math.prod(sizes[3:]))
    if len(sizes) < 3:
        raise InputError(f"{file} has {counted(len(sizes), 'dimension')}: give a 3-D volume.")
    return sizes[0], sizes[1], sizes[2]


def _several_times(file: Path, count: int) -> InputError:
    return InputError(
        f"{file} holds {count} volumes over time: save the one you want as a 3-D file."
    )


def _several_values(file: Path, count: object) -> InputError:
    return InputError(f"{file} has {count} values per voxel: give a volume with one.")


def _not_numbers(file: Path, what: str) -> InputError:
    shown = "".join(c if c.isprintable() else "?" for c in what)[:40]
    return InputError(f"{file} holds {shown}, which is not read here: save it as 16-bit integers.")


def _sizes_text(spacing: NDArray[np.float64]) -> str:
    return " × ".join(f"{mm:.4g}" for mm in spacing)


def orthonormal(file: Path, header: VolumeHeader) -> tuple[VolumeHeader, Matrix, Matrix]:
    """Return spacing and direction of a header whose axes may be rounded, but not sheared.

    Returns:
        The header, with a note if its axes had to be made perpendicular; mm along x, y and z; and
        the (3, 3) directions.

    Raises:
        InputError: if a spacing is zero or not a number, or the axes are not perpendicular.
    """
    spacing = np.linalg.norm(header.axes, axis=0)
    if not np.isfinite(header.origin).all():
        raise InputError(f"{file} does not say where it lies: save it with its true origin.")
    if not (np.isfinite(spacing).all() and spacing.all()):
        raise InputError(
            f"{file} has voxels of {_sizes_text(spacing)} mm: save it with their true spacing."
        )
    directions = header.axes / spacing
    off = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if off > 2e-3:
        raise InputError(f"{file} has axes that are not perpendicular: resample it first.")
    left, _, right = np.linalg.svd(directions)
    if off > 1e-5:
        note = "Its axes were rounded in the header and were made perpendicular again."
        header = replace(header, notes=(*header.notes, note))
    return header, spacing, left @ right
