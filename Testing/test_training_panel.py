"""The section Training of LungNoduleSeg: real buttons, real commands in child processes."""

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

import slicer_host

slicer = slicer_host.start()

import numpy as np
import qt
import SimpleITK as sitk

from annotated_scans import chest, write_luna
from CTLungScreeningLib.child_process import ChildCommand
from LungNoduleSegLib.options import DEFAULT_MODEL, Preset, RunOptions, StoreTrainingPlan
from LungNoduleSegSlicer.panel.batch_section import BatchParameters
from LungNoduleSegSlicer.panel.training_run import Collection, Measure, TrainingParameters
from nodule_panel import PanelTest
from panel_host import PICTURES, StepsTest, leave_panel, open_panel, slow, write_card
from plot_pictures import save_chart
from slicer_host.actions import process_events, save_picture, tool_tip, wait_until
from submissions import write_findings, write_submission, write_uids

PATIENTS = 2


class TrainingTest(StepsTest, PanelTest):
    """The section open, with a folder of its own."""

    STEPS = ("prepare", "check", "train", "evaluate")
    PATIENCE_S = 900

    def setUp(self) -> None:
        super().setUp()
        self.section = self.widget.training
        self.run_bar = self.section.run_bar
        self.ui.trainingSection.collapsed = False
        self.ui.segmentSection.collapsed = True
        self.addCleanup(setattr, self.ui.trainingSection, "collapsed", True)
        self.addCleanup(setattr, self.ui.segmentSection, "collapsed", False)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.nodes = self.node_ids()

    def choose(self, box: Any, choice: Any) -> None:
        kind: Any = type(choice)
        box.currentIndex = list(kind).index(choice)

    def write_scans(self) -> None:
        """Write the scans of two patients as LUNA16 comes, and choose them."""
        scans, annotations = write_luna(
            self.folder, {f"1.2.{n}": chest(n) for n in range(PATIENTS)}
        )
        self.ui.scansLine.text = str(scans)
        self.ui.annotationsLine.text = str(annotations)


class TestChoices(TrainingTest):
    def test_the_button_says_what_is_missing(self) -> None:
        self.tick()
        self.assertEqual(tool_tip(self.run_bar.button), "Select a step first.")
        self.tick("prepare")
        self.assertIn("annotated scans", tool_tip(self.run_bar.button))
        self.ui.scansLine.text = str(self.folder)
        self.assertIn("CSV file with the nodules", tool_tip(self.run_bar.button))
        self.assertFalse(self.run_bar.button.enabled)
        self.choose(self.ui.collectionBox, Collection.LIDC_IDRI)
        self.assertTrue(self.run_bar.button.enabled)
        self.tick("train", "evaluate")
        self.assertIn("predicted masks", tool_tip(self.run_bar.button))
        self.choose(self.ui.measureBox, Measure.SYNTHETIC)
        self.assertIn("synthetic lesions", tool_tip(self.run_bar.button))
        self.assertTrue(self.ui.planBox.isVisibleTo(self.ui.trainingSection))
        self.assertTrue(self.ui.evaluationBox.isVisibleTo(self.ui.trainingSection))
        self.assertFalse(self.ui.preparationBox.visible)

    def test_what_is_not_chosen_follows_from_the_rest(self) -> None:
        self.ui.scansLine.text = str(self.folder / "luna")
        store = self.folder / "luna-store"
        self.assertEqual(self.ui.storeLine.placeholderText, str(store))
        self.assertEqual(self.ui.pagesLine.placeholderText, f"{store}-pages")
        self.assertEqual(self.ui.modelLine.placeholderText, f"{store}-models/patches.keras")
        self.ui.storeLine.text = str(self.folder / "mine")
        self.assertEqual(
            self.ui.modelLine.placeholderText, str(self.folder / "mine-models" / "patches.keras")
        )
        self.choose(self.ui.measureBox, Measure.SYNTHETIC)
        self.ui.scanLine.text = str(self.folder / "scan")
        tested = DEFAULT_MODEL.stem
        self.assertEqual(
            self.ui.resultsLine.placeholderText, str(self.folder / f"scan-synthetic-{tested}")
        )
        self.tick("train", "evaluate")
        self.assertEqual(
            self.ui.resultsLine.placeholderText, str(self.folder / "scan-synthetic-patches")
        )

    def test_paths_to_which_nothing_can_be_added_are_only_typed_so_far(self) -> None:
        self.tick("prepare", "check", "train", "evaluate")
        for text in ("/", ".", "..", "~", "x" * 300):
            for line in (
                self.ui.scansLine,
                self.ui.storeLine,
                self.ui.modelLine,
                self.ui.pagesLine,
            ):
                line.text = text
                self.section.refresh()
                line.text = ""
        self.ui.scansLine.text = "/"
        self.ui.annotationsLine.text = "/annotations.csv"
        self.assertEqual(self.ui.storeLine.placeholderText, "")
        self.assertIn("folder of the training data", tool_tip(self.run_bar.button))
        for measure in Measure:
            self.choose(self.ui.measureBox, measure)
            for name in measure.inputs:
                getattr(self.ui, f"{name}Line").text = "/"
            self.assertEqual(self.ui.resultsLine.placeholderText, "")
        leave_panel()
        open_panel("LungNoduleSeg")
        self.assertEqual(self.ui.scansLine.text, "/")

    def test_numbers_of_the_preset_are_shown_until_others_are_chosen(self) -> None:
        self.tick("train")
        for preset in Preset:
            self.choose(self.ui.presetBox, preset)
            usual = StoreTrainingPlan.of(preset)
            self.assertEqual(self.ui.epochsBox.text, f"{usual.epochs} (preset)")
            self.assertEqual(self.ui.learningRateBox.text, f"{usual.learning_rate:g} (preset)")
        self.assertFalse(self.ui.tutorialSplitBox.enabled)
        self.ui.epochsBox.value = 3
        self.assertEqual(self.ui.epochsBox.text, "3")

    def test_only_what_belongs_to_the_collection_and_the_measure_is_shown(self) -> None:
        self.ui.trainingSection.collapsed = False
        self.tick("prepare", "evaluate")
        rows = {Collection.LUNA16: self.ui.lunaRows, Collection.LIDC_IDRI: self.ui.lidcRows}
        for chosen in Collection:
            self.choose(self.ui.collectionBox, chosen)
            self.assertEqual([one for one in rows if rows[one].visible], [chosen])
        measured = {
            Measure.DICE: self.ui.diceRows,
            Measure.DETECTION: self.ui.detectionRows,
            Measure.SYNTHETIC: self.ui.syntheticRows,
        }
        for measure in Measure:
            self.choose(self.ui.measureBox, measure)
            self.assertEqual([one for one in measured if measured[one].visible], [measure])

    def test_what_is_there_is_refused_before_anything_is_done(self) -> None:
        self.ui.storeLine.text = str(self.folder / "store")
        model = self.folder / "old.keras"
        model.write_bytes(b"old")
        self.ui.modelLine.text = str(model)
        self.tick("check", "train")
        with self.assertLogs(level="ERROR") as shown:
            self.run_bar.button.click()
        self.assertIn("already holds old.keras", shown.output[0])
        self.assertFalse(self.run_bar.runner.busy)

    def test_an_unfinished_training_is_reported(self) -> None:
        self.ui.storeLine.text = str(self.folder / "store")
        self.tick("train")
        self.assertFalse(self.ui.unfinishedLabel.visible)
        (self.folder / "store-models" / "patches-training").mkdir(parents=True)
        self.section.refresh()
        self.assertTrue(self.ui.unfinishedLabel.visible)

    def test_everything_is_kept_in_a_saved_scene(self) -> None:
        self.ui.storeLine.text = str(self.folder / "store")
        self.choose(self.ui.presetBox, Preset.TUTORIAL)
        self.choose(self.ui.measureBox, Measure.DETECTION)
        self.ui.epochsBox.value, self.ui.learningRateBox.value = 7, 0.002
        self.tick("train", "evaluate")
        file = self.folder / "scene.saving"
        self.assertTrue(slicer.mrmlScene.WriteToMRB(str(file)))
        slicer.mrmlScene.Clear()
        process_events()
        self.assertEqual((self.ui.storeLine.text, self.ui.epochsBox.value), ("", 0))
        self.assertTrue(slicer.mrmlScene.ReadFromMRB(str(file)))
        process_events()
        self.assertEqual(self.ui.storeLine.text, str(self.folder / "store"))
        self.assertEqual(self.ui.presetBox.currentText, "tutorial")
        self.assertEqual(self.ui.measureBox.currentIndex, 1)
        self.assertEqual((self.ui.epochsBox.value, self.ui.learningRateBox.value), (7, 0.002))
        ticked = [step for step in self.STEPS if getattr(self.ui, f"{step}Step").checked]
        self.assertEqual(ticked, ["train", "evaluate"])

    def test_no_two_sections_keep_a_choice_under_one_name(self) -> None:
        panel = self.widget.binding.parameters
        owners: tuple[Any, ...] = (panel, TrainingParameters, BatchParameters)
        names = [name for one in owners for name in one.allParameters]
        self.assertEqual(len(names), len(set(names)))

    def test_every_control_has_a_tool_tip(self) -> None:
        kinds = (qt.QAbstractButton, qt.QComboBox, qt.QLineEdit, qt.QAbstractSpinBox)
        bare = [
            one.objectName
            for section in (self.ui.trainingSection, self.ui.batchSection)
            for kind in kinds
            for one in section.findChildren(kind)
            if not one.toolTip and not one.objectName.startswith("qt_")
        ]
        self.assertEqual([name for name in bare if name], [])


class TestModel(TrainingTest):
    def test_the_chosen_model_is_kept_in_the_scene_and_used(self) -> None:
        other = write_card(self.folder, "other")
        self.widget.model.choose(other)
        self.addCleanup(self.widget.model.choose, DEFAULT_MODEL)
        self.assertEqual(self.widget.binding.parameters.modelFile, str(other))
        slicer.mrmlScene.Clear()
        process_events()
        self.assertEqual(self.widget.model.file, DEFAULT_MODEL)
        self.widget.binding.parameters.modelFile = str(other)
        self.assertEqual(self.widget.model.file, other)
        volume = slicer.util.addVolumeFromArray(np.full((40, 64, 64), -1000, np.int16), name="air")
        work = self.widget.logic.processWork(volume, options=RunOptions(model=other))
        command = next(step for step in work if isinstance(step, ChildCommand))
        arguments = list(command.arguments)
        work.close()
        self.assertEqual(arguments[arguments.index("--model") + 1], str(other))


class TestEvaluation(TrainingTest):
    def test_the_dice_coefficient_of_masks(self) -> None:
        for name, width in (("true", 10), ("found", 5)):
            mask = np.zeros((20, 30, 30), np.uint8)
            mask[5:10, 5:15, 5 : 5 + width] = 1
            (self.folder / name).mkdir()
            for scan in ("a", "b"):
                sitk.WriteImage(sitk.GetImageFromArray(mask), self.folder / name / f"{scan}.nrrd")
        self.ui.predictedLine.text = str(self.folder / "found")
        self.ui.truthLine.text = str(self.folder / "true")
        self.tick("evaluate")
        self.run_to_end()
        lines = self.ui.trainingLabel.text.splitlines()
        self.assertIn("0.667 per scan, 0.667 per nodule", lines[0])
        self.assertIn("2 of 2 nodules found, 0 false positives", lines[1])
        self.assertEqual(lines[2:], ["  0.667 a", "  0.667 b"])
        written = json.loads((self.folder / "found-dice" / "dice.json").read_text())
        self.assertAlmostEqual(written["mean_scan_dice"], 2 / 3)
        self.assertEqual(self.node_ids(), self.nodes)

    def test_detection_with_its_curve(self) -> None:
        uids = ["1.1", "1.2"]
        self.choose(self.ui.measureBox, Measure.DETECTION)
        nodules = [(uid, 0, 0, 0, 10) for uid in uids]
        marks = [("1.1", 1, 0, 0, 0.9), ("1.2", 60, 0, 0, 0.4)]
        for line, file in (
            (self.ui.submissionLine, write_submission(self.folder / "mine.csv", marks)),
            (self.ui.nodulesLine, write_findings(self.folder / "nodules.csv", nodules)),
            (self.ui.seriesLine, write_uids(self.folder / "series.csv", uids)),
        ):
            line.text = str(file)
        self.tick("evaluate")
        self.run_to_end()
        self.assertIn("CPM 0.500: 1 of 2 nodules in 2 scans", self.ui.trainingLabel.text)
        tabs = self.section.plots.tabs
        self.assertEqual([tabs.tabText(n) for n in range(tabs.count)], ["froc"])
        self.assertGreater(tabs.widget(0).widget().pixmap.width(), 300)
        save_picture(self.section.plots.window, PICTURES / "froc.png")
        self.section.plots.close()
        self.ui.plotsButton.click()
        self.assertEqual(self.section.plots.tabs.count, 1)
        with self.assertLogs(level="ERROR") as shown:
            self.run_bar.button.click()
        self.assertIn("already holds detection.json", shown.output[0])

    def test_a_file_that_is_no_mask_is_one_sentence(self) -> None:
        for line in (self.ui.predictedLine, self.ui.truthLine):
            line.text = str(self.folder / "nothing.nrrd")
        self.tick("evaluate")
        with self.assertLogs(level="ERROR") as shown:
            self.run_to_end()
        self.assertEqual(len(shown.output), 1)
        self.assertIn("nothing.nrrd does not exist", shown.output[0])


class TestPreparation(TrainingTest):
    def test_a_store_and_its_check_pictures(self) -> None:
        self.write_scans()
        self.ui.neighboursBox.value = 0
        self.tick("prepare", "check")
        self.run_to_end()
        lines = self.ui.trainingLabel.text.splitlines()
        self.assertTrue(lines[0].startswith("Prepared: 2 new scans, 0 already prepared"), lines)
        self.assertIn("4 examples", lines[0])
        self.assertEqual(lines[1], "Check images: 1.")
        self.assertEqual(self.section.pages.tabs.count, 1)
        save_picture(self.section.pages.window, PICTURES / "check.png")
        self.section.pages.close()
        self.ui.pagesButton.click()
        self.assertEqual(self.section.pages.tabs.count, 1)
        self.tick("prepare")
        self.run_to_end()
        self.assertIn("0 new scans, 2 already prepared", self.ui.trainingLabel.text)

    def test_cancel_in_the_middle_leaves_no_child(self) -> None:
        self.write_scans()
        self.tick("prepare", "check")
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()), self.PATIENCE_S)
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy, self.PATIENCE_S)
        self.assertEqual(self.children(), set())
        self.assertEqual(self.node_ids(), self.nodes)
        self.assertEqual(self.run_bar.button.text, "Run selected steps")

    def test_scene_closed_and_module_reloaded_in_the_middle(self) -> None:
        self.write_scans()
        self.tick("prepare")
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()), self.PATIENCE_S)
        slicer.mrmlScene.Clear()
        self.assertFalse(self.run_bar.runner.busy)
        self.assertEqual(self.children(), set())


@slow
class TestTraining(TrainingTest):
    """With the real training of a very small network."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.widget.model.choose, DEFAULT_MODEL)
        self.write_scans()
        self.ui.neighboursBox.value = 0
        self.ui.epochsBox.value = 2
        self.ui.stepsBox.value = self.ui.batchBox.value = self.ui.filtersBox.value = 1
        self.ui.hardNegativesBox.checked = False
        self.model = self.folder / "luna-store-models" / "patches.keras"

    def epochs(self) -> int:
        tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
        rows = [one.GetTable().GetNumberOfRows() for one in tables if "epochs" in one.GetName()]
        return rows[0] if rows else 0

    def start_training(self, *others: str) -> None:
        """Prepare and train until the first epoch is over."""
        self.tick("prepare", "train", *others)
        self.run_bar.button.click()
        wait_until(lambda: self.epochs() > 0 or not self.run_bar.runner.busy, self.PATIENCE_S)

    def test_from_scans_to_the_model_of_the_next_run(self) -> None:
        self.start_training()
        chart = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")[0]
        save_picture(self.widget.parent, PICTURES / "training-lung.png")
        wait_until(lambda: not self.run_bar.runner.busy, self.PATIENCE_S)
        save_chart(chart, PICTURES / "loss-lung.png")
        self.assertEqual(self.children(), set())
        self.assertEqual(self.epochs(), 2)
        self.assertIn("Trained: best epoch", self.ui.trainingLabel.text)
        self.assertEqual(self.widget.model.file, self.model)
        self.assertEqual(self.widget.binding.parameters.modelFile, str(self.model))
        self.assertIn("patches", self.ui.modelBox.currentText)

    def test_cancelled_after_an_epoch_it_goes_on_where_it_was(self) -> None:
        self.ui.epochsBox.value = 4
        self.start_training("check")
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy, self.PATIENCE_S)
        self.assertEqual(self.children(), set())
        self.assertEqual(self.node_ids(), self.nodes)
        self.assertFalse(self.model.exists())
        self.assertTrue(self.ui.unfinishedLabel.visible)
        pages = set((self.folder / "luna-store-pages").iterdir())
        self.assertTrue(pages)
        self.assertTrue(self.ui.pagesButton.enabled)
        leave_panel()
        open_panel("LungNoduleSeg")
        self.run_to_end()
        self.assertEqual(set((self.folder / "luna-store-pages").iterdir()), pages)
        self.assertEqual(self.epochs(), 4)
        self.assertTrue(self.model.with_suffix(".json").exists())
        self.assertFalse(self.ui.unfinishedLabel.visible)

    def test_scene_closed_during_training(self) -> None:
        self.start_training()
        slicer.mrmlScene.Clear()
        self.assertFalse(self.run_bar.runner.busy)
        self.assertEqual(self.children(), set())
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode"), [])


if __name__ == "__main__":
    unittest.main()
