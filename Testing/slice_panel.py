"""The panel CTSliceTools open on a scan, for tests."""

import tempfile
from pathlib import Path

import slicer

from CTSliceToolsLib.landmarks import LANDMARKS
from CTSliceToolsSlicer.panel.annotate_section import NAME, SLICE
from panel_host import RunTest, add_scan, leave_panel, open_panel, scroll_to
from slicer_host.actions import press, process_events

HEIGHTS = {one.name: 590 - 50.0 * row for row, one in enumerate(LANDMARKS)}
"""Where the landmarks lie in `add_scan`: slices 59, 54, … 4."""


class PanelTest(RunTest):
    """The panel open on a scan, in an empty scene."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        self.widget = open_panel("CTSliceTools")
        self.ui = self.widget.ui
        self.annotate = self.widget.annotate
        self.volume = add_scan()
        slicer.util.mainWindow().activateWindow()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def tearDown(self) -> None:
        leave_panel()
        slicer.mrmlScene.Clear()
        process_events()

    def start_keys(self) -> None:
        self.ui.annotateButton.click()
        self.assertTrue(self.ui.annotateButton.checked)

    def annotate_all(self) -> None:
        self.start_keys()
        for landmark in LANDMARKS:
            scroll_to(HEIGHTS[landmark.name])
            press(landmark.key)

    def column(self, column: int) -> list[str]:
        table = self.ui.landmarkTable
        return [table.item(row, column).text() for row in range(table.rowCount)]

    def set_slices(self) -> dict[str, int]:
        shown = zip(self.column(NAME), self.column(SLICE), strict=True)
        return {name: int(number) for name, number in shown if number != "–"}
