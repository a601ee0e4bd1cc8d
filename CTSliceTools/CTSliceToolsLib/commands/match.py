"""The command `match`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.progress import ProgressCallback, ProgressStyle, shown
from CTSliceToolsLib.landmarks import describe_location

if TYPE_CHECKING:
    import SimpleITK as sitk

    from CTSliceToolsLib.localizer.matching import Level, SliceMatch
    from CTSliceToolsLib.localizer.prediction import ScanPrediction

SCAN_HELP = "DICOM folder, volume file, or the .json file of an earlier `predict`."


def match(
    scan: Annotated[Path, typer.Argument(help=f"Where to look: {SCAN_HELP}")],
    location: Annotated[
        float | None, typer.Option(help="Normalized location to find, such as 0.225.")
    ] = None,
    landmark: Annotated[
        str | None, typer.Option(help="Landmark to find, such as 'Aortic arch'.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help=f"Other scan whose --slice or --z to find: {SCAN_HELP}")
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--slice", help="Slice of the other scan, counted from 0 at the feet."),
    ] = None,
    z: Annotated[float | None, typer.Option(help="Level of the other scan: LPS z in mm.")] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Of the normalized location; 0.01 is 10 to 20 mm.")
    ] = 0.01,
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, where the folder holds several.")
    ] = None,
    like_series: Annotated[
        str | None, typer.Option(help="The same for the folder of the other scan.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A .keras model with its .json card; default: bundled.")
    ] = None,
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

        _check_question(location, landmark, like, number, z)
        if output is not None:
            refuse_existing(output.parent, [output.name])
        here, image = _prediction(scan, series, model, report)
        about: dict[str, Any] = {}
        notes = list(here.fit.warnings)
        if like is None:
            key = landmark if location is None else location
            assert key is not None
            level = matching.find_level(here, key)
        else:
            there, other_image = _prediction(like, like_series, model, report)
            asked = _asked_z(there, like, number, z)
            level = matching.find_same_level(here, there, asked, image, other_image)
            about = {"like": {"source": str(there.source), "z_mm": asked}}
            notes += [f"{like}: {warning}" for warning in there.fit.warnings]
            if there.model != here.model:
                notes.append(
                    f"The scans were predicted by {here.model.name} and {there.model.name}: "
                    "predict both with one model for a better match."
                )
        matches = matching.match_slices(here, level, tolerance)
        record = results.match_record(here, level, matches) | about
        if output is not None:
            results.write_json(output, record)
        report.emit(record, "\n".join(_table(level, matches)), notes)


def _check_question(
    location: float | None,
    landmark: str | None,
    like: Path | None,
    number: int | None,
    z: float | None,
) -> None:
    if sum(given is not None for given in (location, landmark, like)) != 1:
        raise InputError("Give one of --location, --landmark and --like: what to look for.")
    if (like is None) != (number is None and z is None) or None not in (number, z):
        raise InputError("Give --like together with one of --slice and --z.")


def _prediction(
    source: Path, series: str | None, model: Path | None, report: ProgressCallback
) -> "tuple[ScanPrediction, sitk.Image | None]":
    """Predict a scan, or read its prediction, for which there are no voxels."""
    from CTLungScreeningLib.reading.ct_reading import read_ct  # noqa: PLC0415
    from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL, predict_scan  # noqa: PLC0415
    from CTSliceToolsLib.localizer.results import read_prediction  # noqa: PLC0415

    if source.suffix.lower() == ".json":
        return read_prediction(source), None
    read = read_ct(source, series, report)
    return predict_scan(read, model or DEFAULT_MODEL, report), read.image


def _asked_z(there: "ScanPrediction", source: Path, number: int | None, z: float | None) -> float:
    if number is None:
        assert z is not None
        low, high = there.field_of_view
        if not low <= z <= high:
            raise InputError(
                f"{source} reaches from z = {low:.1f} to {high:.1f} mm: give --z within it."
            )
        return z
    if not 0 <= number < len(there.slices):
        raise InputError(
            f"{source} has the slices 0 to {len(there.slices) - 1}: give --slice within them."
        )
    return there.slices[number].z_mm


def _table(level: "Level", matches: list["SliceMatch"]) -> list[str]:
    where = f"z = {level.z_mm:.1f} mm, slice {level.position:.1f}"
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
