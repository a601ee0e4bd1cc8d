"""The commands `check` and `evaluate ...`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import (
    ModelOption,
    OutputFolder,
    ProgressOption,
    new_app,
    with_options,
)
from CTLungScreeningLib.errors import counted
from CTLungScreeningLib.files import new_files, require_new_files
from CTLungScreeningLib.json_files import write_object
from CTLungScreeningLib.progress import ProgressStyle, shown
from LungNoduleSegLib.lungs.labels import LungMethod
from LungNoduleSegLib.options import (
    DEFAULT_MODEL,
    DetectionOptions,
    DiceOptions,
    SyntheticOptions,
)


@with_options
def detection(
    submission: Annotated[
        Path, typer.Option(help="CSV: seriesuid, coordX, coordY, coordZ (LPS mm), probability.")
    ],
    annotations: Annotated[
        Path,
        typer.Option(
            help="CSV of the nodules: seriesuid, coordX … coordZ, diameter_mm; texture (a word or "
            "a rating, 1 ground glass to 5 solid) and place (free, pleura, vessel) if known."
        ),
    ],
    seriesuids: Annotated[
        Path, typer.Option(help="CSV of all scans, one UID per line, no header.")
    ],
    options: DetectionOptions,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="New JSON file for all scores.")
    ] = None,
    curve: Annotated[Path | None, typer.Option(help="New CSV file for the FROC curve.")] = None,
    plot: Annotated[Path | None, typer.Option(help="New PNG file for the FROC curve.")] = None,
    nodules: Annotated[
        Path | None, typer.Option(help="New CSV file with the nodules and their detections.")
    ] = None,
    subgroups_file: Annotated[
        Path | None,
        typer.Option("--subgroups", help="New CSV file: found by size, texture and place."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="New PNG file: probability against the share of nodules.")
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Score a submission as in the LUNA16 challenge: FROC curve, seven sensitivities, CPM.

    Also by size, texture and place, at the threshold that gives one false positive per scan.

    Example: `lung-nodule-seg evaluate detection --submission mine.csv --annotations
    annotations.csv --excluded annotations_excluded.csv --seriesuids seriesuids.csv --json out.json`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.evaluation import detection as scoring  # noqa: PLC0415
        from LungNoduleSegLib.evaluation import subgroups  # noqa: PLC0415
        from LungNoduleSegLib.evaluation.luna_files import read_challenge  # noqa: PLC0415

        wanted = (json_file, curve, plot, nodules, subgroups_file, calibration)
        outputs = [path for path in wanted if path is not None]
        require_new_files(*outputs)
        report("Reading", 0, 1)
        marks, truth, notes = read_challenge(submission, annotations, options.excluded, seriesuids)
        report("Reading", 1, 1)
        report("Scoring", 0, 1)
        score = scoring.score_detection(
            marks, truth, options.max_marks, options.resamples, options.seed
        )
        threshold = score.threshold_at_one
        groups = subgroups.subgroups(scoring.true_nodules(score, truth), threshold)
        found = score.matching.marks
        reliability = subgroups.calibration(found.probability, found.found)
        figures = {**score.to_dict(), **subgroups.to_dict(groups, reliability, threshold)}
        report("Scoring", 1, 1)
        with new_files(*outputs) as whole:
            if json_file is not None:
                write_object(whole[json_file], figures)
            if curve is not None:
                scoring.write_curve(whole[curve], score)
            if nodules is not None:
                scoring.write_nodules(whole[nodules], score, truth)
            if subgroups_file is not None:
                subgroups.write_csv(whole[subgroups_file], groups)
            if plot is not None or calibration is not None:
                from LungNoduleSegLib.evaluation import plots  # noqa: PLC0415 - slow to import

                if plot is not None:
                    plots.plot_froc(whole[plot], score)
                if calibration is not None:
                    plots.plot_calibration(whole[calibration], reliability)
        text = (
            score.to_text(),
            "At one false positive per scan:",
            subgroups.to_text(groups, reliability),
        )
        report.emit(figures, "\n".join(text), notes)


@with_options
def dice(
    predicted: Annotated[
        Path,
        typer.Argument(help="Mask (NIfTI, NRRD, .seg.nrrd), folder of a run, or folder of these."),
    ],
    truth: Annotated[Path, typer.Argument(help="The true mask, or a folder with the same names.")],
    options: DiceOptions,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="New JSON file for the means.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="New CSV file for each slice, scan and nodule.")
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Compare predicted with true masks: mean Dice coefficient by slice, scan and nodule.

    Two .npy files of slices [n, 1, rows, columns] are compared as in the tutorial.

    Example: `lung-nodule-seg evaluate dice ~/results/chest truth.nrrd --json dice.json`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.evaluation import dice as masks  # noqa: PLC0415

        outputs = [path for path in (json_file, csv_file) if path is not None]
        require_new_files(*outputs)
        scans = masks.evaluate_dice(predicted, truth, options.resample, report)
        with new_files(*outputs) as whole:
            if json_file is not None:
                write_object(whole[json_file], masks.summary(scans))
            if csv_file is not None:
                masks.write_csv(whole[csv_file], scans)
        report.emit(masks.summary(scans), masks.to_text(scans))


def lungs(
    source: Annotated[Path, typer.Argument(help="Chest CT in any form.")],
    other: Annotated[
        str,
        typer.Argument(help="lungmask or totalsegmentator, if installed, or a label image."),
    ],
    differences: Annotated[
        Path | None,
        typer.Option(help="New .nii.gz or .nrrd file: 1 only in our lungs, 2 only in the others."),
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, if a folder has several.")
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Compare the lungs found in a scan with those of another program or file.

    Prints the Dice coefficient and volume of each lung, and where the two differ most.

    Example: `lung-nodule-seg evaluate lungs ~/dicom/chest lungmask --differences apart.nii.gz`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.evaluation.dice import compare_lungs  # noqa: PLC0415 - slow to import

        method = LungMethod(other) if other in tuple(LungMethod) else Path(other)
        found = compare_lungs(source, method, differences, series, report)
        report.emit(asdict(found), found.to_text())


@with_options
def synthetic(
    source: Annotated[
        Path, typer.Argument(help="Chest CT that the model was not trained on, in any form.")
    ],
    output: OutputFolder,
    options: SyntheticOptions,
    model: ModelOption = None,
    cubes: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real nodules to insert instead: image/NAME (HU), mask/NAME; if there, "
            "nodules.csv with file, texture. The model must not have been trained on them."
        ),
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Insert lesions of known sizes and types into a scan and report which are found.

    Writes the sensitivity and Dice by size, texture and place, the FROC curve, the calibration,
    pictures of the lesions, and a submission for `evaluate detection`.

    Example: `lung-nodule-seg evaluate synthetic ~/dicom/chest -o ~/synthetic --nodules own.nrrd`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.evaluation import synthetic_lesions  # noqa: PLC0415 - slow to import
        from LungNoduleSegLib.network.transplants import read_cubes  # noqa: PLC0415

        result = synthetic_lesions.evaluate_synthetic_lesions(
            source,
            output,
            model_file=model or DEFAULT_MODEL,
            cubes=read_cubes(cubes) if cubes else (),
            progress=report,
            **vars(options),
        )
        report.emit(
            result.to_dict() | {"output": str(output)},
            f"{synthetic_lesions.to_text(result)}\nTables, curves and pictures are in {output}",
        )


app = new_app("Evaluate findings and masks against a reference.")
app.command()(dice)
app.command()(lungs)
app.command()(detection)
app.command()(synthetic)


def check(
    store: Annotated[Path, typer.Argument(help="Folder of prepare-luna or prepare-lidc.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the pages; nothing is overwritten.")
    ],
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Draw each example of a store: slice, mask, masked slice, close-up and prepared slice.

    Example: `lung-nodule-seg check ~/store -o ~/pages`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.training_data.pictures import draw_pages  # noqa: PLC0415 - slow to import

        pages = draw_pages(store, output, report)
        report.emit(
            {"pages": [str(page) for page in pages]},
            f"{counted(len(pages), 'page')}: look at {pages[0]}",
        )
