"""The panel LungNoduleSeg open on a scan, for the tests of its sections."""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer

import CTSliceToolsLib
import LungNoduleSegLib
from CTLungScreeningLib.child_process import module_command, module_environment
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTLungScreeningSlicer.scene.mrml_volume import add_volume
from LungNoduleSegLib.nodules.table import Nodule, Verdict
from LungNoduleSegSlicer.scene.nodule_segments import segment_id
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes
from panel_host import RunTest, descendants, leave_panel, open_panel
from slicer_host.actions import process_events, wait_until


@functools.cache
def phantom_folder() -> Path:
    """Make a chest CT phantom, once a process: `dicom` and more in a folder."""
    folder = Path(tempfile.mkdtemp(prefix="phantom-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _run_command("phantom", "-o", folder / "phantom")
    return folder / "phantom"


@functools.cache
def phantom_results() -> Path:
    """Run the phantom with the bundled model, once a process, and keep its probability."""
    folder = phantom_folder().with_name("results")
    _run_command("run", phantom_folder() / "dicom", "-o", folder, "--probability")
    return folder


@functools.cache
def _phantom_image() -> sitk.Image:
    return read_ct(phantom_folder() / "dicom").image


def add_phantom() -> Any:
    """Add the phantom to the scene."""
    return add_volume(_phantom_image(), "phantom")


def _run_command(*arguments: str | Path) -> None:
    subprocess.run(
        module_command("LungNoduleSegLib", *arguments),
        env={**os.environ, **module_environment(CTSliceToolsLib, LungNoduleSegLib)},
        check=True,
        capture_output=True,
    )


class PanelTest(RunTest):
    """The panel open in an empty scene."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        self.widget = open_panel("LungNoduleSeg")
        self.ui = self.widget.ui
        self.run_bar = self.widget.segment.run_bar
        self.before = descendants()

    def tearDown(self) -> None:
        leave_panel()
        slicer.mrmlScene.Clear()
        process_events()


class ScanTest(PanelTest):
    """The panel open on a scan, that of `load`."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = self.load()
        self.widget.chooseVolume(self.volume)
        process_events()
        self.nodes = self.node_ids()

    def load(self) -> Any:
        return slicer.util.addVolumeFromArray(np.full((40, 64, 64), -1000, np.int16), name="air")


class ResultsTest(ScanTest):
    """The panel open on the phantom with the results of a run."""

    def setUp(self) -> None:
        super().setUp()
        self.widget.refresh()

    def load(self) -> Any:
        volume = add_phantom()
        self.results = self.widget.logic.importResults(phantom_results(), volume)
        return volume


ID, SIZE, KIND, PROBABILITY, VERDICT = range(5)
"""Columns of the table."""


class NodulesTest(ResultsTest):
    """The section open on the nodules of the phantom."""

    results: ResultNodes

    def setUp(self) -> None:
        super().setUp()
        self.ui, self.logic = self.widget.ui, self.widget.logic
        self.section = self.widget.nodules
        self.widget.refresh()
        slicer.util.setSliceViewerLayers(background=self.volume, fit=True)
        slicer.util.mainWindow().activateWindow()
        process_events()

    def column(self, number: int) -> list[str]:
        table = self.ui.noduleTable
        return [table.item(row, number).text() for row in range(table.rowCount)]

    def numbers(self) -> list[int]:
        return [int(text) for text in self.column(ID)]

    def nodule(self, number: int) -> Nodule:
        return next(
            one.nodule for one in self.logic.review.nodules(self.results) if one.nodule.id == number
        )

    def verdict(self, number: int) -> Verdict | None:
        nodules = self.logic.review.nodules(self.results)
        return next(one.verdict for one in nodules if one.nodule.id == number)

    def choose(self, number: int) -> None:
        """Click on the row of a nodule."""
        row = self.numbers().index(number)
        self.ui.noduleTable.selectRow(row)
        process_events()

    def selected(self) -> int | None:
        one = self.section.table.selected
        return None if one is None else one.nodule.id

    def click(self, button: Any) -> None:
        button.click()
        self.settle()

    def settle(self) -> None:
        """Wait until a change is in the scene and all sections have heard of it."""
        section = self.section
        process_events()
        wait_until(lambda: not section.runner.busy and not section._tell_at_rest.waiting, 60)
        process_events()

    def ras(self, number: int) -> tuple[float, float, float]:
        one = self.nodule(number)
        return -one.x, -one.y, one.z

    def erase(self, number: int) -> None:
        """Take the upper half of a nodule away, by the way that the Segment Editor goes."""
        node, one = self.results.segmentation, segment_id(number)
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, one, self.volume)
        slices = np.flatnonzero(voxels.any(axis=(1, 2)))
        voxels[slices[len(slices) // 2] :] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, one, self.volume)
        process_events()
