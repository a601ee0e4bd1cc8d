"""The command `evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, exit_if_failed
from CTLungScreeningLib.progress import ProgressStyle, shown


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(help="Folder of `partition`, or one with annotated DICOM series below."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results; nothing is overwritten.")
    ],
    model: Annotated[
        Path | None, typer.Option(help="A .keras model with its .json card; default: bundled.")
    ] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Another model beside it; may be given repeatedly.")
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Tell how far a localizer is off on scans that it was not trained on.

    Of a folder of `partition` the testing part is taken; there mm are those of a body of usual
    proportions, as the slices do not tell their z. Annotated series give real mm, landmarks, and
    how good the locations of all slices together are.

    Example: `ct-slice-tools evaluate ~/parts -o ~/evaluation --model a.keras --compare b.keras`
    """
    with shown(progress) as report:
        from CTSliceToolsLib.localizer import evaluation, evaluation_results  # noqa: PLC0415
        from CTSliceToolsLib.localizer.labelled_scans import scan_sources  # noqa: PLC0415
        from CTSliceToolsLib.localizer.prediction import DEFAULT_MODEL  # noqa: PLC0415

        evaluation_results.require_new(output)
        problems: list[str] = []
        found = evaluation.evaluate(
            [model or DEFAULT_MODEL, *(compare or [])],
            scan_sources(data, report),
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
    exit_if_failed(problems, progress)
