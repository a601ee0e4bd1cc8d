"""Predictions of scans as files: JSON, CSV table and plot, for one scan or a folder of them."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from CTLungScreeningLib import csv_files, software_versions
from CTLungScreeningLib.engine import PACKAGES as ENGINES
from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import DAMAGE, Cancelled, InputError, sentence_of
from CTLungScreeningLib.files import (
    changed_since,
    new_files,
    refuse_existing,
    refuse_links_below,
    remove_leftovers,
)
from CTLungScreeningLib.geometry import ScanAlignment
from CTLungScreeningLib.json_files import json_text, parse_json
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.ct_reading import IndexedScan, has_slices, index_scans
from CTLungScreeningLib.reading.ct_scan import SeriesInfo, SliceSource
from CTLungScreeningLib.reading.volume_files import volume_parts, volume_sha256
from CTLungScreeningLib.staging import only_writer_in
from CTSliceToolsLib.landmarks import LANDMARKS
from CTSliceToolsLib.localizer.matching import Level, SliceMatch
from CTSliceToolsLib.localizer.prediction import (
    DEFAULT_MODEL,
    Model,
    ModelUsed,
    ScanPrediction,
    SliceLocation,
    open_model,
    predict_scan,
)
from CTSliceToolsLib.localizer.scan_fit import ScanFit

FORMAT = "CTSliceTools prediction, version 2"
PACKAGES = ("SimpleITK", "numpy", *ENGINES, "pydicom", "scipy")

COLUMNS = (
    "index",
    "file",
    "frame",
    "sop_instance_uid",
    "z_mm",
    "raw",
    "location",
    "uncertainty_mm",
    "nearest",
    "description",
    "landmark",
)
"""Columns of the CSV file, and keys of each slice in the JSON file."""


def result_files(output: Path, plot: bool = True) -> tuple[Path, ...]:
    """Return the names of the files that a prediction named `output` consists of.

    Raises:
        InputError: if `output` does not end in `.json`.
    """
    if output.suffix.lower() != ".json":
        raise InputError(f"{output} does not end in .json: name the result like chest.json.")
    table = output.with_suffix(".csv")
    return (output, table, output.with_suffix(".png")) if plot else (output, table)


def require_new(output: Path, plot: bool = True) -> None:
    """Raise `InputError` if a file of the prediction named `output` exists, or has no good name."""
    refuse_existing(output.parent, [file.name for file in result_files(output, plot)])


def write_prediction(output: Path, prediction: ScanPrediction, plot: bool = True) -> None:
    """Write a prediction as new files: all of them, or none.

    Args:
        output: the JSON file; the table `.csv` and the plot `.png` lie beside it.
        prediction: what to write; names of DICOM files are made relative to the scan's folder.
        plot: whether to draw the locations against z.

    Raises:
        InputError: if a file exists, or `output` does not end in `.json`.
    """
    record = prediction_record(prediction)
    with new_files(*result_files(output, plot)) as temporaries:
        for file, temporary in temporaries.items():
            if file.suffix == ".csv":
                rows = ([one[name] for name in COLUMNS] for one in record["slices"])
                csv_files.write_table(temporary, COLUMNS, rows)
            elif file.suffix == ".png":
                from CTSliceToolsLib.localizer.plots import (  # noqa: PLC0415
                    plot_prediction,
                )

                plot_prediction(temporary, prediction)
            else:
                temporary.write_text(json_text(record, allow_nan=False), encoding="utf-8")


def prediction_record(prediction: ScanPrediction) -> dict[str, Any]:
    """Return a prediction for `json`, see `write_prediction`."""
    source, folder = _scan_folder(prediction)
    found = prediction.landmarks
    of_slice: dict[int, list[str]] = defaultdict(list)
    for name, place in found.items():
        of_slice[place.slice.index].append(name)
    slices = [
        {
            "index": one.index,
            **_source_record(one.source, folder),
            "z_mm": one.z_mm,
            "raw": one.raw,
            "location": one.location,
            "uncertainty_mm": float(prediction.fit.uncertainty_at(one.z_mm)),
            "nearest": one.nearest,
            "description": one.description,
            "landmark": ", ".join(of_slice[one.index]),
        }
        for one in prediction.slices
    ]
    return {
        "format": FORMAT,
        "scan": {
            "source": str(source),
            "folder": str(folder),
            "series": asdict(prediction.series) if prediction.series else None,
            "sha256": prediction.sha256,
            "notes": list(prediction.notes),
        },
        "model": asdict(prediction.model),
        "software": software_versions(PACKAGES),
        "residual_mm": prediction.fit.residual_mm,
        "warnings": list(prediction.fit.warnings),
        "landmarks": {
            name: {
                "z_mm": place.z_mm,
                "uncertainty_mm": place.uncertainty_mm,
                "slice": place.slice.index,
            }
            | _source_record(place.slice.source, folder)
            for name, place in found.items()
        },
        "cannot_tell": list(prediction.unknown),
        "fit": {
            landmark.name: {"z_mm": z, "uncertainty_mm": off}
            for landmark, z, off in zip(
                LANDMARKS,
                prediction.fit.landmark_z_mm.tolist(),
                prediction.fit.uncertainty_mm.tolist(),
                strict=True,
            )
        },
        "slices": slices,
    }


def read_prediction(file: Path) -> ScanPrediction:
    """Read what `write_prediction` wrote.

    Raises:
        InputError: if the file is missing or no such JSON.
    """
    try:
        record = parse_json(file.read_bytes())
        if record["format"] != FORMAT:
            raise InputError(f"{file} is in the form '{record['format']}': predict again.")
        return _prediction(record)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file} is not a prediction of a scan: give the .json file that "
            "ct-slice-tools predict wrote."
        ) from error


def _prediction(record: dict[str, Any]) -> ScanPrediction:
    scan = record["scan"]
    folder = Path(scan["folder"])
    places = [record["fit"][landmark.name] for landmark in LANDMARKS]
    heights, uncertainty = (
        np.array([place[key] for place in places], float) for key in ("z_mm", "uncertainty_mm")
    )
    fit = ScanFit(heights, float(record["residual_mm"]), tuple(record["warnings"]), uncertainty)
    slices = tuple(
        SliceLocation(
            index,
            float(one["z_mm"]),
            float(one["raw"]),
            float(one["location"]),
            _slice_source(one, folder),
        )
        for index, one in enumerate(record["slices"])
    )
    z_mm = np.array([one.z_mm for one in slices])
    if not (len(z_mm) > 1 and (np.diff(z_mm) > 0).all() and (np.diff(heights) < 0).all()):
        raise ValueError("slices or landmarks out of order")
    return ScanPrediction(
        Path(scan["source"]),
        SeriesInfo(**scan["series"]) if scan["series"] else None,
        slices,
        fit,
        ModelUsed(**record["model"]),
        tuple(scan["notes"]),
        scan.get("sha256", ""),
    )


def match_record(
    prediction: ScanPrediction, level: Level, matches: Iterable[SliceMatch]
) -> dict[str, Any]:
    """Return the slices found in a scan as what `json` can write, null where it cannot be told."""
    source, folder = _scan_folder(prediction)
    numbers = asdict(level)
    return {
        "scan": {"source": str(source), "folder": str(folder)},
        "model": asdict(prediction.model),
        **(numbers if level.known else dict.fromkeys(numbers)),
        "matches": [
            {
                "index": one.slice.index,
                **_source_record(one.slice.source, folder),
                "z_mm": one.slice.z_mm,
                "location": one.slice.location,
                "error": one.error,
                "offset_mm": one.offset_mm,
            }
            for one in matches
        ],
    }


def read_alignment(file: Path) -> ScanAlignment | None:
    """Read what the command `align` wrote; None where the scans are not of one patient.

    Raises:
        InputError: if the file is missing or no such JSON.
    """
    try:
        levels = parse_json(file.read_bytes())["levels"]
        pairs = np.array([(one["z_mm"], one["like_z_mm"]) for one in levels], float)
    except DAMAGE as error:
        raise InputError(
            f"{file} is not an alignment of two scans: give the .json file that ct-slice-tools "
            "align wrote."
        ) from error
    return ScanAlignment(*pairs.T) if len(pairs) else None


def _scan_folder(prediction: ScanPrediction) -> tuple[Path, Path]:
    """The source of the scan, and the folder for relative names of its files."""
    source = prediction.source.absolute()
    return source, source if source.is_dir() else source.parent


def _source_record(source: SliceSource | None, folder: Path) -> dict[str, Any]:
    if source is None:
        return {"file": None, "frame": None, "sop_instance_uid": None}
    file = source.file.absolute()
    name = file.relative_to(folder) if file.is_relative_to(folder) else file
    return {
        "file": name.as_posix(),
        "frame": source.frame,
        "sop_instance_uid": source.sop_instance_uid,
    }


def _slice_source(record: dict[str, Any], folder: Path) -> SliceSource | None:
    if record["file"] is None:
        return None
    return SliceSource(record["sop_instance_uid"], folder / record["file"], record["frame"])


@dataclass(frozen=True)
class PredictionOutcome:
    """The outcome for one scan.

    Attributes:
        scan: which it was.
        output: its JSON file, whether written now or by an earlier run.
        new: whether it was written now.
        residual_mm: of the fit, if it was written now.
        warnings: of the fit.
        problem: one sentence if there is no result.
    """

    scan: IndexedScan
    output: Path
    new: bool = False
    residual_mm: float | None = None
    warnings: tuple[str, ...] = ()
    problem: str | None = None


def predict_all(
    folder: Path,
    output: Path,
    model: Model = DEFAULT_MODEL,
    plot: bool = True,
    progress: ProgressCallback = silent,
    device: Device | None = None,
    notes: list[str] | None = None,
) -> list[PredictionOutcome]:
    """Predict every scan below a folder and write the results below another.

    A scan that has its JSON file already is left as it is, so that an interrupted run can go on. A
    scan that cannot be used, or whose file is of another model or scan, is named among the outcomes
    and does not stop the others. One scan is held in memory at a time.

    Args:
        folder: with DICOM series and volume files, in any nesting.
        output: gets `<SeriesInstanceUID>.json` for a series, with a mark of its folder if others
            have the same UID, and `<path>.json` for a volume file, each with its table and plot.
        model: the localizer.
        plot: whether to draw plots.
        progress: stages "Searching" and "Scans".
        device: where the localizer's file runs; None for a GPU if there is one.
        notes: see `index_scans`.

    Raises:
        InputError: if there is no scan, none that can be used, the model cannot be used, or a
            folder in the output is a link.
    """
    open_model(model, device)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file: name a folder for the results.")
    scans = index_scans(folder, progress, notes=notes)
    outcomes = []
    with only_writer_in(output, "predicting"):
        for place in sorted({(output / result_name(scan)).parent for scan in scans}):
            refuse_links_below(output, place)
            remove_leftovers(place)
        for done, scan in enumerate(scans):

            def alive(*_: object, done: int = done) -> None:
                progress("Scans", done, len(scans))

            json_file = output / result_name(scan)
            outcomes.append(_predict_one(scan, json_file, model, plot, alive, device))
        progress("Scans", len(scans), len(scans))
        if all(one.problem for one in outcomes):
            raise InputError(f"No scan of {len(scans)} could be used. {outcomes[0].problem}")
    return outcomes


def result_name(scan: IndexedScan) -> str:
    """Name of the JSON file for a scan, relative to the output folder."""
    if not scan.uid:
        return f"{scan.files[0]}.json"
    proper = re.fullmatch(r"[0-9]+(\.[0-9]+)*", scan.uid)
    stem = scan.uid if proper else f"series-{_digest(scan.uid)}"  # no UID: no name either
    return f"{stem}-{_digest(scan.place)}.json" if scan.place else f"{stem}.json"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _predict_one(
    scan: IndexedScan,
    output: Path,
    model: Model,
    plot: bool,
    progress: ProgressCallback,
    device: Device | None,
) -> PredictionOutcome:
    try:
        if output.exists():
            _require_same(output, scan, open_model(model, device)[1])
            return PredictionOutcome(scan, output)
        require_new(output, plot)
        prediction = predict_scan(scan.read(progress), model, progress, device)
        if prediction.series is None:
            prediction = replace(prediction, sha256=volume_sha256(prediction.source))
        write_prediction(output, prediction, plot)
    except (Cancelled, OSError, MemoryError):
        raise
    except Exception as error:  # a problem of one scan must not stop the others
        return PredictionOutcome(scan, output, problem=sentence_of(error))
    fit = prediction.fit
    return PredictionOutcome(scan, output, True, fit.residual_mm, fit.warnings)


def _require_same(output: Path, scan: IndexedScan, model: ModelUsed) -> None:
    """Refuse a result that is there if it was made with another model or of another scan."""
    there = read_prediction(output)
    if there.model.sha256 != model.sha256:
        raise InputError(
            f"{output} was made with another model, {there.model.name}: choose another folder."
        )
    if not scan.uid and there.source.resolve() != (scan.folder / scan.files[0]).resolve():
        raise InputError(f"{output} was made of {there.source}: choose another folder.")
    sources = [one.source for one in there.slices]
    if scan.uid:
        instances = [one.sop_instance_uid for one in sources if one is not None]
        changed = len(instances) == len(sources) and not has_slices(scan, instances)
    else:
        changed = (
            bool(there.sha256)  # else of an earlier version
            and changed_since(output, volume_parts(there.source))
            and there.sha256 != volume_sha256(there.source)
        )
    if changed:
        raise InputError(
            f"{scan.folder / scan.files[0]} is of a scan that changed after {output} was made: "
            "delete the files of that name to predict it again."
        )
