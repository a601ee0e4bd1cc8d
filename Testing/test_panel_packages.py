"""Python packages that the panels install, asked for once and never against the user's.

Runs in a real Slicer too, and on the stand-in of `slicer_host` elsewhere.
"""

import os
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import slicer_host

slicer = slicer_host.start()

import qt

from CTLungScreeningSlicer.panel import packages
from panel_host import ROOT


class TestPackages(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "requirements.txt"

    def test_what_is_there_is_not_installed_again(self) -> None:
        self.file.write_text("# a comment\nnumpy>=1.20\n\nnothing>=1; python_version < '3'\n")
        self.assertEqual(packages.missing_requirements(self.file), [])
        self.assertTrue(packages.ensure_packages(self.file, "CT Slice Tools"))

    def test_a_package_for_a_graphics_card_is_the_same(self) -> None:
        self.file.write_text("onnxruntime>=1.20\n")

        def version(name: str) -> str:
            if name != "onnxruntime-gpu":
                raise packages.importlib.metadata.PackageNotFoundError(name)
            return "1.21"

        with mock.patch.object(packages.importlib.metadata, "version", version):
            self.assertEqual(packages.missing_requirements(self.file), [])

    def test_what_is_missing_or_too_old(self) -> None:
        self.file.write_text("numpy>=999\nct-slice-tools-nowhere>=1  # not there\n")
        missing = packages.missing_requirements(self.file)
        self.assertEqual([one.name for one in missing], ["numpy", "ct-slice-tools-nowhere"])

    def test_what_is_replaced_is_named(self) -> None:
        self.file.write_text("numpy>=999\nct-slice-tools-nowhere>=1\n")
        self.assertFalse(self.install(answer=False))
        self.assertIn("2 Python packages that are missing or too old", self.asked[0])
        old = packages.importlib.metadata.version("numpy")
        self.assertIn(f"other extensions may need: numpy {old} → ≥999.", self.asked[0])
        self.assertNotIn("Nothing", self.asked[0])

    def test_the_hosts_packages_are_pinned(self) -> None:
        self.file.write_text("numpy>=999\n")
        pins = packages.installed_constraints(packages.missing_requirements(self.file))
        names = {pin.split("==")[0].lower() for pin in pins}
        self.assertIn("pydicom", names)
        self.assertNotIn("numpy", names)

    def test_the_version_that_python_finds_is_pinned(self) -> None:
        folder = self.file.parent / "left"
        for leftover in ("numpy-0.1", "~umpy-0.2"):
            about = folder / f"{leftover}.dist-info"
            about.mkdir(parents=True)
            (about / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
        self.addCleanup(sys.path.remove, str(folder))
        sys.path.append(str(folder))
        pins = [pin for pin in packages.installed_constraints([]) if pin.startswith("numpy==")]
        self.assertEqual(pins, [f"numpy=={packages.importlib.metadata.version('numpy')}"])

    def test_what_was_replaced_needs_a_restart(self) -> None:
        self.file.write_text("nowhere_four>=1\n")
        self.write_wheel("nowhere_four")
        old = self.file.parent / "old"
        (old / "nowhere_four-0.dist-info").mkdir(parents=True)
        (old / "nowhere_four-0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: nowhere_four\nVersion: 0\n"
        )
        sys.path.append(str(old))

        def remove_old() -> None:  # as pip does, which installs beside it here
            sys.path.remove(str(old))

        with self.assertLogs(level="WARNING") as shown:
            self.assertFalse(self.install(during=remove_old))
            self.assertFalse(packages.ensure_packages(self.file, "CT Slice Tools"))
        self.assertEqual(len(shown.output), 2)
        self.assertIn("Restart Slicer to use the new nowhere_four", shown.output[0])

    def test_what_was_replaced_before_the_cancel_needs_a_restart(self) -> None:
        self.file.write_text("nowhere_five>=1\n")
        versions = ["0"]
        with (
            mock.patch.object(packages, "_installed_version", lambda _: versions[-1]),
            mock.patch.object(packages, "_install", lambda _: versions.append("1")),
        ):
            self.assertFalse(self.install())
            with self.assertLogs(level="WARNING") as shown:
                self.assertFalse(packages.ensure_packages(self.file, "CT Slice Tools"))
        self.assertIn("Restart Slicer to use the new nowhere_five", shown.output[0])

    def test_the_remedy_fits_what_pip_says(self) -> None:
        for output, remedy in (
            ("ERROR: [Errno 13] Permission denied: '/opt/Slicer'", "install Slicer where you may"),
            ("ERROR: [Errno 28] No space left on device", "free space on the disk"),
            ("ERROR: ResolutionImpossible: for help", "update the extensions"),
            ("ERROR: No matching distribution found", "check the internet connection"),
        ):
            self.assertIn(f"installed: {remedy}", packages.failure_message([], output))

    def install(self, *, answer: bool = True, during: Any = lambda: None) -> bool:
        """Install into a folder of its own, from the wheels beside the requirements only."""
        self.asked: list[str] = []

        def confirm(text: str, title: str, detailedText: str) -> bool:  # noqa: N803
            self.asked += [text, detailedText]
            return answer

        target = self.file.parent / "target"
        self.addCleanup(sys.path.remove, str(target))
        sys.path.append(str(target))
        where = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.file.parent)}
        timer = qt.QTimer()
        timer.setProperty("singleShot", True)
        timer.timeout.connect(during)
        timer.start(0)
        with (
            mock.patch.dict(os.environ, {**where, "PIP_TARGET": str(target)}),
            mock.patch.object(packages, "may_install", lambda: True),
            mock.patch.object(slicer.util, "confirmOkCancelDisplay", confirm),
        ):
            return packages.ensure_packages(self.file, "CT Slice Tools")

    def write_wheel(self, name: str = "nowhere_one") -> None:
        """Write a package that pip can install."""
        about = f"{name}-1.dist-info"
        with zipfile.ZipFile(self.file.parent / f"{name}-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", "")
            wheel.writestr(
                f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
            )
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")

    def test_one_installation_at_a_time_with_size_said_and_progress_shown(self) -> None:
        self.file.write_text("# About 300 MB on the disk.\nnowhere_one>=1\n")
        self.write_wheel()
        meanwhile: list[Any] = []

        def press_again() -> None:
            windows = slicer.util.mainWindow().findChildren(qt.QProgressDialog)
            meanwhile.extend((windows[-1].visible, windows[-1].windowModality))
            meanwhile.append(packages.ensure_packages(self.file, "CT Slice Tools"))

        self.assertTrue(self.install(during=press_again))
        self.assertEqual(meanwhile, [True, qt.Qt.ApplicationModal, False])
        self.assertEqual(len(self.asked), 2)
        self.assertIn("1 Python package that is not installed", self.asked[0])
        self.assertIn("Nothing that is installed is changed", self.asked[0])
        self.assertIn("up to 300 MB on the disk, and about 2 min", self.asked[0])

    def test_declined_or_cancelled_nothing_is_said(self) -> None:
        self.file.write_text("nowhere_two>=1\n")
        self.assertFalse(self.install(answer=False))

        def cancel() -> None:
            slicer.util.mainWindow().findChildren(qt.QProgressDialog)[-1].cancel()

        self.assertFalse(self.install(during=cancel))

    def test_what_is_not_to_be_had_is_one_message(self) -> None:
        self.file.write_text("nowhere_three>=1\n")
        with self.assertLogs(level="ERROR") as shown:
            self.assertFalse(self.install())
        self.assertEqual(len(shown.output), 1)

    def test_the_modules_say_what_their_packages_take(self) -> None:
        for file in ROOT.glob("*/Resources/*/requirements*.txt"):
            self.assertIsNotNone(packages.size_mb(file), file)

    def test_a_failure_is_one_message_with_the_command(self) -> None:
        self.file.write_text("ct-slice-tools-nowhere>=1\n")
        with self.assertLogs(level="ERROR") as shown:
            there = packages.ensure_packages(self.file, "CT Slice Tools")
        self.assertFalse(there)
        self.assertEqual(len(shown.output), 1)
        self.assertIn("may replace packages", shown.output[0])
        self.assertIn('PythonSlicer -m pip install "ct-slice-tools-nowhere>=1"', shown.output[0])
