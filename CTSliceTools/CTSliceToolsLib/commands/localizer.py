"""The commands of the localizer: train, evaluate, predict, match."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from CTLungScreeningLib.command_line import (
    DeviceOption,
    ModelOption,
    NewModel,
    OutputFolder,
    ProgressOption,
    SeriesOption,
    emit_training,
    exit_if_failed,
    finite,
    with_options,
)
from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.json_files import write_object
from CTLungScreeningLib.progress import ProgressCallback, ProgressStyle, Reporter, shown
from CTSliceToolsLib.landmarks import describe_location
from CTSliceToolsLib.options import LocalizerTrainingPlan

if TYPE_CHECKING:
    import SimpleITK as sitk

    from CTSliceToolsLib.localizer.matching import Level, SliceMatch
    from CTSliceToolsLib.localizer.prediction import ScanPrediction
    from CTSliceToolsLib.localizer.results import PredictionOutcome


@with_options
def train(
    data: Annotated[
        Path, typer.Argument(help="Folder of `partition`, with training/ and validation/.")
    ],
    output: NewModel,
    plan: LocalizerTrainingPlan,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Train a localizer and keep the best epoch on the validation slices.

    Started again with the same options, an interrupted training continues after its last epoch.

    Example: `ct-slice-tools train ~/parts -o ~/models/mine.keras --backbone resnet50`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.localizer import training  # noqa: PLC0415 - slow to import

        result = training.train(data, output, plan, report, lambda epoch: report.write(epoch=epoch))
        emit_training(
            report,
            result,
            f"Epoch {result.best['epoch']:.0f} of {len(result.epochs)} was the best: mean error "
            f"{result.best['val_error']:.4f} of the location on the validation slices.",
        )


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(help="Folder of `partition`, or one with annotated DICOM series below."),
    ],
    output: OutputFolder,
    model: ModelOption = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Another model to compare; can be repeated.")
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Measure the error of a localizer on scans that it was not trained on.

    For a folder of `partition`, the testing part is used, with errors in mm for a body of typical
    proportions, as its slices have no z. Annotated series give true mm, landmark errors and the
    accuracy of whole scans.

    Example: `ct-slice-tools evaluate ~/parts -o ~/evaluation --model a.keras --compare b.keras`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.localizer import evaluation, evaluation_results  # noqa: PLC0415
        from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL  # noqa: PLC0415

        evaluation_results.require_new(output)
        problems: list[str] = []
        found = evaluation.evaluate(
            [model or DEFAULT_MODEL, *(compare or [])],
            evaluation.scan_sources(data, report),
            report,
            problems.append,
        )
        evaluation_results.write_results(output, found)
        for problem in problems:
            report.warn(f"Left out: {problem}")
        report.emit(
            {"output": str(output), "summary": evaluation_results.summary_rows(found)},
            f"{evaluation_results.summary_text(found)}\nTables and plots are in {output}",
        )
    exit_if_failed(problems)


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
    series: SeriesOption = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Predict every series and volume file below the folder."),
    ] = False,
    model: ModelOption = None,
    plot: Annotated[bool, typer.Option(help="Plot the locations against z.")] = True,
    device: DeviceOption = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Locate the slices of a scan in the body, and find its landmarks.

    Example: `ct-slice-tools predict ~/dicom/chest -o ~/results/chest.json`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL  # noqa: PLC0415

        chosen = model or DEFAULT_MODEL
        failures: dict[str, str] = {}
        if every:
            if series is not None:
                raise InputError("Use either --series or --all, not both.")
            failures = _predict_all(source, output, chosen, plot, report, device)
        else:
            _predict_one(source, output, series, chosen, plot, report, device)
    exit_if_failed(failures)


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
            "uncertainty_mm": {
                name: place.uncertainty_mm for name, place in found.landmarks.items()
            },
            "cannot_tell": found.unknown,
            "residual_mm": found.fit.residual_mm,
            "warnings": found.warnings,
        },
        _landmark_table(found),
        [*found.notes, *found.warnings],
    )


def _landmark_table(found: "ScanPrediction") -> str:
    low, high = found.slices[0], found.slices[-1]
    lines = [
        f"{counted(len(found.slices), 'slice')}, from {low.location:.3f} ({low.description}) "
        f"to {high.location:.3f} ({high.description})",
        f"Median residual of the fit: {found.fit.residual_mm:.1f} mm",
        f"{'Landmark':<24}{'z (mm)':>9}{'± mm':>6}{'slice':>7}",
    ]
    lines += [
        f"{name:<24}{place.z_mm:>9.1f}{place.uncertainty_mm:>6.0f}{place.slice.index:>7}"
        for name, place in found.landmarks.items()
    ]
    lines += [f"{name:<24}{'unknown':>15}" for name in found.unknown]
    return "\n".join(lines)


def _predict_all(
    source: Path,
    output: Path,
    model: Path,
    plot: bool,
    report: Reporter,
    device: Device | None,
) -> dict[str, str]:
    """Predict every scan; returns the messages of those that failed."""
    from CTSliceToolsLib.localizer.results import predict_all  # noqa: PLC0415 - slow

    notes: list[str] = []
    outcomes = predict_all(source, output, model, plot, report, device, notes)
    problems = {one.scan.name: one.problem for one in outcomes if one.problem}
    report.emit(
        {
            "output": str(output),
            "written": sum(one.new for one in outcomes),
            "earlier": sum(not one.new and not one.problem for one in outcomes),
            "problems": problems,
        },
        "\n".join(map(_outcome_line, outcomes)),
        notes,
    )
    return problems


def _outcome_line(one: "PredictionOutcome") -> str:
    if one.problem:
        return f"{one.scan.name}: not usable: {one.problem}"
    if not one.new:
        return f"{one.scan.name}: already exists, in {one.output}"
    warnings = "".join(f" {warning}" for warning in one.warnings)
    return f"{one.scan.name}: residual {one.residual_mm:.1f} mm, in {one.output}{warnings}"


SCAN_HELP = "DICOM folder, volume file, or the .json file of an earlier `predict`."


def match(
    scan: Annotated[Path, typer.Argument(help=f"Scan to search: {SCAN_HELP}")],
    location: Annotated[
        float | None,
        typer.Option(
            min=-1, max=2, callback=finite, help="Normalized location to find, such as 0.225."
        ),
    ] = None,
    landmark: Annotated[
        str | None, typer.Option(help="Landmark to find, such as 'Aortic arch'.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help=f"Other scan, with --slice or --z: {SCAN_HELP}")
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--slice", help="Slice of the other scan, from 0 at the feet."),
    ] = None,
    z: Annotated[
        float | None, typer.Option(callback=finite, help="Level of the other scan: LPS z in mm.")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            callback=finite,
            help="Largest difference of location; 0.01 is 10 to 20 mm.",
        ),
    ] = 0.01,
    series: SeriesOption = None,
    like_series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID in the folder of the other scan.")
    ] = None,
    model: ModelOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New .json file for the matches.")
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Find the slices of a scan at a location, a landmark, or the level of another scan's slice.

    Example: `ct-slice-tools match ~/dicom/2024 --like ~/dicom/2023 --slice 57`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.localizer import matching, results  # noqa: PLC0415 - slow to import

        _check_target(location, landmark, like, number, z)
        if like is None and like_series is not None:
            raise InputError("Use --like-series together with --like.")
        others = [] if like is None else [(like, "--like-series", like_series)]
        _check_effects(model, (scan, "--series", series), *others)
        if output is not None:
            refuse_existing(output.parent, [output.name])
        here, image = _prediction(scan, series, model, report)
        about: dict[str, Any] = {}
        notes = list(here.fit.warnings)
        if like is None:
            key = landmark if location is None else location
            assert key is not None
            level = matching.find_level(here, key)
            about = {"location": level.location}  # known as it was asked for
        else:
            there, other_image = _prediction(like, like_series, model, report)
            wanted = _wanted_z(there, like, number, z)
            level = matching.find_same_level(here, there, wanted, image, other_image)
            about = {"like": {"source": str(there.source), "z_mm": wanted}}
            notes += [f"{like}: {warning}" for warning in there.fit.warnings]
            if there.model != here.model:
                notes.append(
                    f"The scans were predicted by {here.model.name} and {there.model.name}: "
                    "predict both with one model for a better match."
                )
        matches = matching.match_slices(here, level, tolerance) if level.known else []
        record = results.match_record(here, level, matches) | about | {"warnings": notes}
        if output is not None:
            write_object(output, record)
        report.emit(record, "\n".join(_table(here, level, matches)), notes)


def align(
    scan: Annotated[Path, typer.Argument(help=f"One scan: {SCAN_HELP}")],
    like: Annotated[Path, typer.Argument(help="The other scan, in any of these formats.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New .json file.")],
    model: ModelOption = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Align two scans of a patient level by level, by their voxels.

    The scan of a .json file of an earlier `predict` must still be where it was.

    Example: `ct-slice-tools align ~/dicom/2024 ~/dicom/2023 -o ~/results/levels.json`
    """
    with shown(progress) as report:
        from CTLungScreeningLib.reading.ct_reading import read_ct  # noqa: PLC0415
        from CTSliceToolsLib.localizer import matching  # noqa: PLC0415 - slow to import

        _check_effects(model, (scan, "", None), (like, "", None))
        refuse_existing(output.parent, [output.name])
        pair = [_prediction(one, None, model, report) for one in (scan, like)]
        here, there = (prediction for prediction, _ in pair)
        image, other = (
            image
            if image is not None
            else read_ct(prediction.source, prediction.series_uid, report).image
            for prediction, image in pair
        )
        alignment = matching.align_scans(here, there)
        found = matching.check_alignment(alignment, image, other, report)
        levels = [] if found is None else list(zip(found.z_mm, found.other_mm, strict=True))
        warnings = [*here.fit.warnings, *there.fit.warnings]
        lost = [str(one.source) for one in (here, there) if not one.located]
        record = {
            "scans": [str(here.source), str(there.source)],
            "levels": [{"z_mm": float(z), "like_z_mm": float(other)} for z, other in levels],
            "warnings": warnings,
        }
        write_object(output, record)
        lines = [f"{'z (mm)':>10}{'other (mm)':>12}"]
        lines += [f"{z:>10.1f}{other:>12.1f}" for z, other in levels]
        if found is None and lost:
            lines = [f"Unknown: no level can be located in {' and '.join(lost)}."]
        elif found is None:
            lines = ["The scans do not look like those of one patient: no level was corrected."]
        report.emit(record, "\n".join(lines), warnings)


def _check_target(
    location: float | None,
    landmark: str | None,
    like: Path | None,
    number: int | None,
    z: float | None,
) -> None:
    if sum(one is not None for one in (location, landmark, like)) != 1:
        raise InputError("Use exactly one of --location, --landmark and --like.")
    if (like is None) != (number is None and z is None) or None not in (number, z):
        raise InputError("Use --like together with one of --slice and --z.")


def _check_effects(model: Path | None, *scans: tuple[Path, str, str | None]) -> None:
    """Refuse options of scans that are predicted already.

    Args:
        model: to predict the scans with.
        scans: the scans, each with the option for its series, and the series.
    """
    known = [one for one in scans if _is_prediction(one[0])]
    unused = [(scan, option) for scan, option, series in known if series is not None]
    if model is not None and len(known) == len(scans):
        unused.append((scans[0][0], "--model"))
    for scan, option in unused:
        raise InputError(
            f"{scan} is a prediction, on which {option} has no effect: leave it out, or give the "
            "scan itself."
        )


def _is_prediction(source: Path) -> bool:
    return source.suffix.lower() == ".json"


def _prediction(
    source: Path, series: str | None, model: Path | None, report: ProgressCallback
) -> "tuple[ScanPrediction, sitk.Image | None]":
    """Predict a scan, or read its prediction, then without an image."""
    from CTLungScreeningLib.reading.ct_reading import read_ct  # noqa: PLC0415
    from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL, predict_scan  # noqa: PLC0415
    from CTSliceToolsLib.localizer.results import read_prediction  # noqa: PLC0415

    if _is_prediction(source):
        return read_prediction(source), None
    read = read_ct(source, series, report)
    return predict_scan(read, model or DEFAULT_MODEL, report), read.image


def _wanted_z(there: "ScanPrediction", source: Path, number: int | None, z: float | None) -> float:
    if number is None:
        assert z is not None
        low, high = there.field_of_view
        if not low <= z <= high:
            raise InputError(
                f"{source} extends from z = {low:.1f} to {high:.1f} mm: choose --z within it."
            )
        return z
    if not 0 <= number < len(there.slices):
        raise InputError(
            f"{source} has the slices 0 to {len(there.slices) - 1}: choose --slice among them."
        )
    return there.slices[number].z_mm


def _table(scan: "ScanPrediction", level: "Level", matches: list["SliceMatch"]) -> list[str]:
    if not level.known:
        return [f"Unknown: the level cannot be located in {scan.source}."]
    where = f"z = {level.z_mm:.1f} ± {level.uncertainty_mm:.0f} mm, slice {level.position:.1f}"
    lines = [
        f"Location {level.location:.4f}, {describe_location(level.location)}: "
        + (where if level.in_view else f"outside the scan, it would be at {where}")
    ]
    if not matches:
        return [*lines, "No slice lies within the tolerance."]
    lines.append(f"{'slice':>6}{'z (mm)':>10}{'off by (mm)':>13}{'location':>10}  file")
    lines += [
        f"{one.slice.index:>6}{one.slice.z_mm:>10.1f}{one.offset_mm:>+13.1f}"
        f"{one.slice.location:>10.4f}  {one.slice.source.file.name if one.slice.source else ''}"
        for one in matches
    ]
    return lines
