"""Read nodule masks of any format, and pair predicted with true masks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.errors import DAMAGE, InputError
from CTLungScreeningLib.geometry import grid_difference, image_like, onto_grid
from CTLungScreeningLib.reading.volume_files import VOLUME_SUFFIXES, read_labels, read_layers
from LungNoduleSegLib.results.reading import is_run, read_findings
from LungNoduleSegLib.results.segments import LUNG, NODULE

SEGMENTATION_SUFFIX, ARRAY_SUFFIX = ".seg.nrrd", ".npy"
SUFFIXES = (SEGMENTATION_SUFFIX, ARRAY_SUFFIX, *sorted(VOLUME_SUFFIXES, key=len, reverse=True))

_MOST_LABELS = 2**32 - 1

_ONE_NODULE = re.compile(r"nodule[\W_]*\d+")
"""Name of the segment of a single nodule."""

_LUNG_WORDS = frozenset({"lung", "lungs", "lobe", "lobes"})
_SIDE_WORDS = frozenset({"left", "right", "both", "upper", "middle", "lower"})


class Pair(NamedTuple):
    """A predicted mask and the true one."""

    name: str
    predicted: Path
    truth: Path


def find_pairs(predicted: Path, truth: Path) -> list[Pair]:
    """Pair two masks, or the masks of two folders that have the same name except for the suffix.

    The folder of a run counts as a mask of its nodules with the folder's name. Predictions without
    a truth are ignored.

    Raises:
        InputError: if a path does not exist, or a true mask has no prediction.
    """
    if _is_mask(predicted) and _is_mask(truth):
        return [Pair(_name(truth), predicted, truth)]
    true, found = _masks(truth), _masks(predicted)
    missing = [name for name in true if name not in found]
    if missing:
        raise InputError(
            f"{true[missing[0]]} has no counterpart with the same name in {predicted}: add the "
            "predicted mask, an empty one if nothing was found."
        )
    return [Pair(name, found[name], true[name]) for name in true]


def read_mask(path: Path) -> sitk.Image:
    """Read nodules as a label image, uint32, each with its number, on its own grid.

    Args:
        path: a label image or mask, see `numbered`; a `.seg.nrrd`, of which each segment named or
            coded as a nodule is one, or each but lungs if there are none, and a single segment is
            a mask unless its name has the number of a nodule; or the folder of a run, of which the
            nodules in the table count.

    Raises:
        InputError: if it is not a label image.
    """
    if is_run(path):
        return sitk.Cast(read_findings(path)[1], sitk.sitkUInt32)
    if path.name.lower().endswith(SEGMENTATION_SUFFIX):
        return _segments(path)
    image = read_labels(path)
    values = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(values).all():
        raise InputError(f"{path} has voxels that are not numbers (NaN or Inf): export it again.")
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise InputError(
            f"{path} has fractional values instead of labels: apply a threshold to probabilities."
        )
    if values.min() < 0:
        raise InputError(f"{path} has values down to {values.min():g}: name a mask, not a CT.")
    if values.max() > _MOST_LABELS:
        raise InputError(f"{path} has values up to {values.max():g}: number its nodules from 1.")
    return numbered(sitk.Cast(image, sitk.sitkUInt32))


def numbered(labels: sitk.Image) -> sitk.Image:
    """Number the nodules of a label image.

    A binary mask, of 1 or 255, is divided into connected components (26 neighbours); other labels
    are the numbers of nodules already, even if there is only one.
    """
    values = sitk.GetArrayViewFromImage(labels)
    marked = values[values > 0]
    if marked.size and marked.min() == marked.max() in (1, 255):
        return sitk.ConnectedComponent(labels > 0, True)
    return labels


def read_pair(pair: Pair, resample: bool = False) -> tuple[sitk.Image, sitk.Image]:
    """Read a predicted and a true mask on one grid with axial slices from feet to head.

    Args:
        pair: the two files.
        resample: resample the prediction to the grid of the truth (nearest neighbour).

    Raises:
        InputError: as `read_mask`, or if the grids differ and `resample` is not set.
    """
    predicted, truth = read_mask(pair.predicted), read_mask(pair.truth)
    difference = grid_difference(predicted, truth)
    if difference:
        if not resample:
            raise InputError(
                f"{pair.predicted} and {pair.truth} have different grids ({difference}): "
                "use --resample to bring the first to the grid of the second."
            )
        predicted = onto_grid(predicted, truth)
    else:
        predicted.CopyInformation(truth)
    return sitk.DICOMOrient(predicted, "LPS"), sitk.DICOMOrient(truth, "LPS")


def read_stacks(pair: Pair) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read predicted and true slices from arrays [n, 1, rows, columns] as the tutorial wrote them.

    Returns:
        Both as (n, rows, columns), 0…1.

    Raises:
        InputError: if a file is not such an array or the two differ in shape.
    """
    predicted, truth = _stack(pair.predicted), _stack(pair.truth)
    if predicted.shape != truth.shape:
        raise InputError(
            f"{pair.predicted} and {pair.truth} differ in shape, {predicted.shape} and "
            f"{truth.shape}: name slices that belong together."
        )
    return predicted, truth


def is_stack(pair: Pair) -> bool:
    """Whether a pair consists of arrays instead of volumes.

    Raises:
        InputError: if one is and the other is not.
    """
    arrays = [path.suffix.lower() == ARRAY_SUFFIX for path in (pair.predicted, pair.truth)]
    if any(arrays) and not all(arrays):
        raise InputError(
            f"{pair.predicted} and {pair.truth} are an array and a volume: name two of one kind."
        )
    return all(arrays)


def _stack(path: Path) -> NDArray[np.float32]:
    try:
        array = np.load(path, allow_pickle=False)
    except DAMAGE as error:
        raise InputError(f"{path} cannot be read as an array: save it again by np.save.") from error
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or not array.size or array.dtype.kind not in "biuf":
        raise InputError(f"{path} has the shape {array.shape}: save slices [n, 1, rows, columns].")
    if not (array.min() >= 0 and array.max() <= 1):
        raise InputError(f"{path} has values outside 0…1: name masks or probabilities.")
    return array.astype(np.float32)


def _is_mask(path: Path) -> bool:
    if not path.exists():
        raise InputError(f"{path} does not exist: name a mask or a folder of masks.")
    return path.is_file() or is_run(path)


def _masks(folder: Path) -> dict[str, Path]:
    """The masks of a folder by name, sorted."""
    if _is_mask(folder):
        raise InputError(f"{folder} is one mask: name two masks or two folders.")
    found: dict[str, Path] = {}
    for path in _entries(folder):
        other = found.setdefault(_name(path), path)
        if other != path:
            raise InputError(f"{other} and {path} have the same name: keep one of them.")
    if not found:
        raise InputError(f"{folder} has no masks: name a folder with {', '.join(SUFFIXES)} files.")
    return found


def _entries(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        named = path.is_file() and path.name.lower().endswith(SUFFIXES)
        if not path.name.startswith(".") and (named or is_run(path)):
            yield path


def _name(path: Path) -> str:
    ends = (suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
    return path.name if path.is_dir() else path.name[: -len(next(ends, path.suffix)) or None]


def _segments(file: Path) -> sitk.Image:
    """Number the nodules among the segments of a `.seg.nrrd` from 1."""
    layers, image, metadata = read_layers(file)
    label = "_LabelValue"
    segments = sorted(key.removesuffix(label) for key in metadata if key.endswith(label))
    if not segments:
        raise InputError(f"{file} names no segment: save it from Slicer as .seg.nrrd.")
    names = {key: metadata.get(f"{key}_Name", "").lower() for key in segments}
    tags = {key: metadata.get(f"{key}_Tags", "") for key in segments}
    nodules = [
        key for key in segments if "nodule" in names[key] or f"^{NODULE.value}^" in tags[key]
    ]
    others = [key for key in segments if not _is_lung(names[key], tags[key])]
    counted = nodules or others
    labels = np.zeros(layers.shape[:3], np.uint32)
    for number, key in enumerate(counted, start=1):
        try:
            value, layer = int(metadata[f"{key}_LabelValue"]), int(metadata.get(f"{key}_Layer", 0))
        except ValueError:
            layer = -1
        if not 0 <= layer < layers.shape[3]:
            raise InputError(
                f"{file} does not have the label or layer that its {key} names: save it again."
            )
        labels[layers[..., layer] == value] = number
    found = image_like(labels, image)
    one_by_one = len(counted) > 1 or any(_ONE_NODULE.fullmatch(names[key]) for key in counted)
    return found if one_by_one else numbered(found)


def _is_lung(name: str, tags: str) -> bool:
    """Whether a segment is coded as a lung, which is not the region it lies in, or named as one."""
    terms = tags.partition("TerminologyEntry:")[2].split("~")
    words = set(re.split(r"[\W_]+", name)) - {""}
    named = bool(words & _LUNG_WORDS) and words <= _LUNG_WORDS | _SIDE_WORDS
    return named or (len(terms) > 2 and f"^{LUNG.value}^" in terms[2])
