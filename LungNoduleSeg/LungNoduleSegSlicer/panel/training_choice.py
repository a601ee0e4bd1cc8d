"""The run that the choices of the section Training ask for."""

from pathlib import Path

from CTLungScreeningSlicer.panel.section_parameters import SectionParameters
from LungNoduleSegLib.training_data.training_plan import ExampleChoice, Preset, StoreTrainingPlan
from LungNoduleSegSlicer.panel.evaluation_run import Evaluation
from LungNoduleSegSlicer.panel.training_run import Preparation, Step, TrainingRun

OF_PRESET = {
    "epochs": "epochs",
    "steps": "steps",
    "batch": "batch",
    "filters": "filters",
    "learning_rate": "learningRate",
}
"""Numbers of `StoreTrainingPlan` and their parameters, of which 0 stands for that of the preset."""

NOTHING = TrainingRun(
    (), Preparation(), None, None, StoreTrainingPlan.of(Preset.OURS), None, Evaluation()
)


def chosen_run(parameters: SectionParameters, model: Path | None) -> TrainingRun:
    """Give the run, with the paths that follow from those that were chosen.

    Args:
        parameters: with `TrainingParameters`.
        model: to be evaluated unless one is trained.
    """
    choice, path = parameters.values, parameters.path
    if choice is None:
        return NOTHING
    numbers = {name: choice.getValue(parameter) or None for name, parameter in OF_PRESET.items()}
    preparation = parameters.settings(Preparation, examples=parameters.settings(ExampleChoice))
    plan = StoreTrainingPlan.of(
        choice.preset,
        weights=path("weights"),
        tutorial_split=choice.preset is Preset.TUTORIAL and choice.tutorialSplit,
        hard_negatives=choice.hardNegatives,
        **numbers,
    )
    evaluation = parameters.settings(Evaluation, model=model)
    steps = [step for step in Step if choice.getValue(f"{step.value}Step")]
    run = TrainingRun(
        steps, preparation, path("store"), path("pages"), plan, path("model"), evaluation
    )
    return run.completed()
