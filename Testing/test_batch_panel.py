"""The section Batch of LungNoduleSeg: real buttons, the real command, small phantoms."""

import csv
import os
import subprocess
import sys
import tempfile
import unittest
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import slicer_host

slicer = slicer_host.start()

import qt
import SimpleITK as sitk

import bright_model
import CTSliceToolsLib
import LungNoduleSegLib
from CTLungScreeningLib.child_process import module_environment
from LungNoduleSegLib.batch.scan_work import RESULTS_TABLE, ScanRow, write_table
from LungNoduleSegLib.lesions import Lesion
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom
from LungNoduleSegLib.phantom.dicom import SeriesText, write_dicom_series
from LungNoduleSegLib.results.reading import RECORD
from LungNoduleSegSlicer.panel.batch_section import SELECTION, BatchSource
from nodule_panel import PanelTest
from panel_host import PICTURES, slow
from slicer_host.actions import process_events, save_picture, tool_tip, wait_until

SIZE, SPACING = (96, 96, 40), (3.7, 3.7, 7.5)
SCAN, NODULES, STATE = 0, 1, 4


@cache
def phantom(seed: int) -> sitk.Image:
    """A small chest with one large lesion."""
    lesion = Lesion((-70, 20, 45), 34, lobulation=0)
    return make_phantom(PhantomSpec(seed, SIZE, SPACING, (lesion,))).image


def write_series(folder: Path, seed: int = 0) -> None:
    """Write a phantom as a DICOM series of a patient of its own."""
    text = SeriesText(f"Test^Patient {seed}", f"P{seed}")
    write_dicom_series(phantom(seed), folder, text)


def write_bright_model(folder: Path) -> Path:
    """Write the quick network, in a process of its own."""
    file = folder / "bright.keras"
    subprocess.run(
        [sys.executable, bright_model.__file__, file],
        env={**os.environ, **module_environment(CTSliceToolsLib, LungNoduleSegLib)},
        check=True,
        capture_output=True,
    )
    return file


class BatchTest(PanelTest):
    """The section open, with a folder of its own."""

    PATIENCE_S = 900

    def setUp(self) -> None:
        super().setUp()
        self.section = self.widget.batch
        self.run_bar = self.section.run_bar
        self.table = self.ui.batchTable
        self.ui.batchSection.collapsed = False
        self.ui.segmentSection.collapsed = True
        self.addCleanup(setattr, self.ui.batchSection, "collapsed", True)
        self.addCleanup(setattr, self.ui.segmentSection, "collapsed", False)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.scans, self.output = self.folder / "scans", self.folder / "results"

    def choose(self, source: BatchSource) -> None:
        self.ui.batchSourceBox.currentIndex = list(BatchSource).index(source)

    def column(self, number: int) -> list[str]:
        items = [self.table.item(row, number) for row in range(self.table.rowCount)]
        return [item.text() if item is not None else "" for item in items]

    def row(self, scan: str) -> int:
        return next(row for row, name in enumerate(self.column(SCAN)) if name.endswith(scan))

    def wait_for_child(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: bool(self.children()), self.PATIENCE_S)

    def wait_for_scan(self) -> None:
        wait_until(lambda: not self.section.load_bar.runner.busy, self.PATIENCE_S)


class TestChoices(BatchTest):
    def test_the_button_says_what_is_missing(self) -> None:
        for source, sentence in (
            (BatchSource.FOLDER, "Choose the folder with the scans first."),
            (BatchSource.LIST, "Choose the CSV file of paths first."),
            (BatchSource.DATABASE, "Select a series first."),
        ):
            self.choose(source)
            self.assertEqual(tool_tip(self.run_bar.button), sentence)
        self.choose(BatchSource.FOLDER)
        self.ui.batchScansLine.text = str(self.scans)
        self.assertIn("for the results", tool_tip(self.run_bar.button))
        self.assertFalse(self.run_bar.button.enabled)
        self.ui.batchOutputLine.text = str(self.output)
        self.assertTrue(self.run_bar.button.enabled)

    def test_any_text_may_be_typed_as_a_folder(self) -> None:
        for text in ("~", "~nobody-of-this-name", "~nobody-of-this-name/results"):
            self.ui.batchOutputLine.text = text
            process_events()
            self.assertEqual(self.ui.batchLabel.text, "")

    def test_choices_are_kept_in_a_saved_scene(self) -> None:
        self.choose(BatchSource.LIST)
        self.ui.batchListLine.text = str(self.folder / "list.csv")
        self.ui.batchWorkersBox.value = 2
        file = self.folder / "scene.saving"
        self.assertTrue(slicer.mrmlScene.WriteToMRB(str(file)))
        slicer.mrmlScene.Clear()
        process_events()
        self.assertEqual((self.ui.batchListLine.text, self.ui.batchWorkersBox.value), ("", 0))
        self.assertTrue(slicer.mrmlScene.ReadFromMRB(str(file)))
        process_events()
        self.assertTrue(self.ui.batchListRows.visible)
        self.assertEqual(self.ui.batchListLine.text, str(self.folder / "list.csv"))
        self.assertEqual(self.ui.batchWorkersBox.value, 2)

    def test_the_command_gets_what_is_chosen(self) -> None:
        self.ui.batchScansLine.text = str(self.scans)
        self.ui.batchOutputLine.text = str(self.output)
        self.ui.batchWorkersBox.value = 1
        self.widget.binding.parameters.lungMethod = "tutorial"
        command = " ".join(next(self.section.make_work()).arguments)
        self.assertTrue(
            command.endswith(
                f"batch {self.scans} -o {self.output} --lungs tutorial --model {DEFAULT_MODEL} "
                "--workers 1 --progress jsonl"
            ),
            command,
        )


class TestResults(BatchTest):
    def write_results(self) -> None:
        self.output.mkdir()
        found: dict[str, Any] = {"nodules": 3, "largest_diameter_mm": 8.24, "lung_rads": "4A"}
        whose: dict[str, Any] = {"patient_id": "P1", "study_date": "20200101"}
        done = ScanRow("1.2.840", "/scans/a", "scans/a", **whose, **found)
        failed = ScanRow("b.nrrd", "/scans/b.nrrd", error="/scans/b.nrrd is cut short.")
        write_table(self.output / RESULTS_TABLE, [done.cells(), failed.cells()])

    def test_an_earlier_batch_is_shown_as_its_folder_is_chosen(self) -> None:
        self.write_results()
        self.ui.batchOutputLine.text = str(self.output)
        rows = [[self.table.item(row, n).text() for n in range(5)] for row in range(2)]
        self.assertEqual(rows[0], ["P1 20200101", "3", "8.2", "4A", "Done"])
        self.assertEqual(rows[1], ["b.nrrd", "", "", "", "Failed"])
        self.assertEqual(self.table.item(1, STATE).toolTip(), "/scans/b.nrrd is cut short.")
        self.assertTrue(self.ui.batchLabel.text.startswith("1 done, 1 failed."))
        self.assertFalse(self.ui.loadScanButton.enabled)
        self.table.selectRow(0)
        self.assertTrue(self.ui.loadScanButton.enabled)
        self.table.selectRow(1)
        self.assertFalse(self.ui.loadScanButton.enabled)
        self.assertIn("b.nrrd is cut short", self.ui.batchLabel.text)
        self.ui.batchOutputLine.text = str(self.folder)
        self.assertEqual((self.table.rowCount, self.ui.batchLabel.text), (0, ""))

    def test_a_number_that_another_program_wrote_is_shown_as_it_is(self) -> None:
        self.write_results()
        file = self.output / RESULTS_TABLE
        file.write_text(file.read_text().replace("8.24", '"8,2"'))
        self.ui.batchOutputLine.text = str(self.output)
        self.assertEqual(self.table.item(0, 2).text(), "8,2")
        self.assertEqual(self.table.rowCount, 2)

    def test_a_table_of_another_kind_is_reported(self) -> None:
        self.output.mkdir()
        (self.output / RESULTS_TABLE).write_text("name,value\na,1\n")
        self.ui.batchOutputLine.text = str(self.output)
        self.assertIn("is not the table of a batch", self.ui.batchLabel.text)
        self.assertEqual(self.table.rowCount, 0)

    def test_results_that_are_gone_are_one_sentence(self) -> None:
        self.write_results()
        self.ui.batchOutputLine.text = str(self.output)
        self.table.selectRow(0)
        before = self.node_ids()
        with self.assertLogs(level="ERROR") as shown:
            self.ui.loadScanButton.click()
            self.wait_for_scan()
        self.assertIn(f"{RECORD} is not the record of a run", shown.output[0])
        self.assertEqual(self.node_ids(), before)


@unittest.skipIf(slicer_host.is_real(), "would fill Slicer's own DICOM database")
class TestDatabase(BatchTest):
    def setUp(self) -> None:
        super().setUp()
        for seed in (0, 1):
            write_series(self.scans / str(seed), seed)
        slicer.dicomDatabase.add_folder(self.scans)
        self.addCleanup(self.section.series.read)
        self.addCleanup(slicer.dicomDatabase.clear)
        self.choose(BatchSource.DATABASE)
        self.ui.batchOutputLine.text = str(self.output)

    def tick(self, row: int) -> None:
        self.ui.seriesTable.item(row, 0).setCheckState(qt.Qt.Checked)

    def test_series_are_listed_and_those_ticked_are_run(self) -> None:
        table = self.ui.seriesTable
        texts = [[table.item(row, n).text() for n in range(4)] for row in range(2)]
        self.assertEqual(texts[0], ["Test Patient 0, P0", "20200101", "Chest CT phantom", "40"])
        self.assertEqual(texts[1][0], "Test Patient 1, P1")
        self.assertFalse(self.run_bar.button.enabled)
        self.tick(1)
        self.assertTrue(self.run_bar.button.enabled)
        self.section.make_work()
        with (self.output / SELECTION).open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        (chosen,) = self.section.series.ticked
        self.assertEqual(rows, [{"path": str(self.scans / "1"), "series": chosen.uid}])
        save_picture(self.widget.parent, PICTURES / "batch-database.png")

    def test_tick_all_and_none_and_read_again(self) -> None:
        self.ui.tickAllButton.click()
        self.assertEqual(len(self.section.series.ticked), 2)
        write_series(self.folder / "later", 2)
        slicer.dicomDatabase.add_folder(self.folder / "later")
        self.ui.rereadButton.click()
        self.assertEqual(self.ui.seriesTable.rowCount, 3)
        self.assertEqual(len(self.section.series.ticked), 2)
        self.ui.tickAllButton.click()
        self.ui.tickAllButton.click()
        self.assertEqual(self.section.series.ticked, [])

    def test_a_series_that_is_not_all_here_is_left_out_and_counted(self) -> None:
        self.assertEqual(self.ui.seriesLabel.text, "")
        first, *_, last = sorted((self.scans / "0").iterdir())
        for away in (last, first):
            slicer.dicomDatabase.leave_on_server(away)
            self.ui.rereadButton.click()
            self.assertEqual(self.ui.seriesTable.rowCount, 1)
            self.assertEqual(self.ui.seriesTable.item(0, 0).text(), "Test Patient 1, P1")
            self.assertIn("Series left out: 1.", self.ui.seriesLabel.text)
        slicer.dicomDatabase.leave_on_server(*self.scans.rglob("*"))
        self.ui.rereadButton.click()
        self.assertEqual(self.ui.seriesTable.rowCount, 0)
        self.assertIn("Series left out: 2.", self.ui.seriesLabel.text)

    def test_a_series_on_two_drives_is_left_out(self) -> None:
        with patch("os.path.commonpath", side_effect=ValueError("Paths don't have the same drive")):
            self.ui.rereadButton.click()
        self.assertEqual(self.ui.seriesTable.rowCount, 0)
        self.assertIn("Series left out: 2.", self.ui.seriesLabel.text)

    def test_another_file_of_the_lists_name_stays(self) -> None:
        self.output.mkdir()
        (self.output / SELECTION).write_text("mine")
        self.tick(0)
        with self.assertLogs(level="ERROR") as shown:
            self.run_bar.button.click()
        self.assertIn("is not a list of scans from this program", shown.output[0])
        self.assertEqual((self.output / SELECTION).read_text(), "mine")


class TestEnd(BatchTest):
    def setUp(self) -> None:
        super().setUp()
        self.scans.mkdir()
        sitk.WriteImage(phantom(0), self.scans / "one.nrrd")
        self.ui.batchScansLine.text = str(self.scans)
        self.ui.batchOutputLine.text = str(self.output)

    def test_cancel_leaves_no_process(self) -> None:
        self.wait_for_child()
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy, self.PATIENCE_S)
        self.assertEqual(self.children(), set())
        self.assertEqual(self.run_bar.button.text, "Run batch")

    def test_scene_closed_during_a_batch(self) -> None:
        self.wait_for_child()
        slicer.mrmlScene.Clear()
        self.assertFalse(self.run_bar.runner.busy)
        self.assertEqual(self.children(), set())


@slow
class TestBatch(BatchTest):
    """Whole batches with a network that is quick."""

    def setUp(self) -> None:
        super().setUp()
        write_series(self.scans / "dicom")
        sitk.WriteImage(phantom(1), self.scans / "volume.nrrd")
        whole = (self.scans / "volume.nrrd").read_bytes()
        (self.scans / "cut.nrrd").write_bytes(whole[: len(whole) // 2])
        self.widget.model.choose(write_bright_model(self.folder))
        self.addCleanup(self.widget.model.choose, DEFAULT_MODEL)
        self.ui.batchScansLine.text = str(self.scans)
        self.ui.batchOutputLine.text = str(self.output)
        self.ui.batchWorkersBox.value = 1

    def done(self) -> int:
        return self.column(STATE).count("Done")

    def times(self) -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in self.output.rglob(RECORD)}

    def test_rows_come_one_by_one_and_a_scan_is_loaded(self) -> None:
        states: set[str] = set()
        self.run_bar.button.click()

        def ended() -> bool:
            states.update(self.column(STATE))
            return not self.run_bar.runner.busy

        wait_until(ended, self.PATIENCE_S)
        self.assertTrue(any(one.startswith("Lungs") for one in states), states)
        self.assertEqual(self.children(), set())
        self.assertEqual((self.table.rowCount, self.done()), (3, 2))
        self.assertEqual(self.column(STATE)[self.row("cut.nrrd")], "Failed")
        self.assertTrue(self.ui.batchLabel.text.startswith("2 done, 1 failed."))
        dicom = self.column(SCAN).index("P0 20200101")
        self.assertGreater(int(self.column(NODULES)[dicom]), 0)
        self.load(dicom)
        save_picture(self.widget.parent, PICTURES / "batch.png")

    def load(self, row: int) -> None:
        """Load a row by a double click; the second time nothing is added."""
        self.table.selectRow(row)
        self.table.cellDoubleClicked.emit(row, 0)
        self.wait_for_scan()
        volume = self.widget.binding.parameters.volume
        self.assertEqual(volume.GetName(), "Chest CT phantom")
        results: Any = self.widget.logic.resultsOf(volume)
        self.assertEqual(results.table.GetNumberOfRows(), int(self.column(NODULES)[row]))
        self.assertEqual(len(volume.GetAttribute("DICOM.instanceUIDs").split()), SIZE[2])
        before = self.node_ids()
        self.ui.loadScanButton.click()
        self.wait_for_scan()
        self.assertEqual(self.node_ids(), before)

    def test_stopped_it_goes_on_where_it_was(self) -> None:
        self.run_bar.button.click()
        wait_until(lambda: self.done() == 1 or not self.run_bar.runner.busy, self.PATIENCE_S)
        self.run_bar.button.click()
        wait_until(lambda: not self.run_bar.runner.busy, self.PATIENCE_S)
        self.assertEqual(self.children(), set())
        self.assertEqual(self.done(), 1)
        before = self.times()
        self.run_to_end()
        self.assertEqual(self.done(), 2)
        after = self.times()
        self.assertEqual({file: after[file] for file in before}, before)
        self.assertEqual(len(after), 2)


if __name__ == "__main__":
    unittest.main()
