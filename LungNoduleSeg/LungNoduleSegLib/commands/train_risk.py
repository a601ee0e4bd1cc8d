"""The commands `features` and `train-risk` of `lung-nodule-seg`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, exit_if_failed
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressStyle, shown


def features(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of results of `run`, of masks or probabilities, or of CT scans."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="CSV file; one of an earlier time goes on.")
    ],
    runs: Annotated[
        Path | None,
        typer.Option(help="Folder for the results of CT scans; default: NAME-runs beside the CSV."),
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Write the features of every scan in a folder to a CSV file; scans in it already are kept.

    CT scans are segmented first. What fails is listed in NAME-errors.csv and stops nothing.

    Example: `lung-nodule-seg features ~/results -o ~/features.csv`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.feature_extraction.feature_table import write_feature_table  # noqa: PLC0415

        outcome = write_feature_table(folder, output, runs, report)
        added = len(outcome.added)
        lines = [f"Failed: {scan}: {text}" for scan, text in outcome.errors.items()]
        lines.append(
            f"{added} scan{'' if added == 1 else 's'} added, {len(outcome.kept)} kept, "
            f"{len(outcome.errors)} failed; the features are in {output}"
        )
        report.emit(asdict(outcome) | {"output": str(output)}, "\n".join(lines))
    exit_if_failed(outcome.errors, progress)


def train_risk(
    feature_table: Annotated[Path, typer.Argument(help="The CSV file of `features`.")],
    labels: Annotated[
        Path,
        typer.Argument(help="CSV: patient_id or scan, and label, which is 1 for cancer or 0."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results; nothing is overwritten.")
    ],
    folds: Annotated[int, typer.Option(help="Of the cross-validation by patient.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Fixes folds, trees and shuffles.")] = 0,
    balanced: Annotated[
        bool,
        typer.Option("--balanced", help="Weigh cancer in XGBoost by its share instead of by 3."),
    ] = False,
    feature_set: Annotated[
        str, typer.Option(help="`all`, the `tutorial`'s nine, or `ours` in mm and HU.")
    ] = "all",
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Train Random Forest and XGBoost on features and outcomes, and report how good they are.

    Example: `lung-nodule-seg train-risk features.csv labels.csv -o ~/risk-models`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.risk import training  # noqa: PLC0415 - slow to import
        from LungNoduleSegLib.risk.training_data import FeatureSet  # noqa: PLC0415

        if feature_set not in list(FeatureSet):
            raise InputError(
                f"There is no feature set '{feature_set}': choose {', '.join(FeatureSet)}."
            )
        weighting = training.Weighting.BALANCED if balanced else training.Weighting.TUTORIAL
        plan = training.RiskTrainingPlan(folds, seed, weighting)
        chosen = FeatureSet(feature_set)
        result = training.train_risk(feature_table, labels, output, plan, chosen, report)
        scores = {algorithm: model.card.scores for algorithm, model in result.models.items()}
        report.emit(
            {"output": str(output), "scores": scores},
            f"{result.report}\nModels, plots and this report are in {output}",
        )
