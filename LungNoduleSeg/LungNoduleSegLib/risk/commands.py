"""The commands `features`, `train-risk` and `risk` of `lung-nodule-seg`."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from CTSliceToolsLib.command_line import ProgressOption
from CTSliceToolsLib.errors import InputError
from CTSliceToolsLib.progress import JsonLines, ProgressStyle, shown
from LungNoduleSegLib.nodules.table import read_nodules_csv
from LungNoduleSegLib.results.names import LUNGS, TABLE
from LungNoduleSegLib.risk.facts import PatientFacts, PriorCancer, Sex

if TYPE_CHECKING:
    from LungNoduleSegLib.risk.assessment import Assessment

PRIOR_CANCER = {member.name.lower().replace("_", "-"): member for member in PriorCancer}


def _prior_cancer(text: str) -> PriorCancer:
    if text not in PRIOR_CANCER:
        raise typer.BadParameter(f"choose one of {', '.join(PRIOR_CANCER)}")
    return PRIOR_CANCER[text]


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
        from LungNoduleSegLib.risk.feature_table import write_feature_table  # noqa: PLC0415

        outcome = write_feature_table(folder, output, runs, report)
        if isinstance(report, JsonLines):
            report.write(result=asdict(outcome) | {"output": str(output)})
    if progress is not ProgressStyle.JSONL:
        for scan, text in outcome.errors.items():
            print(f"Failed: {scan}: {text}")
        print(
            f"{len(outcome.added)} scans added, {len(outcome.kept)} kept, "
            f"{len(outcome.errors)} failed; the features are in {output}"
        )


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
        plan = training.TrainingPlan(folds, seed, weighting)
        chosen = FeatureSet(feature_set)
        result = training.train_risk(feature_table, labels, output, plan, chosen, report)
        if isinstance(report, JsonLines):
            scores = {algorithm: model.card.scores for algorithm, model in result.models.items()}
            report.write(result={"output": str(output), "scores": scores})
    if progress is not ProgressStyle.JSONL:
        print(result.report)
        print(f"Models, plots and this report are in {output}")


def risk(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of results of `run`, a mask, or a CT scan to be segmented."),
    ],
    model: Annotated[
        Path | None, typer.Option(help="A .skops or .ubj file of `train-risk` with its card.")
    ] = None,
    nodule: Annotated[
        int | None, typer.Option(help="Nodule for the published models; default: the largest.")
    ] = None,
    age: Annotated[float | None, typer.Option(help="Years.")] = None,
    sex: Annotated[Sex | None, typer.Option(help="Sex as the models use it.")] = None,
    family_history: Annotated[bool | None, typer.Option(help="Lung cancer in the family.")] = None,
    emphysema: Annotated[bool | None, typer.Option(help="Emphysema on CT.")] = None,
    ever_smoked: Annotated[bool | None, typer.Option(help="Current or former smoker.")] = None,
    prior_cancer: Annotated[
        PriorCancer | None,
        typer.Option(parser=_prior_cancer, metavar="WHICH", help=f"{', '.join(PRIOR_CANCER)}."),
    ] = None,
    high_risk: Annotated[
        bool | None, typer.Option(help="High risk by clinical judgement, for Fleischner.")
    ] = None,
    screening: Annotated[bool | None, typer.Option(help="A screening CT, for Lung-RADS.")] = None,
    immunosuppressed: Annotated[bool | None, typer.Option(help="Immunosuppression.")] = None,
    spiculation: Annotated[bool | None, typer.Option(help="The nodule is spiculated.")] = None,
    upper_lobe: Annotated[bool | None, typer.Option(help="It lies in an upper lobe.")] = None,
    benign_pattern: Annotated[
        bool | None, typer.Option(help="Benign calcification, or fat.")
    ] = None,
    solid_component_mm: Annotated[
        float | None, typer.Option(help="Mean diameter of the solid component in mm.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Nodules in both lungs, as corrected.")] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Give the probability of cancer from a trained model, from published ones, or from both.

    Without --model, or once a fact of the patient or the nodule is given, the published models and
    guidelines are shown; what they still miss is named. Research use only, not a medical device.

    Example: `lung-nodule-seg risk ~/results/chest --model ~/risk-models/xgboost.ubj --age 62
    --sex female --no-emphysema`
    """
    patient = PatientFacts(
        age=age,
        sex=sex,
        family_history=family_history,
        emphysema=emphysema,
        ever_smoked=ever_smoked,
        prior_cancer=prior_cancer,
        high_risk=high_risk,
        screening=screening,
        immunosuppressed=immunosuppressed,
    )
    corrections = {
        "spiculation": spiculation,
        "upper_lobe": upper_lobe,
        "benign_pattern": benign_pattern,
        "solid_component_mm": solid_component_mm,
        "count": count,
    }
    given = {name: value for name, value in corrections.items() if value is not None}
    published = model is None or nodule is not None or patient != PatientFacts() or bool(given)
    results: dict[str, object] = {}
    texts: list[str] = []
    with shown(progress) as report, tempfile.TemporaryDirectory() as scratch:
        from LungNoduleSegLib.risk import assessment, prediction  # noqa: PLC0415 - slow to import
        from LungNoduleSegLib.risk.feature_table import features_of, results_of  # noqa: PLC0415
        from LungNoduleSegLib.risk.risk_models import load_risk_model  # noqa: PLC0415

        if model is not None:
            load_risk_model(model)  # refused before the work, not after it
        if not source.exists():
            raise InputError(f"{source} does not exist: give the results of a run, or a scan.")
        folder = results_of(source, source.name, Path(scratch), report)
        if model is not None:
            scan = features_of(folder or source, source.name, Path(scratch), report)
            predicted = prediction.predict_risk(scan, model)
            results["prediction"] = asdict(predicted)
            texts.append(prediction.to_text(predicted))
        if published:
            if folder is None:
                raise InputError(
                    f"{source} is a mask without its CT, so the published models know too little: "
                    "give the folder of a run."
                )
            assessed = _assessed(folder, nodule, patient, given)
            if assessed is None:
                texts.append("No nodule was found, so no published model applies.")
            else:
                results["assessment"] = asdict(assessed)
                texts.append(assessment.to_text(assessed))
        if isinstance(report, JsonLines):
            report.write(result=results)
    if progress is not ProgressStyle.JSONL:
        print("\n\n".join(texts))


def _assessed(
    folder: Path, number: int | None, patient: PatientFacts, given: Mapping[str, object]
) -> "Assessment | None":
    """Assess one nodule of a run by the published models; None where there is no nodule."""
    import SimpleITK as sitk  # noqa: PLC0415 - slow to import

    from LungNoduleSegLib.risk.assessment import assess  # noqa: PLC0415
    from LungNoduleSegLib.risk.facts import measured_facts  # noqa: PLC0415

    rows = read_nodules_csv(folder / TABLE)
    if number is None and not rows:
        return None
    chosen = max(rows, key=lambda row: row.volume_mm3).id if number is None else number
    facts = {fact.id: fact for fact in measured_facts(rows, sitk.ReadImage(folder / LUNGS))}
    if chosen not in facts:
        raise InputError(f"{folder / TABLE} has no nodule {chosen}: give one of its ids.")
    return assess(facts[chosen].corrected(**given), patient)
