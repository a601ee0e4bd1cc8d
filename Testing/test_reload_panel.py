"""Developer mode's buttons Reload and Test work, in Slicer or on its stand-in."""

import unittest

import slicer_host

slicer = slicer_host.start()

from panel_host import add_scan, leave_panel, open_panel
from slicer_host.actions import process_events


class TestReload(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def tearDown(self) -> None:
        leave_panel()
        slicer.mrmlScene.Clear()
        process_events()

    def test_sections_and_logic_are_read_again(self) -> None:
        for name, section in (("CTSliceTools", "annotate"), ("LungNoduleSeg", "segment")):
            with self.subTest(name):
                before = open_panel(name)
                volume = add_scan()
                before.onReload()
                process_events()
                after = open_panel(name)
                for part in (section, "logic"):
                    old, new = type(getattr(before, part)), type(getattr(after, part))
                    self.assertEqual(old.__qualname__, new.__qualname__)
                    self.assertIsNot(old, new)
                after.chooseVolume(volume)
                self.assertIs(after.binding.parameters.volume, volume)
                self.assertIsNone(before.binding.parameters)

    def test_the_modules_own_test_runs_also_after_a_reload(self) -> None:
        for name in ("CTSliceTools", "LungNoduleSeg"):
            with self.subTest(name):
                panel = open_panel(name)
                slicer.selfTests[name](msec=0)
                panel.onReload()
                slicer.selfTests[name](msec=0)
                self.assertIsNone(panel.binding.parameters)
