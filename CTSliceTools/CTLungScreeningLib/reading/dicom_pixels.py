"""The pixels of a stack of DICOM slices as HU, decoded in parallel."""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.hu import AIR_HU, padding_to_air
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_scan import HIGHEST_MINIMUM_HU
from CTLungScreeningLib.reading.dicom_headers import DAMAGED, Frame, printable, read_dicom

_PIXEL_TAGS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
]

_LOWEST_TISSUE_HU = -900
"""Padding that stands for less is padding wherever it is found."""


def read_hu(frames: Sequence[Frame], progress: ProgressCallback = silent) -> NDArray[Any]:
    """Decode frames of one size to HU, padding made air.

    Returns:
        Array (frames, rows, columns); int16 if all values are whole and fit, else float32.

    Raises:
        InputError: if a file's pixels are missing, damaged or in a form that needs a package that
            is not installed.
    """
    whole = all(f.slope.is_integer() and f.intercept.is_integer() for f in frames)
    if whole:
        try:
            return _read_hu(frames, np.dtype(np.int16), progress)
        except OverflowError:
            pass
    return _read_hu(frames, np.dtype(np.float32), progress)


def is_calibrated(frames: Sequence[Frame]) -> bool:
    """Whether the headers of all frames have an intercept as that of a scanner, see `check_hu`."""
    return max(frame.intercept for frame in frames) <= HIGHEST_MINIMUM_HU


def same_pixels(one: Frame, other: Frame) -> bool:
    """Whether two frames hold the same values."""
    (stored, _), (others, _) = (next(_stored(frame.file, [frame])) for frame in (one, other))
    same_scale = (one.slope, one.intercept) == (other.slope, other.intercept)
    return same_scale and np.array_equal(stored, others)


def _read_hu(
    frames: Sequence[Frame], dtype: np.dtype[Any], progress: ProgressCallback
) -> NDArray[Any]:
    volume = np.empty((len(frames), *frames[0].shape), dtype)
    of_file: dict[Path, list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        of_file[frame.file].append(k)
    done: SimpleQueue[BaseException | None] = SimpleQueue()

    def read(file: Path, places: list[int]) -> None:
        try:
            here = [frames[k] for k in places]
            for k, (stored, padding) in zip(places, _stored(file, here), strict=True):
                volume[k] = _to_hu(stored, padding, frames[k], dtype)
                done.put(None)
        except BaseException as error:
            done.put(error)

    with warnings.catch_warnings(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        warnings.filterwarnings("ignore", module="pydicom")
        try:
            for file, places in of_file.items():
                pool.submit(read, file, places)
            for count in range(len(frames)):
                progress("Reading", count, len(frames))
                if error := done.get():
                    raise error
            progress("Reading", len(frames), len(frames))
        finally:
            pool.shutdown(cancel_futures=True)
    return volume


def _to_hu(
    stored: NDArray[Any], padding: tuple[int, int] | None, frame: Frame, dtype: np.dtype[Any]
) -> NDArray[Any]:
    hu = stored.astype(np.float32)
    hu *= np.float32(frame.slope)
    hu += np.float32(frame.intercept)
    if padding:
        _pad_with_air(hu, stored, padding, frame)
    padding_to_air(hu)
    if dtype == np.int16 and hu.max() > np.iinfo(np.int16).max:
        raise OverflowError
    return hu


def _pad_with_air(
    hu: NDArray[np.float32], stored: NDArray[Any], padding: tuple[int, int], frame: Frame
) -> None:
    """Make stored padding air.

    Some files name as padding a value that tissue has too (0 HU). It is believed only where all
    four corners of the slice hold it, as they do outside a round field of view.
    """
    low, high = padding
    padded = (stored >= low) & (stored <= high)
    in_tissue = max(p * frame.slope + frame.intercept for p in padding) > _LOWEST_TISSUE_HU
    if not in_tissue or padded[np.ix_([0, -1], [0, -1])].all():
        hu[padded] = AIR_HU


def _stored(
    file: Path, frames: Sequence[Frame]
) -> Iterator[tuple[NDArray[Any], tuple[int, int] | None]]:
    """Yield the stored values of frames of one file, each with the range of its padding."""
    from pydicom.pixels import get_decoder  # noqa: PLC0415 - the panels open with pydicom 2 too

    try:
        dataset = read_dicom(file, _PIXEL_TAGS, pixels=True)
        if "PixelData" not in dataset:
            raise InputError(f"{file} has no pixel data or is cut short: get the file again.")
        _complete(dataset, file)
        syntax = _transfer_syntax(dataset)
        padding = _padding(dataset)
        decoder = get_decoder(syntax)
        if not decoder.is_available:
            needed = " or ".join(
                missing.partition("requires ")[2] for missing in decoder.missing_dependencies
            )
            raise InputError(
                f"{file} is compressed as {syntax.name} ({syntax}), which needs another package: "
                f"install {needed or 'a pydicom decoder for it'}."
            )
        _require_whole(dataset, syntax, file)
        shift = _unused_low_bits(dataset)
        indices = [frame.index or 0 for frame in frames]
        for stored, _ in decoder.iter_array(
            dataset,
            indices=indices,
            raw=True,
            correct_unused_bits=not shift and _fits(padding, dataset),
        ):
            if shift:
                stored = stored >> shift  # noqa: PLW2901
            yield stored, padding and _as_stored(padding, stored.dtype)
    except InputError:
        raise
    except (*DAMAGED, RuntimeError) as error:
        reason = printable(error)
        raise InputError(
            f"{file} has pixel data that cannot be read ({reason}): get the file again."
        ) from error


def _complete(dataset: Dataset, file: Path) -> None:
    """Fill in what has one possible value in a CT; refuse what gives no values, or wrong ones.

    Raises:
        InputError: if the bytes cannot be decoded.
    """
    for keyword, usual in (("SamplesPerPixel", 1), ("PhotometricInterpretation", "MONOCHROME2")):
        if dataset.get(keyword) in (None, ""):
            setattr(dataset, keyword, usual)
    if dataset.get("BitsStored") is None and dataset.get("BitsAllocated"):
        dataset.BitsStored = dataset.BitsAllocated
    for keyword in ("BitsAllocated", "PixelRepresentation"):
        if dataset.get(keyword) is None:
            raise InputError(
                f"{file} has no {dictionary_description(keyword)}: export the series again from "
                "its source."
            )
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        raise InputError(f"{file} is a colour picture, not CT: choose another series.")


def _require_whole(dataset: Dataset, syntax: UID, file: Path) -> None:
    """Refuse pixels that are more than rows × columns say: the picture would be another."""
    if syntax.is_encapsulated:
        return
    needed = (
        dataset.Rows
        * dataset.Columns
        * int(dataset.get("SamplesPerPixel") or 1)
        * int(dataset.get("NumberOfFrames") or 1)
        * dataset.BitsAllocated
        // 8
    )
    if len(dataset.PixelData) > needed + max(dataset.Columns, 2):
        raise InputError(
            f"{file} has {len(dataset.PixelData)} bytes of pixel data, where {dataset.Rows} rows × "
            f"{dataset.Columns} columns take {needed}: get the file again."
        )


def _unused_low_bits(dataset: Dataset) -> int:
    """Number of unused low bits: values may be at the upper end of their words."""
    high = dataset.get("HighBit")
    shift = 0 if high is None else int(high) + 1 - int(dataset.BitsStored)
    return shift if 0 < shift < int(dataset.BitsAllocated) else 0


def _transfer_syntax(dataset: Dataset) -> UID:
    """The transfer syntax, found out by pydicom where the file has no preamble to name it."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return UID(dataset.file_meta.TransferSyntaxUID)


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """Pixel Padding Value and Range Limit as written, which may lack their sign or have one."""
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return None
    limit = dataset.get(Tag("PixelPaddingRangeLimit"))
    return int(value), int(value if limit is None or limit.value in (None, "") else limit.value)


def _fits(padding: tuple[int, int] | None, dataset: Dataset) -> bool:
    """Whether padding lies within Bits Stored; if not, Bits Stored is not to be believed."""
    if not padding:
        return True
    bits = dataset.BitsStored
    container = np.dtype(f"{'ui'[dataset.PixelRepresentation]}{dataset.BitsAllocated // 8}")
    low, high = _as_stored(padding, container)
    return (
        -(1 << (bits - 1)) <= low and high < 1 << (bits - 1)
        if dataset.PixelRepresentation
        else high < 1 << bits
    )


def _as_stored(padding: tuple[int, int], dtype: np.dtype[Any]) -> tuple[int, int]:
    """Convert padding to the sign of the stored values (US 63536 is SS −2000), in order."""
    bits = 8 * dtype.itemsize
    unsigned = np.array([value % (1 << bits) for value in padding], f"u{dtype.itemsize}")
    low, high = sorted(int(value) for value in unsigned.view(f"{dtype.kind}{dtype.itemsize}"))
    return low, high
