"""The commands of cancer risk: `risk`, `features`, `train-risk` and `growth`."""

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from CTLungScreeningLib.command_line import (
    OutputFolder,
    ProgressOption,
    exit_if_failed,
    with_options,
)
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.files import refuse_existing, refuse_links
from CTLungScreeningLib.options import options_of
from CTLungScreeningLib.progress import ProgressStyle, Reporter, shown
from LungNoduleSegLib.options import SUSPICION_MODEL, RiskTrainingPlan, Weighting
from LungNoduleSegLib.risk.clinical_data import (
    NO_CLINICAL_DATA,
    ClinicalData,
    read_facts,
    read_prior_facts,
)
from LungNoduleSegLib.risk.facts import NoduleFacts, PatientFacts

if TYPE_CHECKING:
    from CTLungScreeningLib.reading.ct_scan import CTScan
    from LungNoduleSegLib.results.reading import RunResult
    from LungNoduleSegLib.risk.assessment import Assessment
    from LungNoduleSegLib.risk.guidelines import GuidelineResult


FactsOption = Annotated[
    Path | None,
    typer.Option(
        "--facts",
        help="JSON file with clinical data of patient and nodules.",
    ),
]


@with_options
def risk(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of results of `run`, a mask, or a CT scan to be segmented."),
    ],
    entered: PatientFacts,
    of_nodule: NoduleFacts,
    model: Annotated[
        Path | None, typer.Option(help="A .skops or .ubj file of `train-risk` with its card.")
    ] = None,
    nodule: Annotated[
        int | None, typer.Option(help="Nodule for the published models; default: the largest.")
    ] = None,
    facts: FactsOption = None,
    growth: Annotated[
        Path | None, typer.Option(help="The growth.csv of a comparison with the previous scan.")
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Estimate the risk of cancer with a trained model, published models and guidelines.

    Without --model, the bundled model rates how suspicious each nodule looks to a radiologist,
    which is not a probability of cancer. Published models and guidelines are shown without --model,
    or with any clinical data; missing facts are named. Research use only, not a medical device.

    Example: `lung-nodule-seg risk ~/results/chest --model ~/risk-models/xgboost.ubj --age 62
    --sex female --no-emphysema`
    """
    clinical_data = read_facts(facts) if facts else NO_CLINICAL_DATA
    patient = replace(clinical_data.patient, **_known(entered))
    corrections = _known(of_nodule)
    published = model is None or nodule is not None or growth is not None or bool(corrections)
    published |= patient != PatientFacts() or clinical_data != NO_CLINICAL_DATA
    results: dict[str, object] = {}
    texts: list[str] = []
    with shown(progress) as report, tempfile.TemporaryDirectory() as scratch:
        from LungNoduleSegLib.feature_extraction import features_of, results_of  # noqa: PLC0415
        from LungNoduleSegLib.risk import assessment, prediction  # noqa: PLC0415 - slow to import

        if model is not None:
            from LungNoduleSegLib.risk.risk_models import load_risk_model  # noqa: PLC0415

            load_risk_model(model)  # to fail before the work
        if not source.exists():
            raise InputError(f"{source} does not exist: name the results of a run, or a scan.")
        folder = results_of(source, source.name, Path(scratch), report)
        if model is None and not _models_can_run():
            texts.append("The rating of the bundled model needs the packages of the set `risk`.")
        elif folder is not None or model is not None:
            scan = features_of(folder or source, source.name, Path(scratch), report)
            predicted = prediction.predict_risk(scan, model or SUSPICION_MODEL)
            results["prediction"] = asdict(predicted)
            texts.append(prediction.to_text(predicted))
        if published:
            if folder is None:
                raise InputError(
                    f"{source} is a mask without its CT, which published models need: name the "
                    "folder of a run."
                )
            assessed, examination = _assessed(
                folder, nodule, replace(clinical_data, patient=patient), corrections, growth
            )
            results["examination"] = asdict(examination)
            texts.append(assessment.examination_text(examination))
            if assessed is None:
                texts.append("No nodule was found, so no published model applies.")
            else:
                results["assessment"] = asdict(assessed)
                texts.append(assessment.to_text(assessed))
        report.emit(results, "\n\n".join(texts))


def _models_can_run() -> bool:
    """Whether the packages are there that trained models need."""
    return all(map(importlib.util.find_spec, ("sklearn", "skops", "xgboost")))


def _known(facts: PatientFacts | NoduleFacts) -> dict[str, Any]:
    values = {one.name: getattr(facts, one.name) for one in options_of(type(facts))}
    return {name: value for name, value in values.items() if value is not None}


def _assessed(
    folder: Path,
    number: int | None,
    clinical_data: ClinicalData,
    corrections: dict[str, Any],
    growth: Path | None,
) -> "tuple[Assessment | None, GuidelineResult]":
    """Assess one nodule of a run, None without nodules, and classify the examination."""
    from LungNoduleSegLib.results.reading import TABLE, read_findings  # noqa: PLC0415 - slow
    from LungNoduleSegLib.risk.assessment import ScanRisk, assess_scan  # noqa: PLC0415

    table = folder / TABLE
    lungs, _, rows = read_findings(folder)
    if number is None and not rows:
        return None, ScanRisk(clinical_data.patient, ()).examination
    chosen = max(rows, key=lambda row: row.volume_mm3).id if number is None else number
    nodules = dict(clinical_data.nodules)
    nodules[chosen] = {**nodules.get(chosen, {}), **corrections}
    prior = read_prior_facts(growth) if growth else {}
    clinical_data = replace(clinical_data, nodules=nodules)
    found = assess_scan(rows, lungs, clinical_data, prior, str(table))
    one = next(one for one in found if one.nodule.id == chosen)
    return one, ScanRisk(clinical_data.patient, found).examination


def features(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of results of `run`, of masks or probabilities, or of CT scans."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="CSV file; an existing one is continued.")
    ],
    runs: Annotated[
        Path | None,
        typer.Option(help="Folder for the results of CT scans; default: NAME-runs beside the CSV."),
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Write the features of every scan in a folder to a CSV file, keeping rows it already has.

    CT scans are segmented first. Failures are listed in NAME-errors.csv; the other scans continue.

    Example: `lung-nodule-seg features ~/results -o ~/features.csv`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.feature_extraction import write_feature_table  # noqa: PLC0415

        outcome = write_feature_table(folder, output, runs, report)
        added = len(outcome.added)
        lines = [f"Failed: {scan}: {text}" for scan, text in outcome.errors.items()]
        lines.append(
            f"{counted(added, 'scan')} added, {len(outcome.kept)} kept, "
            f"{len(outcome.errors)} failed; the features are in {output}"
        )
        report.emit(asdict(outcome) | {"output": str(output)}, "\n".join(lines), outcome.notes)
    exit_if_failed(outcome.errors)


@with_options
def train_risk(
    feature_table: Annotated[Path, typer.Argument(help="The CSV file of `features`.")],
    labels: Annotated[
        Path,
        typer.Argument(help="CSV: patient_id, scan or both, and label: 1 for cancer or 0."),
    ],
    output: OutputFolder,
    plan: RiskTrainingPlan,
    balanced: Annotated[
        bool,
        typer.Option("--balanced", help="Weight cancer in XGBoost by its share instead of by 3."),
    ] = False,
    feature_set: Annotated[
        str, typer.Option(help="`all`, the `tutorial`'s nine, or the `physical` ones in mm and HU.")
    ] = "all",
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Train Random Forest and XGBoost on features and outcomes, and report their accuracy.

    Example: `lung-nodule-seg train-risk features.csv labels.csv -o ~/risk-models`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.risk import training  # noqa: PLC0415 - slow to import
        from LungNoduleSegLib.risk.training_data import FeatureSet  # noqa: PLC0415

        try:
            chosen = FeatureSet(feature_set.lower())
        except ValueError as error:
            raise InputError(
                f"There is no feature set '{feature_set}': choose {', '.join(FeatureSet)}."
            ) from error
        plan = replace(plan, weighting=Weighting.BALANCED) if balanced else plan
        result = training.train_risk(feature_table, labels, output, plan, chosen, report)
        scores = {algorithm: model.card.scores for algorithm, model in result.models.items()}
        report.emit(
            {"output": str(output), "scores": scores},
            f"{result.report}\nModels, plots and this report are in {output}",
        )


def growth(
    scans: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs, or scans, from the earliest to the latest."),
    ],
    output: OutputFolder,
    days: Annotated[
        int | None,
        typer.Option(min=1, help="Days between two scans; default: by their study dates."),
    ] = None,
    facts: FactsOption = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Follow the nodules of a patient through two or more scans: growth rates and new nodules.

    CT scans are segmented first, each into its own folder below the output folder, where a
    repeated call finds the results. The change enters the Lung-RADS category of each nodule;
    --facts belong to the last scan.

    Example: `lung-nodule-seg growth ~/results/2023 ~/results/2024 -o ~/results/growth`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.results import growth_results  # noqa: PLC0415 - slow to import
        from LungNoduleSegLib.results.reading import is_run  # noqa: PLC0415

        clinical_data = read_facts(facts) if facts else NO_CLINICAL_DATA
        refuse_existing(output, growth_results.FILES)
        runs: Sequence[Path | RunResult] = scans
        if not all(map(is_run, scans)):
            names = [f"scan-{number}" for number in range(1, len(scans) + 1)]
            names = names if len(scans) > 2 else ["prior", "current"]
            folders = [
                source if is_run(source) else output / name
                for source, name in zip(scans, names, strict=False)
            ]
            refuse_links(*(set(folders) - set(scans)))
            runs = _segmented(growth_results.read_sources(scans, days, report), folders, report)
        found = growth_results.compare_runs(runs, output, days, clinical_data, report)
        last = found.steps[-1]
        lines = [f"  {growth_results.track_sentence(one)}" for one in found.tracks]
        lines.append(f"Open {output / growth_results.GROWTH_PAGE} in a browser.")
        report.emit(
            {
                "output": str(output),
                "nodules": len(found.tracks),
                "days": last.days,
                "since": found.days,
                "notes": found.notes,
                "overlap": {str(side): dice for side, dice in last.alignment.overlap.items()},
                "levels": last.levels,
            },
            "\n".join(lines),
            found.notes,
        )


def _segmented(
    sources: "list[RunResult | CTScan]", folders: list[Path], report: Reporter
) -> "list[Path | RunResult]":
    """Segment the scans whose results are not in their folders from an earlier call."""
    from LungNoduleSegLib.results.reading import (  # noqa: PLC0415
        RunResult,
        is_run_on,
        result_names,
    )
    from LungNoduleSegLib.segmenter import NoduleSegmenter  # noqa: PLC0415

    found = list(zip(sources, folders, strict=True))
    needed = [
        (one, folder)
        for one, folder in found
        if not isinstance(one, RunResult) and not is_run_on(folder, one)
    ]
    for _, folder in needed:
        refuse_existing(folder, result_names(scene=False))
    for scan, folder in needed:
        NoduleSegmenter().run(scan, folder, progress=report)
    return [one if isinstance(one, RunResult) else folder for one, folder in found]
