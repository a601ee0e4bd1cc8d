"""An evaluation as files: CSV tables and plots, and a summary to print."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.staging import whole_output
from CTSliceToolsLib.localizer.evaluation import (
    TOLERANCES,
    TOLERANCES_MM,
    Evaluation,
    ScanErrors,
    Way,
    landmark_errors,
    pooled,
    ranges,
)
from CTSliceToolsLib.localizer.plots import EVALUATION_PLOTS, plot_evaluation

SUMMARY, RANGES, LANDMARKS, SLICES = "summary.csv", "ranges.csv", "landmarks.csv", "slices.csv"
LANDMARKS_BY_SCAN = "landmarks-by-scan.csv"
TABLES = (SUMMARY, RANGES, LANDMARKS, LANDMARKS_BY_SCAN, SLICES)

Row = dict[str, object]


def require_new(folder: Path) -> None:
    """Raise `InputError` if a file of the results is in a folder."""
    refuse_existing(folder, [*TABLES, *EVALUATION_PLOTS])


def write_results(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Write all tables and plots as new files into a folder; each row names its model and `Way`.

    `SUMMARY` has a row for each model and way; `RANGES`, for each range of true locations;
    `LANDMARKS`, for each landmark; `LANDMARKS_BY_SCAN`, for each landmark of each scan; `SLICES`,
    for each slice. Mean errors are of absolute values; the error of a slice or a landmark in a scan
    is positive if it was put too high, towards the head.

    Raises:
        InputError: if a file is there.
    """
    require_new(folder)
    with whole_output(folder) as whole:
        rows = (
            summary_rows(evaluations),
            _each(evaluations, _range_rows),
            _each(evaluations, _landmark_rows),
            _each(evaluations, _landmarks_by_scan),
            _each(evaluations, _slice_rows),
        )
        for name, of_table in zip(TABLES, rows, strict=True):
            _write(whole / name, of_table)
        plot_evaluation(whole, evaluations)


def summary_rows(evaluations: Sequence[Evaluation]) -> list[Row]:
    """Return the row of each model and way: numbers of scans and slices, errors, shares within."""
    return list(_each(evaluations, _summary_rows))


def summary_text(evaluations: Sequence[Evaluation]) -> str:
    """Return the summary in a form to print."""
    limit = TOLERANCES_MM[2]
    lines = [
        f"{'Model':<24}{'Locations':<17}{'Slices':>7}{'Mean error':>12}{'mm':>7}"
        f"{f'≤ {limit:g} mm':>10}{'Landmarks':>11}{'mm':>7}"
    ]
    for row in summary_rows(evaluations):
        landmark_mm = row["landmark_mean_error_mm"]
        lines.append(
            f"{row['model']:<24}{row['way']:<17}{row['slices']:>7}{row['mean_error']:>12.4f}"
            f"{row['mean_error_mm']:>7.1f}{row[f'within_{limit:g}_mm']:>10.0%}"
            f"{row['landmarks']:>11}{'–' if landmark_mm is None else f'{landmark_mm:.1f}':>7}"
        )
    return "\n".join(lines)


def _each(
    evaluations: Sequence[Evaluation], rows: Callable[[list[ScanErrors]], Iterable[Row]]
) -> Iterator[Row]:
    for evaluation in evaluations:
        for way in Way:
            for row in rows(evaluation.of(way)):
                yield {"model": evaluation.model, "way": way, **row}


def _summary_rows(scans: list[ScanErrors]) -> Iterator[Row]:
    if not scans:
        return
    slices = pooled(scans)
    landmarks = [e for errors in landmark_errors(scans).values() for e in errors]
    yield {
        "scans": len(scans),
        "slices": len(slices.truth),
        "mean_error": slices.error.mean(),
        "mean_error_mm": slices.error_mm.mean(),
        "median_error_mm": np.median(slices.error_mm),
        "p95_error_mm": np.quantile(slices.error_mm, 0.95),
        **{f"within_{limit:g}": np.mean(slices.error <= limit) for limit in TOLERANCES},
        **{f"within_{limit:g}_mm": np.mean(slices.error_mm <= limit) for limit in TOLERANCES_MM},
        "landmarks": len(landmarks),
        "landmark_mean_error_mm": np.mean(landmarks) if landmarks else None,
        "z": "measured" if all(scan.measured for scan in scans) else "of usual proportions",
    }


def _range_rows(scans: list[ScanErrors]) -> Iterator[Row]:
    if not scans:
        return
    slices = pooled(scans)
    for low, high in ranges(slices.truth):
        inside = (slices.truth >= low) & (slices.truth < high)
        if inside.any():
            yield {
                "from": low,
                "to": high,
                "slices": int(inside.sum()),
                "mean_error": slices.error[inside].mean(),
                "mean_error_mm": slices.error_mm[inside].mean(),
            }


def _landmark_rows(scans: list[ScanErrors]) -> Iterator[Row]:
    for landmark, errors in landmark_errors(scans).items():
        yield {
            "landmark": landmark,
            "scans": len(errors),
            "mean_error_mm": errors.mean(),
            "largest_error_mm": errors.max(),
            **{f"within_{limit:g}_mm": np.mean(errors <= limit) for limit in TOLERANCES_MM},
        }


def _landmarks_by_scan(scans: list[ScanErrors]) -> Iterator[Row]:
    for scan in scans:
        for landmark, error in scan.landmark_mm.items():
            yield {"scan": scan.scan, "landmark": landmark, "error_mm": error}


def _slice_rows(scans: list[ScanErrors]) -> Iterator[Row]:
    for scan in scans:
        columns = (scan.z_mm, scan.truth, scan.predicted, scan.error_mm)
        for z, truth, predicted, error in zip(*columns, strict=True):
            yield {
                "scan": scan.scan,
                "z_mm": z,
                "location": truth,
                "predicted": predicted,
                "error_mm": error,
            }


def _write(file: Path, rows: Iterable[Row]) -> None:
    listed = list(rows)
    if not listed:
        return
    cells = ([_rounded(row[name]) for name in listed[0]] for row in listed)
    csv_files.write_table(file, listed[0], cells)


def _rounded(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
