"""The command `evaluate detection`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.progress import ProgressStyle, shown


def detection(
    submission: Annotated[
        Path, typer.Option(help="CSV: seriesuid, coordX, coordY, coordZ (LPS mm), probability.")
    ],
    annotations: Annotated[
        Path, typer.Option(help="CSV of the nodules: seriesuid, coordX … coordZ, diameter_mm.")
    ],
    seriesuids: Annotated[Path, typer.Option(help="CSV of all scans, one UID a line, no header.")],
    excluded: Annotated[
        Path | None, typer.Option(help="CSV of findings to be ignored, as the nodules.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="New JSON file for all figures.")
    ] = None,
    curve: Annotated[Path | None, typer.Option(help="New CSV file for the FROC curve.")] = None,
    plot: Annotated[Path | None, typer.Option(help="New PNG file for the FROC curve.")] = None,
    nodules: Annotated[
        Path | None, typer.Option(help="New CSV file that says which nodules were found.")
    ] = None,
    max_marks: Annotated[
        int, typer.Option(min=0, help="Marks looked at in a scan, the most probable; 0: all.")
    ] = 100,
    resamples: Annotated[
        int, typer.Option(min=0, help="Of the scans, for the confidence band; 0: none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the resamples.")] = 0,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Score a submission as the LUNA16 challenge does: FROC curve, seven sensitivities, CPM.

    Example: `lung-nodule-seg evaluate detection --submission mine.csv --annotations
    annotations.csv --excluded annotations_excluded.csv --seriesuids seriesuids.csv --json out.json`
    """
    with shown(progress) as report:
        from CTLungScreeningLib.files import refuse_existing  # noqa: PLC0415
        from LungNoduleSegLib.evaluation import detection as scoring  # noqa: PLC0415
        from LungNoduleSegLib.evaluation.luna_files import read_challenge  # noqa: PLC0415

        for path in (json_file, curve, plot, nodules):
            if path is not None:
                refuse_existing(path.parent, [path.name])
        report("Reading", 0, 1)
        marks, truth, notes = read_challenge(submission, annotations, excluded, seriesuids)
        report("Reading", 1, 1)
        report("Scoring", 0, 1)
        score = scoring.score_detection(marks, truth, max_marks, resamples, seed)
        report("Scoring", 1, 1)
        if json_file is not None:
            scoring.write_json(json_file, score)
        if curve is not None:
            scoring.write_curve(curve, score)
        if nodules is not None:
            scoring.write_nodules(nodules, score, truth)
        if plot is not None:
            from LungNoduleSegLib.evaluation.plots import plot_froc  # noqa: PLC0415

            plot_froc(plot, score)
        report.emit(score.to_dict(), score.to_text(), notes)
