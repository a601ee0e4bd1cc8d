"""The section Training: from annotated scans to a trained and measured network."""

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from CTLungScreeningSlicer.panel.training import StepsSection
from CTLungScreeningSlicer.panel.widgets import (
    ModelChooser,
    PictureWindow,
    offer_file,
    offer_folder,
    offer_new_model,
    pictures_in,
)
from LungNoduleSegLib.options import Preset, StoreTrainingPlan
from LungNoduleSegSlicer.panel.segment_section import TITLE
from LungNoduleSegSlicer.panel.training_run import (
    OF_PRESET,
    Collection,
    Measure,
    Step,
    TrainingParameters,
    TrainingRun,
    chosen_run,
)
from LungNoduleSegSlicer.scene.logic import LungNoduleSegLogic

_MOST_SCANS = 10
"""Maximum number of scans that are listed."""


def _prepared(result: dict[str, Any]) -> str:
    text = _(
        "Prepared: {added} new scans, {kept} already prepared, {without} without nodules skipped; "
        "{examples} examples."
    ).format(
        added=len(result["added"]),
        kept=len(result["kept"]),
        without=result["without"],
        examples=result["examples"],
    )
    failed = len(result["failed"])
    where = _("{count} failed; see errors.csv in {store}.")
    return f"{text} {where.format(count=failed, store=result['output'])}" if failed else text


def _checked(result: dict[str, Any]) -> str:
    return _("Check images: {count}.").format(count=len(result["pages"]))


def _trained(result: dict[str, Any]) -> str:
    best = result["best"]
    return _("Trained: best epoch {epoch:.0f}, Dice {dice:.3f} on held-out data.").format(
        epoch=best["epoch"], dice=best["val_dice_coefficient"]
    )


def _dice(result: dict[str, Any]) -> str:
    lines = [
        _("Mean Dice: {slice} per slice, {scan} per scan, {nodule} per nodule.").format(
            slice=_figure(result["mean_slice_dice"]),
            scan=_figure(result["mean_scan_dice"]),
            nodule=_figure(result["mean_nodule_dice"]),
        ),
        _("{found} of {nodules} nodules found, {false_positives} false positives.").format(
            **result
        ),
    ]
    scans = result["scans"] if 1 < len(result["scans"]) <= _MOST_SCANS else []
    return "\n".join([*lines, *(f"  {_figure(scan['dice'])} {scan['name']}" for scan in scans)])


def _detection(result: dict[str, Any]) -> str:
    points = zip(result["false_positives_per_scan"], result["sensitivity"], strict=True)
    lines = [
        _("CPM {cpm:.3f}: {found} of {nodules} nodules in {scans} scans found.").format(**result),
        _("Sensitivity at false positives per scan: {points}.").format(
            points=", ".join(f"{found:.2f} at {false:g}" for false, found in points)
        ),
    ]
    return "\n".join(lines)


def _synthetic(result: dict[str, Any]) -> str:
    at = result["at_threshold"]
    lines = [
        _("Lesions found at threshold {threshold:g}, {false:.1f} false positives per scan:").format(
            threshold=at["threshold"], false=at["false_positives_per_scan"]
        )
    ]
    for name in ("found_of_by_size", "found_of_by_type"):
        counts = (f"{key} {found}/{of}" for key, (found, of) in at[name].items())
        lines.append("  " + ", ".join(counts))
    return "\n".join([*lines, _detection(result)])


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


_DONE = {Step.PREPARE: _prepared, Step.CHECK: _checked, Step.TRAIN: _trained}
_MEASURED = {
    Measure.DICE: _dice,
    Measure.DETECTION: _detection,
    Measure.SYNTHETIC: _synthetic,
}


class TrainingSection(StepsSection):
    """The four steps from annotated scans to an evaluated network.

    Attributes:
        pages: the window with the pictures of a store.
        plots: the window with the plots of an evaluation.
    """

    TITLE = TITLE

    def __init__(
        self, ui: Any, logic: LungNoduleSegLogic, model: ModelChooser, requirements: Path
    ) -> None:
        """Build the section.

        Args:
            ui: see `StepsSection`.
            logic: runs the commands.
            model: gets the trained model, and provides the one to evaluate if none is trained.
            requirements: see `StepsSection`.
        """
        super().__init__(
            ui, ui.trainingLabel, TrainingParameters, logic.commands, model, requirements
        )
        self.pages = PictureWindow(_("Check images"))
        self.plots = PictureWindow(_("Evaluation"))
        self._offer_paths()
        ui.pagesButton.clicked.connect(self.show_pages)
        ui.plotsButton.clicked.connect(self.show_plots)
        self.refresh()

    def stop(self) -> None:
        """Stop the run and close the pictures."""
        super().stop()
        self.pages.close()
        self.plots.close()

    def show_run(self, run: TrainingRun) -> None:
        """Show what follows from the parameters."""
        ui = self._ui
        usual = StoreTrainingPlan.of(run.plan.preset)
        for name, parameter in OF_PRESET.items():
            text = _("{value:g} (preset)").format(value=getattr(usual, name))
            self._parameters.widgets[parameter].specialValueText = text
        ui.preparationBox.visible = Step.PREPARE in run.steps
        ui.lunaRows.visible = run.collection is Collection.LUNA16
        ui.lidcRows.visible = run.collection is Collection.LIDC_IDRI
        ui.planBox.visible = Step.TRAIN in run.steps
        tutorial = run.plan.preset is Preset.TUTORIAL
        ui.tutorialSplitBox.enabled = tutorial
        ui.hardNegativesBox.enabled = ui.stepsBox.enabled = not tutorial
        ui.pagesButton.visible = Step.CHECK in run.steps
        ui.plotsButton.visible = Step.EVALUATE in run.steps
        ui.unfinishedLabel.visible = run.unfinished
        ui.evaluationBox.visible = Step.EVALUATE in run.steps
        ui.diceRows.visible = run.measure is Measure.DICE
        ui.detectionRows.visible = run.measure is Measure.DETECTION
        ui.syntheticRows.visible = run.measure is Measure.SYNTHETIC
        ui.pagesButton.enabled = bool(run.pages)
        ui.plotsButton.enabled = bool(pictures_in(run.paths["results"]))

    def show_pages(self, *_arguments: Any) -> None:
        """Show the pictures of the store."""
        self.pages.show(self.chosen_run().pages)

    def show_plots(self, *_arguments: Any) -> None:
        """Show the plots of the evaluation."""
        self.plots.show(pictures_in(self.chosen_run().paths["results"]))

    def chosen_run(self) -> TrainingRun:
        """Return the run of the parameters."""
        return chosen_run(self._parameters, self._model.file)

    def obstacles(self) -> dict[str, str]:
        """Return the message for each path that can be missing."""
        return {
            "scans": _("Choose the folder with the annotated scans first."),
            "annotations": _("Choose the CSV file with the nodules first."),
            "store": _("Choose the folder of the training data first."),
            "pages": _("Choose the folder for the check images first."),
            "model": _("Choose a file for the new model first."),
            "predicted": _("Choose the predicted masks first."),
            "truth": _("Choose the reference masks first."),
            "submission": _("Choose the CSV file with the detections first."),
            "nodules": _("Choose the CSV file with the reference nodules first."),
            "series": _("Choose the CSV file that lists the scans first."),
            "scan": _("Choose the scan for the synthetic lesions first."),
            "results": _("Choose the folder for the results first."),
        }

    def result_text(self, run: TrainingRun, step: Step, result: dict[str, Any]) -> str:
        """Describe the result of a step."""
        if step is Step.EVALUATE:
            return _MEASURED[run.measure](result)
        return _DONE[step](result)

    def use_result(self, run: TrainingRun, step: Step, result: dict[str, Any]) -> None:
        """Show the pictures of a step."""
        if step is Step.CHECK:
            self.pages.show([Path(page) for page in result["pages"]])
        elif step is Step.EVALUATE and (plots := pictures_in(run.paths["results"])):
            self.plots.show(plots)

    def _offer_paths(self) -> None:
        ui = self._ui
        for name in ("scans", "store", "pages", "predicted", "truth", "scan", "results"):
            offer_folder(getattr(ui, f"{name}Folder"), self._parameters.widgets[name])
        tables, masks = _("Tables (*.csv)"), _("Masks (*.nrrd *.nii *.nii.gz *.mha *.mhd *.npy)")
        for name, filters in {
            "annotations": tables,
            "patients": tables,
            "weights": _("Weights (*.keras *.h5)"),
            "predicted": masks,
            "truth": masks,
            "submission": tables,
            "nodules": tables,
            "excluded": tables,
            "series": tables,
            "scan": _("Volumes (*.nrrd *.nii *.nii.gz *.mha *.mhd)"),
            "ownNodules": masks,
        }.items():
            offer_file(
                getattr(ui, f"{name}File"), self._parameters.widgets[name], _("File"), filters
            )
        offer_new_model(ui.modelFile, self._parameters.widgets["model"])
