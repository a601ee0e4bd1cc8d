"""What the panels share: runs in child processes, keys, model chooser.

Runs in a real Slicer too, and on the stand-in of `slicer_host` elsewhere.
"""

import json
import subprocess
import sys
import tempfile
import unittest
from functools import partial
from pathlib import Path
from typing import Any

import slicer_host

slicer = slicer_host.start()

import qt

from CTLungScreeningLib.child_process import ChildCommand, ChildError, Pause, Work, complete
from CTLungScreeningLib.errors import Cancelled, InputError
from CTLungScreeningSlicer.panel.run_bar import (
    RunBar,
    RunProgress,
    RunState,
    WorkRunner,
    duration_text,
)
from CTLungScreeningSlicer.panel.section import Debounced, Signal
from CTLungScreeningSlicer.panel.side_by_side import LAYOUT
from CTLungScreeningSlicer.panel.slice_views import KeyShortcuts
from CTLungScreeningSlicer.panel.widgets import ModelChooser, choose_new_file
from panel_host import descendants, write_card
from slicer_host.actions import press, process_events, tool_tip, wait_until

QUICK = """
import json, sys
print(json.dumps({"stage": "Reading", "done": 1, "total": 4, "remaining_s": 180}), flush=True)
print("a line for the log", flush=True)
print(json.dumps({"result": int(sys.argv[1]) * 2}))
"""

ENDLESS = """
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(json.dumps({"stage": "Waiting", "done": 0, "total": 0, "child": child.pid}), flush=True)
time.sleep(600)
"""


def child(code: str, *arguments: str) -> ChildCommand:
    return ChildCommand([sys.executable, "-c", code, *arguments])


class Steps:
    """A piece of work that notes what happens to it."""

    def __init__(self, *commands: ChildCommand) -> None:
        self.commands = commands
        self.results: list[Any] = []
        self.cleaned = False

    def work(self) -> Work[list[Any]]:
        try:
            for command in self.commands:
                self.results.append((yield command))
            return self.results
        finally:
            self.cleaned = True


class TestWork(unittest.TestCase):
    def test_a_script_runs_it_to_its_end(self) -> None:
        steps = Steps(child(QUICK, "3"), child(QUICK, "5"))
        seen = []
        result = complete(steps.work(), lambda *progress: seen.append(progress))
        self.assertEqual(result, [6, 10])
        self.assertIn(("Reading", 1, 4), seen)
        self.assertTrue(steps.cleaned)

    def test_an_error_reaches_the_work_and_then_the_script(self) -> None:
        steps = Steps(child("raise SystemExit(3)"))
        with self.assertRaises(ChildError):
            complete(steps.work())
        self.assertTrue(steps.cleaned)

    def test_cancelling_a_script_cleans_up(self) -> None:
        steps = Steps(child(ENDLESS))

        def cancel(stage: str, done: int, total: int) -> None:
            if stage == "Waiting":
                raise Cancelled

        before = descendants()
        with self.assertRaises(Cancelled):
            complete(steps.work(), cancel)
        self.assertTrue(steps.cleaned)
        self.assertLessEqual(descendants(), before)


class TestRunner(unittest.TestCase):
    def setUp(self) -> None:
        self.runner = WorkRunner()
        self.ends: list[tuple[str, str]] = []
        self.states: list[RunState] = []
        self.runner.ended.connect(lambda *end: self.ends.append(end))
        self.runner.changed.connect(lambda: self.states.append(self.runner.state))
        self.before = descendants()

    def tearDown(self) -> None:
        self.runner.stop()

    def assert_nothing_left(self, steps: Steps) -> None:
        self.assertTrue(steps.cleaned)
        self.assertLessEqual(descendants(), self.before)
        self.assertIs(self.runner.state, RunState.IDLE)

    def test_success_goes_through_the_states(self) -> None:
        steps = Steps(child(QUICK, "21"))
        results: list[Any] = []
        logged: list[str] = []
        events: list[dict[str, Any]] = []
        self.runner.logged.connect(logged.append)
        self.runner.event.connect(events.append)
        self.runner.start(steps.work(), results.append)
        wait_until(lambda: bool(self.ends))
        self.assertEqual(results, [[42]])
        self.assertEqual(self.ends, [("", "")])
        self.assertEqual(
            list(dict.fromkeys(self.states)),
            [RunState.STARTING, RunState.RUNNING, RunState.IMPORTING, RunState.IDLE],
        )
        self.assertIn("a line for the log", "".join(logged))
        self.assertEqual([event.get("stage") for event in events], ["Reading", None])
        self.assertEqual(events[1], {"result": 42})
        self.assert_nothing_left(steps)

    def test_the_next_command_is_starting_and_not_importing(self) -> None:
        def two_commands() -> Work[None]:
            yield child(QUICK, "1")
            yield child(ENDLESS)

        self.runner.start(two_commands())
        shown: list[tuple[RunState, str]] = []
        self.runner.changed.connect(
            lambda: shown.append((self.runner.state, self.runner.progress.stage))
        )
        wait_until(lambda: self.runner.progress.stage == "Waiting")
        self.assertNotIn((RunState.RUNNING, "Importing"), shown)
        self.runner.stop()

    def test_the_window_answers_between_steps_without_a_child(self) -> None:
        shown: list[str] = []
        self.runner.changed.connect(lambda: shown.append(self.runner.progress.text))
        cleaned: list[bool] = []

        def steps() -> Work[int]:
            try:
                for done in range(4):
                    yield Pause("Outlining", done, 4)
                return 42
            finally:
                cleaned.append(True)

        events: list[int] = []
        results: list[int] = []
        soon = Debounced(lambda: events.append(len(shown)))
        self.runner.start(steps(), results.append)
        soon()
        wait_until(lambda: bool(self.ends))
        self.assertEqual((results, self.ends, cleaned), ([42], [("", "")], [True]))
        for percent in (25, 50, 75):
            self.assertIn(f"Outlining, {percent} %", shown)
        self.assertLess(events[0], len(shown), "no event was handled between the steps")
        self.runner.start(steps(), results.append)
        wait_until(lambda: self.runner.progress.percent == 25)
        self.runner.cancel()
        self.assertIs(self.runner.state, RunState.IDLE)
        self.assertEqual((results, cleaned), ([42], [True, True]))

    def test_cancel_ends_the_whole_tree_while_the_panel_lives(self) -> None:
        steps = Steps(child(ENDLESS))
        results: list[Any] = []
        self.runner.start(steps.work(), results.append)
        wait_until(lambda: self.runner.progress.stage == "Waiting")
        self.assertEqual(len(descendants() - self.before), 2)
        self.runner.cancel()
        self.assertIs(self.runner.state, RunState.CANCELLING)
        wait_until(lambda: not self.runner.busy)
        self.assertEqual((results, self.ends), ([], [("", "")]))
        self.assert_nothing_left(steps)

    def test_cancel_before_the_child_has_begun(self) -> None:
        steps = Steps(child(ENDLESS))
        self.runner.start(steps.work())
        self.runner.cancel()
        self.assertIs(self.runner.state, RunState.IDLE)
        self.assertLessEqual(descendants(), self.before)

    def test_stop_returns_when_all_has_ended(self) -> None:
        steps = Steps(child(ENDLESS))
        self.runner.start(steps.work())
        wait_until(lambda: self.runner.progress.stage == "Waiting")
        self.runner.stop()
        self.assert_nothing_left(steps)

    def test_bad_input_is_one_sentence(self) -> None:
        code = 'import json; print(json.dumps({"error": "a.nrrd is empty."})); raise SystemExit(2)'
        steps = Steps(child(code))
        self.runner.start(steps.work())
        wait_until(lambda: bool(self.ends))
        self.assertEqual(self.ends, [("a.nrrd is empty.", "")])
        self.assert_nothing_left(steps)

    def test_a_failure_has_its_log_as_details(self) -> None:
        steps = Steps(child('raise RuntimeError("disk on fire")'))
        self.runner.start(steps.work())
        wait_until(lambda: bool(self.ends))
        ((sentence, details),) = self.ends
        self.assertIn("log", sentence)
        self.assertIn("disk on fire", details)
        self.assert_nothing_left(steps)

    def test_a_command_that_is_not_there(self) -> None:
        steps = Steps(ChildCommand(["/nowhere/to/be/found"]))
        self.runner.start(steps.work())
        wait_until(lambda: bool(self.ends))
        self.assertIn("could not be started", self.ends[0][0])
        self.assert_nothing_left(steps)


class TestRunBar(unittest.TestCase):
    def setUp(self) -> None:
        self.place = qt.QWidget()
        self.place.objectName = "run"
        qt.QVBoxLayout(self.place)
        self.steps = Steps(child(QUICK, "1"))
        self.results: list[Any] = []
        self.bar = RunBar(
            self.place,
            "Predict",
            "Predict.",
            lambda: self.steps.work(),  # noqa: PLW0108 - tests set `steps` later
            self.results.append,
        )

    def tearDown(self) -> None:
        self.bar.runner.stop()

    def test_the_button_runs_and_cancels(self) -> None:
        self.steps = Steps(child(ENDLESS))
        self.bar.button.click()
        self.assertEqual(self.bar.button.text, "Cancel")
        wait_until(lambda: "Waiting" in self.bar.status)
        self.bar.button.click()
        self.assertFalse(self.bar.button.enabled)
        wait_until(lambda: self.bar.button.text == "Predict")
        self.assertTrue(self.bar.button.enabled)
        self.assertEqual(self.results, [])

    def test_a_result_and_a_log(self) -> None:
        self.bar.button.click()
        wait_until(lambda: bool(self.results))
        self.assertEqual(self.results, [[2]])
        self.assertIn("a line for the log", self.bar.log_text)

    def test_an_obstacle_becomes_the_tool_tip(self) -> None:
        self.bar.set_obstacle("Choose a volume.")
        self.assertEqual(
            (self.bar.button.enabled, tool_tip(self.bar.button)), (False, "Choose a volume.")
        )
        self.bar.set_obstacle("")
        self.assertEqual((self.bar.button.enabled, tool_tip(self.bar.button)), (True, "Predict."))

    def test_what_a_stopped_run_leaves_becomes_the_tool_tip(self) -> None:
        self.bar.button.click()
        self.assertIn("Nothing in the scene is changed.", tool_tip(self.bar.button))
        place = qt.QWidget()
        qt.QVBoxLayout(place)
        bar = RunBar(place, keeps=True)
        self.assertEqual(tool_tip(bar.button), "Stop the run. What is finished is kept.")

    def test_bad_input_is_shown(self) -> None:
        def refuse() -> Work[Any]:
            raise InputError("The volume is empty.")

        place = qt.QWidget()
        qt.QVBoxLayout(place)
        bar = RunBar(place, "Run", "", refuse, self.results.append)
        with self.assertLogs(level="ERROR") as shown:
            bar.button.click()
        self.assertIn("The volume is empty.", shown.output[0])


class TestProgressText(unittest.TestCase):
    def test_words(self) -> None:
        event = {"stage": "Reading", "done": 1, "total": 4, "remaining_s": 180.0}
        self.assertEqual(RunProgress.from_event(event).text, "Reading, 25 %, about 3 min left")
        event = {"stage": "Waiting", "done": 0, "total": 0, "remaining_s": None}
        self.assertEqual(RunProgress.from_event(event).text, "Waiting")

    def test_durations(self) -> None:
        words = {0.2: "1 s", 59: "59 s", 59.9: "1 min", 3570: "1 h", 7800: "2 h 10 min"}
        self.assertEqual({seconds: duration_text(seconds) for seconds in words}, words)


class TestNewFile(unittest.TestCase):
    def answer(self, name: str, button: str) -> Path | None:
        """Ask for a file named `name`, and press a button of the dialog."""

        def press_button() -> None:
            (dialog,) = (
                one
                for one in slicer.app.topLevelWidgets()
                if isinstance(one, qt.QFileDialog) and one.visible
            )
            getattr(dialog, button)()

        qt.QTimer.singleShot(200, press_button)
        return choose_new_file("Save the table", name, "Table (*.csv)", ".csv")

    @unittest.skipIf(slicer_host.is_real(), "the system's own dialog cannot be pressed")
    def test_nobody_is_asked_to_replace_a_file(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            there = Path(folder) / "nodules.csv"
            there.touch()
            self.assertEqual(self.answer(str(there), "accept"), there)
            self.assertEqual(self.answer(str(there.with_suffix("")), "accept"), there)
            self.assertIsNone(self.answer(str(there), "reject"))


class TestSignal(unittest.TestCase):
    def test_slots_are_called_in_order(self) -> None:
        signal, called = Signal(), []
        signal.connect(lambda value: called.append(("first", value)))
        signal.connect(lambda value: called.append(("second", value)))
        signal.emit(1)
        self.assertEqual(called, [("first", 1), ("second", 1)])


class TestShortcuts(unittest.TestCase):
    def setUp(self) -> None:
        self.pressed: list[str] = []
        window = slicer.util.mainWindow()
        window.activateWindow()
        self.slicers_own = qt.QShortcut(qt.QKeySequence("1"), window)
        self.slicers_own.activated.connect(lambda: self.pressed.append("Slicer's 1"))
        self.action = qt.QAction("Action", window)
        self.action.shortcut = qt.QKeySequence("-")
        self.action.triggered.connect(lambda *_: self.pressed.append("Slicer's -"))
        window.addAction(self.action)
        self.field = qt.QLineEdit(window)
        self.field.visible = True
        self.keys = KeyShortcuts(
            {key: partial(self.pressed.append, key) for key in ("`", "1", "0", "-")}
        )
        process_events()

    def tearDown(self) -> None:
        self.keys.disable()
        for one in (self.slicers_own, self.action, self.field):
            one.enabled = False
            one.deleteLater()

    def press_all(self) -> list[str]:
        self.pressed.clear()
        for key in ("`", "1", "0", "-"):
            press(key)
        return list(self.pressed)

    def test_alive_between_enable_and_disable(self) -> None:
        own = ["Slicer's 1", "Slicer's -"] if not slicer_host.is_real() else ["Slicer's 1"]
        self.assertEqual(self.press_all(), own)
        self.keys.enable()
        self.assertEqual(self.press_all(), ["`", "1", "0", "-"])
        self.keys.enable()
        self.keys.disable()
        self.assertEqual(self.press_all(), own)
        self.assertEqual(self.action.shortcut, qt.QKeySequence("-"))

    @unittest.skipIf(slicer_host.is_real(), "Slicer's Python has no QTest to type with")
    def test_a_text_field_keeps_its_keys(self) -> None:
        self.keys.enable()
        self.field.setFocus()
        self.pressed.clear()
        for key in "`10-":
            press(key, self.field)
        self.assertEqual((self.field.text, self.pressed), ("`10-", []))


def hidden_panels(then: str, minor: int = 12) -> list[str]:
    """Make the panels of both modules in a new process, where nobody opens them.

    Args:
        then: code that prints something of a `panel`.
        minor: of the version of Slicer.
    """
    code = f"""
import slicer_host
slicer = slicer_host.start()
import qt
from panel_host import ROOT
for name in ("CTSliceTools", "LungNoduleSeg"):
    slicer.app.moduleManager().load(ROOT / name / (name + ".py"))
    type(slicer.app).minorVersion = {minor}
    panel = slicer.util.getModuleWidget(name)
    {then}
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@unittest.skipIf(slicer_host.is_real(), "the application makes panels itself")
class TestHiddenPanel(unittest.TestCase):
    def test_a_panel_that_is_only_asked_for_takes_no_keys(self) -> None:
        """`slicer.util.getModuleLogic` makes the widget of a module that nobody has opened."""
        self.assertEqual(hidden_panels("print(panel.binding.parameters)"), ["None", "None"])

    def test_a_scene_of_two_volumes_side_by_side_has_views(self) -> None:
        """They were saved with the number of our layout; nobody has opened a panel since."""
        then = (
            "print(slicer.app.layoutManager().layoutLogic().GetLayoutNode()"
            f".IsLayoutDescription({LAYOUT}))"
        )
        self.assertEqual(hidden_panels(then), ["True", "True"])

    def test_an_old_slicer_is_named_in_one_sentence(self) -> None:
        then = (
            "(label,) = panel.parent.findChildren(qt.QLabel); print(label.text);"
            "panel.enter(); panel.exit(); panel.cleanup()"
        )
        text = "This is Slicer 5.11: the panel needs 5.12 or newer."
        self.assertEqual(hidden_panels(then, minor=11), [text, text])


class TestModelChooser(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.files = [write_card(Path(folder.name), name) for name in ("small", "large")]
        self.box = qt.QComboBox()
        self.chooser = ModelChooser(self.box, self.files[:1])

    def test_the_bundled_model_comes_first_with_its_card(self) -> None:
        self.assertEqual(self.chooser.file, self.files[0])
        self.assertEqual(self.box.currentText, "The small one")
        self.assertIn("Says where a slice lies.", self.box.toolTip)
        self.assertIn("• Children.", self.box.toolTip)

    def test_a_file_is_added_once(self) -> None:
        seen: list[Path] = []
        self.chooser.changed.connect(seen.append)
        self.chooser.choose(self.files[1])
        self.chooser.choose(self.files[0])
        self.chooser.choose(self.files[1])
        self.assertEqual(seen, [self.files[1], self.files[0], self.files[1]])
        self.assertEqual(self.box.count, 3)

    def test_a_model_trained_anew_under_its_name_shows_its_new_card(self) -> None:
        self.chooser.choose(self.files[1])
        card_file = self.files[1].with_suffix(".json")
        card = json.loads(card_file.read_text())
        card_file.write_text(json.dumps(card | {"name": "The new one", "summary": "New."}))
        self.chooser.choose(self.files[1])
        self.assertEqual(self.box.currentText, "The new one")
        self.assertIn("New.", self.box.toolTip)
        self.assertEqual(self.box.count, 3)

    def test_a_file_that_is_no_model_changes_nothing(self) -> None:
        broken = self.files[1]
        broken.write_bytes(b"other")
        with self.assertRaises(InputError):
            self.chooser.choose(broken)
        self.assertEqual((self.chooser.file, self.box.count), (self.files[0], 2))

    def test_a_scene_names_the_bundled_model_by_nothing(self) -> None:
        self.assertEqual(self.chooser.scene_name, "")
        self.chooser.choose_named(str(self.files[1]))
        self.assertEqual(self.chooser.scene_name, str(self.files[1]))
        self.chooser.choose_named("")
        self.assertEqual(self.chooser.file, self.files[0])

    def test_a_model_of_a_scene_that_is_gone_or_damaged_changes_nothing(self) -> None:
        self.chooser.choose_named(str(self.files[1].with_name("gone.keras")))
        self.assertEqual(self.chooser.file, self.files[0])
        self.files[1].write_bytes(b"other")
        self.chooser.choose_named(str(self.files[1]))
        self.assertEqual(self.chooser.file, self.files[0])
