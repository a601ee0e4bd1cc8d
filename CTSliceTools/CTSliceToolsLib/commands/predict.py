"""The command `predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from CTLungScreeningLib.command_line import DeviceOption, ProgressOption
from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressStyle, Reporter, shown

if TYPE_CHECKING:
    from CTSliceToolsLib.localizer.dataset_prediction import PredictionOutcome
    from CTSliceToolsLib.localizer.prediction import ScanPrediction


def predict(
    source: Annotated[
        Path, typer.Argument(help="DICOM folder or volume file (.nrrd, .mhd, .nii.gz …).")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="New .json file; the table .csv and the plot .png are written beside it. With "
            "--all, the folder for the results.",
        ),
    ],
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, where the folder holds several.")
    ] = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Predict every series and volume file below the folder, one JSON each."
        ),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="A model: its .json card or a file beside it; default: bundled."),
    ] = None,
    plot: Annotated[bool, typer.Option(help="Draw the locations against z.")] = True,
    device: DeviceOption = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Tell where in the body the slices of a scan lie, and where its landmarks are.

    Example: `ct-slice-tools predict ~/dicom/chest -o ~/results/chest.json`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL  # noqa: PLC0415

        chosen = model or DEFAULT_MODEL
        if every:
            if series is not None:
                raise InputError("Give either --series or --all, not both.")
            _predict_all(source, output, chosen, plot, report, device)
        else:
            _predict_one(source, output, series, chosen, plot, report, device)


def _predict_one(
    source: Path,
    output: Path,
    series: str | None,
    model: Path,
    plot: bool,
    report: Reporter,
    device: Device | None,
) -> None:
    from CTLungScreeningLib.model_card import read_card  # noqa: PLC0415
    from CTSliceToolsLib.localizer import prediction, results  # noqa: PLC0415 - slow to import

    results.require_new(output, plot)
    read_card(model)
    found = prediction.SliceLocalizer(model, device).apply(source, series=series, progress=report)
    results.write_prediction(output, found, plot)
    report.emit(
        {
            "output": str(output),
            "landmarks": {name: place.z_mm for name, place in found.landmarks.items()},
            "residual_mm": found.fit.residual_mm,
            "warnings": found.warnings,
        },
        _landmark_table(found),
        [*found.notes, *found.warnings],
    )


def _landmark_table(found: "ScanPrediction") -> str:
    low, high = found.slices[0], found.slices[-1]
    lines = [
        f"{len(found.slices)} slices, from {low.location:.3f} ({low.description}) "
        f"to {high.location:.3f} ({high.description})",
        f"Median residual of the fit: {found.fit.residual_mm:.1f} mm",
        f"{'Landmark':<24}{'z (mm)':>9}{'± mm':>6}{'slice':>7}",
    ]
    lines += [
        f"{name:<24}{place.z_mm:>9.1f}{place.uncertainty_mm:>6.0f}{place.slice.index:>7}"
        for name, place in found.landmarks.items()
    ]
    return "\n".join(lines)


def _predict_all(
    source: Path,
    output: Path,
    model: Path,
    plot: bool,
    report: Reporter,
    device: Device | None,
) -> None:
    from CTSliceToolsLib.localizer.dataset_prediction import predict_all  # noqa: PLC0415 - slow

    outcomes = predict_all(source, output, model, plot, report, device)
    report.emit(
        {
            "output": str(output),
            "written": sum(one.new for one in outcomes),
            "earlier": sum(not one.new and not one.problem for one in outcomes),
            "problems": {one.scan.name: one.problem for one in outcomes if one.problem},
        },
        "\n".join(map(_outcome_line, outcomes)),
    )


def _outcome_line(one: "PredictionOutcome") -> str:
    if one.problem:
        return f"{one.scan.name}: not usable: {one.problem}"
    if not one.new:
        return f"{one.scan.name}: was there already, in {one.output}"
    doubts = "".join(f" {warning}" for warning in one.warnings)
    return f"{one.scan.name}: residual {one.residual_mm:.1f} mm, in {one.output}{doubts}"
