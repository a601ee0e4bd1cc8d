"""Locations of the slices of a scan in the body: a network, landmarks, and one fit."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from CTLungScreeningLib.engine import Device, Network, device_of, notes_of, predict_each
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import load_network
from CTLungScreeningLib.options import settle_choices
from CTLungScreeningLib.progress import ProgressCallback, in_terminal, silent
from CTLungScreeningLib.reading.ct_reading import IndexedScan, as_scan
from CTLungScreeningLib.reading.ct_scan import CTScan, SeriesInfo, SliceSource
from CTSliceToolsLib.landmarks import LANDMARKS, describe_location, nearest_landmark
from CTSliceToolsLib.localizer.anchors import Anatomy
from CTSliceToolsLib.localizer.scan_fit import ANYWHERE_MM, ScanFit, fit_scan
from CTSliceToolsLib.localizer.scan_pictures import ScanPictures, stored_slices
from CTSliceToolsLib.slice_image import SIZE

DEFAULT_MODEL = Path(__file__).parents[1] / "Resources" / "Models" / "slice-localizer.onnx"
"""The bundled localizer."""

BATCH = 4
"""Slices the network sees at once; it bounds the memory, whatever the scan's length."""

UNCERTAIN_MM = 30.0
"""A landmark with a wider interval than this, to either side, comes with a warning."""

UNKNOWN_MM = 80.0
"""A location with a wider interval than this is reported as unknown."""

Model: TypeAlias = Network | Path
"""A localizer: a network that takes (n, `SIZE`, `SIZE`, 1), 0…255, or one of its files."""


@dataclass(frozen=True)
class ModelUsed:
    """Which localizer it was and what it ran on; the hash is empty if it came from no file."""

    name: str
    sha256: str = ""
    device: str = ""


@dataclass(frozen=True)
class SliceLocation:
    """The location of one slice.

    Attributes:
        index: its number, from 0 at the feet.
        z_mm: LPS z of its centre in mm.
        raw: normalized location as the network gives it, 0…1.
        location: normalized location that fits with the other slices of the scan.
        source: the DICOM instance; None for other formats.
    """

    index: int
    z_mm: float
    raw: float
    location: float
    source: SliceSource | None = None

    @property
    def nearest(self) -> str:
        """Name of the nearest landmark."""
        return nearest_landmark(self.location).name

    @property
    def description(self) -> str:
        """The landmarks it lies between, in words."""
        return describe_location(self.location)


@dataclass(frozen=True)
class LandmarkPlace:
    """The location of a landmark in a scan.

    Attributes:
        z_mm: its LPS z in mm.
        slice: the nearest slice.
        uncertainty_mm: it lies within so much of `z_mm` with 95 % probability.
    """

    z_mm: float
    slice: SliceLocation
    uncertainty_mm: float


@dataclass(frozen=True)
class ScanPrediction:
    """The locations of all slices of a scan.

    Attributes:
        source: the folder or file of the scan.
        series: DICOM identifiers, None for other formats.
        slices: from feet to head, at least two; `index` counts them.
        fit: heights of all landmarks, its residual and its warnings.
        model: the localizer.
        notes: one sentence for each repair when the scan was read.
        sha256: `volume_sha256` of a volume file, empty if unknown.
    """

    source: Path
    series: SeriesInfo | None
    slices: tuple[SliceLocation, ...]
    fit: ScanFit
    model: ModelUsed
    notes: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def series_uid(self) -> str | None:
        """SeriesInstanceUID of the scan in `source`, None if it has none."""
        return (self.series and self.series.series_instance_uid) or None

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Lowest and highest LPS z in mm: half a slice beyond the centres of the outermost."""
        return _field_of_view(np.array([one.z_mm for one in self.slices]))

    @property
    def landmarks(self) -> dict[str, LandmarkPlace]:
        """The landmarks in the field of view by name, from head to feet.

        One that could lie further than `UNKNOWN_MM` from its place is left out.
        """
        return {
            name: LandmarkPlace(z, self.slice_at(z), off)
            for name, (z, off) in _in_view(self.fit, self.field_of_view).items()
            if off <= UNKNOWN_MM
        }

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the landmarks that seem to be in the field of view, but cannot be located."""
        in_view = _in_view(self.fit, self.field_of_view)
        return tuple(name for name, (_, off) in in_view.items() if off > UNKNOWN_MM)

    @property
    def located(self) -> bool:
        """Whether anything of the body could be located, in the field of view or outside."""
        return bool(self.fit.uncertainty_mm.min() <= UNKNOWN_MM)

    def slice_at(self, z_mm: float) -> SliceLocation:
        """Return the slice whose centre is nearest to LPS z in mm."""
        return min(self.slices, key=lambda one: abs(one.z_mm - z_mm))

    @property
    def locations(self) -> NDArray[np.float64]:
        """The normalized locations of the slices from feet to head, (n,), 0…1."""
        return np.array([one.location for one in self.slices])

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each reason to doubt the prediction."""
        return tuple(self.fit.warnings)


@dataclass(frozen=True)
class SliceLocalizer:
    """Finds where in the body the slices of CT scans lie.

        where = SliceLocalizer().apply("ct/")
        print(where.landmarks)

    Attributes:
        model: one of a localizer's files, or a network.
        device: where the file runs; None for a GPU if there is one.
    """

    model: Model = DEFAULT_MODEL
    device: Device | None = None

    def __post_init__(self) -> None:
        settle_choices(self)

    def apply(
        self,
        ct: Path | str | CTScan | IndexedScan | sitk.Image,
        *,
        series: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> ScanPrediction:
        """Predict where all slices of one scan lie.

        Args:
            ct: a DICOM folder or a volume file, see `read_ct`; a scan that was read or indexed; or
                a SimpleITK image in HU, LPS mm.
            series: the SeriesInstanceUID to take, where a folder holds several.
            progress: `progress(stage, done, total)`, which may raise `Cancelled`; None shows bars
                if this is a terminal.

        Raises:
            InputError: if the scan or the model cannot be used.
        """
        with in_terminal(progress) as report:
            return predict_scan(as_scan(ct, series, report), self.model, report, self.device)


def predict_location(pixels: NDArray[np.generic], model: Model = DEFAULT_MODEL) -> float:
    """Predict the normalized location of one slice, judged by itself.

    Args:
        pixels: a slice image (`SIZE`, `SIZE`), 0…255, see `slice_image`; or with 1 or 3 equal
            channels last, as in an `.npz` file of `convert`.
        model: the localizer.

    Raises:
        InputError: if the pixels have another shape, or the model cannot be used.
    """
    picture = np.asarray(pixels)
    if picture.ndim == 3:
        picture = picture[..., 0]
    if picture.shape != (SIZE, SIZE):
        raise InputError(
            f"Pixels of shape {np.shape(pixels)} are not a slice image: make one of {SIZE} × "
            f"{SIZE} from HU and spacing with slice_image()."
        )
    return float(predict_locations(picture[None], model)[0])


def predict_locations(
    pictures: NDArray[np.generic], model: Model = DEFAULT_MODEL, progress: ProgressCallback = silent
) -> NDArray[np.float64]:
    """Predict the normalized locations of slice images, each judged by itself.

    Args:
        pictures: (n, `SIZE`, `SIZE`), 0…255.
        model: the localizer.
        progress: called after each batch, in the stage "Locating".

    Returns:
        (n,), 0…1.

    Raises:
        InputError: if the model cannot be used.
    """
    network, _ = open_model(model)
    starts = range(0, len(pictures), BATCH)
    batches = (pictures[k : k + BATCH, ..., None].astype(np.float32) for k in starts)
    locations: list[float] = []
    progress("Locating", 0, len(pictures))
    for predicted in predict_each(network, batches):
        locations += np.asarray(predicted)[:, 0].tolist()
        progress("Locating", len(locations), len(pictures))
    return np.array(locations)


def predict_scan(
    scan: CTScan,
    model: Model = DEFAULT_MODEL,
    progress: ProgressCallback = silent,
    device: Device | None = None,
) -> ScanPrediction:
    """Predict where all slices of a scan lie, each by itself and all together.

    The slices are those of the scan as it was stored, across the axis that runs most nearly from
    feet to head. The network sees these if they are axial, be they tilted. For a scan that is
    stored otherwise, or turned, it sees resampled ones, and its judgements are interpolated at the
    centres of the stored slices.

    Args:
        scan: in HU, any orientation.
        model: the localizer.
        progress: called after each batch, in the stage "Locating".
        device: where the localizer's file runs; None for a GPU if there is one.

    Raises:
        InputError: if the model cannot be used.
    """
    network, used = open_model(model, device)
    z_mm, sources = stored_slices(scan.image, scan.slices)
    seen = ScanPictures.of(scan.image, scan.slices)
    judged = predict_locations(seen.pictures, network, progress)
    fit = fit_slices(seen.anatomies(), seen.z_mm, judged)
    raw = np.interp(z_mm, seen.z_mm, judged)
    location = fit.location_at(z_mm)
    slices = tuple(
        SliceLocation(k, float(z_mm[k]), float(raw[k]), float(location[k]), sources[k])
        for k in range(len(z_mm))
    )
    notes = (*scan.notes, *notes_of(network))
    used = replace(used, device=device_of(network))  # it may have changed on the way
    return ScanPrediction(scan.source, scan.series, slices, fit, used, notes)


def fit_slices(
    anatomies: Iterable[Anatomy], z_mm: NDArray[np.float64], raw: NDArray[np.float64]
) -> ScanFit:
    """Fit the landmarks of a scan to its anatomy and to what the network says of its slices.

    Args:
        anatomies: of the scan, at least one: the first that can be trusted counts, or the last.
        z_mm: LPS z of the centres of its slices in mm, (n,), in any order.
        raw: their normalized locations from the network, (n,).
    """
    for anatomy in anatomies:
        fit = fit_scan(z_mm, raw, anatomy.anchors)
        if anatomy.strange:
            nothing = np.full_like(fit.uncertainty_mm, ANYWHERE_MM)
            fit = replace(fit, warnings=(*anatomy.strange, *fit.warnings), uncertainty_mm=nothing)
            continue
        uncertain = _uncertain(_in_view(fit, _field_of_view(np.sort(z_mm))))
        fit = replace(fit, warnings=(*anatomy.warnings, *fit.warnings, *uncertain))
        if fit.uncertainty_mm.min() < ANYWHERE_MM:
            break
    return fit


def _field_of_view(z_mm: NDArray[np.float64]) -> tuple[float, float]:
    half = float(z_mm[-1] - z_mm[0]) / max(len(z_mm) - 1, 1) / 2
    return float(z_mm[0]) - half, float(z_mm[-1]) + half


def _in_view(fit: ScanFit, view: tuple[float, float]) -> dict[str, tuple[float, float]]:
    """LPS z and uncertainty in mm of the landmarks in a field of view, by name."""
    places = zip(LANDMARKS, fit.landmark_z_mm.tolist(), fit.uncertainty_mm.tolist(), strict=True)
    return {one.name: (z, off) for one, z, off in places if view[0] <= z <= view[1]}


def _uncertain(in_view: dict[str, tuple[float, float]]) -> Iterator[str]:
    unsure = [name for name, (_, off) in in_view.items() if UNCERTAIN_MM < off <= UNKNOWN_MM]
    if unsure:
        worst = max(in_view[name][1] for name in unsure)
        yield f"Uncertain by up to ±{worst:.0f} mm: {', '.join(unsure)}."
    unknown = [name for name, (_, off) in in_view.items() if UNKNOWN_MM < off < ANYWHERE_MM]
    if unknown:
        yield (f"These cannot be located to within ±{UNKNOWN_MM:.0f} mm: {', '.join(unknown)}.")


def open_model(model: Model, device: Device | None = None) -> tuple[Network, ModelUsed]:
    """Load a localizer unless it is loaded, and say which it is.

    Raises:
        InputError: if the file cannot be used, or what it holds is not a localizer.
    """
    if isinstance(model, str | Path):
        model = Path(model)
        changed = model.stat().st_mtime_ns if model.is_file() else 0
        return _loaded(model, changed, device)
    return model, ModelUsed(model.name, device=device_of(model))


@lru_cache(maxsize=1)
def _loaded(file: Path, _changed: int, device: Device | None) -> tuple[Network, ModelUsed]:
    network, card = load_network(file, device)
    if network.input_shape[1:] != (SIZE, SIZE, 1) or network.output_shape[1:] != (1,):
        raise InputError(
            f"{file} is not a localizer: it maps {network.input_shape[1:]} to "
            f"{network.output_shape[1:]}, not ({SIZE}, {SIZE}, 1) to (1,); choose one that "
            "ct-slice-tools train made."
        )
    return network, ModelUsed(card.name, card.sha256, device_of(network))
