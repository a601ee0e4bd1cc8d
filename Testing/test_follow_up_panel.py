"""The section Follow-up of the panel LungNoduleSeg, in Slicer or on its stand-in."""

import math
import re
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest.mock import patch

import slicer_host

slicer = slicer_host.start()

import numpy as np
import qt

from CTLungScreeningLib.errors import InputError
from CTLungScreeningSlicer.panel.side_by_side import BESIDE_NAME, LAYOUT
from CTLungScreeningSlicer.panel.slice_views import BESIDE, RED, view_centre
from dated_scans import DOUBLED, DOUBLED_NOW, NEW_NOW, STEADY_NOW, add_scan, date, dated_results
from LungNoduleSegLib.nodules.table import Verdict
from LungNoduleSegLib.options import DEFAULT_MODEL
from LungNoduleSegLib.risk.growth import compare_scans
from LungNoduleSegLib.risk.growth_table import growth_row
from LungNoduleSegSlicer.scene.growth_logic import CHART_ROLE
from LungNoduleSegSlicer.scene.nodule_segments import segment_id
from LungNoduleSegSlicer.scene.result_nodes import chest_of, nodules_of
from nodule_panel import PanelTest
from panel_host import PICTURES, leave_panel, open_panel, reopen, scene_file, scroll_to
from slicer_host.actions import process_events, save_picture, wait_until

NOW, BEFORE, CHANGE, SHARE, DOUBLING = range(5)


class FollowUpTest(PanelTest):
    """The section open on two scans of a patient 100 days apart, with their nodules."""

    dates = ("20240101", "20240410")
    with_prior = True

    def setUp(self) -> None:
        super().setUp()
        (before, image_before), (now, image_now) = dated_results()
        self.prior, self.volume = add_scan("before", image_before), add_scan("now", image_now)
        for volume, day in zip((self.prior, self.volume), self.dates, strict=True):
            if day:
                date(volume, day)
        logic = self.widget.logic
        self.was: Any = logic.importResults(before, self.prior) if self.with_prior else None
        self.results = logic.importResults(now, self.volume)
        logic.history.clear()
        self.widget.chooseVolume(self.volume)
        self.ui.followUpSection.collapsed = False
        self.ui.priorSelector.setCurrentNode(self.prior)
        self.widget.refresh()
        process_events()
        self.section = self.widget.followUp
        self.bar = self.section.run_bar
        self.nodes = self.node_ids()

    def compare(self) -> None:
        self.bar.button.click()
        wait_until(lambda: not self.bar.runner.busy, 300)
        process_events()

    def rows(self) -> list[list[str]]:
        table = self.ui.pairTable
        return [
            [table.item(row, column).text() for column in range(table.columnCount)]
            for row in range(table.rowCount)
        ]

    def centre(self, view: str) -> list[float]:
        return [float(one) for one in view_centre(slicer.mrmlScene.GetNodeByID(view))]


class TestCompare(FollowUpTest):
    def test_pairs_growth_and_doubling_time_are_those_of_the_core(self) -> None:
        self.assertIn("before has 4 nodules", self.ui.priorLabel.text)
        self.compare()
        expected = compare_scans(chest_of(self.was), chest_of(self.results))
        self.assertEqual(expected.days, 100)
        rows = self.rows()
        self.assertEqual(len(rows), len(expected.nodules))
        for shown, one in zip(rows, expected.nodules, strict=True):
            row = growth_row(one, expected.days)
            self.assertEqual(shown[CHANGE], row["change"])
            for column, name in ((NOW, "current_id"), (BEFORE, "prior_id")):
                self.assertEqual(shown[column], "" if row[name] is None else str(row[name]))
            days = row["doubling_days"]
            self.assertEqual(shown[DOUBLING], "" if days is None else f"{days:.0f}")
        grown = rows[DOUBLED_NOW - 1]
        self.assertEqual(grown[BEFORE], str(DOUBLED))
        self.ui.pairTable.selectRow(DOUBLED_NOW - 1)
        volumes = re.search(r"volume (\d+) → (\d+) mm³", self.ui.pairDetails.text)
        assert volumes is not None, self.ui.pairDetails.text
        was, now = map(float, volumes.groups())
        self.assertEqual(grown[SHARE], f"{100 * (now / was - 1):+.0f} %")
        self.assertAlmostEqual(float(grown[DOUBLING]), 100 / math.log2(now / was), delta=0.6)
        self.assertEqual(self.ui.growthNotes.text, "")
        save_picture(self.widget.parent, PICTURES / "follow-up.png")

        self.check_plot()
        self.check_risk()
        self.check_views()
        self.check_changed_nodules()
        self.check_undo()

    def test_earlier_scans_of_the_patient_are_followed_too(self) -> None:
        (before, image_before), _ = dated_results()
        date(add_scan("another series", image_before), "20230601")
        first = add_scan("first", image_before)
        date(first, "20230601")
        date(add_scan("of another patient", image_before), "20230701", patient="P2")
        probability = add_scan("first nodule probability", image_before)
        probability.SetHideFromEditors(True)
        date(probability, "20230515")
        logic = self.widget.logic
        logic.importResults(before, first)
        self.assertEqual(logic.growth.earlierScans(self.prior), [first])
        self.assertEqual(logic.growth.earlierScans(first), [])
        self.ui.earlierScansBox.checked = True
        self.compare()
        growth = logic.growth.find(self.results, self.was)
        chart = growth.GetNodeReference(CHART_ROLE)
        table = chart.GetNthPlotSeriesNode(0).GetTableNode().GetTable()
        time = table.GetColumnByName("time")
        self.assertEqual([time.GetValue(row) for row in range(3)], [0, 214, 314])
        steady = next(row for row in self.rows() if row[NOW] == str(STEADY_NOW))
        self.assertEqual(steady[CHANGE], "no measurable change")

        self.assertIn("Days can be set for two scans only", self.refused(days=180))

    def test_a_prior_scan_that_is_later_is_named(self) -> None:
        date(self.prior, "20250101")
        self.ui.earlierScansBox.checked = True
        self.assertIn("before (2025-01-01) is later than the current scan", self.refused())

    def refused(self, days: int = 0) -> str:
        """Why they are not compared."""
        self.ui.intervalBox.value = days
        process_events()
        with self.assertLogs(level="ERROR") as shown:
            self.compare()
        return str(shown.output[0])

    def check_plot(self) -> None:
        chart = self.widget.logic.growth.find(self.results).GetNodeReference(CHART_ROLE)
        names = [
            chart.GetNthPlotSeriesNode(n).GetName()
            for n in range(chart.GetNumberOfPlotSeriesNodes())
        ]
        self.assertEqual(len(names), 3)
        series = chart.GetNthPlotSeriesNode(names.index(f"nodule {DOUBLED_NOW}"))
        table = series.GetTableNode().GetTable()
        x, y = (table.GetColumnByName(one) for one in ("time", series.GetYColumnName()))
        self.assertEqual([x.GetValue(0), x.GetValue(1)], [0, 100])
        volumes = [f"{y.GetValue(row):.0f}" for row in (0, 1)]
        self.assertIn(f"volume {' → '.join(volumes)} mm³", self.ui.pairDetails.text)
        self.ui.growthPlotButton.click()
        shown = slicer.util.getNodesByClass("vtkMRMLPlotViewNode")
        self.assertIn(chart.GetID(), [one.GetPlotChartNodeID() for one in shown])

    def check_risk(self) -> None:
        """Growth is in the Lung-RADS category."""
        self.ui.riskSection.collapsed = False
        self.widget.risk.choose(DOUBLED_NOW)
        status = self.ui.noduleFacts.findChild(qt.QWidget, "fact_status")
        self.assertEqual(status.itemText(0), "growing (measured)")
        self.assertEqual(self.widget.risk.shown.rows[0].value, "4B")
        self.widget.risk.choose(NEW_NOW)
        self.assertEqual(status.itemText(0), "new (measured)")
        self.ui.riskSection.collapsed = True

    def check_views(self) -> None:
        self.ui.followUpSideBySideBox.click()
        process_events()
        red = slicer.mrmlScene.GetNodeByID(RED)
        before = red.GetFieldOfView(), self.centre(RED)[:2]
        self.ui.pairTable.cellClicked.emit(DOUBLED_NOW - 1, 0)
        process_events()
        self.assertTrue(self.ui.followUpSideBySideBox.checked)
        self.assertEqual(slicer.app.layoutManager().layout, LAYOUT)
        for view, results, number in (
            (RED, self.results, DOUBLED_NOW),
            (BESIDE, self.was, DOUBLED),
        ):
            one = next(one for one in nodules_of(results.table) if one.id == number)
            for there, expected in zip(self.centre(view), (-one.x, -one.y, one.z), strict=True):
                self.assertAlmostEqual(there, expected, delta=0.1)
        growth = compare_scans(chest_of(self.was), chest_of(self.results), 100)
        (low, high), (low_there, high_there) = growth.levels
        middle = (low + high) / 2
        scroll_to(middle)
        self.assertAlmostEqual(self.centre(BESIDE)[2], (low_there + high_there) / 2, delta=0.5)
        shown = self.was.segmentation.GetDisplayNode()
        self.assertFalse(shown.IsDisplayableInView(RED))
        self.ui.followUpSideBySideBox.click()
        process_events()
        self.assertNotEqual(slicer.app.layoutManager().layout, LAYOUT)
        self.assertTrue(shown.IsDisplayableInView(RED))
        self.assertEqual((red.GetFieldOfView(), self.centre(RED)[:2]), before)

    def check_changed_nodules(self) -> None:
        self.widget.logic.review.removeNodule(self.results, DOUBLED_NOW)
        self.widget.refresh()
        self.assertIn("compare again", self.ui.growthNotes.text)
        self.widget.undo()
        self.assertEqual(self.ui.growthNotes.text, "")

        for change in (
            lambda: self.widget.logic.review.setVerdict(self.was, DOUBLED, Verdict.REJECTED),
            lambda: self.remeasure(self.was, DOUBLED),
        ):
            change()
            self.widget.refresh()
            self.assertIn("compare again", self.ui.growthNotes.text)
            risk = self.widget.logic.risk.evaluate(self.results)
            self.assertIn("compare again", " ".join(risk.notes))
            self.assertIsNone(risk.of(DOUBLED_NOW).nodule.status)
            self.assertEqual(risk.of(STEADY_NOW).nodule.status, "stable")
            self.widget.undo()
            self.assertEqual(self.ui.growthNotes.text, "")

    def remeasure(self, results: Any, number: int) -> None:
        """Measure a nodule of which a reader erased a slice."""
        node, one = results.segmentation, segment_id(number)
        array = slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, one)
        value = node.GetSegmentation().GetSegment(one).GetLabelValue()
        before = array.copy()
        half = array[np.flatnonzero((array == value).any(axis=(1, 2)))[0]]
        half[half == value] = 0
        self.assertTrue((before != array).any())
        self.assertEqual(self.widget.logic.review.remeasure(results), (number,))
        array[...] = before

    def check_undo(self) -> None:
        self.ui.removeGrowthButton.click()
        process_events()
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.without_views(), self.nodes)

    def without_views(self) -> set[str]:
        """The nodes that were there before, and those that are there now but belong to no view."""
        ours = ("TableNode", "PlotChartNode", "PlotSeriesNode", "SegmentationNode")
        kinds = {one for one in self.node_ids() if any(kind in one for kind in ours)}
        return (self.nodes & self.node_ids()) | kinds

    def test_undo_takes_it_back_and_the_interval_is_shown(self) -> None:
        self.ui.intervalBox.value = 200
        self.compare()
        doubling = float(self.rows()[DOUBLED_NOW - 1][DOUBLING])
        self.assertAlmostEqual(doubling, 200, delta=60)
        self.widget.logic.review.setVerdict(self.results, DOUBLED_NOW, Verdict.REJECTED)
        self.widget.refresh()
        self.assertIn("compare again", self.ui.growthNotes.text)
        self.ui.undoButton.click()
        self.ui.undoButton.click()
        process_events()
        self.assertEqual(self.without_views(), self.nodes)
        self.assertEqual(self.rows(), [])


class TestWithoutDates(FollowUpTest):
    dates = ("", "")

    def test_no_doubling_time_without_an_interval_which_is_said(self) -> None:
        self.compare()
        self.assertEqual({row[DOUBLING] for row in self.rows()}, {""})
        self.assertIn("enter the days between the scans", self.ui.growthNotes.text)

    def test_an_interval_counts_for_the_pair_that_it_was_entered_for(self) -> None:
        self.ui.intervalBox.value = 200
        leave_panel()
        open_panel("LungNoduleSeg")
        process_events()
        self.assertEqual(self.ui.intervalBox.value, 200)
        self.ui.priorSelector.setCurrentNode(add_scan("another", dated_results()[0][1]))
        process_events()
        self.assertEqual(self.ui.intervalBox.value, 0)
        self.assertEqual(self.widget.binding.parameters.intervalDays, 0)


class TestObstacles(FollowUpTest):
    with_prior = False

    def test_what_is_missing_is_said_and_what_to_do(self) -> None:
        self.assertIn(
            "before has no results yet. Compare will find its nodules first",
            self.ui.priorLabel.text,
        )
        self.assertTrue(self.bar.button.enabled)
        self.ui.priorSelector.setCurrentNode(self.volume)
        process_events()
        self.assertIn("same as the current one", self.bar.button.toolTip)
        self.ui.priorSelector.setCurrentNode(None)
        process_events()
        self.assertIn("Choose a prior scan", self.bar.button.toolTip)
        self.widget.logic.importResults(dated_results()[0][0], self.prior)
        self.ui.priorSelector.setCurrentNode(self.prior)
        self.widget.chooseVolume(self.prior)
        self.ui.priorSelector.setCurrentNode(self.volume)
        process_events()
        self.assertEqual(self.rows(), [])

    def test_the_current_scan_needs_nodules_first(self) -> None:
        self.widget.chooseVolume(self.prior)
        self.ui.priorSelector.setCurrentNode(self.volume)
        process_events()
        self.assertIn("Find the nodules of before first", self.bar.button.toolTip)
        self.assertFalse(self.bar.button.enabled)

    def test_a_model_that_is_gone_is_named_and_other_sections_go_on(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for file in DEFAULT_MODEL.parent.glob(f"{DEFAULT_MODEL.stem}*"):
                shutil.copy(file, folder)
            self.widget.model.choose(Path(folder, DEFAULT_MODEL.name))
        self.widget.refresh()
        self.assertIn(folder, self.ui.priorLabel.text)
        self.assertIn(folder, self.ui.costLabel.text)
        self.assertTrue(self.ui.reportButton.enabled)
        broken = InputError("broken")
        with patch.object(self.section, "set_results", side_effect=broken):
            self.widget.refresh()
        self.assertTrue(self.ui.reportButton.enabled)

    def test_a_section_that_fails_leaves_no_other_stale_and_comes_next_time(self) -> None:
        self.assertTrue(self.ui.reportButton.enabled)
        with (
            patch.object(self.section, "set_results", side_effect=RuntimeError("a bug")),
            self.assertLogs(level="ERROR") as logged,
        ):
            self.widget.chooseVolume(self.prior)
        self.assertIn("a bug", logged.output[0])
        self.assertFalse(self.ui.reportButton.enabled)
        self.assertNotIn("Find the nodules of before", self.ui.priorLabel.text)
        self.ui.priorSelector.setCurrentNode(self.volume)
        process_events()
        self.assertIn("Find the nodules of before", self.ui.priorLabel.text)

    def test_cancelled_it_leaves_no_child_and_no_node(self) -> None:
        self.bar.button.click()
        wait_until(lambda: bool(self.children()))
        self.bar.button.click()
        wait_until(lambda: not self.bar.runner.busy)
        self.assertEqual((self.children(), self.node_ids()), (set(), self.nodes))


class TestScene(FollowUpTest):
    def test_a_scene_opens_with_the_volumes_that_were_chosen(self) -> None:
        """Though the prior scan is the first volume of the file."""
        file = scene_file(self)
        for shown in (True, False):
            with self.subTest(shown=shown):
                self.assertTrue(slicer.mrmlScene.WriteToMRB(file))
                slicer.mrmlScene.Clear()
                process_events()
                if not shown:
                    leave_panel()
                self.assertTrue(slicer.mrmlScene.ReadFromMRB(file))
                process_events()
                panel = open_panel("LungNoduleSeg")
                chosen = panel.ui.volumeSelector, panel.ui.priorSelector
                names = [one.currentNode().GetName() for one in chosen]
                self.assertEqual(names, ["now", "before"])

    def test_a_scene_opens_side_by_side_and_every_section_shows_it(self) -> None:
        self.ui.followUpSideBySideBox.click()
        process_events()
        file = scene_file(self)
        self.assertTrue(slicer.mrmlScene.WriteToMRB(file))
        for clear in (False, True):
            with self.subTest(clear=clear):
                reopen(file, clear)
                self.assertEqual(slicer.app.layoutManager().layout, LAYOUT)
                beside = slicer.app.layoutManager().sliceWidget(BESIDE_NAME).sliceLogic()
                shown = beside.GetSliceCompositeNode().GetBackgroundVolumeID()
                self.assertEqual(shown, self.ui.priorSelector.currentNode().GetID())
                self.assertTrue(self.ui.reportButton.enabled)
                self.assertGreater(self.ui.noduleTable.rowCount, 0)
                for section in (self.widget.training, self.widget.batch):
                    self.assertIsNotNone(section._parameters.values)

    def test_a_hidden_panel_leaves_the_choice_alone(self) -> None:
        leave_panel()
        slicer.mrmlScene.RemoveNode(self.volume)
        process_events()
        node = slicer.mrmlScene.GetSingletonNode("LungNoduleSeg", "vtkMRMLScriptedModuleNode")
        self.assertIsNone(node.GetNodeReference("volume"))

    def start(self) -> None:
        self.bar.button.click()
        wait_until(lambda: bool(self.children()))

    def test_scene_closed_during_a_comparison(self) -> None:
        self.ui.followUpSideBySideBox.click()
        process_events()
        self.assertEqual(slicer.app.layoutManager().layout, LAYOUT)
        self.start()
        slicer.mrmlScene.Clear()
        process_events()
        self.assertFalse(self.bar.runner.busy)
        self.assertEqual(self.children(), set())
        self.assertEqual(self.rows(), [])
        self.assertNotEqual(slicer.app.layoutManager().layout, LAYOUT)

    def test_the_prior_scan_is_deleted(self) -> None:
        self.ui.followUpSideBySideBox.click()
        process_events()
        slicer.mrmlScene.RemoveNode(self.prior)
        process_events()
        self.assertNotEqual(slicer.app.layoutManager().layout, LAYOUT)
        self.assertFalse(self.bar.button.enabled)

    def test_results_deleted_during_a_comparison(self) -> None:
        self.start()
        slicer.mrmlScene.RemoveNode(self.results.table)
        with self.assertLogs(level="ERROR") as shown:
            wait_until(lambda: not self.bar.runner.busy, 300)
        self.assertIn("was deleted during the comparison", shown.output[0])

    def test_another_module_is_shown_during_a_comparison(self) -> None:
        self.start()
        leave_panel()
        wait_until(lambda: not self.bar.runner.busy, 300)
        self.assertEqual(self.rows(), [])
        open_panel("LungNoduleSeg")
        process_events()
        self.assertEqual(len(self.rows()), 5)

    def test_every_control_has_a_tool_tip(self) -> None:
        kinds = (qt.QAbstractButton, qt.QComboBox, qt.QSpinBox, qt.QTableWidget)
        for name, widget in vars(self.ui).items():
            if widget in self.ui.followUpSection.findChildren(qt.QWidget) and isinstance(
                widget, kinds
            ):
                self.assertTrue(widget.toolTip or name.startswith("qt_"), name)


if __name__ == "__main__":
    unittest.main()
