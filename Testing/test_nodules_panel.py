"""The section Nodules of the panel LungNoduleSeg, in Slicer or on its stand-in."""

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest.mock import patch

import slicer_host

slicer = slicer_host.start()

import numpy as np
import qt

from CTLungScreeningLib.hu import LUNG_WINDOW
from CTLungScreeningSlicer.panel.slice_views import is_in_view
from LungNoduleSegLib.nodules.table import Verdict, most_suspicious
from LungNoduleSegLib.results.segments import LUNG_STYLES
from LungNoduleSegSlicer.panel.nodule_table import NoduleTable
from LungNoduleSegSlicer.scene.nodule_segments import read_voxels, segment_id
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes
from nodule_panel import (
    ID,
    KIND,
    PROBABILITY,
    SIZE,
    VERDICT,
    NodulesTest,
    PanelTest,
    ScanTest,
    add_phantom,
    phantom_results,
)
from panel_host import PICTURES, docked, leave_panel
from slicer_host.actions import place_point, press, process_events, save_picture, wait_until


class TestWithoutResults(ScanTest):
    def test_the_section_says_so_and_offers_nothing(self) -> None:
        self.assertIn("No results for air yet. Press Apply first.", self.ui.nodulesLabel.text)
        self.assertFalse(self.ui.nodulesBox.visible)
        self.assertFalse(self.widget.nodules.keys.enabled)


class TestWithoutAScan(PanelTest):
    def test_the_section_asks_for_one(self) -> None:
        self.assertEqual(self.ui.nodulesLabel.text, "Choose a chest CT first.")
        self.assertFalse(self.ui.nodulesBox.visible)


class TestTable(NodulesTest):
    def test_rows_hold_the_measures_the_most_probable_first(self) -> None:
        self.section.table.sort_by(ID)
        self.section.table.sort_by(PROBABILITY)
        found = [one.nodule for one in self.logic.review.nodules(self.results)]
        self.assertGreater(len(found), 3)
        by_probability = sorted(found, key=lambda one: (-(one.probability or 0), one.id))
        self.assertEqual(self.numbers(), [one.id for one in by_probability])
        for row, one in enumerate(by_probability):
            texts = [self.ui.noduleTable.item(row, n).text() for n in range(5)]
            probability = f"{one.probability:.2f}"
            self.assertEqual(
                texts, [str(one.id), f"{one.diameter_mm:.1f} mm", one.kind, probability, ""]
            )
        self.assertEqual(self.ui.nodulesLabel.text, f"{len(found)} nodules")
        fresh = NoduleTable(qt.QTableWidget())
        fresh.show(self.logic.review.nodules(self.results), {})
        fresh.step(1)
        assert fresh.selected is not None
        self.assertEqual(fresh.selected.nodule, by_probability[0])

    def test_a_title_sorts_by_numbers_not_by_their_digits(self) -> None:
        self.choose(3)
        self.section.table.sort_by(SIZE)
        sizes = [float(text.split()[0]) for text in self.column(SIZE)]
        self.assertEqual(sizes, sorted(sizes, reverse=True))
        self.section.table.sort_by(SIZE)
        self.assertEqual([float(text.split()[0]) for text in self.column(SIZE)], sizes[::-1])
        self.section.table.sort_by(ID)
        self.assertEqual(self.column(ID), sorted(self.column(ID), key=int))
        self.assertEqual(self.selected(), 3)

    def test_the_selected_one_is_described(self) -> None:
        self.assertEqual(self.ui.noduleDetails.text, "Select a nodule.")
        self.choose(2)
        one = self.nodule(2)
        said = f"{one.side.capitalize()} lung, slice {one.slice}, {one.diameter_mm:.1f} × "
        self.assertTrue(self.ui.noduleDetails.text.startswith(said), self.ui.noduleDetails.text)

    def test_a_verdict_changes_its_row(self) -> None:
        def look(number: int) -> tuple[bool, bool, bool]:
            item = self.ui.noduleTable.item(self.numbers().index(number), KIND)
            color, font = item.foreground().color(), item.font()
            green = color.green() > max(color.red(), color.blue())
            return green, font.strikeOut(), font.italic()

        self.assertEqual(look(2), (False, False, False))
        for verdict, seen in (
            (Verdict.ACCEPTED, (True, False, False)),
            (Verdict.REJECTED, (False, True, False)),
            (Verdict.UNCERTAIN, (False, False, True)),
        ):
            self.logic.review.setVerdict(self.results, 2, verdict)
            process_events()
            self.assertEqual(look(2), seen)
            self.assertEqual(look(1), (False, False, False))

    @unittest.skipIf(slicer_host.is_real(), "a dock of Slicer's sizes the panel")
    def test_type_probability_and_verdict_are_seen_without_scrolling(self) -> None:
        self.logic.review.setVerdict(self.results, 2, Verdict.UNCERTAIN)
        table = self.ui.noduleTable
        with docked(self.widget, 350, 900):
            right = table.columnViewportPosition(VERDICT) + table.columnWidth(VERDICT)
            widths = [table.columnWidth(column) for column in range(table.columnCount)]
            self.assertLessEqual(right, table.viewport().width, widths)
            self.assertFalse(table.horizontalScrollBar().visible)

    def test_rejected_ones_are_grey(self) -> None:
        def colors() -> dict[int, str]:
            rows = enumerate(self.numbers())
            return {
                n: self.ui.noduleTable.item(row, KIND).foreground().color().name()
                for row, n in rows
            }

        before = colors()
        self.logic.review.setVerdict(self.results, 2, Verdict.REJECTED)
        process_events()
        after = colors()
        self.assertNotEqual(after[2], before[2])
        self.assertEqual({**after, 2: ""}, {**before, 2: ""})

    def test_what_others_do_to_table_and_segments_is_shown(self) -> None:
        table = self.results.table.GetTable()
        row = self.numbers().index(1)
        table.GetColumnByName("diameter_mm").SetValue(0, 12.3)
        table.Modified()
        self.results.table.Modified()
        self.results.segmentation.GetSegmentation().GetSegment(segment_id(1)).SetColor(0, 0, 1)
        process_events()
        self.assertEqual(self.column(SIZE)[row], "12.3 mm")
        picture = self.ui.noduleTable.item(row, ID).icon().pixmap(12, 12).toImage()
        self.assertEqual(picture.pixelColor(6, 6).name(), "#0000ff")
        self.results.table.GetTable().GetColumnByName("kind").SetValue(0, "of cheese")
        self.results.table.Modified()
        process_events()
        self.assertIn("of cheese", self.ui.nodulesLabel.text)
        self.assertFalse(self.ui.nodulesBox.visible)

    def test_a_deleted_point_list_comes_back_and_what_was_done_can_be_undone(self) -> None:
        self.choose(2)
        press("A")
        process_events()
        labels = self.labels()
        slicer.mrmlScene.RemoveNode(self.results.fiducials)
        process_events()
        self.results = self.logic.resultsOf(self.volume)
        self.assertEqual(self.labels(), labels)
        self.assertIn("1 accepted", self.ui.nodulesLabel.text)
        self.ui.undoButton.click()
        process_events()
        self.assertNotIn("accepted", self.ui.nodulesLabel.text)
        other = self.logic.importResults(phantom_results(), self.volume)
        self.widget.refresh()
        self.logic.history.undo()
        process_events()
        self.assertIsNone(other.fiducials.GetScene())
        lists = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
        self.assertEqual(lists, [self.results.fiducials])

    def labels(self) -> list[str]:
        points = self.results.fiducials
        return sorted(
            points.GetNthControlPointLabel(n) for n in range(points.GetNumberOfControlPoints())
        )

    def test_results_that_are_deleted_leave_the_section(self) -> None:
        self.choose(1)
        slicer.mrmlScene.RemoveNode(self.results.table)
        process_events()
        self.assertIn("No results for phantom", self.ui.nodulesLabel.text)
        press("A")
        self.assertFalse(self.section.keys.enabled)


class TestViews(NodulesTest):
    def assert_shows(self, number: int) -> None:
        for name in ("Red", "Green", "Yellow"):
            node = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
            middle = [node.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
            np.testing.assert_allclose(middle, self.ras(number), atol=1e-6)
            size = max(80, 4 * self.nodule(number).diameter_mm)
            self.assertAlmostEqual(min(node.GetFieldOfView()[:2]), size, places=3)

    def test_a_row_shows_its_nodule_in_all_views(self) -> None:
        camera = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode")
        camera.SetPosition(0, 500, 0)
        camera.SetFocalPoint(0, 0, 0)
        self.volume.GetDisplayNode().SetWindowLevel(400, 40)
        for number in self.numbers()[:3]:
            self.choose(number)
            self.assert_shows(number)
            ras = self.ras(number)
            np.testing.assert_allclose(camera.GetFocalPoint(), ras, atol=1e-6)
            np.testing.assert_allclose(
                np.subtract(camera.GetPosition(), ras), [0, 500, 0], atol=1e-6
            )
        display = self.volume.GetDisplayNode()
        self.assertEqual(
            (display.GetWindow(), display.GetLevel()), (LUNG_WINDOW.width, LUNG_WINDOW.level)
        )
        save_picture(self.widget.parent, PICTURES / "nodules.png")

    def test_after_a_run_the_most_suspicious_one_is_shown_in_the_lung_window(self) -> None:
        self.volume.GetDisplayNode().SetWindowLevel(400, 40)
        self.ui.riskSection.collapsed = False
        self.widget.refresh()
        self.choose(self.numbers()[-1])
        self.widget.segment.finished.emit()
        process_events()
        worst = most_suspicious(one.nodule for one in self.logic.review.nodules(self.results))
        assert worst is not None
        self.assertEqual(self.selected(), worst.id)
        self.assertTrue(self.ui.riskNodule.currentText.startswith(f"{worst.id}: "))
        self.assert_shows(worst.id)
        display = self.volume.GetDisplayNode()
        self.assertEqual(
            (display.GetWindow(), display.GetLevel()), (LUNG_WINDOW.width, LUNG_WINDOW.level)
        )

    def test_a_run_that_ends_while_another_scan_is_read_moves_nothing(self) -> None:
        other, bar, number = add_phantom(), self.widget.segment.run_bar, self.numbers()[-1]
        self.choose(number)
        with patch.object(slicer.util, "showStatusMessage") as shown:
            bar.start(self.logic.importWork(phantom_results(), other), bar._done)
            wait_until(lambda: not bar.runner.busy, 60)
            process_events()
        self.assertIn(f"The results of {other.GetName()} are ready", shown.call_args.args[0])
        self.assertTrue(is_in_view(self.volume))
        self.assertEqual(self.selected(), number)
        self.assert_shows(number)
        self.assertIsNotNone(self.logic.resultsOf(other))

    def test_nodules_are_labelled_inside_translucent_lungs(self) -> None:
        points = self.results.fiducials
        self.assertEqual(points.GetNthControlPointLabel(0), f"Nodule {self.numbers()[0]}")
        self.assertTrue(points.GetDisplayNode().GetOccludedVisibility())
        display = self.results.segmentation.GetDisplayNode()
        for style in LUNG_STYLES.values():
            self.assertTrue(display.GetSegmentVisibility(style.id))
            self.assertLess(display.GetSegmentOpacity3D(style.id), 0.5)
        self.assertEqual(display.GetSegmentOpacity3D(segment_id(1)), 1)

    def test_views_of_another_volume_stay_unless_all_are(self) -> None:
        other = slicer.util.addVolumeFromArray(np.zeros((9, 9, 9), np.int16), name="other")
        red = slicer.app.layoutManager().sliceWidget("Red").sliceLogic()
        red.GetSliceCompositeNode().SetBackgroundVolumeID(other.GetID())
        before = red.GetSliceNode().GetSliceToRAS().GetElement(0, 3)
        self.choose(1)
        self.assertEqual(red.GetSliceNode().GetSliceToRAS().GetElement(0, 3), before)
        slicer.util.setSliceViewerLayers(background=other)
        self.choose(2)
        self.assertEqual(red.GetSliceCompositeNode().GetBackgroundVolumeID(), self.volume.GetID())
        self.assert_shows(2)

    def test_keys_go_round_in_the_order_shown(self) -> None:
        self.section.table.sort_by(SIZE)
        order = self.numbers()
        for expected in (*order, order[0]):
            press("N")
            self.assertEqual(self.selected(), expected)
            self.assert_shows(expected)
        press("P")
        self.assertEqual(self.selected(), order[-1])
        self.click(self.ui.previousNoduleButton)
        self.assertEqual(self.selected(), order[-2])
        self.click(self.ui.nextNoduleButton)
        self.assertEqual(self.selected(), order[-1])

    def test_keys_live_only_while_the_section_is_shown(self) -> None:
        self.ui.nodulesSection.collapsed = True
        press("N")
        self.assertIsNone(self.selected())
        self.ui.nodulesSection.collapsed = False
        press("N")
        self.assertIsNotNone(self.selected())
        leave_panel()
        press("X")
        self.assertEqual({one.verdict for one in self.logic.review.nodules(self.results)}, {None})


class TestVerdicts(NodulesTest):
    def test_a_key_judges_nothing_while_the_views_show_another_volume(self) -> None:
        self.choose(2)
        other = slicer.util.addVolumeFromArray(np.zeros((9, 9, 9), np.int16), name="other")
        slicer.util.setSliceViewerLayers(background=other)
        for key in ("A", "X", "U"):
            press(key)
            process_events()
            self.assertIsNone(self.verdict(2))
            message = slicer.util.mainWindow().statusBar().currentMessage()
            self.assertIn("No view shows phantom", message)
        red = slicer.app.layoutManager().sliceWidget("Red").sliceLogic()
        red.GetSliceCompositeNode().SetBackgroundVolumeID(self.volume.GetID())
        press("A")
        process_events()
        self.assertIs(self.verdict(2), Verdict.ACCEPTED)

    def test_by_key_and_button_and_taken_back(self) -> None:
        press("A")  # none is selected
        self.choose(2)
        for key, button, verdict in (
            ("A", self.ui.acceptButton, Verdict.ACCEPTED),
            ("X", self.ui.rejectButton, Verdict.REJECTED),
            ("U", self.ui.uncertainButton, Verdict.UNCERTAIN),
        ):
            press(key)
            process_events()
            self.assertIs(self.verdict(2), verdict)
            self.assertTrue(button.checked)
            self.assertEqual(self.column(VERDICT)[self.numbers().index(2)][2:], verdict)
            self.click(button)
            self.assertIsNone(self.verdict(2))
            self.assertFalse(button.checked)
            self.click(button)
            self.assertIs(self.verdict(2), verdict)
        self.assertEqual(self.selected(), 2)
        self.assertIn("1 uncertain", self.ui.nodulesLabel.text)

    def test_undone_while_another_scan_is_shown_it_is_said(self) -> None:
        self.choose(2)
        press("A")
        process_events()
        other = slicer.util.addVolumeFromArray(np.full((4, 8, 8), -1000, np.int16), name="other")
        self.widget.chooseVolume(other)
        process_events()
        self.assertIn("accept nodule 2 of phantom", self.ui.undoButton.toolTip)
        with patch.object(slicer.util, "showStatusMessage") as shown:
            self.click(self.ui.undoButton)
        self.assertEqual(shown.call_args.args[0], "Undone: accept nodule 2 of phantom.")
        self.assertIsNone(self.verdict(2))

    def test_they_survive_saving_and_loading_the_scene(self) -> None:
        self.choose(1)
        press("A")
        self.choose(3)
        press("X")
        self.section.threshold.stop()
        with tempfile.TemporaryDirectory() as folder:
            self.logic.saveScene(Path(folder) / "scene.saving")
            slicer.mrmlScene.Clear()
            process_events()
            self.assertEqual(self.ui.nodulesLabel.text, "Choose a chest CT first.")
            self.assertTrue(slicer.mrmlScene.ReadFromMRB(str(Path(folder) / "scene.saving")))
        process_events()
        verdicts = dict(zip(self.numbers(), self.column(VERDICT), strict=True))
        self.assertEqual((verdicts[1], verdicts[2], verdicts[3]), ("✓ accepted", "", "✗ rejected"))


class TestThreshold(NodulesTest):
    def rows(self) -> set[tuple[str, ...]]:
        columns = [self.column(number) for number in range(5)]
        return set(zip(*columns, strict=True))

    def slide(self, *values: float) -> None:
        for value in values:
            self.ui.thresholdSlider.value = value
        process_events()
        wait_until(lambda: not self.section.runner.busy, 60)

    def test_nodules_follow_the_slider_and_undo_brings_it_back(self) -> None:
        before = self.rows()
        self.assertAlmostEqual(
            self.ui.thresholdSlider.value, self.logic.review.threshold(self.results)
        )
        changes: list[bool] = []
        self.section.changed.connect(lambda: changes.append(True))
        self.slide(0.9, 0.95, 0.995)
        self.assertEqual(self.logic.review.threshold(self.results), 0.995)
        after = self.rows()
        self.assertNotEqual(after, before)
        expected = {str(one.nodule.id) for one in self.logic.review.nodules(self.results)}
        self.assertEqual(set(self.column(ID)), expected)
        self.assertFalse(changes)  # the other sections, before it rests
        wait_until(lambda: bool(changes))
        self.assertIn("Undo: change the threshold", self.ui.undoButton.toolTip)
        self.click(self.ui.undoButton)
        self.assertEqual(self.rows(), before)
        self.assertAlmostEqual(self.ui.thresholdSlider.value, 0.5)

    def test_only_the_last_place_is_taken_where_events_queue_up(self) -> None:
        taken: list[float] = []
        follow = self.logic.review.thresholdWork

        def note(results: ResultNodes, value: float) -> Any:
            taken.append(value)
            return follow(results, value)

        self.logic.review.thresholdWork = note
        try:
            self.slide(0.6, 0.7, 0.8)
        finally:
            del self.logic.review.thresholdWork
        self.assertEqual(taken, [0.8])

    def test_the_window_answers_while_nodules_are_found(self) -> None:
        self.ui.thresholdSlider.value = 0.9
        process_events()
        self.assertTrue(self.section.runner.busy)
        before = self.rows()
        stages: set[str] = set()
        self.section.runner.changed.connect(lambda: stages.add(self.ui.nodulesLabel.text))
        self.choose(3)
        press("A")
        self.settle()
        self.assertIs(self.verdict(3), Verdict.ACCEPTED)
        self.assertNotEqual(self.rows(), before)
        self.assertEqual(self.logic.review.threshold(self.results), 0.9)
        self.assertTrue(any("Outlining" in one for one in stages), stages)
        self.assertNotIn("–", self.ui.nodulesLabel.text)

    def test_undo_while_nodules_are_found_leaves_them(self) -> None:
        before = self.rows()
        self.ui.thresholdSlider.value = 0.9
        process_events()
        self.assertTrue(self.section.runner.busy)
        self.widget.undo()
        self.settle()
        self.assertFalse(self.section.runner.busy)
        self.assertEqual(self.logic.review.threshold(self.results), 0.5)
        self.assertEqual(self.rows(), before)
        self.assertAlmostEqual(self.ui.thresholdSlider.value, 0.5)

    def test_the_selection_stays_with_the_place(self) -> None:
        faintest = max(self.numbers())
        self.choose(faintest)
        place, size = self.ras(faintest), self.nodule(faintest).diameter_mm
        self.logic.review.removeNodule(self.results, 1)
        self.slide(0.55)
        selected = self.selected()
        assert selected is not None
        np.testing.assert_allclose(self.ras(selected), place, atol=0.5)
        self.assertAlmostEqual(self.nodule(selected).diameter_mm, size, delta=0.5)

    def test_without_the_probability_it_says_why(self) -> None:
        slicer.mrmlScene.RemoveNode(self.results.probability)
        process_events()
        self.assertFalse(self.ui.thresholdSlider.enabled)
        self.assertTrue(self.ui.thresholdHint.visible)


class TestCorrections(NodulesTest):
    def test_a_click_adds_the_nodule_that_is_not_in_the_table(self) -> None:
        self.choose(2)
        place, voxels = self.ras(2), read_voxels(self.results.segmentation, segment_id(2))
        assert voxels is not None
        self.click(self.ui.removeNoduleButton)
        self.assertNotIn(2, self.numbers())
        self.assertIn("Undo: remove nodule 2 of phantom", self.ui.undoButton.toolTip)
        self.ui.riskSection.collapsed = False
        nodes = self.node_ids()
        self.click(self.ui.addNoduleButton)
        self.assertIn("Esc to cancel", self.ui.nodulesHint.text)
        place_point(place)
        self.settle()
        self.assertFalse(self.ui.addNoduleButton.checked)
        self.assertEqual(self.node_ids(), nodes)
        added = self.selected()
        assert added is not None
        self.assertEqual(self.column(PROBABILITY)[self.numbers().index(added)], "manual")
        wait_until(lambda: self.ui.riskNodule.currentText.startswith(f"{added}: "))
        grown = read_voxels(self.results.segmentation, segment_id(added))
        assert grown is not None
        np.testing.assert_allclose(self.ras(added), place, atol=1.5)
        self.assertAlmostEqual(grown.voxels.sum() / voxels.voxels.sum(), 1, delta=0.5)
        self.assertIn(f"Undo: add nodule {added}", self.ui.undoButton.toolTip)
        press("Ctrl+Z")
        self.assertNotIn(added, self.numbers())
        press("Ctrl+Z")
        self.assertIn(2, self.numbers())

    def test_a_click_beside_says_why_and_changes_nothing(self) -> None:
        nodes, rows = self.node_ids(), self.numbers()
        self.click(self.ui.addNoduleButton)
        with self.assertLogs(level="ERROR") as shown:
            place_point((0.0, 500.0, 0.0))
            self.settle()
        self.assertEqual(len(shown.output), 1)
        self.assertEqual((self.node_ids(), self.numbers()), (nodes, rows))

    def test_escape_another_tool_and_leaving_the_panel_cancel(self) -> None:
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        nodes = self.node_ids()
        for cancel in (
            lambda: press("Esc"),
            interaction.SwitchToViewTransformMode,
            self.ui.addNoduleButton.click,
            leave_panel,
        ):
            self.ui.addNoduleButton.click()
            self.assertEqual(interaction.GetCurrentInteractionMode(), interaction.Place)
            cancel()
            process_events()
            self.assertFalse(self.section.placing.active)
            self.assertFalse(self.ui.addNoduleButton.checked)
            self.assertEqual(interaction.GetCurrentInteractionMode(), interaction.ViewTransform)
            self.assertEqual(self.node_ids(), nodes)

    def test_the_scene_closed_while_a_click_is_waited_for(self) -> None:
        self.ui.addNoduleButton.click()
        slicer.mrmlScene.Clear()
        process_events()
        self.assertFalse(self.section.placing.active)

    def test_edited_in_the_segment_editor_it_is_measured_on_return(self) -> None:
        self.choose(1)
        before = self.nodule(1)
        self.click(self.ui.editNoduleButton)
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")
        editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        self.assertIs(editor.GetSegmentationNode(), self.results.segmentation)
        self.assertIs(editor.GetSourceVolumeNode(), self.volume)
        self.assertEqual(editor.GetSelectedSegmentID(), segment_id(1))
        self.erase(1)
        slicer.util.selectModule("LungNoduleSeg")
        self.settle()
        self.assertLess(self.nodule(1).volume_mm3, 0.8 * before.volume_mm3)
        self.assertIn("Undo: remeasure nodule 1", self.ui.undoButton.toolTip)
        self.assertFalse(self.ui.nodulesHint.visible)

    def test_what_was_edited_elsewhere_is_named_until_it_is_measured(self) -> None:
        self.assertFalse(self.ui.measureNodulesButton.enabled)
        self.erase(2)
        self.results.segmentation.GetSegmentation().RemoveSegment(segment_id(3))
        process_events()
        self.assertIn("nodule 2, 3", self.ui.nodulesHint.text)
        self.click(self.ui.measureNodulesButton)
        self.assertNotIn(3, self.numbers())
        self.assertFalse(self.ui.measureNodulesButton.enabled)
        self.click(self.ui.undoButton)
        self.assertIn(3, self.numbers())
        self.assertIn("nodule 2, 3", self.ui.nodulesHint.text)

    def test_segments_of_others_are_never_touched(self) -> None:
        segmentation = self.results.segmentation.GetSegmentation()
        theirs = "theirs"
        labels = slicer.util.arrayFromSegmentInternalBinaryLabelmap(
            self.results.segmentation, segment_id(1)
        )
        value = segmentation.GetUniqueLabelValueForSharedLabelmap(segment_id(1))
        free = np.argwhere(labels == 0)[:500]
        labels[tuple(free.T)] = value
        segment = slicer.vtkSegment()
        segment.SetName(theirs)
        segment.SetLabelValue(value)
        shared = segmentation.GetSegment(segment_id(1)).GetRepresentation("Binary labelmap")
        segment.AddRepresentation("Binary labelmap", shared)
        self.assertTrue(segmentation.AddSegment(segment, theirs))
        lungs = [one for one in segmentation.GetSegmentIDs() if one.endswith("Lung")]

        def state() -> dict[str, Any]:
            masks = {one: read_voxels(self.results.segmentation, one) for one in (theirs, *lungs)}
            return {one: (m.box, m.voxels.tobytes()) for one, m in masks.items() if m is not None}

        before = state()
        self.assertEqual(len(before), 3)
        place = self.ras(2)
        self.choose(2)
        for step in (
            lambda: press("X"),
            lambda: press("X"),
            lambda: self.click(self.ui.removeNoduleButton),
            self.ui.addNoduleButton.click,
            lambda: place_point(place),
            lambda: setattr(self.ui.thresholdSlider, "value", 0.9),
            self.section.measure_again,
        ):
            step()
            self.settle()
            self.assertEqual(state(), before)
        while self.logic.history.lastChange not in ("", "results of phantom"):
            self.click(self.ui.undoButton)
            self.assertEqual(state(), before)


if __name__ == "__main__":
    unittest.main()
