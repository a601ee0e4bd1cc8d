"""Both panels fit into a narrow dock, in Slicer or on its stand-in."""

import unittest
from typing import Any

import slicer_host

slicer = slicer_host.start()

import qt

from dated_scans import add_scan as add_dated_scan
from dated_scans import dated_results
from nodule_panel import PanelTest
from panel_host import WIDTH, add_scan, docked, leave_panel, open_panel
from slicer_host.actions import process_events


def sections(widget: Any) -> list[Any]:
    """Give the collapsible sections of a panel, those inside others last."""
    found = [one for one in vars(widget.ui).values() if one.className() == "ctkCollapsibleButton"]
    return sorted(found, key=lambda one: one.parent().className() == "ctkCollapsibleButton")


def choose_all(box: Any) -> Any:
    """Choose the entries of a combo box one after the other."""
    for row in range(box.count):
        box.currentIndex = row
        yield


ARROW = 24
"""What the arrow and the frame of a combo box take, in pixels."""


class AppearanceTest(unittest.TestCase):
    """What holds for both panels."""

    def assert_fits(self, widget: Any) -> None:
        """Each section, and all of them at once, fit; their widths are those of the others."""
        widths = {}
        for section in sections(widget):
            section.collapsed = False
            process_events()
            widths[section.objectName] = widget.parent.minimumSizeHint.width()
        self.assertLessEqual(max(widths.values()), WIDTH, widths)
        self.assert_nothing_is_cut_off(widget)

    @unittest.skipIf(slicer_host.is_real(), "a dock of Slicer's sizes the panel")
    def assert_nothing_is_cut_off(self, widget: Any) -> None:
        """At that width no text of a button, box or label is longer than its widget."""
        panel = widget.parent
        kinds = (qt.QPushButton, qt.QCheckBox, qt.QLabel, qt.QComboBox)
        with docked(widget, WIDTH, panel.sizeHint.height() + 20):
            inside = [one for kind in kinds for one in panel.findChildren(kind)]
            for one in inside:
                if one.isVisibleTo(panel):
                    wraps = isinstance(one, qt.QLabel) and one.wordWrap
                    chosen = isinstance(one, qt.QComboBox)
                    text = one.currentText if chosen else one.text
                    least = one.minimumSizeHint.width() if wraps else self.text_width(one, text)
                    least += ARROW * chosen
                    self.assertLessEqual(least, one.width, text)
                    right = one.mapTo(panel, qt.QPoint(one.width, 0)).x()
                    self.assertLessEqual(right, WIDTH, text)

    def text_width(self, one: Any, text: str) -> int:
        return int(qt.QFontMetrics(one.font).horizontalAdvance(text))


class TestLungNoduleSeg(PanelTest, AppearanceTest):
    """The panel with the results of a run."""

    def setUp(self) -> None:
        super().setUp()
        (_, (folder, image)) = dated_results()
        volume = add_dated_scan("now", image)
        self.widget.logic.importResults(folder, volume)
        self.widget.chooseVolume(volume)
        self.widget.refresh()
        process_events()

    def test_each_section_fits(self) -> None:
        self.ui.noduleTable.selectRow(0)
        self.assert_fits(self.widget)

    def test_whatever_is_chosen_fits(self) -> None:
        self.ui.trainingSection.collapsed = self.ui.batchSection.collapsed = False
        for step in ("prepare", "check", "train", "evaluate"):
            getattr(self.ui, f"{step}Step").checked = True
        for box in (self.ui.collectionBox, self.ui.measureBox, self.ui.batchSourceBox):
            for _chosen in choose_all(box):
                process_events()
                self.assertLessEqual(self.widget.parent.minimumSizeHint.width(), WIDTH)
                self.assert_nothing_is_cut_off(self.widget)


class TestCTSliceTools(AppearanceTest):
    """The panel with a volume."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        self.widget = open_panel("CTSliceTools")
        self.widget.chooseVolume(add_scan())

    def tearDown(self) -> None:
        leave_panel()
        slicer.mrmlScene.Clear()

    def test_each_section_fits(self) -> None:
        for step in ("organize", "normalize", "convert", "partition", "train", "evaluate"):
            getattr(self.widget.ui, f"{step}Step").checked = True
        self.assert_fits(self.widget)

    def test_the_research_notice_is_there_once(self) -> None:
        labels = [one.text for one in self.widget.parent.findChildren(qt.QLabel)]
        self.assertEqual(sum("Not a medical device" in text for text in labels), 1)


if __name__ == "__main__":
    unittest.main()
