"""Predictions for every scan below a folder, one result per scan."""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.scan_index import IndexedScan, index_scans
from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL, Model, open_model, predict_scan
from CTSliceToolsLib.localizer.results import require_new, write_prediction


@dataclass(frozen=True)
class PredictionOutcome:
    """What became of one scan.

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
) -> list[PredictionOutcome]:
    """Predict every scan below a folder and write the results below another.

    A scan that has its JSON file already is left as it is, so that an interrupted run can go on. A
    scan that cannot be used is named among the outcomes and does not stop the others. One scan is
    held in memory at a time.

    Args:
        folder: with DICOM series and volume files, in any nesting.
        output: gets `<SeriesInstanceUID>.json` for a series and `<path>.json` for a volume file,
            each with its table and plot.
        model: the localizer.
        plot: whether to draw plots.
        progress: stages "Searching" and "Scans".
        device: where the localizer's file runs; None for a GPU if there is one.

    Raises:
        InputError: if there is no scan, none that can be used, or the model cannot be used.
    """
    open_model(model, device)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file: name a folder for the results.")
    scans = index_scans(folder, progress)
    outcomes = []
    for done, scan in enumerate(scans):

        def alive(*_: object, done: int = done) -> None:
            progress("Scans", done, len(scans))

        outcomes.append(_predict_one(scan, output / result_name(scan), model, plot, alive, device))
    progress("Scans", len(scans), len(scans))
    if all(one.problem for one in outcomes):
        raise InputError(f"None of the {len(scans)} scans could be used. {outcomes[0].problem}")
    return outcomes


def result_name(scan: IndexedScan) -> str:
    """Name of the JSON file for a scan, relative to the output folder."""
    if not scan.uid:
        return f"{scan.files[0]}.json"
    if re.fullmatch(r"[0-9]+(\.[0-9]+)*", scan.uid):
        return f"{scan.uid}.json"
    return f"series-{sha256(scan.uid.encode()).hexdigest()[:16]}.json"  # no UID: no name either


def _predict_one(
    scan: IndexedScan,
    output: Path,
    model: Model,
    plot: bool,
    progress: ProgressCallback,
    device: Device | None,
) -> PredictionOutcome:
    if output.exists():
        return PredictionOutcome(scan, output)
    try:
        require_new(output, plot)
        prediction = predict_scan(scan.read(progress), model, progress, device)
        write_prediction(output, prediction, plot)
    except InputError as error:
        return PredictionOutcome(scan, output, problem=str(error))
    fit = prediction.fit
    return PredictionOutcome(scan, output, True, fit.residual_mm, fit.warnings)
