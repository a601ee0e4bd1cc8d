"""The commands that make a dataset: organize, annotate, normalize, convert, partition."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, exit_if_failed, with_options
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.progress import ProgressStyle, shown
from CTSliceToolsLib.options import OrganizeOptions, PartitionOptions, Transfer

DEFAULT_KEY = Path(typer.get_app_dir("ct-slice-tools")) / "pseudonym.key"


@with_options
def organize(
    source: Annotated[Path, typer.Argument(help="Folder with DICOM files, in any nesting.")],
    destination: Annotated[
        Path, typer.Argument(help="Folder for the result; nothing is overwritten.")
    ],
    options: OrganizeOptions,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Sort DICOM files into folders by patient, study and series, named by instance number.

    Run again after an interruption, it continues where it stopped.

    Example: `ct-slice-tools organize ~/downloads ~/dataset --transfer link`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.organizing import organizer  # noqa: PLC0415 - slow to import
        from CTSliceToolsLib.organizing.identifiers import read_or_make_key  # noqa: PLC0415

        pseudonymize, key_path = options.pseudonymize, options.key_file or DEFAULT_KEY
        if options.key_file and not pseudonymize:
            raise InputError(f"The key {key_path} has no effect: use --pseudonymize too.")
        key = read_or_make_key(key_path, destination) if pseudonymize else None
        summary = organizer.organize(source, destination, options.transfer, key, report)
        notes = list(summary.notes)
        if pseudonymize:
            notes.append(f"The key of the folder names is {key_path}: keep it secret and safe.")
        known = summary.placed + summary.already_there + summary.duplicates + summary.broken
        # A move that is run again finds its source empty.
        empty = not known and options.transfer is not Transfer.MOVE
        if empty:
            notes.append(f"{source} holds no DICOM files: choose another folder.")
        table = summary.left_out_table
        text = organizer.format_summary(summary)
        if table:
            text += f"\nThe files left out, with reasons, are in {table}"
        report.emit(asdict(summary) | {"left_out_table": table and str(table)}, text, notes)
    exit_if_failed(range(summary.broken + empty))


def annotate(
    series: Annotated[Path, typer.Argument(help="Folder of one DICOM series.")],
    heights: Annotated[Path, typer.Argument(help="JSON file of `predict` for that series.")],
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Turn predicted landmarks of a series into an annotation, which a person should check.

    Writes `annotation.json` into the folder, with the nearest slice to each landmark. Any JSON file
    with `{"landmarks": {"C7": {"z_mm": -30.0}}}` can be used.

    Example: `ct-slice-tools annotate ~/dataset/P1/study/series ~/results/P1.json`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.dataset.annotation import annotate_series  # noqa: PLC0415 - slow

        annotation = annotate_series(series, heights)
        lines = [
            f"{landmark:<24}{name:<20} {annotation.z_mm[landmark]:>9.1f} mm"
            for landmark, name in annotation.slices.items()
        ]
        report.emit({"slices": dict(annotation.slices)}, "\n".join(lines))


def normalize(
    dataset: Annotated[
        Path, typer.Argument(help="Folder with annotated DICOM series, in any nesting.")
    ],
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Compute the normalized location of each slice of the annotated series.

    Writes `normalized_locations.json` for each series and `combined_normalized_locations.json` for
    all; run it again after a change of the annotations. Series that cannot be used are
    reported and skipped.

    Example: `ct-slice-tools normalize ~/dataset`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.dataset import normalization  # noqa: PLC0415 - slow to import

        found = normalization.normalize(dataset, report)
        failures = [
            *(f"Series refused: {problem}" for problem in found.refused),
            *(f"Left out: {problem}" for problem in found.left_out),
        ]
        for failure in failures:
            report.warn(failure)
        output = dataset / normalization.COMBINED_LOCATIONS
        slices = counted(len(found.locations), "slice")
        text = f"{slices} of {found.series} series written to {output}."
        if found.refused:
            text += f"\n{len(found.refused)} series refused, see above."
        report.emit(
            {
                "output": str(output),
                "series": found.series,
                "slices": len(found.locations),
                "refused": found.refused,
            },
            text,
        )
    exit_if_failed(found.refused)


def convert(
    dataset: Annotated[Path, typer.Argument(help="Folder on which `normalize` was run.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the files; nothing is overwritten.")
    ],
    three_channels: Annotated[
        bool, typer.Option("--three-channels", help="Store each picture three times, as RGB.")
    ] = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Make an `.npz` training file of each slice that has a normalized location.

    It has `pixels`, 256 × 256 of 2 mm, −1000 to 600 HU as 0 to 255; `norm_loc`; and
    `series_instance_UID`. Existing files are kept: started again, it continues where it stopped.
    Files of slices that are no longer in the data set are refused, since a training would use them.

    Example: `ct-slice-tools convert ~/dataset -o ~/npz`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.dataset import conversion  # noqa: PLC0415 - slow to import

        found = conversion.convert(dataset, output, three_channels, report)
        for problem in found.failed:
            report.warn(f"Not converted: {problem}")
        report.emit(
            {
                "output": str(output),
                "made": found.made,
                "kept": found.kept,
                "failed": found.failed,
            },
            f"{counted(found.made, 'file')} made in {output}, {found.kept} already existed, "
            f"{len(found.failed)} could not be converted.",
            found.notes,
        )
    exit_if_failed(found.failed)


@with_options
def partition(
    source: Annotated[Path, typer.Argument(help="Folder that `convert` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the three parts.")],
    options: PartitionOptions,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Divide the slices into `training`, `validation` and `testing` by series.

    About 70, 20 and 10 % of the series, by the SHA-256 of the Series Instance UID, so a series is
    always in the same part. Existing files are kept; those of other slices are refused.

    Example: `ct-slice-tools partition ~/npz -o ~/parts`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.dataset import conversion as parts  # noqa: PLC0415 - slow to import

        found = parts.partition(source, output, options.hard_links, report)
        for problem in found.failed:
            report.warn(f"Left out: {problem}")
        notes = []
        if empty := [part for part in parts.Part if not found.slices[part]]:
            notes = [f"There are too few series: {' and '.join(empty)} got none."]
        report.emit(
            {
                "output": str(output),
                "slices": found.slices,
                "series": found.series,
                "kept": found.kept,
                "failed": found.failed,
            },
            "\n".join(
                f"{part:<12}{found.slices[part]:>8} slices of {found.series[part]} series"
                for part in parts.Part
            ),
            notes,
        )
    exit_if_failed(found.failed)
