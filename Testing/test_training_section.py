"""The section Dataset and training: real buttons, real commands in child processes, tiny scans."""

import json
import tempfile
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Any

import slicer_host

slicer = slicer_host.start()

import pydicom
import qt

from coded_scans import HEIGHTS, write_coded_series
from CTLungScreeningSlicer.scene.commands import LossCurve
from CTSliceToolsLib.dataset.annotation import ANNOTATION
from CTSliceToolsLib.dataset.conversion import Part, convert, part_of
from CTSliceToolsLib.dataset.normalization import normalize
from CTSliceToolsLib.landmarks import LANDMARKS
from panel_host import PICTURES, StepsTest, descendants, leave_panel, open_panel, slow
from plot_pictures import save_chart
from slicer_host.actions import process_events, save_picture, tool_tip, wait_until

STEP_MM = 15.0
SCANS = {Part.TRAINING: 2, Part.VALIDATION: 1, Part.TESTING: 1}


def series_names(part: Part, number: int) -> list[str]:
    """Names of series whose UIDs `partition` sorts into a part."""
    names = (f"{part} {n}" for n in count())
    uid = pydicom.uid.generate_uid
    fitting = (name for name in names if part_of(uid(entropy_srcs=[name])) is part)
    return list(islice(fitting, number))


def write_heap(folder: Path) -> None:
    """Write the series of `SCANS`, each of a patient of its own."""
    for part, number in SCANS.items():
        for name in series_names(part, number):

            def edit(image: Any, k: int, patient: str = name) -> None:
                image.PatientID = patient
                image.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[patient, "study"])

            write_coded_series(
                folder / name, step=STEP_MM, series=name, edit=edit, name="{k:03}.dcm"
            )


def annotate(dataset: Path) -> None:
    """Write the annotation of each series: the slice nearest to each landmark in it."""
    for folder in {file.parent for file in dataset.rglob("*.dcm")}:
        z_mm = {
            file.name: float(pydicom.dcmread(file).ImagePositionPatient[2])
            for file in folder.glob("*.dcm")
        }
        labels: dict[str, str] = {}
        for landmark, height in zip(LANDMARKS, HEIGHTS, strict=True):
            distance, nearest = min((abs(z - height), name) for name, z in z_mm.items())
            if distance <= STEP_MM / 2:
                labels[landmark.name] = nearest
        (folder / ANNOTATION).write_text(json.dumps(labels))


class TrainingTest(StepsTest):
    """The panel open, with the scans in a folder of their own."""

    STEPS = ("organize", "normalize", "convert", "partition", "train", "evaluate")

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        self.widget = open_panel("CTSliceTools")
        self.ui, self.section = self.widget.ui, self.widget.training
        self.ui.annotateSection.collapsed = True
        self.ui.trainingSection.collapsed = False
        self.run_bar = self.section.run_bar
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.dataset = self.folder / "scans"
        self.before = descendants()
        self.nodes = self.node_ids()

    def tearDown(self) -> None:
        leave_panel()
        slicer.mrmlScene.Clear()
        process_events()

    def organize(self) -> None:
        """Organize by the button, and annotate."""
        write_heap(self.folder / "heap")
        self.ui.sourceFolder.text = str(self.folder / "heap")
        self.ui.datasetFolder.text = str(self.dataset)
        self.tick("organize")
        self.run_to_end()
        annotate(self.dataset)

    def wait_and_cancel(self, condition: Callable[[], bool]) -> None:
        """Press Cancel when a run has come so far, and wait for its end."""
        self.run_bar.button.click()
        wait_until(condition, 120)
        self.assertTrue(self.children())
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy)


class TestPreparation(TrainingTest):
    def test_organize_normalize_convert_and_partition(self) -> None:
        self.organize()
        scans = sum(SCANS.values())
        self.assertEqual(len(list(self.dataset.glob("*/*/*"))), scans)
        self.assertIn(f"Organized: {scans} series of {scans} patients", self.ui.resultLabel.text)
        self.tick("normalize", "convert", "partition")
        self.run_to_end()
        slices = len(list(self.dataset.rglob("*.dcm")))
        each = slices // scans
        self.assertEqual(len(list((self.folder / "scans-slices").rglob("*.npz"))), slices)
        for part, number in SCANS.items():
            files = list((self.folder / "scans-parts" / part).glob("*.npz"))
            self.assertEqual(len(files), number * each)
        lines = self.ui.resultLabel.text.splitlines()
        self.assertEqual(lines[0], f"Normalized: {slices} slices of {scans} series.")
        self.assertIn(f"{slices} new slices, 0 already converted", lines[1])
        self.assertIn(f"training {2 * each} slices from 2 series", lines[2])

    def test_a_step_that_is_refused_ends_the_run_with_its_sentence(self) -> None:
        self.dataset.mkdir()
        self.ui.datasetFolder.text = str(self.dataset)
        self.tick("normalize", "convert")
        with self.assertLogs(level="ERROR") as shown:
            self.run_to_end()
        self.assertIn(str(self.dataset), shown.output[0])
        self.assertEqual(len(shown.output), 1)
        self.assertFalse((self.folder / "scans-slices").exists())

    def test_a_corrected_annotation_ends_the_run_before_old_labels_are_used(self) -> None:
        self.organize()
        self.tick("normalize", "convert", "partition")
        self.run_to_end()
        file = next(self.dataset.rglob(ANNOTATION))
        corrected = json.loads(file.read_text())
        corrected.popitem()
        file.write_text(json.dumps(corrected))
        with self.assertLogs(level="ERROR") as shown:
            self.run_to_end()
        self.assertIn("that have another location in", shown.output[0])
        self.assertNotIn("Partitioned", self.ui.resultLabel.text)

    def test_cancel_in_the_middle_leaves_no_child(self) -> None:
        self.organize()
        self.tick("normalize", "convert", "partition")
        self.wait_and_cancel(lambda: bool(self.children()))
        self.assertEqual(self.children(), set())
        self.assertEqual(self.node_ids(), self.nodes)
        self.assertEqual(self.run_bar.button.text, "Run selected steps")
        self.run_to_end()
        self.assertTrue(list((self.folder / "scans-parts" / "training").glob("*.npz")))


class TestChoices(TrainingTest):
    def test_the_button_says_what_is_missing(self) -> None:
        self.tick()
        self.assertEqual(tool_tip(self.run_bar.button), "Select a step first.")
        self.tick("organize")
        self.assertEqual(
            tool_tip(self.run_bar.button), "Choose the folder with the DICOM files first."
        )
        self.ui.sourceFolder.text = str(self.folder)
        self.assertIn("dataset", tool_tip(self.run_bar.button))
        self.assertFalse(self.run_bar.button.enabled)
        self.ui.datasetFolder.text = str(self.dataset)
        self.assertTrue(self.run_bar.button.enabled)
        self.tick("train")
        self.assertTrue(self.run_bar.button.enabled)
        self.assertTrue(self.ui.trainingBox.isVisibleTo(self.ui.trainingSection))
        self.assertFalse(self.ui.evaluationBox.visible)

    def test_what_is_not_chosen_follows_from_the_data_set(self) -> None:
        self.ui.datasetFolder.text = str(self.dataset)
        models = self.folder / "scans-models"
        self.assertEqual(self.ui.partsFolder.placeholderText, str(self.folder / "scans-parts"))
        self.assertEqual(self.ui.newModelFile.placeholderText, str(models / "compact.keras"))
        self.assertEqual(
            self.ui.evaluationFolder.placeholderText, str(models / "compact-evaluation")
        )
        self.ui.backboneBox.currentIndex = self.ui.backboneBox.findText("resnet50")
        self.assertEqual(self.ui.newModelFile.placeholderText, str(models / "resnet50.keras"))
        self.ui.partsFolder.text = str(self.folder / "mine")
        self.assertEqual(self.ui.testDataFolder.placeholderText, str(self.folder / "mine"))

    def test_paths_to_which_nothing_can_be_added_are_only_typed_so_far(self) -> None:
        self.tick("normalize", "convert", "train", "evaluate")
        for text in ("/", ".", "..", "~", "x" * 300):
            for line in (self.ui.partsFolder, self.ui.newModelFile, self.ui.evaluationFolder):
                line.text = text
                line.text = ""
            self.ui.datasetFolder.text = text
        self.ui.datasetFolder.text = "/"
        self.assertEqual(self.ui.slicesFolder.placeholderText, "")
        self.assertIn("folder of the slices", tool_tip(self.run_bar.button))
        leave_panel()
        open_panel("CTSliceTools")
        self.assertEqual(self.ui.datasetFolder.text, "/")

    def test_a_model_that_is_there_is_refused_before_anything_is_done(self) -> None:
        self.ui.datasetFolder.text = str(self.dataset)
        model = self.folder / "old.keras"
        model.write_bytes(b"old")
        self.ui.newModelFile.text = str(model)
        self.tick("normalize", "train")
        with self.assertLogs(level="ERROR") as shown:
            self.run_bar.button.click()
        self.assertIn("already holds old.keras", shown.output[0])
        self.assertFalse(self.run_bar.runner.busy)
        self.ui.newModelFile.text = str(self.folder / "model")
        with self.assertLogs(level="ERROR") as shown:
            self.run_bar.button.click()
        self.assertIn("must end with .keras", shown.output[0])

    def test_everything_is_kept_in_a_saved_scene(self) -> None:
        self.ui.datasetFolder.text = str(self.dataset)
        self.ui.backboneBox.currentIndex = self.ui.backboneBox.findText("vgg19")
        self.ui.epochsBox.value, self.ui.rateBox.value = 7, 0.002
        self.tick("convert", "evaluate")
        self.ui.linksBox.click()
        file = self.folder / "scene.mrb"
        self.assertTrue(slicer.mrmlScene.WriteToMRB(str(file)))
        slicer.mrmlScene.Clear()
        process_events()
        self.assertEqual((self.ui.datasetFolder.text, self.ui.epochsBox.value), ("", 50))
        self.assertTrue(slicer.mrmlScene.ReadFromMRB(str(file)))
        process_events()
        self.assertEqual(self.ui.datasetFolder.text, str(self.dataset))
        self.assertEqual(self.ui.backboneBox.currentText, "vgg19")
        self.assertEqual((self.ui.epochsBox.value, self.ui.rateBox.value), (7, 0.002))
        ticked = [step for step in self.STEPS if getattr(self.ui, f"{step}Step").checked]
        self.assertEqual(ticked, ["convert", "evaluate"])
        self.assertTrue(self.ui.linksBox.checked)

    def test_every_control_has_a_tool_tip(self) -> None:
        kinds = (qt.QAbstractButton, qt.QComboBox, qt.QLineEdit, qt.QAbstractSpinBox)
        bare = [
            one.objectName
            for kind in kinds
            for one in self.ui.trainingSection.findChildren(kind)
            if not one.toolTip and not one.objectName.startswith("qt_")
        ]
        self.assertEqual(bare, [])


class TestCurve(TrainingTest):
    def test_it_grows_and_goes_without_a_trace(self) -> None:
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        before = layout.GetViewArrangement()
        curve = LossCurve("compact")
        curve.show()
        self.assertNotEqual(layout.GetViewArrangement(), before)
        for epoch in (1, 2, 3):
            curve.add({"epoch": epoch, "loss": 0.1 / epoch, "val_loss": 0.2 / epoch, "error": 0.1})
        table = curve.table.GetTable()
        self.assertEqual(
            [table.GetValueByName(row, "epoch").ToDouble() for row in range(3)], [1, 2, 3]
        )
        self.assertEqual(curve.chart.GetNumberOfPlotSeriesNodes(), 2)
        validation = curve.chart.GetNthPlotSeriesNode(1)
        self.assertEqual(validation.GetYColumnName(), "val_loss")
        self.assertIs(validation.GetTableNode(), curve.table)
        curve.remove()
        self.assertEqual(layout.GetViewArrangement(), before)
        left = self.node_ids() - self.nodes
        self.assertEqual(left, set())


@slow
class TestTraining(TrainingTest):
    """With the real training of the small network."""

    slices: Path

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.slices = Path(folder.name)
        write_heap(cls.slices / "scans")
        annotate(cls.slices / "scans")
        normalize(cls.slices / "scans")
        convert(cls.slices / "scans", cls.slices / "npz")

    def setUp(self) -> None:
        super().setUp()
        self.ui.batchBox.value = 8
        self.ui.datasetFolder.text = str(self.dataset)
        self.model = self.folder / "scans-models" / "compact.keras"

    def start_training(self) -> None:
        """Train on the slices of the class, until the first epoch is over."""
        self.ui.slicesFolder.text = str(self.slices / "npz")
        self.tick("partition", "train")
        self.run_bar.button.click()
        wait_until(lambda: self.epochs() > 0, 240)

    @staticmethod
    def nodes_of(kind: str) -> list[Any]:
        return slicer.util.getNodesByClass(f"vtkMRML{kind}Node")

    def epochs(self) -> int:
        tables = [node for node in self.nodes_of("Table") if "epochs" in node.GetName()]
        return tables[0].GetTable().GetNumberOfRows() if tables else 0

    def test_from_dicom_files_to_a_measured_model(self) -> None:
        self.organize()
        self.ui.epochsBox.value = 3
        self.tick(*self.STEPS[1:])
        self.run_bar.button.click()
        wait_until(lambda: self.epochs() == 2, 240)
        self.assertIn("left", self.run_bar.status)
        chart = next(one for one in self.nodes_of("PlotChart") if "loss" in one.GetName())
        save_picture(self.widget.parent, PICTURES / "training.png")
        save_chart(chart, PICTURES / "loss.png")
        wait_until(lambda: not self.run_bar.runner.busy, 240)
        self.assertEqual(self.children(), set())
        self.assertTrue(self.model.with_suffix(".json").exists())
        self.assertEqual(self.epochs(), 3)
        self.assertEqual(self.widget.localize.model.file, self.model)
        self.assertEqual(self.widget.binding.parameters.modelFile, str(self.model))
        lines = self.ui.resultLabel.text.splitlines()
        begins = ["Normalized", "Converted", "Partitioned", "Trained", "Evaluated (raw)"]
        self.assertTrue(all(map(str.startswith, lines, begins)), lines)
        self.check_pictures(self.model.with_name("compact-evaluation"))
        save_picture(self.widget.parent, PICTURES / "trained.png")

    def check_pictures(self, results: Path) -> None:
        tabs = self.section.pictures.tabs
        shown = {tabs.tabText(index) for index in range(tabs.count)}
        self.assertEqual(shown, {file.stem for file in results.glob("*.png")})
        self.assertIn("scatter", shown)
        self.assertGreater(tabs.widget(0).widget().pixmap.width(), 300)
        save_picture(self.section.pictures.window, PICTURES / "evaluation.png")
        self.section.pictures.close()
        self.ui.picturesButton.click()
        self.assertEqual(self.section.pictures.tabs.count, len(shown))

    def test_cancelled_after_an_epoch_it_leaves_no_child_and_no_node(self) -> None:
        self.start_training()
        self.assertTrue(self.children())
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy)
        self.assertEqual(self.children(), set())
        self.assertEqual(self.node_ids(), self.nodes)
        self.assertFalse(self.model.exists())

    def test_trained_while_another_module_is_shown(self) -> None:
        self.ui.epochsBox.value = 1
        self.start_training()
        leave_panel()
        wait_until(lambda: not self.run_bar.runner.busy, 240)
        open_panel("CTSliceTools")
        self.assertEqual(self.widget.localize.model.file, self.model)

    def test_scene_closed_during_training(self) -> None:
        self.start_training()
        slicer.mrmlScene.Clear()
        self.assertFalse(self.run_bar.runner.busy)
        self.assertEqual(self.children(), set())
        self.assertEqual(self.nodes_of("PlotSeries"), [])
