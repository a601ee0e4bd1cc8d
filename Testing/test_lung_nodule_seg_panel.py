"""The panel LungNoduleSeg, in Slicer or on its stand-in."""

import csv
import errno
import hashlib
import json
import os
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pydicom
import SimpleITK as sitk

import slicer_host

slicer = slicer_host.start()

import qt

from CTLungScreeningLib.child_process import ChildError
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.model_card import read_card
from CTLungScreeningLib.options import arguments_of
from CTLungScreeningSlicer.scene.commands import Commands
from CTLungScreeningSlicer.scene.mrml_volume import INSTANCE_UIDS
from LungNoduleSegLib.lungs.labels import LungMethod
from LungNoduleSegLib.nodules.table import Verdict, read_nodules_csv
from LungNoduleSegLib.options import DEFAULT_MODEL, RunOptions
from LungNoduleSegLib.results.reading import DICOM_KEY_IMAGES, DICOM_NAMES
from LungNoduleSegLib.results.segments import LUNG_STYLES
from LungNoduleSegLib.run_cost import EXTERNAL_LUNGS, SETTINGS_FOLDER, record_cost, run_kind
from LungNoduleSegSlicer.panel.sample_data import CATEGORY
from LungNoduleSegSlicer.panel.segment_section import added
from LungNoduleSegSlicer.scene.result_nodes import RUN_RECORD
from nodule_panel import PanelTest, ResultsTest, ScanTest, add_phantom, phantom_folder
from panel_host import PICTURES, StoppedRuns, leave_panel, section_names, slow
from slicer_host.actions import process_events, save_picture, tool_tip, wait_until
from toy_models import command_model, onnx_model, python_package, zipped


class TestWithoutAScan(PanelTest):
    def test_the_button_says_what_is_missing(self) -> None:
        self.assertFalse(self.run_bar.button.enabled)
        self.assertEqual(tool_tip(self.run_bar.button), "Choose a chest CT first.")
        self.assertFalse(self.ui.undoButton.enabled)
        self.assertEqual(self.ui.costLabel.text, "")
        save_picture(self.widget.parent, PICTURES / "segment-empty.png")

    def test_every_section_is_there(self) -> None:
        """Slicer's own test of a module passes although its panel could not be set up."""
        titles = section_names("LungNoduleSeg")
        self.assertGreater(len(titles), 3)
        slicer.util.reloadScriptedModule("LungNoduleSeg")
        widget = slicer.util.getModuleWidget("LungNoduleSeg")
        for name in titles:
            self.assertEqual(getattr(widget.ui, name).className(), "ctkCollapsibleButton")
        sections = [
            "lungs",
            "segment",
            "nodules",
            "risk",
            "followUp",
            "training",
            "batch",
            "output",
        ]
        for name in sections:
            self.assertTrue(type(getattr(widget, name)).__name__.endswith(("Section", "Box")), name)
        self.assertIsNotNone(widget.binding.parameters)

    def test_sections_are_in_the_order_of_the_work(self) -> None:
        layout = self.ui.segmentSection.parent().layout()
        items = [layout.itemAt(row).widget() for row in range(layout.count())]
        buttons = [one for one in items if one and one.className() == "ctkCollapsibleButton"]
        titles = ["Segmentation", "Nodules", "Cancer risk", "Follow-up", "Output"]
        self.assertEqual([one.text for one in buttons], [*titles, "Training", "Batch"])
        open_ones = [one.text for one in buttons if not one.collapsed]
        self.assertEqual(open_ones, ["Segmentation", "Nodules"])

    def test_lungs_and_model_are_advanced_and_undo_and_notice_are_there_once(self) -> None:
        self.assertTrue(self.ui.advancedSection.collapsed)
        inside = {one.objectName for one in self.ui.advancedSection.findChildren(qt.QWidget)}
        self.assertLessEqual({"modelBox", "lungMethodBox", "lungsSelector"}, inside)
        panel = self.ui.researchLabel.parentWidget()
        texts = [one.text for one in panel.findChildren(qt.QPushButton)]
        self.assertEqual(sum("Undo" in text for text in texts), 1)
        labels = [one.text for one in panel.findChildren(qt.QLabel)]
        self.assertEqual(sum("Not a medical device" in text for text in labels), 1)


class TestSampleData(PanelTest):
    def test_a_public_scan_by_its_sum_and_a_phantom_made_here(self) -> None:
        chest, phantom = slicer.modules.sampleDataSources[CATEGORY]
        uri, checksum = (
            one if isinstance(one, str) else one[0] for one in (chest.uris, chest.checksums)
        )
        algorithm, digest = checksum.split(":")
        self.assertEqual(algorithm, "SHA256")
        self.assertEqual(len(digest), 2 * hashlib.sha256().digest_size)
        self.assertTrue(uri.startswith("https://") and uri.endswith(f"/SHA256/{digest}"))
        volume = phantom.customDownloader(phantom)
        self.assertEqual(volume.GetName(), "Chest phantom")
        self.assertGreater(min(volume.GetImageData().GetDimensions()), 50)

    def test_what_keeps_the_phantom_from_being_made_is_shown(self) -> None:
        _chest, phantom = slicer.modules.sampleDataSources[CATEGORY]
        for problem in (
            InputError("The disk is full: free some space."),
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "phantom.log"),
            ChildError("lung-nodule-seg ended with status 1; its log is child.log.", Path()),
        ):
            with (
                self.subTest(problem=problem),
                patch.object(Commands, "run", side_effect=problem),
                patch("slicer.util.errorDisplay") as shown,
            ):
                self.assertIsNone(phantom.customDownloader(phantom))
                (text,) = shown.call_args.args
                self.assertRegex(text, "is full|phantom.log|log is child.log")
                self.assertNotIn("Internal error", text)


class TestAddedModel(PanelTest):
    """A model that the user brings in a zip file."""

    def test_a_program_is_added_only_when_the_user_agrees(self) -> None:
        with (
            tempfile.TemporaryDirectory() as name,
            patch.dict(os.environ, {SETTINGS_FOLDER: f"{name}/settings"}),
            patch("slicer.util.confirmOkCancelDisplay", side_effect=[False, True]) as asked,
        ):
            folder = Path(name)
            card = command_model(folder)
            file = zipped(card, folder, folder / "a.zip", licence="MIT")
            with self.assertRaisesRegex(InputError, "you did not allow its program"):
                added(file)
            self.widget.model.choose(added(file))
            self.assertIn(" ".join(card.command), asked.call_args.args[0])
            self.assertEqual(self.ui.modelBox.currentText, "toy-command")
            self.assertIn("Licence: MIT", self.ui.modelBox.toolTip)
            self.assertEqual(self.widget.model.scene_name, "toy-command")
            self.widget.model.choose_named("")
            self.widget.model.choose_named("toy-command")
            self.assertEqual(self.widget.model.file, Path("toy-command"))
            self.widget.model.choose_named("")

    def test_the_phantom_shows_progress_and_can_be_cancelled(self) -> None:
        _chest, phantom = slicer.modules.sampleDataSources[CATEGORY]
        texts: list[str] = []

        def cancel() -> None:
            window = slicer.util.mainWindow().findChildren(qt.QProgressDialog)[-1]
            texts.append(window.labelText)
            if "%" in window.labelText:
                window.cancel()
                timer.stop()

        timer = qt.QTimer()
        timer.timeout.connect(cancel)
        timer.start(20)
        before = self.node_ids()
        self.assertIsNone(phantom.customDownloader(phantom))
        self.assertIn("%", texts[-1])
        self.assertEqual((self.node_ids(), self.children()), (before, set()))


class TestCost(ScanTest):
    """What is said before a run."""

    def test_measured_elsewhere_until_runs_were_made_here(self) -> None:
        sha256 = read_card(DEFAULT_MODEL).sha256
        with (
            tempfile.TemporaryDirectory() as folder,
            patch.dict(os.environ, {SETTINGS_FOLDER: folder}),
        ):
            self.widget.refresh()
            self.assertRegex(
                self.ui.costLabel.text,
                r"^Takes about \d+ s and \d\.\d GiB of memory \(measured on two cores",
            )
            record_cost(40 * 64 * 64, run_kind("volume", sha256), 7200, 3.0)
            record_cost(40 * 64 * 64, run_kind(EXTERNAL_LUNGS, sha256), 60, 2.0)
            self.widget.refresh()
            here = " of memory (from earlier runs on this computer)."
            self.assertEqual(self.ui.costLabel.text, f"Takes about 2 h and 3.0 GiB{here}")
            mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
            self.ui.lungsSelector.setCurrentNode(mine)
            self.assertEqual(self.ui.costLabel.text, f"Takes about 1 min and 2.0 GiB{here}")

    def test_said_of_a_scan_that_is_loaded_while_the_panel_is_open(self) -> None:
        """Slicer adds a volume first and its image later."""
        slicer.mrmlScene.Clear()
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "loaded")
        self.assertIs(self.widget.binding.parameters.volume, volume)
        self.assertEqual(self.ui.costLabel.text, "")
        slicer.util.updateVolumeFromArray(volume, np.zeros((40, 64, 64), np.int16))
        self.assertRegex(self.ui.costLabel.text, r"^Takes about \d+ ")

    def test_views_are_fitted_to_the_voxels_and_never_to_nothing(self) -> None:
        """A field of view of 0 mm makes VTK log "Bad plane coordinate system" with each drawing."""
        slicer.mrmlScene.Clear()
        red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        least = [red.GetFieldOfView()[0]]
        tag = red.AddObserver("ModifiedEvent", lambda *_: least.append(red.GetFieldOfView()[0]))
        slicer.util.addVolumeFromArray(np.zeros((40, 64, 64), np.int16), name="later")
        process_events()
        red.RemoveObserver(tag)
        self.assertGreater(len(least), 1)
        self.assertGreater(min(least), 0)

    def test_the_choice_of_lungs_is_kept_in_the_scene(self) -> None:
        box = self.ui.lungMethodBox
        self.assertEqual(self.widget.lungs.options, RunOptions(lungs=LungMethod.VOLUME))
        box.currentIndex = 1
        box.activated(1) if slicer_host.is_real() else box.activated.emit(1)
        self.assertEqual(self.widget.binding.parameters.lungMethod, "tutorial")
        self.assertEqual(arguments_of(self.widget.lungs.options), ["--lungs", "tutorial"])
        leave_panel()
        slicer.util.selectModule("LungNoduleSeg")
        self.assertEqual(box.currentIndex, 1)
        self.assertFalse(self.ui.editLungsButton.enabled)
        mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        self.ui.lungsSelector.setCurrentNode(mine)
        self.assertIs(self.widget.lungs.node, mine)
        self.assertFalse(box.enabled)
        self.assertEqual(arguments_of(self.widget.lungs.options), [])

    def test_the_lungs_of_one_volume_are_not_taken_for_another(self) -> None:
        other = slicer.util.addVolumeFromArray(np.zeros((40, 64, 64), np.int16), name="other")
        lungs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Lungs of air")
        lungs.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        self.widget.binding.parameters.lungs = lungs
        leave_panel()
        slicer.util.selectModule("LungNoduleSeg")
        process_events()
        self.assertIs(self.widget.lungs.node, lungs)
        self.widget.chooseVolume(other)
        process_events()
        self.assertIsNone(self.widget.lungs.node)
        self.assertIsNone(self.ui.lungsSelector.currentNode())
        self.widget.binding.parameters.lungs = lungs  # the user says so
        self.widget.chooseVolume(self.volume)
        process_events()
        self.assertIs(self.widget.lungs.node, lungs)
        leave_panel()
        slicer.mrmlScene.RemoveNode(self.volume)
        slicer.util.selectModule("LungNoduleSeg")
        process_events()
        self.assertIs(self.widget.binding.parameters.volume, other)
        self.assertIsNone(self.widget.lungs.node)

    def test_a_program_for_the_lungs_that_is_missing_is_named(self) -> None:
        box = self.ui.lungMethodBox
        box.currentIndex = list(LungMethod).index(LungMethod.LUNGMASK)
        box.activated(2) if slicer_host.is_real() else box.activated.emit(2)
        self.assertEqual(arguments_of(self.widget.lungs.options), ["--lungs", "lungmask"])
        with patch.dict(os.environ, {"PATH": ""}), self.assertLogs(level="ERROR") as shown:
            self.run_to_end()
        self.assertIn("lungmask is not installed: install it with", shown.output[0])

    def test_lungs_that_are_none_are_refused_before_a_run(self) -> None:
        mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        self.ui.lungsSelector.setCurrentNode(mine)
        with self.assertLogs(level="ERROR") as shown:
            self.run_to_end()
        self.assertIn("Mine has no lungs", shown.output[0])
        self.assertEqual(self.children(), set())


class TestRun(StoppedRuns, ScanTest):
    MODULE = "LungNoduleSeg"

    def test_volume_deleted_during_a_run(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        slicer.mrmlScene.RemoveNode(self.volume)
        wait_until(lambda: not self.run_bar.runner.busy)
        self.assertEqual(self.children(), set())
        self.assertLess(self.node_ids(), self.nodes)
        self.assertFalse(self.run_bar.button.enabled)

    @unittest.skipIf(slicer_host.is_real(), "a test cannot quit Slicer and go on")
    def test_application_quit_during_a_run(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        leave_panel()
        slicer.app.moduleManager().unload("LungNoduleSeg")
        self.assertEqual((self.children(), self.node_ids()), (set(), self.nodes))

    def test_another_module_is_shown_during_a_run(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()))
        leave_panel()
        self.assertTrue(self.run_bar.runner.busy)
        self.run_bar.runner.stop()


@slow
class TestNoCt(ScanTest):
    def test_one_sentence_names_the_volume(self) -> None:
        with self.assertLogs(level="ERROR") as shown:
            self.run_to_end()
        self.assertIn("air has values from -1000 to -1000: that is not CT", shown.output[0])
        self.assertEqual(self.node_ids(), self.nodes)


@slow
class TestPhantom(ScanTest):
    """The whole way of a phantom with the bundled model."""

    def load(self) -> Any:
        return add_phantom()

    def test_a_network_that_the_user_adds_finds_the_nodules(self) -> None:
        with (
            tempfile.TemporaryDirectory() as name,
            patch.dict(os.environ, {SETTINGS_FOLDER: f"{name}/settings"}),
        ):
            card = onnx_model(Path(name))
            file = zipped(card, Path(name), Path(name) / "toy.zip")
            box = self.ui.modelBox
            row = box.findText("Add model…")
            box.currentIndex = row
            with patch("CTLungScreeningSlicer.panel.widgets.choose_file", return_value=file):
                box.activated(row) if slicer_host.is_real() else box.activated.emit(row)
            self.assertEqual(box.currentText, "toy-onnx")
            self.assertIn("Marks what is bright.", box.toolTip)
            self.assertIn("Licence: MIT", box.toolTip)
            self.assertIn("Takes about", self.ui.costLabel.text)
            self.run_and_see_lesions("onnx")

    def test_a_program_that_the_user_adds_finds_the_nodules(self) -> None:
        with (
            tempfile.TemporaryDirectory() as name,
            patch.dict(os.environ, {SETTINGS_FOLDER: f"{name}/settings"}),
            patch("slicer.util.confirmOkCancelDisplay", return_value=True),
        ):
            card = command_model(Path(name))
            self.widget.model.choose(added(zipped(card, Path(name), Path(name) / "toy.zip")))
            self.run_and_see_lesions("command")

    def test_a_package_that_the_user_installs_finds_the_nodules(self) -> None:
        with (
            tempfile.TemporaryDirectory() as name,
            patch.dict(os.environ, {"PYTHONPATH": name}),
            patch.object(sys, "path", [name, *sys.path]),
            (phantom_folder() / "truth" / "lesions.csv").open(encoding="utf-8") as rows,
        ):
            lesion = next(csv.DictReader(rows))
            python_package(Path(name), (float(lesion["x"]), float(lesion["y"]), float(lesion["z"])))
            self.widget.model.choose(Path("toy-python"))
            self.run_and_see_lesions("python")

    def run_and_see_lesions(self, kind: str) -> None:
        """Run the toy model of a kind, which is chosen, and see a lesion of the phantom found."""
        self.run_to_end()
        results = self.widget.logic.resultsOf(self.volume)
        record = json.loads(results.table.GetAttribute(RUN_RECORD))
        self.assertEqual(record["model"]["name"], f"toy-{kind}")
        self.assertEqual(record["model"]["kind"], kind)
        found = self.widget.logic.review.nodules(results)
        self.assertGreater(len(found), 0)
        truth = sitk.ReadImage(phantom_folder() / "truth" / "nodules.nii.gz")
        places = [(one.nodule.x, one.nodule.y, one.nodule.z) for one in found]
        inside = [truth[truth.TransformPhysicalPointToIndex(place)] for place in places]
        self.assertTrue(any(inside), f"{places} are no lesions of the phantom")
        self.widget.model.choose_named("")

    def test_results_come_and_verdicts_outlive_a_second_run_and_undo_takes_all_out(self) -> None:
        self.run_to_end()
        added = {
            slicer.mrmlScene.GetNodeByID(one).GetClassName() for one in self.node_ids() - self.nodes
        }
        self.assertLessEqual(
            {"vtkMRMLSegmentationNode", "vtkMRMLTableNode", "vtkMRMLMarkupsFiducialNode"}, added
        )
        logic, results = self.widget.logic, self.widget.logic.resultsOf(self.volume)
        count = results.table.GetNumberOfRows()
        self.assertGreater(count, 0)
        segmentation = results.segmentation.GetSegmentation()
        self.assertEqual(segmentation.GetNumberOfSegments(), count + 2)
        self.assertTrue(segmentation.ContainsRepresentation("Closed surface"))
        self.assertIn(f"{count} nodule", self.ui.resultLabel.text)
        markups = slicer.modules.markups.logic()
        self.assertEqual(markups.GetActiveListID(), results.fiducials.GetID())
        save_picture(self.widget.parent, PICTURES / "segment.png")

        number = logic.review.nodules(results)[0].nodule.id
        logic.review.setVerdict(results, number, Verdict.REJECTED)
        after_first = self.node_ids()
        self.run_to_end()
        self.assertEqual(self.node_ids(), after_first)
        verdicts = {one.nodule.id: one.verdict for one in logic.review.nodules(results)}
        self.assertEqual(len(verdicts), count)
        self.assertIs(verdicts[number], Verdict.REJECTED)
        self.assertTrue(segmentation.ContainsRepresentation("Closed surface"))

        for _ in range(3):  # the second run, the verdict, the first run
            self.assertTrue(self.ui.undoButton.enabled)
            self.ui.undoButton.click()
            process_events()
        self.assertEqual(self.node_ids() & after_first, self.nodes)
        self.assertEqual(self.ui.resultLabel.text, "")


@slow
class TestResults(ResultsTest):
    """Sections on the results of a run."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.ui.openReportBox.checked = False

    def test_lungs_are_hidden_shown_edited_and_taken_by_the_next_run(self) -> None:
        display = self.results.segmentation.GetDisplayNode()
        lungs = [style.id for style in LUNG_STYLES.values()]
        self.ui.advancedSection.collapsed = False
        self.assertTrue(self.ui.showLungsBox.checked)
        save_picture(self.widget.parent, PICTURES / "lungs.png")
        self.ui.showLungsBox.click()
        self.assertFalse(any(map(display.GetSegmentVisibility, lungs)))
        self.ui.showLungsBox.click()
        self.assertTrue(all(map(display.GetSegmentVisibility, lungs)))
        self.ui.editLungsButton.click()
        editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        self.assertEqual(editor.GetSelectedSegmentID(), lungs[0])
        slicer.util.selectModule("LungNoduleSeg")
        self.assertIs(self.widget.lungs.node, self.results.segmentation)
        self.ui.advancedSection.collapsed = True

    def test_a_scan_that_was_moved_gets_new_results(self) -> None:
        for moved in (False, True):
            if moved:
                self.volume.SetOrigin(0, 0, 0)
            with patch.object(self.widget.logic, "processWork") as process:
                process.return_value = (one for one in list[Any]())
                self.run_bar.button.click()
            self.assertEqual(len(process.call_args.args), 1 if moved else 4)
            self.run_bar.runner.stop()

    def save(self, action: Callable[[], None]) -> None:
        action()
        wait_until(lambda: not self.widget.output.run_bar.runner.busy, 120)

    def test_table_and_report_are_saved_and_nothing_is_overwritten(self) -> None:
        rows = self.widget.logic.review.nodules(self.results)
        self.widget.logic.review.setVerdict(self.results, rows[0].nodule.id, Verdict.REJECTED)
        table, report = self.folder / "n.csv", self.folder / "r.html"
        self.widget.output.save_table(table)
        self.assertEqual(
            [one.id for one in read_nodules_csv(table)], [one.nodule.id for one in rows[1:]]
        )
        self.save(lambda: self.widget.output.save_report(report))
        page = report.read_text(encoding="utf-8")
        self.assertIn("phantom", page)
        self.assertNotIn('src="http', page)
        self.assertIn(str(report), self.ui.outputLabel.text)
        self.ui.outputSection.collapsed = False
        save_picture(self.widget.parent, PICTURES / "output.png")
        self.ui.outputSection.collapsed = True
        with self.assertLogs(level="ERROR") as shown:
            self.save(lambda: self.widget.output.save_report(report))
        self.assertIn("already holds r.html", shown.output[0])
        self.assertEqual(report.read_text(encoding="utf-8"), page)

    def test_a_place_that_cannot_be_written_is_named(self) -> None:
        (self.folder / "file").touch()
        for table in (self.folder / "file" / "n.csv", self.folder / f"{'n' * 300}.csv"):
            with self.assertLogs(level="ERROR") as shown:
                self.widget.output.save_table(table)
            self.assertIn(str(self.folder), shown.output[0])
            self.assertEqual(self.ui.outputLabel.text, "")

    def test_dicom_needs_the_files_of_the_volume(self) -> None:
        with self.assertLogs(level="ERROR") as shown:
            self.widget.output.save_dicom(self.folder)
        self.assertIn("phantom is not in Slicer's DICOM database", shown.output[0])
        self.assertEqual(list(self.folder.iterdir()), [])

    @unittest.skipIf(slicer_host.is_real(), "the user's own database is left alone")
    def test_dicom_of_a_volume_from_the_database(self) -> None:
        with tempfile.TemporaryDirectory() as named:
            scan = Path(named)
            for file in (phantom_folder() / "dicom").iterdir():
                image = pydicom.dcmread(file)
                image.PatientID = "X" * 65
                image.save_as(scan / file.name)
            self.save_dicom_of(scan)
        self.assertIn("\nThe Patient ID of the series violates the DICOM", self.ui.outputLabel.text)

    def save_dicom_of(self, scan: Path) -> None:
        """Save the DICOM files of the volume, which the database has from a folder."""
        slicer.dicomDatabase.add_folder(scan)
        self.addCleanup(slicer.dicomDatabase.clear)
        (patient,) = slicer.dicomDatabase.patients()
        (study,) = slicer.dicomDatabase.studiesForPatient(patient)
        (series,) = slicer.dicomDatabase.seriesForStudy(study)
        uids = [
            slicer.dicomDatabase.fileValue(file, "0008,0018")
            for file in slicer.dicomDatabase.filesForSeries(series)
        ]
        self.volume.SetAttribute(INSTANCE_UIDS, " ".join(uids))
        self.save(lambda: self.widget.output.save_dicom(self.folder))
        written = {one.name for one in self.folder.iterdir()}
        self.assertEqual(written, {*DICOM_NAMES, DICOM_KEY_IMAGES})
        for name in written:
            self.assertIn(str(self.folder / name), self.ui.outputLabel.text)


if __name__ == "__main__":
    unittest.main()
