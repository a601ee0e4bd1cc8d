"""The box Many scans of the panel CTSliceTools: series after series, each saved at once."""

import json
import shutil
import unittest
from pathlib import Path
from typing import Any
from unittest.mock import patch

import slicer_host

slicer = slicer_host.start()

import pydicom
import vtk

from CTLungScreeningLib.errors import Cancelled
from CTSliceToolsLib.dataset import label_queue
from CTSliceToolsLib.dataset.annotation import read_slice_names
from CTSliceToolsLib.localizer.prediction import ModelUsed, ScanPrediction, SliceLocation
from CTSliceToolsLib.localizer.scan_fit import landmark_fit
from CTSliceToolsSlicer.panel.annotate_section import NAME
from CTSliceToolsSlicer.scene.prediction_nodes import add_prediction
from dicom_files import AXIAL, positions, write_enhanced, write_series
from panel_host import PICTURES, add_scan, leave_panel, scroll_to
from slice_panel import PanelTest
from slicer_host.actions import press, process_events, save_picture


class TestGoneFiles(PanelTest):
    def test_landmarks_can_be_saved_when_the_dicom_folder_is_gone(self) -> None:
        series = self.folder / "series"
        write_series(series, places=positions(count=9), name="{k:03}.dcm")
        self.ui.queueFolder.text = str(self.folder)
        self.ui.nextButton.click()
        self.start_keys()
        scroll_to(34)
        press("5")
        shutil.rmtree(series)
        file = self.folder / "saved.json"
        self.annotate.save(file)
        self.assertEqual(json.loads(file.read_text()), {"Aortic arch": 8})


class TestQueue(PanelTest):
    def setUp(self) -> None:
        super().setUp()
        for patient in ("a", "b", "c"):
            write_series(
                self.folder / patient / "series",
                places=positions(count=9),
                series=patient,
                name="{k:03}.dcm",
            )
        self.ui.queueSource.currentIndex = 0
        self.ui.queueFolder.text = str(self.folder)

    def test_series_after_series_each_saved_at_once(self) -> None:
        self.ui.nextButton.click()
        self.assertEqual(self.ui.queueLabel.text, "0 of 3 series annotated")
        self.start_keys()
        for key, z in (("5", 34), ("6", 16)):
            scroll_to(z)
            press(key)
        written = json.loads((self.folder / "a" / "series" / "annotation.json").read_text())
        self.assertEqual(written, {"Aortic arch": "008.dcm", "Bifurcation of trachea": "002.dcm"})
        self.assertIn("008.dcm", self.ui.landmarkTable.item(5, NAME).toolTip())
        self.assertEqual(self.ui.queueLabel.text, "1 of 3 series annotated")
        save_picture(self.widget.parent, PICTURES / "many-scans.png")

        self.ui.nextButton.click()
        self.assertEqual(self.set_slices(), {})
        self.assertEqual(self.widget.binding.parameters.volume.GetName(), "b")
        press("1")
        self.ui.nextButton.click()
        press("1")
        self.assertEqual(self.ui.queueLabel.text, "3 of 3 series annotated")
        with self.assertLogs(level="ERROR") as shown:
            self.ui.nextButton.click()
        self.assertIn("No other series is left to annotate", shown.output[0])

    @unittest.skipIf(slicer_host.is_real(), "would fill Slicer's own DICOM database")
    def test_series_of_the_dicom_database(self) -> None:
        slicer.dicomDatabase.add_folder(self.folder)
        self.addCleanup(slicer.dicomDatabase.clear)
        self.ui.queueSource.currentIndex = 1
        self.ui.nextButton.click()
        self.assertEqual(self.ui.queueLabel.text, "0 of 3 series annotated")
        self.annotate.known_files = {}
        self.start_keys()
        scroll_to(34)
        press("5")
        self.assertIn("008.dcm", self.ui.landmarkTable.item(5, NAME).toolTip())
        saved = [*self.folder.rglob("annotation.json")]
        self.assertEqual(len(saved), 1)
        self.assertEqual(json.loads(saved[0].read_text()), {"Aortic arch": "008.dcm"})

    @unittest.skipIf(slicer_host.is_real(), "would fill Slicer's own DICOM database")
    def test_series_that_are_not_all_here_are_left_out_and_counted(self) -> None:
        """CT series only, also where a server has told the modality and has all files."""

        def as_mr(image: Any, _: int) -> None:
            image.Modality = "MR"

        away = write_series(self.folder / "mr", series="mr", edit=as_mr, name="{k:03}.dcm")
        slicer.dicomDatabase.add_folder(self.folder)
        self.addCleanup(slicer.dicomDatabase.clear)
        slicer.dicomDatabase.leave_on_server(self.folder / "a" / "series" / "000.dcm", *away)
        self.ui.queueSource.currentIndex = 1
        self.ui.nextButton.click()
        self.assertEqual(self.annotate.volume.GetName(), "b")
        self.assertIn("0 of 2 series annotated\nSeries left out: 1.", self.ui.queueLabel.text)
        slicer.dicomDatabase.leave_on_server(*self.folder.rglob("*.dcm"))
        self.ui.queueSource.currentIndex = 0
        self.ui.queueSource.currentIndex = 1
        self.assertEqual(self.ui.queueLabel.text, "")
        with self.assertLogs(level="ERROR") as shown:
            self.ui.nextButton.click()
        self.assertIn("holds no CT series: import some first. Series left out: 3.", shown.output[0])

    @unittest.skipIf(slicer_host.is_real(), "would fill Slicer's own DICOM database")
    def test_series_that_share_a_folder(self) -> None:
        write_series(self.folder / "a" / "series", series="other", name="other-{k:03}.dcm")
        slicer.dicomDatabase.add_folder(self.folder)
        self.addCleanup(slicer.dicomDatabase.clear)
        self.ui.queueSource.currentIndex = 1
        with self.assertLogs(level="ERROR") as shown:
            self.ui.nextButton.click()
        self.assertIn("has 2 CT series: run organize", shown.output[0])

    def test_a_folder_with_several_series_is_passed_over(self) -> None:
        write_series(self.folder / "a" / "series", series="other", name="other-{k:03}.dcm")
        self.ui.nextButton.click()
        self.assertEqual(self.widget.binding.parameters.volume.GetName(), "b")
        self.assertIn("Passed over: 1; for example, ", self.ui.queueLabel.text)
        self.assertIn("has 2 CT series: run organize", self.ui.queueLabel.text)

    def test_series_that_cannot_be_used_do_not_block_the_others(self) -> None:
        (self.folder / "a" / "series" / "004.dcm").unlink()
        (self.folder / "c" / "series" / "annotation.json").write_text('{"Navel": "003.dcm"}')
        self.ui.nextButton.click()
        self.assertEqual(self.widget.binding.parameters.volume.GetName(), "b")
        self.assertIn(
            "0 of 3 series annotated\nPassed over: 1; for example, ", self.ui.queueLabel.text
        )
        self.assertIn("lacks 1 slice", self.ui.queueLabel.text)
        self.start_keys()
        scroll_to(34)
        with self.assertNoLogs(level="ERROR"):
            press("5")
        self.assertTrue((self.folder / "b" / "series" / "annotation.json").exists())
        self.assertIn("1 of 3 series annotated", self.ui.queueLabel.text)
        with self.assertLogs(level="ERROR") as shown:
            self.ui.nextButton.click()
        self.assertIn("No series is left that can be annotated. Passed over: 2", shown.output[0])
        self.assertEqual(self.widget.binding.parameters.volume.GetName(), "b")

        (self.folder / "c" / "series" / "annotation.json").unlink()
        self.ui.nextButton.click()
        self.assertEqual(self.widget.binding.parameters.volume.GetName(), "c")

    def test_series_whose_slices_no_name_can_stand_for_are_passed_over(self) -> None:
        for file in (self.folder / "a" / "series").iterdir():
            file.unlink()
        write_enhanced(self.folder / "a" / "series" / "0.dcm", AXIAL, positions(count=9))
        coronal = (1.0, 0, 0, 0, 0, -1)
        for file in (self.folder / "b" / "series").iterdir():
            file.unlink()
        write_series(self.folder / "b" / "series", coronal, series="b")
        self.ui.nextButton.click()
        self.assertEqual(self.annotate.volume.GetName(), "c")
        first, second = self.widget.queue._passed
        self.assertIn("export the series as one file per slice", first)
        self.assertIn("has no axial slices", second)

    @unittest.skipIf(slicer_host.is_real(), "would fill Slicer's own DICOM database")
    def test_a_series_in_several_subfolders_is_passed_over(self) -> None:
        series = self.folder / "a" / "series"
        for k, file in enumerate(sorted(series.iterdir())):
            below = series / str(k // 5)
            below.mkdir(exist_ok=True)
            file.rename(below / f"{k % 5}.dcm")
        slicer.dicomDatabase.add_folder(self.folder)
        self.addCleanup(slicer.dicomDatabase.clear)
        self.ui.queueSource.currentIndex = 1
        self.ui.nextButton.click()
        self.assertEqual(self.annotate.volume.GetName(), "b")
        self.assertIn("a/series has one series in several subfolders", self.ui.queueLabel.text)

    def strange_files(self) -> None:
        """Add scouts, a dose report and a damaged file; make the modality one that is unusual."""
        slices = sorted((self.folder / "a" / "series").iterdir())
        image = pydicom.dcmread(slices[0])
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        image.save_as(self.folder / "a" / "series" / "0-same-series.dcm")
        image.SeriesInstanceUID = "1.2.3"
        image.save_as(self.folder / "a" / "series" / "00-scout.dcm")
        (self.folder / "scouts").mkdir()
        image.save_as(self.folder / "scouts" / "1.dcm")
        image = pydicom.dcmread(self.folder / "b" / "series" / "000.dcm")
        image.Modality = "SR"
        del image.PixelData, image.Rows, image.Columns, image.SOPClassUID
        image.save_as(self.folder / "b" / "series" / "0-dose.dcm")
        for file in (self.folder / "c" / "series").iterdir():
            image = pydicom.dcmread(file)
            image.Modality = "ct"
            image.save_as(file)
        cut = (self.folder / "c" / "series" / "000.dcm").read_bytes()[:600]
        (self.folder / "c" / "series" / "0-cut.dcm").write_bytes(cut)

    def test_series_are_found_among_scouts_and_other_files(self) -> None:
        self.strange_files()
        self.ui.nextButton.click()
        self.assertEqual(self.ui.queueLabel.text, "0 of 3 series annotated")
        self.assertEqual(self.widget.binding.parameters.volume.GetName(), "a")

    @unittest.skipIf(slicer_host.is_real(), "would fill Slicer's own DICOM database")
    def test_series_of_the_database_are_found_among_scouts_and_other_files(self) -> None:
        self.strange_files()
        (self.folder / "c" / "series" / "0-cut.dcm").unlink()
        slicer.dicomDatabase.add_folder(self.folder)
        self.addCleanup(slicer.dicomDatabase.clear)
        self.ui.queueSource.currentIndex = 1
        self.ui.nextButton.click()
        self.assertEqual(self.ui.queueLabel.text, "0 of 3 series annotated")
        self.assertEqual(self.widget.binding.parameters.volume.GetName(), "a")

    def test_only_the_volume_of_the_queue_is_saved(self) -> None:
        self.ui.nextButton.click()
        self.widget.chooseVolume(self.volume)
        self.annotate_all()
        self.assertFalse((self.folder / "a" / "series" / "annotation.json").exists())

    def test_a_landmark_moved_by_the_mouse_is_saved(self) -> None:
        file = self.folder / "a" / "series" / "annotation.json"
        self.ui.nextButton.click()
        self.start_keys()
        scroll_to(34)
        press("5")
        self.assertEqual(json.loads(file.read_text()), {"Aortic arch": "008.dcm"})
        points = self.widget.logic.annotation.markupsNode(self.annotate.volume)
        x, y, z = points.GetNthControlPointPositionWorld(0)
        points.SetNthControlPointPositionWorld(0, x, y, z + 0.1)
        points.SetNthControlPointPositionWorld(0, x, y, 16.0)
        process_events()
        self.assertEqual(json.loads(file.read_text()), {"Aortic arch": "002.dcm"})
        leave_panel()
        points.SetNthControlPointPositionWorld(0, x, y, z)
        slicer.util.selectModule("CTSliceTools")
        self.ui.nextButton.click()
        self.assertEqual(json.loads(file.read_text()), {"Aortic arch": "008.dcm"})

    def start_annotation(self) -> Path:
        """Load the first series and set two landmarks; returns the file they are saved in."""
        self.ui.nextButton.click()
        self.start_keys()
        for key, z in (("5", 34), ("6", 16)):
            scroll_to(z)
            press(key)
        return self.folder / "a" / "series" / "annotation.json"

    def saved(self, file: Path) -> dict[str, str]:
        found = json.loads(file.read_text())
        assert isinstance(found, dict)
        return found

    def test_no_series_is_left_before_its_landmarks_are_saved(self) -> None:
        file = self.start_annotation()
        scroll_to(31)
        press("4")
        self.assertIn("Not saved: a contradicts anatomy", self.ui.queueLabel.text)
        volume = self.annotate.volume
        with self.assertLogs(level="ERROR") as shown:
            self.ui.nextButton.click()
        self.assertIn("a contradicts anatomy", shown.output[0])
        self.assertIs(self.annotate.volume, volume)
        self.assertEqual(len(self.set_slices()), 3)
        press("Ctrl+Z")
        self.assertEqual(self.ui.queueLabel.text, "1 of 3 series annotated")
        self.ui.nextButton.click()
        self.assertEqual(self.annotate.volume.GetName(), "b")
        self.assertEqual(set(self.saved(file)), {"Aortic arch", "Bifurcation of trachea"})

    def test_landmarks_are_saved_while_another_volume_is_chosen(self) -> None:
        file = self.start_annotation()
        points = self.widget.logic.annotation.markupsNode(self.annotate.volume)
        self.widget.chooseVolume(self.volume)
        process_events()
        x, y, _ = points.GetNthControlPointPositionWorld(0)
        points.SetNthControlPointPositionWorld(0, x, y, 28.0)
        self.ui.nextButton.click()
        self.assertEqual(self.saved(file)["Aortic arch"], "006.dcm")

    def test_what_is_done_to_points_in_the_views_is_shown_and_saved(self) -> None:
        file = self.start_annotation()
        points = self.widget.logic.annotation.markupsNode(self.annotate.volume)
        for change, left in (
            (lambda: points.SetNthControlPointLabel(0, "T1"), "T1"),
            (lambda: points.AddControlPoint(vtk.vtkVector3d(0, 0, 10), "L1"), "L1"),
            (lambda: points.UnsetNthControlPointPosition(0), "Bifurcation of trachea"),
            (lambda: points.RemoveNthControlPoint(1), "L1"),
        ):
            change()
            process_events()
            self.assertIn(left, self.set_slices())
            self.assertEqual(set(self.saved(file)), set(self.set_slices()))
        points.RemoveAllControlPoints()
        process_events()
        self.assertEqual((self.set_slices(), self.saved(file)), ({}, {}))

    def test_landmarks_deleted_while_the_panel_was_hidden_leave_the_file(self) -> None:
        file = self.start_annotation()
        points = self.widget.logic.annotation.markupsNode(self.annotate.volume)
        leave_panel()
        points.RemoveAllControlPoints()
        slicer.util.selectModule("CTSliceTools")
        self.ui.nextButton.click()
        self.assertEqual(self.saved(file), {})

    def test_what_somebody_else_saved_is_not_overwritten(self) -> None:
        file = self.start_annotation()
        mine = self.saved(file)
        theirs = '{"C7": "007.dcm"}'
        file.write_text(theirs)
        scroll_to(13)
        press("7")
        self.assertIn("Not saved: ", self.ui.queueLabel.text)
        self.assertIn("annotation.json was changed by somebody else", self.ui.queueLabel.text)
        with self.assertLogs(level="ERROR"):
            self.ui.nextButton.click()
        self.assertEqual(file.read_text(), theirs)

        self.annotate.change(lambda volume: self.annotate.load(file))
        self.assertEqual(self.ui.queueLabel.text, "1 of 3 series annotated")
        scroll_to(16)
        press("6")
        self.assertEqual(self.saved(file), {"C7": "007.dcm", "Bifurcation of trachea": "002.dcm"})
        file.unlink()
        press("Ctrl+Z")
        press("Ctrl+Z")
        self.assertEqual(set(self.saved(file)), {*mine, "Right dome of diaphragm"})

    def test_a_cropped_volume_is_not_saved_as_the_series(self) -> None:
        file = self.start_annotation()
        before = file.read_text()
        volume = self.annotate.volume
        array = slicer.util.arrayFromVolume(volume)[1:].copy()
        x, y, z = volume.GetOrigin()
        volume.SetOrigin(x, y, z + 3)
        slicer.util.updateVolumeFromArray(volume, array)
        process_events()
        self.assertIn("Not saved: a was cropped or resampled", self.ui.queueLabel.text)
        self.assertEqual(file.read_text(), before)
        slicer.mrmlScene.RemoveNode(volume)
        self.ui.nextButton.click()
        self.assertEqual(self.annotate.volume.GetName(), "b")

    def test_landmarks_are_saved_on_after_another_folder_or_source_was_chosen(self) -> None:
        file = self.start_annotation()
        volume = self.annotate.volume
        self.ui.queueSource.currentIndex = 1
        self.ui.queueSource.currentIndex = 0
        self.ui.queueFolder.text = f"{self.folder}/"
        scroll_to(13)
        press("7")
        self.assertEqual(len(self.saved(file)), 3)
        scroll_to(28)
        press("4")
        self.assertIn("Not saved: a contradicts anatomy", self.ui.queueLabel.text)
        press("Ctrl+Z")
        self.assertEqual(self.ui.queueLabel.text, "")
        self.ui.nextButton.click()
        self.assertEqual(self.annotate.volume.GetName(), "b")
        self.assertIsNone(volume.GetScene())

    def test_a_deleted_node_of_landmarks_leaves_the_file(self) -> None:
        file = self.start_annotation()
        slicer.mrmlScene.RemoveNode(self.widget.logic.annotation.markupsNode(self.annotate.volume))
        process_events()
        self.assertEqual((self.set_slices(), self.saved(file)), ({}, {}))
        scroll_to(34)
        press("5")
        self.assertEqual(self.saved(file), {"Aortic arch": "008.dcm"})

    def test_a_search_can_be_cancelled(self) -> None:
        self.start_annotation()
        volume = self.annotate.volume
        with patch("CTSliceToolsSlicer.panel.queue_box.ProgressWindow.keep_alive") as alive:
            alive.side_effect = Cancelled
            self.ui.nextButton.click()
            self.assertIs(self.annotate.volume, volume)
            alive.side_effect = None
            alive.reset_mock()
            self.ui.queueFolder.text = f"{self.folder}/"
            self.ui.nextButton.click()
        self.assertEqual(self.annotate.volume.GetName(), "b")
        self.assertGreater(alive.call_count, 20)

    def test_a_key_reads_no_annotation_but_its_own(self) -> None:
        file = self.start_annotation()
        (self.folder / "b" / "series" / "annotation.json").write_text('{"C7": "007.dcm"}')
        with patch.object(label_queue, "read_slice_names", wraps=read_slice_names) as read:
            scroll_to(13)
            press("7")
        self.assertEqual([call.args for call in read.call_args_list], [(file,)])
        self.ui.nextButton.click()
        self.assertEqual(self.annotate.volume.GetName(), "c")
        self.assertEqual(self.ui.queueLabel.text, "2 of 3 series annotated")

    def test_keys_live_on_where_the_queue_has_the_only_volume(self) -> None:
        slicer.mrmlScene.RemoveNode(self.volume)
        process_events()
        self.start_annotation()
        self.ui.nextButton.click()
        process_events()
        self.assertTrue(self.ui.annotateButton.checked)
        self.assertEqual(self.annotate.volume.GetName(), "b")
        scroll_to(34)
        press("5")
        self.assertEqual(self.set_slices(), {"Aortic arch": 8})

    def test_series_of_one_name_are_not_numbered(self) -> None:
        for file in self.folder.rglob("*.dcm"):
            image = pydicom.dcmread(file)
            image.SeriesDescription = "chest CT"
            image.save_as(file)
        for _ in range(3):
            self.ui.nextButton.click()
            self.assertEqual(self.annotate.volume.GetName(), "chest CT")

    def test_predicted_landmarks_leave_with_their_volume(self) -> None:
        self.ui.nextButton.click()
        fit = landmark_fit({"Aortic arch": 31.0, "Bifurcation of trachea": 16.0})
        slices = tuple(SliceLocation(k, 10 + 3.0 * k, 0.2, 0.2) for k in range(9))
        prediction = ScanPrediction(self.folder, None, slices, fit, ModelUsed("m"))
        add_prediction(self.annotate.volume, prediction)
        self.widget.refresh()
        self.ui.adoptButton.click()
        self.assertEqual(len(self.set_slices()), 2)
        self.ui.nextButton.click()
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"), [])
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])

    def check_forgotten(self) -> None:
        """Check that the queue neither saves landmarks of another volume nor removes it."""
        file = self.folder / "a" / "series" / "annotation.json"
        before = file.read_text()
        mine = add_scan("mine", slices=30)
        self.widget.chooseVolume(mine)
        if not self.ui.annotateButton.checked:
            self.start_keys()
        scroll_to(100)
        press("1")
        self.assertEqual(len(self.set_slices()), 1)
        self.assertEqual(file.read_text(), before)
        self.ui.queueFolder.text = str(self.folder)
        self.ui.nextButton.click()
        self.assertIsNotNone(mine.GetScene())
        self.assertEqual(self.widget.binding.parameters.volume.GetName(), "b")

    @unittest.skipIf(slicer_host.is_real(), "would fill Slicer's own DICOM database")
    def test_a_closed_scene_ends_the_queue(self) -> None:
        slicer.dicomDatabase.add_folder(self.folder)
        self.addCleanup(slicer.dicomDatabase.clear)
        for source in (0, 1):
            with self.subTest(source=source):
                slicer.mrmlScene.Clear()  # so that the queue has the first volume
                process_events()
                for file in self.folder.rglob("annotation.json"):
                    file.unlink()
                self.ui.queueSource.currentIndex = source
                self.ui.queueFolder.text = str(self.folder)
                self.ui.nextButton.click()
                self.start_keys()
                scroll_to(34)
                press("5")
                slicer.mrmlScene.Clear()
                process_events()
                self.assertEqual(self.ui.queueLabel.text, "")
                self.check_forgotten()

    def test_the_volume_of_a_queue_that_was_left_stays(self) -> None:
        self.ui.nextButton.click()
        self.start_keys()
        scroll_to(34)
        press("5")
        volume = self.widget.binding.parameters.volume
        self.ui.queueFolder.text = str(self.folder / "b")
        scroll_to(16)
        press("6")
        self.ui.nextButton.click()
        self.assertIsNotNone(volume.GetScene())

    def test_a_folder_without_series(self) -> None:
        self.ui.queueFolder.text = str(self.folder / "a" / "none")
        with self.assertLogs(level="ERROR") as shown:
            self.ui.nextButton.click()
        self.assertIn("has no CT series", shown.output[0])
