"""The section Cancer risk of the panel LungNoduleSeg, in Slicer or on its stand-in."""

import re
import tempfile
import unittest
from pathlib import Path
from typing import Any

import slicer_host

slicer = slicer_host.start()

import qt

from dated_scans import DOUBLED_NOW, STEADY_NOW, add_scan, date, dated_results
from LungNoduleSegLib.nodules.table import Verdict
from LungNoduleSegLib.options import SUSPICION_MODEL
from LungNoduleSegLib.risk.assessment import DISCLAIMER, assess_scan
from LungNoduleSegLib.risk.clinical_data import ClinicalData, parse_facts
from LungNoduleSegLib.risk.facts import LABELS, PatientFacts, Sex, Status
from LungNoduleSegLib.risk.prediction import SHOWN
from LungNoduleSegSlicer.panel.risk_results import ResultRow, in_words
from LungNoduleSegSlicer.scene.result_nodes import lungs_of, nodules_of
from nodule_panel import PanelTest
from panel_host import PICTURES, leave_panel, open_panel
from slicer_host.actions import process_events, save_picture, wait_until

LARGEST, SECOND = DOUBLED_NOW, STEADY_NOW


class RiskTest(PanelTest):
    """The section open on a scan with four nodules."""

    born, sex, day = "", "", ""

    def setUp(self) -> None:
        super().setUp()
        (_, (folder, image)) = dated_results()
        self.volume = add_scan("now", image)
        if self.day:
            date(self.volume, self.day, born=self.born, sex=self.sex)
        self.results = self.widget.logic.importResults(folder, self.volume)
        self.widget.chooseVolume(self.volume)
        self.ui.riskSection.collapsed = False
        self.widget.refresh()
        process_events()
        self.section = self.widget.risk

    def editor(self, form: Any, name: str) -> Any:
        """Give the widget of a fact."""
        place = self.ui.patientFacts if form is self.section.patient else self.ui.noduleFacts
        return place.findChild(qt.QWidget, f"fact_{name}")

    def marked(self, form: Any) -> set[str]:
        """Give the facts whose names are bold."""
        place = self.ui.patientFacts if form is self.section.patient else self.ui.noduleFacts
        bold = {one.text.lower() for one in place.findChildren(qt.QLabel) if one.font.bold()}
        return {name for name, label in LABELS.items() if label.lower() in bold}

    def choose(self, form: Any, name: str, value: Any) -> None:
        """Choose an entry of a combo box as a user does; None: the first."""
        box = self.editor(form, name)
        row = 0 if value is None else box.findText(in_words(value))
        self.assertGreaterEqual(row, 0, value)
        box.currentIndex = row
        box.activated.emit(row)
        process_events()

    def type(self, form: Any, name: str, text: str) -> None:
        field = self.editor(form, name)
        field.text = text
        field.editingFinished.emit()
        process_events()

    def enter_patient(self) -> None:
        form = self.section.patient
        self.type(form, "age", "64")
        self.choose(form, "sex", Sex.FEMALE)
        for name in ("family_history", "emphysema", "high_risk"):
            self.choose(form, name, name == "emphysema")

    def rows(self) -> dict[str, ResultRow]:
        """What the panel shows of each result, by the first word or two of its name."""
        return {row.name.split(" (")[0]: row for row in self.section.shown.rows}

    def values(self) -> dict[str, str]:
        return {name: row.value for name, row in self.rows().items()}

    def first_entry(self, form: Any, name: str) -> str:
        return str(self.editor(form, name).itemText(0))

    def expected(self, given: ClinicalData) -> Any:
        lungs = lungs_of(self.results.segmentation)
        found = assess_scan(nodules_of(self.results.table), lungs, given)
        return next(one for one in found if one.nodule.id == LARGEST)


class TestFacts(RiskTest):
    def test_what_was_measured_stands_in_the_form_and_is_marked(self) -> None:
        form, measured = self.section.nodule, self.expected(ClinicalData()).nodule
        self.assertTrue(self.ui.riskNodule.currentText.startswith(f"{LARGEST}: "))
        self.assertEqual(
            self.editor(form, "longest_mm").placeholderText, f"{measured.longest_mm:.1f} (measured)"
        )
        self.assertEqual(self.editor(form, "longest_mm").text, "")
        self.assertEqual(self.first_entry(form, "kind"), f"{measured.kind} (measured)")
        lobe = "unknown" if measured.upper_lobe is None else in_words(measured.upper_lobe)
        self.assertIn(lobe, self.first_entry(form, "upper_lobe"))
        self.assertEqual(self.first_entry(form, "spiculation"), "unknown")
        self.assertEqual(self.editor(self.section.patient, "count").placeholderText, "4 (measured)")
        self.assertEqual(self.editor(self.section.patient, "age").placeholderText, "unknown")

    def test_what_is_missing_or_would_change_a_result_is_bold(self) -> None:
        self.assertIn("in bold to complete", self.ui.riskMissing.text)
        patient, nodule = self.section.patient, self.section.nodule
        self.assertLessEqual({"age", "sex", "emphysema"}, self.marked(patient))
        self.assertLessEqual({"status", "spiculation"}, self.marked(nodule))
        self.assertNotIn("longest_mm", self.marked(nodule))
        self.assertEqual({self.values()[name] for name in ("Mayo", "PanCan 2b")}, {"–"})
        self.assertIn("Missing: age in years", self.rows()["Mayo"].tool_tip)
        self.enter_patient()
        self.choose(nodule, "spiculation", False)
        self.choose(nodule, "upper_lobe", False)
        self.assertIn("longest_mm", self.marked(nodule))

    def test_the_numbers_are_those_of_the_core(self) -> None:
        self.enter_patient()
        nodule = self.section.nodule
        self.choose(nodule, "spiculation", True)
        self.choose(nodule, "upper_lobe", True)
        self.choose(nodule, "status", Status.BASELINE)
        patient = PatientFacts(
            age=64, sex=Sex.FEMALE, family_history=False, emphysema=True, high_risk=False
        )
        own = {"spiculation": True, "upper_lobe": True}
        one = self.expected(ClinicalData(patient, {"status": Status.BASELINE}, {LARGEST: own}))
        for model in one.models:
            shown = "–" if model.probability is None else f"{100 * model.probability:.1f} %"
            self.assertEqual(self.values()[model.model.split(" (")[0]].removesuffix(" ⚠"), shown)
        self.assertGreater(one.models[1].probability or 0, 0.1)
        lung_rads, fleischner = one.guidelines[:2]
        self.assertEqual(self.values()["Lung-RADS v2022"], "4X")
        self.assertEqual(self.rows()["Lung-RADS v2022"].detail, lung_rads.management)
        category = f"{fleischner.category[0].upper()}{fleischner.category[1:]}"
        detail = f"{category}\n{fleischner.management}"
        self.assertEqual(self.rows()["Fleischner 2017"].detail, detail)
        self.assertIn("McWilliams", self.rows()["PanCan 2a"].tool_tip)
        self.assertEqual(next(iter(self.rows())), "Lung-RADS v2022")
        self.assertIn("Lung-RADS v2022: 4X", self.ui.riskNodule.currentText)
        self.assertIn("ever_smoked", self.marked(self.section.patient))
        save_picture(self.widget.parent, PICTURES / "risk.png")

    def test_a_guideline_that_does_not_apply_says_so(self) -> None:
        self.enter_patient()
        self.choose(self.section.patient, "screening", True)
        self.choose(self.section.nodule, "status", Status.BASELINE)
        self.assertIn("low risk ⚠", self.rows()["Fleischner 2017"].detail)
        (line,) = [row.detail for row in self.section.shown.rows if not row.name]
        said = "Fleischner 2017: The guideline does not apply to screening CT; Lung-RADS does."
        self.assertIn(said, line)
        self.assertNotIn("Assumed absent", line)
        self.assertIn("Assumed absent", self.rows()["Lung-RADS v2022"].tool_tip)

    def test_the_category_of_a_first_ct_is_shown_until_it_is_known(self) -> None:
        self.assertIsNone(self.expected(ClinicalData()).nodule.status)
        row = self.rows()["Lung-RADS v2022"]
        self.assertEqual((row.value, row.detail), ("", "4B if this is the first CT"))
        self.assertIn("Missing: change since the previous CT", row.tool_tip)

    def test_an_entered_value_can_be_undone(self) -> None:
        form = self.section.nodule
        before = self.values()
        self.enter_patient()
        self.type(form, "longest_mm", "30,5")
        self.assertEqual(self.editor(form, "longest_mm").text, "30.5")
        longer = self.values()["PanCan 2a"]
        self.type(form, "longest_mm", "")
        self.assertNotEqual(self.values()["PanCan 2a"], longer)
        self.choose(self.section.patient, "sex", None)
        self.assertEqual(self.values()["PanCan 2a"], before["PanCan 2a"])

    def test_what_is_not_possible_is_said_and_not_taken(self) -> None:
        for name, text, said in (
            (
                "longest_mm",
                "long",
                "“long” is not a number. Enter a number for longest diameter in mm",
            ),
            ("longest_mm", "-3", "enter a length above 0 mm"),
            ("longest_mm", "2", "exceeds the longest diameter"),
            ("solid_component_mm", "nan", "enter a length above 0 mm"),
        ):
            self.type(self.section.nodule, name, text)
            self.assertIn(said, self.ui.factProblem.text)
            self.assertIsNone(self.volume.GetAttribute("CTLungScreening.facts"))
        self.type(self.section.patient, "age", "640")
        self.assertIn("age of 640", self.ui.factProblem.text)
        self.type(self.section.patient, "count", "2.5")
        self.assertIn("Enter a number for number of non-calcified", self.ui.factProblem.text)
        self.type(self.section.patient, "age", "64")
        self.assertEqual(self.ui.factProblem.text, "")

    def test_the_first_scan_is_entered_once_for_all_nodules(self) -> None:
        self.choose(self.section.nodule, "status", Status.BASELINE)
        entries = [self.ui.riskNodule.itemText(row) for row in range(self.ui.riskNodule.count)]
        self.assertEqual(len(entries), 4)
        self.assertTrue(all("Lung-RADS" in one for one in entries), entries)
        self.section.choose(SECOND)
        self.assertEqual(self.editor(self.section.nodule, "status").currentText, "baseline")
        self.choose(self.section.nodule, "status", Status.NEW)
        self.section.choose(LARGEST)
        self.assertEqual(self.editor(self.section.nodule, "status").currentIndex, 0)

    def test_facts_of_one_nodule_are_none_of_another(self) -> None:
        self.choose(self.section.nodule, "spiculation", True)
        self.ui.riskNodule.currentIndex = 1
        self.ui.riskNodule.activated.emit(1)
        self.assertEqual(self.editor(self.section.nodule, "spiculation").currentIndex, 0)
        self.section.choose(LARGEST)
        self.assertEqual(self.editor(self.section.nodule, "spiculation").currentText, "yes")

    def test_a_corrected_size_takes_the_measured_volume_out_of_the_form(self) -> None:
        self.type(self.section.nodule, "longest_mm", "24")
        volume = self.editor(self.section.nodule, "volume_mm3")
        self.assertEqual(volume.placeholderText, "unknown")
        self.assertIn(LABELS["volume_mm3"], self.rows()["NELSON"].tool_tip)
        self.type(self.section.nodule, "volume_mm3", "14137.25")
        self.assertEqual(self.values()["NELSON"], "NODCAT 4")
        self.assertEqual(volume.text, "14137.25")
        self.assertEqual(in_words(14137.25, "volume_mm3"), "14137")
        self.ui.clearFactsButton.click()
        self.assertIn("(measured)", volume.placeholderText)

    def test_a_rejected_nodule_has_no_risk_and_counts_no_more(self) -> None:
        self.choose(self.section.nodule, "spiculation", True)
        self.widget.logic.review.setVerdict(self.results, LARGEST, Verdict.REJECTED)
        self.widget.refresh()
        self.assertEqual(self.ui.riskNodule.count, 3)
        self.assertEqual(self.editor(self.section.patient, "count").placeholderText, "3 (measured)")
        self.choose(self.section.nodule, "spiculation", False)
        self.widget.logic.review.setVerdict(self.results, LARGEST, None)
        self.widget.refresh()
        self.section.choose(LARGEST)
        self.assertEqual(self.editor(self.section.nodule, "spiculation").currentText, "yes")

    def test_undo_and_forget(self) -> None:
        self.enter_patient()
        self.choose(self.section.nodule, "spiculation", True)
        self.ui.undoButton.click()
        self.assertEqual(self.editor(self.section.nodule, "spiculation").currentIndex, 0)
        self.ui.clearFactsButton.click()
        self.assertEqual(self.editor(self.section.patient, "age").text, "")
        self.assertIsNone(self.volume.GetAttribute("CTLungScreening.facts"))
        self.ui.undoButton.click()
        self.assertEqual(self.editor(self.section.patient, "age").text, "64")

    def test_copied_text_has_all_nodules_and_all_facts(self) -> None:
        self.enter_patient()
        self.ui.copyRiskButton.click()
        text = qt.QApplication.clipboard().text()
        self.assertEqual(re.findall(r"^Nodule (\d)", text, re.MULTILINE)[0], str(LARGEST))
        self.assertEqual(len(re.findall(r"^Nodule \d", text, re.MULTILINE)), 4)
        self.assertIn("age in years: 64 (given)", text)
        self.assertIn(self.values()["PanCan 2a"].removesuffix(" ⚠"), text)
        self.assertIn(DISCLAIMER, text)

    def test_the_report_written_from_the_panel_has_the_facts(self) -> None:
        self.enter_patient()
        self.choose(self.section.nodule, "spiculation", True)
        self.ui.openReportBox.checked = False
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "report.html"
            self.widget.output.save_report(file)
            wait_until(lambda: not self.widget.output.run_bar.runner.busy, 120)
            text = re.sub(r"<[^>]+>|\s+", " ", file.read_text(encoding="utf-8"))
        text = re.sub(" +", " ", text)
        self.assertIn("Age in years 64", text)
        self.assertIn("Spiculation yes (given)", text)
        self.assertIn(
            f"{self.values()['PanCan 2b'].removesuffix(' ⚠')} probability of cancer", text
        )

    def test_facts_that_no_more_go_with_the_nodule_can_be_forgotten(self) -> None:
        self.type(self.section.nodule, "perpendicular_mm", "15.5")
        table = self.results.table.GetTable()
        ids = table.GetColumnByName("id")
        row = next(n for n in range(table.GetNumberOfRows()) if ids.GetValue(n) == LARGEST)
        table.GetColumnByName("diameter_mm").SetValue(row, 14.5)
        self.widget.refresh()
        self.assertIn("exceeds the longest diameter", self.ui.riskProblem.text)
        self.assertTrue(self.ui.riskProblem.text.startswith(f"Nodule {LARGEST}: "))
        self.ui.clearFactsButton.click()
        self.assertEqual(self.ui.riskProblem.text, "")
        self.assertEqual(self.ui.riskNodule.count, 4)

    def test_a_size_that_no_more_goes_with_the_nodule_can_be_corrected(self) -> None:
        self.enter_patient()
        self.type(self.section.nodule, "perpendicular_mm", "15.5")
        self.section.choose(SECOND)
        self.choose(self.section.nodule, "spiculation", True)
        table = self.results.table.GetTable()
        ids = table.GetColumnByName("id")
        row = next(n for n in range(table.GetNumberOfRows()) if ids.GetValue(n) == LARGEST)
        table.GetColumnByName("diameter_mm").SetValue(row, 14.5)
        self.widget.refresh()
        self.assertEqual(self.ui.riskNodule.currentText, str(LARGEST))
        self.assertEqual(self.editor(self.section.nodule, "perpendicular_mm").text, "15.5")
        self.assertEqual(
            self.editor(self.section.nodule, "longest_mm").placeholderText, "14.5 (measured)"
        )
        self.assertEqual(self.editor(self.section.patient, "age").text, "64")
        self.assertTrue(self.ui.noduleFacts.enabled)
        self.type(self.section.patient, "age", "65")
        self.assertEqual(self.ui.factProblem.text, "")
        self.type(self.section.nodule, "perpendicular_mm", "14.7")
        self.assertIn("exceeds", self.ui.factProblem.text)
        self.type(self.section.nodule, "perpendicular_mm", "14.2")
        self.assertEqual(self.ui.riskProblem.text, "")
        self.assertEqual(self.ui.riskNodule.count, 4)
        self.assertTrue(self.ui.riskNodule.currentText.startswith(f"{LARGEST}: "))
        entered = self.widget.logic.risk.enteredFacts(self.results)
        self.assertEqual(entered.patient.age, 65)
        self.assertEqual(
            entered.nodules, {LARGEST: {"perpendicular_mm": 14.2}, SECOND: {"spiculation": True}}
        )

    def test_the_form_follows_its_nodule_to_another_number(self) -> None:
        """As a threshold gives it one."""
        self.section.choose(SECOND)
        table = self.results.table.GetTable()
        ids = table.GetColumnByName("id")
        numbers = {SECOND: 7, LARGEST: SECOND}
        for row in range(table.GetNumberOfRows()):
            ids.SetValue(row, numbers.get(ids.GetValue(row), ids.GetValue(row)))
        self.widget.refresh()
        self.assertTrue(self.ui.riskNodule.currentText.startswith("7: "))
        self.choose(self.section.nodule, "spiculation", True)
        entered = self.widget.logic.risk.enteredFacts(self.results)
        self.assertEqual(entered.nodules, {7: {"spiculation": True}})

    def test_facts_are_those_of_a_file(self) -> None:
        self.enter_patient()
        self.choose(self.section.nodule, "spiculation", True)
        facts = self.widget.logic.risk.facts(self.results)
        self.assertEqual(parse_facts(facts.to_dict(), "here"), facts)
        self.assertEqual(facts.nodules, {LARGEST: {"spiculation": True}})


class TestHeader(RiskTest):
    """A scan from DICOM."""

    born, sex, day = "19600812", "F", "20240811"

    def test_age_and_sex_come_from_the_header_and_can_be_corrected(self) -> None:
        self.assertEqual(self.editor(self.section.patient, "age").placeholderText, "63 (DICOM)")
        self.assertEqual(self.first_entry(self.section.patient, "sex"), "female (DICOM)")
        self.assertNotIn("age in years", self.rows()["Mayo"].tool_tip)
        self.type(self.section.patient, "age", "60")
        self.assertEqual(self.widget.logic.risk.facts(self.results).patient.age, 60)
        self.assertEqual(self.widget.logic.risk.facts(self.results).patient.sex, Sex.FEMALE)


class TestScene(RiskTest):
    def test_facts_are_saved_with_the_scene(self) -> None:
        self.enter_patient()
        self.choose(self.section.nodule, "spiculation", True)
        before = self.values()
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "scene.saving")
            self.assertTrue(slicer.mrmlScene.WriteToMRB(file))
            slicer.mrmlScene.Clear()
            process_events()
            self.assertEqual(self.section.shown.rows, ())
            self.assertEqual(self.ui.riskProblem.text, "Find the nodules first: press Apply.")
            self.assertTrue(slicer.mrmlScene.ReadFromMRB(file))
        process_events()
        self.assertEqual(self.editor(self.section.patient, "age").text, "64")
        self.assertEqual(self.editor(self.section.nodule, "spiculation").currentText, "yes")
        self.assertEqual(self.values(), before)

    def test_a_nodule_elsewhere_with_the_same_number_is_another(self) -> None:
        self.choose(self.section.nodule, "spiculation", True)
        table = self.results.table.GetTable()
        ids = table.GetColumnByName("id")
        row = next(n for n in range(table.GetNumberOfRows()) if ids.GetValue(n) == LARGEST)
        table.GetColumnByName("z").SetValue(row, 900)
        self.widget.refresh()
        self.assertEqual(self.editor(self.section.nodule, "spiculation").currentIndex, 0)

    def test_volume_removed_and_scene_closed(self) -> None:
        self.enter_patient()
        slicer.mrmlScene.RemoveNode(self.volume)
        process_events()
        self.assertEqual(self.section.shown.rows, ())
        self.assertFalse(self.ui.copyRiskButton.enabled)
        slicer.mrmlScene.Clear()
        process_events()
        self.type(self.section.patient, "age", "50")
        self.assertEqual(self.section.shown.rows, ())

    def test_another_module_and_back(self) -> None:
        self.enter_patient()
        before = self.values()
        leave_panel()
        self.assertEqual(self.section.shown.rows, ())
        open_panel("LungNoduleSeg")
        self.assertEqual(self.values(), before)

    def test_every_control_has_a_tool_tip(self) -> None:
        inside = self.ui.riskSection.findChildren(qt.QWidget)
        kinds = (qt.QAbstractButton, qt.QComboBox, qt.QLineEdit, qt.QTableWidget)
        bare = [
            one.objectName
            for one in inside
            if isinstance(one, kinds)
            and not one.toolTip
            and not one.objectName.startswith("qt_")
            and type(one.parent()) is not qt.QTableWidget
        ]
        self.assertEqual(bare, [])


class TestModel(RiskTest):
    """A classifier trained on artificial patients."""

    def setUp(self) -> None:
        super().setUp()
        from LungNoduleSegLib.risk.training import train_risk
        from risk_tables import cohort, write

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        features, labels = cohort()
        feature_table, label_table = [
            write(self.folder / f"{name}.csv", rows)
            for name, rows in (("features", features), ("labels", labels))
        ]
        train_risk(feature_table, label_table, self.folder / "models")

    def test_a_trained_model_is_asked_and_what_moved_it_is_shown(self) -> None:
        self.assertEqual(self.section.model.file, SUSPICION_MODEL)
        nodes = self.node_ids()
        self.section.model.choose(self.folder / "models" / "xgboost.ubj")
        self.assertTrue(self.ui.predictRiskButton.enabled)
        self.ui.predictRiskButton.click()
        process_events()
        prediction, doubts = self.widget.logic.classifier.prediction(self.results)
        self.assertEqual(doubts, [])
        assert prediction is not None
        self.assertIn(f"{100 * prediction.probability:.1f} %", self.ui.predictionLabel.text)
        table = self.ui.contributionTable
        self.assertEqual(table.rowCount, SHOWN)
        self.assertEqual(self.values()["Trained model"], f"{100 * prediction.probability:.1f} %")
        first = prediction.contributions[0]
        self.assertEqual(table.item(0, 0).text(), first.feature)
        self.assertEqual(table.item(0, 2).text(), f"{first.log_odds:+.3f}")
        bar = table.item(0, 3).data(qt.Qt.DecorationRole).toImage()
        side = bar.width() * (3 if first.log_odds > 0 else 1) // 4
        self.assertGreater(qt.QColor(bar.pixel(side, 6)).red() + bar.pixelColor(side, 6).blue(), 0)
        self.ui.copyRiskButton.click()
        self.assertIn("Trained model", qt.QApplication.clipboard().text())
        save_picture(self.widget.parent, PICTURES / "risk-model.png")
        self.widget.logic.review.removeNodule(self.results, SECOND)
        self.widget.refresh()
        self.assertIn("Press Predict again", self.ui.riskNotes.text)
        self.assertEqual(self.ui.contributionTable.visible, False)
        self.ui.undoButton.click()
        self.assertEqual(self.ui.riskNotes.text, "")
        self.ui.undoButton.click()
        process_events()
        self.assertEqual(self.node_ids(), nodes)
        self.assertEqual(self.ui.predictionLabel.text, "")
        self.section.model.choose(self.folder / "models" / "random-forest.skops")
        self.ui.predictRiskButton.click()
        self.assertIn("A random forest does not explain", self.ui.predictionLabel.text)
        for one in nodules_of(self.results.table):
            self.widget.logic.review.removeNodule(self.results, one.id)
        self.section.model.choose(SUSPICION_MODEL)
        self.ui.predictRiskButton.click()
        process_events()
        self.assertEqual(self.ui.predictionLabel.text, "No nodule was found in this scan.")
        self.assertFalse(self.ui.contributionTable.visible)


if __name__ == "__main__":
    unittest.main()
